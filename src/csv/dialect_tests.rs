use proptest::prelude::*;

use super::*;

fn hints() -> Hints<'static> {
    Hints { is_known: &|name| name.eq_ignore_ascii_case("email") }
}

fn detected(sample: &[u8]) -> Dialect {
    detect(sample, true, &CsvSettings::default(), &hints()).unwrap()
}

fn refused(sample: &[u8]) -> Error {
    detect(sample, true, &CsvSettings::default(), &hints()).unwrap_err()
}

#[test]
fn the_delimiter_is_the_one_the_records_agree_on() {
    for (sample, delimiter) in [
        ("a,b\n1,2\n", ','),
        ("Name;Price\nx;1,5\ny;2,5\n", ';'),
        ("a\tb c, d\n1\t2\n", '\t'),
        ("a|b\n1|2\n", '|'),
        ("Name\nMiller, Ann\n", ','),
        ("a;b\n\"x,y,z\";1\n\"p,q,r\";2\n", ';'),
        ("one\ntwo\n", ','),
        ("", ','),
    ] {
        assert_eq!(detected(sample.as_bytes()).delimiter, delimiter, "{sample:?}");
    }
}

#[test]
fn single_quotes_are_quotes_only_where_they_come_in_pairs() {
    assert_eq!(detected(b"'a','b'\n'x, y','z'\n").quote, '\'');
    assert_eq!(detected(b"a,b\n'tis,x\nO'Neil,y\n").quote, '"');
    assert_eq!(detected(b"a,b\n'x','y'\n\"p\",q\n").quote, '"');
}

#[test]
fn the_encoding_is_told_by_mark_or_content() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
    for (sample, encoding, bom) in [
        ("ä,b\n".as_bytes().to_vec(), Encoding::Utf8, false),
        ("\u{feff}a,b\n".as_bytes().to_vec(), Encoding::Utf8, true),
        (b"a,M\xfcller\n".to_vec(), Encoding::Windows1252, false),
        (utf16("\u{feff}a,b\n"), Encoding::Utf16Le, true),
        (big("\u{feff}a,b\n"), Encoding::Utf16Be, true),
        (utf16("a,b\n1,ü\n"), Encoding::Utf16Le, false),
        (big("a,b\n1,ü\n"), Encoding::Utf16Be, false),
        ("ä".repeat(20).into_bytes().into_iter().chain([0xc3]).collect(), Encoding::Utf8, false),
    ] {
        let dialect = detected(&sample);
        assert_eq!((dialect.encoding, dialect.bom), (encoding, bom), "{sample:?}");
    }
}

#[test]
fn one_broken_byte_among_many_good_characters_leaves_the_file_utf8() {
    let mut sample = "Müller,ä\n".repeat(20).into_bytes();
    sample.extend(b"\xff,x\n");
    assert_eq!(detected(&sample).encoding, Encoding::Utf8);
}

#[test]
fn the_first_record_is_a_header_unless_it_looks_like_data() {
    for (sample, header) in [
        ("Email,5\n", true),
        ("Name,City\nx,y\n", true),
        ("Name,City,\nx,y,\n", true),
        ("ann@example.com,x\n", false),
        ("Ann,2024-01-31\n", false),
        ("Ann,\"1,234.50\"\n", false),
        ("Ann,,x\n", false),
    ] {
        assert_eq!(detected(sample.as_bytes()).header, header, "{sample:?}");
    }
}

#[test]
fn settings_win_over_what_would_be_detected() {
    let settings = CsvSettings {
        delimiter: Some(';'),
        quote: Some('\''),
        header: Some(false),
        encoding: Some(Encoding::Windows1252),
    };
    let dialect = detect(b"Email,b\n1,2\n", true, &settings, &hints()).unwrap();
    assert_eq!((dialect.delimiter, dialect.quote, dialect.header), (';', '\'', false));
    assert_eq!(dialect.encoding, Encoding::Windows1252);
    let wrong = CsvSettings { delimiter: Some('§'), ..CsvSettings::default() };
    assert_eq!(detect(b"a\n", true, &wrong, &hints()).unwrap_err().code(), codes::CONFIG_INVALID);
}

#[test]
fn a_reject_file_is_read_as_it_was_written_whatever_the_settings_say() {
    let settings = CsvSettings { delimiter: Some(';'), header: Some(false), ..CsvSettings::default() };
    let dialect = detect(b"a,b,_line,_code,_reason,_hint\n", true, &settings, &hints()).unwrap();
    assert_eq!((dialect.delimiter, dialect.header, dialect.rejects), (',', true, true));
}

#[test]
fn another_kind_of_file_is_named() {
    let mut tar = vec![b'a'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    for (sample, kind) in [
        (&b"\x89PNG\r\n\x1a\n\0\0"[..], "a PNG image"),
        (b"PK\x03\x04....[Content_Types].xml....xl/workbook.xml", "an Excel workbook (.xlsx)"),
        (b"PK\x03\x04....a.csv", "a zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls"),
        (b"PAR1....", "a Parquet file"),
        (b"BZh91AY&SY..", "bzip2"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\n <!DOCTYPE html><html>", "an HTML page"),
        (b"\xef\xbb\xbf<?xml version=\"1.0\"?>", "an XML document"),
        (b"{\"a\":1}\n{\"a\":2}\n", "JSON"),
        (b"[\n {\"a\":1}]", "JSON"),
        (&[1; 64], "binary data"),
        (&tar, "a tar archive"),
    ] {
        let error = refused(sample);
        assert_eq!(error.code(), codes::SOURCE_NOT_TABULAR);
        assert!(error.message().contains(kind), "{error}");
    }
    assert!(refused(b"PK\x03\x04 xl/").hint().contains("save the sheet as CSV"));
}

#[test]
fn two_thousand_columns_are_too_many_and_a_thousand_are_not() {
    assert_eq!(refused("x,".repeat(2_000).as_bytes()).code(), codes::TOO_MANY_COLUMNS);
    let thousand = vec!["x"; COLUMNS_MAX].join(",");
    assert_eq!(detected(thousand.as_bytes()).delimiter, ',');
}

#[test]
fn a_dialect_is_stored_and_read_again() {
    let dialect = Dialect { delimiter: '\t', encoding: Encoding::Utf16Le, bom: true, ..Dialect::default() };
    let stored = serde_json::to_string(&dialect).unwrap();
    assert_eq!(serde_json::from_str::<Dialect>(&stored).unwrap(), dialect);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(sample in prop::collection::vec(any::<u8>(), 0..300), whole: bool) {
        let _ = detect(&sample, whole, &CsvSettings::default(), &hints());
    }
}
