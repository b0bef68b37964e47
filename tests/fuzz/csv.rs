//! Files: any bytes, any dialect, any split.

use hubferry::{
    config::{CsvSettings, Encoding},
    csv::{
        dialect::{Dialect, Hints, detect},
        records::{Record, RecordReader, Start},
    },
};

use super::fuzz;

const WORDS: [&[u8]; 22] = [
    b"\"",
    b"\"\"",
    b",",
    b";",
    b"\t",
    b"|",
    b"\n",
    b"\r\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\0",
    b"\x80",
    b"\xc3\xbc",
    b"\xf0\x9f\x98\x80",
    b"a",
    b",\"",
    b"\",",
    b"\"\r\n",
    b"_line,_code,_reason,_hint",
    b" ",
];

fn read(dialect: &Dialect, bytes: &[u8], start: Start, piece: usize) -> Vec<Record> {
    let mut reader = RecordReader::new(dialect, start);
    let mut records = Vec::new();
    for piece in bytes[usize::try_from(start.byte).unwrap()..].chunks(piece.max(1)) {
        reader.feed(piece);
        records.extend(std::iter::from_fn(|| reader.next()));
    }
    reader.finish();
    records.extend(std::iter::from_fn(|| reader.next()));
    records
}

fn cells(records: &[Record]) -> Vec<Vec<String>> {
    records.iter().map(|record| record.cells.iter().map(str::to_owned).collect()).collect()
}

