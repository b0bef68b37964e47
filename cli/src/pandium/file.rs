//! The tenant's file: which of its columns are the sample's nine, and a place for what the job writes besides.

use std::{collections::BTreeMap, fs, ops::Range, path::PathBuf, rc::Rc};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use hubferry::{
    codes::Code,
    config::CsvSettings,
    csv::{
        Hints, RecordReader, Start,
        compression::{self, Decompressor},
        detect,
        records::header_names,
    },
    objects::{Location, ObjectVersion, Objects, Upload, folder::Folder},
    report::Report,
};
use serde_json::{Value, json};

use super::variables::{Renamed, Variables};

/// Bytes that are looked at to find the header.
const SAMPLE_BYTES: u64 = 256 * 1024;
/// The same, decompressed.
const TEXT_BYTES: usize = 512 * 1024;
/// Rejects that are named in the log.
const NAMED_MAX: usize = 100;

/// The nine columns: the name, and the contact's property. `desc` is the company's.
const COLUMNS: [(&str, &str); 9] = [
    ("email", "email"),
    ("first_name", "firstname"),
    ("last_name", "lastname"),
    ("company", "company"),
    ("city", "city"),
    ("state", "state"),
    ("country", "country"),
    ("zip", "zip"),
    ("desc", ""),
];

/// The file's columns by what they are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// One of the nine → the file's own name.
    known: BTreeMap<&'static str, String>,
    /// A contact's property → the file's own name, for what the mapper adds.
    more: BTreeMap<String, String>,
    /// The file has no line at all.
    empty: bool,
}

impl Columns {
    /// Looks at the file's header.
    pub(super) async fn find(objects: &dyn Objects, object: &ObjectVersion, mapper: &[Renamed]) -> Result<Self> {
        if object.size == 0 {
            return Ok(Self { known: BTreeMap::new(), more: BTreeMap::new(), empty: true });
        }
        let raw = objects.read(object, 0..object.size.min(SAMPLE_BYTES)).await?;
        let mut text = Vec::new();
        let mut inflater = Decompressor::new(compression::detect(&raw))?;
        let mut input: &[u8] = &raw;
        while text.len() < TEXT_BYTES {
            let (before, left) = (text.len(), input.len());
            inflater.step(&mut input, &mut text, TEXT_BYTES)?;
            if text.len() == before && input.len() == left {
                break;
            }
        }
        let whole = object.size <= SAMPLE_BYTES && input.is_empty();
        let is_known = |name: &str| COLUMNS.iter().any(|(known, _)| plain(known) == plain(name));
        let settings = CsvSettings { header: Some(true), ..CsvSettings::default() };
        let dialect = detect(&text, whole, &settings, &Hints { is_known: &is_known })?;
        let mut reader = RecordReader::new(&dialect, Start::default());
        reader.feed(&text);
        if whole {
            reader.finish();
        }
        let header = reader.next();
        let empty = header.is_none();
        Ok(Self::of(&header.map(|record| header_names(&record.cells)).unwrap_or_default(), mapper, empty))
    }

    fn of(header: &[String], mapper: &[Renamed], empty: bool) -> Self {
        let (mut known, mut more) = (BTreeMap::new(), BTreeMap::new());
        for name in header {
            let renamed = mapper.iter().find(|renamed| renamed.from.trim().eq_ignore_ascii_case(name.trim()));
            let meant = renamed.map_or(name.as_str(), |renamed| renamed.to.trim());
            match (COLUMNS.iter().find(|(column, _)| plain(column) == plain(meant)), renamed) {
                // What the mapper says goes before a column that happens to have the name.
                (Some((column, _)), Some(_)) => {
                    known.insert(*column, name.clone());
                }
                (Some((column, _)), None) => {
                    let taken = mapper.iter().any(|renamed| {
                        plain(&renamed.to) == plain(column)
                            && header.iter().any(|other| other.trim().eq_ignore_ascii_case(renamed.from.trim()))
                    });
                    if !taken {
                        known.entry(*column).or_insert_with(|| name.clone());
                    }
                }
                (None, Some(renamed)) => {
                    more.insert(renamed.to.trim().to_owned(), name.clone());
                }
                (None, None) => {}
            }
        }
        Self { known, more, empty }
    }

    /// The imports that are switched on, as in a settings file.
    pub(super) fn imports(&self, variables: &Variables) -> Result<Vec<Value>, String> {
        let mut imports = Vec::new();
        let csv = json!({ "header": true });
        let lacking = |column: &str| {
            format!(
                "The file has no column `{column}`. Rename it, or name it in CSV_MAPPER_NAME: [{{\"in\":\"ITS NAME\",\"out\":\"{column}\"}}]."
            )
        };
        if self.empty {
            return Ok(imports);
        }
        if variables.make_contact {
            let mut columns = BTreeMap::new();
            for (column, property) in COLUMNS.iter().filter(|(_, property)| !property.is_empty()) {
                if let Some(name) = self.known.get(column) {
                    columns.insert(name.clone(), (*property).to_owned());
                }
            }
            if !self.known.contains_key("email") {
                return Err(lacking("email"));
            }
            columns.extend(self.more.iter().map(|(property, name)| (name.clone(), property.clone())));
            imports.push(json!({ "name": "contacts", "match": "**", "object": "contacts", "key": "email", "columns": columns, "csv": csv }));
        }
        if variables.make_company {
            let Some(name) = self.known.get("company") else { return Err(lacking("company")) };
            let mut columns = BTreeMap::from([(name.clone(), "name")]);
            columns.extend(self.known.get("desc").map(|desc| (desc.clone(), "description")));
            // Most rows may well name no company.
            imports.push(json!({
                "name": "companies", "match": "**", "object": "companies", "key": "name", "columns": columns, "csv": csv,
                "create_properties": true, "abort_if_rejected": "100%",
            }));
        }
        Ok(imports)
    }
}

