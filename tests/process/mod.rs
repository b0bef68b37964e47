//! The function as it is deployed: the real binary as a child process, its real AWS and HTTP clients, everything else on loopback.

mod capture;
mod configuration;
mod crash;
mod credentials;
mod events;
mod faults;
mod files;
pub(crate) mod harness;
mod privacy;
mod trust;
