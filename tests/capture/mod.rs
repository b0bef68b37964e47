//! Captures: what they write, as somebody who reads it sees it.

pub(crate) mod opencdc;
mod parquet;
