//! Worlds of imports: files as people send them, runs that fail, die and overlap, people at work meanwhile.

pub mod file;
pub mod oracle;
pub mod plan;

use std::{
    cell::{Cell as Flag, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use hubferry::{
    clock::Clock as _,
    event::normalised,
    objects::{Location, Objects as _, memory::MemoryObjects},
    report::Outcome,
    state::Value as Attribute,
};
use hubferry_simulator::hubspot::{Portal, PortalSettings};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::{
    file::{Cell, Fate, last_words},
    oracle::{Oracle, Place, Ran, account_for, depends},
    plan::{Kind, Mode, Plan, Rows, SECOND, Shape, address},
};
use crate::{
    Failure, Lived, Scale, Trace,
    cloud::Cloud,
    dice::{dice, happens, one_of},
    lived_through,
    logs::Logs,
    watch::{Known, Watch},
    world::{BUCKET, START, World},
};

/// The token of the second account.
const SECOND_TOKEN: &str = "pat-na1-11111111-1111-4111-8111-111111111111";

/// The token after the rotation.
const ROTATED_TOKEN: &str = "pat-na1-22222222-2222-4222-8222-222222222222";

/// Calls over the day's allowance, which is what is under way when the account says that only the reserve is left. Each later process
/// learns it from a call of its own.
const DAY_SLACK: usize = 12;

/// Calls in one window over the limit: a slot may be used up to a gap late, by each of several processes, which shows where the gaps are
/// large.
const WINDOW_SLACK: usize = 2;

/// Calls in a window from which on one that comes late makes no difference to the others.
const FEW_SLOTS: usize = 10;

/// Lives through one world.
pub fn live(seed: u64, scale: &Scale) -> Lived {
    live_as(Kind::Import, seed, scale)
}

/// Lives through a world of either kind.
pub fn live_as(kind: Kind, seed: u64, scale: &Scale) -> Lived {
    let logs = Logs::default();
    let _listening = logs.listen();
    let scale = *scale;
    lived_through(async |trace| {
        let plan = plan::draw(kind, seed, &scale);
        let life = Life::new(kind, seed, &scale, plan, logs.clone(), trace);
        let end = life.through().await;
        life.sum_up();
        end
    })
}

struct Life {
    kind: Kind,
    seed: u64,
    plan: Plan,
    cloud: Cloud,
    watch: Rc<Watch>,
    oracle: RefCell<Oracle>,
    portals: Vec<Rc<RefCell<Portal>>>,
    logs: Logs,
    uploaded: Flag<u64>,
    /// Uploads in the order in which they took place, by the sequencer of their events: the index in the plan, or of what came after it.
    by_sequencer: RefCell<BTreeMap<String, usize>>,
    later: RefCell<Vec<plan::Upload>>,
}

/// What became of an object in a bucket without versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    /// There is a newer one.
    Overwritten,
    /// There was a newer one, which was deleted.
    Deleted,
}

fn failed(invariant: &'static str, seen: impl Into<String>) -> Failure {
    Failure { invariant, seen: seen.into() }
}

impl Life {
    fn new(kind: Kind, seed: u64, scale: &Scale, plan: Plan, logs: Logs, trace: Rc<RefCell<Trace>>) -> Self {
        let [first, second] = [&plan.portals[0], &plan.portals[1]];
        let mut world = World::with(&plan.config, first.clone());
        if !plan.versioned {
            world.objects = MemoryObjects::new();
        }
        let mut second = second.clone();
        second.tokens[0].token = SECOND_TOKEN.to_owned();
        let second = Rc::new(RefCell::new(Portal::new(second)));
        world.portals.borrow_mut().insert(SECOND.to_owned(), second.clone());
        world.secrets.insert("hubferry/second", &json!({ "access_token": SECOND_TOKEN }).to_string());
        if plan.oauth {
            let secret = json!({ "client_id": "client-of-the-world", "client_secret": "secret-of-the-world",
                "refresh_token": "refresh-of-the-world" });
            world.secrets.insert("hubferry/hubspot", &secret.to_string());
        }
        let portals = vec![world.portal.clone(), second];
        let watch = Rc::new(Watch::new(
            seed,
            world.clock.clone(),
            portals.clone(),
            vec!["api.hubapi.com", SECOND],
            plan.upsets.clone(),
        ));
        let secrets =
            [PortalSettings::TOKEN, SECOND_TOKEN, ROTATED_TOKEN, "secret-of-the-world", "refresh-of-the-world"];
        watch.secrets.borrow_mut().extend(secrets.map(str::to_owned));
        *world.chance.borrow_mut() = Some(watch.clone());
        let mut oracle = Oracle::default();
        let start: Timestamp = START.parse().unwrap();
        let ambiguous = plan::ambiguous(&plan.seeded);
        for (account, object, record) in &plan.seeded {
            let pairs: Vec<(&str, &str)> = record.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let id = portals[*account].borrow_mut().seed_record(start, object, &pairs).unwrap();
            let key = record[0].1.clone();
            watch.seeded(*account, object, &id, &key);
            let place: Place = (*account, object, key.clone());
            oracle.seeded(start, &place, record);
            if ambiguous.contains(&key) {
                watch.muddled.borrow_mut().insert((*account, key));
            }
        }
        for portal in &portals {
            portal.borrow_mut().keep_history();
        }
        let world = Rc::new(world);
        let cloud = Cloud::new(seed, scale, world, watch.clone(), plan.fortune.clone(), trace);
        Self {
            kind,
            seed,
            plan,
            cloud,
            watch,
            oracle: RefCell::new(oracle),
            portals,
            logs,
            uploaded: Flag::new(0),
            by_sequencer: RefCell::default(),
            later: RefCell::default(),
        }
    }

    fn world(&self) -> &World {
        &self.cloud.world
    }

    fn upload_of(&self, index: usize) -> plan::Upload {
        match self.plan.uploads.get(index) {
            Some(upload) => upload.clone(),
            None => self.later.borrow()[index - self.plan.uploads.len()].clone(),
        }
    }

    /// Uploads, and sends the events off.
    async fn upload(&self, index: usize) {
        let upload = self.upload_of(index);
        let import = &self.plan.imports[upload.import];
        let at = Location::new(BUCKET, &upload.key);
        self.world().objects.insert(&at, upload.file.bytes.clone());
        let object = self.world().objects.head(&at, None).await.unwrap();
        let number = self.uploaded.get() + 1;
        self.uploaded.set(number);
        // S3's are of different length, and are compared as if they ended in zeros.
        let mut sequencer = format!("{:015X}", number * 16);
        if number.is_multiple_of(3) {
            sequencer.push_str("A7");
        }
        self.by_sequencer.borrow_mut().insert(normalised(&sequencer), index);
        let known = Known {
            file: upload.file.clone(),
            account: import.account,
            object: import.object(),
            key_property: import.key_property(),
            writes_all: import.writes_all(),
        };
        self.watch.known.borrow_mut().insert(normalised(&sequencer), known);
        self.cloud.note(format_args!(
            "upload {index}: {} rows {} {}",
            upload.file.rows.len(),
            upload.key,
            upload.file.how
        ));
        for (after, shape) in &upload.events {
            let event = notification(*shape, &object, &sequencer);
            self.cloud.send(*after, event, format!("{shape:?} of upload {index}"));
        }
    }

    /// Uploads what the plan says when it says so.
    async fn uploads(&self) {
        for (index, upload) in self.plan.uploads.iter().enumerate() {
            let now = self.world().clock.elapsed();
            self.world().clock.sleep(upload.at.saturating_sub(now)).await;
            self.upload(index).await;
        }
    }

    /// Deletes what the plan says, when it says so.
    async fn deletions(&self) {
        let mut all: Vec<(Duration, &str)> = Vec::new();
        for upload in &self.plan.uploads {
            all.extend(upload.deleted_after.map(|after| (upload.at + after, upload.key.as_str())));
        }
        all.sort();
        for (at, key) in all {
            self.world().clock.sleep(at.saturating_sub(self.world().clock.elapsed())).await;
            self.cloud.note(format_args!("{key} is deleted"));
            self.world().objects.delete(&Location::new(BUCKET, key)).await.unwrap();
        }
    }

    /// Replaces the secret, and ends the old token a while later.
    async fn rotation(&self) {
        let Some(after) = self.plan.rotates else { return };
        let first = self.plan.uploads.first().map_or(Duration::ZERO, |upload| upload.at);
        self.world().clock.sleep(first + after).await;
        self.portals[0].borrow_mut().grant_token(ROTATED_TOKEN, "private-app", Vec::new());
        self.world().secrets.insert("hubferry/hubspot", &json!({ "access_token": ROTATED_TOKEN }).to_string());
        self.world().clock.sleep(Duration::from_millis(700)).await;
        self.portals[0].borrow_mut().revoke_token(PortalSettings::TOKEN);
        self.cloud.note(format_args!("the old token has ended"));
    }

    /// People at work in the browser.
    async fn people(&self) {
        let Some(every) = self.plan.people_every else { return };
        for number in 0.. {
            let mut rng = dice(self.seed, "people", number);
            self.world().clock.sleep(every.mul_f64(0.2 + 1.6 * rng.f64())).await;
            if self.world().clock.elapsed() >= self.plan.lasts {
                return;
            }
            let account = usize::from(happens(&mut rng, 0.2));
            let (one, other) = (rng.usize(..self.plan.keys), rng.usize(..self.plan.keys));
            let now = self.world().clock.now();
            let mut portal = self.portals[account].borrow_mut();
            let place: Place = (account, "contacts", address(one));
            let id = |portal: &Portal, number: usize| {
                portal.find_by("contacts", "email", &address(number)).map(|record| record["hs_object_id"].clone())
            };
            let found = id(&portal, one);
            match (rng.u8(..100), found) {
                (0..65, Some(id)) => {
                    let property = one_of(&mut rng, &["firstname", "lastname", "city", "bio"]);
                    let value = format!("uloqedit{number}");
                    portal.edit(now, "contacts", &id, &[(property, &value)]);
                    self.oracle.borrow_mut().person(now, &place, Some(property), Some(value));
                    self.cloud.note(format_args!("somebody edits {property} of contact {one} of account {account}"));
                }
                (65..78, Some(id)) => {
                    portal.set_archived(now, "contacts", &id, true);
                    self.oracle.borrow_mut().person(now, &place, None, None);
                    self.cloud.note(format_args!("somebody archives contact {one} of account {account}"));
                }
                (78..82, Some(winner)) => {
                    let Some(loser) = id(&portal, other).filter(|loser| *loser != winner) else { continue };
                    if portal.merge(now, "contacts", &winner, &loser) {
                        let mut muddled = self.watch.muddled.borrow_mut();
                        muddled.insert((account, address(one)));
                        muddled.insert((account, address(other)));
                        self.cloud
                            .note(format_args!("somebody merges contact {other} into {one} of account {account}"));
                    }
                }
                (82.., None) => {
                    let value = format!("uloqnew{number}");
                    portal.create_record(now, "contacts", &[("email", &address(one)), ("city", &value)]);
                    let mut oracle = self.oracle.borrow_mut();
                    oracle.person(now, &place, None, Some("yes".to_owned()));
                    oracle.person(now, &place, Some("city"), Some(value));
                    self.cloud.note(format_args!("somebody creates contact {one} of account {account}"));
                }
                _ => {}
            }
        }
    }

    /// From the first upload to the last look.
    async fn through(&self) -> Result<(), Failure> {
        for (name, event) in [
            ("a test event", json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET })),
            ("an event of another folder", notification_of("elsewhere/a.csv", 5, "e", None, "00", Shape::SqsBridge)),
        ] {
            if self.kind == Kind::Delivery {
                self.cloud.send(Duration::from_secs(1), event, name.to_owned());
            }
        }
        self.cloud.sweep_in(Duration::from_secs(20));
        let actors = async {
            futures_util::join!(self.uploads(), self.deletions(), self.rotation(), self.people());
        };
        futures_util::future::join(actors, self.cloud.run_until(self.plan.lasts)).await;
        self.checked()?;
        self.cloud.note(format_args!("nothing goes wrong any more"));
        for portal in &self.portals {
            portal.borrow_mut().clear_faults();
        }
        self.settled().await?;
        // A run that was never let get anywhere has failed, and said so: its event, sent again, finishes the work.
        for ran in self.given_up().await {
            self.cloud.note(format_args!("the event of run {} is sent again", ran.run_id));
            self.again(ran.upload).await;
        }
        self.settled().await?;
        self.look().await?;
        self.once_more().await?;
        self.look().await
    }

    async fn settled(&self) -> Result<(), Failure> {
        let settled = self.cloud.settle().await;
        self.checked()?;
        if !settled {
            let open: Vec<String> =
                self.world().table.snapshot().into_keys().filter(|key| key.pk == "open").map(|key| key.sk).collect();
            return Err(failed("every run ends within bounds", format!("{open:?} are still open")));
        }
        Ok(())
    }

    fn checked(&self) -> Result<(), Failure> {
        self.watch.failure().map_or(Ok(()), Err)
    }

    /// The event of an upload comes again.
    async fn again(&self, upload: usize) {
        let upload_key = self.upload_of(upload).key;
        let sequencer =
            self.by_sequencer.borrow().iter().find(|(_, index)| **index == upload).map(|(text, _)| text.clone());
        if let Ok(object) = self.world().objects.head(&Location::new(BUCKET, upload_key), None).await {
            let event = notification(Shape::SqsBridge, &object, &sequencer.unwrap_or_default());
            self.cloud.send(Duration::ZERO, event, format!("again, of upload {upload}"));
        }
    }

    /// Whether a run may have been kept from its work so often in a row that it gave up.
    fn in_trouble(&self) -> bool {
        let times = self.cloud.killed.get() + self.cloud.failed.get() + self.watch.upset_count.get();
        self.plan.slow || times >= 4
    }

    /// Runs that failed because they were killed or kept from their work too often in a row.
    async fn given_up(&self) -> Vec<Ran> {
        let runs = self.runs().await;
        let code = |ran: &Ran| ran.report.as_ref().and_then(|report| report.error.clone()).map(|error| error.code);
        let gave_up = |ran: &&Ran| ran.outcome == Some(Outcome::Failed) && code(ran).as_deref() == Some("NO_PROGRESS");
        let done =
            |ran: &Ran| runs.iter().any(|other| other.upload == ran.upload && other.outcome == Some(Outcome::Done));
        runs.iter().filter(gave_up).filter(|ran| self.in_trouble() && !done(ran)).cloned().collect()
    }

    /// Every run that there ever was, in the order in which they were made.
    async fn runs(&self) -> Vec<Ran> {
        let mut runs = Vec::new();
        let app = self.world().process();
        for (key, item) in self.world().table.snapshot() {
            let Some(run_id) = key.pk.strip_prefix("run#") else { continue };
            let Some(Attribute::S(_)) = item.get("source") else { continue };
            let run = app.runs().get(run_id).await.unwrap().unwrap();
            let sequencer = run.source.sequencer.clone().unwrap_or_default();
            let Some(upload) = self.by_sequencer.borrow().get(&sequencer).copied() else { continue };
            let to = run.report.as_ref().map_or(Timestamp::MAX, |report| report.finished_at);
            runs.push(Ran {
                run_id: run_id.to_owned(),
                upload,
                outcome: run.outcome,
                from: run.started_at,
                to,
                report: run.report,
            });
        }
        runs
    }

    /// Everything that must hold when nothing is under way.
    async fn look(&self) -> Result<(), Failure> {
        let runs = self.runs().await;
        let mut rejects: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let muddled = self.watch.muddled.borrow().clone();
        for ran in &runs {
            let upload = self.upload_of(ran.upload);
            let import = &self.plan.imports[upload.import];
            let outcome = ran.outcome.ok_or_else(|| failed("every run ends within bounds", ran.run_id.clone()))?;
            let code = ran.report.as_ref().and_then(|report| report.error.as_ref()).map(|error| error.code.as_str());
            let newer =
                runs.iter().any(|other| other.upload > ran.upload && self.upload_of(other.upload).key == upload.key);
            // Without versions an object that is replaced is gone for whoever has not read it to its end, and what is deleted is the newest.
            let replaced = if self.plan.versioned { None } else { self.replaced_before(ran) };
            match outcome {
                Outcome::Done => {
                    let open = |row: &file::Row| muddled.contains(&(import.account, row.key.clone()));
                    let lines = account_for(self.world(), ran, import, &upload.file.rows, open)
                        .map_err(|(invariant, seen)| failed(invariant, seen))?;
                    rejects.insert(ran.run_id.clone(), lines);
                }
                Outcome::Superseded if newer => {}
                Outcome::Superseded if code == Some("SOURCE_CHANGED") && replaced.is_some() => {}
                Outcome::Failed if code == Some("SOURCE_GONE") && replaced == Some(Replaced::Deleted) => {}
                Outcome::Failed if code == Some("NO_PROGRESS") && self.in_trouble() => {}
                Outcome::Failed if code == Some("SOURCE_GONE") && upload.deleted_after.is_some() => {}
                Outcome::Failed if code == Some("SOURCE_CHANGED") && newer => {}
                Outcome::Failed if code == Some("ROWS_DEFERRED") && import.rows == Rows::Nameless => {
                    let open = |_: &file::Row| true;
                    let lines = account_for(self.world(), ran, import, &upload.file.rows, open)
                        .map_err(|(invariant, seen)| failed(invariant, seen))?;
                    rejects.insert(ran.run_id.clone(), lines);
                }
                _ => {
                    let text = format!(
                        "run {} of {}: {outcome:?}, {:?}",
                        ran.run_id,
                        upload.key,
                        ran.report.as_ref().map(|report| &report.error)
                    );
                    return Err(failed("a run of a good file ends well", text));
                }
            }
            if let Some(report) = &ran.report {
                let stored = format!("s3://{BUCKET}/reports/import/{}/{}.json", import.name, ran.run_id);
                let stored = self.world().text(&stored).and_then(|text| serde_json::from_str::<Value>(&text).ok());
                let same = stored.as_ref().is_some_and(|stored| stored["outcome"] == report.outcome.as_str());
                if !same {
                    return Err(failed("the stored report is the run's", format!("run {}: {stored:?}", ran.run_id)));
                }
            }
        }
        self.each_once(&runs)?;
        let oracle = self.said(&runs, &rejects);
        let portals: Vec<_> = self.portals.iter().map(|portal| portal.borrow()).collect();
        let wrong = oracle.compare(&portals, &muddled);
        drop(portals);
        self.fates(&oracle, &runs, &rejects)?;
        if let Some(first) = wrong.first() {
            return Err(failed("HubSpot holds what was said last", format!("{first} ({} such)", wrong.len())));
        }
        self.twice()?;
        self.nameless(&runs)?;
        self.pairs(&runs, &rejects)?;
        self.images(&oracle, &runs).await?;
        self.limits()?;
        self.silent();
        self.checked()
    }

    /// What became of the object that a run reads, before the run ended: uploads are numbered in the order of time.
    fn replaced_before(&self, ran: &Ran) -> Option<Replaced> {
        let start: Timestamp = START.parse().unwrap();
        let until = |at: Duration| start + at <= ran.to;
        let key = self.upload_of(ran.upload).key;
        let newer = self.plan.uploads.iter().skip(ran.upload + 1).filter(|other| other.key == key && until(other.at));
        newer
            .map(|other| match other.deleted_after {
                Some(after) if until(other.at + after) => Replaced::Deleted,
                _ => Replaced::Overwritten,
            })
            .next_back()
    }

    /// Each version that was not replaced before anybody looked is imported once, the newest certainly.
    fn each_once(&self, runs: &[Ran]) -> Result<(), Failure> {
        let total = self.plan.uploads.len() + self.later.borrow().len();
        let uploads: Vec<plan::Upload> = (0..total).map(|index| self.upload_of(index)).collect();
        for (index, upload) in uploads.iter().enumerate() {
            let done = runs.iter().filter(|ran| ran.upload == index && ran.outcome == Some(Outcome::Done)).count();
            let newest = uploads.iter().skip(index + 1).all(|other| other.key != upload.key);
            // The same contents again, in a bucket without versions: one run for both, if nothing came between.
            let same = !self.plan.versioned
                && uploads.iter().enumerate().any(|(other, one)| {
                    other != index
                        && one.key == upload.key
                        && one.file.bytes == upload.file.bytes
                        && runs.iter().any(|ran| ran.upload == other && ran.outcome == Some(Outcome::Done))
                });
            let gone = upload.deleted_after.is_some()
                || uploads.iter().any(|other| other.key == upload.key && other.deleted_after.is_some());
            let deferred = runs.iter().any(|ran| ran.upload == index && ran.outcome == Some(Outcome::Failed));
            if done > 1 || (done == 0 && newest && !same && !gone && !deferred) {
                return Err(failed(
                    "each file is imported once",
                    format!("upload {index}, {}: {done} times", upload.key),
                ));
            }
        }
        Ok(())
    }

    /// What everybody said.
    fn said(&self, runs: &[Ran], rejects: &BTreeMap<String, BTreeSet<u64>>) -> Oracle {
        let mut oracle = self.oracle.borrow().clone();
        let none = BTreeSet::new();
        for ran in runs {
            let upload = self.upload_of(ran.upload);
            let import = &self.plan.imports[upload.import];
            if import.rows == Rows::Nameless {
                continue;
            }
            let words_of = |ran: &Ran| {
                let rows = &self.upload_of(ran.upload).file.rows;
                last_words(rows, import.clears, |row| row.fate != Fate::Rejected)
            };
            let own = words_of(ran);
            let mut known = Vec::new();
            if import.skips || import.mode == Mode::Mirror {
                let others = runs.iter().filter(|other| other.run_id != ran.run_id && other.from <= ran.to);
                let others = others.filter(|other| self.upload_of(other.upload).import == upload.import);
                known.extend(others.map(|other| (other, words_of(other))));
            }
            let left_out = |key: &str| {
                let same = |words: &BTreeMap<String, _>| words.get(key) == own.get(key);
                let unclear = |other: &Ran| other.to >= ran.from || other.outcome != Some(Outcome::Done);
                // Of runs that were at work at the same time any may have been the last one to deliver the key.
                let clear = || known.iter().filter(|(other, words)| !unclear(other) && words.contains_key(key));
                let may_be_last = |other: &Ran| !clear().any(|(later, _)| later.from > other.to);
                import.skips
                    && (known.iter().any(|(other, words)| unclear(other) && same(words))
                        || clear().any(|(other, words)| may_be_last(other) && same(words)))
            };
            let mut gone = BTreeSet::new();
            if import.mode == Mode::Mirror {
                gone.extend(known.iter().flat_map(|(_, words)| words.keys().cloned()));
                gone.retain(|key| upload.file.rows.iter().all(|row| row.key != *key));
            }
            let lines = rejects.get(&ran.run_id).unwrap_or(&none);
            oracle.run(ran, import, &upload.key, &upload.file.rows, lines, left_out, &gone);
        }
        oracle
    }

    /// Modes that depend on what is there: where that is certain, so is what becomes of a row.
    fn fates(&self, oracle: &Oracle, runs: &[Ran], rejects: &BTreeMap<String, BTreeSet<u64>>) -> Result<(), Failure> {
        let muddled = self.watch.muddled.borrow();
        for ran in runs.iter().filter(|ran| ran.outcome == Some(Outcome::Done)) {
            let upload = self.upload_of(ran.upload);
            let import = &self.plan.imports[upload.import];
            let Some(lines) = rejects.get(&ran.run_id).filter(|_| depends(import.mode)) else { continue };
            for row in upload.file.rows.iter().filter(|row| row.fate == Fate::Open) {
                let alone = upload.file.rows.iter().filter(|other| other.key == row.key).count() == 1;
                let place: Place = (import.account, import.object(), row.key.clone());
                if !alone || muddled.contains(&(import.account, row.key.clone())) {
                    continue;
                }
                let Some(stood) = oracle.stood(&place, ran) else { continue };
                let accepted = !lines.contains(&row.line);
                let should = match import.mode {
                    Mode::Create => !stood,
                    _ => stood,
                };
                if accepted != should {
                    let seen = format!(
                        "run {} in mode {:?}: line {} was accepted: {accepted}, the record stood there: {stood}",
                        ran.run_id, import.mode, row.line
                    );
                    return Err(failed("every row is accounted for once", seen));
                }
            }
        }
        Ok(())
    }

    /// No record stands there twice.
    fn twice(&self) -> Result<(), Failure> {
        let ambiguous = plan::ambiguous(&self.plan.seeded);
        for (account, portal) in self.portals.iter().enumerate() {
            let portal = portal.borrow();
            for (object, property) in [("companies", "domain"), ("contacts", "bio")] {
                let mut seen = BTreeSet::new();
                for record in portal.records(object) {
                    let Some(value) = record.get(property) else { continue };
                    let counts = property == "domain" || value.starts_with("uloqn");
                    if counts && !ambiguous.contains(value) && !seen.insert(value.clone()) {
                        return Err(failed("no record is there twice", format!("account {account}: {object} {value}")));
                    }
                }
            }
        }
        Ok(())
    }

    /// Records that nothing names: one for each row that was accepted.
    fn nameless(&self, runs: &[Ran]) -> Result<(), Failure> {
        for ran in runs {
            let upload = self.upload_of(ran.upload);
            let import = &self.plan.imports[upload.import];
            let Some(report) = ran.report.as_ref().filter(|_| import.rows == Rows::Nameless) else { continue };
            if !report.outcome.is_final() || report.rows.read != upload.file.rows.len() as u64 {
                continue;
            }
            let Ok(rejects) = oracle::rejects_of(self.world(), report) else { continue };
            let portal = self.portals[import.account].borrow();
            for row in &upload.file.rows {
                let reject = rejects.iter().find(|reject| reject.line == row.line);
                let there = portal.find_by("contacts", "bio", &row.key).is_some();
                let wrong = match reject {
                    None => !there,
                    Some(reject) => there && reject.code != "NO_VERDICT",
                };
                if wrong && row.fate != Fate::Rejected {
                    let code = reject.map(|reject| reject.code.as_str());
                    let seen = format!("run {}: line {}: there {there}, reject {code:?}", ran.run_id, row.line);
                    return Err(failed("every row is accounted for once", seen));
                }
            }
        }
        Ok(())
    }

    /// Both records of a row know each other.
    fn pairs(&self, runs: &[Ran], rejects: &BTreeMap<String, BTreeSet<u64>>) -> Result<(), Failure> {
        for ran in runs.iter().filter(|ran| ran.outcome == Some(Outcome::Done)) {
            let upload = self.upload_of(ran.upload);
            let import = &self.plan.imports[upload.import];
            if import.rows != Rows::Pairs {
                continue;
            }
            let portal = self.portals[import.account].borrow();
            for row in upload.file.rows.iter().filter(|row| !rejects[&ran.run_id].contains(&row.line)) {
                let Some((code, _)) = &row.second else { continue };
                let id = |object, property, value: &str| {
                    portal
                        .find_by(object, property, value)
                        .map(|record| record["hs_object_id"].clone())
                        .unwrap_or_default()
                };
                let (contact, company) = (id("contacts", "email", &row.key), id("companies", "code", code));
                if !portal.associations_of("contacts", &contact, "companies").contains(&company) {
                    let seen = format!("run {}: line {}: {} and {code} are strangers", ran.run_id, row.line, row.key);
                    return Err(failed("the records of a row are associated", seen));
                }
            }
        }
        Ok(())
    }

    /// A before-image holds what stood there before the run, as far as the run goes.
    async fn images(&self, oracle: &Oracle, runs: &[Ran]) -> Result<(), Failure> {
        let muddled = self.watch.muddled.borrow().clone();
        for ran in runs {
            let upload = self.upload_of(ran.upload);
            let import = &self.plan.imports[upload.import];
            if !import.images {
                continue;
            }
            let mut seen = BTreeSet::new();
            let listed = self.world().objects.list(&Location::new(BUCKET, "")).await.unwrap();
            for at in listed.iter().filter(|at| at.key.contains("before-") && at.key.contains(&ran.run_id)) {
                let text = self.world().text(&at.to_string()).unwrap_or_default();
                for line in text.lines() {
                    let image: Value = serde_json::from_str(line).unwrap();
                    let key = image["key"].as_str().unwrap_or_default().to_lowercase();
                    if !seen.insert(key.clone()) || muddled.contains(&(import.account, key.clone())) {
                        continue;
                    }
                    let place: Place = (import.account, import.object(), key.clone());
                    for (name, value) in image["before"].as_object().into_iter().flatten() {
                        let value = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
                        let mut said = oracle.said_by_others(&place, name, &ran.run_id);
                        said.extend(self.said_meanwhile(runs, ran, &key, name));
                        if oracle::CONTACT.contains(&name.as_str())
                            && name != "level"
                            && name != "badge"
                            && !said.contains(&value)
                        {
                            let seen = format!("run {}: {place:?} {name} was {value:?}", ran.run_id);
                            return Err(failed("a before-image holds what was there before", seen));
                        }
                    }
                }
            }
            let written = ran.report.as_ref().is_some_and(|report| report.rows.updated + report.rows.created > 0);
            if written && seen.is_empty() {
                return Err(failed(
                    "a before-image holds what was there before",
                    format!("run {} has none", ran.run_id),
                ));
            }
        }
        Ok(())
    }

    /// What other runs that were at work at the same time said of a record in any of their rows: a row that a later one of its key replaces may
    /// have been written on its own before, and have stood there for a moment.
    fn said_meanwhile(&self, runs: &[Ran], ran: &Ran, key: &str, property: &str) -> Vec<Option<String>> {
        let import = self.upload_of(ran.upload).import;
        let mut said = Vec::new();
        for other in runs.iter().filter(|other| other.run_id != ran.run_id) {
            let upload = self.upload_of(other.upload);
            let [ours, theirs] = [import, upload.import].map(|import| &self.plan.imports[import]);
            let same_records = ours.account == theirs.account && ours.object() == theirs.object();
            if !same_records || other.from > ran.to || other.to < ran.from {
                continue;
            }
            for row in upload.file.rows.iter().filter(|row| row.key == key && row.fate != Fate::Rejected) {
                let cells = row.cells.iter().filter(|(name, _)| *name == property);
                said.extend(cells.filter_map(|(_, cell)| match cell {
                    Cell::Text(text) => Some(Some(text.trim().to_owned())),
                    Cell::Blank => None,
                }));
            }
        }
        said
    }

    /// The account's limits.
    fn limits(&self) -> Result<(), Failure> {
        let kept = "calls stay within the account's limits";
        for (account, portal) in self.portals.iter().enumerate() {
            let portal = portal.borrow();
            let burst = portal.settings().limits.burst.unwrap_or(u32::MAX) as usize;
            let trouble = self.plan.upsets.table > 0.0 || !self.plan.upsets.table_down.is_empty();
            let most = portal.max_calls_in_window();
            // Without the table each process takes half of the limit at most.
            let allowed = if trouble { burst * 2 } else { burst };
            if most > allowed + WINDOW_SLACK {
                let seen = format!("account {account}: {most} calls in a window of {burst}");
                return Err(failed(kept, seen));
            }
            let throttled = portal.log().iter().filter(|entry| entry.status == 429 && entry.fault.is_none());
            let (throttled, calls) = (throttled.count(), portal.log().len());
            // A slot that one of several processes uses late lies next to the one after it. That shows where a window has a few slots only.
            let share = if burst < FEW_SLOTS { 10 } else { 50 };
            if throttled > 3 + calls / share && !trouble && self.plan.daily.is_none() {
                let seen = format!(
                    "account {account}: {throttled} of {calls} calls were refused, at most {most} in a window of {burst}"
                );
                return Err(failed(kept, seen));
            }
            // HubSpot tells apps that come with OAuth nothing of the day's calls.
            if let Some((limit, reserve)) = self.plan.daily.filter(|_| account == 0 && !self.plan.oauth) {
                let zone = jiff::tz::TimeZone::get("America/New_York").unwrap();
                let mut days: BTreeMap<jiff::civil::Date, usize> = BTreeMap::new();
                for entry in portal.log().iter().filter(|entry| entry.status != 429) {
                    *days.entry(entry.at.to_zoned(zone.clone()).date()).or_default() += 1;
                }
                let most = days.values().copied().max().unwrap_or(0);
                if most > usize::try_from(limit - reserve).unwrap() + DAY_SLACK + self.cloud.worked.get() {
                    return Err(failed(kept, format!("{most} calls in a day of {limit}, of which {reserve} are kept")));
                }
            }
        }
        Ok(())
    }

    /// No value and no secret where none may be.
    fn silent(&self) {
        self.cloud.look_for_values("the log", &self.logs.text());
        for (key, item) in self.world().table.snapshot() {
            for (name, value) in &item {
                if let Attribute::S(text) = value {
                    self.cloud.look_for_values(&format!("{} {} {name}", key.pk, key.sk), text);
                }
            }
        }
    }

    /// Writes to any account so far: inputs of batches.
    fn inputs(&self) -> usize {
        let writes = |portal: &Portal| -> usize {
            let batches = portal.log().iter().filter(|entry| {
                entry.path.contains("/batch/") && !entry.path.ends_with("/read") && !entry.path.contains("/properties/")
            });
            batches.map(|entry| entry.inputs).sum()
        };
        self.portals.iter().map(|portal| writes(&portal.borrow())).sum()
    }

    /// What was imported before sends nothing: neither its event again, nor its contents where unchanged rows are left out.
    async fn once_more(&self) -> Result<(), Failure> {
        let quiet = "what was delivered before is not sent again";
        let runs = self.runs().await;
        let done = |ran: &&Ran| ran.outcome == Some(Outcome::Done);
        let Some(last) = runs.iter().filter(done).find(|ran| self.upload_of(ran.upload).import == 0) else {
            return Ok(());
        };
        let upload = self.upload_of(last.upload);
        let before = self.inputs();
        self.again(last.upload).await;
        self.settled().await?;
        if self.inputs() != before {
            let seen = format!("upload {} came again, and {} inputs were sent", last.upload, self.inputs() - before);
            return Err(failed(quiet, seen));
        }
        if !self.plan.imports[0].skips || !matches!(self.plan.imports[0].mode, Mode::Upsert | Mode::Mirror) {
            return Ok(());
        }
        let mut sent = 0;
        for time in 0..2 {
            let index = self.plan.uploads.len() + self.later.borrow().len();
            let again = plan::Upload {
                key: format!("incoming/people/again {time}.csv"),
                at: self.world().clock.elapsed(),
                events: vec![(Duration::ZERO, Shape::SqsBridge)],
                deleted_after: None,
                ..upload.clone()
            };
            self.later.borrow_mut().push(again);
            let before = self.inputs();
            self.upload(index).await;
            self.settled().await?;
            sent = self.inputs() - before;
        }
        // What is refused is tried again each time, and with it the rows that share its key.
        let rows = &upload.file.rows;
        let refused: BTreeSet<&str> =
            rows.iter().filter(|row| row.fate == Fate::Rejected).map(|row| row.key.as_str()).collect();
        let repeated: BTreeSet<&str> = rows
            .iter()
            .enumerate()
            .filter(|(at, row)| rows[..*at].iter().any(|other| other.key == row.key))
            .map(|(_, row)| row.key.as_str())
            .collect();
        let muddled = self.watch.muddled.borrow();
        let may = |row: &&file::Row| {
            refused.contains(row.key.as_str())
                || repeated.contains(row.key.as_str())
                || muddled.contains(&(0, row.key.clone()))
        };
        // A call of refused rows is halved until each stands alone.
        let allowed = rows.iter().filter(may).count() * 8;
        if sent > allowed {
            return Err(failed(quiet, format!("{sent} inputs of {} rows were sent the third time", rows.len())));
        }
        Ok(())
    }

    /// The trace ends with what another life under the seed must share.
    fn sum_up(&self) {
        let next = self.world().rng.u64();
        for portal in &self.portals {
            let portal = portal.borrow();
            let state = format!("{:?}", portal.state());
            let state = xxhash_rust::xxh3::xxh3_64(state.as_bytes());
            self.cloud.note(format_args!("{:?} {state:016x}", portal.counts()));
        }
        self.cloud.note(format_args!(
            "the next number is {next:016x}; {} killed, {} failed, {} upset",
            self.cloud.killed.get(),
            self.cloud.failed.get(),
            self.watch.upset_count.get()
        ));
    }
}

