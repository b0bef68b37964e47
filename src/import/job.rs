//! One invocation's work on an import: the start of the file is looked at, the mapping is checked against the account, and then
//! [`super::flow`] does the rest.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use super::{
    batcher::Batcher,
    conclude::is_passing,
    deliver::{Delivery, key_hash},
    delivered::DeliveredIndex,
    flow,
    ledger::RowId,
    log::Log,
    mirror::Mirrored,
    plan::{Header, Line, Plan, Planned, replay::Replay},
    progress::{File, Progress},
    records::Records,
    rows::{Columns, REJECT_MEMBERS, Raw, Reader, Row},
    source::{Source, Step},
};
use futures_util::future::Either;
use jiff::Timestamp;

use crate::{
    app::Env,
    clock::{Clock, Deadline},
    codes,
    config::{Compression, Format, Import, Mode, Preflight},
    csv::{
        Cells,
        dialect::{self, COLUMNS_MAX, Dialect, Hints},
        records::{Start, header_names},
    },
    error::{Error, ErrorKind, Result},
    hubspot::{
        account::Account, adopt::key_property_name, associations::AssociationType, model::ObjectSchema,
        properties::SchemaParts,
    },
    mapping::{self, Detected, Mapping, MappingSpec, Problem},
    objects::{Location, ObjectVersion},
    record::{ObjectType, PropertyName},
    report::{Calls, FilePosition},
    state::runs::{Lease, RENEW_AFTER, Runs, lost},
};

/// Rows that are looked at to find out the formats of dates and numbers.
const SAMPLE_ROWS: usize = 2_000;

/// Bytes that are looked at for it, and to find out how the file is written.
const SAMPLE_BYTES: usize = 512 * 1024;

/// Bytes of what is remembered about a file: it stands in the run's item, which DynamoDB bounds to 400 KB.
const FILE_BYTES_MAX: usize = 100 * 1024;

/// Notes of a report.
const NOTES_MAX: usize = 100;

/// Shortest time between two tries to renew a lease.
const RENEW_AGAIN: Duration = Duration::from_millis(500);

/// How an invocation's work on a run ended.
pub(super) enum End {
    /// Every row is accounted for.
    Complete,
    /// Every row is accounted for, but what the file lacks was not archived: that many of so many records, which is more than the brake
    /// allows; or it is not certain what the file lacks.
    NotMirrored(Option<(u64, u64)>),
    /// The deadline is near.
    Deadline,
    /// A run of an older version of the object has not stopped yet.
    OlderGoesOn,
    /// Too many rejects.
    Aborted,
    /// A run-level error; what settled before it is saved.
    Failed(Error),
    /// The mapping or the file cannot be used; nothing was written.
    Invalid(Error),
}

/// One of the records that a row holds.
pub(super) struct Lane {
    pub(super) object: ObjectType,
    pub(super) mapping: Mapping,
    pub(super) batcher: Batcher,
    pub(super) delivery: Rc<Delivery>,
}

/// Two of a row's records that are associated, by their lanes, and the pairs that wait for it.
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) from_object: ObjectType,
    pub(super) to_object: ObjectType,
    pub(super) label: Option<AssociationType>,
    pub(super) pairs: VecDeque<(RowId, String, String)>,
}

/// A file whose mapping is known to fit.
pub(super) struct Loaded {
    pub(super) reader: Reader,
    /// Rows that were read to look at them.
    pub(super) read_ahead: VecDeque<Row>,
    pub(super) lanes: Vec<Lane>,
    /// In place of lanes, where the file is a stream of change records.
    pub(super) records: Option<Records>,
    pub(super) links: Vec<Link>,
    pub(super) columns: Columns,
    /// The reader has been fed everything.
    pub(super) ended: bool,
    /// The reader has nothing left.
    pub(super) drained: bool,
}

