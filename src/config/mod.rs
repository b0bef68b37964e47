//! `hubferry.yaml` as typed values.
//!
//! Settings are values only; the parts that are built from them are in [`crate::app`]. The types here are the one
//! definition of the file: the JSON Schema under `schema/` is generated from them, and the check that names every
//! problem of a file at once (in [`load`]) works from that schema.

mod check;
pub mod environment;
mod glob;
pub mod load;
mod matching;
mod rules;
#[cfg(test)]
mod schema_tests;
mod tree;

pub(crate) use check::{nearest, quoted};
pub use environment::{ConfigSource, Environment};
pub use matching::Matcher;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::ObjectType;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Config {
    /// Version of the file's format: 1.
    pub version: u32,
    /// HubSpot accounts by name; jobs use `default` unless they name another.
    #[serde(default)]
    pub hubspot: BTreeMap<String, HubSpotAccount>,
    /// Salesforce orgs by name. Not used by this version.
    #[serde(default)]
    pub salesforce: BTreeMap<String, SalesforceOrg>,
    /// What to do with objects that land in S3.
    #[serde(default)]
    pub imports: Vec<Import>,
    /// What to capture from HubSpot, on a schedule.
    #[serde(default)]
    pub captures: Vec<Capture>,
    /// What to keep in step with Salesforce, on a schedule. Checked, but not done by this version.
    #[serde(default)]
    pub syncs: Vec<Sync>,
    /// Where reports and the like of jobs go that have no bucket of their own: `s3://bucket/` or `s3://bucket/prefix/`.
    /// Not used by this version.
    #[serde(default)]
    pub data: Option<String>,
    /// Whom to tell of failures, unusual rejects, deletes that were stopped, a growing review queue, and recoveries.
    #[serde(default)]
    pub notify: Notify,
    /// Whether invocations are traced.
    #[serde(default)]
    pub traces: Traces,
}

/// One HubSpot portal and the credential for it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HubSpotAccount {
    /// Secrets Manager id of the credential. JSON: {"access_token"} or {"client_id","client_secret","refresh_token"}.
    pub secret: String,
    /// Where the API is. EU portals and tests have hosts of their own.
    #[serde(default = "defaults::base_url")]
    pub base_url: String,
    /// `2026-09` or another dated version, or `v3`.
    #[serde(default = "defaults::api_version")]
    pub api_version: String,
    /// The account's limits. What is not set is learned from HubSpot's answers.
    #[serde(default)]
    pub limits: Limits,
}

/// Limits of one HubSpot account.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limits {
    /// Calls per interval: 100 on Free and Starter, 190 on Professional and Enterprise.
    #[serde(default)]
    pub burst: Option<u32>,
    /// The interval, in seconds. Default 10.
    #[serde(default)]
    pub interval_seconds: Option<u32>,
    /// Calls per day, of all the account's apps together.
    #[serde(default)]
    pub daily: Option<u64>,
    /// How much of a day's calls is left to other apps: a share (`10%`) or a number of calls. Default 10%.
    #[serde(default)]
    pub daily_reserve: Option<Amount>,
    /// Searches per second, of all the account's apps together. HubSpot allows 5; default 4.
    #[serde(default)]
    pub search_per_second: Option<u32>,
}

/// A share of something (`10%`) or an absolute number.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "AmountText", into = "AmountText")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(with = "AmountText"))]
pub enum Amount {
    /// From 0 to 1.
    Share(f64),
    /// A number.
    Count(u64),
}

impl Amount {
    /// The amount out of `total`, rounded down.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a count"
    )]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Share(share) => (total as f64 * share) as u64,
            Self::Count(count) => count,
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum AmountText {
    Number(u64),
    Text(#[cfg_attr(test, schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)? ?%$|^[0-9]+$")))] String),
}

impl TryFrom<AmountText> for Amount {
    type Error = String;

    fn try_from(text: AmountText) -> Result<Self, String> {
        match text {
            AmountText::Number(count) => Ok(Self::Count(count)),
            AmountText::Text(text) => match text.trim().strip_suffix('%') {
                Some(percent) => match percent.trim().parse::<f64>() {
                    Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Share(percent / 100.0)),
                    _ => Err(format!("`{text}` is not a share between 0% and 100%")),
                },
                None => text
                    .trim()
                    .parse()
                    .map(Self::Count)
                    .map_err(|_| format!("`{text}` is neither a share (`10%`) nor a number")),
            },
        }
    }
}

impl From<Amount> for AmountText {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Share(share) => Self::Text(format!("{}%", share * 100.0)),
            Amount::Count(count) => Self::Number(count),
        }
    }
}

