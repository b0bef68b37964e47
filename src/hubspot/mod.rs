//! HubSpot's API: calls, batches, verdicts, property definitions.

pub mod model;
