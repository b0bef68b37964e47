//! See it before, undo it after: a plan of an import, its application, and the undoing of a run.
//!
//! A plan is made by the import itself: the same reading, mapping, merging and batches, with a look at HubSpot in place of the write. Applying
//! it, and undoing a run, are runs like any other (lease, checkpoints, rejects, report), whose lines are records.
//!
//! | module | what |
//! |---|---|
//! | [`mod@format`] | a plan as a file |
//! | `planner` | what a batch would change |
//! | `scan` | a pass over the whole file: repeated keys |
//! | `preflight` | such a pass before the first write: `preflight: full` |
//! | `replay` | a plan at work: what is written is what is still as it was |
//! | `inverse` | before-images become the plan of an undo |
//! | [`values`] | when two values are the same to HubSpot |
//!
//! What may die where, and what is left then: `docs/decisions/0019-plan-apply-undo.md`.

pub mod format;
mod inverse;
mod planner;
mod preflight;
pub(super) mod replay;
mod scan;
pub mod values;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

pub(super) use self::{
    format::PlanMirror,
    planner::{Plan, Planned, outcome_of, reference},
    scan::{map_row, too_many},
};
use self::{
    format::{HEADER_BYTES_MAX, Of, PlanObject, PlanSource, VERSION},
    planner::calls_of,
    replay::Replay,
};
pub use self::{
    format::{Header, Line, PlanProperty, PlanRecord, Totals},
    planner::Sink,
    scan::Scan,
};
use super::{
    Spent,
    job::{Baseline, End, Job, Loaded, calls_of as calls_made},
    log::Log,
    progress::{File, Progress},
    records::Records,
    rows::{Columns, Reader},
    source::{Source, Step},
};
use crate::{
    app::{Answer, App},
    clock::{Deadline, run_id},
    codes,
    config::{Format, Import, Mode},
    csv::records::Start,
    error::{Error, ErrorKind, Result},
    event::SourceObject,
    hubspot::properties::SchemaParts,
    mapping::Detected,
    objects::{Location, ObjectVersion, Objects, memory::MemoryObjects},
    state::{
        admission::Admission,
        memory::MemoryTable,
        runs::{Leased, Run, RunSource, Runs},
    },
};

/// Bytes of a plan's end in which its last line is looked for.
const TAIL_BYTES: u64 = 1024 * 1024;

/// What a person should know who applied a plan of mode `mirror`.
const MIRROR_NOTE: &str = "after a plan was applied the import begins to remember anew: its next file is sent whole, and archives nothing that only this file held";

/// As a run's settings: its source is a plan.
pub(super) const PLAN_SETTINGS: &str = "plan";

/// The job that undoes a run.
pub(super) const UNDO: &str = "undo";

/// Whether a run's lines are those of a plan.
pub(super) fn replays(run: &Run) -> bool {
    run.job == UNDO || run.settings == PLAN_SETTINGS
}

/// Makes the plan of importing an object as `import`: its lines go to `sink`, the first and the last one too. Writes nothing, but for the
/// account's shared limit in the table.
///
/// Errors: those of an import whose mapping does not fit; `PLAN_UNSUPPORTED` for change records, and for a file whose keys come up again
/// too often; `Unavailable` if it was stopped.
pub async fn plan(app: &App, import: &Import, source: &SourceObject, sink: Sink) -> Result<Totals> {
    if import.format == Format::Opencdc {
        let message = format!("import `{}` takes change records, which say themselves what they do", import.name);
        return Err(Error::invalid(codes::PLAN_UNSUPPORTED, message)
            .with_hint("Import into a sandbox account to see what they do."));
    }
    make(app, &Rc::new(import.clone()), source, None, sink).await
}

/// Makes the plan of undoing a run: what `undo` would do now.
///
/// Errors: those of [`undo`].
pub async fn plan_undo(app: &App, run_id: &str, keep_created: bool, sink: Sink) -> Result<Totals> {
    let (source, _) = undo_source(app, run_id, keep_created).await?;
    let object = head(app, &source).await?;
    let header = Rc::new(header(&*app.env().objects, &object).await?);
    let import = Rc::new(stand_in(&header.import, &header.account)?);
    make(app, &import, &source, Some(header), sink).await
}

