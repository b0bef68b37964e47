//! Jobs from the command line as a user runs them: the real binary, a simulated HubSpot and an embedded AWS on loopback.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod commands;
mod erase;
mod import;
mod look;
mod pandium;
mod plan;
mod serve;
mod sync;
mod world;