/// An import at work.
pub(super) struct Job {
    pub(super) env: Rc<Env>,
    pub(super) runs: Rc<Runs>,
    pub(super) account: Rc<Account>,
    pub(super) import: Rc<Import>,
    pub(super) lease: Lease,
    pub(super) object: ObjectVersion,
    pub(super) started_at: Timestamp,
    pub(super) deadline: Deadline,
    /// What is accounted for; what of it is saved lags behind by a checkpoint.
    pub(super) progress: Progress,
    pub(super) rejects: Log,
    pub(super) ignored_columns: Vec<String>,
    pub(super) delivered: Option<DeliveredIndex>,
    /// A plan is made: nothing is written, neither into HubSpot nor into the bucket.
    pub(super) plan: Option<Rc<Plan>>,
    /// The source is a plan, of which this is the first line.
    pub(super) replay: Option<Rc<Header>>,
    /// Calls and writes of this invocation that `progress` does not count yet are measured from these.
    pub(super) baseline: Baseline,
}

/// The doors' counters when the invocation began.
#[derive(Clone, Copy)]
pub(super) struct Baseline {
    pub(super) calls: Calls,
    pub(super) table_writes: u64,
    pub(super) object_requests: u64,
    pub(super) earlier: (Calls, u64, u64),
    pub(super) earlier_gb_seconds: f64,
    /// When the invocation took the event up, on the clock's own scale.
    pub(super) began: Duration,
}

