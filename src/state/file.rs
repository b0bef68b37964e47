//! State in a file beside the work: the command line's table when there is no DynamoDB.
//!
//! Each change reads the file, changes it and replaces it by renaming, all under a lock, so that two processes cannot
//! lose each other's changes and a crash leaves the file as it was before or after. The lock is on a file beside it
//! (`<file>.lock`), because the file itself is replaced.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{ErrorKind as IoKind, Read, Write},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Changed, Condition, Item, Key, Table, Update, Value,
    memory::{self, Items},
};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
};

/// The format of the file.
const VERSION: u32 = 1;
/// Thousands of runs. The file is read whole for each change, so a larger one is a mistake.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// State in a JSON file, which is made when it is first written.
#[derive(Debug)]
pub struct FileTable {
    path: PathBuf,
    writes: Cell<u64>,
}

/// What is in the file: partition key → sort key → attributes.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    items: BTreeMap<String, BTreeMap<String, BTreeMap<String, StoredValue>>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum StoredValue {
    N(i64),
    S(String),
}

impl FileTable {
    /// The table in the file `path`. Its folder must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writes: Cell::new(0) }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `call` on the items, alone among all processes. Saves them if `call` says so.
    ///
    /// Waits for the lock without a bound: it is held for milliseconds, and the system frees it when a process ends.
    fn locked<T>(&self, call: impl FnOnce(&mut Items) -> Result<(T, bool)>) -> Result<T> {
        let lock = beside(&self.path, "lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let file = file.map_err(|error| failed("open", &lock, error))?;
        file.lock().map_err(|error| failed("lock", &lock, error))?;
        let mut items = self.load()?;
        let (answer, changed) = call(&mut items)?;
        if changed {
            self.save(items)?;
        }
        // Closing the file frees the lock.
        drop(file);
        Ok(answer)
    }

    fn load(&self) -> Result<Items> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == IoKind::NotFound => return Ok(Items::new()),
            Err(error) => return Err(failed("open", &self.path, error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed("read", &self.path, error))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(&self.path, format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| {
            unreadable(
                &self.path,
                format!("line {}, column {} is not what hubferry writes", error.line(), error.column()),
            )
        })?;
        if stored.version != VERSION {
            return Err(unreadable(&self.path, format!("its version is {}, not {VERSION}", stored.version)));
        }
        let partitions = stored.items.into_iter();
        Ok(partitions
            .flat_map(|(pk, items)| items.into_iter().map(move |(sk, item)| (Key::new(pk.clone(), sk), decode(item))))
            .collect())
    }

    fn save(&self, items: Items) -> Result<()> {
        let mut stored = Stored { version: VERSION, items: BTreeMap::new() };
        for (key, item) in items {
            stored.items.entry(key.pk).or_default().insert(key.sk, encode(item));
        }
        let bytes = serde_json::to_vec_pretty(&stored)
            .map_err(|error| memory::corrupt(format!("state cannot be written: {error}")))?;
        let new = beside(&self.path, "new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(|error| failed("write", &new, error))?;
        fs::rename(&new, &self.path).map_err(|error| failed("replace", &self.path, error))
    }
}

#[async_trait(?Send)]
impl Table for FileTable {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        memory::check_key(key)?;
        self.locked(|items| Ok((items.remove(key), false)))
    }

    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        self.writes.set(self.writes.get() + 1);
        self.locked(|items| {
            let changed = memory::apply(items, key, &update)?;
            let made = matches!(changed, Changed::Yes(_));
            Ok((changed, made))
        })
    }

    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        self.writes.set(self.writes.get() + 1);
        self.locked(|items| memory::remove(items, key, condition.as_ref()).map(|held| (held, held)))
    }

    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.locked(|items| Ok((memory::partition(items, pk, limit), false)))
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

fn encode(item: Item) -> BTreeMap<String, StoredValue> {
    let encode = |value| match value {
        Value::S(text) => StoredValue::S(text),
        Value::N(number) => StoredValue::N(number),
    };
    item.into_iter().map(|(name, value)| (name, encode(value))).collect()
}

fn decode(item: BTreeMap<String, StoredValue>) -> Item {
    let decode = |value| match value {
        StoredValue::S(text) => Value::S(text),
        StoredValue::N(number) => Value::N(number),
    };
    item.into_iter().map(|(name, value)| (name, decode(value))).collect()
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
            "{\"version\":2,\"items\":{}}",
            "{\"version\":1,\"items\":{\"a\":{\"b\":{\"c\":1.5}}}}",
        ] {
            fs::write(&path, content).unwrap();
            let error = FileTable::new(&path).update(&Key::new("a", "b"), set("me")).await.unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::STATE_CORRUPT), "{content:?}");
            assert!(error.message().contains("state.json"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_the_persons_to_make() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            FileTable::new(folder.path().join("none").join("state.json")).get(&Key::new("a", "b")).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::STATE_UNAVAILABLE));
    }
}
