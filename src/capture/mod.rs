//! The capture job: HubSpot's records and their changes, to S3.

pub mod change;
pub mod output;
