use proptest::prelude::*;

use super::*;

fn dialect() -> Dialect {
    Dialect::default()
}

fn read_from(dialect: &Dialect, bytes: &[u8], start: Start, columns: Option<usize>, piece: usize) -> Vec<Record> {
    let mut reader = RecordReader::new(dialect, start);
    if let Some(columns) = columns {
        reader.expect_columns(columns);
    }
    let mut records = Vec::new();
    for piece in bytes[start.byte as usize..].chunks(piece.max(1)) {
        reader.feed(piece);
        while let Some(record) = reader.next() {
            records.push(record);
        }
    }
    reader.finish();
    while let Some(record) = reader.next() {
        records.push(record);
    }
    records
}

fn read(text: &[u8], columns: Option<usize>) -> Vec<Record> {
    read_from(&dialect(), text, Start::default(), columns, usize::MAX)
}

/// One line a record: `line [start,end) cell|cell CODE`.
fn shown(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| {
            let cells: Vec<&str> = record.cells.iter().collect();
            let code = record.fault.as_ref().map_or(String::new(), |fault| format!(" {}", fault.code));
            format!("{} [{},{}) {}{code}", record.line, record.start, record.end, cells.join("|"))
        })
        .collect()
}

#[track_caller]
fn check(text: &[u8], columns: Option<usize>, expected: &[&str]) {
    assert_eq!(shown(&read(text, columns)), expected);
}

