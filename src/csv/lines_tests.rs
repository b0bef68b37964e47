use proptest::prelude::*;

use super::*;

fn read_from(bytes: &[u8], start: Start, piece: usize) -> Vec<JsonRecord> {
    let mut reader = JsonLines::new(start);
    let mut records = Vec::new();
    for piece in bytes[start.byte as usize..].chunks(piece) {
        reader.feed(piece);
        records.extend(std::iter::from_fn(|| reader.next()));
    }
    reader.finish();
    records.extend(std::iter::from_fn(|| reader.next()));
    records
}

fn read(text: &str) -> Vec<JsonRecord> {
    read_from(text.as_bytes(), Start::default(), usize::MAX)
}

#[test]
fn values_become_the_text_of_cells() {
    let text =
        "\u{feff}{\"a\":\"x\\u00fc\\n\", \"b\" : 1.50,\"c\":true,\"d\":null,\"e\":12345678901234567890123}\r\n{}\n";
    let records = read(text);
    let fields: Vec<_> = records[0].fields.iter().map(|(name, cell)| format!("{name}={cell}")).collect();
    assert_eq!(fields, ["a=xü\n", "b=1.50", "c=true", "d=", "e=12345678901234567890123"]);
    assert_eq!((records[1].line, &records[1].fault, records[1].fields.len()), (2, &None, 0));
}

#[test]
fn a_bad_line_is_a_fault_and_the_rest_goes_on() {
    let lines = [
        "{\"a\":1}",
        "[1]",
        "{\"a\":{}}",
        "{\"a\":[1]}",
        "{\"a\":01}",
        "{\"a\":1",
        "{\"a\":1}x",
        "{a:1}",
        "{\"a\":1,}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":\"x",
        "{\"a\":nul}",
        "",
        "{\"a\":-0.5e+3}",
    ];
    let records = read(&lines.join("\n"));
    for record in &records {
        assert_eq!(record.fault.is_some(), !matches!(record.line, 1 | 14), "line {}", record.line);
        if let Some(fault) = &record.fault {
            assert_eq!(&*fault.code, "INVALID_JSON");
            assert_eq!(record.raw, lines[record.line as usize - 1]);
        }
    }
    assert_eq!(records.len(), 13);
    assert_eq!(records[12].get("a"), Some("-0.5e+3"));
}

#[test]
fn broken_utf8_and_lines_over_the_limit_are_faults() {
    let mut text = b"{\"a\":\"\xff\"}\n{\"a\":\"".to_vec();
    text.extend(vec![b'x'; ROW_BYTES_MAX]);
    text.extend(b"\"}\n{\"a\":1}");
    for piece in [4096, usize::MAX] {
        let records = read_from(&text, Start::default(), piece);
        let codes: Vec<_> = records.iter().map(|record| record.fault.as_ref().map(|fault| &*fault.code)).collect();
        assert_eq!(codes, [Some("INVALID_ENCODING"), Some("ROW_TOO_LARGE"), None]);
        assert_eq!((records[2].line, records[2].end), (3, text.len() as u64));
    }
}

proptest! {
    #[test]
    fn pieces_and_restarts_make_the_same_records(text in "([{}\":,a1\\\\ ü\r]{0,8}|\\{\"a\":1\\})(\n\n?([{}\":,a1]{0,8}|\\{\"b\":\"x\"\\})){0,5}") {
        let whole = read(&text);
        prop_assert_eq!(&read_from(text.as_bytes(), Start::default(), 1), &whole);
        let mut reader = JsonLines::new(Start::default());
        reader.feed(text.as_bytes());
        reader.finish();
        for taken in 1..=whole.len() {
            reader.next();
            prop_assert_eq!(&read_from(text.as_bytes(), reader.position(), 2)[..], &whole[taken..]);
        }
    }

    #[test]
    fn what_another_writer_wrote_is_read(name in ".{0,5}", text in ".{0,9}", number: i64, yes: bool) {
        prop_assume!(name != "n" && name != "y");
        let line = serde_json::json!({ name.clone(): text.clone(), "n": number, "y": yes }).to_string();
        let records = read(&line);
        prop_assert_eq!(records[0].get(&name), Some(&text[..]));
        prop_assert_eq!(records[0].get("n"), Some(&number.to_string()[..]));
        prop_assert_eq!(records[0].get("y"), Some(&yes.to_string()[..]));
    }
}
