//! Parquet files, read back by an implementation that is not ours. `.ci/run parquet` has another one read the file that is left in `target/tmp`.

use std::{fs, path::Path, rc::Rc};

use bytes::Bytes;
use hubferry::{
    capture::{
        change::{Cause, Change, Operation},
        output::{Columns, Layout},
    },
    config::{CaptureFormat, Compression},
    hubspot::model::PropertyDefinition,
};
use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical},
    file::{
        reader::{FileReader, SerializedFileReader},
        statistics::Statistics,
    },
    record::{Field, Row},
};
use proptest::prelude::*;
use serde_json::{Value, json};

const DEFINITIONS: [(&str, &str); 6] = [
    ("email", "string"),
    ("amount", "number"),
    ("vip", "bool"),
    ("born", "date"),
    ("seen", "datetime"),
    ("größe, \"🦀\".\n", "enumeration"),
];

fn columns(definitions: &[(&str, &str)]) -> Rc<Columns> {
    let definitions: Vec<_> = definitions
        .iter()
        .map(|(name, kind)| PropertyDefinition {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            ..PropertyDefinition::default()
        })
        .collect();
    Rc::new(Columns::new(&definitions))
}

fn change(id: impl ToString, properties: Value) -> Change {
    let id = id.to_string();
    let after = json!({"id": id, "properties": properties, "createdAt": "2026-01-02T03:04:05.678Z", "updatedAt": "2026-01-02T03:04:06Z", "archived": false});
    Change {
        operation: Operation::Update,
        cause: None,
        id,
        created_at: Some("2026-01-02T03:04:05.678Z".parse().unwrap()),
        updated_at: Some("2026-01-02T03:04:06Z".parse().unwrap()),
        read_at: "2026-01-02T03:05:00Z".parse().unwrap(),
        before: None,
        after: after.as_object().cloned(),
        position: "{}".to_owned(),
    }
}

fn write(columns: &Rc<Columns>, compression: Compression, changes: &[Change]) -> Bytes {
    let layout = Layout {
        format: CaptureFormat::Parquet,
        compression,
        collection: "crm.contacts".to_owned(),
        columns: Rc::clone(columns),
    };
    let mut encoder = layout.encoder().unwrap();
    for change in changes {
        encoder.push(change).unwrap();
    }
    encoder.finish().unwrap()
}

fn open(file: &Bytes) -> SerializedFileReader<Bytes> {
    SerializedFileReader::new(file.clone()).unwrap()
}

fn rows(file: &Bytes) -> Vec<Row> {
    open(file).get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

fn field<'a>(row: &'a Row, name: &str) -> &'a Field {
    row.get_column_iter().find(|(column, _)| *column == name).unwrap().1
}

fn text(value: &str) -> Field {
    Field::Str(value.to_owned())
}

fn more(row: &Row) -> Value {
    match field(row, "_more") {
        Field::Str(text) => serde_json::from_str(text).unwrap(),
        Field::Null => Value::Null,
        other => panic!("{other:?}"),
    }
}

#[test]
fn types_follow_the_property_definitions() {
    let file = write(&columns(&DEFINITIONS), Compression::Zstd, &[]);
    let reader = open(&file);
    let metadata = reader.metadata().file_metadata();
    assert_eq!((metadata.num_rows(), reader.num_row_groups()), (0, 0));
    let found: Vec<_> = metadata
        .schema_descr()
        .columns()
        .iter()
        .map(|column| {
            (
                column.name().to_owned(),
                column.physical_type(),
                column.logical_type_ref().cloned(),
                column.converted_type(),
            )
        })
        .collect();
    let string = |name: &str| (name.to_owned(), Physical::BYTE_ARRAY, Some(LogicalType::String), ConvertedType::UTF8);
    let plain = |name: &str, kind| (name.to_owned(), kind, None, ConvertedType::NONE);
    let moment = |name: &str| {
        let logical = LogicalType::timestamp(true, TimeUnit::MILLIS);
        (name.to_owned(), Physical::INT64, Some(logical), ConvertedType::TIMESTAMP_MILLIS)
    };
    assert_eq!(
        found,
        [
            string("_operation"),
            string("_id"),
            moment("_created_at"),
            moment("_updated_at"),
            plain("_archived", Physical::BOOLEAN),
            moment("_read_at"),
            string("_change"),
            string("_merged_into"),
            string("email"),
            plain("amount", Physical::DOUBLE),
            plain("vip", Physical::BOOLEAN),
            ("born".to_owned(), Physical::INT32, Some(LogicalType::Date), ConvertedType::DATE),
            moment("seen"),
            string("größe, \"🦀\".\n"),
            string("_associations"),
            string("_more"),
        ]
    );
    assert!(
        metadata
            .schema_descr()
            .columns()
            .iter()
            .all(|column| column.max_def_level() == 1 && column.max_rep_level() == 0)
    );
    let notes = metadata.key_value_metadata().unwrap();
    let note = |key: &str| notes.iter().find(|note| note.key == key).unwrap().value.clone().unwrap();
    assert_eq!(note("hubferry.collection"), "crm.contacts");
    assert_eq!(note("hubferry.columns"), columns(&DEFINITIONS).fingerprint());
}

