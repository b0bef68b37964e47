//! HubSpot, Salesforce and the AWS services that hubferry uses, as state machines on loopback and in process.
//!
//! | module | what it stands for |
//! |---|---|
//! | [`hubspot`] | a HubSpot portal: objects, properties, search, limits, faults |
//! | [`salesforce`] | a Salesforce org: objects, SOQL, collections, Bulk jobs, limits, faults |
//! | [`aws`] | S3, DynamoDB, Secrets Manager, SQS and the Lambda Runtime API |

pub mod aws;
pub mod hubspot;
pub mod salesforce;
