//! The rejects of a run, read so that they can be shown, corrected and sent again.

use std::collections::BTreeMap;

use hubferry::{objects::Location, report::Report};

use super::super::stage::Stage;

/// Bytes of a rejects file that is shown; a larger one is only handed out.
const SHOWN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Rejects on a page.
pub(super) const PER_PAGE: usize = 25;
/// The columns that hubferry adds, from this one on.
const FIRST_OWN: &str = "_line";
const OWN: usize = 4;

/// A rejects file.
#[derive(Debug, PartialEq)]
pub(super) struct Rejects {
    /// The source's columns, and the four of hubferry's.
    header: Vec<String>,
    /// Where hubferry's begin.
    own_at: usize,
    rows: Vec<Vec<String>>,
}

/// One reject.
pub(super) struct Reject<'a> {
    /// The cells of the source.
    pub(super) cells: &'a [String],
    pub(super) line: &'a str,
    pub(super) code: &'a str,
    pub(super) reason: &'a str,
    pub(super) hint: &'a str,
}

impl Rejects {
    /// The rejects of a run; `None` where there are none, or they cannot be shown as a table.
    pub(super) fn of(stage: &Stage, report: &Report) -> Option<Self> {
        let at = Location::parse(report.rejects.as_deref()?)?;
        let bytes = stage.cloud.s3().read(&at.bucket, &at.key)?;
        (bytes.len() <= SHOWN_BYTES_MAX && at.key.ends_with(".csv")).then(|| Self::read(&bytes))?
    }

    /// Reads one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
        let header: Vec<String> = reader.headers().ok()?.iter().map(str::to_owned).collect();
        let own_at = header.iter().rposition(|name| name == FIRST_OWN)?;
        let rows = reader.records().filter_map(Result::ok).map(|row| row.iter().map(str::to_owned).collect());
        Some(Self { rows: rows.collect(), header, own_at })
    }

    /// The source's columns.
    pub(super) fn columns(&self) -> &[String] {
        self.header.get(..self.own_at).unwrap_or_default()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Those on a page, with their numbers, from 0 on.
    pub(super) fn page(&self, page: usize) -> impl Iterator<Item = (usize, Reject<'_>)> {
        let first = page.saturating_sub(1).saturating_mul(PER_PAGE);
        self.rows.iter().enumerate().skip(first).take(PER_PAGE).map(|(number, row)| {
            let cell = |offset: usize| row.get(self.own_at + offset).map(String::as_str).unwrap_or_default();
            let cells = row.get(..self.own_at.min(row.len())).unwrap_or_default();
            (number, Reject { cells, line: cell(0), code: cell(1), reason: cell(2), hint: cell(3) })
        })
    }

    /// The page's rows as a file, with what was changed: (row, column) to the new text. The header and hubferry's four columns stay, so that
    /// the import knows the file for what it is, and undoes what made its cells harmless.
    pub(super) fn corrected(&self, page: usize, changes: &BTreeMap<(usize, usize), String>) -> Option<Vec<u8>> {
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        writer.write_record(&self.header).ok()?;
        let first = page.saturating_sub(1).saturating_mul(PER_PAGE);
        for (number, row) in self.rows.iter().enumerate().skip(first).take(PER_PAGE) {
            let mut row = row.clone();
            row.resize(row.len().max(self.own_at + OWN), String::new());
            for (column, cell) in row.iter_mut().enumerate().take(self.own_at) {
                if let Some(text) = changes.get(&(number, column)) {
                    text.clone_into(cell);
                }
            }
            // A row that was too long is whole again without what was too much.
            row.truncate(self.own_at + OWN);
            writer.write_record(&row).ok()?;
        }
        writer.into_inner().ok()
    }
}

/// Where corrected rows go: beside the source, under a name that tells.
pub(super) fn corrected_key(source: &str) -> String {
    let (folder, name) = source.rsplit_once('/').map_or(("", source), |(folder, name)| (folder, name));
    let (stem, end) = name.split_once('.').unwrap_or((name, ""));
    let stem = stem.strip_suffix("-corrected").unwrap_or(stem);
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let end = if end.is_empty() { String::new() } else { format!(".{end}") };
    format!("{folder}{stem}-corrected{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"Email,Name,_line,_code,_reason,_hint\nx@,X,2,INVALID_EMAIL,no domain,Correct it.\n,\"a,b\",3,KEY_BLANK,blank,Fill it.\n";

    #[test]
    fn a_corrected_page_keeps_everything_but_what_was_changed() {
        let rejects = Rejects::read(FILE).unwrap();
        assert_eq!((rejects.columns(), rejects.len()), (&["Email".to_owned(), "Name".to_owned()][..], 2));
        let changes = BTreeMap::from([((0, 0), "x@example.com".to_owned()), ((1, 9), "nowhere".to_owned())]);
        let text = String::from_utf8(rejects.corrected(1, &changes).unwrap()).unwrap();
        assert_eq!(
            text,
            "Email,Name,_line,_code,_reason,_hint\nx@example.com,X,2,INVALID_EMAIL,no domain,Correct it.\n,\"a,b\",3,KEY_BLANK,blank,Fill it.\n"
        );
        assert_eq!(rejects.page(2).count(), 0);
    }

    #[test]
    fn a_file_that_is_no_rejects_file_is_none() {
        assert_eq!(Rejects::read(b"a,b\n1,2\n"), None);
        assert_eq!(Rejects::read(b""), None);
    }

    #[test]
    fn corrected_rows_go_beside_their_source() {
        for (source, corrected) in [
            ("incoming/contacts/a.csv", "incoming/contacts/a-corrected.csv"),
            ("incoming/contacts/a-corrected.csv", "incoming/contacts/a-corrected.csv"),
            ("a.csv.gz", "a-corrected.csv.gz"),
            ("in/a", "in/a-corrected"),
        ] {
            assert_eq!(corrected_key(source), corrected);
        }
    }
}
