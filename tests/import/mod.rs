//! The import job, whole, against the simulated portal.

mod basics;
mod modes;
