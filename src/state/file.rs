//! State in a file beside the work: the command line's table when there is no DynamoDB.
//!
//! | file | holds |
//! |---|---|
//! | `<file>` | everything, as JSON, as it was when this file was written |
//! | `<file>.journal` | what has changed since, a line a change |
//! | `<file>.lock` | nothing: who holds its lock is alone among all processes, because the others are replaced |
//!
//! A change is one line behind the journal, so that its cost does not grow with the state. When the journal has grown as large as the file,
//! the file is written anew and takes its place by renaming; it has a number, and a journal of another number counts for nothing. So a
//! process may die at any byte: what it leaves is a file with its journal, of which the last line may not be whole, and is then left out.
//!
//! What was read is kept. Each call looks whether the file is the one that was read, and reads what others have put behind the journal.
//! Changes that are made at the same time share one waiting for the disk.

mod journal;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufWriter, ErrorKind as IoKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Changed, Condition, Item, Key, Scanned, Table, Update, Value,
    memory::{self, Items},
};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
};

/// The format of the file.
const VERSION: u32 = 2;
/// The format without a journal. It is read, and replaced with the first change: a program that does not know of journals refuses the new one.
const VERSION_WITHOUT_JOURNAL: u32 = 1;
/// Some 200,000 links of 50 fields, all of which are in memory. What is larger belongs into DynamoDB.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// A journal is folded into the file when it is as large as the file, or as this: to write so much anew takes some milliseconds.
const JOURNAL_BYTES_MIN: u64 = 1024 * 1024;
/// Bytes at the start of the file that hold its number.
const START_BYTES: u64 = 64;

/// State in a JSON file, which is made when it is first written.
#[derive(Debug)]
pub struct FileTable {
    path: PathBuf,
    writes: Cell<u64>,
    kept: RefCell<Option<Kept>>,
}

/// What was read, and what it was read from.
#[derive(Debug, Default)]
struct Kept {
    items: Items,
    /// The file; none is there yet.
    main: Option<Main>,
    /// The number of the file; the journal must have the same.
    generation: u64,
    /// Bytes of the journal that are in `items`; 0: there is no journal of this number.
    journal: u64,
    /// Bytes of the journal that are known to be on the disk.
    synced: u64,
}

