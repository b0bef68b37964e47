//! Delivery of change records: `format: opencdc` imports.
//!
//! The machinery of an import carries it (position, ledger, checkpoints, rejects, limits); what is particular stands here. A line
//! says what happened to which record; the calls it takes differ, and what is said about one record goes out in order.
//!
//! | module | what it does |
//! |---|---|
//! | `record` | reads a line: operation, key, payload |
//! | `intake` | says which record is meant, what of it is delivered, and by which act |
//! | `sequence` | keeps the order of a record's lines between the lanes, one lane for each act |
//! | `courier` | delivers a batch of CRM records |
//! | `creates` | what is noted of creates that cannot be repeated |
//! | `content` | delivers content, one thing at a time |
//!
//! Why which record is meant is told as it is: `docs/decisions/0015-delivery.md`.

mod content;
mod courier;
mod creates;
mod intake;
mod record;
mod sequence;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    rc::Rc,
};

use self::{
    content::Content,
    courier::{Adopting, Courier, Crm},
    creates::Creates,
    intake::{Act, Identity, Intake, What},
    sequence::Sequence,
};
use super::{
    batcher::{BATCH_INPUTS_MAX, Batcher, Pending},
    deliver::{Delivered, Delivery},
    delivered::Marks,
    flow::Flow,
    job::{Job, Loaded},
    ledger::RowId,
    plan::replay::{self, Order, Replay},
    progress::File,
    rows::{Columns, Reader, Row},
    source::{Source, Step},
};
use crate::{
    clock::Deadline,
    codes,
    config::{Format, Import},
    csv::records::Start,
    error::{Error, Result},
    http::rate_limit::Permit,
    hubspot::{
        properties::SchemaParts,
        resources::{CmsResource, CrmResource, Resource},
    },
    mapping::Detected,
    objects::{Location, Objects},
    record::{Input, Reason},
    report::{FilePosition, RowOutcome},
};

/// The property that stands in the name of hubferry's own: `hubferry_hs_object_id_key` holds the id that a record has elsewhere.
const SOURCE_ID: &str = "hs_object_id";

/// Refusals that an earlier row may be the reason of: another record still has the value that it is about to lose.
const CROSSED: [codes::Code; 4] =
    [codes::CONFLICT, codes::CONFLICTING_UNIQUE_VALUE, codes::KEY_AMBIGUOUS, codes::KEY_EXISTS];

/// What delivers a batch: of rows with columns, or of records.
pub(super) struct Sender(Kind);

enum Kind {
    Rows(Rc<Delivery>),
    Records(Rc<Courier>),
}

impl Sender {
    /// One verdict per input, in order. `number` is unique to the batch.
    pub(super) async fn deliver(
        &self,
        number: &str,
        inputs: &[Input],
        permit: Permit,
        deadline: Deadline,
    ) -> Result<Vec<Delivered>> {
        match &self.0 {
            Kind::Rows(delivery) => delivery.deliver(number, inputs, permit, deadline).await,
            Kind::Records(courier) => courier.deliver(number, inputs, permit, deadline).await,
        }
    }
}

/// A stream of records at work.
pub(super) struct Records {
    /// None, where the lines are those of a plan.
    intake: Option<Intake>,
    /// The plan whose lines they are.
    replay: Option<Rc<Replay>>,
    /// Associations of a plan that wait for the records before them; the ledger bounds them.
    held: VecDeque<(RowId, usize, Input)>,
    /// Rows of a plan's records without a verdict.
    open: BTreeSet<u64>,
    lanes: Vec<RecordLane>,
    sequence: Sequence,
    /// What was refused over the value of another record, by lane: sent again once everything before it is settled.
    parked: Vec<(usize, Pending)>,
    /// Rows that were parked before.
    tried: HashSet<u64>,
    creates: Option<Creates>,
}

struct RecordLane {
    batcher: Batcher,
    courier: Rc<Courier>,
}

impl Records {
    fn new(intake: Intake, lanes: Vec<(Batcher, Courier)>, creates: Option<Creates>) -> Self {
        let lanes = lanes.into_iter().map(|(batcher, courier)| RecordLane { batcher, courier: Rc::new(courier) });
        Self {
            intake: Some(intake),
            replay: None,
            held: VecDeque::new(),
            open: BTreeSet::new(),
            lanes: lanes.collect(),
            sequence: Sequence::default(),
            parked: Vec::new(),
            tried: HashSet::new(),
            creates,
        }
    }

