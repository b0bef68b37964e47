//! What an org is like. Everything that no source settles is a setting here.

use serde::{Deserialize, Serialize};

use super::catalog::Field;
use super::faults::Fault;

/// How a client gets a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// `client_credentials`, on the My Domain host only.
    ClientCredentials,
    /// JWT bearer.
    Jwt,
    /// Refresh token.
    RefreshToken,
    /// User name, password and security token: legacy, blocked in newer orgs.
    Password,
}

/// A connected app or External Client App.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectedApp {
    /// Consumer key.
    pub client_id: String,
    /// Consumer secret.
    pub client_secret: String,
    /// What it may do to get a session.
    pub flows: Vec<Flow>,
    /// User name that it acts as.
    pub username: String,
    /// Whether a user to run as is set (client credentials).
    pub run_as: bool,
    /// Whether an administrator has approved the app for that user (JWT).
    pub approved: bool,
    /// DER of the certificate's RSA public key (JWT).
    pub public_key: Vec<u8>,
    /// Refresh tokens that work.
    pub refresh_tokens: Vec<String>,
    /// A refresh token works once and a new one comes with the session.
    pub rotates: bool,
    /// Password followed by the security token (password flow and SOAP login).
    pub password: String,
}

impl Default for ConnectedApp {
    fn default() -> Self {
        Self {
            client_id: OrgSettings::CLIENT_ID.to_owned(),
            client_secret: OrgSettings::CLIENT_SECRET.to_owned(),
            flows: vec![Flow::ClientCredentials],
            username: "integration@example.com".to_owned(),
            run_as: true,
            approved: true,
            public_key: Vec::new(),
            refresh_tokens: Vec::new(),
            rotates: false,
            password: String::new(),
        }
    }
}

/// A custom object: `Name` is there, `fields` are added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomObject {
    /// Ends with `__c`.
    pub name: String,
    /// Its own fields.
    pub fields: Vec<Field>,
}

/// How much may be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrgLimits {
    /// Calls in any 24 hours.
    pub daily: u64,
    /// Calls that others made in the last 24 hours; they do not leave the window.
    pub used_by_others: u64,
    /// The header also names the app's own use.
    pub long_header: bool,
}

impl Default for OrgLimits {
    fn default() -> Self {
        Self { daily: 100_000, used_by_others: 0, long_header: false }
    }
}

/// How Bulk jobs take their time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BulkPace {
    /// From the end of the upload to the first chunk.
    pub queue_ms: u64,
    /// For each chunk of 200 rows (ingest) or 2,000 rows (query).
    pub chunk_ms: u64,
    /// An ingest job is given up as a whole after so many rows: what was written before stays.
    pub fail_after: Option<usize>,
}

impl Default for BulkPace {
    fn default() -> Self {
        Self { queue_ms: 2_000, chunk_ms: 400, fail_after: None }
    }
}

/// A test that a record must not pass, as an administrator writes one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationRule {
    /// Object it is about.
    pub object: String,
    /// Field it looks at and complains about.
    pub field: String,
    /// The record is refused if this holds.
    pub refuse_if: Test,
    /// What it says.
    pub message: String,
}

/// What a validation rule looks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// The field is blank.
    Blank,
    /// Its text is this, whatever the case.
    Equals(String),
    /// Its text holds this.
    Contains(String),
    /// Its text is longer than so many characters.
    LongerThan(usize),
}

/// Two records are the same person if all fields agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DuplicateRule {
    /// Its name.
    pub name: String,
    /// Object that is written.
    pub object: String,
    /// Objects that are compared with; standard rules also compare contacts with leads.
    pub against: Vec<String>,
    /// Fields that must agree and not be blank.
    pub fields: Vec<String>,
    /// `true`: the record is refused, whatever the caller says. `false`: unless the caller allows it.
    pub block: bool,
}

/// Automation that changes what is being written, in the same transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Automation {
    /// Object it is about.
    pub object: String,
    /// Runs if a write gives this field another value.
    pub when_changed: String,
    /// The field it writes.
    pub writes: String,
    /// What it writes there.
    pub value: Rewrite,
}

/// What automation writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewrite {
    /// The changed field's text in capitals.
    Upper,
    /// The changed field's text in small letters.
    Lower,
    /// Ten digits as `(555) 010-0199`; anything else as it is.
    UsPhone,
    /// This text.
    Fixed(String),
    /// Nothing.
    Blank,
}

impl Rewrite {
    /// What becomes of a text; nothing is blank.
    pub(crate) fn of(&self, text: Option<String>) -> Option<String> {
        match self {
            Self::Fixed(text) => Some(text.clone()),
            Self::Blank => None,
            Self::Upper => text.map(|text| text.to_uppercase()),
            Self::Lower => text.map(|text| text.to_lowercase()),
            Self::UsPhone => text.map(|text| {
                let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                match digits.len() {
                    10 => format!("({}) {}-{}", &digits[..3], &digits[3..6], &digits[6..]),
                    _ => text,
                }
            }),
        }
    }
}

