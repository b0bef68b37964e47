//! All integration tests, in one binary.

mod contract;
mod import;
mod support;
mod template;