/// One Salesforce org and the credential for it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SalesforceOrg {
    /// Secrets Manager id of the credential. JSON with "flow": client_credentials, jwt, refresh_token or password.
    pub secret: String,
    /// For example `67.0`.
    #[serde(default = "defaults::salesforce_api_version")]
    pub api_version: String,
    /// The org's id, 15 or 18 characters. With it a credential of another org is refused; without it the first run remembers the org.
    #[serde(default)]
    pub org_id: Option<String>,
    /// Where a run stops, so that the user's other apps have calls left.
    #[serde(default)]
    pub quota: SalesforceQuota,
}

/// How much of an org's calls of a day may be used: a share (`80%`) or a number.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SalesforceQuota {
    /// By everybody.
    pub org: Amount,
    /// By one run.
    pub run: Amount,
}

impl Default for SalesforceQuota {
    fn default() -> Self {
        Self { org: Amount::Share(0.80), run: Amount::Share(0.25) }
    }
}

/// What to do with the objects that match a pattern.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Import {
    /// Names the import in reports, paths and the command line: letters, digits, `-`, `_`.
    pub name: String,
    /// Glob over the object key. `*` stays within a folder, `**` does not; the most specific pattern wins.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The account, by its name under `hubspot`.
    #[serde(default = "defaults::account")]
    pub hubspot: String,
    /// What the file is.
    #[serde(default)]
    pub format: Format,
    /// How the CSV is written, where it should not be detected.
    #[serde(default)]
    pub csv: CsvSettings,
    /// The HubSpot object that rows become. Either this, `records` or `resource`.
    #[serde(default)]
    pub object: Option<ObjectType>,
    /// The HubSpot property that identifies a record.
    #[serde(default)]
    pub key: Option<String>,
    /// Column to property. Left out, headers are mapped to properties of the same name or label.
    #[serde(default)]
    pub columns: Option<BTreeMap<String, ColumnRule>>,
    /// Several records per row.
    #[serde(default)]
    pub records: Vec<RecordRule>,
    /// Which of the row's records to associate.
    #[serde(default)]
    pub associate: Vec<AssociateRule>,
    /// What OpenCDC records are delivered to: a Conduit resource, for example `crm.deals`, or any HubSpot object type.
    #[serde(default)]
    pub resource: Option<String>,
    /// What to do with each row.
    #[serde(default)]
    pub mode: Mode,
    /// What an empty cell means, unless the column says otherwise.
    #[serde(default)]
    pub blank: Blank,
    /// Do not send rows that equal what the last run of this import delivered.
    #[serde(default)]
    pub skip_unchanged: bool,
    /// Create custom properties that are missing, and a unique one of hubferry's own where a key needs it. With `format: opencdc` it says that
    /// the ids in the records are those of another account: the property holds them, and records are found by it.
    #[serde(default)]
    pub create_properties: bool,
    /// Stop when more than this share of the rows (or this many) is rejected; a share is judged from the 1,000th row on.
    #[serde(default = "defaults::abort_if_rejected")]
    pub abort_if_rejected: Amount,
    /// Mode `mirror`: stop before archiving when more than this share of the last file's records would go.
    #[serde(default = "defaults::mirror_max_archived")]
    pub mirror_max_archived: Amount,
    /// Keep old values in S3 before they change; costs a read per batch.
    #[serde(default)]
    pub before_images: bool,
    /// `full`: read and check the whole file before the first write.
    #[serde(default)]
    pub preflight: Preflight,
}

/// What an input file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Format {
    /// Text with columns.
    #[default]
    Csv,
    /// One flat JSON object a line.
    Jsonl,
    /// OpenCDC records, one a line; each carries its operation.
    Opencdc,
}

/// How a CSV file is written. What is left out is detected and reported.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CsvSettings {
    /// One character, for example `;` or a tab.
    #[serde(default)]
    pub delimiter: Option<char>,
    /// One character; default `"`.
    #[serde(default)]
    pub quote: Option<char>,
    /// Whether the first line names the columns. Without a header the columns are called `1`, `2`, ….
    #[serde(default)]
    pub header: Option<bool>,
    /// The text's encoding.
    #[serde(default)]
    pub encoding: Option<Encoding>,
}

/// Text encodings that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, little endian.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big endian.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// Windows-1252 (Western European; contains ISO-8859-1).
    #[serde(rename = "windows-1252")]
    Windows1252,
}

/// What to do with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Mode {
    /// Create the record, or update it where the key exists.
    #[default]
    Upsert,
    /// Create only: an existing key is a reject.
    Create,
    /// Update only: a missing key is a reject.
    Update,
    /// Archive the record.
    Archive,
    /// Upsert, then archive what the last file had and this one lacks.
    Mirror,
}

/// What an empty cell means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Blank {
    /// Keep the old value.
    #[default]
    Keep,
    /// Clear the property.
    Clear,
}

