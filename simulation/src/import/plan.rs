//! What a seed asks for: accounts, imports, files, when they are uploaded and how their events come.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use hubferry_simulator::hubspot::{Fault, Faults, OAuthClient, PortalSettings, PropertyDefinition, What};

use super::file::{self, Act, Cell, Draft, Fate, MARK, Shared, Spoilt};
use crate::{
    Scale,
    cloud::Fortune,
    dice::{dice, happens, one_of},
    watch::Upsets,
};

/// Host of the second account.
pub const SECOND: &str = "second.example.com";

/// A record that has this badge stands in every account; nobody else can have it.
pub const TAKEN: &str = "uloqtaken";

/// Which of the two kinds of worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Larger files, each of which is uploaded once.
    Import,
    /// Small files that are replaced and deleted, and events that come as they like.
    Delivery,
}

/// What an import does with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `upsert`
    Upsert,
    /// `create`
    Create,
    /// `update`
    Update,
    /// `mirror`
    Mirror,
    /// `archive`
    Archive,
}

/// What the rows of an import are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Contacts by `email`.
    Contacts,
    /// Companies by `domain`, which is not unique.
    Companies,
    /// A contact and its company by a unique code, associated.
    Pairs,
    /// OpenCDC records of another account's contacts.
    Foreign,
    /// OpenCDC records that create contacts, whom nothing names.
    Nameless,
}

/// An import of the configuration.
#[derive(Debug, Clone)]
pub struct Import {
    /// Its name, and its folder.
    pub name: &'static str,
    /// 0 or 1.
    pub account: usize,
    /// What its rows are.
    pub rows: Rows,
    /// What is done with them.
    pub mode: Mode,
    /// `blank: clear`
    pub clears: bool,
    /// `skip_unchanged`
    pub skips: bool,
    /// `before_images`
    pub images: bool,
    /// `preflight: full`
    pub preflight: bool,
}

impl Import {
    fn new(name: &'static str, rows: Rows) -> Self {
        let mode = Mode::Upsert;
        Self { name, account: 0, rows, mode, clears: false, skips: false, images: false, preflight: false }
    }

    /// The object type of the first record of a row.
    pub fn object(&self) -> &'static str {
        if self.rows == Rows::Companies { "companies" } else { "contacts" }
    }

    /// The property by which the oracle finds the first record of a row.
    pub fn key_property(&self) -> &'static str {
        match self.rows {
            Rows::Contacts | Rows::Pairs => "email",
            Rows::Companies => "domain",
            Rows::Foreign => "hubferry_hs_object_id_key",
            Rows::Nameless => "bio",
        }
    }

    /// Whether each accepted row is a write of its own.
    pub fn writes_all(&self) -> bool {
        matches!(self.mode, Mode::Upsert | Mode::Mirror) && !self.skips && self.rows != Rows::Nameless
    }

    fn yaml(&self) -> String {
        let mut text = format!("  - name: {0}\n    match: incoming/{0}/*\n", self.name);
        if self.account == 1 {
            text.push_str("    hubspot: second\n");
        }
        text.push_str(match self.rows {
            Rows::Contacts => "    object: contacts\n    key: email\n",
            Rows::Companies => "    object: companies\n    key: domain\n    create_properties: true\n",
            Rows::Pairs => {
                "    records:\n      - { object: contacts, key: email, columns: { email: email, first: firstname } }\n      - { object: companies, key: code, columns: { code: code, firm: name } }\n    associate: [ { from: contacts, to: companies } ]\n"
            }
            Rows::Foreign => "    format: opencdc\n    resource: crm.contacts\n    create_properties: true\n",
            Rows::Nameless => "    format: opencdc\n    resource: crm.contacts\n",
        });
        let mode = match self.mode {
            Mode::Upsert => "",
            Mode::Create => "    mode: create\n",
            Mode::Update => "    mode: update\n",
            Mode::Mirror => "    mode: mirror\n    mirror_max_archived: 100%\n",
            Mode::Archive => "    mode: archive\n    columns: { email: email }\n",
        };
        text.push_str(mode);
        for (set, line) in [
            (self.clears, "    blank: clear\n"),
            (self.skips, "    skip_unchanged: true\n"),
            (self.images, "    before_images: true\n"),
            (self.preflight, "    preflight: full\n"),
        ] {
            if set {
                text.push_str(line);
            }
        }
        text
    }
}

