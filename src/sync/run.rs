//! One invocation's work on a sync: what changed on either side is found, and handed on in chunks.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    End,
    fields::{self, Mapping, Need},
    links::Links,
    model::{Choice, Review, ReviewKind, Side, Todo, TodoWhy},
    pair::Candidate,
    plan::Planner,
    progress::{Counting, Phase, Progress, Update, Window},
    reviews::Reviews,
    todo::{Refusals, Todos},
};
use crate::{
    app::{self, App, Env},
    clock::Deadline,
    codes,
    config::{Config, Sync},
    error::{Error, ErrorKind, Result},
    http::retry::ATTEMPT_RESERVE,
    hubspot::{
        account::Account,
        properties::SchemaParts,
        records::Wanted,
        resources::{CrmResource, Resource},
        scan::{Scan, ScanState},
    },
    import::{Spent, calls_of, held, is_passing},
    mutate::{self, Bug},
    objects::Location,
    report::{Calls, SyncReport},
    salesforce::{
        changes::{Feed, Sweep},
        model::{Row, SalesforceId},
        org::{CallCounts, Org},
        soql::{Comparison, Condition, Literal, Select},
    },
    state::runs::{Lease, Run, Runs, decode, lost},
};

/// Records that are looked at, written and read back together: few enough to be held and to be done again after a kill, enough to fill
/// calls of 200 and 100.
pub(super) const CHUNK: usize = 1_000;

/// … where so many are to come that Salesforce is written by Bulk jobs.
pub(super) const CHUNK_LARGE: usize = 5_000;

/// From so many changed records on, chunks are large.
const LARGE_FROM: u64 = super::bulk::BULK_FROM as u64;

/// How far HubSpot's index may trail: a run begins so much before the start of the last one. What was looked at since is skipped by its link.
const HUBSPOT_OVERLAP: SignedDuration = SignedDuration::from_hours(1);

/// Reviews that one run looks at again.
pub(super) const REVIEWS_MAX: usize = 5_000;

/// Deletions between two checkpoints.
const DELETES_AT_ONCE: usize = 100;

/// Refusals that are remembered: of more, the same value is sent once more when the record changes.
const REFUSALS_MAX: usize = 20_000;

/// Put-off records that one run looks at again.
const PUT_OFF_MAX: usize = 20_000;

/// Time that is kept for saving and the run's end.
const END_RESERVE: Duration = Duration::from_secs(20);

/// Of an invocation shorter than that, this share.
const END_RESERVE_SHARE: u32 = 4;

/// How long before calls are refused for want of time no new work is begun.
const CALLS_END: Duration = Duration::from_millis(500);

/// The recycle bin is listed again when this many times as long as it took has passed …
const BIN_SHARE: u32 = 9;

/// … and within this.
const BIN_GAP_MAX: Duration = Duration::from_secs(3_600);

/// Notes of a report.
const NOTES_MAX: usize = 100;

/// What was refused: HubSpot's id, Salesforce's, and the field; none where it is about the record.
pub(super) type RefusedKey = (Option<String>, Option<SalesforceId>, Option<String>);

/// A sync at work.
pub(super) struct Job {
    pub(super) env: Rc<Env>,
    pub(super) runs: Rc<Runs>,
    pub(super) account: Rc<Account>,
    pub(super) org: Rc<Org>,
    pub(super) sync: Rc<Sync>,
    pub(super) resource: CrmResource,
    /// None for a plan, which holds nothing and writes nothing.
    pub(super) lease: Option<Lease>,
    pub(super) run_id: String,
    pub(super) deadline: Deadline,
    pub(super) mapping: Rc<Mapping>,
    pub(super) links: Rc<Links>,
    pub(super) reviews: Rc<Reviews>,
    pub(super) todos: Rc<Todos>,
    pub(super) refusals: Rc<Refusals>,
    /// Links of the sync that keeps accounts and companies in step.
    pub(super) accounts: Option<Rc<Links>>,
    /// Open reviews, by id, as far as they were loaded.
    pub(super) open: BTreeMap<String, Review>,
    /// What is done; what of it is saved lags behind.
    pub(super) progress: Progress,
    /// What is durable; none until it was loaded.
    pub(super) saved: Option<Progress>,
    /// Plans instead of writing.
    pub(super) planner: Option<Planner>,
    /// Lines of what was refused that are not written yet.
    pub(super) refused_lines: Vec<u8>,
    /// What was refused before, by its ids and field, with the hash of its inputs.
    pub(super) refused_before: BTreeMap<RefusedKey, u64>,
    /// Records that are to be created again on the other side, as a person has decided.
    pub(super) recreate: BTreeSet<(Side, String)>,
    /// Records of this chunk that a link has come to since their links were looked up.
    pub(super) just_linked: BTreeSet<String>,
    /// Records of which anything was refused before.
    pub(super) refused_ids: BTreeSet<String>,
    /// Salesforce's records of links whose HubSpot record was merged into one that this run has seen.
    pub(super) again: BTreeSet<String>,
    /// Reviews of values that another record had and has no more.
    pub(super) freed: BTreeSet<String>,
    pub(super) config: Rc<Config>,
    baseline: Baseline,
    /// How long a chunk of this invocation has taken; the first one is begun whatever it may take.
    pub(super) longest_chunk: Duration,
}