/// Tells one main file from another.
#[derive(Debug, PartialEq, Eq)]
struct Main {
    start: Vec<u8>,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// What is in the file: partition key → sort key → attributes. The number stands at the start.
#[derive(Debug, Serialize, Deserialize)]
struct Stored<P> {
    version: u32,
    #[serde(default)]
    generation: u64,
    items: P,
}

type Partitions<K, T> = BTreeMap<K, BTreeMap<K, BTreeMap<K, T>>>;

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Line<K: Ord, T> {
    pk: K,
    sk: K,
    item: Option<BTreeMap<K, T>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum StoredValue {
    N(i64),
    S(String),
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    N(i64),
    S(&'a str),
}

/// A change that may not be on the disk yet.
#[derive(Debug, Clone, Copy)]
struct Pending {
    generation: u64,
    end: u64,
}

impl FileTable {
    /// The table in the file `path`. Its folder must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writes: Cell::new(0), kept: RefCell::new(None) }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `call` on the items as they are, alone among all processes.
    ///
    /// Waits for the lock without a bound: it is held for milliseconds, and the system frees it when a process ends.
    fn locked<T>(&self, call: impl FnOnce(&mut Kept) -> Result<T>) -> Result<T> {
        let lock = beside(&self.path, "lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let file = file.map_err(|error| failed("open", &lock, error))?;
        file.lock().map_err(|error| failed("lock", &lock, error))?;
        // What is kept is kept again only if nothing went wrong with it.
        let kept = self.kept.borrow_mut().take();
        let mut kept = self.refreshed(kept)?;
        let answer = call(&mut kept);
        if answer.is_ok() {
            *self.kept.borrow_mut() = Some(kept);
        }
        // Closing the file frees the lock.
        drop(file);
        answer
    }

    /// Makes a change of the item at `key`, if `call` says that it has made one, and waits until it is on the disk.
    async fn changed<T>(&self, key: &Key, call: impl FnOnce(&mut Items) -> Result<(T, bool)>) -> Result<T> {
        self.writes.set(self.writes.get() + 1);
        let (answer, pending) = self.locked(|kept| {
            let (answer, made) = call(&mut kept.items)?;
            Ok((answer, if made { self.save(kept, key)? } else { None }))
        })?;
        if let Some(pending) = pending {
            // Others that are about to make a change make theirs: who is first then waits for the disk for all of them.
            tokio::task::yield_now().await;
            self.sync(pending)?;
        }
        Ok(answer)
    }

    /// What is there now; `kept` is what was there before, if anything is known of that.
    fn refreshed(&self, kept: Option<Kept>) -> Result<Kept> {
        let mut kept = match (self.main()?, kept) {
            (main, Some(kept)) if kept.main == main && kept.generation > 0 => kept,
            (None, _) => Kept::default(),
            (Some(main), _) => self.load(main)?,
        };
        let path = self.journal();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == IoKind::NotFound && kept.journal == 0 => return Ok(kept),
            Err(error) => return Err(failed("open", &path, error)),
        };
        let bytes = file.metadata().map_err(|error| failed("read", &path, error))?.len();
        if bytes == kept.journal {
            return Ok(kept);
        }
        if bytes < kept.journal {
            return Err(unreadable(&path, "a part of it is gone".to_owned()));
        }
        if bytes > FILE_BYTES_MAX.saturating_mul(2) {
            return Err(unreadable(&path, format!("it has more than {} bytes", FILE_BYTES_MAX.saturating_mul(2))));
        }
        let mut content = Vec::new();
        file.seek(SeekFrom::Start(kept.journal)).map_err(|error| failed("read", &path, error))?;
        file.read_to_end(&mut content).map_err(|error| failed("read", &path, error))?;
        let mut content = content.as_slice();
        if kept.journal == 0 {
            match journal::belongs_to(content) {
                Some((generation, first)) if generation == kept.generation => {
                    content = content.get(first..).unwrap_or_default();
                    kept.journal = first as u64;
                }
                Some((generation, _)) if generation > kept.generation => {
                    return Err(unreadable(&path, "the state file that it goes on from is gone".to_owned())
                        .with_hint(format!("Put {} back, or remove both to begin anew.", self.path.display())));
                }
                // It was folded into this file; or its first line is not whole, and there is nothing behind it.
                _ => return Ok(kept),
            }
        }
        let lines = journal::read::<Line<String, StoredValue>>(content, kept.journal, kept.generation)
            .map_err(|journal::Damaged| unreadable(&path, "it is damaged".to_owned()))?;
        for line in lines.changes {
            let key = Key::new(line.pk, line.sk);
            match line.item {
                Some(item) => kept.items.insert(key, decode(item)),
                None => kept.items.remove(&key),
            };
        }
        kept.journal += lines.bytes as u64;
        Ok(kept)
    }

    /// Which main file there is.
    fn main(&self) -> Result<Option<Main>> {
        let failed = |error| failed("read", &self.path, error);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == IoKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        let mut start = Vec::new();
        file.take(START_BYTES).read_to_end(&mut start).map_err(failed)?;
        Ok(Some(Main { start, bytes: metadata.len(), modified: metadata.modified().ok() }))
    }

    /// Reads the main file whole.
    fn load(&self, main: Main) -> Result<Kept> {
        if main.bytes > FILE_BYTES_MAX {
            return Err(unreadable(&self.path, format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let bytes = fs::read(&self.path).map_err(|error| failed("read", &self.path, error))?;
        let stored: Stored<Partitions<String, StoredValue>> = serde_json::from_slice(&bytes).map_err(|error| {
            unreadable(
                &self.path,
                format!("line {}, column {} is not what hubferry writes", error.line(), error.column()),
            )
        })?;
        if !matches!(stored.version, VERSION | VERSION_WITHOUT_JOURNAL) {
            return Err(unreadable(&self.path, format!("its version is {}, not {VERSION}", stored.version)));
        }
        let partitions = stored.items.into_iter();
        let items = partitions
            .flat_map(|(pk, items)| items.into_iter().map(move |(sk, item)| (Key::new(pk.clone(), sk), decode(item))))
            .collect();
        let generation = if stored.version == VERSION { stored.generation } else { 0 };
        Ok(Kept { items, main: Some(main), generation, ..Kept::default() })
    }

    /// Stores the item at `key` as it is in `kept`; the journal's part that is not on the disk yet.
    fn save(&self, kept: &mut Kept, key: &Key) -> Result<Option<Pending>> {
        let main = kept.main.as_ref().map_or(0, |main| main.bytes);
        if kept.generation == 0 || kept.journal > JOURNAL_BYTES_MIN.max(main) {
            self.fold(kept)?;
            return Ok(None);
        }
        let change = Line { pk: key.pk.as_str(), sk: key.sk.as_str(), item: kept.items.get(key).map(encode) };
        let line = journal::line(&change, kept.synced, kept.generation).map_err(unwritable)?;
        let path = self.journal();
        let is_new = kept.journal == 0;
        let written = || {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            // What is behind it was not written whole, or is of another file.
            file.set_len(kept.journal)?;
            file.seek(SeekFrom::End(0))?;
            let first = if is_new { journal::first_line(kept.generation).into_bytes() } else { Vec::new() };
            file.write_all(&[first.as_slice(), line.as_slice()].concat())?;
            if is_new {
                file.sync_all()?;
                sync_folder(&path)?;
            }
            file.stream_position()
        };
        kept.journal = written().map_err(|error| failed("write", &path, error))?;
        if is_new {
            kept.synced = kept.journal;
            return Ok(None);
        }
        Ok(Some(Pending { generation: kept.generation, end: kept.journal }))
    }

    /// Writes everything into a new main file, which has no journal.
    fn fold(&self, kept: &mut Kept) -> Result<()> {
        let generation = kept.generation + 1;
        let mut items: Partitions<&str, Shown<'_>> = BTreeMap::new();
        for (key, item) in &kept.items {
            items.entry(key.pk.as_str()).or_default().insert(key.sk.as_str(), encode(item));
        }
        let stored = Stored { version: VERSION, generation, items };
        let new = beside(&self.path, "new");
        let written = || {
            let mut file = BufWriter::new(File::create(&new)?);
            serde_json::to_writer_pretty(&mut file, &stored)?;
            file.into_inner()?.sync_all()
        };
        written().map_err(|error| failed("write", &new, error))?;
        fs::rename(&new, &self.path).map_err(|error| failed("replace", &self.path, error))?;
        // The old journal must not be overwritten before the new file is there for good.
        sync_folder(&self.path).map_err(|error| failed("replace", &self.path, error))?;
        let journal = self.journal();
        match OpenOptions::new().write(true).open(&journal).and_then(|file| file.set_len(0)) {
            Err(error) if error.kind() != IoKind::NotFound => return Err(failed("write", &journal, error)),
            _ => {}
        }
        (kept.generation, kept.journal, kept.synced) = (generation, 0, 0);
        kept.main = self.main()?;
        Ok(())
    }

    /// Waits until a change is on the disk.
    fn sync(&self, pending: Pending) -> Result<()> {
        let end = match &*self.kept.borrow() {
            // It has been folded into the main file, which is on the disk.
            Some(kept) if kept.generation != pending.generation => return Ok(()),
            Some(kept) if kept.synced >= pending.end => return Ok(()),
            Some(kept) => kept.journal,
            None => pending.end,
        };
        let path = self.journal();
        // Another process may have folded it meanwhile: then it was on the disk before.
        let synced = OpenOptions::new().write(true).open(&path).and_then(|file| file.sync_data());
        synced.map_err(|error| failed("write", &path, error))?;
        if let Some(kept) = &mut *self.kept.borrow_mut()
            && kept.generation == pending.generation
        {
            kept.synced = kept.synced.max(end);
        }
        Ok(())
    }

    fn journal(&self) -> PathBuf {
        beside(&self.path, "journal")
    }
}

#[async_trait(?Send)]
impl Table for FileTable {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        memory::check_key(key)?;
        self.locked(|kept| Ok(kept.items.get(key).cloned()))
    }

    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        let call = |items: &mut Items| {
            let changed = memory::apply(items, key, &update)?;
            let made = matches!(changed, Changed::Yes(_));
            Ok((changed, made))
        };
        self.changed(key, call).await
    }

    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        let call = |items: &mut Items| {
            let before = items.len();
            let held = memory::remove(items, key, condition.as_ref())?;
            Ok((held, items.len() < before))
        };
        self.changed(key, call).await
    }

    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.locked(|kept| Ok(memory::partition(&kept.items, pk, limit)))
    }

    async fn scan(&self, after: Option<&Key>) -> Result<Scanned> {
        self.locked(|kept| Ok(memory::part(&kept.items, after)))
    }

    /// The journal holds what was removed until it is folded into the file.
    async fn drop_history(&self) -> Result<()> {
        self.locked(|kept| if kept.journal > 0 { self.fold(kept) } else { Ok(()) })
    }

    fn writes(&self) -> u64 {
        self.writes.get()
    }
}

/// `path` with `.extension` put behind its name.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Waits until the names in the folder of `path` are on the disk. Systems that cannot do that do not need it.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn encode(item: &Item) -> BTreeMap<&str, Shown<'_>> {
    let encode = |value| match value {
        &Value::N(number) => Shown::N(number),
        Value::S(text) => Shown::S(text),
    };
    item.iter().map(|(name, value)| (name.as_str(), encode(value))).collect()
}

fn decode(item: BTreeMap<String, StoredValue>) -> Item {
    let decode = |value| match value {
        StoredValue::S(text) => Value::S(text),
        StoredValue::N(number) => Value::N(number),
    };
    item.into_iter().map(|(name, value)| (name, decode(value))).collect()
}

fn unwritable(error: serde_json::Error) -> Error {
    memory::corrupt(format!("state cannot be written: {error}"))
}

fn unreadable(path: &Path, why: String) -> Error {
    memory::corrupt(format!("state file {}: {why}", path.display()))
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Invalid,
        codes::STATE_UNAVAILABLE,
        format!("cannot {what} the state file {}: {error}", path.display()),
    )
    .with_hint("Check that the folder exists, has room, and may be written.")
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(owner: &str) -> Update {
        Update { set: vec![("owner", owner.into())], ..Update::default() }
    }

