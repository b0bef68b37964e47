//! The import job, whole, against the simulated portal.

mod bad_input;
mod basics;
mod golden;
mod modes;
mod survival;