/// The doors' counters when the invocation began, and what earlier ones had counted.
struct Baseline {
    spent: Spent,
    calls: Calls,
    salesforce: CallCounts,
    earlier: (Calls, u64, u64, f64, f64),
    earlier_salesforce: (u64, u64),
}

impl Job {
    pub(super) fn new(
        app: &App,
        sync: &Rc<Sync>,
        lease: Option<&Lease>,
        run_id: &str,
        deadline: Deadline,
        progress: Option<Progress>,
        spent: Spent,
    ) -> Result<Self> {
        let env = app.env();
        let account = app.account(&sync.hubspot)?;
        let org = app.org(&sync.salesforce)?;
        let resource = match Resource::parse(sync.hubspot_object.as_str())? {
            Resource::Crm(crm) => crm,
            Resource::Cms(_) => {
                let message = format!("sync `{}`: {} are no CRM records", sync.name, sync.hubspot_object);
                return Err(Error::invalid(codes::CONFIG_INVALID, message));
            }
        };
        let saved = progress.clone();
        let mut progress = progress.unwrap_or_default();
        let done = &mut progress.done;
        done.sync = SyncReport {
            org: sync.salesforce.clone(),
            hubspot_object: sync.hubspot_object.to_string(),
            salesforce_object: sync.salesforce_object.clone(),
            ..std::mem::take(&mut done.sync)
        };
        let earlier = (done.calls, done.table_writes, done.object_requests, done.gb_seconds, done.calls_possible);
        let earlier_salesforce = (done.sync.salesforce_calls, done.sync.salesforce_retried);
        org.set_calls_of_run(earlier_salesforce.0);
        let accounts =
            accounts_of(app, sync).map(|name| Rc::new(Links::new(env.table.clone(), env.rng.clone(), &name)));
        Ok(Self {
            env: env.clone(),
            runs: app.runs().clone(),
            baseline: Baseline {
                spent,
                calls: calls_of(&account),
                salesforce: org.counts(),
                earlier,
                earlier_salesforce,
            },
            account,
            org,
            resource,
            lease: lease.cloned(),
            run_id: run_id.to_owned(),
            deadline,
            mapping: Rc::default(),
            links: Rc::new(Links::new(env.table.clone(), env.rng.clone(), &sync.name)),
            reviews: Rc::new(Reviews::new(env.table.clone(), env.rng.clone(), &sync.name)),
            todos: Rc::new(Todos::new(env.table.clone(), &sync.name)),
            refusals: Rc::new(Refusals::new(env.table.clone(), &sync.name)),
            accounts,
            open: BTreeMap::new(),
            sync: sync.clone(),
            saved,
            progress,
            planner: None,
            refused_lines: Vec::new(),
            longest_chunk: Duration::ZERO,
            refused_before: BTreeMap::new(),
            recreate: BTreeSet::new(),
            just_linked: BTreeSet::new(),
            refused_ids: BTreeSet::new(),
            again: BTreeSet::new(),
            freed: BTreeSet::new(),
            config: app.config().clone(),
        })
    }

