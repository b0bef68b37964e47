//! A world for whole jobs: the simulated portal in process, files, state and secrets in memory, virtual time, one seed. It lives in
//! `simulation/`, where whole runs are lived through under a seed.

pub(crate) use hubferry_simulation::world::*;