/// How an event is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// S3's own notification.
    S3,
    /// S3's, in a message of a queue.
    SqsS3,
    /// EventBridge's.
    Bridge,
    /// EventBridge's, in a message of a queue: the deployed way.
    SqsBridge,
}

/// One version of one object, and how its event fares.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Which of the imports.
    pub import: usize,
    /// The object's key.
    pub key: String,
    /// What is uploaded.
    pub file: Shared,
    /// When, since the start.
    pub at: Duration,
    /// When its event arrives after that, each time, and how.
    pub events: Vec<(Duration, Shape)>,
    /// The object is deleted so long after the upload.
    pub deleted_after: Option<Duration>,
}

/// A record that stands in an account: which one, its object type, its properties, the key's first.
pub type Seeded = (usize, &'static str, Vec<(&'static str, String)>);

/// A world before it begins.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `hubferry.yaml`
    pub config: String,
    /// The imports in it.
    pub imports: Vec<Import>,
    /// Both accounts.
    pub portals: Vec<PortalSettings>,
    /// In the order of time.
    pub uploads: Vec<Upload>,
    /// The bucket keeps versions.
    pub versioned: bool,
    /// Records that stand in the accounts: account, object type, properties.
    pub seeded: Vec<Seeded>,
    /// How processes fare.
    pub fortune: Fortune,
    /// How AWS fares.
    pub upsets: Upsets,
    /// How long people and faults are at work.
    pub lasts: Duration,
    /// A person does something about so often.
    pub people_every: Option<Duration>,
    /// The secret is replaced after this time; the old token ends a while later.
    pub rotates: Option<Duration>,
    /// Tokens come from an app and live for so long.
    pub oauth: bool,
    /// Calls that are kept for other apps, where the day's limit is small.
    pub daily: Option<(u64, u64)>,
    /// Keys of contacts and companies.
    pub keys: usize,
    /// An account allows so few calls that short invocations may get nowhere.
    pub slow: bool,
}

/// Options of `level`.
const LEVELS: [&str; 3] = ["low", "mid", "high"];

/// A contact's address.
pub fn address(number: usize) -> String {
    format!("{MARK}{number}@example.com")
}

/// A company's domain.
pub fn domain(number: usize) -> String {
    format!("{MARK}{number}.example")
}

fn properties(settings: &mut PortalSettings) {
    let contacts = vec![
        PropertyDefinition::new("score", "number"),
        PropertyDefinition::new("level", "enumeration").options(&LEVELS),
        PropertyDefinition::new("badge", "string").unique(),
        PropertyDefinition::new("bio", "string"),
    ];
    settings.properties.insert("contacts".to_owned(), contacts);
    settings.properties.insert("companies".to_owned(), vec![PropertyDefinition::new("code", "string").unique()]);
}

