use std::io::Read;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    super::change::{Cause, Operation},
    *,
};
use crate::{
    config::CsvSettings,
    csv::{
        Cells, RejectColumns,
        dialect::{Dialect, Hints, detect},
        records::{RecordReader, Start},
    },
    hubspot::model::PropertyDefinition,
};

fn definition(name: &str, kind: &str) -> PropertyDefinition {
    PropertyDefinition { name: name.to_owned(), kind: kind.to_owned(), ..PropertyDefinition::default() }
}

fn columns(definitions: &[(&str, &str)]) -> Rc<Columns> {
    let definitions: Vec<_> = definitions.iter().map(|(name, kind)| definition(name, kind)).collect();
    Rc::new(Columns::new(&definitions))
}

fn layout(format: CaptureFormat, compression: Compression, columns: &Rc<Columns>) -> Layout {
    Layout { format, compression, collection: "crm.contacts".to_owned(), columns: Rc::clone(columns) }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn change(id: &str, properties: Value) -> Change {
    let after = json!({
        "id": id, "properties": properties,
        "createdAt": "2026-01-02T03:04:05.678Z", "updatedAt": "2026-01-02T03:04:06Z", "archived": false,
    });
    Change {
        operation: Operation::Update,
        cause: None,
        id: id.to_owned(),
        created_at: Some("2026-01-02T03:04:05.678Z".parse().unwrap()),
        updated_at: Some("2026-01-02T03:04:06Z".parse().unwrap()),
        read_at: "2026-01-02T03:05:00.000000001Z".parse().unwrap(),
        before: None,
        after: Some(object(after)),
        position: "{}".to_owned(),
    }
}

fn merged() -> Change {
    Change {
        operation: Operation::Delete,
        cause: Some(Cause::Merge { into: "9".to_owned() }),
        after: None,
        ..change("7", json!({}))
    }
}

fn write(format: CaptureFormat, compression: Compression, columns: &Rc<Columns>, changes: &[Change]) -> Bytes {
    let mut encoder = layout(format, compression, columns).encoder().unwrap();
    for change in changes {
        encoder.push(change).unwrap();
    }
    assert_eq!(encoder.records(), changes.len() as u64);
    encoder.finish().unwrap()
}

fn write_text(format: CaptureFormat, columns: &Rc<Columns>, changes: &[Change]) -> String {
    String::from_utf8(write(format, Compression::None, columns, changes).to_vec()).unwrap()
}

fn json_lines(columns: &Rc<Columns>, changes: &[Change]) -> Vec<Value> {
    let text = write_text(CaptureFormat::Jsonl, columns, changes);
    text.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The rows as hubferry's own reader gives them to an import: the header first.
fn csv_rows(text: &[u8]) -> Vec<Vec<String>> {
    let dialect = detect(text, true, &CsvSettings::default(), &Hints { is_known: &|_| false }).unwrap();
    assert!(dialect.header && !dialect.rejects);
    let mut reader = RecordReader::new(&dialect, Start::default());
    reader.feed(text);
    reader.finish();
    let records: Vec<Cells> = std::iter::from_fn(|| reader.next()).map(|record| record.cells).collect();
    let ours = RejectColumns::detect(&records[0]).expect("the file is recognised");
    records.iter().map(|cells| ours.strip(cells).iter().map(str::to_owned).collect()).collect()
}

#[test]
fn names_and_media_types_say_format_and_compression() {
    let columns = columns(&[]);
    for (format, compression, extension, media_type) in [
        (CaptureFormat::Opencdc, Compression::Zstd, "jsonl.zst", "application/zstd"),
        (CaptureFormat::Opencdc, Compression::None, "jsonl", "application/x-ndjson"),
        (CaptureFormat::Jsonl, Compression::Gzip, "jsonl.gz", "application/gzip"),
        (CaptureFormat::Csv, Compression::Zstd, "csv.zst", "application/zstd"),
        (CaptureFormat::Csv, Compression::None, "csv", "text/csv; charset=utf-8"),
        (CaptureFormat::Parquet, Compression::Gzip, "parquet", "application/vnd.apache.parquet"),
    ] {
        let layout = layout(format, compression, &columns);
        assert_eq!((layout.extension().as_str(), layout.content_type()), (extension, media_type));
    }
}

#[test]
fn a_json_line_holds_our_members_then_the_columns_typed_where_nothing_is_lost() {
    let columns =
        columns(&[("email", "string"), ("amount", "number"), ("vip", "bool"), ("born", "date"), ("gone", "string")]);
    let text = write_text(
        CaptureFormat::Jsonl,
        &columns,
        &[change(
            "256",
            json!({"vip": "true", "email": "ada@example.com", "amount": "1.50", "born": "1815-12-10", "gone": null}),
        )],
    );
    assert_eq!(
        text,
        concat!(
            r#"{"_operation":"update","_id":"256","_created_at":"2026-01-02T03:04:05.678Z","_updated_at":"2026-01-02T03:04:06.000Z","#,
            r#""_archived":false,"_read_at":"2026-01-02T03:05:00.000Z","_change":null,"_merged_into":null,"#,
            r#""email":"ada@example.com","amount":1.50,"vip":true,"born":"1815-12-10","gone":null}"#,
            "\n"
        )
    );
}

#[test]
fn numbers_are_numbers_only_where_every_reader_gets_them_whole() {
    let columns = columns(&[("n", "number")]);
    for (text, number) in [
        ("0", true),
        ("-0.5", true),
        ("9007199254740992", true),
        ("9007199254740993", false),
        ("123456789012345678", false),
        ("0.30000000000000004", true),
        ("33.333333333333333333", false),
        ("1.0E10", true),
        ("1e400", false),
        ("1e-400", false),
        ("007", false),
        ("+1", false),
        (".5", false),
        ("1.", false),
        ("1,5", false),
        ("NaN", false),
        ("inf", false),
        (" 1", false),
        ("-", false),
        ("1e", false),
    ] {
        let line = write_text(CaptureFormat::Jsonl, &columns, &[change("1", json!({"n": text}))]);
        let written = if number { format!(r#""n":{text}}}"#) } else { format!(r#""n":"{text}"}}"#) };
        assert!(line.trim_end().ends_with(&written), "{text} became {line}");
    }
    let line = &json_lines(&columns, &[change("1", json!({"n": ""}))])[0];
    assert_eq!(line["n"], Value::Null, "empty text is no number");
}

#[test]
fn a_boolean_that_is_none_stays_text() {
    let columns = columns(&[("vip", "bool")]);
    let values = ["true", "false", "TRUE", "yes", ""].map(|value| change("1", json!({"vip": value})));
    let read: Vec<_> = json_lines(&columns, &values).into_iter().map(|line| line["vip"].clone()).collect();
    assert_eq!(read, [json!(true), json!(false), json!("TRUE"), json!("yes"), Value::Null]);
}

#[test]
fn a_delete_is_a_row_of_nulls_that_says_why() {
    let columns = columns(&[("email", "string")]);
    let line = &json_lines(&columns, &[merged()])[0];
    assert_eq!(
        (&line["_operation"], &line["_archived"], &line["_change"], &line["_merged_into"], &line["email"]),
        (&json!("delete"), &json!(true), &json!("merge"), &json!("9"), &Value::Null)
    );
    let rows = csv_rows(&write(CaptureFormat::Csv, Compression::None, &columns, &[merged()]));
    assert_eq!(rows[1][0], "delete");
    assert_eq!(rows[1][6..9], ["merge", "9", ""]);
}

#[test]
fn what_has_no_column_is_in_more_in_the_shape_of_the_object() {
    let columns = columns(&[("email", "string")]);
    let mut change = change("1", json!({"email": "a@b.c", "beyond": "x", "nothing": null}));
    let after = change.after.as_mut().unwrap();
    after.insert("url".to_owned(), json!("https://app.example.com/1"));
    after.insert(
        "associations".to_owned(),
        json!({"companies": {"results": [{"id": "5", "type": "contact_to_company"}]}}),
    );
    let expected = json!({"url": "https://app.example.com/1", "properties": {"beyond": "x"}});

    let line = &json_lines(&columns, std::slice::from_ref(&change))[0];
    assert_eq!(line["_more"], expected);
    assert_eq!(line["_associations"]["companies"]["results"][0]["id"], "5");

    let rows = csv_rows(&write(CaptureFormat::Csv, Compression::None, &columns, &[change]));
    let [associations, more] = [&rows[1][9], &rows[1][10]].map(|cell| serde_json::from_str::<Value>(cell).unwrap());
    assert_eq!(more, expected);
    assert_eq!(associations["companies"]["results"][0]["type"], "contact_to_company");
}

#[test]
fn a_time_that_could_not_be_read_is_kept_as_it_was() {
    let columns = columns(&[]);
    let mut change = change("1", json!({}));
    change.created_at = None;
    change.after.as_mut().unwrap().insert("createdAt".to_owned(), json!("the day before yesterday"));
    assert_eq!(json_lines(&columns, &[change])[0]["_more"], json!({"createdAt": "the day before yesterday"}));
}

#[test]
fn the_members_of_a_cms_object_stay_as_they_are() {
    let columns = Rc::new(Columns::cms("cms.blogs.posts"));
    let post = object(json!({
        "id": "77", "name": "Hello, \"World\"", "slug": null, "currentlyPublished": true, "_id": "theirs",
        "layoutSections": {"a": [1, 2.5, null]}, "created": "2026-01-02T03:04:05.678Z",
    }));
    let change = Change { after: Some(post.clone()), ..change("77", json!({})) };

    let line = &json_lines(&columns, std::slice::from_ref(&change))[0];
    for (name, value) in post.iter().filter(|(name, _)| *name != "_id") {
        assert_eq!(&line[name.as_str()], value, "{name}");
    }
    assert_eq!((&line["_id"], &line["__id"]), (&json!("77"), &json!("theirs")));

    let rows = csv_rows(&write(CaptureFormat::Csv, Compression::None, &columns, &[change]));
    let cell = |name: &str| &rows[1][rows[0].iter().position(|header| header == name).unwrap()];
    assert_eq!(
        (cell("name").as_str(), cell("slug").as_str(), cell("currentlyPublished").as_str()),
        ("Hello, \"World\"", "", "true")
    );
    let more: Value = serde_json::from_str(cell("_more")).unwrap();
    assert_eq!(more, json!({"_id": "theirs", "layoutSections": {"a": [1, 2.5, null]}}));
}

#[test]
fn the_header_of_a_csv_file_depends_on_the_definitions_alone() {
    let columns = columns(&[("b", "string"), ("a", "number")]);
    let empty = write_text(CaptureFormat::Csv, &columns, &[]);
    assert_eq!(
        empty,
        "_operation,_id,_created_at,_updated_at,_archived,_read_at,_change,_merged_into,b,a,_associations,_more\n"
    );
    let full = write_text(CaptureFormat::Csv, &columns, &[change("1", json!({"zzz": "1", "a": "2"})), merged()]);
    assert!(full.starts_with(&empty));
    let mut reader = ::csv::ReaderBuilder::new().from_reader(full.as_bytes());
    assert_eq!(reader.records().filter(|record| record.as_ref().unwrap().len() == 12).count(), 2);
}

#[test]
fn formulas_are_harmless_in_a_spreadsheet_and_come_back_whole() {
    let columns = columns(&[("note", "string"), ("=cmd", "string"), ("amount", "number")]);
    let notes = ["=1+1", "@SUM(A1)", "-", "+49 30 1", "'=x", "\tx", "a\r\nb,\"c\"", "ñosa 🦀", " ' ", "-5"];
    let changes: Vec<_> =
        notes.iter().map(|note| change("1", json!({"note": note, "=cmd": "=2", "amount": "-5"}))).collect();
    let text = write(CaptureFormat::Csv, Compression::None, &columns, &changes);
    for record in ::csv::ReaderBuilder::new().has_headers(false).from_reader(&text[..]).records() {
        for cell in &record.unwrap() {
            let runs = cell.starts_with(['=', '@', '\t', '\r'])
                || cell.starts_with(['+', '-']) && cell.parse::<f64>().is_err();
            assert!(!runs, "a spreadsheet would run {cell:?}");
        }
    }
    let rows = csv_rows(&text);
    assert_eq!(rows[0][9], "=cmd");
    for (row, note) in rows[1..].iter().zip(notes) {
        assert_eq!(row[8..11], [note, "=2", "-5"]);
    }
}

#[test]
fn odd_double_and_colliding_property_names_have_columns_of_their_own() {
    let columns = columns(&[
        ("_id", "string"),
        ("a,\"b\"\n", "string"),
        ("_id", "number"),
        ("__id", "string"),
        ("größe 🦀", "string"),
    ]);
    let names: Vec<_> = columns.names().map(str::to_owned).collect();
    assert_eq!(names[8..13], ["___id", "a,\"b\"\n", "__id", "größe 🦀", "_associations"]);
    let record = change("1", json!({"_id": "x", "a,\"b\"\n": "y", "__id": "z", "größe 🦀": "w"}));
    let line = &json_lines(&columns, std::slice::from_ref(&record))[0];
    assert_eq!([&line["___id"], &line["a,\"b\"\n"], &line["__id"], &line["größe 🦀"]], ["x", "y", "z", "w"]);
    assert_eq!(line["_id"], "1");
    let rows = csv_rows(&write(CaptureFormat::Csv, Compression::None, &columns, &[record]));
    assert_eq!(rows[0], names);
    assert_eq!(rows[1][8..12], ["x", "y", "z", "w"]);
}

#[test]
fn a_schema_change_is_another_fingerprint_and_nothing_else_is() {
    let base = columns(&[("a", "string"), ("b", "number")]).fingerprint();
    assert_eq!(base, columns(&[("a", "enumeration"), ("b", "number")]).fingerprint(), "both are text");
    assert_eq!(base.len(), 16);
    for other in [
        columns(&[("a", "string"), ("b", "string")]),
        columns(&[("b", "number"), ("a", "string")]),
        columns(&[("a", "string"), ("b", "number"), ("c", "string")]),
        columns(&[("a", "string")]),
        columns(&[("atext", "number"), ("b", "number")]),
        columns(&[]),
        Rc::new(Columns::cms("cms.blogs.tags")),
    ] {
        assert_ne!(base, other.fingerprint(), "{:?}", other.columns);
    }
    assert_ne!(columns(&[]).fingerprint(), Columns::cms("cms.unknown").fingerprint());
}

#[test]
fn ten_thousand_records_are_the_same_in_every_compression_and_each_time() {
    let columns = columns(&[("email", "string"), ("n", "number")]);
    let changes: Vec<_> = (0..10_000)
        .map(|n| change(&n.to_string(), json!({"email": format!("person{n}@example.com"), "n": n.to_string()})))
        .collect();
    for format in [CaptureFormat::Opencdc, CaptureFormat::Jsonl, CaptureFormat::Csv] {
        let plain = write(format, Compression::None, &columns, &changes);
        let lines = plain.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, if format == CaptureFormat::Csv { 10_001 } else { 10_000 });

        let gzip = write(format, Compression::Gzip, &columns, &changes);
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut inflated).unwrap();
        assert!(inflated == plain, "gzip holds something else");

        let zstd = write(format, Compression::Zstd, &columns, &changes);
        let mut rest = &zstd[..];
        let mut inflated = Vec::new();
        zstd::stream::read::Decoder::with_buffer(&mut rest).unwrap().single_frame().read_to_end(&mut inflated).unwrap();
        assert!(inflated == plain, "zstd holds something else");
        assert!(rest.is_empty(), "more than one frame");

        assert!(gzip.len() < plain.len() / 5 && zstd.len() < plain.len() / 5);
        assert_eq!(zstd, write(format, Compression::Zstd, &columns, &changes), "bytes depend on the changes alone");
    }
}

#[test]
fn an_encoder_says_how_much_has_gathered_whatever_the_compression() {
    let columns = columns(&[("note", "string")]);
    let record = change("1", json!({"note": "x".repeat(100_000)}));
    for format in [CaptureFormat::Opencdc, CaptureFormat::Jsonl, CaptureFormat::Csv, CaptureFormat::Parquet] {
        let mut encoder = layout(format, Compression::Zstd, &columns).encoder().unwrap();
        for _ in 0..200 {
            encoder.push(&record).unwrap();
        }
        let bytes = encoder.bytes();
        assert!((20_000_000..20_400_000).contains(&bytes), "{format:?}: {bytes}");
    }
}

#[test]
fn an_object_of_nothing_is_a_valid_object() {
    let columns = columns(&[("a", "string")]);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for format in [CaptureFormat::Opencdc, CaptureFormat::Jsonl, CaptureFormat::Csv] {
            let whole = write(format, compression, &columns, &[]);
            let mut inflated = Vec::new();
            match compression {
                Compression::None => inflated.extend_from_slice(&whole),
                Compression::Gzip => _ = flate2::read::GzDecoder::new(&whole[..]).read_to_end(&mut inflated).unwrap(),
                Compression::Zstd => inflated = zstd::decode_all(&whole[..]).unwrap(),
            }
            assert_eq!(
                inflated.iter().filter(|byte| **byte == b'\n').count(),
                usize::from(format == CaptureFormat::Csv)
            );
        }
    }
    // A record without anything, and one that is not shaped as expected.
    let mut odd = change("1", json!({}));
    odd.after = Some(object(json!({"properties": ["not", "an", "object"], "archived": "no"})));
    (odd.created_at, odd.updated_at) = (None, Some(Timestamp::MAX));
    let line = &json_lines(&columns, &[odd])[0];
    assert_eq!(line["_more"], json!({"properties": ["not", "an", "object"], "archived": "no"}));
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<String>().prop_map(Value::String),
        "[-+=@'0-9.,eE\t\r\n\"]{0,12}".prop_map(Value::String),
        any::<f64>().prop_map(|number| Value::String(number.to_string())),
        any::<i64>().prop_map(|number| Value::String(number.to_string())),
        any::<bool>().prop_map(|flag| Value::String(flag.to_string())),
    ]
}

