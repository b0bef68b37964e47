//! What a simulated account is like: its tokens, its limits, its objects, and what goes wrong in it.
//! Plain values, so that the command line can load them from a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalog::PropertyDefinition;
use super::faults::Fault;
use super::history::Workflow;

/// A simulated account. `Default` is a Professional account with one all-powerful token, no latency and no index lag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalSettings {
    /// The account's number.
    pub portal_id: u64,
    /// IANA name; the daily limit resets at midnight there.
    pub time_zone: String,
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// The id of the first record.
    pub first_record_id: u64,
    /// Tokens that do not expire.
    pub tokens: Vec<StaticToken>,
    /// An OAuth app, if any.
    pub oauth: Option<OAuthClient>,
    /// How many calls are allowed.
    pub limits: Limits,
    /// How long answers take.
    pub latency: Latency,
    /// How far search trails behind writes.
    pub index_lag: IndexLag,
    /// Whether batch results come back in another order than the inputs.
    pub shuffle_results: bool,
    /// Object types of the account's own.
    pub custom_objects: Vec<CustomObject>,
    /// Further properties by object type name.
    pub properties: BTreeMap<String, Vec<PropertyDefinition>>,
    /// Properties that the account's administrators require on create, by object type name; enforced by 2026-09 and
    /// later paths only.
    pub required_properties: BTreeMap<String, Vec<String>>,
    /// People who can own records.
    pub owners: Vec<Owner>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What the account writes by itself.
    pub workflows: Vec<Workflow>,
    /// Behaviour that nobody has verified.
    pub unsettled: Unsettled,
}

impl Default for PortalSettings {
    fn default() -> Self {
        Self {
            portal_id: 62_515,
            time_zone: "America/New_York".to_owned(),
            seed: 1,
            first_record_id: 17_100_000_001,
            tokens: vec![StaticToken {
                token: Self::TOKEN.to_owned(),
                app: "private-app".to_owned(),
                scopes: Vec::new(),
            }],
            oauth: None,
            limits: Limits::default(),
            latency: Latency::default(),
            index_lag: IndexLag::default(),
            shuffle_results: false,
            custom_objects: Vec::new(),
            properties: BTreeMap::new(),
            required_properties: BTreeMap::new(),
            owners: vec![
                Owner::new(41_001, "alex@example.com", "Alex", "Owner"),
                Owner::new(41_002, "sam@example.com", "Sam", "Owner"),
            ],
            faults: Vec::new(),
            workflows: Vec::new(),
            unsettled: Unsettled::default(),
        }
    }
}

impl PortalSettings {
    /// The token of the default settings.
    pub const TOKEN: &'static str = "pat-na1-00000000-0000-4000-8000-000000000001";

    /// Default settings without any limit, for tests about something else and for benchmarks.
    pub fn unlimited() -> Self {
        Self { limits: Limits::off(), ..Self::default() }
    }
}

/// A private app's token or a service key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticToken {
    /// The bearer token.
    pub token: String,
    /// Tokens of one app share its burst limit.
    #[serde(default)]
    pub app: String,
    /// What it may do; empty for everything.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// An OAuth app that is installed in the account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuthClient {
    /// Client id.
    pub client_id: String,
    /// Client secret.
    pub client_secret: String,
    /// Refresh tokens that work.
    pub refresh_tokens: Vec<String>,
    /// What its tokens may do; empty for everything.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Life of an access token in seconds (30 minutes).
    #[serde(default = "half_an_hour")]
    pub expires_in: u64,
}

fn half_an_hour() -> u64 {
    1800
}

/// Call limits. `None` switches one off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls per rolling window and app.
    pub burst: Option<u32>,
    /// The window in milliseconds.
    pub interval_ms: u64,
    /// Calls per day and account.
    pub daily: Option<u64>,
    /// Searches per rolling second and account.
    pub search_per_second: Option<u32>,
    /// Association calls per rolling window and app; they have a bucket of their own.
    pub associations: Option<u32>,
    /// Whether a 429 says how long to wait.
    pub retry_after: bool,
    /// Calls to the token endpoint per rolling window.
    pub token_calls: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            burst: Some(190),
            interval_ms: 10_000,
            daily: Some(625_000),
            search_per_second: Some(5),
            associations: Some(150),
            retry_after: false,
            token_calls: None,
        }
    }
}

impl Limits {
    /// No limit at all.
    pub fn off() -> Self {
        Self { burst: None, daily: None, search_per_second: None, associations: None, ..Self::default() }
    }
}

/// How long an answer takes: `fixed_ms` plus up to `jitter_ms`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// Milliseconds, always.
    pub fixed_ms: u64,
    /// Milliseconds, at most, on top.
    pub jitter_ms: u64,
}

