//! All integration tests, in one binary.

#![allow(clippy::unwrap_used)]

mod contract;
mod import;
mod process;
mod support;
mod template;