async fn make(
    app: &App,
    import: &Rc<Import>,
    source: &SourceObject,
    replay: Option<Rc<Header>>,
    sink: Sink,
) -> Result<Totals> {
    let env = app.env().clone();
    let spent = Spent::so_far(app);
    let object = head(app, source).await?;
    let source = RunSource {
        bucket: source.bucket.clone(),
        key: source.key.clone(),
        version_id: object.version_id.clone(),
        etag: object.etag.clone(),
        size: object.size,
        sequencer: None,
    };
    // A run that nobody else sees: its state goes with this process.
    let runs = Rc::new(Runs::new(Rc::new(MemoryTable::new()), env.clock.clone()));
    let id = run_id(env.clock.now(), &env.rng);
    let admitted = runs.admit("import", &import.name, &source, PLAN_SETTINGS, &id, |_| true).await?;
    let unseen = || Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "a plan's own run cannot be taken up");
    if !matches!(admitted, Admission::Run(_)) {
        return Err(unseen());
    }
    let Leased::Yes(lease, run) = runs.lease(&id, "plan", Deadline::NONE).await? else { return Err(unseen()) };
    let account = app.account(&import.hubspot)?;
    let plan = Rc::new(Plan::new(sink));
    let scratch: Rc<dyn Objects> = Rc::new(MemoryObjects::new());
    let folder = Location::new(&source.bucket, format!("state/import/{}/{id}/", import.name));
    let calls_before = calls_made(&account);
    let mut job = Job {
        rejects: Log::open(scratch, folder, "rejects", lease.fence, Progress::default().rejects).await?,
        env: env.clone(),
        runs,
        account: account.clone(),
        import: import.clone(),
        lease,
        object,
        started_at: run.started_at,
        deadline: Deadline::NONE,
        progress: Progress::default(),
        ignored_columns: Vec::new(),
        delivered: None,
        plan: Some(plan.clone()),
        replay,
        baseline: Baseline {
            calls: calls_before,
            table_writes: spent.table_writes,
            object_requests: spent.object_requests,
            earlier: Default::default(),
            earlier_gb_seconds: 0.0,
            began: spent.elapsed,
        },
    };
    match Box::pin(job.work()).await? {
        End::Complete | End::NotMirrored(_) | End::Aborted => {}
        End::Deadline | End::OlderGoesOn => {
            let message = "stopped before the plan was whole";
            return Err(Error::new(ErrorKind::Unavailable { retry_after: None }, codes::PLAN_INVALID, message));
        }
        End::Failed(error) | End::Invalid(error) => return Err(error),
    }
    if let Some(error) = plan.take_failure() {
        return Err(error);
    }
    let mut totals = plan.totals.borrow().clone();
    let rows = job.progress.rows;
    totals.rows = rows.read;
    totals.merged = rows.merged;
    totals.rejected = rows.rejected;
    totals.rejected_by_code.clone_from(&job.progress.rejected_by_code);
    totals.ignored_columns.clone_from(&job.ignored_columns);
    totals.notes.clone_from(&job.progress.notes);
    totals.calls = calls_of(&totals) + plan.properties.borrow().len() as u64;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    {
        totals.seconds = (totals.calls as f64 / account.ceiling_per_second()).ceil() as u64;
    }
    totals.planning_calls = (calls_made(&account) - calls_before).total;
    if rows.read == 0 && job.progress.file.is_none() {
        // A file without a row has no header either.
        let header = job.blank_header().await?;
        plan.line(&Line::Plan(Box::new(header)));
    }
    plan.line(&Line::Totals(Box::new(totals.clone())));
    plan.take_failure().map_or(Ok(totals), Err)
}

/// Carries out a plan, exactly. `source` is the plan's file.
///
/// Errors: `PLAN_INVALID` if it is none. What does not fit the account is an outcome, `invalid`.
pub async fn apply(app: &App, source: &SourceObject, deadline: Deadline, owner: &str) -> Result<Answer> {
    let object = head(app, source).await?;
    let header = header(&*app.env().objects, &object).await?;
    let import = Rc::new(stand_in(&header.import, &header.account)?);
    super::admitted(app, import, source, "import", PLAN_SETTINGS, deadline, owner).await
}

/// Puts back what a run changed, as far as nobody else has changed it since, and archives what it made unless it was edited since or
/// `keep_created` is set.
///
/// Errors: `NAME_UNKNOWN` if there is no such run, `RUN_OPEN`, `NO_BEFORE_IMAGES`.
pub async fn undo(app: &App, run_id: &str, keep_created: bool, deadline: Deadline, owner: &str) -> Result<Answer> {
    let (source, account) = undo_source(app, run_id, keep_created).await?;
    let run = run_of(app, run_id).await?;
    let import = Rc::new(stand_in(&run.name, &account)?);
    super::admitted(app, import, &source, UNDO, PLAN_SETTINGS, deadline, owner).await
}