#[test]
fn values_come_back_typed_in_every_compression() {
    let mut full = change(
        "256",
        json!({"email": "ñosa@example.com\n", "amount": "-1234.5", "vip": "true", "born": "1815-12-10",
               "seen": "2026-02-03T04:05:06.007Z", "größe, \"🦀\".\n": "=1;b", "beyond": "kept"}),
    );
    full.after.as_mut().unwrap().insert("associations".to_owned(), json!({"companies": {"results": []}}));
    let empty = change("257", json!({"email": "", "amount": "", "vip": "", "born": "", "seen": null}));
    let epoch = change("258", json!({"amount": 7, "vip": false, "born": "1735603200000", "seen": "1735603200001"}));
    let gone = Change {
        operation: Operation::Delete,
        cause: Some(Cause::Merge { into: "256".to_owned() }),
        after: None,
        created_at: None,
        ..change("259", json!({}))
    };
    let columns = columns(&DEFINITIONS);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let rows = rows(&write(&columns, compression, &[full.clone(), empty.clone(), epoch.clone(), gone.clone()]));
        let [full, empty, epoch, gone] = &rows[..] else { panic!("{} rows", rows.len()) };

        assert_eq!(field(full, "_operation"), &text("update"));
        assert_eq!(field(full, "_id"), &text("256"));
        assert_eq!(field(full, "_created_at"), &Field::TimestampMillis(1_767_323_045_678));
        assert_eq!(field(full, "_updated_at"), &Field::TimestampMillis(1_767_323_046_000));
        assert_eq!(field(full, "_archived"), &Field::Bool(false));
        assert_eq!(field(full, "email"), &text("ñosa@example.com\n"));
        assert_eq!(field(full, "amount"), &Field::Double(-1234.5));
        assert_eq!(field(full, "vip"), &Field::Bool(true));
        assert_eq!(field(full, "born"), &Field::Date(-56_270));
        assert_eq!(field(full, "seen"), &Field::TimestampMillis(1_770_091_506_007));
        assert_eq!(field(full, "größe, \"🦀\".\n"), &text("=1;b"));
        assert_eq!(field(full, "_associations"), &text(r#"{"companies":{"results":[]}}"#));
        assert_eq!(more(full), json!({"properties": {"beyond": "kept"}}));

        assert_eq!(field(empty, "email"), &text(""), "empty text is not null");
        for name in ["amount", "vip", "born", "seen", "_more", "_change", "_associations"] {
            assert_eq!(field(empty, name), &Field::Null, "{name}");
        }

        assert_eq!(field(epoch, "amount"), &Field::Double(7.0));
        assert_eq!(field(epoch, "vip"), &Field::Bool(false));
        assert_eq!(field(epoch, "born"), &Field::Date(20_088));
        assert_eq!(field(epoch, "seen"), &Field::TimestampMillis(1_735_603_200_001));
        assert_eq!(more(epoch), Value::Null);

        assert_eq!(field(gone, "_operation"), &text("delete"));
        assert_eq!(field(gone, "_archived"), &Field::Bool(true));
        assert_eq!((field(gone, "_change"), field(gone, "_merged_into")), (&text("merge"), &text("256")));
        assert_eq!((field(gone, "_created_at"), field(gone, "email")), (&Field::Null, &Field::Null));
    }
}

#[test]
fn a_value_that_does_not_fit_its_column_is_null_there_and_kept_beside() {
    let columns = columns(&DEFINITIONS);
    for (name, value) in [
        ("amount", json!("12 apples")),
        ("amount", json!("123456789012345678")),
        ("amount", json!("1e400")),
        ("amount", json!({"nested": [1]})),
        ("vip", json!("yes")),
        ("vip", json!(1)),
        ("born", json!("2024-02-30")),
        ("born", json!("31/12/2024")),
        ("born", json!("1735603200001")),
        ("born", json!("99999999999999999999")),
        ("born", json!("9223372036800000000")),
        ("seen", json!("yesterday")),
        ("seen", json!("2026-02-03T04:05:06.0071Z")),
        ("seen", json!("2026-02-03")),
    ] {
        let row = &rows(&write(&columns, Compression::None, &[change(1, json!({name: value}))]))[0];
        assert_eq!(field(row, name), &Field::Null, "{name} {value}");
        assert_eq!(more(row), json!({"properties": {name: value}}));
    }
    // A fraction has a nearest double; its digits are kept too.
    let long = "33.333333333333333333333";
    let row = &rows(&write(&columns, Compression::None, &[change(1, json!({"amount": long}))]))[0];
    assert_eq!(field(row, "amount"), &Field::Double(33.333_333_333_333_336));
    assert_eq!(more(row), json!({"properties": {"amount": long}}));
}

#[test]
fn ten_thousand_rows_with_gaps_stand_in_bounded_row_groups_with_their_bounds() {
    let columns = columns(&DEFINITIONS);
    let note = "x".repeat(4_000);
    let changes: Vec<_> = (0..10_000)
        .map(|n| {
            let email = (n % 3 == 0).then(|| format!("{n}{note}"));
            let amount = (n % 7 != 0).then(|| (n - 5_000).to_string());
            let vip = (n % 2 == 0).then_some(if n % 4 == 0 { "true" } else { "false" });
            change(
                n,
                json!({"email": email, "amount": amount, "vip": vip, "born": (n >= 9_999).then_some("2024-02-29")}),
            )
        })
        .collect();
    let file = write(&columns, Compression::Zstd, &changes);
    let rows = rows(&file);
    assert_eq!(rows.len(), 10_000);
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(field(row, "_id"), &text(&n.to_string()));
        let email = if n % 3 == 0 { text(&format!("{n}{note}")) } else { Field::Null };
        assert!(field(row, "email") == &email, "row {n}");
        assert_eq!(field(row, "amount"), &if n % 7 == 0 { Field::Null } else { Field::Double(n as f64 - 5_000.0) });
        assert_eq!(field(row, "vip"), &if n % 2 == 0 { Field::Bool(n % 4 == 0) } else { Field::Null });
    }

    let reader = open(&file);
    let groups = reader.metadata().row_groups();
    assert!((2..10).contains(&groups.len()), "{} row groups", groups.len());
    assert!(groups.iter().all(|group| group.total_byte_size() < 9 << 20));
    let (mut nulls, mut ids) = (0, 0);
    for group in groups {
        for column in group.columns() {
            assert_eq!(column.num_values(), group.num_rows());
        }
        let statistics = |at: usize| group.column(at).statistics().unwrap();
        nulls += statistics(9).null_count_opt().unwrap();
        let Statistics::Double(amounts) = statistics(9) else { panic!("no doubles") };
        assert_eq!(*amounts.min_opt().unwrap(), (ids..).find(|n| n % 7 != 0).unwrap() as f64 - 5_000.0);
        ids += group.num_rows();
        assert_eq!(*amounts.max_opt().unwrap(), (0..ids).rev().find(|n| n % 7 != 0).unwrap() as f64 - 5_000.0);
    }
    assert_eq!((nulls, ids), (1_429, 10_000));
    let Statistics::Int32(born) = groups.last().unwrap().column(11).statistics().unwrap() else { panic!("no days") };
    assert_eq!((born.min_opt(), born.max_opt()), (Some(&19_782), Some(&19_782)));
    assert_eq!(file, write(&columns, Compression::Zstd, &changes), "bytes depend on the changes alone");
}

