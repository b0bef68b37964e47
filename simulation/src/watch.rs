//! Looks on at every door while imports are at work, upsets those to AWS, and takes note of what must never happen.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, header};
use hubferry::{
    clock::{Clock as _, VirtualClock},
    state::{Item, Key, Value},
};
use hubferry_simulator::hubspot::{Outcome, Portal, Reply, Writer};
use jiff::{SignedDuration, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    Failure,
    dice::{dice, happens},
    import::file::{Act, Cell as Says, Fate, Shared},
    world::{Chance, Door, Upset},
};

/// Attempts of one call that are not answered 429: hubferry's own bound is 8.
const ATTEMPTS_MAX: u32 = 8;

/// Attempts of one call that are answered 429.
const THROTTLED_ATTEMPTS_MAX: u32 = 40;

/// A version of a file, as far as looking on needs it.
#[derive(Clone)]
pub struct Known {
    /// The file.
    pub file: Shared,
    /// Which of the accounts it goes to.
    pub account: usize,
    /// Object type of the first record of each row.
    pub object: &'static str,
    /// The property that holds its key.
    pub key_property: &'static str,
    /// Each accepted row is a write of its own: what a checkpoint covers was written since the run began.
    pub writes_all: bool,
}

/// A run's item, as it was last seen.
#[derive(Default)]
struct Seen {
    owner: String,
    lease_until: i64,
    open: bool,
    byte: u64,
    /// Rows that were found durable.
    durable: usize,
}

/// How often the doors to AWS are upset.
#[derive(Debug, Clone, Default)]
pub struct Upsets {
    /// Share of the calls of the table that fail, and of its writes whose answer gets lost.
    pub table: f64,
    /// The same of S3.
    pub objects: f64,
    /// While the table refuses every write: since the start.
    pub table_down: Vec<(Duration, Duration)>,
}

/// See the module.
pub struct Watch {
    clock: Rc<VirtualClock>,
    rng: RefCell<fastrand::Rng>,
    upsets: Upsets,
    /// The doors are upset.
    pub upset: Cell<bool>,
    portals: Vec<Rc<RefCell<Portal>>>,
    hosts: Vec<&'static str>,
    failures: RefCell<Vec<Failure>>,
    runs: RefCell<BTreeMap<String, Seen>>,
    /// Tokens that were used, and whatever else is secret.
    pub secrets: RefCell<BTreeSet<String>>,
    /// Versions of files by their sequencer, as the runs' items have it.
    pub known: RefCell<BTreeMap<String, Known>>,
    /// Keys whose records people have merged: what is written to them lands elsewhere.
    pub muddled: RefCell<BTreeSet<(usize, String)>>,
    /// Writes of each account's history that were looked at.
    looked: RefCell<Vec<usize>>,
    keys: RefCell<BTreeMap<(usize, String, String), String>>,
    touched: RefCell<BTreeMap<(usize, String, String), Timestamp>>,
    touched_ids: RefCell<BTreeMap<(usize, String, String), Timestamp>>,
    not_before: RefCell<BTreeMap<u64, Timestamp>>,
    attempts: RefCell<BTreeMap<u64, (u32, u32)>>,
    /// Calls of AWS that were upset.
    pub upset_count: Cell<u64>,
}

impl Watch {
    /// Looks on at these accounts, the first of which is `default`.
    pub fn new(
        seed: u64,
        clock: Rc<VirtualClock>,
        portals: Vec<Rc<RefCell<Portal>>>,
        hosts: Vec<&'static str>,
        upsets: Upsets,
    ) -> Self {
        Self {
            clock,
            rng: RefCell::new(dice(seed, "upsets", 0)),
            upsets,
            upset: Cell::new(true),
            looked: RefCell::new(vec![0; portals.len()]),
            portals,
            hosts,
            failures: RefCell::default(),
            runs: RefCell::default(),
            secrets: RefCell::default(),
            known: RefCell::default(),
            muddled: RefCell::default(),
            keys: RefCell::default(),
            touched: RefCell::default(),
            touched_ids: RefCell::default(),
            not_before: RefCell::default(),
            attempts: RefCell::default(),
            upset_count: Cell::new(0),
        }
    }

    /// Something that must never happen did.
    pub fn fail(&self, invariant: &'static str, seen: String) {
        self.failures.borrow_mut().push(Failure { invariant, seen });
    }

    /// The first thing that went wrong.
    pub fn failure(&self) -> Option<Failure> {
        self.failures.borrow().first().cloned()
    }