/// Everything that follows from the seed, but for what happens by the way.
pub fn draw(kind: Kind, seed: u64, scale: &Scale) -> Plan {
    let name = if kind == Kind::Import { "import" } else { "delivery" };
    let mut rng = dice(seed, name, 0);
    let delivery = kind == Kind::Delivery;

    let mut people = Import::new("people", Rows::Contacts);
    people.mode = one_of(
        &mut rng,
        &[Mode::Upsert, Mode::Upsert, Mode::Upsert, Mode::Upsert, Mode::Create, Mode::Update, Mode::Mirror],
    );
    (people.clears, people.skips) = (happens(&mut rng, 0.4), happens(&mut rng, 0.35));
    (people.images, people.preflight) = (happens(&mut rng, 0.25), happens(&mut rng, 0.15));
    let (with_leavers, with_firms, with_others, with_pairs) =
        (happens(&mut rng, 0.2), happens(&mut rng, 0.35), happens(&mut rng, 0.35), happens(&mut rng, 0.3));
    let (with_foreign, with_nameless) = (happens(&mut rng, 0.6), happens(&mut rng, 0.6));
    if delivery {
        people.mode = if happens(&mut rng, 0.15) { Mode::Mirror } else { Mode::Upsert };
        people.images = false;
    }
    let mut imports = vec![people];
    if with_leavers && !delivery {
        imports.push(Import { mode: Mode::Archive, ..Import::new("leavers", Rows::Contacts) });
    }
    if with_firms {
        imports.push(Import::new("firms", Rows::Companies));
    }
    if with_others && scale.accounts {
        imports.push(Import { account: 1, ..Import::new("others", Rows::Contacts) });
    }
    if with_pairs && !delivery {
        imports.push(Import::new("pairs", Rows::Pairs));
    }
    if with_foreign && delivery {
        imports.push(Import::new("foreign", Rows::Foreign));
    }
    if with_nameless && delivery {
        imports.push(Import::new("nameless", Rows::Nameless));
    }

    let mut portals = Vec::new();
    let mut oauth = false;
    let mut daily = None;
    let mut sets_burst = false;
    for account in 0..2 {
        let mut rng = rng.fork();
        let mut portal = PortalSettings { seed: seed.wrapping_mul(2) + account, ..PortalSettings::default() };
        properties(&mut portal);
        portal.portal_id += account;
        portal.latency.fixed_ms = rng.u64(40..400);
        portal.latency.jitter_ms = rng.u64(0..1_200);
        portal.index_lag.fixed_ms = rng.u64(0..3_000);
        portal.index_lag.jitter_ms = rng.u64(0..8_000);
        portal.shuffle_results = rng.bool();
        portal.limits.burst = Some(one_of(&mut rng, &[4, 20, 50, 100, 190]));
        portal.limits.retry_after = rng.bool();
        portal.unsettled.dated_partial_status = one_of(&mut rng, &[207, 207, 200]);
        portal.unsettled.case_variants_are_duplicates = rng.bool();
        let long = happens(&mut rng, 0.25);
        if long && !delivery && account == 0 {
            portal.limits.burst = Some(4);
        }
        let (with_oauth, with_daily, fixed) =
            (happens(&mut rng, 0.12), happens(&mut rng, 0.12), happens(&mut rng, 0.4));
        let (life, calls) = (rng.u64(20..120), rng.u64(40..90));
        if account == 0 {
            oauth = with_oauth;
            sets_burst = fixed || portal.limits.burst <= Some(20) || portal.limits.burst == Some(50);
            if with_oauth {
                portal.oauth = Some(OAuthClient {
                    client_id: "client-of-the-world".to_owned(),
                    client_secret: "secret-of-the-world".to_owned(),
                    refresh_tokens: vec!["refresh-of-the-world".to_owned()],
                    scopes: Vec::new(),
                    expires_in: life,
                });
            }
            if with_daily && !delivery {
                portal.limits.daily = Some(calls);
                daily = Some((calls, calls / 2));
            }
        }
        let (faulty, bad, loses) = (happens(&mut rng, 0.75), happens(&mut rng, 0.4), happens(&mut rng, 0.5));
        if faulty && scale.faults {
            portal.faults = Faults::five_percent(seed + account);
            if bad && delivery {
                // Few calls: more of them fail.
                for fault in &mut portal.faults {
                    fault.when.probability = fault.when.probability.map(|share| share * 3.0);
                }
            }
            if loses && !delivery {
                // Longer than hubferry waits where nothing is said.
                portal.faults.push(Fault::share(0.1, What::Migrating(75)).on("/batch/upsert").times(2));
            }
            if loses && delivery {
                portal.faults.push(Fault::share(0.3, What::ResetAfter).on("/batch/create").times(2));
            }
        }
        portals.push(portal);
    }
    let mut limits = Vec::new();
    if sets_burst {
        limits.push(format!("burst: {}", portals[0].limits.burst.unwrap_or(100)));
    }
    if daily.is_some() {
        limits.push("daily_reserve: 50%".to_owned());
    }
    let limits = if limits.is_empty() { String::new() } else { format!(", limits: {{ {} }}", limits.join(", ")) };
    let second = portals[1].limits.burst.unwrap_or(100);
    let mut config = format!(
        "version: 1\nhubspot:\n  default: {{ secret: hubferry/hubspot{limits} }}\n  second: {{ secret: hubferry/second, base_url: \"https://{SECOND}\", limits: {{ burst: {second} }} }}\nimports:\n"
    );
    for import in &imports {
        config.push_str(&import.yaml());
    }

    // Seconds in which things happen.
    let lasts = Duration::from_secs(Scale::of(scale.rounds, usize::try_from(rng.u64(60..400)).unwrap()) as u64);
    let keys = Scale::of(scale.size, rng.usize(60..260));
    let seeded = seed_records(&mut rng.fork(), keys, scale);
    let kills = if happens(&mut rng, 0.7) { 0.15 + rng.f64() * 0.4 } else { 0.0 };
    let deadlines = one_of(&mut rng, &[&[900][..], &[900, 60], &[60, 45, 30], &[25, 30], &[20]]).to_vec();
    // An invocation must be able to make some calls.
    let slow = portals.iter().any(|portal| portal.limits.burst <= Some(4));
    let deadlines =
        if slow { one_of(&mut rng, &[&[900][..], &[240, 60], &[60], &[90, 60]]).to_vec() } else { deadlines };
    let fortune = Fortune { kills, kills_max: rng.u64(1..5), deadlines, twice: if delivery { 0.4 } else { 0.15 } };
    let (bad_table, bad_objects, downs) = (happens(&mut rng, 0.4), happens(&mut rng, 0.4), rng.u64(0..3));
    let mut upsets = Upsets {
        table: if bad_table { 0.015 } else { 0.0 },
        objects: if bad_objects { 0.02 } else { 0.0 },
        table_down: Vec::new(),
    };
    let down = happens(&mut rng, 0.25);
    for _ in 0..downs {
        let from = Duration::from_millis(rng.u64(0..60_000));
        let to = from + Duration::from_millis(rng.u64(1_000..15_000));
        if down {
            upsets.table_down.push((from, to));
        }
    }
    if !scale.faults {
        upsets = Upsets::default();
    }
    let (busy, every) = (happens(&mut rng, 0.6), rng.u64(1..15));
    let people_every = (busy && scale.people).then(|| Duration::from_secs(every));
    let (rotation, rotates) = (happens(&mut rng, 0.2), Duration::from_millis(rng.u64(300..6_000)));
    let versioned = !delivery || happens(&mut rng, 0.6);
    let uploads = draw_uploads(kind, seed, scale, &imports, keys, lasts, versioned);
    Plan {
        config,
        imports,
        portals,
        uploads,
        versioned,
        seeded,
        fortune,
        upsets,
        lasts,
        people_every,
        rotates: (rotation && !oauth).then_some(rotates),
        oauth,
        daily,
        keys,
        slow,
    }
}