#[test]
fn a_value_of_megabytes_and_hundreds_of_columns_are_nothing_special() {
    let names: Vec<String> = (0..700).map(|n| format!("property_{n}")).collect();
    let definitions: Vec<_> = names.iter().map(|name| (name.as_str(), "string")).collect();
    let columns = columns(&definitions);
    let huge = "🦀\"\n".repeat(2 << 20);
    let changes = [change(1, json!({"property_699": huge})), change(2, json!({"property_0": "a"}))];
    let file = write(&columns, Compression::Zstd, &changes);
    let rows = rows(&file);
    assert!(field(&rows[0], "property_699") == &text(&huge));
    assert_eq!(field(&rows[1], "property_0"), &text("a"));
    assert!(file.len() < 200_000, "{} bytes", file.len());
}

/// What another reader is asked to find, beside the file.
#[test]
fn a_file_is_left_for_other_readers() {
    let columns = columns(&DEFINITIONS);
    let changes: Vec<_> = (0..5_000_i64)
        .map(|n| {
            let born = (n % 5 != 0).then(|| format!("2024-{:02}-{:02}", n % 12 + 1, n % 28 + 1));
            let seen = (n % 3 != 0).then(|| (1_735_603_200_000 + n).to_string());
            change(n, json!({
                "email": format!("person{n}@example.com"), "amount": format!("{}.25", n - 2_500), "vip": (n % 2 == 0).to_string(),
                "born": born, "seen": seen, "größe, \"🦀\".\n": (n % 1_000 == 0).then_some("ß\n\"🦀"),
            }))
        })
        .collect();
    let expected: Vec<_> = changes.iter().map(|change| change.after.clone().unwrap()["properties"].clone()).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parquet");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("expected.json"), serde_json::to_vec(&expected).unwrap()).unwrap();
    for (name, compression) in [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        let file = write(&columns, compression, &changes);
        assert_eq!(rows(&file).len(), 5_000);
        fs::write(folder.join(format!("{name}.parquet")), file).unwrap();
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<String>().prop_map(Value::String),
        any::<f64>().prop_map(|number| Value::String(number.to_string())),
        (any::<i32>(), 0..9_u32)
            .prop_map(|(number, digits)| Value::String((f64::from(number) / 10_f64.powi(digits as i32)).to_string())),
        any::<i64>().prop_map(|number| Value::String(number.to_string())),
        any::<bool>().prop_map(|flag| Value::String(flag.to_string())),
        (-100_000..100_000_i64).prop_map(|days| Value::String((days * 86_400_000).to_string())),
    ]
}