/// A file's records are the same however its bytes come, and wherever reading begins again.
fn pieces_agree(dialect: &Dialect, bytes: &[u8]) -> Vec<Record> {
    let whole = read(dialect, bytes, Start::default(), usize::MAX);
    // Different splits for different inputs, the same for the same.
    let some = bytes.iter().fold(bytes.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    for piece in [1, 2 + some % 7] {
        assert_eq!(read(dialect, bytes, Start::default(), piece), whole, "in pieces of {piece}");
    }
    if let Some(record) = whole.get(some % whole.len().max(1)) {
        let after = some % whole.len() + 1;
        // A record's own line is only known by counting: ask the reader.
        let mut reader = RecordReader::new(dialect, Start::default());
        reader.feed(bytes);
        reader.finish();
        for _ in 0..after {
            reader.next();
        }
        assert_eq!(reader.position().byte, record.end);
        assert_eq!(read(dialect, bytes, reader.position(), 3), whole[after..], "from record {after} on");
    }
    whole
}

#[test]
fn any_bytes_in_any_dialect_and_any_pieces_lose_nothing_and_read_as_the_csv_crate_reads_them() {
    let compared = std::cell::Cell::new(0_u64);
    let tried = fuzz("csv", Vec::new(), &WORDS, |input| {
        let (choice, bytes) = input.split_first().map_or((0, input), |(first, rest)| (*first, rest));
        let delimiter = [',', ';', '\t', '|'][usize::from(choice) % 4];
        let quote = if choice & 4 == 0 { '"' } else { '\'' };
        let dialect = Dialect { delimiter, quote, ..Dialect::default() };
        for encoding in [Encoding::Utf16Le, Encoding::Utf16Be, Encoding::Windows1252] {
            pieces_agree(&Dialect { encoding, ..dialect.clone() }, bytes);
        }
        let records = pieces_agree(&dialect, bytes);
        // Every byte is in a record, or is a line end between two.
        let mut at = 0;
        for (start, end) in
            records.iter().map(|record| (record.start, record.end)).chain([(bytes.len() as u64, bytes.len() as u64)])
        {
            let gap = &bytes[usize::try_from(at).unwrap()..usize::try_from(start).unwrap()];
            let gap = if at == 0 { gap.strip_prefix(b"\xef\xbb\xbf").unwrap_or(gap) } else { gap };
            assert!(gap.iter().all(|byte| matches!(byte, b'\r' | b'\n')), "bytes {at} to {start} are in no record");
            at = end;
        }
        for record in &records {
            let before =
                String::from_utf8_lossy(&bytes[..usize::try_from(record.start).unwrap()]).replace("\r\n", "\n");
            assert_eq!(
                usize::try_from(record.line).unwrap(),
                before.matches(['\r', '\n']).count() + 1,
                "the record at {}",
                record.start
            );
        }
        // What both take for well-formed text is the same to both.
        if records.iter().any(|record| record.fault.is_some()) || std::str::from_utf8(bytes).is_err() {
            return;
        }
        compared.set(compared.get() + 1);
        let mut oracle = ::csv::ReaderBuilder::new();
        let oracle = oracle.has_headers(false).flexible(true).delimiter(u8::try_from(delimiter).unwrap());
        let mut oracle = oracle.quote(u8::try_from(quote).unwrap()).from_reader(bytes);
        let expected: Vec<Vec<String>> =
            oracle.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        assert_eq!(cells(&records), expected);
    });
    assert!(compared.get() * 10 > tried, "{} of {tried} inputs were compared: the others prove less", compared.get());
}

#[test]
fn whatever_a_file_is_taken_for_is_readable_and_said_twice_alike() {
    fuzz("dialect", super::corpus("csv"), &WORDS, |bytes| {
        for known in [false, true] {
            let hints = Hints { is_known: &|name| known && (name == "email" || name == "a") };
            for whole in [false, true] {
                let settings = CsvSettings::default();
                let first = detect(bytes, whole, &settings, &hints);
                let again = detect(bytes, whole, &settings, &hints);
                match (first, again) {
                    (Ok(dialect), Ok(again)) => {
                        assert_eq!(dialect, again);
                        assert!(
                            dialect.delimiter.is_ascii()
                                && dialect.quote.is_ascii()
                                && dialect.delimiter != dialect.quote
                        );
                        pieces_agree(&dialect, bytes);
                    }
                    (Err(error), Err(again)) => {
                        assert_eq!(error.code(), again.code());
                        // A refusal names the kind of file, never what is in it.
                        assert!(error.message().len() < 400, "{error}");
                    }
                    (first, again) => panic!("{first:?} and then {again:?}"),
                }
            }
        }
    });
}

/// What a table looks like in each dialect is found out again.
#[test]
fn a_table_that_another_writer_wrote_is_found_out_and_read_back() {
    // Each byte of the input chooses a cell: all that varies is a table.
    const CELLS: [&str; 12] =
        ["", "ada@x.io", "Ada", "a b", "1,5", "x;y", "say \"hi\"", "ü", "two\nlines", "007", "-", "Berlin|Bonn"];
    fuzz("dialect", Vec::new(), &[], |input| {
        let Some((&choice, rest)) = input.split_first() else { return };
        let delimiter = [b',', b';', b'\t', b'|'][usize::from(choice) % 4];
        let width = 2 + usize::from(choice / 4) % 4;
        let header: Vec<String> =
            (0..width).map(|at| ["email", "firstname", "city", "note", "phone"][at].to_owned()).collect();
        let mut rows = vec![header];
        for row in rest.chunks_exact(width).take(40) {
            // A row of blanks is a blank line to some.
            let row: Vec<String> = row.iter().map(|byte| CELLS[usize::from(*byte) % CELLS.len()].to_owned()).collect();
            rows.push([vec!["ada@x.io".to_owned()], row[1..].to_vec()].concat());
        }
        let mut writer = ::csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let bytes = writer.into_inner().unwrap();
        let hints = Hints { is_known: &|name| ["email", "firstname", "city"].contains(&name) };
        let dialect = detect(&bytes, true, &CsvSettings::default(), &hints).unwrap();
        assert_eq!((dialect.delimiter, dialect.quote, dialect.header), (char::from(delimiter), '"', true));
        assert_eq!(cells(&read(&dialect, &bytes, Start::default(), usize::MAX)), rows);
    });
}