    #[tokio::test]
    async fn another_process_sees_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let key = Key::new("import", "a.csv");
        let update = Update {
            set: vec![("owner", "me".into()), ("rows", Value::N(-7)), ("text", "12".into())],
            ..Update::default()
        };
        let Changed::Yes(item) = FileTable::new(&path).update(&key, update).await.unwrap() else {
            panic!("no condition")
        };
        assert_eq!(FileTable::new(&path).get(&key).await.unwrap(), Some(item));
    }

    #[tokio::test]
    async fn writers_in_several_threads_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for _ in 0..10 {
                        let update = Update { add: vec![("count", 1)], ..Update::default() };
                        runtime.block_on(FileTable::new(&path).update(&Key::new("a", "b"), update)).unwrap();
                    }
                });
            }
        });
        let item = FileTable::new(&path).get(&Key::new("a", "b")).await.unwrap().unwrap();
        assert_eq!(item.get("count"), Some(&Value::N(40)));
    }

    #[tokio::test]
    async fn a_damaged_file_is_told_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for content in [
            "{\"version\":1,",
            "",
            "{\"version\":3,\"items\":{}}",
            "{\"version\":1,\"items\":{\"a\":{\"b\":{\"c\":1.5}}}}",
        ] {
            fs::write(&path, content).unwrap();
            let error = FileTable::new(&path).update(&Key::new("a", "b"), set("me")).await.unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::STATE_CORRUPT), "{content:?}");
            assert!(error.message().contains("state.json"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    /// What the table has, for comparing.
    async fn everything(path: &Path) -> Result<Vec<(Key, Item)>> {
        FileTable::new(path).query("a", 1_000).await
    }

    /// Changes of all sorts, and what there is after each.
    async fn history(path: &Path, changes: u32) -> Vec<(Vec<(Key, Item)>, u64)> {
        let table = FileTable::new(path);
        let mut states = Vec::new();
        for at in 0..changes {
            let key = Key::new("a", format!("item {}", at % 3));
            if at % 4 == 3 {
                table.delete(&key, None).await.unwrap();
            } else {
                let update = Update { set: vec![("text", "ü\n".into())], add: vec![("n", 1)], ..Update::default() };
                table.update(&key, update).await.unwrap();
            }
            let journal = fs::metadata(beside(path, "journal")).map_or(0, |file| file.len());
            states.push((table.query("a", 1_000).await.unwrap(), journal));
        }
        states
    }

    #[tokio::test]
    async fn a_process_that_dies_at_any_byte_of_the_journal_leaves_every_change_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let states = history(&path, 6).await;
        let journal = fs::read(beside(&path, "journal")).unwrap();
        assert_eq!(states.last().unwrap().1, journal.len() as u64);
        for end in 0..=journal.len() {
            fs::write(beside(&path, "journal"), &journal[..end]).unwrap();
            let (before, _) = states.iter().rev().find(|(_, bytes)| *bytes <= end as u64).unwrap();
            assert_eq!(everything(&path).await.unwrap(), *before, "{end} bytes");
            // The next change stands behind what is whole.
            FileTable::new(&path).update(&Key::new("b", "b"), set("me")).await.unwrap();
            assert_eq!(everything(&path).await.unwrap(), *before, "{end} bytes, and a change");
            assert!(FileTable::new(&path).get(&Key::new("b", "b")).await.unwrap().is_some(), "{end} bytes");
        }
    }

    #[tokio::test]
    async fn a_journal_that_is_damaged_before_its_end_is_told_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        history(&path, 9).await;
        let whole = fs::read(beside(&path, "journal")).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        for content in [damaged.as_slice(), &[whole.as_slice(), b"x\n"].concat()] {
            fs::write(beside(&path, "journal"), content).unwrap();
            let answer = FileTable::new(&path).update(&Key::new("a", "b"), set("me")).await;
            if content.len() > whole.len() {
                answer.unwrap();
                continue;
            }
            let error = answer.unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::STATE_CORRUPT));
            assert!(error.message().contains("state.json.journal"), "{error}");
            assert_eq!(fs::read(beside(&path, "journal")).unwrap(), content);
        }
    }

    #[tokio::test]
    async fn a_state_file_that_is_gone_while_its_journal_is_there_is_not_taken_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        history(&path, 3).await;
        fs::remove_file(&path).unwrap();
        let error = everything(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.hint().contains("remove both"), "{}", error.hint());
        fs::remove_file(beside(&path, "journal")).unwrap();
        assert_eq!(everything(&path).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_journal_as_large_as_the_file_is_folded_into_it_and_a_death_on_the_way_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let (table, other) = (FileTable::new(&path), FileTable::new(&path));
        let update = |at: u32| Update {
            set: vec![("text", "x".repeat(300_000).into()), ("at", i64::from(at).into())],
            ..Update::default()
        };
        let mut folds = 0;
        for at in 0..20 {
            let (main, journal) = (fs::read(&path), fs::read(beside(&path, "journal")));
            let key = Key::new("a", format!("{}", at % 5));
            table.update(&key, update(at)).await.unwrap();
            let now = table.query("a", 10).await.unwrap();
            assert_eq!(other.query("a", 10).await.unwrap(), now, "another process, after change {at}");
            let (Ok(main), Ok(journal)) = (main, journal) else { continue };
            if fs::metadata(beside(&path, "journal")).unwrap().len() > 0 {
                continue;
            }
            folds += 1;
            let folded = fs::read(&path).unwrap();
            // It died before it emptied the journal.
            fs::write(beside(&path, "journal"), &journal).unwrap();
            assert_eq!(everything(&path).await.unwrap(), now, "after change {at}");
            other.update(&Key::new("b", "b"), set("other")).await.unwrap();
            assert_eq!(everything(&path).await.unwrap(), now, "after change {at}");
            // It died before the new file took the place of the old one.
            let elsewhere = folder.path().join(format!("{at}.json"));
            fs::write(&elsewhere, main).unwrap();
            fs::write(beside(&elsewhere, "journal"), &journal).unwrap();
            fs::write(beside(&elsewhere, "new"), &folded[..folded.len() / 2]).unwrap();
            let before = everything(&elsewhere).await.unwrap();
            FileTable::new(&elsewhere).update(&key, update(at)).await.unwrap();
            assert_eq!(
                everything(&elsewhere).await.unwrap(),
                now,
                "after change {at}, which came after {}",
                before.len()
            );
        }
        assert!(folds >= 3, "{folds} folds");
    }

    #[tokio::test]
    async fn a_file_of_the_version_before_journals_is_read_and_replaced_with_the_first_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let old = r#"{"version":1,"items":{"a":{"b":{"owner":"me","rows":-7}}}}"#;
        fs::write(&path, old).unwrap();
        let table = FileTable::new(&path);
        let item = table.get(&Key::new("a", "b")).await.unwrap().unwrap();
        assert_eq!((item.get("owner"), item.get("rows")), (Some(&"me".into()), Some(&Value::N(-7))));
        assert_eq!(fs::read_to_string(&path).unwrap(), old, "a read changes nothing");
        // A program of then may still be at work on it.
        fs::write(&path, old.replace("me", "it")).unwrap();
        assert_eq!(table.get(&Key::new("a", "b")).await.unwrap().unwrap().get("owner"), Some(&"it".into()));
        table.update(&Key::new("a", "c"), set("you")).await.unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("\"version\": 2"), "it would lose what is in the journal");
        assert_eq!(everything(&path).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn processes_that_take_turns_see_each_others_changes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let (one, two) = (FileTable::new(&path), FileTable::new(&path));
        let key = Key::new("a", "b");
        assert_eq!(two.get(&key).await.unwrap(), None);
        for at in 0..20 {
            let (writer, reader) = if at % 3 == 0 { (&two, &one) } else { (&one, &two) };
            let add = Update { add: vec![("n", 1)], ..Update::default() };
            writer.update(&key, add).await.unwrap();
            assert_eq!(reader.get(&key).await.unwrap().unwrap().get("n"), Some(&Value::N(at + 1)));
        }
        assert!(one.delete(&key, None).await.unwrap());
        assert_eq!(two.get(&key).await.unwrap(), None);
    }

    #[tokio::test]
    async fn changes_made_at_the_same_time_are_all_there_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let table = FileTable::new(&path);
        let keys: Vec<Key> = (0..100).map(|at| Key::new("a", format!("{at}"))).collect();
        let changes = keys.iter().map(|key| table.update(key, set("me")));
        futures_util::future::try_join_all(changes).await.unwrap();
        let on_disk = table.kept.borrow().as_ref().map(|kept| (kept.synced, kept.journal));
        assert!(
            on_disk.is_some_and(|(synced, journal)| synced == journal),
            "whoever was answered has its change on the disk"
        );
        assert_eq!(everything(&path).await.unwrap().len(), 100);
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_the_persons_to_make() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            FileTable::new(folder.path().join("none").join("state.json")).get(&Key::new("a", "b")).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::STATE_UNAVAILABLE));
    }
}