    /// Works on the run until the window is complete or the time is up.
    pub(super) async fn work(&mut self, run: &Run) -> Result<End> {
        let Some(lease) = self.lease.clone() else {
            return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "a run without a lease"));
        };
        let (runs, clock, deadline) = (self.runs.clone(), self.env.clock.clone(), self.deadline);
        let fresh = run.progress.is_empty();
        let what = format!("sync `{}`", self.sync.name);
        match held(&runs, &lease, &*clock, deadline, Box::pin(self.phases(run))).await {
            Ok(end) => Ok(end),
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) if error.kind() == ErrorKind::Invalid && is_brake(&error) => {
                Ok(End::Aborted(error.context(what)))
            }
            Err(error) if error.kind() == ErrorKind::Invalid && fresh && self.progress.done.rows.read == 0 => {
                Ok(End::Invalid(error.context(what)))
            }
            // The time ran out inside a call: what was saved stays.
            Err(error) if is_passing(&error) && self.must_stop() => Ok(End::Deadline),
            Err(error) => Ok(End::Failed(error.context(what))),
        }
    }

    async fn phases(&mut self, run: &Run) -> Result<End> {
        self.load(run).await?;
        self.prepare().await?;
        self.load_reviews().await?;
        loop {
            if self.must_stop() {
                return Ok(End::Deadline);
            }
            if self.progress.bulk.is_some() && !self.bulk_step().await? {
                return Ok(End::Waiting);
            }
            let finished = match self.progress.phase.clone() {
                Phase::Open => {
                    self.open_window().await?;
                    true
                }
                Phase::Counting => self.count().await?,
                Phase::Reviews => self.review_phase().await?,
                Phase::Todo => self.todo_phase().await?,
                Phase::Salesforce(sweep) => self.salesforce_phase(sweep).await?,
                Phase::Hubspot { after } => self.hubspot_phase(after).await?,
                Phase::Bin(scan) => self.bin_phase(scan).await?,
                Phase::Deletes => self.delete_phase().await?,
                Phase::Complete => {
                    self.complete();
                    return Ok(End::Complete);
                }
            };
            if self.progress.bulk.is_some() {
                continue;
            }
            if !finished {
                return Ok(End::Deadline);
            }
        }
    }

    /// What earlier runs have left.
    pub(super) async fn load(&mut self, run: &Run) -> Result<()> {
        if run.progress.is_empty() {
            let only_reviews = self.progress.only_reviews;
            self.load_position().await?;
            self.progress.only_reviews = only_reviews;
            self.progress.tick += 1;
        }
        self.saved = Some(self.progress.clone());
        Ok(())
    }

    /// The position of the last run.
    pub(super) async fn load_position(&mut self) -> Result<()> {
        if let Some(stream) = self.runs.stream("sync", &self.sync.name).await?
            && !stream.carry.is_empty()
        {
            let done = std::mem::take(&mut self.progress.done);
            self.progress = decode(&stream.carry, &format!("sync#{}", self.sync.name))?;
            self.progress.done = done;
        }
        Ok(())
    }

    /// The mapping, checked against both systems, and whether they are those that the links are of.
    pub(super) async fn prepare(&mut self) -> Result<()> {
        let calls_until = self.calls_until();
        let mapping = match self.mapped(calls_until).await {
            // A list of fields that is cut short looks the same: what is missing is believed when it is missing twice.
            Err(error) if error.kind() == ErrorKind::Invalid => {
                self.account.forget_schema(&self.resource.object);
                self.org.forget_schemas();
                self.mapped(calls_until).await?
            }
            mapping => mapping?,
        };
        self.mapping = Rc::new(mapping);
        self.check_identity(calls_until).await
    }

    async fn mapped(&self, deadline: Deadline) -> Result<Mapping> {
        let (links, hubspot, salesforce) = schemas(&self.sync, &self.account, &self.org, deadline).await?;
        let needs = [
            (Side::Hubspot, &links.hubspot_property, fields::hubspot_need(&links, &hubspot)),
            (Side::Salesforce, &links.salesforce_field, fields::salesforce_need(&links, &salesforce)),
        ];
        let wrong: Vec<String> = needs
            .into_iter()
            .filter_map(|(side, name, need)| match need {
                Need::Fine => None,
                Need::Missing => Some(format!("{} has no field `{name}`, or it may not be seen", side.name())),
                Need::Wrong(why) => Some(format!("the field `{name}` of {} {why}", side.name())),
            })
            .collect();
        if !wrong.is_empty() {
            let message = format!("records cannot be told apart on both sides: {}", wrong.join("; "));
            return Err(Error::invalid(codes::SYNC_SETUP, message));
        }
        fields::compile(&self.sync, &links, &hubspot, &salesforce).map_err(|problems| {
            let mut message = String::from("the fields do not fit the two systems; nothing was written");
            for problem in problems {
                message.push_str("\n- ");
                message.push_str(&problem);
            }
            Error::invalid(codes::MAPPING_INVALID, message)
        })
    }

    async fn check_identity(&mut self, deadline: Deadline) -> Result<()> {
        let wrong = |side: Side, known: &str, found: &str| {
            let message = format!("the credential is one of {} {found}, the links are of {known}", side.name());
            Err(Error::invalid(codes::SYNC_WRONG_ORG, message))
        };
        let (org_id, _) = self.org.identity(deadline).await?;
        if let Some(org_id) = org_id {
            let configured = self.org.settings().org_id.as_deref().and_then(|id| SalesforceId::parse(id).ok());
            if let Some(known) = configured.or_else(|| self.progress.org_id.clone())
                && known != org_id
            {
                return wrong(Side::Salesforce, known.as_str(), org_id.as_str());
            }
            self.progress.org_id = Some(org_id);
        }
        if self.progress.portal_id.is_none() || self.planner.is_none() {
            // A token that may not ask for it is fine.
            match self.account.details(deadline).await {
                Ok(details) if details.portal_id != 0 => {
                    if let Some(known) = self.progress.portal_id
                        && known != details.portal_id
                    {
                        return wrong(Side::Hubspot, &known.to_string(), &details.portal_id.to_string());
                    }
                    self.progress.portal_id = Some(details.portal_id);
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) async fn load_reviews(&mut self) -> Result<()> {
        let open = self.reviews.list(REVIEWS_MAX).await?;
        self.open = open.into_iter().map(|review| (review.id.clone(), review)).collect();
        let refused = self.refusals.list(REFUSALS_MAX).await?;
        let ids = refused
            .iter()
            .flat_map(|one| [one.hubspot_id.clone(), one.salesforce_id.as_ref().map(ToString::to_string)]);
        self.refused_ids = ids.flatten().collect();
        if self.planner.is_none() {
            // What was refused after the last checkpoint, by a process that died, is in no rejects file and in no count yet.
            let told = self.progress.done.refused_pieces;
            let untold: Vec<_> = refused.iter().filter(|one| one.run == self.run_id && one.piece > told).collect();
            for one in untold {
                self.list_refused(one);
            }
        }
        self.refused_before =
            refused.into_iter().map(|one| ((one.hubspot_id, one.salesforce_id, one.field), one.inputs)).collect();
        Ok(())
    }

    /// Opens a window: the moments up to which both sides are looked at, by their own clocks.
    pub(super) async fn open_window(&mut self) -> Result<()> {
        if self.progress.fingerprint != 0 && self.progress.fingerprint != self.mapping.fingerprint {
            self.note("the fields of the sync were changed: all records are looked at again".to_owned());
            (self.progress.salesforce, self.progress.hubspot) = (None, None);
        }
        // HubSpot has been asked for its properties: what time it is there is known.
        let calls_until = self.calls_until();
        self.org.check_version(calls_until).await?;
        self.progress.window = Some(Window {
            salesforce_until: if mutate::on(Bug::OwnClock) { self.env.clock.now() } else { self.org.server_time() },
            hubspot_began: self.account.server_time(),
            is_large: false,
        });
        self.progress.phase = Phase::Reviews;
        if !self.progress.only_reviews {
            let changed = self.changed_records().await?;
            if let Some(window) = &mut self.progress.window {
                window.is_large = changed > LARGE_FROM;
            }
            let limits = &self.sync.limits;
            let least = limits.creates.min(limits.updates).min(limits.blanks);
            if changed > least {
                self.progress.phase = Phase::Counting;
            }
        }
        self.save().await
    }

    /// About how many records have changed: what a run will have to do at most.
    async fn changed_records(&self) -> Result<u64> {
        let calls_until = self.calls_until();
        let mut select = Select::from(&self.mapping.salesforce_object)?.fields(["Id"])?;
        if let Some(since) = self.first_sweep().since {
            let moment = Literal::DateTime(since);
            select = select.and(Condition::is("SystemModstamp", Comparison::AtLeast, moment)?);
        }
        let salesforce = self.org.query(&select, true, calls_until).await?.total;
        let page = self.account.changed(&self.resource, self.hubspot_from(), None, None, calls_until).await?;
        Ok(salesforce.saturating_add(page.total))
    }

    fn chunk_size(&self) -> usize {
        if self.progress.window.as_ref().is_some_and(|window| window.is_large) { CHUNK_LARGE } else { CHUNK }
    }

    fn first_sweep(&self) -> Sweep {
        let until = self.progress.window.as_ref().map_or_else(|| self.org.server_time(), |one| one.salesforce_until);
        Sweep::new(self.progress.salesforce, until)
    }

    fn hubspot_from(&self) -> Timestamp {
        // A search for what was modified since 0 is answered with a 500.
        let first = Timestamp::from_second(1).unwrap_or(Timestamp::UNIX_EPOCH);
        let overlap = if mutate::on(Bug::IndexTrusted) { SignedDuration::ZERO } else { HUBSPOT_OVERLAP };
        self.progress.hubspot.map_or(first, |at| at.saturating_sub(overlap).unwrap_or(first).max(first))
    }

    /// Plans the whole window without writing, over as many invocations as it takes.
    async fn count(&mut self) -> Result<bool> {
        let mut planner = Planner::silent();
        let mut phase = Phase::Reviews;
        if let Some(counting) = self.progress.counting.take() {
            let at = self.counting_place()?;
            // Without the list of who was counted it begins anew.
            if let Some((seen, _)) = self.env.objects.get(&at).await? {
                (planner, phase) = (Planner::resumed(counting.totals, &seen), *counting.phase);
            }
        }
        let real = self.progress.clone();
        self.planner = Some(planner);
        self.progress.phase = phase;
        let planned = self.plan_all().await;
        let planner = self.planner.take().unwrap_or_else(Planner::silent);
        let notes = std::mem::take(&mut self.progress.done.notes);
        let phase = std::mem::replace(&mut self.progress, real).phase;
        self.progress.done.notes = notes;
        if !planned? {
            let at = self.counting_place()?;
            self.env.objects.put(&at, planner.seen().into(), "application/octet-stream").await?;
            self.progress.counting = Some(Counting { phase: Box::new(phase), totals: planner.totals });
            self.save().await?;
            return Ok(false);
        }
        if let Some((code, message)) = planner.over(&self.sync.limits) {
            return Err(Error::invalid(code, format!("{message}; nothing was written")));
        }
        self.env.objects.delete(&self.counting_place()?).await?;
        self.progress.phase = Phase::Reviews;
        self.save().await?;
        Ok(true)
    }

    /// Who was counted, while a count goes on.
    fn counting_place(&self) -> Result<Location> {
        let mut location = super::data_of(&self.config)?;
        location.key.push_str(&format!("state/sync/{}/{}/counted", self.sync.name, self.run_id));
        Ok(location)
    }

    /// All phases with the planner. `false`: the time was up.
    pub(super) async fn plan_all(&mut self) -> Result<bool> {
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let finished = match self.progress.phase.clone() {
                Phase::Open | Phase::Counting | Phase::Complete => return Ok(true),
                Phase::Reviews => self.review_phase().await?,
                Phase::Todo => self.todo_phase().await?,
                Phase::Salesforce(sweep) => self.salesforce_phase(sweep).await?,
                Phase::Hubspot { after } => self.hubspot_phase(after).await?,
                Phase::Bin(scan) => self.bin_phase(scan).await?,
                Phase::Deletes => return Ok(true),
            };
            if !finished {
                return Ok(false);
            }
        }
    }

    /// Which addresses that belonged to another contact are free now.
    async fn find_freed(&mut self) -> Result<()> {
        let taken = self.open.values().filter(|review| review.kind == ReviewKind::Taken);
        let (mut ids, mut values, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for review in taken {
            let Some((field, id)) = review.field.as_ref().zip(review.hubspot_id.clone()) else { continue };
            let is_email = self.mapping.pair(&field.key).is_some_and(|pair| &*pair.hubspot == "email");
            if let Some(value) =
                field.salesforce_value.clone().filter(|_| is_email && self.resource.object.is_contacts())
            {
                ids.push(review.id.clone());
                values.push(value);
                own.push(id);
            }
        }
        if values.is_empty() {
            return Ok(());
        }
        let object = &self.resource.object;
        let found = self.account.read(object, Some("email"), &values, &[], None, self.calls_until()).await?;
        for ((review, own), found) in ids.into_iter().zip(own).zip(found) {
            if found.is_none_or(|found| found.id == own) {
                self.freed.insert(review);
            }
        }
        Ok(())
    }

    async fn review_phase(&mut self) -> Result<bool> {
        self.find_freed().await?;
        let mut by_side: BTreeMap<Side, Vec<Candidate>> = BTreeMap::new();
        for review in self.open.values() {
            let again = review.choice.as_ref().is_some_and(|choice| {
                *choice != Choice::Keep
                    || review.kind.is_of_field()
                    || matches!(review.kind, ReviewKind::Delete | ReviewKind::Merge)
            }) || matches!(
                review.kind,
                ReviewKind::Duplicate
                    | ReviewKind::Identity
                    | ReviewKind::Merge
                    | ReviewKind::Delete
                    | ReviewKind::Taken
            );
            if !again {
                continue;
            }
            let (side, id) = match (&review.hubspot_id, &review.salesforce_id) {
                (Some(id), _) => (Side::Hubspot, id.clone()),
                (None, Some(id)) => (Side::Salesforce, id.to_string()),
                (None, None) => continue,
            };
            let mut candidate = Candidate::new(id);
            candidate.force = true;
            candidate.review = review.choice.as_ref().map(|_| review.id.clone());
            by_side.entry(side).or_default().push(candidate);
        }
        for (side, candidates) in by_side {
            for lot in candidates.chunks(self.chunk_size()) {
                if self.must_stop() {
                    return Ok(false);
                }
                self.chunk(side, lot.to_vec()).await?;
            }
        }
        for (side, id) in std::mem::take(&mut self.recreate) {
            let candidate = Candidate { force: true, todo: true, ..Candidate::new(id) };
            self.chunk(side, vec![candidate]).await?;
        }
        self.progress.phase = if self.progress.only_reviews { Phase::Complete } else { Phase::Todo };
        self.save().await?;
        Ok(true)
    }

    async fn todo_phase(&mut self) -> Result<bool> {
        let todos = self.todos.list(PUT_OFF_MAX).await?;
        for side in [Side::Salesforce, Side::Hubspot] {
            let own: Vec<&Todo> = todos.iter().filter(|todo| todo.side == side).collect();
            for lot in own.chunks(self.chunk_size()) {
                if self.must_stop() {
                    return Ok(false);
                }
                let candidates = lot.iter().map(|todo| {
                    let mut candidate = Candidate::new(todo.id.clone());
                    candidate.force = true;
                    candidate.todo = true;
                    if let TodoWhy::Creating(sent) = &todo.why {
                        candidate.creating = Some(sent.clone());
                        candidate.since = todo.since;
                    }
                    candidate
                });
                self.chunk(side, candidates.collect()).await?;
            }
        }
        self.progress.phase = Phase::Salesforce(self.first_sweep());
        self.save().await?;
        Ok(true)
    }

    async fn salesforce_phase(&mut self, sweep: Sweep) -> Result<bool> {
        let feed = Feed::new(&self.org, &self.mapping.salesforce_object, &["Id"], None, self.calls_until()).await?;
        let first = sweep.since.is_none();
        let mut sweep = sweep;
        let mut lot: Vec<Candidate> = Vec::new();
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let page = self.org.changes(&feed, &sweep, self.calls_until()).await?;
            lot.extend(page.rows.into_iter().filter_map(|row| Candidate::of_row(row, first)));
            sweep = page.sweep;
            while lot.len() >= self.chunk_size() || (!page.more && !lot.is_empty()) {
                let rest = lot.split_off(lot.len().min(self.chunk_size()));
                let now = std::mem::replace(&mut lot, rest);
                // What the next page would be asked for begins behind what is left of this one.
                let last = now.last().and_then(|candidate| candidate.place.clone());
                self.chunk(Side::Salesforce, now).await?;
                if !lot.is_empty() || page.more {
                    let next = sweep.next.clone().filter(|_| lot.is_empty());
                    let after = last.or_else(|| sweep.after.clone());
                    self.progress.phase = Phase::Salesforce(Sweep { after, next, ..sweep.clone() });
                    self.save().await?;
                }
                if self.progress.bulk.is_some() || (self.must_stop() && !lot.is_empty()) {
                    if lot.is_empty() && !page.more {
                        break;
                    }
                    return Ok(false);
                }
            }
            if !page.more {
                break;
            }
        }
        self.progress.phase = Phase::Hubspot { after: None };
        self.save().await?;
        Ok(true)
    }

    async fn hubspot_phase(&mut self, after: Option<String>) -> Result<bool> {
        let from = self.hubspot_from();
        let mut after = after;
        let mut lot: Vec<Candidate> = Vec::new();
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let page = self.account.changed(&self.resource, from, None, after.as_deref(), self.calls_until()).await?;
            if let Some((last, _)) = page.ids.last() {
                after = Some(last.clone());
            }
            lot.extend(page.ids.into_iter().map(|(id, modified)| {
                let mut candidate = Candidate::new(id);
                candidate.modified = modified.map(Timestamp::as_millisecond);
                candidate
            }));
            if lot.len() >= self.chunk_size() || (page.is_last && !lot.is_empty()) {
                self.chunk(Side::Hubspot, std::mem::take(&mut lot)).await?;
                self.progress.phase = Phase::Hubspot { after: after.clone() };
                self.save().await?;
                if self.progress.bulk.is_some() {
                    return Ok(false);
                }
            }
            if page.is_last {
                break;
            }
        }
        let again: Vec<String> = std::mem::take(&mut self.again).into_iter().collect();
        for lot in again.chunks(CHUNK) {
            let candidates = lot.iter().map(|id| Candidate { force: true, todo: true, ..Candidate::new(id.clone()) });
            self.chunk(Side::Salesforce, candidates.collect()).await?;
        }
        let now = self.env.clock.now();
        let is_due = self.progress.bin_due.is_none_or(|due| due <= now);
        let is_due = is_due && !mutate::on(Bug::BinSkipped);
        self.progress.phase = if is_due { Phase::Bin(ScanState::default()) } else { Phase::Deletes };
        self.save().await?;
        Ok(true)
    }

    /// Who is in HubSpot's recycle bin and has a link.
    async fn bin_phase(&mut self, state: ScanState) -> Result<bool> {
        let began = self.env.clock.elapsed();
        let object = self.resource.object.clone();
        let mut scan = Scan::new(self.account.clone(), object, Wanted::ids(true), state, self.calls_until());
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let pages = scan.next_all().await?;
            if pages.is_empty() {
                break;
            }
            let ids: Vec<String> =
                pages.iter().flat_map(|page| &page.records).map(|record| record.id.clone()).collect();
            let links = scan.beside(self.links.by_hubspot(&ids)).await?;
            let gone = links.into_values().filter(|link| link.status.is_alive_in(Side::Hubspot));
            let candidates: Vec<Candidate> = gone
                .map(|link| {
                    let mut candidate = Candidate::new(link.hubspot_id);
                    candidate.force = true;
                    candidate
                })
                .collect();
            for lot in candidates.chunks(self.chunk_size()) {
                scan.beside(self.chunk(Side::Hubspot, lot.to_vec())).await?;
            }
            for page in pages {
                scan.covered(page.token);
            }
            self.progress.phase = Phase::Bin(scan.state());
            scan.beside(self.save()).await?;
            if self.progress.bulk.is_some() {
                return Ok(false);
            }
        }
        let took = self.env.clock.elapsed().saturating_sub(began);
        let gap = took.saturating_mul(BIN_SHARE).min(BIN_GAP_MAX);
        // A short one is listed each time.
        let is_long = gap > Duration::from_secs(60);
        self.progress.bin_due = is_long.then(|| self.env.clock.now().saturating_add(gap).unwrap_or(Timestamp::MAX));
        self.progress.phase = Phase::Deletes;
        self.save().await?;
        Ok(true)
    }

    /// Deletions are carried over when all of them are known: so many at once are more likely a mistake than meant.
    async fn delete_phase(&mut self) -> Result<bool> {
        while !self.progress.deletes.is_empty() {
            if self.must_stop() {
                return Ok(false);
            }
            let lot: Vec<String> = self.progress.deletes.iter().take(DELETES_AT_ONCE).cloned().collect();
            let candidates =
                lot.iter().map(|id| Candidate { force: true, deletes: true, ..Candidate::new(id.clone()) });
            self.chunk(Side::Hubspot, candidates.collect()).await?;
            self.progress.deletes.retain(|id| !lot.contains(id));
            self.save().await?;
        }
        self.progress.phase = Phase::Complete;
        Ok(true)
    }

    /// The position moves: everything before it is in step, in review, refused, or put off.
    fn complete(&mut self) {
        if !self.progress.only_reviews
            && let Some(window) = self.progress.window.take()
        {
            self.progress.salesforce = Some(window.salesforce_until);
            self.progress.hubspot = Some(window.hubspot_began);
            self.progress.fingerprint = self.mapping.fingerprint;
        }
        self.progress.window = None;
        self.progress.phase = Phase::Open;
        self.progress.only_reviews = false;
    }

    /// Saves how far the run has come, unless it is only planned.
    pub(super) async fn save(&mut self) -> Result<()> {
        if self.planner.is_some() {
            return Ok(());
        }
        let Some(lease) = self.lease.clone() else { return Ok(()) };
        self.store_refused_lines().await?;
        self.count_costs();
        let position = self.progress.position();
        self.runs.checkpoint(&lease, self.deadline, &position, &self.progress, true).await?;
        self.saved = Some(self.progress.clone());
        self.tell();
        Ok(())
    }

    /// Saves what this invocation has spent on work that it could not save: the next one does the work anew, and what was spent, was spent.
    pub(super) async fn save_costs(&self) -> Result<()> {
        let Some(lease) = self.lease.as_ref() else { return Ok(()) };
        let count = |stored: Option<Progress>| {
            let mut progress = stored.or_else(|| self.saved.clone())?;
            progress.done.take_costs(&self.progress.done);
            Some((progress.position(), progress))
        };
        self.runs.amend(lease, self.deadline, count).await
    }

    /// Tells who watches.
    pub(super) fn tell(&mut self) {
        if self.env.watcher.is_none() || self.planner.is_some() {
            return;
        }
        self.count_costs();
        let done = &self.progress.done;
        self.env.tell(&app::Update::Sync(Box::new(Update {
            run_id: self.run_id.clone(),
            name: self.sync.name.clone(),
            phase: self.progress.phase.clone(),
            rows: done.rows,
            sync: done.sync.clone(),
            calls: done.calls,
            seconds: self.env.clock.elapsed().saturating_sub(self.baseline.spent.elapsed).as_secs_f64(),
        })));
    }

    /// Before anything is sent that has no fence of its own: the lease is ours for some time yet.
    pub(super) fn still_ours(&self) -> Result<()> {
        match &self.lease {
            Some(lease) if self.env.clock.now() >= lease.held_until.get() => Err(lost(lease)),
            _ => Ok(()),
        }
    }

    /// Calls are not begun, and not waited for, beyond this.
    pub(super) fn calls_until(&self) -> Deadline {
        let reserve = self.reserve() / 2;
        Deadline { at: self.deadline.at.checked_sub(reserve).unwrap_or(self.deadline.at) }
    }

    /// Whether the time left is needed for the end, or too short for another chunk: one that outlives the lease is work for nothing.
    pub(super) fn must_stop(&self) -> bool {
        let calls_need = self.reserve() / 2 + ATTEMPT_RESERVE + CALLS_END;
        let needed = self.reserve().max(calls_need).saturating_add(self.longest_chunk);
        self.env.stop.get() || !self.deadline.allows(self.env.clock.now(), needed)
    }

    fn reserve(&self) -> Duration {
        let began = self.env.clock.elapsed().saturating_sub(self.baseline.spent.elapsed);
        let whole = self.deadline.remaining(self.env.clock.now()).saturating_add(began);
        END_RESERVE.min(whole / END_RESERVE_SHARE)
    }

    pub(super) fn note(&mut self, note: String) {
        let notes = &mut self.progress.done.notes;
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Brings calls and costs up to date.
    pub(super) fn count_costs(&mut self) {
        let (calls, writes, requests, gb_seconds, possible) = self.baseline.earlier;
        let spent = &self.baseline.spent;
        let mut total = calls;
        total += calls_of(&self.account) - self.baseline.calls;
        let seconds = self.env.clock.elapsed().saturating_sub(spent.elapsed).as_secs_f64();
        let done = &mut self.progress.done;
        done.calls = total;
        done.gb_seconds = gb_seconds + seconds * f64::from(self.env.memory_mb.get()) / 1024.0;
        done.calls_possible = possible + seconds * self.account.ceiling_per_second();
        done.table_writes = writes + self.env.table.writes().saturating_sub(spent.table_writes);
        done.object_requests = requests + self.env.objects.requests().saturating_sub(spent.object_requests);
        let salesforce = self.org.counts();
        let (earlier, retried) = self.baseline.earlier_salesforce;
        done.sync.salesforce_calls = earlier + salesforce.calls.saturating_sub(self.baseline.salesforce.calls);
        done.sync.salesforce_retried = retried + salesforce.retried.saturating_sub(self.baseline.salesforce.retried);
        done.sync.salesforce_used_percent = self.org.quota().org.filter(|usage| usage.most > 0).map(|usage| {
            #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
            let share = usage.used as f64 / usage.most as f64;
            (share * 1_000.0).round() / 10.0
        });
    }
}