/// When a property is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Fill {
    /// Whenever the cell has a value.
    #[default]
    Always,
    /// Only where HubSpot holds none; costs a read per batch.
    IfEmpty,
}

/// Whether the whole file is checked before the first write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Preflight {
    /// The mapping is checked, rows as they come.
    #[default]
    Mapping,
    /// Every row is read and checked first: a file that `abort_if_rejected` would stop is not begun.
    Full,
}

/// A column's property, alone or with details.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ColumnRule {
    /// The property's internal name.
    Property(String),
    /// With details.
    Detailed(ColumnDetails),
}

impl ColumnRule {
    /// The rule with all its details.
    pub fn details(&self) -> ColumnDetails {
        match self {
            Self::Property(property) => ColumnDetails { property: property.clone(), ..ColumnDetails::default() },
            Self::Detailed(details) => details.clone(),
        }
    }
}

/// How a column becomes a property.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ColumnDetails {
    /// The property's internal name.
    pub property: String,
    /// The format of dates in this column, in strftime's notation: `%d/%m/%Y`. Left out, it is detected.
    #[serde(default)]
    pub date: Option<String>,
    /// Cell to value, where they differ. Compared without regard to case.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// What an empty cell means, if not what the import says.
    #[serde(default)]
    pub blank: Option<Blank>,
    /// When the property is written.
    #[serde(default)]
    pub fill: Fill,
}

/// One of several records of a row.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordRule {
    /// The HubSpot object.
    pub object: ObjectType,
    /// The property that identifies a record.
    pub key: String,
    /// Column to property.
    pub columns: BTreeMap<String, ColumnRule>,
}

/// Two of a row's records to associate.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AssociateRule {
    /// Object of one record of the row.
    pub from: ObjectType,
    /// Object of the other.
    pub to: ObjectType,
    /// The association's label; left out, the default association is made.
    #[serde(default)]
    pub label: Option<String>,
}

/// What to capture from HubSpot.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Capture {
    /// Names the capture.
    pub name: String,
    /// The account, by its name under `hubspot`.
    #[serde(default = "defaults::account")]
    pub hubspot: String,
    /// A Conduit resource name (`crm.contacts`), or any HubSpot object type.
    pub resource: String,
    /// `s3://bucket/prefix/`.
    pub output: String,
    /// Start with everything that exists.
    #[serde(default = "defaults::yes")]
    pub snapshot: bool,
    /// Properties beyond the default ones, or `all`.
    #[serde(default)]
    pub extra_properties: ExtraProperties,
    /// How records are written.
    #[serde(default)]
    pub format: CaptureFormat,
    /// How objects are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// How far to trail HubSpot's clock, so that its search index has caught up.
    #[serde(default = "defaults::lag_seconds")]
    pub lag_seconds: u32,
    /// How far the second pass trails, which finds what the index showed late.
    #[serde(default = "defaults::trailing_seconds")]
    pub trailing_seconds: u32,
    /// Capture archived records as deletes.
    #[serde(default = "defaults::yes")]
    pub deletes: bool,
    /// Objects whose associations are captured as changes.
    #[serde(default)]
    pub associations: Vec<ObjectType>,
    /// Fill `payload.before` from the property history.
    #[serde(default)]
    pub before: bool,
}

/// Properties beyond the default ones.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ExtraProperties {
    /// These.
    Names(Vec<String>),
    /// Every property the object has.
    All(AllWord),
}

impl Default for ExtraProperties {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum AllWord {
    /// Every one.
    All,
}

/// How a capture writes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum CaptureFormat {
    /// Conduit's OpenCDC v1, one JSON record a line.
    #[default]
    Opencdc,
    /// Flat JSON objects, one a line.
    Jsonl,
    /// Text with columns.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// How objects are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    #[default]
    Zstd,
}

/// Two objects to keep in step.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sync {
    /// Names the sync.
    pub name: String,
    /// The account, by its name under `hubspot`.
    #[serde(default = "defaults::account")]
    pub hubspot: String,
    /// The org, by its name under `salesforce`.
    #[serde(default = "defaults::account")]
    pub salesforce: String,
    /// HubSpot's side.
    pub hubspot_object: ObjectType,
    /// Salesforce's side, for example `Contact`.
    pub salesforce_object: String,
    /// Which fields, and who wins.
    pub fields: Vec<SyncField>,
    /// The fields that hold the other side's id.
    #[serde(default)]
    pub links: Option<SyncLinks>,
    /// What to do with a true conflict.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// Where missing records are created.
    #[serde(default)]
    pub create: SyncCreate,
    /// What a deletion on one side means.
    #[serde(default)]
    pub deletes: SyncDeletes,
    /// What one run may do at most.
    #[serde(default)]
    pub limits: SyncLimits,
    /// The pair of fields by which records without a link are recognised; each value must be unique on both sides. Without it `email` for
    /// contacts and leads and `domain` for companies, where the fields have it; else records are known by their cross-ids alone.
    #[serde(default, rename = "match")]
    pub matched_by: Option<SyncMatch>,
    /// The sync that keeps accounts and companies in step, for the account of a contact; without it the one that has these objects.
    #[serde(default)]
    pub accounts: Option<String>,
}