    /// A record that was there from the start.
    pub fn seeded(&self, account: usize, object: &str, id: &str, key: &str) {
        self.keys.borrow_mut().insert((account, object.to_owned(), id.to_owned()), key.to_owned());
    }

    /// Takes note of the writes since the last look.
    fn look(&self, account: usize) {
        let portal = self.portals[account].borrow();
        let history = portal.history();
        let mut looked = self.looked.borrow_mut();
        for write in &history[looked[account].min(history.len())..] {
            let place = (account, write.object.clone(), write.id.clone());
            let names = ["email", "domain", "hubferry_hs_object_id_key"];
            let key = |name: &&str| write.changes.iter().find(|(changed, ..)| changed == name);
            if let Some((_, _, Some(new))) = names.iter().find_map(key) {
                self.keys.borrow_mut().insert(place.clone(), new.to_lowercase());
            }
            if write.by == Writer::Api {
                self.touched_ids.borrow_mut().insert(place.clone(), write.at);
            }
            if write.by == Writer::Api
                && let Some(key) = self.keys.borrow().get(&place)
            {
                self.touched.borrow_mut().insert((account, write.object.clone(), key.clone()), write.at);
            }
        }
        looked[account] = history.len();
    }

    /// What stands before the position must have been written.
    fn durable(&self, run_id: &str, item: &Item, line: u64) {
        let text = |name: &str| match item.get(name) {
            Some(Value::S(text)) => text.clone(),
            _ => String::new(),
        };
        let source: serde_json::Value = serde_json::from_str(&text("source")).unwrap_or_default();
        let sequencer = source["sequencer"].as_str().unwrap_or_default();
        let Some(known) = self.known.borrow().get(sequencer).cloned() else { return };
        if !known.writes_all {
            return;
        }
        let started = match item.get("started_at") {
            Some(Value::N(ms)) => Timestamp::from_millisecond(*ms).unwrap(),
            _ => return,
        };
        self.look(known.account);
        let mut runs = self.runs.borrow_mut();
        let seen = runs.entry(run_id.to_owned()).or_default();
        while let Some(row) = known.file.rows.get(seen.durable).filter(|row| row.line <= line) {
            seen.durable += 1;
            let place = (known.account, known.object.to_owned(), row.key.clone());
            let muddled = self.muddled.borrow().contains(&(known.account, row.key.clone()));
            let says = row.cells.iter().any(|(_, cell)| matches!(cell, Says::Text(_)));
            if row.fate != Fate::Accepted || row.act != Act::Write || muddled || !says {
                continue;
            }
            if known.key_property != "email" {
                // The key does not show in the history: the record is asked. One that is gone again was there.
                let found = self.portals[known.account].borrow().find_by(known.object, known.key_property, &row.key);
                let Some(id) = found.map(|record| record["hs_object_id"].clone()) else { continue };
                let of = (known.account, known.object.to_owned(), id);
                let at = self.touched_ids.borrow().get(&of).copied();
                self.touched.borrow_mut().insert(place.clone(), at.unwrap_or_default());
            }
            if self.touched.borrow().get(&place).is_none_or(|at| *at < started) {
                let seen =
                    format!("run {run_id}: the checkpoint is past line {}, which was not written: {row:?}", row.line);
                self.fail("a checkpoint covers only what is durable", seen);
                return;
            }
        }
    }
}

impl Chance for Watch {
    fn objects(&self, door: Door, _: &str) -> Upset {
        let (refused, lost) = (self.upsets.objects, self.upsets.objects / 2.0);
        self.strike(door, refused, lost, false)
    }

    fn table(&self, door: Door) -> Upset {
        let at = self.clock.elapsed();
        let down = door == Door::Write && self.upsets.table_down.iter().any(|(from, to)| (*from..*to).contains(&at));
        self.strike(door, self.upsets.table, self.upsets.table / 2.0, down)
    }