fn seed_records(rng: &mut fastrand::Rng, keys: usize, scale: &Scale) -> Vec<Seeded> {
    let mut seeded = Vec::new();
    let share = rng.f64() * 0.7;
    for account in 0..2 {
        seeded.push((
            account,
            "contacts",
            vec![("email", "holder@example.com".to_owned()), ("badge", TAKEN.to_owned())],
        ));
        for number in 0..keys {
            let (there, city, score) = (happens(rng, share), rng.bool(), rng.bool());
            if !there {
                continue;
            }
            let mut record = vec![("email", address(number)), ("lastname", format!("{MARK}last{number}"))];
            if city {
                record.push(("city", format!("{MARK}old{number}")));
            }
            if score {
                record.push(("score", format!("9{number}")));
            }
            seeded.push((account, "contacts", record));
        }
    }
    for number in 0..keys {
        let (there, twin) = (happens(rng, share), happens(rng, 0.05));
        let record = vec![("domain", domain(number)), ("name", format!("{MARK}firm{number}"))];
        if there {
            seeded.push((0, "companies", record.clone()));
        }
        if there && twin && scale.odd {
            seeded.push((0, "companies", record));
        }
    }
    seeded
}

/// Domains that two records have.
pub fn ambiguous(seeded: &[Seeded]) -> BTreeSet<String> {
    let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for (_, object, record) in seeded {
        if *object == "companies" && !once.insert(record[0].1.clone()) {
            twice.insert(record[0].1.clone());
        }
    }
    twice
}

