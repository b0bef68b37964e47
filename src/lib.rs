//! hubferry moves CRM records between S3, HubSpot and Salesforce from one Lambda function.
//!
//! Three jobs (import, capture, sync) are short programs over one small library. Decisions are pure
//! functions; whatever touches the world passes one of a few narrow doors, so that the same code runs on AWS,
//! on a laptop against the simulators over loopback, and inside a seeded simulation:
//!
//! | door | trait | what is behind it |
//! |---|---|---|
//! | CRM over HTTP | [`http::HttpService`] | reqwest; a simulator in process |
//! | time and chance | [`clock::Clock`], [`clock::Rng`] | the system; paused tokio time and a seed |
//! | files | [`objects::Objects`] | S3; a folder; a machine's own files; memory |
//! | state | [`state::Table`] | DynamoDB; a local file; memory |
//!
//! Two smaller ones, [`secrets::Secrets`] and [`queue::Queue`], complete the set; [`app`] is the only
//! module that names the concrete types behind them. [`aws`] builds the clients of those that are AWS services.
//!
//! | module | what it holds |
//! |---|---|
//! | [`event`] | what woke us, and which job that means |
//! | [`capture`] | the capture job: HubSpot's records and their changes, to S3 |
//! | [`config`] | `hubferry.yaml` as typed values, checked once |
//! | [`csv`] | bytes in, rows out: encoding, compression, dialect, records; no I/O |
//! | [`mapping`] | rows in, HubSpot inputs out: columns to properties, cells to values; no I/O |
//! | [`hubspot`] | HubSpot's API: calls, batches, verdicts, reads, search, associations, keys that are not unique, property definitions |
//! | [`capture`] | the capture job: from HubSpot's records and their changes to objects in S3 |
//! | [`salesforce`] | Salesforce's API: sessions, queries, changes, collections, single records, Bulk jobs |
//! | [`import`] | the import job: the flow from an object in S3 to records in HubSpot |
//! | [`capture`] | the capture job: HubSpot's snapshot and changes, to objects in S3 |
//! | [`state`] | runs, leases, positions, contexts and the account's shared limit, on top of the table |
//! | [`http`] | around the CRM door: the client, retries, the pace of an account's calls, tokens |
//! | [`record`], [`report`] | what passes between the modules: inputs, reasons, rejects; and what a run says when it ends |
//! | [`erase`] | removes a person from what was written |
//! | [`metrics`], [`notify`], [`trace`] | what leaves an invocation besides its answer: figures, messages, time spent |
//! | [`error`], [`codes`] | what can go wrong, who acts on it, and the page that explains it |

pub mod app;
pub mod aws;
pub mod capture;
pub mod clock;
pub mod codes;
pub mod config;
pub mod csv;
pub mod erase;
pub mod error;
pub mod event;
pub mod http;
pub mod hubspot;
pub mod import;
pub mod logging;
pub mod mapping;
pub mod metrics;
pub mod mutate;
pub mod notify;
pub mod objects;
pub mod queue;
pub mod record;
pub mod report;
pub mod salesforce;
pub mod secrets;
pub mod state;
pub mod sync;
pub mod trace;
mod trust;

pub use error::{Error, ErrorKind, Result};