    fn called(&self, invocation: u64, at: Timestamp, request: &Request<Bytes>, reply: &Reply) {
        if let Some(token) = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
            && !self.secrets.borrow().contains(token.trim_start_matches("Bearer "))
        {
            self.secrets.borrow_mut().insert(token.trim_start_matches("Bearer ").to_owned());
        }
        let path = request.uri().path();
        let host = request.uri().host().unwrap_or_default();
        let account = self.hosts.iter().position(|known| *known == host).unwrap_or(0);
        let is_write = request.method() != Method::GET
            && path.contains("/batch/")
            && !path.ends_with("/read")
            && !path.contains("/properties/");
        if !is_write {
            return;
        }
        let owner = format!("invocation-{invocation}");
        let now = at.as_millisecond();
        let holds = self.runs.borrow().values().any(|run| run.open && run.owner == owner && run.lease_until >= now);
        if !holds {
            self.fail("nobody writes without a lease", format!("{at} invocation {invocation}: {path}"));
        }
        let call = xxh3_64_with_seed(request.body(), xxh3_64_with_seed(path.as_bytes(), account as u64));
        if let Some(until) = self.not_before.borrow().get(&call).filter(|until| at < **until) {
            self.fail("Retry-After is honoured", format!("{at} invocation {invocation}: {path} before {until}"));
        }
        let mut attempts = self.attempts.borrow_mut();
        let (failed, throttled) = attempts.entry(call).or_default();
        if let Outcome::Response(response) = &reply.response
            && let Some(wait) =
                response.headers().get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok())
        {
            let until = at.saturating_add(SignedDuration::from_secs(wait)).unwrap_or(at);
            self.not_before.borrow_mut().insert(call, until);
        }
        match &reply.response {
            Outcome::Response(response) if response.status() == 429 => *throttled += 1,
            _ => *failed += 1,
        }
        if *failed > ATTEMPTS_MAX || *throttled > THROTTLED_ATTEMPTS_MAX {
            self.fail(
                "a call is repeated within bounds",
                format!("{path}: {failed} attempts, {throttled} more at 429"),
            );
        }
    }

    fn stored(&self, invocation: u64, key: &Key, before: Option<&Item>, after: Option<&Item>) {
        let Some(run_id) = key.pk.strip_prefix("run#").filter(|_| key.sk == "run") else { return };
        let Some(after) = after.filter(|after| before != Some(*after)) else { return };
        let text = |item: Option<&Item>, name: &str| match item.and_then(|item| item.get(name)) {
            Some(Value::S(text)) => text.clone(),
            _ => String::new(),
        };
        let number = |item: Option<&Item>, name: &str| match item.and_then(|item| item.get(name)) {
            Some(Value::N(number)) => *number,
            _ => 0,
        };
        let (new, old) = (Some(after), before);
        let now = self.clock.now();
        let owner = text(new, "owner");
        if number(new, "fence") < number(old, "fence") {
            self.fail("a fence only grows", format!("run {run_id}"));
        }
        if number(new, "fence") > number(old, "fence") && number(old, "lease_expires_at") > now.as_millisecond() {
            let seen = format!("{now} run {run_id}: {owner} took it from {}", text(old, "owner"));
            self.fail("a lease is not taken while it is held", seen);
        }
        let outcome = text(old, "outcome");
        if before.is_some() && outcome != "open" && outcome != text(new, "outcome") {
            self.fail("a run ends once", format!("run {run_id}: {outcome}, then {}", text(new, "outcome")));
        }
        let advanced = text(new, "position") != text(old, "position") || text(new, "progress") != text(old, "progress");
        if advanced && owner.starts_with("invocation-") && owner != format!("invocation-{invocation}") {
            let seen = format!("{now} run {run_id}: invocation {invocation}, while {owner} holds the lease");
            self.fail("only the owner advances a run", seen);
        }
        let position = |item: Option<&Item>| {
            let json: serde_json::Value = serde_json::from_str(&text(item, "position")).unwrap_or_default();
            (json["byte"].as_u64().unwrap_or(0), json["line"].as_u64().unwrap_or(0))
        };
        let (byte, line) = position(new);
        if byte < position(old).0 {
            self.fail("a stored position never goes back", format!("run {run_id}: {byte} after {}", position(old).0));
        }
        {
            let mut runs = self.runs.borrow_mut();
            let seen = runs.entry(run_id.to_owned()).or_default();
            seen.byte = byte;
            seen.owner.clone_from(&owner);
            seen.open = text(new, "outcome") == "open";
            seen.lease_until = number(new, "lease_expires_at");
        }
        if advanced {
            self.durable(run_id, after, line);
        }
    }
}

impl Watch {
    fn strike(&self, door: Door, refused: f64, lost: f64, down: bool) -> Upset {
        let mut rng = self.rng.borrow_mut();
        let (refuse, lose) = (happens(&mut rng, refused), happens(&mut rng, lost));
        if !self.upset.get() {
            return Upset::None;
        }
        let upset = match door {
            _ if refuse || down => Upset::Refused,
            Door::Write if lose => Upset::LostAnswer,
            _ => return Upset::None,
        };
        self.upset_count.set(self.upset_count.get() + 1);
        upset
    }
}