    /// The lines of a plan.
    pub(super) fn of_plan(replay: Rc<Replay>) -> Self {
        let lane = |lane| {
            let courier = Rc::new(Courier::Replay { replay: replay.clone(), lane });
            RecordLane { batcher: Batcher::unmerged(), courier }
        };
        Self {
            intake: None,
            lanes: replay::Lane::ALL.into_iter().map(lane).collect(),
            replay: Some(replay),
            held: VecDeque::new(),
            open: BTreeSet::new(),
            sequence: Sequence::default(),
            parked: Vec::new(),
            tried: HashSet::new(),
            creates: None,
        }
    }

    /// Sends the associations that wait for no record any more.
    fn release(&mut self) {
        let first = self.open.first().copied().unwrap_or(u64::MAX);
        while let Some((row, lane, input)) = self.held.pop_front_if(|(row, ..)| row.number() < first) {
            self.add(row, lane, input);
        }
    }

    fn add(&mut self, row: RowId, lane: usize, input: Input) {
        let queued = self.sequence.offer(row, lane, input);
        self.queue(queued);
    }

    fn queue(&mut self, queued: impl IntoIterator<Item = sequence::Queued>) {
        for (row, lane, input) in queued {
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.batcher.add(row, input);
            }
        }
    }
}

impl Loaded {
    /// Whether the lines are those of a plan.
    pub(super) fn is_plan(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.replay.is_some())
    }

    /// The batchers of all lanes, in their order.
    pub(super) fn batchers(&self) -> impl Iterator<Item = &Batcher> {
        let records = self.records.iter().flat_map(|records| &records.lanes);
        self.lanes.iter().map(|lane| &lane.batcher).chain(records.map(|lane| &lane.batcher))
    }

    /// The batcher of a lane.
    pub(super) fn batcher_mut(&mut self, lane: usize) -> Option<&mut Batcher> {
        match &mut self.records {
            Some(records) => records.lanes.get_mut(lane).map(|lane| &mut lane.batcher),
            None => self.lanes.get_mut(lane).map(|lane| &mut lane.batcher),
        }
    }

    /// The batcher of a lane, and what delivers its batches.
    pub(super) fn sender(&mut self, lane: usize) -> Option<(&mut Batcher, Sender)> {
        match &mut self.records {
            Some(records) => {
                let lane = records.lanes.get_mut(lane)?;
                Some((&mut lane.batcher, Sender(Kind::Records(lane.courier.clone()))))
            }
            None => {
                let lane = self.lanes.get_mut(lane)?;
                Some((&mut lane.batcher, Sender(Kind::Rows(lane.delivery.clone()))))
            }
        }
    }

    /// Whether more is to be read ahead: two batches, so that one is full when its turn comes. Of a row's records each has two; of a stream,
    /// whose records need not be of every kind, one kind is enough.
    pub(super) fn wants_rows(&self) -> bool {
        let mut wants = self.batchers().map(|batcher| batcher.ready() < 2 * BATCH_INPUTS_MAX);
        if self.records.is_some() { wants.all(|wants| wants) } else { wants.any(|wants| wants) }
    }

    /// So many rows of a key have their verdicts.
    pub(super) fn settled(&mut self, key: &str, rows: usize) {
        if let Some(records) = &mut self.records {
            let released = records.sequence.settled(key, rows);
            records.queue(released);
        }
    }

    /// The row has its last verdict, or will have it now.
    pub(super) fn closed(&mut self, row: RowId) {
        let Some(records) = &mut self.records else { return };
        if let Some(replay) = &records.replay {
            replay.forget(row);
            records.open.remove(&row.number());
            records.release();
        }
    }

    /// Keeps what was refused for a later try, where a row before it may be the reason; else gives it back. `first` is the first row that is
    /// not accounted for.
    pub(super) fn park(&mut self, lane: usize, pending: Pending, reason: &Reason, first: u64) -> Option<Pending> {
        let Some(records) = &mut self.records else { return Some(pending) };
        let [(row, _)] = pending.rows.as_slice() else { return Some(pending) };
        let crossed = CROSSED.iter().any(|code| *reason.code == *code.as_str());
        if !crossed || row.number() <= first || !records.tried.insert(row.number()) {
            return Some(pending);
        }
        records.tried.retain(|row| *row >= first);
        records.parked.push((lane, pending));
        None
    }

    /// Sends again what was kept, now that everything before it is accounted for.
    pub(super) fn unpark(&mut self, first: u64) {
        let Some(records) = &mut self.records else { return };
        let is_first = |pending: &Pending| pending.rows.first().is_some_and(|(row, _)| row.number() <= first);
        while let Some(at) = records.parked.iter().position(|(_, pending)| is_first(pending)) {
            let (lane, pending) = records.parked.swap_remove(at);
            if let Some(lane) = records.lanes.get_mut(lane) {
                lane.batcher.again(pending);
            }
        }
    }
}

