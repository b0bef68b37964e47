//! The sync job: Salesforce and HubSpot in step, both ways.
//!
//! ```text
//! schedule ─► which syncs? ─► begin (one open run per sync) ─► lease ─► mapping checked ─► counted, where much has changed
//!   ─► what changed on either side (ids) ─► links ─► both records read ─► merged field by field over two shadows
//!   ─► intent ─► written ─► read back ─► shadows ─► position
//! ```
//!
//! Why it is done so: `docs/decisions/0016-sync.md`.

pub mod decide;
pub mod fields;
pub mod links;
pub mod model;
pub mod reviews;
pub mod todo;
pub mod values;
