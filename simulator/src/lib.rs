//! Simulators.

pub mod aws;
