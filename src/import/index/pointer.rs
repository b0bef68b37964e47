//! Which index is the current one, and who may rely on it.
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `index#<import>` | `current` | `version` (grows with each change), `author` of the last change, `state`: the index, the runs that are writing, who relies on it |
//!
//! Every run that writes is on the list of writers from before its first write until its end. Only a run that was alone on it all the time
//! knows what HubSpot has; only an index since which nobody else has written says what HubSpot has.

use std::{collections::BTreeMap, rc::Rc};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    ENTRY_BYTES, Fingerprint, HELD_ROWS_MAX, Index, Logged, NEVER, SEEN, decode,
    format::{Reader, Writer, is_lost},
    logged,
    merge::{Merged, SORT_ENTRIES_MAX, Sink, merge},
    pair,
};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
    import::log::Log,
    objects::{Location, Objects},
    state::{
        Changed, Condition, Key, Table, Update, Value,
        runs::{Runs, SWEEP_MAX, decode as decode_state},
    },
};

/// How often a change is tried again because another run changed the item in between.
const ATTEMPTS_MAX: usize = 8;

/// Most runs of one import that may write at once: their ids must fit into the item many times over.
const WRITERS_MAX: usize = 200;

/// Most missing keys that are held: 16 MB. A mirror that would archive more is stopped.
pub const MISSING_MAX: usize = 2_000_000;

/// As `trusted`: nobody has written since the index was published.
const ANYBODY: &str = "anybody";

/// The pointer's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    index: Option<Described>,
    /// Runs that may write, with the fence of their last invocation.
    writers: BTreeMap<String, i64>,
    /// The run that was alone among the writers since it began; empty if there is none.
    sole: String,
    /// Who may take the index's rows for what HubSpot has: [`ANYBODY`], a run, or nobody (empty).
    trusted: String,
}

/// An index object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Described {
    bucket: String,
    key: String,
    rows: u64,
    target: String,
    settings: String,
    /// Who published it.
    run_id: String,
    /// Whether that run had delivered its whole file.
    complete: bool,
}

impl Described {
    fn location(&self) -> Location {
        Location::new(&self.bucket, &self.key)
    }
}

/// A run's place among the writers, for one invocation. Fenced: a later invocation's claim ends this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    run_id: String,
    fence: i64,
    trusted: bool,
    tracked: bool,
    /// An earlier invocation has published the run's index: the file is delivered, and nothing is left to be written.
    published: bool,
    /// Nothing is written: the run is on no list, and nobody learns of it.
    looks: bool,
    index: Option<Described>,
}

impl Claim {
    /// Whether rows equal to the index's may be left out: nobody else has written since it was published.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }
}

/// How a run ended, as far as the index is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every row has its verdict and is in the log; in mode `mirror`, what was missing is archived.
    Delivered,
    /// Every row has its verdict, but what was missing was left alone (the brake): it stays known, for the next run.
    NotArchived,
    /// The run stopped in between. What it may have written is not known; the keys are kept, for mode `mirror`.
    CutShort,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Keys in the index; 0 if there is none now.
    pub rows: u64,
    /// Whether the next run can leave out rows by it.
    pub skips: bool,
    /// For the report, where something was lost.
    pub note: Option<String>,
}

/// What the last file had and this one lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Records known from earlier files: what the brake's share is taken of.
    pub known: u64,
    /// How many of them are missing in this file.
    pub count: u64,
    /// Rows of this file whose key cannot be told: any of them may be one of the missing.
    pub unreadable: u64,
    /// Whether the comparison is whole: there was an index, it could be read, and no limit was passed.
    pub compared: bool,
    /// For the report, where it is not.
    pub note: Option<String>,
    /// Hashes of the missing keys, ascending.
    keys: Vec<u64>,
}

impl Missing {
    /// Whether archiving by it is safe. If not, nothing may be archived.
    pub fn is_certain(&self) -> bool {
        self.compared && self.unreadable == 0 && self.keys.len() as u64 == self.count
    }

    /// Whether the key with this hash ([`super::Hasher::key`]) is missing.
    pub fn contains(&self, key: u64) -> bool {
        self.keys.binary_search(&key).is_ok()
    }

    /// Hashes of the missing keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.keys.iter().copied()
    }
}