impl Job {
    /// Works on the run until it ends or has to stop. Progress is saved when this returns, unless the lease was lost.
    pub(super) async fn work(&mut self) -> Result<End> {
        let fresh = self.progress.has_nothing();
        let (lease, clock, runs) = (self.lease.clone(), self.env.clock.clone(), self.runs.clone());
        let deadline = self.deadline;
        match Box::pin(self.before_load(&lease, &*clock, &runs)).await {
            Ok(None) => {}
            Ok(Some(end)) => return Ok(end),
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) if error.kind() == ErrorKind::Invalid && fresh => {
                return Ok(End::Invalid(error.context(&self.object.location)));
            }
            Err(error) => return Ok(End::Failed(error.context(&self.object.location))),
        }
        let mut source = Source::new(
            self.env.objects.clone(),
            self.object.clone(),
            self.file_compression(),
            self.progress.position.byte,
        );
        let loading = self.load(&mut source);
        let mut loaded = match held(&runs, &lease, &*clock, deadline, loading).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return Ok(End::Complete),
            Err(error) if error.kind() == ErrorKind::Invalid && fresh => {
                return Ok(End::Invalid(error.context(&self.object.location)));
            }
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) => return Ok(End::Failed(error.context(&self.object.location))),
        };
        let beginning = self.begin_index(&loaded.lanes, fresh);
        if let Err(error) = held(&runs, &lease, &*clock, deadline, beginning).await {
            return if error.kind() == ErrorKind::Fenced { Err(error) } else { Ok(End::Failed(error)) };
        }
        if let Some(plan) = self.plan.clone() {
            match held(&runs, &lease, &*clock, deadline, self.plan_header(&loaded)).await {
                Ok(header) => plan.line(&Line::Plan(Box::new(header))),
                Err(error) => return Ok(End::Failed(error)),
            }
        }
        let end = flow::run(self, &mut source, &mut loaded).await?;
        if matches!(end, End::Complete) {
            self.forget_creates(&loaded).await;
        }
        match (&end, loaded.lanes.first()) {
            (End::Complete, Some(lane)) if self.import.mode == Mode::Mirror => {
                match held(&runs, &lease, &*clock, deadline, self.mirror(lane)).await {
                    Ok(Mirrored::Done) => Ok(end),
                    Ok(Mirrored::Deadline) => Ok(End::Deadline),
                    Ok(Mirrored::Uncertain(note)) => {
                        self.note(note);
                        Ok(End::NotMirrored(None))
                    }
                    Ok(Mirrored::Braked(missing)) => Ok(End::NotMirrored(Some((missing.count, missing.known)))),
                    Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
                    Err(error) => Ok(End::Failed(error)),
                }
            }
            _ => Ok(end),
        }
    }

    /// What comes before the rows: a pass over the whole file, where one is asked for.
    async fn before_load(&mut self, lease: &Lease, clock: &dyn Clock, runs: &Runs) -> Result<Option<End>> {
        let deadline = self.deadline;
        if self.replay.is_some() || self.import.format == Format::Opencdc {
            return Ok(None);
        }
        if let Some(plan) = self.plan.clone() {
            held(runs, lease, clock, deadline, Box::pin(self.find_repeated(&plan))).await?;
            return Ok(None);
        }
        if self.import.preflight == Preflight::Full {
            return held(runs, lease, clock, deadline, Box::pin(self.preflight())).await;
        }
        Ok(None)
    }

    pub(super) fn file_compression(&self) -> Option<Compression> {
        self.progress.file.as_ref().map(|file| file.compression)
    }

    /// Reads the start of the file (or nothing of it, where the run continues) and checks the mapping against the account.
    /// `None` if there is nothing in the file.
    pub(super) async fn load(&mut self, source: &mut Source) -> Result<Option<Loaded>> {
        if self.replay.is_some() {
            return self.load_replay(source).await;
        }
        if self.import.format == Format::Opencdc {
            return self.load_records(source).await;
        }
        if let Some(file) = self.progress.file.clone() {
            let start = Start { byte: self.progress.position.byte, line: self.progress.position.line + 1 };
            let (mut reader, columns) = match &file.dialect {
                Some(dialect) => (Reader::csv(dialect, start), Columns::csv(&file.columns)),
                None => (Reader::json(start), Columns::json(&file.columns)),
            };
            reader.expect_columns(file.columns.len());
            let lanes = self.lanes(&columns.header, &file.detected).await?;
            return Ok(Some(Loaded {
                reader,
                read_ahead: VecDeque::new(),
                lanes,
                records: None,
                links: self.links().await?,
                columns,
                ended: false,
                drained: false,
            }));
        }
        let mut sample = Vec::new();
        let mut whole = false;
        while sample.len() < SAMPLE_BYTES && !whole {
            match source.step(&mut sample)? {
                Step::Bytes => {}
                Step::Wait => source.fetched().await?,
                Step::End => whole = true,
            }
        }
        if whole && sample.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let mut loading = match self.import.format {
            Format::Jsonl => {
                Loading { reader: Reader::json(Start::default()), dialect: None, read_ahead: VecDeque::new(), whole }
            }
            _ => {
                let known = self.known_names().await?;
                let hints = Hints { is_known: &|name| known.contains(&normal(name)) };
                let dialect = dialect::detect(&sample, whole, &self.import.csv, &hints)?;
                Loading {
                    reader: Reader::csv(&dialect, Start::default()),
                    dialect: Some(dialect),
                    read_ahead: VecDeque::new(),
                    whole,
                }
            }
        };
        loading.reader.feed(&sample);
        drop(sample);
        if whole {
            loading.reader.finish();
        }
        let Some(names) = loading.names(source, self).await? else { return Ok(None) };
        let columns = if loading.dialect.is_some() { Columns::csv(&names) } else { Columns::json(&names) };
        let read_ahead: VecDeque<Row> = loading.read_ahead.into_iter().map(|raw| columns.row(raw)).collect();
        let sample: Vec<Cells> =
            read_ahead.iter().filter(|row| row.fault.is_none()).map(|row| row.cells.clone()).collect();
        let detected = mapping::detect(&columns.header, &sample);
        if self.import.create_properties {
            self.create_missing(&columns, loading.dialect.as_ref(), &names, source.compression()).await?;
        }
        let lanes = self.lanes(&columns.header, &detected).await?;
        let file = File { compression: source.compression(), dialect: loading.dialect, columns: names, detected };
        if serde_json::to_vec(&file).map_or(0, |bytes| bytes.len()) > FILE_BYTES_MAX {
            let message = format!("the names of the {} columns are too long to be remembered", file.columns.len());
            return Err(Error::invalid(codes::TOO_MANY_COLUMNS, message));
        }
        self.progress.file = Some(file);
        Ok(Some(Loaded {
            reader: loading.reader,
            read_ahead,
            lanes,
            records: None,
            links: self.links().await?,
            columns,
            ended: loading.whole,
            drained: false,
        }))
    }

    /// Names that a header would hold, normalised: tells a header from a first row of data.
    async fn known_names(&self) -> Result<BTreeSet<String>> {
        let mut known = BTreeSet::new();
        for spec in record_specs(&self.import)? {
            if let Some(columns) = spec.columns {
                for (column, rule) in columns {
                    known.insert(normal(column));
                    known.insert(normal(&rule.details().property));
                }
            }
            for property in self.schema(&spec.object, SchemaParts::default()).await?.properties.values() {
                known.insert(normal(&property.name));
                known.insert(normal(&property.label));
            }
        }
        Ok(known)
    }

    /// The mapping of each of a row's records, checked against the account. All problems of all of them at once.
    async fn lanes(&mut self, header: &[String], detected: &Detected) -> Result<Vec<Lane>> {
        let time_zone = self.account.details(self.calls_until()).await?.time_zone.clone();
        let archived_before = Rc::new(self.archived_before().await?);
        let mut lanes = Vec::new();
        let mut problems: Vec<Problem> = Vec::new();
        let mut ignored: Option<Vec<String>> = None;
        let mut notes = Vec::new();
        for (place, record) in record_specs(&self.import)?.into_iter().enumerate() {
            let schema = self.schema(&record.object, SchemaParts::default()).await?;
            let key_property = self.key_property(&record, &schema).await?;
            let spec = MappingSpec {
                object: &record.object,
                key: record.key.as_deref(),
                own_key: key_property.is_some(),
                columns: record.columns,
                blank: self.import.blank,
                mode: self.import.mode,
                time_zone: &time_zone,
            };
            let needs = Mapping::needs(&spec, header, &schema);
            let parts = SchemaParts { owners: needs.owners, pipelines: needs.pipelines };
            let schema = self.schema(&record.object, parts).await?;
            match Mapping::compile(&spec, header, &schema, detected.clone()) {
                Ok(mapping) => {
                    let unused: Vec<String> =
                        mapping.ignored_columns().iter().map(|ignored| ignored.column.clone()).collect();
                    ignored = Some(match ignored {
                        None => unused,
                        Some(others) => others.into_iter().filter(|column| unused.contains(column)).collect(),
                    });
                    if !mapping.fill_if_empty().is_empty() {
                        notes.push(format!(
                            "{}: `fill: if_empty` costs one more call per batch, to read",
                            record.object
                        ));
                    }
                    let batcher = Batcher::new(mapping.fill_if_empty().to_vec());
                    let mut delivery = self.delivery(&record, &mapping, key_property, &archived_before);
                    let is_new = |name: &PropertyName| !schema.properties.contains_key(&**name);
                    let key_property_is_new = delivery.key_property.as_ref().is_some_and(is_new);
                    delivery.planned = (self.plan.clone()).map(|plan| Planned {
                        plan,
                        lane: place,
                        schema: schema.clone(),
                        key_property_is_new,
                    });
                    lanes.push(Lane { object: record.object, mapping, batcher, delivery: Rc::new(delivery) });
                }
                Err(more) => problems.extend(more),
            }
        }
        for note in notes {
            self.note(note);
        }
        self.ignored_columns = ignored.unwrap_or_default();
        if problems.is_empty() { Ok(lanes) } else { Err(mapping_error(&problems)) }
    }

    fn delivery(
        &self,
        record: &RecordSpec<'_>,
        mapping: &Mapping,
        key_property: Option<PropertyName>,
        archived_before: &Rc<HashSet<u64>>,
    ) -> Delivery {
        Delivery {
            account: self.account.clone(),
            objects: self.env.objects.clone(),
            object: record.object.clone(),
            key: record.key.as_deref().unwrap_or_default().into(),
            by_record_id: mapping.key().is_some_and(|(_, is_record_id)| is_record_id),
            key_property,
            mode: self.import.mode,
            fill_if_empty: mapping.fill_if_empty().to_vec(),
            // What is about to be archived is written down in any case: after a kill it cannot be found any more.
            before_images: (self.import.before_images || self.import.mode == Mode::Archive)
                .then(|| self.state_folder()),
            started_at: self.started_at,
            archived_before: archived_before.clone(),
            planned: None,
        }
    }

    /// The account's definitions, and what a plan would add to them.
    async fn schema(&self, object: &ObjectType, parts: SchemaParts) -> Result<Rc<ObjectSchema>> {
        // First of all calls: who finds the day spent has to know when it ends.
        self.account.details(self.calls_until()).await?;
        let schema = self.account.schema(object, parts, self.calls_until()).await?;
        let Some(plan) = &self.plan else { return Ok(schema) };
        let planned = plan.properties.borrow();
        let own = planned.iter().filter(|planned| planned.object == *object && !planned.is_key());
        let own = own.filter(|planned| !schema.properties.contains_key(&planned.property.name));
        let added: Vec<_> = own.map(|planned| (planned.property.name.clone(), planned.definition())).collect();
        if added.is_empty() {
            return Ok(schema);
        }
        let mut with = ObjectSchema::clone(&schema);
        with.properties.extend(added);
        Ok(Rc::new(with))
    }

    /// The property that stands for a key which HubSpot does not hold unique. None where the key is unique, or where it is missing and
    /// may not be made: the mapping's check says so, with everything else that is wrong.
    async fn key_property(&self, record: &RecordSpec<'_>, schema: &ObjectSchema) -> Result<Option<PropertyName>> {
        let Some(key) = &record.key else { return Ok(None) };
        let unique = key == mapping::RECORD_ID
            || (record.object.is_contacts() && key == "email")
            || schema.properties.get(key).is_none_or(|property| property.has_unique_value);
        if unique {
            return Ok(None);
        }
        let creates = self.import.create_properties && self.plan.is_none();
        match self.account.ensure_key_property(&record.object, key, creates, self.calls_until()).await {
            Ok(name) => Ok(Some(name.as_str().into())),
            Err(error) if error.code() == codes::KEY_NOT_UNIQUE && self.import.create_properties && !creates => {
                let name = key_property_name(key);
                if schema.properties.contains_key(&name) {
                    return Err(error);
                }
                if let Some(plan) = &self.plan {
                    plan.add_key_property(&record.object, key, &name);
                }
                Ok(Some(name.as_str().into()))
            }
            Err(error) if error.code() == codes::KEY_NOT_UNIQUE && !self.import.create_properties => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The associations between a row's records.
    async fn links(&self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        for rule in &self.import.associate {
            let lane = |object: &ObjectType| self.import.records.iter().position(|record| record.object == *object);
            let (Some(from), Some(to)) = (lane(&rule.from), lane(&rule.to)) else {
                let message = format!(
                    "import `{}` associates {} with {}, which are not both among its records",
                    self.import.name, rule.from, rule.to
                );
                return Err(Error::invalid(codes::CONFIG_INVALID, message));
            };
            let label = match &rule.label {
                Some(label) => {
                    Some(self.account.association_type(&rule.from, &rule.to, label, self.calls_until()).await?)
                }
                None => None,
            };
            let (from_object, to_object) = (rule.from.clone(), rule.to.clone());
            links.push(Link { from, to, from_object, to_object, label, pairs: VecDeque::new() });
        }
        Ok(links)
    }
}

/// A file whose columns are not known yet.
struct Loading {
    reader: Reader,
    dialect: Option<Dialect>,
    read_ahead: VecDeque<Raw>,
    whole: bool,
}

impl Loading {
    /// The columns' names: the header's, or those of all members in the first lines. Reads ahead what is looked at for the formats
    /// of dates and numbers. `None` if there is no row.
    async fn names(&mut self, source: &mut Source, job: &mut Job) -> Result<Option<Vec<String>>> {
        let Some(first) = self.next(source).await? else { return Ok(None) };
        let mut names = Vec::new();
        match first {
            Raw::Csv(record, after) => {
                if let Some(fault) = &record.fault {
                    let message = format!("line {}: the header cannot be read: {}", record.line, fault.reason);
                    return Err(Error::invalid(codes::HEADER_INVALID, message));
                }
                if self.dialect.as_ref().is_some_and(|dialect| dialect.header) {
                    names = header_names(&record.cells);
                    job.progress.position = FilePosition { byte: after.byte, line: after.line - 1 };
                } else {
                    names = (1..=record.cells.len()).map(|number| number.to_string()).collect();
                    self.read_ahead.push_back(Raw::Csv(record, after));
                }
                self.reader.expect_columns(names.len());
            }
            first @ Raw::Json(..) => self.read_ahead.push_back(first),
        }
        while self.read_ahead.len() < SAMPLE_ROWS {
            let Some(raw) = self.reader.next() else { break };
            self.read_ahead.push_back(raw);
        }
        if self.dialect.is_none() {
            let configured =
                record_specs(&job.import)?.into_iter().filter_map(|spec| spec.columns).flat_map(BTreeMap::keys);
            let seen = self.read_ahead.iter().filter_map(|raw| match raw {
                Raw::Json(record, _) => Some(&record.fields),
                Raw::Csv(..) => None,
            });
            for name in configured.chain(seen.flatten().map(|(name, _)| name)) {
                if !names.contains(name) && !REJECT_MEMBERS.contains(&name.as_str()) {
                    names.push(name.clone());
                }
            }
            if names.len() > COLUMNS_MAX {
                return Err(Error::invalid(
                    codes::TOO_MANY_COLUMNS,
                    format!("the first lines have {} members; at most {COLUMNS_MAX} are read", names.len()),
                ));
            }
        }
        Ok(Some(names))
    }

    async fn next(&mut self, source: &mut Source) -> Result<Option<Raw>> {
        loop {
            if let Some(raw) = self.reader.next() {
                return Ok(Some(raw));
            }
            if self.whole {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            match source.step(&mut bytes)? {
                Step::Bytes => self.reader.feed(&bytes),
                Step::Wait => source.fetched().await?,
                Step::End => {
                    self.reader.finish();
                    self.whole = true;
                }
            }
        }
    }
}

impl Job {
    /// By when calls must have landed, so that there is time to save what they did.
    pub(super) fn calls_until(&self) -> Deadline {
        let (_, margin) = flow::margins(self.deadline.remaining(self.env.clock.now()));
        Deadline { at: self.deadline.at.checked_sub(margin).unwrap_or(Timestamp::MIN) }
    }

    /// Adds what a reader of the report should know besides; once, however many invocations come across it.
    pub(super) fn note(&mut self, note: String) {
        if !self.progress.notes.contains(&note) && self.progress.notes.len() < NOTES_MAX {
            self.progress.notes.push(note);
        }
    }

    /// Mode `archive`: what an earlier invocation was about to archive. Its records are not found any more if it did.
    async fn archived_before(&self) -> Result<HashSet<u64>> {
        let mut keys = HashSet::new();
        if self.import.mode != Mode::Archive || self.lease.invocations == 1 {
            return Ok(keys);
        }
        let folder = self.state_folder();
        let prefix = Location::new(&folder.bucket, format!("{}before-", folder.key));
        for image in self.env.objects.list(&prefix).await? {
            let Some((bytes, _)) = self.env.objects.get(&image).await? else { continue };
            for line in bytes.split(|byte| *byte == b'\n') {
                if let Ok(line) = serde_json::from_slice::<serde_json::Value>(line)
                    && let Some(key) = line.get("key").and_then(serde_json::Value::as_str)
                {
                    keys.insert(key_hash(key));
                }
            }
        }
        Ok(keys)
    }

    /// Brings the progress up to what the doors have counted.
    pub(super) fn count_costs(&mut self) {
        let (calls, writes, requests) = self.baseline.earlier;
        let mut total = calls;
        total += calls_of(&self.account) - self.baseline.calls;
        self.progress.calls = total;
        let spent = self.env.clock.elapsed().saturating_sub(self.baseline.began).as_secs_f64();
        self.progress.gb_seconds =
            self.baseline.earlier_gb_seconds + spent * f64::from(self.env.memory_mb.get()) / 1024.0;
        self.progress.table_writes = writes + self.env.table.writes().saturating_sub(self.baseline.table_writes);
        self.progress.object_requests =
            requests + self.env.objects.requests().saturating_sub(self.baseline.object_requests);
        let ms = self.env.clock.now().duration_since(self.started_at).as_millis();
        self.progress.pace.ceiling_per_second = self.account.ceiling_per_second();
        self.progress.pace.add(u64::try_from(ms).unwrap_or(0), self.progress.rows.read, total.total);
    }
}

impl Loaded {
    /// Whether every row has been taken.
    pub(super) fn exhausted(&self) -> bool {
        self.ended && self.read_ahead.is_empty() && self.drained
    }

    /// The next row.
    pub(super) fn next(&mut self) -> Option<Row> {
        if let Some(next) = self.read_ahead.pop_front() {
            return Some(next);
        }
        let is_plan = self.is_plan();
        loop {
            let next = self.reader.next().map(|raw| self.columns.row(raw));
            self.drained = self.ended && next.is_none();
            // The first line of a plan, the last one and its rejects are nothing that is done.
            match &next {
                Some(row) if is_plan && Replay::passes_over(row.cells.get(0).unwrap_or_default()) => {}
                _ => return next,
            }
        }
    }
}

/// Renews the lease while something goes on that does not do so itself. When the lease is over, the work stands still that very moment, as
/// another process may take it up, and is dropped unless the lease can be had again.
pub(crate) async fn held<T>(
    runs: &Runs,
    lease: &Lease,
    clock: &dyn Clock,
    deadline: Deadline,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        let left = Duration::try_from(lease.held_until.get().duration_since(clock.now())).unwrap_or_default();
        if !left.is_zero() {
            let tick = clock.sleep(RENEW_AFTER.min(left / 2).max(RENEW_AGAIN).min(left));
            if let Either::Right((done, _)) = futures_util::future::select(tick, work.as_mut()).await {
                return done;
            }
        }
        match runs.renew(lease, deadline).await {
            Err(error) if !is_passing(&error) => return Err(error),
            _ if clock.now() >= lease.held_until.get() => return Err(lost(lease)),
            _ => {}
        }
    }
}

/// The calls that this process has made to the account.
pub(crate) fn calls_of(account: &Account) -> Calls {
    let counts = account.counts();
    Calls { total: counts.total, retried: counts.retried, throttled: counts.throttled, search: counts.search }
}

/// One of a row's records, as configured.
pub(super) struct RecordSpec<'a> {
    pub(super) object: ObjectType,
    pub(super) key: Option<String>,
    pub(super) columns: Option<&'a BTreeMap<String, crate::config::ColumnRule>>,
}