fn draw_uploads(
    kind: Kind,
    seed: u64,
    scale: &Scale,
    imports: &[Import],
    keys: usize,
    lasts: Duration,
    versioned: bool,
) -> Vec<Upload> {
    let delivery = kind == Kind::Delivery;
    let mut uploads: Vec<Upload> = Vec::new();
    for (import, settings) in imports.iter().enumerate() {
        let mut rng = dice(seed, "uploads", import as u64);
        let objects = if delivery || import == 0 { rng.usize(1..4) } else { 1 };
        let objects = if scale.overlap { objects } else { 1 };
        for object in 0..objects {
            let mut rng = dice(seed, "object", (import * 100 + object) as u64);
            let ending = if matches!(settings.rows, Rows::Foreign | Rows::Nameless) { "jsonl" } else { "csv" };
            let named = one_of(&mut rng, &["file", "a file with spaces", "fílé+&%"]);
            let key = format!("incoming/{}/{named} {object}.{ending}", settings.name);
            let versions = if delivery { Scale::of(scale.rounds, rng.usize(1..5)) } else { 1 };
            let mut at = Duration::from_millis(rng.u64(0..u64::try_from(lasts.as_millis()).unwrap() / 2));
            let mut before: Option<Shared> = None;
            for version in 0..versions {
                let stream = (import * 10_000 + object * 100 + version) as u64;
                let mut rng = dice(seed, "file", stream);
                let (repeats, rows) = (
                    happens(&mut rng, 0.15),
                    if delivery {
                        rng.usize(1..40)
                    } else if import == 0 {
                        rng.usize(40..330)
                    } else {
                        rng.usize(20..90)
                    },
                );
                let rows = Scale::of(scale.size, rows);
                let file = match before.clone().filter(|_| repeats && settings.rows != Rows::Nameless) {
                    Some(same) => same,
                    None => Rc::new(draw_file(settings, stream, rows, keys, &mut rng.fork(), scale)),
                };
                before = Some(file.clone());
                let mut events = Vec::new();
                let late = if delivery { one_of(&mut rng, &[200, 2_000, 30_000, 120_000]) } else { 1_500 };
                let copies = if happens(&mut rng, if delivery { 0.4 } else { 0.2 }) { 2 } else { 1 };
                for _ in 0..copies {
                    let shape = one_of(&mut rng, &[Shape::S3, Shape::SqsS3, Shape::Bridge, Shape::SqsBridge]);
                    events.push((Duration::from_millis(rng.u64(10..late)), shape));
                }
                let (deleted, after) = (happens(&mut rng, 0.15), Duration::from_millis(rng.u64(100..30_000)));
                let last = version + 1 == versions;
                // In a bucket without versions a file that is gone before it was read is nobody's.
                let deleted_after = (delivery && deleted && (versioned || last)).then_some(after);
                uploads.push(Upload { import, key: key.clone(), file, at, events, deleted_after });
                at += Duration::from_millis(one_of(&mut rng, &[300, 1_000, 4_000, 60_000]))
                    + Duration::from_millis(rng.u64(0..1_000));
            }
        }
    }
    uploads.sort_by_key(|upload| upload.at);
    uploads
}

