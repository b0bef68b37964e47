//! All integration tests, in one binary.

mod contract;
mod hubspot;
mod import;
mod limits;
mod support;
mod template;