async fn run_of(app: &App, run_id: &str) -> Result<Run> {
    let run = app.runs().get(run_id).await?.filter(|run| run.job == "import" || run.job == UNDO);
    run.ok_or_else(|| {
        let message = format!("there is no run {run_id} of an import");
        Error::new(ErrorKind::NotFound, codes::NAME_UNKNOWN, message).with_hint(
            "Check the id; `hubferry status` shows the last run of each import. Runs are remembered for 90 days.",
        )
    })
}

/// The file of an undo, and the account's name.
async fn undo_source(app: &App, run_id: &str, keep_created: bool) -> Result<(SourceObject, String)> {
    let run = run_of(app, run_id).await?;
    let account = match run.report.as_ref().map(|report| report.account.clone()).filter(|name| !name.is_empty()) {
        Some(account) => account,
        None => {
            let import = app.config().imports.iter().find(|import| import.name == run.name);
            import.map_or_else(|| "default".to_owned(), |import| import.hubspot.clone())
        }
    };
    let file = inverse::plan_of(app, &run, &account, keep_created).await?;
    let source = SourceObject {
        bucket: file.bucket,
        key: file.key,
        version_id: None,
        etag: None,
        size: None,
        sequencer: None,
        event_time: None,
    };
    Ok((source, account))
}

async fn head(app: &App, source: &SourceObject) -> Result<ObjectVersion> {
    let location = Location::new(&source.bucket, &source.key);
    let head = app.env().objects.head(&location, source.version_id.as_deref()).await;
    head.map_err(|error| error.context(format!("reading {location}")))
}

/// The first line of a plan. `PLAN_INVALID` if it is none.
pub(super) async fn header(objects: &dyn Objects, object: &ObjectVersion) -> Result<Header> {
    let invalid = |what: &str| Error::invalid(codes::PLAN_INVALID, format!("{}: {what}", object.location));
    if object.size == 0 {
        return Err(invalid("the file is empty"));
    }
    let end = object.size.min(HEADER_BYTES_MAX as u64);
    let bytes = objects.read(object, 0..end).await?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = std::str::from_utf8(line).map_err(|_| invalid("the file is no plan"))?;
    let line = Line::parse(text.trim_start_matches('\u{feff}'))
        .map_err(|error| error.context(format!("{}: line 1", object.location)))?;
    match line {
        Line::Plan(header) if header.version == VERSION => Ok(*header),
        Line::Plan(header) => {
            Err(invalid(&format!("it is of version {}; this hubferry reads {VERSION}", header.version)))
        }
        _ => Err(invalid("the first line is not that of a plan")),
    }
}

/// The import that a plan's run is of, as far as it matters for it.
pub(super) fn stand_in(name: &str, account: &str) -> Result<Import> {
    let settings = serde_json::json!({
        "name": name, "match": "none", "hubspot": account, "before_images": true, "abort_if_rejected": u64::MAX,
    });
    serde_json::from_value(settings).map_err(|error| {
        Error::invalid(codes::PLAN_INVALID, "the plan's first line names no import and account").with_source(error)
    })
}

/// A setting's word.
fn word(setting: &impl serde::Serialize) -> Option<String> {
    serde_json::to_value(setting).ok().and_then(|word| word.as_str().map(str::to_owned))
}

impl Job {
    /// The plan's first line.
    pub(super) async fn plan_header(&self, loaded: &Loaded) -> Result<Header> {
        let mut header = self.blank_header().await?;
        if let Some(replay) = &self.replay {
            header.records.clone_from(&replay.records);
            return Ok(header);
        }
        for lane in &loaded.lanes {
            header.records.push(PlanObject {
                object: lane.object.clone(),
                key: lane.delivery.key.to_string(),
                key_property: lane.delivery.key_property.as_ref().map(ToString::to_string),
            });
        }
        if !loaded.links.is_empty() {
            header.notes.push(
                "associations are planned without a look at those that are there: making one twice changes nothing"
                    .to_owned(),
            );
        }
        Ok(header)
    }

    async fn blank_header(&self) -> Result<Header> {
        let portal_id = self.account.details(self.calls_until()).await?.portal_id;
        let undone = self.replay.as_ref();
        let mode = word(&self.import.mode);
        let file = self.progress.file.as_ref();
        Ok(Header {
            version: VERSION,
            of: undone.map_or(Of::Import, |header| header.of),
            import: self.import.name.clone(),
            account: self.import.hubspot.clone(),
            portal_id,
            mode: mode.filter(|_| undone.is_none()),
            source: match undone {
                Some(header) => header.source.clone(),
                None => PlanSource {
                    uri: self.object.location.to_string(),
                    etag: self.object.etag.clone(),
                    bytes: self.object.size,
                    run_id: None,
                    dialect: file
                        .and_then(|file| file.dialect.as_ref())
                        .and_then(|dialect| serde_json::to_value(dialect).ok()),
                    compression: file.and_then(|file| word(&file.compression)),
                },
            },
            made_at: Some(self.env.clock.now()),
            records: Vec::new(),
            create_properties: self.plan.as_ref().map(|plan| plan.properties.borrow().clone()).unwrap_or_default(),
            until: undone.and_then(|header| header.until),
            notes: undone.map(|header| header.notes.clone()).unwrap_or_default(),
        })
    }

