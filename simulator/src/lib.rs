//! HubSpot and the AWS services that hubferry uses, as state machines on loopback and in process.

pub mod hubspot;