/// A name without regard to case, spaces, `_` and `-`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The tenant's file, to be read; and a folder of this run's own for what the job writes (reports, rejects, working files), which is removed
/// at the end: it may hold rows.
pub(super) struct Scratch {
    source: Location,
    s3: Rc<dyn Objects>,
    folder: Folder,
    root: PathBuf,
}

impl Scratch {
    pub(super) fn new(s3: Rc<dyn Objects>, source: Location) -> Result<Self> {
        /// As many folders of one process id as a machine that starts anew may have left.
        const FOLDERS_MAX: u32 = 100;
        for attempt in 0..FOLDERS_MAX {
            let root = std::env::temp_dir().join(format!("hubferry-pandium-{}-{attempt}", std::process::id()));
            let mut builder = fs::DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            match builder.create(&root) {
                Ok(()) => return Ok(Self { source, s3, folder: Folder::new(&root), root }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("{} cannot be made", root.display())),
            }
        }
        bail!("{} holds {FOLDERS_MAX} folders of this process already", std::env::temp_dir().display())
    }

    fn door(&self, location: &Location) -> &dyn Objects {
        if *location == self.source { &*self.s3 } else { &self.folder }
    }

    /// Each reject as line, code and what to do: never the reason, which may be HubSpot's own words. `blank_keys_are_fine`: a row without a
    /// key is counted, and no fault.
    pub(super) fn rejects(&self, report: &Report, blank_keys_are_fine: bool) -> Vec<String> {
        let Some(location) = report.rejects.as_deref().and_then(Location::parse) else { return Vec::new() };
        let path = self.root.join(&location.bucket).join(&location.key);
        let mut lines = Vec::new();
        let (mut blank, mut more) = (0_u64, 0_u64);
        let Ok(mut reader) = csv::ReaderBuilder::new().flexible(true).from_path(path) else { return lines };
        let at = reader.headers().ok().and_then(|header| header.iter().position(|name| name == "_line"));
        let Some(at) = at else { return lines };
        for row in reader.records().filter_map(Result::ok) {
            let (line, code) = (row.get(at).unwrap_or_default(), row.get(at + 1).unwrap_or_default());
            if blank_keys_are_fine && code == "KEY_BLANK" {
                blank += 1;
            } else if lines.len() < NAMED_MAX {
                let known =
                    !code.is_empty() && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                let code = if known { code } else { "REFUSED" };
                let hint = Code::named(code).map(|code| code.hint()).unwrap_or("HubSpot refused the row.");
                lines.push(format!("line {line}: {code}. {hint}"));
            } else {
                more += 1;
            }
        }
        if more > 0 {
            lines.push(format!("and {more} rows more were rejected."));
        }
        if blank > 0 {
            lines.push(format!("{blank} rows name no company."));
        }
        lines
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[async_trait(?Send)]
impl Objects for Scratch {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> hubferry::Result<ObjectVersion> {
        self.door(location).head(location, version_id).await
    }

    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> hubferry::Result<Bytes> {
        self.door(&object.location).read(object, range).await
    }

    async fn get(&self, location: &Location) -> hubferry::Result<Option<(Bytes, String)>> {
        self.folder.get(location).await
    }

    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> hubferry::Result<()> {
        self.folder.put(location, body, content_type).await
    }

    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> hubferry::Result<bool> {
        self.folder.put_new(location, body, content_type).await
    }

    async fn upload(&self, location: &Location, content_type: &str) -> hubferry::Result<Box<dyn Upload>> {
        self.folder.upload(location, content_type).await
    }

    async fn delete(&self, location: &Location) -> hubferry::Result<()> {
        self.folder.delete(location).await
    }

    async fn list(&self, prefix: &Location) -> hubferry::Result<Vec<Location>> {
        self.folder.list(prefix).await
    }

    fn requests(&self) -> u64 {
        self.s3.requests()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(header: &[&str], mapper: &[(&str, &str)]) -> Columns {
        let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
        let mapper: Vec<Renamed> =
            mapper.iter().map(|(from, to)| Renamed { from: (*from).to_owned(), to: (*to).to_owned() }).collect();
        Columns::of(&header, &mapper, false)
    }

    #[test]
    fn columns_are_found_by_name_in_any_order_and_the_mapper_has_the_last_word() {
        let found = columns(&["zip", "First Name", " E-Mail", "note"], &[]);
        assert_eq!(found.known.get("first_name").unwrap(), "First Name");
        assert_eq!(found.known.get("email").unwrap(), " E-Mail");
        assert_eq!((found.known.len(), found.more.len()), (3, 0));
        let found = columns(&["email", "Work", "Role"], &[("work", "email"), ("Role", "jobtitle"), ("Gone", "zip")]);
        assert_eq!(found.known.get("email").unwrap(), "Work");
        assert_eq!(found.more.get("jobtitle").unwrap(), "Role");
        assert_eq!((found.known.len(), found.more.len()), (1, 1));
    }
}