/// S3's word of a new object, as it may come.
fn notification(shape: Shape, object: &hubferry::objects::ObjectVersion, sequencer: &str) -> Value {
    let version = object.version_id.as_deref();
    notification_of(&object.location.key, object.size, &object.etag, version, sequencer, shape)
}

fn notification_of(key: &str, size: u64, etag: &str, version: Option<&str>, sequencer: &str, shape: Shape) -> Value {
    let encoded: String = key
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            b' ' => "+".to_owned(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let mut s3 = json!({ "key": encoded, "size": size, "eTag": etag, "sequencer": sequencer });
    let mut bridge = json!({ "key": key, "size": size, "etag": etag, "sequencer": sequencer });
    if let Some(version) = version {
        s3["versionId"] = version.into();
        bridge["version-id"] = version.into();
    }
    let bucket = json!({ "name": BUCKET });
    let s3 = json!({ "Records": [{ "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventVersion": "2.1",
        "s3": { "bucket": bucket, "object": s3 } }] });
    let bridge = json!({ "version": "0", "detail-type": "Object Created", "source": "aws.s3",
        "detail": { "bucket": bucket, "object": bridge } });
    let in_message = |event: &Value| json!({ "Records": [{ "eventSource": "aws:sqs", "messageId": "m", "body": event.to_string() }] });
    match shape {
        Shape::S3 => s3,
        Shape::SqsS3 => in_message(&s3),
        Shape::Bridge => bridge,
        Shape::SqsBridge => in_message(&bridge),
    }
}