proptest! {
    #[test]
    fn every_value_comes_back_from_json_lines_and_csv(
        names in proptest::collection::vec(any::<String>(), 4),
        values in proptest::collection::vec(any_value(), 4),
        id in any::<String>(),
    ) {
        let kinds = ["string", "number", "bool", "datetime"];
        // The last one has no column.
        let definitions: Vec<_> = names.iter().zip(kinds).take(3).map(|(name, kind)| definition(name, kind)).collect();
        let columns = Rc::new(Columns::new(&definitions));
        let properties: Map<String, Value> = names.iter().cloned().zip(values).collect();
        let record = change(&id, Value::Object(properties.clone()));

        let raw = write_text(CaptureFormat::Jsonl, &columns, std::slice::from_ref(&record));
        let line = &json_lines(&columns, std::slice::from_ref(&record))[0];
        let text = write(CaptureFormat::Csv, Compression::None, &columns, &[record]);
        let mut reader = RecordReader::new(&Dialect::default(), Start::default());
        reader.feed(&text);
        reader.finish();
        let records: Vec<Cells> = std::iter::from_fn(|| reader.next()).map(|record| record.cells).collect();
        prop_assert_eq!(records.len(), 2);
        let ours = RejectColumns::detect(&records[0]).unwrap();
        let row = ours.strip(&records[1]);
        prop_assert_eq!(line["_id"].as_str(), Some(id.as_str()));
        prop_assert_eq!(row.get(1), Some(id.as_str()));
        let more: Value = serde_json::from_str(row.get(row.len() - 1).unwrap()).unwrap_or(Value::Null);

        for (name, value) in &properties {
            let column = columns.columns.iter().position(|column| column.source == *name);
            let Some((at, column)) = column.map(|at| (at, &columns.columns[at])) else {
                prop_assert_eq!(&line["_more"]["properties"][name.as_str()], value);
                prop_assert_eq!(&more["properties"][name.as_str()], value);
                continue;
            };
            prop_assert_eq!(row.get(LEADING_LEN + at), Some(value.as_str().unwrap_or_default()));
            let written = &line[column.name.as_str()];
            match written {
                Value::String(_) => prop_assert_eq!(written, value),
                Value::Bool(flag) => prop_assert_eq!(value.as_str(), Some(if *flag { "true" } else { "false" })),
                // serde_json may be off by the last bit, so the text is what counts.
                Value::Number(_) => {
                    let name = serde_json::to_string(&column.name).unwrap();
                    let member = format!("{name}:{}", value.as_str().unwrap());
                    prop_assert!(raw.contains(&member));
                }
                _ => prop_assert!(value.is_null() || value.as_str() == Some("")),
            }
        }
    }
}

const LEADING_LEN: usize = columns::LEADING.len();