/// Keeps the index of one import.
pub struct Keeper {
    objects: Rc<dyn Objects>,
    table: Rc<dyn Table>,
    runs: Rc<Runs>,
    import: String,
    bucket: String,
    fingerprint: Fingerprint,
    /// Most entries of the log in memory; smaller in tests.
    pub(super) entries_max: usize,
    /// Most rows of the last file in memory; smaller in tests.
    pub(super) held_max: usize,
}

impl Keeper {
    /// For the import `import`; a new index is written to `bucket`.
    pub fn new(
        objects: Rc<dyn Objects>,
        table: Rc<dyn Table>,
        runs: Rc<Runs>,
        import: &str,
        bucket: &str,
        fingerprint: Fingerprint,
    ) -> Self {
        Self {
            objects,
            table,
            runs,
            import: import.to_owned(),
            bucket: bucket.to_owned(),
            fingerprint,
            entries_max: SORT_ENTRIES_MAX,
            held_max: HELD_ROWS_MAX,
        }
    }

    /// Enters the run among the writers. Once per invocation, before the first write; `fence` is the lease's. `fresh` says that nothing
    /// of this run was ever checkpointed.
    ///
    /// `Fenced` if a later invocation was here; `Unavailable` if too many runs write at once, or the table is in use.
    pub async fn begin(&self, run_id: &str, fence: i64, fresh: bool) -> Result<Claim> {
        let claim = self.enter(run_id, fence, fresh, true).await?;
        claim.ok_or_else(|| self.busy("the item cannot be made"))
    }

    /// The same for a run of an import that does not use the index. `None` if there never was one: nothing is to be done then.
    pub async fn begin_untracked(&self, run_id: &str, fence: i64) -> Result<Option<Claim>> {
        self.enter(run_id, fence, false, false).await
    }

    /// What a run that began now could rely on. For a plan: it writes nothing, so that the claim is only good for [`Self::load`] and
    /// [`Self::missing`].
    pub async fn look(&self) -> Result<Claim> {
        let (_, mut state) = self.read().await?;
        self.prune(&mut state).await?;
        let index = state.index.filter(|index| index.target == self.fingerprint.target);
        let settled = index.as_ref().is_some_and(|index| index.settings == self.fingerprint.settings);
        let trusted = state.writers.is_empty() && state.trusted == ANYBODY && settled;
        Ok(Claim { run_id: String::new(), fence: 0, trusted, tracked: true, published: false, looks: true, index })
    }

    async fn enter(&self, run_id: &str, fence: i64, fresh: bool, tracked: bool) -> Result<Option<Claim>> {
        let token = self.token(run_id);
        for _ in 0..ATTEMPTS_MAX {
            let (version, mut state) = self.read().await?;
            if version.is_none() {
                if !tracked {
                    return Ok(None);
                }
                // Runs that began while the import did not use an index are not on the list.
                state.writers = self.other_open_runs(run_id).await?;
            }
            if !state.writers.contains_key(run_id)
                && let Some(index) = state.index.as_ref().filter(|index| index.run_id == run_id && index.complete)
            {
                let index = Some(index.clone());
                let run_id = run_id.to_owned();
                return Ok(Some(Claim {
                    run_id,
                    fence,
                    trusted: false,
                    tracked,
                    published: true,
                    looks: false,
                    index,
                }));
            }
            match state.writers.get(run_id) {
                Some(known) if *known > fence => return Err(self.fenced(run_id)),
                Some(_) if state.sole == token => {}
                // Not alone, or continued with other settings: what was sent before is not what would be sent now.
                Some(_) => {
                    state.sole.clear();
                    state.trusted.clear();
                }
                None => {
                    self.prune(&mut state).await?;
                    if state.writers.len() >= WRITERS_MAX {
                        return Err(self.busy("too many runs of it write at once"));
                    }
                    // A run that wrote before, and is not on the list any more, cannot know who wrote meanwhile.
                    let alone = state.writers.is_empty() && fresh;
                    let trusted = alone && state.trusted == ANYBODY;
                    state.sole = if alone { token.clone() } else { String::new() };
                    state.trusted = if trusted { token.clone() } else { String::new() };
                }
            }
            if !tracked {
                state.sole.clear();
                state.trusted.clear();
            }
            state.writers.insert(run_id.to_owned(), fence);
            if self.swap(version, &state, run_id, fence).await? {
                let index = state.index.filter(|index| index.target == self.fingerprint.target);
                let settled = index.as_ref().is_some_and(|index| index.settings == self.fingerprint.settings);
                let trusted = state.trusted == token && settled;
                let run_id = run_id.to_owned();
                return Ok(Some(Claim { run_id, fence, trusted, tracked, published: false, looks: false, index }));
            }
        }
        Err(self.busy("other runs keep changing it"))
    }

