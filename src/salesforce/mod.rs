//! Salesforce's API: sessions, queries, changes, writes with one verdict for each record, Bulk jobs.
//!
//! [`org`] carries every call. [`query`] and [`changes`] read, [`write`](mod@write), [`rows`] and [`bulk`] write, [`describe`] tells what fields
//! there are. [`soql`] is the only way to make a statement. [`fault`], [`retry`], [`quota`] and [`model`] are pure.

mod auth;
pub mod bulk;
pub mod changes;
mod csv;
pub mod describe;
pub mod fault;
pub mod model;
pub mod org;
pub mod query;
pub mod quota;
pub mod retry;
pub mod rows;
pub mod soql;
pub mod write;
