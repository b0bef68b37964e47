//! HubSpot's API: calls, batches, verdicts, property definitions.
//!
//! [`account`] carries every call; [`batch`], [`read`], [`search`], [`associations`], [`adopt`], [`scan`] and [`properties`] are what the jobs use;
//! [`verdict`] and [`envelope`] read what HubSpot answers, and are pure.

pub mod account;
pub mod adopt;
pub mod associations;
pub mod batch;
pub mod cms;
pub mod envelope;
pub mod model;
pub mod paths;
pub mod properties;
pub mod read;
pub mod records;
pub mod resources;
pub mod scan;
pub mod scopes;
pub mod search;
mod skim;
pub mod verdict;
