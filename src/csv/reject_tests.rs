use proptest::prelude::*;

use super::{
    super::{
        dialect::Dialect,
        records::{RecordReader, Start},
    },
    *,
};
use crate::{codes, record::Reason};

fn reject(cells: &[&str]) -> Reject {
    Reject {
        line: 7,
        cells: cells.iter().collect(),
        reason: Reason::with_hint(codes::KEY_BLANK, "no key", "fill, it in"),
    }
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn read_back(text: &[u8]) -> Vec<Cells> {
    let mut reader = RecordReader::new(&Dialect::default(), Start::default());
    reader.feed(text);
    reader.finish();
    std::iter::from_fn(|| reader.next()).map(|record| record.cells).collect()
}

#[test]
fn a_reject_keeps_its_cells_and_says_where_and_why() {
    let columns = columns(&["Email", "Note"]);
    assert_eq!(header_line(&columns), b"Email,Note,_line,_code,_reason,_hint\n");
    let line = reject_line(&reject(&["a@b.c", "x \"y\", z"]), &columns);
    assert_eq!(String::from_utf8(line).unwrap(), "a@b.c,\"x \"\"y\"\", z\",7,KEY_BLANK,no key,\"fill, it in\"\n");
}

#[test]
fn short_rows_are_filled_and_surplus_cells_follow_the_hint() {
    let columns = columns(&["a", "b"]);
    assert_eq!(reject_line(&reject(&["1"]), &columns), b"1,,7,KEY_BLANK,no key,\"fill, it in\"\n");
    assert_eq!(reject_line(&reject(&["1", "2", "3"]), &columns), b"1,2,7,KEY_BLANK,no key,\"fill, it in\",3\n");
}

#[test]
fn formulas_are_made_harmless_and_numbers_are_left() {
    for (cell, written) in [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-5", "-5"),
        ("-5,20", "\"-5,20\""),
        ("+4915112345678", "+4915112345678"),
        ("-", "'-"),
        ("+49 30 1", "'+49 30 1"),
        ("\tx", "'\tx"),
        ("'=x", "''=x"),
        ("'tis", "'tis"),
    ] {
        let line = String::from_utf8(reject_line(&reject(&[cell]), &columns(&["a"]))).unwrap();
        assert!(line.starts_with(&format!("{written},7,")), "{cell:?} became {line:?}");
    }
}

#[test]
fn a_file_is_ours_only_if_its_header_ends_with_our_columns() {
    let ours: Cells = ["a", "_line", "_code", "_reason", "_hint"].iter().collect();
    assert_eq!(RejectColumns::detect(&ours).unwrap().indices(), 1..5);
    let padded: Cells = ["a", "_line", "_code", "_reason", "_hint", "", ""].iter().collect();
    let found = RejectColumns::detect(&padded).unwrap();
    let row: Cells = ["1", "7", "X", "y", "z", "", ""].iter().collect();
    assert_eq!(found.strip(&row), ["1"].iter().collect());
    let other: Cells = ["_line", "_code", "_reason", "_hint", "a"].iter().collect();
    assert_eq!(RejectColumns::detect(&other), None);
    assert_eq!(RejectColumns::detect(&Cells::default()), None);
}

proptest! {
    #[test]
    fn any_cells_come_back_as_they_were(
        rows in prop::collection::vec(prop::collection::vec("('{0,2}[=+@\t\r\n-]?)[0-9a-z,\"' ü]{0,4}", 3..6), 1..5),
    ) {
        let columns = columns(&["=a", "'b", "c"]);
        let mut text = header_line(&columns);
        for row in &rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            text.extend(reject_line(&reject(&cells), &columns));
        }
        let read = read_back(&text);
        let ours = RejectColumns::detect(&read[0]).unwrap();
        prop_assert_eq!(ours.strip(&read[0]), columns.iter().collect::<Cells>());
        let back: Vec<Cells> = read[1..].iter().map(|row| ours.strip(row)).collect();
        prop_assert_eq!(back, rows.iter().map(|row| row.iter().collect::<Cells>()).collect::<Vec<_>>());
    }
}

#[test]
fn the_file_of_a_capture_is_recognised_and_keeps_all_its_columns() {
    let header: Cells = CAPTURE_LEADING.into_iter().chain(["note"]).chain(CAPTURE_TRAILING).collect();
    let found = RejectColumns::detect(&header).unwrap();
    assert!(!found.are_rejects() && found.indices().is_empty());
    assert_eq!(found.strip(&header), header);
    let row: Cells = ["update", "1", "", "", "false", "", "", "", "'=1+1", "", "{}"].iter().collect();
    assert_eq!(found.strip(&row).get(8), Some("=1+1"));
    // Rejects of it are rejects, and what is left is not stripped a second time.
    let rejects: Cells = header.iter().chain(REJECT_COLUMNS).collect();
    assert_eq!(RejectColumns::detect(&rejects).unwrap().indices(), 11..15);
    let without_more: Cells = CAPTURE_LEADING.into_iter().chain(["note", "_associations"]).collect();
    assert_eq!(RejectColumns::detect(&without_more), None);
    let short: Cells = CAPTURE_TRAILING.into_iter().collect();
    assert_eq!(RejectColumns::detect(&short), None);
}