    /// The start of a plan, checked against the account; what it needs is made. `None` if there is nothing in it.
    pub(super) async fn load_replay(&mut self, source: &mut Source) -> Result<Option<Loaded>> {
        let Some(header) = self.replay.clone() else { return Ok(None) };
        let until = self.calls_until();
        let is_first = self.progress.file.is_none();
        if is_first {
            self.is_whole().await?;
        }
        let portal_id = self.account.details(until).await?.portal_id;
        if portal_id != header.portal_id {
            let message = format!(
                "the plan is of portal {}, and account `{}` is portal {portal_id}; nothing was written",
                header.portal_id, header.account
            );
            return Err(Error::invalid(codes::PLAN_INVALID, message));
        }
        if self.plan.is_none() {
            self.make_properties(&header).await?;
            if header.mode.as_deref() == word(&Mode::Mirror).as_deref() {
                // A plan holds no rows, so that what it delivers cannot be compared with the next file's.
                self.note(MIRROR_NOTE.to_owned());
            }
        }
        let start = match is_first {
            true => Start::default(),
            false => Start { byte: self.progress.position.byte, line: self.progress.position.line + 1 },
        };
        let reader = Reader::lines(start);
        if is_first {
            // How it is compressed is known after the first bytes; plans that hubferry writes are not.
            let mut bytes = Vec::new();
            let mut reader = reader;
            let mut ended = false;
            while bytes.is_empty() && !ended {
                match source.step(&mut bytes)? {
                    Step::Bytes => {}
                    Step::Wait => source.fetched().await?,
                    Step::End => ended = true,
                }
            }
            reader.feed(&bytes);
            if ended {
                reader.finish();
            }
            let compression = source.compression();
            self.progress.file =
                Some(File { compression, dialect: None, columns: Vec::new(), detected: Detected::default() });
            return Ok(Some(self.loaded_replay(header, reader, ended)));
        }
        Ok(Some(self.loaded_replay(header, reader, false)))
    }

    fn loaded_replay(&self, header: Rc<Header>, reader: Reader, ended: bool) -> Loaded {
        let replay = Replay {
            account: self.account.clone(),
            objects: self.env.objects.clone(),
            header,
            folder: self.state_folder(),
            started_at: self.started_at,
            again: self.lease.invocations > 1,
            dry: self.plan.is_some(),
            entries: RefCell::default(),
            labels: RefCell::new(BTreeMap::new()),
        };
        Loaded {
            reader,
            read_ahead: Default::default(),
            lanes: Vec::new(),
            records: Some(Records::of_plan(Rc::new(replay))),
            links: Vec::new(),
            columns: Columns::json(&[]),
            ended,
            drained: false,
        }
    }

    /// A plan that was cut off says so by lacking its last line.
    async fn is_whole(&self) -> Result<()> {
        let size = self.object.size;
        let bytes = self.env.objects.read(&self.object, size.saturating_sub(TAIL_BYTES)..size).await?;
        let last = bytes.split(|byte| *byte == b'\n').rev().find(|line| !line.iter().all(u8::is_ascii_whitespace));
        let last = last.and_then(|line| std::str::from_utf8(line).ok()).map(Line::parse);
        match last {
            Some(Ok(Line::Totals(_))) => Ok(()),
            _ => {
                let message = "the plan's last line, its totals, is missing: it was cut off; nothing was written";
                Err(Error::invalid(codes::PLAN_INVALID, message))
            }
        }
    }

    /// Makes the properties that a plan needs.
    async fn make_properties(&mut self, header: &Header) -> Result<()> {
        for planned in &header.create_properties {
            let until = self.calls_until();
            let schema = self.account.schema(&planned.object, SchemaParts::default(), until).await?;
            let new = &planned.property;
            if schema.properties.contains_key(&new.name) {
                continue;
            }
            match planned.key() {
                Some(key) => {
                    self.account.ensure_key_property(&planned.object, key, true, until).await?;
                }
                None => drop(self.account.create_property(&planned.object, new, until).await?),
            }
            self.note(format!("created the property `{}` ({}) of {}", new.name, new.kind, planned.object));
        }
        Ok(())
    }
}