/// How long a write stays invisible to search: `fixed_ms` plus up to `jitter_ms`, drawn for each write of each record. A
/// share of the writes comes late: what search shows is not in the order of the writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexLag {
    /// Milliseconds, always.
    pub fixed_ms: u64,
    /// Milliseconds, at most, on top.
    pub jitter_ms: u64,
    /// The share of writes, 0 to 1, that becomes visible only after `late_ms`.
    pub late_share: f64,
    /// Milliseconds for those.
    pub late_ms: u64,
}

/// An object type of the account's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomObject {
    /// `2-` and a number.
    pub object_type_id: String,
    /// Short name; the fully qualified one is `p<portal>_<name>`.
    pub name: String,
    /// Its properties.
    pub properties: Vec<PropertyDefinition>,
    /// Properties without which a record cannot be created.
    #[serde(default)]
    pub required: Vec<String>,
    /// The property that people see as the record's name.
    #[serde(default)]
    pub primary_display: String,
}

/// Somebody who can own records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// What `hubspot_owner_id` takes.
    pub id: String,
    /// Address.
    pub email: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Number of the user, which is not the owner's id.
    pub user_id: u64,
    /// Deactivated.
    #[serde(default)]
    pub archived: bool,
}

impl Owner {
    /// An active owner.
    pub fn new(id: u64, email: &str, first_name: &str, last_name: &str) -> Self {
        Self {
            id: id.to_string(),
            email: email.to_owned(),
            first_name: first_name.to_owned(),
            last_name: last_name.to_owned(),
            user_id: id.saturating_add(900_000),
            archived: false,
        }
    }
}

/// Questions about HubSpot that no source answers: SOURCES.md lists them under the same names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Unsettled {
    /// A string that is no token at all gets status 530 instead of a 401.
    pub garbage_token_is_530: bool,
    /// Two spellings of one email count as duplicate ids of a batch.
    pub case_variants_are_duplicates: bool,
    /// Status of a batch that succeeded in part on 2026-09 and later paths.
    pub dated_partial_status: u16,
    /// Batch create echoes `objectWriteTraceId`.
    pub create_echoes_trace_id: bool,
    /// A write that changes nothing still moves the modified date.
    pub unchanged_write_moves_modified: bool,
    /// Longest delay in milliseconds until a new property can be used; the shortest is 250.
    pub property_delay_ms: u64,
    /// Search sorts and compares `hs_object_id` as text: 9 comes after 10.
    pub ids_are_text: bool,
    /// The share of search and list pages, 0 to 1, that hold fewer records than `limit` (one at least) although more
    /// follow; `paging.next` is there.
    pub short_pages: f64,
    /// The `after` of lists names the first record of the next page instead of the last one of this page.
    pub list_after_is_inclusive: bool,
    /// Bytes of a path with its query from which on the edge answers 414 with a page of HTML.
    pub uri_bytes_max: usize,
    /// Feedback submissions cannot be written: 405.
    pub feedback_is_read_only: bool,
    /// Links of one record that one answer shows, at most 500; `paging.next` leads to the rest.
    pub association_page: usize,
    /// The paging tokens of content lists stand for an offset, so that an item may be skipped or come twice when others
    /// are deleted or change their place while the list is read; else for the last item.
    pub cms_after_is_offset: bool,
    /// `createdAfter`, `updatedBefore` and so on let the given millisecond through.
    pub cms_bounds_are_inclusive: bool,
    /// Deleting content moves its updated date.
    pub cms_delete_moves_updated: bool,
    /// Pages and posts say `archivedAt` where authors and tags say `deletedAt`.
    pub cms_pages_say_archived_at: bool,
    /// Members of content that HubSpot does not know are stored and shown; else they are dropped.
    pub cms_keeps_unknown_members: bool,
    /// Further members that content cannot be created without, by resource (`cms.blogs.posts`, …).
    pub cms_required: BTreeMap<String, Vec<String>>,
    /// `DELETE /cms/v3/hubdb/tables/{id}/draft` deletes a table; else 405.
    pub hubdb_draft_can_be_deleted: bool,
}

impl Default for Unsettled {
    fn default() -> Self {
        Self {
            garbage_token_is_530: false,
            case_variants_are_duplicates: true,
            dated_partial_status: 207,
            create_echoes_trace_id: false,
            unchanged_write_moves_modified: true,
            property_delay_ms: 700,
            ids_are_text: false,
            short_pages: 0.0,
            list_after_is_inclusive: false,
            uri_bytes_max: 8_000,
            feedback_is_read_only: true,
            association_page: 500,
            cms_after_is_offset: false,
            cms_bounds_are_inclusive: false,
            cms_delete_moves_updated: false,
            cms_pages_say_archived_at: false,
            cms_keeps_unknown_members: true,
            cms_required: BTreeMap::new(),
            hubdb_draft_can_be_deleted: false,
        }
    }
}
