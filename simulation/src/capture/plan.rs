//! What a seed asks for: accounts, captures, how HubSpot behaves, and what befalls the runs.

use std::fmt::Write as _;

use hubferry_simulator::{
    hubspot::{CustomObject, Faults, PortalSettings, PropertyDefinition, Workflow},
    salesforce::Rewrite,
};

use crate::Scale;

/// A kind of records that may be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// As the configuration names it.
    pub resource: &'static str,
    /// As the portal names it.
    pub object: &'static str,
    /// The property that people edit.
    pub name: &'static str,
    /// The property that says when a record was modified; none for content.
    pub modified: Option<&'static str>,
}

const fn crm(resource: &'static str, object: &'static str, name: &'static str) -> Kind {
    Kind { resource, object, name, modified: Some("hs_lastmodifieddate") }
}

const fn cms(resource: &'static str) -> Kind {
    Kind { resource, object: resource, name: "name", modified: None }
}

/// Objects whose records people edit, and what they call them.
const KINDS: [Kind; 8] = [
    Kind { modified: Some("lastmodifieddate"), ..crm("crm.contacts", "contacts", "firstname") },
    Kind { modified: Some("lastmodifieddate"), ..crm("contacts", "contacts", "firstname") },
    crm("crm.companies", "companies", "name"),
    crm("crm.deals", "deals", "dealname"),
    crm("tickets", "tickets", "subject"),
    crm(CARS, CARS, "car"),
    cms("cms.blogs.posts"),
    cms("cms.urlRedirects"),
];

/// A custom object.
const CARS: &str = "2-4711";

/// How a capture writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenCDC.
    Opencdc,
    /// Flat JSON lines.
    Jsonl,
    /// Text with columns.
    Csv,
    /// Its rows are counted, not read.
    Parquet,
}

/// One capture.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Its name.
    pub name: String,
    /// Which account.
    pub account: usize,
    /// What is captured.
    pub kind: Kind,
    /// How it is written.
    pub format: Format,
    /// `none`, `gzip` or `zstd`.
    pub compression: &'static str,
    /// It begins with everything that exists.
    pub snapshot: bool,
    /// Archived records are told.
    pub deletes: bool,
    /// The object whose associations are told.
    pub linked: Option<&'static str>,
    /// What was there before is told.
    pub before: bool,
    /// How far it trails, in seconds.
    pub lag: u32,
    /// How far the second pass trails, in seconds; 0 is none.
    pub trailing: u32,
}

impl Capture {
    /// The folder that it writes to.
    pub fn folder(&self) -> String {
        format!("out/{}/", self.name)
    }

    /// Whether records have dates by which they are found.
    pub fn is_crm(&self) -> bool {
        self.kind.modified.is_some()
    }
}

/// The whole world, before anything happens.
pub struct Plan {
    /// HubSpot accounts, one or two.
    pub accounts: Vec<PortalSettings>,
    /// How far HubSpot's clock is ahead of ours, in milliseconds.
    pub skew_ms: i64,
    /// What is captured.
    pub captures: Vec<Capture>,
    /// Records of each kind at the beginning.
    pub records: usize,
    /// Wake-ups while people work.
    pub rounds: usize,
    /// Share of S3's and the table's answers that go wrong.
    pub trouble: f64,
    /// HubSpot's index shows everything within the lag.
    pub is_prompt: bool,
    /// Calls of ten seconds.
    pub burst: u32,
    /// Continuations are sent; else only the schedules find them.
    pub queue: bool,
    /// Values with quotes, line ends and commas.
    pub odd: bool,
    /// Whether processes die.
    pub kills: bool,
}

