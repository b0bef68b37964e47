//! Captures: what they write, as somebody who reads it sees it.

mod csv;
pub(crate) mod opencdc;
mod parquet;