    /// The last file, as far as this run may rely on it, with what the run's log says was sent already.
    ///
    /// An index that is lost or damaged is an absent one, with a note; errors are those that another attempt may not meet.
    pub async fn load(&self, claim: &Claim, log: &Log) -> Result<Index> {
        let Some(described) = claim.index.as_ref().filter(|_| !claim.published) else { return Ok(Index::absent(None)) };
        if !claim.trusted {
            let note = "the delivered index does not say what HubSpot has now (another run wrote since, or the settings changed): \
                        every row was sent";
            return Ok(Index::absent(Some(note.to_owned())));
        }
        let (rows, whole) = match self.held_rows(described).await {
            Ok(held) => held,
            Err(error) if is_lost(&error) => {
                tracing::warn!(error = %error, "the delivered index is lost");
                let note = format!("the delivered index could not be used, every row was sent: {error}");
                return Ok(Index::absent(Some(note)));
            }
            Err(error) => return Err(error),
        };
        let note = (!whole).then(|| {
            format!(
                "the last file has {} keys, of which {} are compared; rows with other keys were sent",
                described.rows, self.held_max
            )
        });
        let mut index = Index::new(rows, note);
        log.for_each_chunk(async |chunk| {
            let (entries, _) = chunk.as_chunks::<ENTRY_BYTES>();
            for entry in entries {
                let (key, row) = decode(*entry);
                if let Logged::Row { key, sent: true, .. } = logged(key, row) {
                    index.note_sent(key);
                }
            }
            Ok(())
        })
        .await?;
        Ok(index)
    }

    async fn held_rows(&self, described: &Described) -> Result<(Vec<u64>, bool)> {
        let mut reader = Reader::open(&*self.objects, &described.location(), described.rows).await?;
        let capacity = usize::try_from(described.rows).unwrap_or(usize::MAX).min(self.held_max);
        let mut rows = Vec::with_capacity(capacity);
        while let Some((key, row)) = reader.peek().await? {
            if rows.len() >= self.held_max {
                return Ok((rows, false));
            }
            reader.advance();
            if row != NEVER {
                rows.push(pair(key, row));
            }
        }
        Ok((rows, true))
    }

