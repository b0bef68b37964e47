//! The watched folder: a file that is put there is uploaded, under the path that it has below the folder; and the settings file, which is read
//! again when it changes. By looking again and again, which works on every file system. What the simulated places hold is written down meanwhile.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};
use hubferry_simulator::aws::Listed;

use super::{BUCKET, settings, stage::Stage};

/// Between two looks. A file is taken when two looks in a row find it the same: whoever writes it has finished.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Files in the folder that are looked at; further ones wait until some are gone.
const FILES_MAX: usize = 5_000;
/// Folders in folders.
const DEPTH_MAX: usize = 8;

/// How a file was found last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    size: u64,
    modified: Option<SystemTime>,
    done: bool,
}

/// Watches until `stop` is told or dropped.
pub(super) fn watch(stage: &Stage, folder: &Path, config: Option<&Path>, stop: &Receiver<()>) {
    let mut inbox = Inbox { folder: folder.to_owned(), seen: BTreeMap::new(), was_full: false };
    let mut config = config.map(|path| (path.to_owned(), modified(path)));
    loop {
        inbox.look(stage);
        if let Some((path, known)) = &mut config {
            let is = modified(path);
            if is.is_some() && is != *known {
                *known = is;
                match reread(stage, path) {
                    Ok(()) => stage.notice(format!("{} was read again and is in force.", path.display())),
                    Err(error) => stage.notice(format!("{error:#}. The settings stay as they were.")),
                }
            }
        }
        if let Err(error) = stage.keep(false) {
            stage.notice(format!("{error:#}."));
        }
        match stop.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn reread(stage: &Stage, path: &Path) -> Result<()> {
    let (accounts, orgs) = settings::names(Some(path))?;
    let known = |name: &String| stage.account(name).is_some();
    if let Some(new) =
        accounts.iter().find(|name| !known(name)).or_else(|| orgs.iter().find(|name| stage.org(name).is_none()))
    {
        bail!("{} names `{new}`, which is not simulated yet: start the local cloud again", path.display());
    }
    stage.set_settings(settings::settings(Some(path), &stage.places)?);
    Ok(())
}

struct Inbox {
    folder: PathBuf,
    /// By key.
    seen: BTreeMap<String, Seen>,
    was_full: bool,
}

impl Inbox {
    fn look(&mut self, stage: &Stage) {
        let mut found = BTreeMap::new();
        list(&self.folder, "", 0, &mut found);
        let is_full = found.len() >= FILES_MAX;
        if is_full && !self.was_full {
            stage.notice(format!("The watched folder holds more than {FILES_MAX} files: only some are looked at."));
        }
        self.was_full = is_full;
        self.seen.retain(|key, _| found.contains_key(key));
        for (key, (path, size, modified)) in found {
            let before = self.seen.get(&key).copied();
            let same = before.is_some_and(|seen| seen.size == size && seen.modified == modified);
            let mut now = Seen { size, modified, done: same && before.is_some_and(|seen| seen.done) };
            if before.is_none() && is_there(stage.cloud.s3().list_objects(BUCKET, &key).first(), &key, &now) {
                now.done = true;
            }
            if same && !now.done {
                now.done = true;
                take(stage, &key, &path);
            }
            self.seen.insert(key, now);
        }
    }
}

/// Whether the object of this key was made from the file as it is, by an earlier start.
fn is_there(object: Option<&Listed>, key: &str, file: &Seen) -> bool {
    let modified = file.modified.and_then(|at| jiff::Timestamp::try_from(at).ok());
    object.is_some_and(|object| {
        object.key == key && object.size == file.size && modified.is_some_and(|modified| modified <= object.modified)
    })
}

fn take(stage: &Stage, key: &str, path: &Path) {
    match stage.settings().config.import_for(key) {
        Ok(Some(_)) => match stage.cloud.s3().put_file(BUCKET, key, path) {
            Ok(_) => stage.notice(format!("{key} was taken from the folder.")),
            Err(error) => stage.notice(format!("{key} cannot be read: {error}.")),
        },
        Ok(None) => stage.notice(format!("{key} matches no import, and is left alone.")),
        Err(error) => stage.notice(format!("{key}: {error}")),
    }
}

/// Files below `folder` by their keys: no links, nothing hidden, only names that are UTF-8.
fn list(folder: &Path, prefix: &str, depth: usize, found: &mut BTreeMap<String, (PathBuf, u64, Option<SystemTime>)>) {
    // A folder that cannot be read is empty; it is looked at again.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(io::Result::ok) {
        if found.len() >= FILES_MAX {
            return;
        }
        let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() && depth < DEPTH_MAX {
            list(&entry.path(), &format!("{prefix}{name}/"), depth + 1, found);
        } else if kind.is_file()
            && let Ok(metadata) = entry.metadata()
        {
            found.insert(format!("{prefix}{name}"), (entry.path(), metadata.len(), metadata.modified().ok()));
        }
    }
}

/// Makes the folders into which files for the imports go.
pub(super) fn prepare(folder: &Path, settings: &settings::Settings) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for import in &settings.config.imports {
        let below = settings::folder(&import.pattern);
        // A pattern names keys, and a key may hold what a path must not.
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !below.is_empty() && below.trim_end_matches('/').split('/').all(is_plain) {
            fs::create_dir_all(folder.join(below))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_their_paths_without_links_and_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        fs::create_dir_all(base.join("in/deep")).unwrap();
        for name in ["in/a.csv", "in/deep/b.csv", "in/.a.csv.part", ".hidden"] {
            fs::write(base.join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", base.join("in/link.csv")).unwrap();
        let mut found = BTreeMap::new();
        list(base, "", 0, &mut found);
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["in/a.csv", "in/deep/b.csv"]);
    }

    #[test]
    fn a_file_that_an_earlier_start_took_is_not_taken_again() {
        let at = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap();
        let object = Listed { key: "k".to_owned(), size: 5, etag: String::new(), modified: at(100) };
        let file = |size, seconds| Seen { size, modified: Some(at(seconds).into()), done: false };
        assert!(is_there(Some(&object), "k", &file(5, 99)));
        assert!(!is_there(Some(&object), "k", &file(5, 101)), "it was changed since");
        assert!(!is_there(Some(&object), "k", &file(6, 99)));
        assert!(!is_there(Some(&object), "other", &file(5, 99)));
        assert!(!is_there(None, "k", &file(5, 99)));
    }
}