proptest! {
    #[test]
    fn every_value_is_in_its_column_or_beside_it(table in proptest::collection::vec(proptest::collection::vec(any_value(), 6), 0..20)) {
        let changes: Vec<_> = table
            .iter()
            .enumerate()
            .map(|(n, values)| {
                let properties = DEFINITIONS.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), value.clone()));
                change(n, Value::Object(properties.collect()))
            })
            .collect();
        let rows = rows(&write(&columns(&DEFINITIONS), Compression::None, &changes));
        prop_assert_eq!(rows.len(), table.len());
        for (row, values) in rows.iter().zip(&table) {
            let more = more(row);
            for ((name, _), value) in DEFINITIONS.iter().zip(values) {
                let beside = &more["properties"][*name];
                let given = value.as_str().unwrap_or_default();
                match field(row, name) {
                    Field::Null => prop_assert!(given.is_empty() || beside == value, "{name} {value}"),
                    Field::Str(text) => prop_assert_eq!(text, given),
                    Field::Bool(flag) => prop_assert_eq!(&flag.to_string(), given),
                    Field::Double(number) => prop_assert_eq!(*number, given.parse::<f64>().unwrap()),
                    Field::Date(days) => prop_assert_eq!((i64::from(*days) * 86_400_000).to_string(), given),
                    Field::TimestampMillis(at) => prop_assert_eq!(&at.to_string(), given),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
