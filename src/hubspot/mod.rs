//! HubSpot's API: calls, batches, verdicts, property definitions.
//!
//! [`account`] carries every call; [`batch`] and [`properties`] are what the jobs use; [`verdict`] and [`envelope`] read what
//! HubSpot answers, and are pure.

pub mod account;
pub mod batch;
pub mod envelope;
pub mod model;
pub mod paths;
pub mod properties;
pub mod verdict;