/// The pair of fields by which records without a link are recognised.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SyncMatch {
    /// HubSpot property.
    pub hubspot: String,
    /// Salesforce field.
    pub salesforce: String,
}

/// One pair of fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SyncField {
    /// HubSpot property.
    pub hubspot: String,
    /// Salesforce field.
    pub salesforce: String,
    /// Who wins.
    pub rule: SyncRule,
    /// What to do with a true conflict, if not what the sync says.
    #[serde(default)]
    pub on_conflict: Option<OnConflict>,
    /// HubSpot's values by Salesforce's, where they are called differently: `{ Hot: opportunity }`.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// A text that is too long for Salesforce is cut there, and the longer one stays in HubSpot; otherwise it is refused.
    #[serde(default)]
    pub truncate: bool,
    /// What a record without a value gets in Salesforce where Salesforce wants one, `[unknown]` for instance. It never comes back.
    #[serde(default)]
    pub placeholder: Option<String>,
    /// Salesforce is only written if the record has not been changed since it was read, to the second; one call a record.
    #[serde(default)]
    pub strict: bool,
}

/// Who wins, in HubSpot's own words, and one-way rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SyncRule {
    /// The side that changed.
    TwoWay,
    /// Salesforce, unless it is blank there.
    PreferSalesforceUnlessBlank,
    /// Salesforce.
    AlwaysSalesforce,
    /// HubSpot, unless it is blank there.
    PreferHubspotUnlessBlank,
    /// HubSpot.
    AlwaysHubspot,
    /// Neither: the field is left alone.
    DontSync,
}

/// What to do with a true conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum OnConflict {
    /// Freeze the field and ask a person.
    #[default]
    Review,
    /// Salesforce wins.
    Salesforce,
    /// HubSpot wins.
    Hubspot,
    /// The later change wins.
    Latest,
}

/// The fields that hold the other side's id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SyncLinks {
    /// HubSpot property that holds the Salesforce id.
    pub hubspot_property: String,
    /// Salesforce external-id field that holds the HubSpot id.
    pub salesforce_field: String,
}

/// Where missing records are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SyncCreate {
    /// On both sides.
    #[default]
    Both,
    /// In HubSpot only.
    Hubspot,
    /// In Salesforce only.
    Salesforce,
    /// Nowhere.
    None,
}

/// What a deletion on one side means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SyncDeletes {
    /// Ask a person.
    #[default]
    Review,
    /// Delete on the other side.
    Propagate,
    /// Nothing.
    Ignore,
}

/// What one sync run may do at most; a run that would pass a limit stops and says so.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SyncLimits {
    /// Records created.
    pub creates: u64,
    /// Records updated.
    pub updates: u64,
    /// Fields cleared.
    pub blanks: u64,
    /// Records deleted.
    pub deletes: u64,
}

impl Default for SyncLimits {
    fn default() -> Self {
        Self { creates: 1_000, updates: 10_000, blanks: 100, deletes: 20 }
    }
}

/// Whom to tell, and from when on. At most one message an hour of each kind for each job.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Notify {
    /// Secrets Manager id of a Slack webhook's address: the address alone, or JSON {"url"}.
    #[serde(default)]
    pub slack_webhook_secret: Option<String>,
    /// ARN of an SNS topic.
    #[serde(default)]
    pub sns_topic_arn: Option<String>,
    /// Tell of a run that rejects this share of its rows (or this many), or three times the share that the last good run rejected. Default 10%.
    #[serde(default)]
    pub unusual_rejects: Option<Amount>,
}

/// Where traces of invocations go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Traces {
    /// Nowhere.
    #[default]
    None,
    /// To AWS X-Ray, of the invocations that Lambda samples: the function needs `Tracing: Active` and may send trace segments.
    Xray,
}

mod defaults {
    use super::Amount;

    pub(super) fn base_url() -> String {
        "https://api.hubapi.com".to_owned()
    }
    pub(super) fn api_version() -> String {
        "2026-09".to_owned()
    }
    pub(super) fn salesforce_api_version() -> String {
        "67.0".to_owned()
    }
    pub(super) fn account() -> String {
        "default".to_owned()
    }
    pub(super) fn abort_if_rejected() -> Amount {
        Amount::Share(0.5)
    }
    pub(super) fn mirror_max_archived() -> Amount {
        Amount::Share(0.05)
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn lag_seconds() -> u32 {
        30
    }
    pub(super) fn trailing_seconds() -> u32 {
        3_600
    }
}