/// A text of the world's own: no two are equal.
fn text(stream: u64, row: usize, what: &str, rng: &mut fastrand::Rng, odd: bool) -> String {
    let plain = format!("{MARK}{what}{stream}x{row}");
    let dressed = match rng.u8(..16) {
        0 => format!("{plain}, \"so to say\""),
        1 => format!("{plain};two|three\tfour"),
        2 => format!("{plain}\nsecond line"),
        3 => format!("{plain} éüñ"),
        4 => format!("={plain}+1"),
        5 => format!("{plain}{}", " long".repeat(400)),
        _ => plain.clone(),
    };
    if odd { dressed } else { plain }
}

fn draw_file(
    import: &Import,
    stream: u64,
    rows: usize,
    keys: usize,
    rng: &mut fastrand::Rng,
    scale: &Scale,
) -> file::File {
    let odd = scale.odd;
    let mut drafts = Vec::with_capacity(rows);
    let mut operations = Vec::new();
    let repeated = 0.02 + rng.f64() * 0.25;
    let blanks = rng.f64() * 0.4;
    let mut last: Vec<usize> = Vec::new();
    for row in 0..rows {
        let mut rng = dice(stream ^ rng.u64(..), "row", row as u64);
        let again = happens(&mut rng, repeated) && odd;
        let picked = rng.usize(..last.len().max(1));
        let number = match last.get(picked).filter(|_| again) {
            Some(number) => *number,
            None => rng.usize(..keys),
        };
        last.push(number);
        let roll = rng.u16(..1_000);
        let roll = if odd { roll } else { 999 };
        let spoilt = match roll {
            0..12 => Spoilt::Ragged,
            12..18 if import.rows != Rows::Nameless => Spoilt::Quote,
            _ => Spoilt::No,
        };
        // Of a row that is spoilt only the first physical line is at fault: what follows is read as rows.
        let word = |name: &str, rng: &mut fastrand::Rng| {
            let word = text(stream, row, name, rng, odd);
            if spoilt != Spoilt::No { word.replace('\n', " ") } else { word }
        };
        let mut cell = |name: &'static str, rng: &mut fastrand::Rng| {
            let blank = happens(rng, blanks);
            let word = word(name, rng);
            (name, if blank { Cell::Blank } else { Cell::Text(word) })
        };
        let draft = match import.rows {
            Rows::Contacts if import.mode == Mode::Archive => {
                let key = address(number);
                Draft {
                    key_text: key.clone(),
                    key,
                    cells: vec![cell("city", &mut rng)],
                    fate: Fate::Open,
                    act: Act::Archive,
                    second: None,
                    spoilt,
                }
            }
            Rows::Contacts => contact(import, number, row, stream, roll, &mut rng, spoilt, &mut cell),
            Rows::Companies => {
                let key = domain(number);
                let text =
                    if roll % 7 == 0 { format!("https://www.{}/about", key.to_uppercase()) } else { key.clone() };
                let text = if odd { text } else { key.clone() };
                let cells = vec![cell("name", &mut rng), cell("city", &mut rng)];
                Draft { key_text: text, key, cells, fate: Fate::Accepted, act: Act::Write, second: None, spoilt }
            }
            Rows::Pairs => {
                let key = format!("{MARK}p{number}@example.com");
                let code = format!("{MARK}c{}", rng.usize(..keys.div_ceil(3)));
                // A company cannot be made without one.
                let firm = ("name", Cell::Text(word("firm", &mut rng)));
                let second = Some((code, vec![firm]));
                let cells = vec![cell("firstname", &mut rng)];
                Draft { key_text: key.clone(), key, cells, fate: Fate::Accepted, act: Act::Write, second, spoilt }
            }
            Rows::Foreign => {
                let key = (5_000 + number).to_string();
                let operation = one_of(&mut rng, &["create", "snapshot", "update", "update", "delete"]);
                operations.push(operation);
                // A contact cannot be made without a name.
                let first = ("firstname", Cell::Text(text(stream, row, "firstname", &mut rng, odd)));
                let mut cells = vec![first, cell("city", &mut rng)];
                // Only an update says that a value is gone.
                if operation != "update" {
                    cells.retain(|(_, cell)| *cell != Cell::Blank);
                }
                Draft { key_text: key.clone(), key, cells, fate: Fate::Accepted, act: Act::Write, second: None, spoilt }
            }
            Rows::Nameless => {
                operations.push("create");
                let key = format!("{MARK}n{stream}x{row}");
                let cells = vec![("bio", Cell::Text(key.clone())), ("firstname", Cell::Text(format!("{MARK}f{row}")))];
                Draft {
                    key_text: (7_000 + row).to_string(),
                    key,
                    cells,
                    fate: Fate::Open,
                    act: Act::Write,
                    second: None,
                    spoilt,
                }
            }
        };
        drafts.push(draft);
    }
    // A value that another record has may be superseded by a later row of the same key before anybody sees it.
    let taken = |draft: &Draft| draft.cells.iter().any(|(_, cell)| *cell == Cell::Text(TAKEN.to_owned()));
    let repeated: Vec<bool> = (drafts.iter())
        .map(|draft| taken(draft) && drafts.iter().filter(|other| other.key == draft.key).count() > 1)
        .collect();
    for (draft, repeated) in drafts.iter_mut().zip(repeated) {
        if repeated && draft.fate == Fate::Rejected {
            draft.fate = Fate::Open;
        }
    }
    match import.rows {
        Rows::Foreign | Rows::Nameless => file::opencdc(drafts, &operations),
        Rows::Companies => file::csv(&["domain", "name", "city"], drafts, rng, odd),
        Rows::Pairs => file::csv(&["email", "first", "code", "firm"], drafts, rng, odd),
        Rows::Contacts if import.mode == Mode::Archive => file::csv(&["email", "city"], drafts, rng, odd),
        Rows::Contacts => {
            file::csv(&["email", "First Name", "city", "score", "level", "badge", "bio"], drafts, rng, odd)
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "what a row is drawn from")]
fn contact(
    import: &Import,
    number: usize,
    row: usize,
    stream: u64,
    roll: u16,
    rng: &mut fastrand::Rng,
    spoilt: Spoilt,
    cell: &mut impl FnMut(&'static str, &mut fastrand::Rng) -> (&'static str, Cell),
) -> Draft {
    let key = address(number);
    let key_text = match roll % 11 {
        0 if roll < 900 => key.to_uppercase(),
        _ => key.clone(),
    };
    let (has_score, has_level, has_badge) = (rng.bool(), rng.bool(), happens(rng, 0.3));
    let level = one_of(rng, &LEVELS);
    let mut cells = vec![cell("firstname", rng), cell("city", rng)];
    let score = 1_000 * (stream as usize + 1) + row;
    cells.push(("score", if has_score { Cell::Text(score.to_string()) } else { Cell::Blank }));
    cells.push(("level", if has_level { Cell::Text(level.to_owned()) } else { Cell::Blank }));
    cells.push(("badge", if has_badge { Cell::Text(format!("{MARK}b{number}")) } else { Cell::Blank }));
    cells.push(cell("bio", rng));
    let good = if matches!(import.mode, Mode::Upsert | Mode::Mirror) { Fate::Accepted } else { Fate::Open };
    let mut draft = Draft { key_text, key, cells, fate: good, act: Act::Write, second: None, spoilt };
    match roll {
        20..32 => {
            draft.key_text = format!("{MARK}broken{row}");
            draft.key.clone_from(&draft.key_text);
            draft.fate = Fate::Rejected;
        }
        32..40 => {
            draft.key_text = String::new();
            draft.key = String::new();
            draft.fate = Fate::Rejected;
        }
        40..48 => {
            draft.cells[2].1 = Cell::Text(format!("{MARK}number{row}"));
            draft.fate = Fate::Rejected;
        }
        48..56 => {
            draft.cells[3].1 = Cell::Text(format!("{MARK}level{row}"));
            draft.fate = Fate::Rejected;
        }
        56..75 => {
            draft.cells[4].1 = Cell::Text(TAKEN.to_owned());
            draft.fate = Fate::Rejected;
        }
        _ => {}
    }
    draft
}
