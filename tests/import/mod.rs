//! The import job, whole, against the simulated portal.

mod bad_input;
mod basics;
mod ends;
mod faults;
mod golden;
mod modes;
mod pairs;
mod plan;
mod preflight;
mod survival;
