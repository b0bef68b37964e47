//! All integration tests, in one binary.

mod contract;
mod import;
mod limits;
mod support;
mod template;