impl Flow<'_> {
    /// Enters a line into the ledger and hands its record to the lane that it takes.
    pub(super) fn take_record(&mut self, row: Row, end: FilePosition) {
        let Some(records) = &mut self.loaded.records else { return };
        if let Some(replay) = records.replay.clone() {
            return self.take_planned(&replay, row, end);
        }
        let order = match (row.fault, &mut records.intake) {
            (Some(reason), _) => Err(reason),
            (None, Some(intake)) => intake.read(row.cells.get(0).unwrap_or_default(), row.line),
            (None, None) => return,
        };
        let id = self.ledger.open(row.line, end, row.cells, 1, 1);
        match order {
            Err(reason) => self.ledger.settle(id, RowOutcome::Rejected, Some(reason)),
            Ok(order) => {
                let archives = matches!(&order.what, What::Send(act, _) if act.archives());
                self.ledger.mark(id, Marks { dropped: order.dropped, archives, ..Marks::default() });
                match order.what {
                    What::Send(act, input) => records.add(id, act.lane(), input),
                    What::Settled(outcome, reason) => self.ledger.settle(id, outcome, reason),
                }
                if let Some(note) = order.note {
                    self.job.note(note.to_owned());
                }
            }
        }
    }
}

impl Flow<'_> {
    /// Enters a line of a plan.
    fn take_planned(&mut self, replay: &Replay, row: Row, end: FilePosition) {
        let text = row.cells.get(0).unwrap_or_default().to_owned();
        let id = self.ledger.open(row.line, end, row.cells, 1, 1);
        let order = match row.fault {
            Some(reason) => Order::Refused(reason),
            None => replay.read(&text, id),
        };
        let Some(records) = &mut self.loaded.records else { return };
        match order {
            Order::Refused(reason) => self.ledger.settle(id, RowOutcome::Rejected, Some(reason)),
            Order::Unchanged => self.ledger.settle(id, RowOutcome::Unchanged, None),
            Order::Send(lane, input) => {
                let place = replay::Lane::ALL.iter().position(|known| *known == lane).unwrap_or_default();
                if lane == replay::Lane::Associate {
                    records.held.push_back((id, place, input));
                    records.release();
                } else {
                    records.open.insert(id.number());
                    records.add(id, place, input);
                }
            }
        }
    }
}

impl Job {
    /// Reads the start of a file of records (or nothing of it, where the run continues) and checks the import against the account.
    /// `None` if there is nothing in the file.
    pub(super) async fn load_records(&mut self, source: &mut Source) -> Result<Option<Loaded>> {
        let resource = resource_of(&self.import)?;
        let start = match &self.progress.file {
            Some(_) => Start { byte: self.progress.position.byte, line: self.progress.position.line + 1 },
            None => Start::default(),
        };
        let mut reader = Reader::lines(start);
        let mut ended = false;
        if self.progress.file.is_none() {
            let mut bytes = Vec::new();
            while bytes.iter().all(u8::is_ascii_whitespace) && !ended {
                match source.step(&mut bytes)? {
                    Step::Bytes => {}
                    Step::Wait => source.fetched().await?,
                    Step::End => ended = true,
                }
                // White space is lines too, and not kept.
                if bytes.iter().all(u8::is_ascii_whitespace) {
                    reader.feed(&bytes);
                    let _ = reader.next();
                    bytes.clear();
                }
            }
            if ended && bytes.is_empty() {
                return Ok(None);
            }
            reader.feed(&bytes);
        }
        if ended {
            reader.finish();
        }
        let records = match resource {
            Resource::Crm(resource) => self.crm_records(resource).await?,
            Resource::Cms(resource) => self.content_records(resource).await?,
        };
        if self.progress.file.is_none() {
            let (compression, detected) = (source.compression(), Detected::default());
            self.progress.file = Some(File { compression, dialect: None, columns: Vec::new(), detected });
        }
        Ok(Some(Loaded {
            reader,
            read_ahead: VecDeque::new(),
            lanes: Vec::new(),
            records: Some(records),
            links: Vec::new(),
            columns: Columns::json(&[]),
            ended,
            drained: false,
        }))
    }