    /// What the last file had and this one lacks. For a run all of whose rows are in the log; drop the [`Index`] before.
    ///
    /// `limit` is what the brake allows: of more, the count is told and not the keys. At most [`MISSING_MAX`] keys are held.
    pub async fn missing(&self, claim: &Claim, log: &Log, limit: usize) -> Result<Missing> {
        if claim.published {
            let known = claim.index.as_ref().map_or(0, |index| index.rows);
            return Ok(Missing { known, compared: true, ..Missing::default() });
        }
        let (_, state) = self.read().await?;
        self.check(&state, claim)?;
        let Some(described) = state.index.filter(|index| index.target == self.fingerprint.target) else {
            let note = "there is no index of the last file: nothing was archived".to_owned();
            return Ok(Missing { note: Some(note), ..Missing::default() });
        };
        let known = described.rows;
        let mut sink = Absentees { limit: limit.min(MISSING_MAX), count: 0, keys: Vec::new() };
        let merged = match Reader::open(&*self.objects, &described.location(), described.rows).await {
            Ok(reader) => merge(Some(reader), log, self.entries_max, &mut sink).await,
            Err(error) => Err(error),
        };
        match merged {
            Ok(Some(Merged { unreadable })) => {
                let note = (unreadable > 0).then(|| {
                    format!(
                        "{unreadable} rows have no readable key and may be any of the records that seem to be missing"
                    )
                });
                Ok(Missing { known, count: sink.count, unreadable, compared: true, note, keys: sink.keys })
            }
            Ok(None) => {
                let note =
                    "the file has too many keys to be compared with the last one: nothing was archived".to_owned();
                Ok(Missing { known, note: Some(note), ..Missing::default() })
            }
            // The log is ours and must be there; only the index may be lost.
            Err(error) if is_lost(&error) && self.is_unreadable(&described).await? => {
                tracing::warn!(error = %error, "the delivered index is lost");
                let note = format!("the index of the last file could not be used, nothing was archived: {error}");
                Ok(Missing { known, note: Some(note), ..Missing::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the run's log the new index, and takes the run off the list of writers. Repeating it changes nothing. The checkpoint must
    /// cover all rows before, unless the run was cut short, and the lease must be known to be ours.
    ///
    /// Where the run was not alone, or was cut short, the new index knows keys only: those of the last one and those that were delivered.
    /// Drop the [`Index`] before. `Fenced` if a later invocation of the run was here.
    pub async fn publish(&self, claim: &Claim, log: &Log, ending: Ending) -> Result<Published> {
        for attempt in 0..ATTEMPTS_MAX {
            let (version, mut state) = self.read().await?;
            if !state.writers.contains_key(&claim.run_id)
                && let Some(index) = state.index.as_ref().filter(|index| index.run_id == claim.run_id)
            {
                return Ok(Published { rows: index.rows, skips: state.trusted == ANYBODY, note: None });
            }
            self.check(&state, claim)?;
            let knows_rows = claim.tracked && ending != Ending::CutShort && state.sole == self.token(&claim.run_id);
            let keeps_missing = !knows_rows || ending == Ending::NotArchived;
            let base = state.index.clone().filter(|index| index.target == self.fingerprint.target);
            let name = format!("{}-{}-{attempt}", claim.run_id, claim.fence);
            let location = Location::new(&self.bucket, format!("state/import/{}/index/{name}", self.import));
            let (rows, note) = match self.write(base.as_ref(), log, &location, knows_rows, keeps_missing).await {
                Ok(rows) => (rows, None),
                Err(error) if is_lost(&error) && self.is_lost(base.as_ref()).await? => {
                    tracing::warn!(error = %error, "the delivered index is lost");
                    let rows = self.write(None, log, &location, knows_rows, keeps_missing).await?;
                    (
                        rows,
                        Some(format!("the index of the last file was lost; the new one holds this file only: {error}")),
                    )
                }
                Err(error) => return Err(error),
            };
            let old = state.index.take();
            state.index = rows.map(|rows| Described {
                bucket: location.bucket.clone(),
                key: location.key.clone(),
                rows,
                target: self.fingerprint.target.clone(),
                settings: self.fingerprint.settings.clone(),
                run_id: claim.run_id.clone(),
                complete: ending != Ending::CutShort,
            });
            state.writers.remove(&claim.run_id);
            state.sole.clear();
            let skips = knows_rows && rows.is_some();
            state.trusted = if skips { ANYBODY.to_owned() } else { String::new() };
            let published = self.swap(version, &state, &claim.run_id, claim.fence).await?;
            // What nothing points to any more; should this fail, it only takes up room.
            let unused = if published { old.map(|old| old.location()) } else { Some(location.clone()) };
            if let Some(unused) = unused.filter(|unused| !published || *unused != location)
                && let Err(error) = self.objects.delete(&unused).await
            {
                tracing::warn!(error = %error, "an index that is not used any more could not be removed");
            }
            if published {
                let note = match rows {
                    None => Some(
                        "the file has too many keys for a delivered index: the next run sends every row".to_owned(),
                    ),
                    Some(_) => note,
                };
                return Ok(Published { rows: rows.unwrap_or(0), skips, note });
            }
        }
        Err(self.busy("other runs keep changing it"))
    }

    async fn write(
        &self,
        base: Option<&Described>,
        log: &Log,
        location: &Location,
        knows_rows: bool,
        keeps_missing: bool,
    ) -> Result<Option<u64>> {
        let reader = match base {
            Some(base) => Some(Reader::open(&*self.objects, &base.location(), base.rows).await?),
            None => None,
        };
        let writer = Writer::create(&*self.objects, location).await?;
        let mut sink = NewIndex { writer, knows_rows, keeps_missing };
        match merge(reader, log, self.entries_max, &mut sink).await? {
            Some(_) => Ok(Some(sink.writer.finish().await?)),
            None => Ok(None),
        }
    }

    /// Takes the run off the list of writers without a new index. `wrote` says whether it may have written anything; if not, the
    /// index is as good as before.
    pub async fn release(&self, claim: &Claim, wrote: bool) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let (version, mut state) = self.read().await?;
            if !state.writers.contains_key(&claim.run_id) {
                return Ok(());
            }
            self.check(&state, claim)?;
            let token = self.token(&claim.run_id);
            state.writers.remove(&claim.run_id);
            if state.trusted == token {
                state.trusted = if wrote { String::new() } else { ANYBODY.to_owned() };
            }
            if state.sole == token {
                state.sole.clear();
            }
            if self.swap(version, &state, &claim.run_id, claim.fence).await? {
                return Ok(());
            }
        }
        Err(self.busy("other runs keep changing it"))
    }

    /// Something other than a run of the import is about to write its records (an undo, a plan that is applied): no row counts as
    /// unchanged until a whole file has been delivered again. To be called before the first and after the last of these writes;
    /// `author` says in the item what did it.
    pub async fn distrust(&self, author: &str) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let (version, mut state) = self.read().await?;
            if version.is_none() {
                return Ok(());
            }
            state.sole.clear();
            state.trusted.clear();
            if self.swap(version, &state, author, 0).await? {
                return Ok(());
            }
        }
        Err(self.busy("other runs keep changing it"))
    }

    /// Takes keys out of the index, as if they had never been delivered: for who is to be forgotten. `keys` gives the folded keys of a record of this
    /// object type by this key property. How many entries there are; with `look` they stay.
    ///
    /// `Unavailable` while a run of the import writes; `Corrupt` or `NotFound` if the index is lost, which nobody relies on then.
    pub async fn forget(&self, keys: impl Fn(&str, &str) -> Vec<String>, look: bool) -> Result<u64> {
        for _ in 0..ATTEMPTS_MAX {
            let (version, mut state) = self.read().await?;
            let Some(described) = state.index.clone() else { return Ok(0) };
            let hasher = super::Hasher::new(&Fingerprint { target: described.target.clone(), settings: String::new() });
            let lanes = described.target.split_once('/').map_or("", |(_, lanes)| lanes).split('+').enumerate();
            let gone: std::collections::BTreeSet<u64> = lanes
                .filter_map(|(lane, name)| Some((lane, name.split_once(':')?)))
                .flat_map(|(lane, (object, key))| keys(object, key).into_iter().map(move |key| hasher.key(lane, &key)))
                .collect();
            if gone.is_empty() {
                return Ok(0);
            }
            let mut reader = Reader::open(&*self.objects, &described.location(), described.rows).await?;
            let mut count = 0;
            while let Some((key, _)) = reader.peek().await? {
                count += u64::from(gone.contains(&key));
                reader.advance();
            }
            if count == 0 || look {
                return Ok(count);
            }
            self.prune(&mut state).await?;
            if !state.writers.is_empty() {
                return Err(self.busy("a run of it is at work"));
            }
            let name = format!("{}-erased-{}", described.run_id, version.unwrap_or(0));
            let location = Location::new(&described.bucket, format!("state/import/{}/index/{name}", self.import));
            let mut reader = Reader::open(&*self.objects, &described.location(), described.rows).await?;
            let mut writer = Writer::create(&*self.objects, &location).await?;
            while let Some((key, row)) = reader.peek().await? {
                if !gone.contains(&key) {
                    writer.push(key, row);
                    writer.flush().await?;
                }
                reader.advance();
            }
            let rows = writer.finish().await?;
            state.index = Some(Described { key: location.key.clone(), rows, ..described.clone() });
            let published = self.swap(version, &state, "erase", 0).await?;
            self.objects.delete(&if published { described.location() } else { location }).await?;
            if published {
                return Ok(count);
            }
        }
        Err(self.busy("other runs keep changing it"))
    }

    /// Whether the whole of an index cannot be read, for good.
    async fn is_unreadable(&self, described: &Described) -> Result<bool> {
        let read = async {
            let mut reader = Reader::open(&*self.objects, &described.location(), described.rows).await?;
            while reader.peek().await?.is_some() {
                reader.advance();
            }
            Ok(())
        };
        match read.await {
            Ok(()) => Ok(false),
            Err(error) if is_lost(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn is_lost(&self, base: Option<&Described>) -> Result<bool> {
        match base {
            Some(base) => self.is_unreadable(base).await,
            None => Ok(false),
        }
    }

    /// Open runs of this import, other than `run_id`; asked once in an import's life, when its index is first used.
    async fn other_open_runs(&self, run_id: &str) -> Result<BTreeMap<String, i64>> {
        let mut writers = BTreeMap::new();
        let open = self.runs.open_runs().await?;
        if open.len() >= SWEEP_MAX {
            return Err(self.busy("too many runs are open to know which of them write its records"));
        }
        for (id, _) in open.into_iter().filter(|(id, _)| id != run_id) {
            if let Some(run) = self.runs.get(&id).await?
                && run.outcome.is_none()
                && run.job == "import"
                && run.name == self.import
            {
                writers.insert(id, 0);
            }
        }
        Ok(writers)
    }

    /// Takes runs off the list that are over and did not say so.
    async fn prune(&self, state: &mut State) -> Result<()> {
        for id in state.writers.keys().cloned().collect::<Vec<_>>() {
            if self.runs.get(&id).await?.is_none_or(|run| run.outcome.is_some()) {
                state.writers.remove(&id);
            }
        }
        Ok(())
    }

    fn check(&self, state: &State, claim: &Claim) -> Result<()> {
        if claim.looks {
            return Ok(());
        }
        match state.writers.get(&claim.run_id) {
            Some(fence) if *fence == claim.fence => Ok(()),
            _ => Err(self.fenced(&claim.run_id)),
        }
    }

    fn token(&self, run_id: &str) -> String {
        let settings = xxh3_64(self.fingerprint.settings.as_bytes());
        let target = xxh3_64(self.fingerprint.target.as_bytes());
        format!("{run_id}/{target:016x}{settings:016x}")
    }

    fn key(&self) -> Key {
        Key::new(format!("index#{}", self.import), "current")
    }

    async fn read(&self) -> Result<(Option<i64>, State)> {
        let Some(item) = self.table.get(&self.key()).await? else { return Ok((None, State::default())) };
        match (item.get("version"), item.get("state")) {
            (Some(Value::N(version)), Some(Value::S(state))) => {
                Ok((Some(*version), decode_state(state, &format!("index#{}", self.import))?))
            }
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                codes::STATE_CORRUPT,
                format!("item index#{}: `version` or `state` cannot be read", self.import),
            )),
        }
    }

    /// Writes the state if it is still the one that was read; whether it was.
    async fn swap(&self, version: Option<i64>, state: &State, run_id: &str, fence: i64) -> Result<bool> {
        let text = serde_json::to_string(state).map_err(|error| {
            Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "state cannot be written as JSON").with_source(error)
        })?;
        let next = version.unwrap_or(0).saturating_add(1);
        let author = format!("{run_id}/{fence}");
        let update = Update {
            set: vec![("version", next.into()), ("author", author.as_str().into()), ("state", text.as_str().into())],
            condition: Some(match version {
                Some(version) => Condition::Equals("version", version.into()),
                None => Condition::Absent("pk"),
            }),
            ..Update::default()
        };
        Ok(match self.table.update(&self.key(), update).await? {
            Changed::Yes(_) => true,
            // The answer to our own first attempt was lost.
            Changed::No(Some(item)) => {
                item.get("version") == Some(&next.into())
                    && item.get("author") == Some(&author.into())
                    && item.get("state") == Some(&text.into())
            }
            Changed::No(None) => false,
        })
    }

    fn fenced(&self, run_id: &str) -> Error {
        let message = format!("index of `{}`: another invocation of run {run_id} has taken over", self.import);
        Error::new(ErrorKind::Fenced, codes::FENCED, message)
    }

    fn busy(&self, why: &str) -> Error {
        let message = format!("index of `{}`: {why}", self.import);
        Error::new(ErrorKind::Unavailable { retry_after: None }, codes::STATE_UNAVAILABLE, message)
    }
}

/// Collects what is missing.
struct Absentees {
    limit: usize,
    count: u64,
    keys: Vec<u64>,
}

impl Sink for Absentees {
    fn take(&mut self, key: u64, old: Option<u64>, new: Option<u64>) {
        if old.is_some() && new.is_none() {
            self.count += 1;
            if self.keys.len() < self.limit {
                self.keys.push(key);
            }
        }
    }

    async fn drain(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Writes the new index.
struct NewIndex {
    writer: Writer,
    knows_rows: bool,
    keeps_missing: bool,
}

impl Sink for NewIndex {
    fn take(&mut self, key: u64, old: Option<u64>, new: Option<u64>) {
        let row = match (old, new) {
            // Seen but not delivered: only what an earlier file delivered is this import's own.
            (None, Some(SEEN)) => return,
            (Some(_), Some(SEEN)) => NEVER,
            (_, Some(row)) => row,
            (Some(_), None) if self.keeps_missing => NEVER,
            (_, None) => return,
        };
        self.writer.push(key, if self.knows_rows { row } else { NEVER });
    }

    async fn drain(&mut self) -> Result<()> {
        self.writer.flush().await
    }
}