/// Automation that writes in a transaction of its own, some time after the write. What it writes starts nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scheduled {
    /// When it starts and what it writes: made of the changed field's value at the time of the writing.
    pub automation: Automation,
    /// How long after the write, in milliseconds; with the next call or visit after that.
    pub after_ms: u64,
}

/// An org.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrgSettings {
    /// Where chance begins.
    pub seed: u64,
    /// Latency of a call, and how much more it may be.
    pub latency_ms: u64,
    /// At most this much more.
    pub latency_jitter_ms: u64,
    /// Apps that may get a session.
    pub apps: Vec<ConnectedApp>,
    /// Where the API is; `None`: where the session was asked for.
    pub instance_url: Option<String>,
    /// A session that is not used for so long ends.
    pub session_seconds: u64,
    /// Whether use prolongs a session.
    pub session_slides: bool,
    /// `SOAP login()` works (versions up to 64).
    pub soap_login: bool,
    /// Newest version of the API.
    pub newest_version: u32,
    /// Oldest version that answers.
    pub oldest_version: u32,
    /// More fields: object and definition.
    pub fields: Vec<(String, Field)>,
    /// More objects.
    pub objects: Vec<CustomObject>,
    /// Contacts of persons that are accounts exist: the field `IsPersonAccount` is there.
    pub person_accounts: bool,
    /// Limits.
    pub limits: OrgLimits,
    /// Rows of a page of a query; `batchSize` may ask for less.
    pub page_most: usize,
    /// Pages may be shorter than asked.
    pub short_pages: bool,
    /// A cursor ends after this.
    pub locator_seconds: u64,
    /// Status of an answer about a cursor that ended.
    pub locator_status: u16,
    /// Queries show what was written after up to so many milliseconds.
    pub query_lag_ms: u64,
    /// Share of written records that another transaction holds locked.
    pub lock_share: f64,
    /// Locks are told as `CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY` around them.
    pub locks_wrapped: bool,
    /// `duplicateResut` (sic) instead of `duplicateResult`.
    pub misspelt_duplicates: bool,
    /// A write that changes nothing moves the modified dates.
    pub same_value_is_a_write: bool,
    /// E-mail addresses are stored in small letters.
    pub lowers_email: bool,
    /// Pace of Bulk jobs.
    pub bulk: BulkPace,
    /// Status of the answer that creates a Bulk job.
    pub bulk_created_status: u16,
    /// Validation rules.
    pub validation: Vec<ValidationRule>,
    /// Duplicate rules.
    pub duplicates: Vec<DuplicateRule>,
    /// Automation.
    pub automation: Vec<Automation>,
    /// Automation that writes later.
    pub scheduled: Vec<Scheduled>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

impl OrgSettings {
    /// Consumer key of the default app.
    pub const CLIENT_ID: &str = "3MVG9exampleconsumerkey";
    /// Consumer secret of the default app.
    pub const CLIENT_SECRET: &str = "example-consumer-secret";
    /// Where the default org is.
    pub const LOGIN_URL: &str = "https://example.my.salesforce.com";
    /// The external id on `Contact`, `Account`, `Lead` and `Opportunity` that the default org has.
    pub const EXTERNAL_IDS: [(&str, &str); 4] = [
        ("Contact", "HubSpot_Contact_Id__c"),
        ("Account", "HubSpot_Company_Id__c"),
        ("Lead", "HubSpot_Contact_Id__c"),
        ("Opportunity", "HubSpot_Deal_Id__c"),
    ];
}

impl Default for OrgSettings {
    fn default() -> Self {
        let external = |(object, name): (&str, &str)| (object.to_owned(), Field::text(name, 20).external_id(true));
        Self {
            seed: 0,
            latency_ms: 0,
            latency_jitter_ms: 0,
            apps: vec![ConnectedApp::default()],
            instance_url: None,
            session_seconds: 7_200,
            session_slides: false,
            soap_login: false,
            newest_version: 68,
            oldest_version: 31,
            fields: Self::EXTERNAL_IDS.map(external).to_vec(),
            objects: Vec::new(),
            person_accounts: false,
            limits: OrgLimits::default(),
            page_most: 2_000,
            short_pages: false,
            locator_seconds: 2 * 24 * 3_600,
            locator_status: 400,
            query_lag_ms: 0,
            lock_share: 0.0,
            locks_wrapped: false,
            misspelt_duplicates: true,
            same_value_is_a_write: true,
            lowers_email: false,
            bulk: BulkPace::default(),
            bulk_created_status: 200,
            validation: Vec::new(),
            duplicates: Vec::new(),
            automation: Vec::new(),
            scheduled: Vec::new(),
            faults: Vec::new(),
        }
    }
}