/// The records that a row of this import holds.
pub(super) fn record_specs(import: &Import) -> Result<Vec<RecordSpec<'_>>> {
    if !import.records.is_empty() {
        return Ok(import
            .records
            .iter()
            .map(|record| RecordSpec {
                object: record.object.clone(),
                key: Some(record.key.clone()),
                columns: Some(&record.columns),
            })
            .collect());
    }
    match &import.object {
        Some(object) => {
            Ok(vec![RecordSpec { object: object.clone(), key: import.key.clone(), columns: import.columns.as_ref() }])
        }
        None => Err(Error::invalid(codes::CONFIG_INVALID, format!("import `{}` names no object", import.name))),
    }
}

/// A column's or property's name without regard to case, spaces and underscores.
pub(super) fn normal(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace() && *c != '_').flat_map(char::to_lowercase).collect()
}

/// One error for all problems of a mapping. Its code is theirs where they agree.
fn mapping_error(problems: &[Problem]) -> Error {
    let first = problems.first().map_or(codes::MAPPING_INVALID, |problem| problem.code);
    let code = if problems.iter().all(|problem| problem.code == first) { first } else { codes::MAPPING_INVALID };
    let mut message = String::from("the mapping does not fit the file and the account; nothing was written");
    for problem in problems {
        message.push_str(&format!("\n- [{}] {}. {}", problem.code, problem.message, problem.hint));
    }
    Error::invalid(code, message)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        clock::VirtualClock,
        state::{
            admission::Admission,
            memory::MemoryTable,
            runs::{Leased, RunSource},
        },
    };

    #[tokio::test(start_paused = true)]
    async fn work_under_a_lease_is_dropped_the_moment_the_lease_is_over() {
        // GIVEN work under a lease that cannot be renewed any more
        let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
        let table = Rc::new(MemoryTable::new());
        let runs = Runs::new(table.clone(), clock.clone());
        let source = RunSource {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            version_id: None,
            etag: "e".to_owned(),
            size: 1,
            sequencer: None,
        };
        let Admission::Run(run) = runs.admit("import", "contacts", &source, "", "one", |_| false).await.unwrap() else {
            panic!("the first event leads to a run");
        };
        let Leased::Yes(lease, _) = runs.lease(&run.run_id, "us", Deadline::NONE).await.unwrap() else {
            panic!("nobody holds the lease");
        };
        clock.sleep(Duration::from_secs(5)).await;
        for _ in 0..100 {
            table.fail_next(ErrorKind::Unavailable { retry_after: None }, codes::STATE_UNAVAILABLE);
        }
        // WHEN it goes on
        let last = Cell::new(clock.now());
        let work = async {
            loop {
                clock.sleep(Duration::from_millis(70)).await;
                last.set(clock.now());
            }
        };
        let ended: Result<()> = held(&runs, &lease, &*clock, Deadline::NONE, work).await;
        // THEN it does so until the lease is over, and no longer
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(clock.now(), lease.held_until.get());
        assert!(last.get() < lease.held_until.get());
    }
}
