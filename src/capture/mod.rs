//! The capture job: HubSpot's records and their changes, complete, to objects in S3.

pub mod scan;
