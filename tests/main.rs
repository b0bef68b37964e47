//! All integration tests, in one binary.

#![allow(clippy::unwrap_used)]

mod capture;
mod contract;
mod delivery;
mod erase;
mod fuzz;
mod hubspot;
mod import;
mod limits;
mod process;
mod salesforce;
mod signals;
mod support;
mod sync;
mod template;
