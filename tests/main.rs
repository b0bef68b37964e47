//! All integration tests, in one binary.

mod contract;
mod import;
mod process;
mod support;
mod template;