/// The run stopped by itself, for a person to look.
fn is_brake(error: &Error) -> bool {
    [codes::SYNC_LIMIT, codes::SYNC_DELETES].contains(&error.code())
}

/// The name of the sync that keeps the accounts of these contacts.
fn accounts_of(app: &App, sync: &Sync) -> Option<String> {
    if let Some(name) = &sync.accounts {
        return Some(name.clone());
    }
    if !sync.salesforce_object.eq_ignore_ascii_case("Contact") {
        return None;
    }
    let is_theirs = |other: &&Sync| {
        other.salesforce_object.eq_ignore_ascii_case("Account")
            && other.hubspot_object.is_companies()
            && (&other.hubspot, &other.salesforce) == (&sync.hubspot, &sync.salesforce)
    };
    app.config().syncs.iter().find(is_theirs).map(|other| other.name.clone())
}

/// What both systems say about the two objects.
pub(super) async fn schemas(
    sync: &Sync,
    account: &Account,
    org: &Org,
    deadline: Deadline,
) -> Result<(
    crate::config::SyncLinks,
    Rc<crate::hubspot::model::ObjectSchema>,
    Rc<crate::salesforce::describe::ObjectSchema>,
)> {
    let links = fields::links_of(sync).ok_or_else(|| {
        let message = format!(
            "sync `{}`: there are no usual names for the ids of {} and {}; say `links: {{ hubspot_property: …, salesforce_field: … }}`",
            sync.name, sync.hubspot_object, sync.salesforce_object
        );
        Error::invalid(codes::SYNC_SETUP, message)
    })?;
    let resource = Resource::parse(sync.hubspot_object.as_str())?;
    let object = match resource {
        Resource::Crm(crm) => crm.object,
        Resource::Cms(_) => sync.hubspot_object.clone(),
    };
    let salesforce = org.describe(&sync.salesforce_object, deadline);
    let hubspot = account.schema(&object, SchemaParts::default(), deadline);
    let (salesforce, hubspot) = futures_util::future::try_join(salesforce, hubspot).await?;
    let parts = fields::schema_parts(sync, &hubspot);
    let hubspot =
        if parts == SchemaParts::default() { hubspot } else { account.schema(&object, parts, deadline).await? };
    Ok((links, hubspot, salesforce))
}

/// Takes the row of a feed for a candidate.
impl Candidate {
    pub(super) fn of_row(row: Row, first: bool) -> Option<Self> {
        let id = row.id()?;
        let deleted = row.is_deleted();
        // What was deleted before there was a sync concerns nobody.
        if deleted && first {
            return None;
        }
        let modstamp = row.system_modstamp();
        Some(Self {
            modified: modstamp.map(Timestamp::as_millisecond),
            place: modstamp.map(|at| (at, id.clone())),
            ..Self::new(id.to_string())
        })
    }
}