fn pick<T: Copy>(rng: &mut fastrand::Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

impl Plan {
    /// The world of this seed. Every number is drawn, whether it is used or not.
    pub fn new(seed: u64, scale: &Scale) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 7);
        let burst = pick(&mut rng, &[190, 190, 60, 40]);
        let skew_ms = pick(&mut rng, &[0, 0, 0, 90_000, -90_000, 420_300, -420_300]);
        let (is_faulty, trouble) = (rng.u8(..3) > 0, pick(&mut rng, &[0.0, 0.01, 0.03]));
        let is_late = rng.u8(..3) == 0;
        let (two, odd, kills) = (rng.u8(..3) == 0, rng.bool(), rng.u8(..4) > 0);
        let automation = rng.bool();
        let (latency, jitter) = (pick(&mut rng, &[100, 300]), pick(&mut rng, &[0, 400]));
        let short_pages = pick(&mut rng, &[0.0, 0.3]);
        let (offset, ids_are_text, first_id) = (rng.bool(), rng.u8(..4) == 0, rng.u8(..4) == 0);
        let account = |number: u64| {
            let mut portal = PortalSettings { seed: seed + 1 + number * 1_000, ..PortalSettings::default() };
            portal.portal_id += number;
            // Records of two accounts cannot be taken for each other.
            portal.first_record_id = if first_id { 85 } else { 17_100_000_001 } + number * 1_000_000;
            portal.limits.burst = Some(burst);
            (portal.latency.fixed_ms, portal.latency.jitter_ms) = (latency, jitter);
            portal.index_lag.jitter_ms = 8_000;
            if is_late {
                (portal.index_lag.late_share, portal.index_lag.late_ms) = (0.05, 20 * 60 * 1_000);
            }
            portal.unsettled.ids_are_text = ids_are_text;
            portal.unsettled.short_pages = short_pages;
            portal.unsettled.cms_after_is_offset = offset;
            portal.custom_objects.push(CustomObject {
                object_type_id: CARS.to_owned(),
                name: "cars".to_owned(),
                properties: vec![PropertyDefinition::new("car", "string")],
                required: Vec::new(),
                primary_display: "car".to_owned(),
            });
            if is_faulty && scale.faults {
                portal.faults = Faults::five_percent(seed + number);
            }
            if automation && scale.people {
                portal.workflows.push(Workflow {
                    object: "contacts".to_owned(),
                    when_changed: "firstname".to_owned(),
                    writes: "lastname".to_owned(),
                    value: Rewrite::Lower,
                    after_ms: 20_000,
                });
            }
            portal
        };
        let mut captures = Vec::new();
        for at in 0..1 + rng.usize(..3) {
            let (kind, format) = (pick(&mut rng, &KINDS), pick(&mut rng, &FORMATS));
            let compression = pick(&mut rng, &["zstd", "zstd", "gzip", "none"]);
            let trailing = pick(&mut rng, &[0, 1_500, 1_500]);
            let (snapshot, deletes) = (rng.u8(..5) > 0, rng.u8(..8) > 0);
            let (linked, before) = (rng.u8(..3) == 0, rng.u8(..4) == 0);
            let (lag, second) = (pick(&mut rng, &[10, 30, 60]), rng.bool());
            captures.push(Capture {
                name: format!("c{at}"),
                account: usize::from(two && second && scale.accounts),
                kind,
                format,
                compression,
                snapshot,
                deletes,
                linked: (linked && kind.object == "contacts").then_some("companies"),
                before: before && format == Format::Opencdc && kind.modified.is_some(),
                lag,
                // Without a second pass what comes late is lost, as documented.
                trailing: if is_late { 1_500 } else { trailing },
            });
        }
        let accounts = if two && scale.accounts { vec![account(0), account(1)] } else { vec![account(0)] };
        Self {
            accounts,
            skew_ms,
            captures,
            records: Scale::of(scale.size, rng.usize(1..130)),
            rounds: Scale::of(scale.rounds, rng.usize(5..16)),
            trouble: if scale.faults && is_faulty { trouble } else { 0.0 },
            is_prompt: !is_late,
            burst,
            queue: rng.u8(..4) > 0,
            odd: odd && scale.odd,
            kills: kills && scale.kills,
        }
    }

    /// `hubferry.yaml`.
    pub fn config(&self) -> String {
        let mut text = String::from("version: 1\ndata: s3://crm/\nhubspot:\n");
        for at in 0..self.accounts.len() {
            let _ = writeln!(
                text,
                "  {}: {{ secret: {}, base_url: \"https://{}\", limits: {{ burst: {} }} }}",
                account_name(at),
                secret(at),
                host(at),
                self.burst
            );
        }
        text.push_str("captures:\n");
        for capture in &self.captures {
            let _ = write!(
                text,
                "  - name: {}\n    hubspot: {}\n    resource: {}\n    output: s3://crm/{}\n    format: {}\n    compression: {}\n    snapshot: {}\n    deletes: {}\n    before: {}\n    lag_seconds: {}\n    trailing_seconds: {}\n",
                capture.name,
                account_name(capture.account),
                capture.kind.resource,
                capture.folder(),
                capture.format.name(),
                capture.compression,
                capture.snapshot,
                capture.deletes,
                capture.before,
                capture.lag,
                capture.trailing,
            );
            if let Some(object) = capture.linked {
                let _ = writeln!(text, "    associations: [{object}]");
            }
            if capture.is_crm() {
                let _ = writeln!(text, "    extra_properties: [{}]", capture.kind.name);
            }
        }
        text
    }
}

const FORMATS: [Format; 6] =
    [Format::Opencdc, Format::Opencdc, Format::Opencdc, Format::Jsonl, Format::Csv, Format::Parquet];

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Opencdc => "opencdc",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

/// The account's name in the configuration.
pub fn account_name(at: usize) -> &'static str {
    ["default", "second"][at]
}

/// Where the account is called.
pub fn host(at: usize) -> &'static str {
    ["api.hubapi.com", "api-eu1.hubapi.com"][at]
}

/// Where the account's token is.
pub fn secret(at: usize) -> &'static str {
    ["hubferry/hubspot", "hubferry/second"][at]
}
