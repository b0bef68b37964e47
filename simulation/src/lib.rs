//! Whole runs under a seed: worlds in which hubferry's jobs fail, die and overlap, and what must hold afterwards.
//!
//! A seed makes a world: what stands in the accounts, the files, limits, latencies and fault rates. In it the real jobs run against
//! the simulators in virtual time while people edit, answers are lost and processes are killed between any two steps. The oracle is a
//! plain model that knows nothing of the jobs' code. The same seed is the same world, step by step.

pub mod scale;

pub use scale::{Failure, Job, Lived, Scale, Trace};