#[test]
fn every_kind_of_line_end_ends_a_line_and_blank_lines_are_counted() {
    check(b"a,b\r\n\r\n1,2\r3,4\n\n\n5,6", Some(2), &["1 [0,5) a|b", "3 [7,11) 1|2", "4 [11,15) 3|4", "7 [17,20) 5|6"]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_cell() {
    check(b"\xef\xbb\xbfa,b\n1,2\n", None, &["1 [3,7) a|b", "2 [7,11) 1|2"]);
}

#[test]
fn quotes_hold_delimiters_line_ends_and_doubled_quotes() {
    check(
        b"a,b\n\"x,\r\ny\",\"say \"\"hi\"\"\"\n5\" nail,z\n",
        Some(2),
        &["1 [0,4) a|b", "2 [4,25) x,\r\ny|say \"hi\"", "4 [25,35) 5\" nail|z"],
    );
}

#[test]
fn text_after_a_closing_quote_rejects_that_line_only() {
    check(b"a,b\n\"5\" nail,x\n1,2\n", Some(2), &["1 [0,4) a|b", "2 [4,15) \"5\" nail|x BAD_QUOTE", "3 [15,19) 1|2"]);
}

#[test]
fn a_quote_that_never_closes_costs_one_line() {
    check(
        b"a,b\n1,\"two\n3,4\n5,6\n",
        Some(2),
        &["1 [0,4) a|b", "2 [4,11) 1|\"two UNTERMINATED_QUOTE", "3 [11,15) 3|4", "4 [15,19) 5|6"],
    );
}

#[test]
fn a_lone_quote_on_the_last_line_is_told_by_its_line() {
    check(b"a,b\n1,2\n\"", Some(2), &["1 [0,4) a|b", "2 [4,8) 1|2", "3 [8,9) \" UNTERMINATED_QUOTE"]);
}

#[test]
fn a_quote_that_swallows_lines_up_to_the_next_quote_costs_its_own_line_only() {
    let text = b"a,b,c\n1,2,\"x\n3,y,4\n5,z\",6\n7,8,9\n";
    check(
        text,
        Some(3),
        &[
            "1 [0,6) a|b|c",
            "2 [6,13) 1|2|\"x UNTERMINATED_QUOTE",
            "3 [13,19) 3|y|4",
            "4 [19,26) 5|z\"|6",
            "5 [26,32) 7|8|9",
        ],
    );
}

#[test]
fn ragged_rows_tell_both_counts_and_empty_cells_at_the_end_are_tolerated() {
    let records = read(b"a,b\n1\n1,2,3\n1,2,,\n", Some(2));
    let reasons: Vec<_> =
        records.iter().map(|record| record.fault.as_ref().map(|fault| fault.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [None, Some("the row has 1 cell, the header has 2"), Some("the row has 3 cells, the header has 2"), None,]
    );
    assert_eq!(records[3].cells.len(), 2);
}

#[test]
fn control_characters_and_broken_utf8_reject_the_row_and_name_the_cell() {
    let records = read(b"a,b\n1,x\0y\n\xff,2\n3,4\n", Some(2));
    assert_eq!(records[1].fault.as_ref().unwrap().reason, "cell 2 holds the control character U+0000");
    assert_eq!(records[2].fault.as_ref().unwrap().reason, "cell 1 holds bytes that are not UTF-8");
    assert_eq!(&*records[2].fault.as_ref().unwrap().code, "INVALID_ENCODING");
    assert_eq!(records[3].fault, None);
}

#[test]
fn a_row_over_the_limit_is_skipped_and_little_is_held_meanwhile() {
    let mut reader = RecordReader::new(&dialect(), Start::default());
    reader.feed(b"a,b\n1,");
    assert!(reader.next().is_some());
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..100 {
        reader.feed(&piece);
        assert_eq!(reader.next(), None);
        assert!(reader.buffer.len() <= ROW_BYTES_MAX + 2 * piece.len());
    }
    reader.feed(b"\n3,4\n");
    let large = reader.next().unwrap();
    assert_eq!((large.line, large.start, &*large.fault.unwrap().code), (2, 4, "ROW_TOO_LARGE"));
    assert_eq!(reader.next().unwrap().line, 3);
}

#[test]
fn a_quote_open_for_longer_than_a_row_may_be_costs_one_line() {
    let mut text = b"a,b\n1,\"x\n".to_vec();
    while text.len() < ROW_BYTES_MAX + 100 {
        text.extend_from_slice(b"1,2\n");
    }
    for piece in [usize::MAX, 4096] {
        let records = read_from(&dialect(), &text, Start::default(), Some(2), piece);
        let faults: Vec<_> = records.iter().filter(|record| record.fault.is_some()).map(|record| record.line).collect();
        assert_eq!((faults, records.len()), (vec![2], text.iter().filter(|byte| **byte == b'\n').count()));
    }
}

#[test]
fn a_row_of_exactly_the_limit_is_read() {
    for (extra, fault) in [(0, false), (1, true)] {
        let mut text = vec![b'x'; ROW_BYTES_MAX + extra];
        text.push(b'\n');
        assert_eq!(read(&text, None)[0].fault.is_some(), fault);
    }
}

#[test]
fn utf16_is_read_with_offsets_in_its_own_bytes() {
    let text = "\u{feff}a,b\r\nü,😀\nx,y";
    for big_endian in [false, true] {
        let bytes: Vec<u8> = text
            .encode_utf16()
            .flat_map(|unit| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect();
        let encoding = if big_endian { Encoding::Utf16Be } else { Encoding::Utf16Le };
        let dialect = Dialect { encoding, bom: true, ..dialect() };
        for piece in [1, 3, usize::MAX] {
            let records = read_from(&dialect, &bytes, Start::default(), Some(2), piece);
            assert_eq!(shown(&records), ["1 [2,12) a|b", "2 [12,22) ü|😀", "3 [22,28) x|y"]);
        }
    }
}

#[test]
fn a_surrogate_without_its_half_and_a_byte_too_many_reject_their_rows() {
    let mut bytes: Vec<u8> = [0x61, 0x0a, 0xd800, 0x0a, 0x62, 0x0a].into_iter().flat_map(u16::to_le_bytes).collect();
    bytes.push(0x63);
    let dialect = Dialect { encoding: Encoding::Utf16Le, ..dialect() };
    let records = read_from(&dialect, &bytes, Start::default(), None, 1);
    let ends: Vec<_> = records.iter().map(|record| (record.end, record.fault.is_some())).collect();
    assert_eq!(ends, [(4, false), (8, true), (12, false), (13, true)]);
}

#[test]
fn windows_1252_is_decoded_cell_by_cell() {
    let dialect = Dialect { encoding: Encoding::Windows1252, delimiter: ';', ..dialect() };
    let records = read_from(&dialect, b"a;b\nM\xfcller;\x80 5\n", Start::default(), Some(2), 1);
    assert_eq!(shown(&records)[1], "2 [4,15) Müller|€ 5");
}

#[test]
fn a_million_cells_in_a_row_are_one_ragged_row() {
    let text = vec![b','; ROW_BYTES_MAX];
    assert_eq!(read(&text, Some(2))[0].cells.get(1).unwrap(), "");
}

fn encode(rows: &[Vec<String>], delimiter: u8, crlf: bool) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .terminator(if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') })
        .from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).unwrap();
    }
    writer.into_inner().unwrap()
}

fn nasty() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"a"[..],
        b"\"",
        b"\"\"",
        b",",
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\xff",
        "ü".as_bytes(),
        b"\"x\"",
        b",\"",
        b"1,2\n",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

fn encodings() -> impl Strategy<Value = Encoding> {
    prop::sample::select(vec![Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be, Encoding::Windows1252])
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        rows in (1_usize..5).prop_flat_map(|width| {
            prop::collection::vec(prop::collection::vec("[a-z,;\"'\r\n\t ü😀]{0,6}", width), 1..8)
        }),
        delimiter in prop::sample::select(vec![b',', b';', b'\t', b'|']),
        crlf: bool,
        piece in 1_usize..9,
    ) {
        let text = encode(&rows, delimiter, crlf);
        let dialect = Dialect { delimiter: char::from(delimiter), ..dialect() };
        let records = read_from(&dialect, &text, Start::default(), Some(rows[0].len()), piece);
        let cells: Vec<Vec<String>> =
            records.iter().map(|record| record.cells.iter().map(str::to_owned).collect()).collect();
        prop_assert!(records.iter().all(|record| record.fault.is_none()));
        prop_assert_eq!(cells, rows);
    }

    #[test]
    fn well_formed_text_is_read_as_the_csv_crate_reads_it(text in "([a-z]{0,3}(,[a-z ]{0,3}){0,2}(\n|\r\n|\r)){0,9}") {
        let mut oracle = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let expected: Vec<Vec<String>> =
            oracle.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        let ours: Vec<Vec<String>> =
            read(text.as_bytes(), None).iter().map(|row| row.cells.iter().map(str::to_owned).collect()).collect();
        prop_assert_eq!(ours, expected);
    }

    #[test]
    fn pieces_of_any_size_make_the_same_records(text in nasty(), piece in 1_usize..7, encoding in encodings()) {
        let dialect = Dialect { encoding, ..dialect() };
        let whole = read_from(&dialect, &text, Start::default(), Some(2), usize::MAX);
        prop_assert_eq!(read_from(&dialect, &text, Start::default(), Some(2), piece), whole);
    }

    #[test]
    fn reading_can_start_again_after_any_record(text in nasty(), encoding in encodings()) {
        let dialect = Dialect { encoding, ..dialect() };
        let whole = read_from(&dialect, &text, Start::default(), Some(2), usize::MAX);
        let mut reader = RecordReader::new(&dialect, Start::default());
        reader.expect_columns(2);
        reader.feed(&text);
        reader.finish();
        for taken in 1..=whole.len() {
            reader.next();
            let at = reader.position();
            prop_assert_eq!(at.byte, whole[taken - 1].end);
            prop_assert_eq!(&read_from(&dialect, &text, at, Some(2), 1)[..], &whole[taken..]);
        }
    }

    #[test]
    fn every_line_of_any_bytes_is_in_a_record_or_blank(bytes in prop_oneof![nasty(), prop::collection::vec(any::<u8>(), 0..200)]) {
        let records = read_from(&dialect(), &bytes, Start::default(), Some(2), 3);
        let mut at = 0;
        for record in &records {
            let gap = &bytes[at as usize..record.start as usize];
            let gap = if at == 0 { gap.strip_prefix(UTF8_BOM).unwrap_or(gap) } else { gap };
            prop_assert!(gap.iter().all(|byte| matches!(byte, b'\r' | b'\n')));
            prop_assert!(record.end > record.start);
            // The line is as many as there are line ends before it.
            let before = String::from_utf8_lossy(&bytes[..record.start as usize]).replace("\r\n", "\n");
            prop_assert_eq!(record.line as usize, before.matches(['\r', '\n']).count() + 1);
            at = record.end;
        }
        let gap = &bytes[at as usize..];
        let gap = if at == 0 { gap.strip_prefix(UTF8_BOM).unwrap_or(gap) } else { gap };
        prop_assert!(gap.iter().all(|byte| matches!(byte, b'\r' | b'\n')));
    }
}