    async fn crm_records(&mut self, resource: CrmResource) -> Result<Records> {
        let object = resource.object.clone();
        if object.as_str() == "feedback_submissions" {
            let message =
                format!("{} cannot be written: HubSpot makes them itself; nothing was written", resource.collection);
            return Err(Error::invalid(codes::RESOURCE_READ_ONLY, message));
        }
        let until = self.calls_until();
        let schema = self.account.schema(&object, SchemaParts::default(), until).await?;
        let key = self.import.key.as_deref().map(str::trim);
        let mut unique = false;
        if let Some(key) = key {
            let Some(property) = schema.properties.get(key) else {
                let message = format!("the key `{key}` is no property of {object}; nothing was written");
                return Err(Error::invalid(codes::MAPPING_INVALID, message));
            };
            unique = property.has_unique_value || (object.is_contacts() && key == "email");
            if key == SOURCE_ID {
                let message = format!(
                    "the key `{key}` is the account's own id: leave `key` out to deliver by the ids in the records; nothing was written"
                );
                return Err(Error::invalid(codes::MAPPING_INVALID, message));
            }
        }
        let mut adopting = None;
        let identity = match key {
            _ if self.import.create_properties => {
                let name = self.account.ensure_key_property(&object, SOURCE_ID, true, until).await?;
                adopting = key.map(|key| Adopting { property: key.into(), unique });
                Identity::Source(name.as_str().into())
            }
            Some(key) if unique => Identity::Property(key.into()),
            Some(key) => {
                let message = format!(
                    "HubSpot does not hold `{key}` of {object} unique, so that records cannot be identified by it; nothing was written"
                );
                return Err(Error::invalid(codes::KEY_NOT_UNIQUE, message));
            }
            None => Identity::Own,
        };
        let creates = Creates::new(self.env.objects.clone(), self.state_folder());
        let earlier = if self.lease.invocations > 1 && identity == Identity::Own {
            creates.earlier().await?
        } else {
            HashMap::new()
        };
        let crm = Crm { account: self.account.clone(), object };
        let property = match &identity {
            Identity::Source(property) | Identity::Property(property) => Some(property.clone()),
            _ => None,
        };
        // Refreshed: the property may be new.
        let schema = self.account.schema(&crm.object, SchemaParts::default(), until).await?;
        let lanes = Act::CRM.into_iter().map(|act| {
            let crm = crm.clone();
            let courier = match act {
                Act::Create => Courier::Create { crm, creates: creates.clone() },
                Act::Update => Courier::Update { crm },
                Act::Archive => Courier::Archive { crm, property: property.clone() },
                // Without a property nothing comes this way.
                _ => Courier::Upsert {
                    crm,
                    property: property.clone().unwrap_or_else(|| SOURCE_ID.into()),
                    adopting: adopting.clone(),
                },
            };
            (Batcher::default(), courier)
        });
        let lanes = lanes.collect();
        let intake = Intake::new(Resource::Crm(resource), identity, Some(schema), self.import.blank, earlier);
        Ok(Records::new(intake, lanes, Some(creates)))
    }

    async fn content_records(&mut self, resource: CmsResource) -> Result<Records> {
        if self.import.key.is_some() {
            let message = format!(
                "`key` has no meaning for {}: content is found by what it is called; nothing was written",
                resource.collection
            );
            return Err(Error::invalid(codes::MAPPING_INVALID, message));
        }
        let portal = self.account.details(self.calls_until()).await?.portal_id;
        let folder = format!("state/ids/{}/{portal}/{}/", self.import.name, resource.collection);
        let folder = Location::new(&self.object.location.bucket, folder);
        let (objects, clock) = (self.env.objects.clone(), self.env.clock.clone());
        let (account, until) = (self.account.clone(), self.calls_until());
        let content = Rc::new(Content::open(account, objects, clock, resource, folder, until).await?);
        let lanes = Act::CONTENT.into_iter();
        let lanes =
            lanes.map(|act| (Batcher::one_by_one(), Courier::Content { content: content.clone(), act })).collect();
        let identity = Identity::Content { source_ids: self.import.create_properties };
        let intake = Intake::new(Resource::Cms(resource), identity, None, self.import.blank, HashMap::new());
        Ok(Records::new(intake, lanes, None))
    }

    /// Every row is accounted for: what was noted to get there is not needed any more. Should it stay, a lifecycle rule removes it.
    pub(super) async fn forget_creates(&self, loaded: &Loaded) {
        let Some(creates) = loaded.records.as_ref().and_then(|records| records.creates.as_ref()) else { return };
        if let Err(error) = creates.remove().await {
            tracing::warn!(run_id = self.lease.run_id, error = %error, "working files could not be removed");
        }
    }
}

/// Whether an import creates records that nothing names.
pub(super) fn is_nameless(import: &Import) -> bool {
    import.format == Format::Opencdc && import.key.is_none() && !import.create_properties
}

/// Whether the run whose working files are in `folder` has sent such creates, as far as it is known: what was refused was not made.
pub(super) async fn has_created(objects: Rc<dyn Objects>, folder: Location) -> Result<bool> {
    Ok(!Creates::new(objects, folder).earlier().await?.is_empty())
}

/// The resource that an import delivers to.
fn resource_of(import: &Import) -> Result<Resource> {
    match &import.resource {
        Some(resource) => Resource::parse(resource),
        None => Err(Error::invalid(codes::CONFIG_INVALID, format!("import `{}` names no resource", import.name))),
    }
}
