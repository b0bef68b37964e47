use std::io::Write as _;

use super::*;

fn line(operation: &str, id: u64, second: i64) -> String {
    let after = match operation {
        "delete" => Value::Null,
        _ => {
            serde_json::json!({ "id": id.to_string(), "properties": { "email": format!("{id}-{second}"), "city": null } })
        }
    };
    let at = Timestamp::from_second(second).unwrap();
    serde_json::json!({
        "position": "", "operation": operation, "metadata": { "hubferry.updatedAt": at.to_string(), "opencdc.version": "v1" },
        "key": { "id": id.to_string() }, "payload": { "before": null, "after": after },
    })
    .to_string()
}

fn lines(lines: &[String]) -> Bytes {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>().into()
}

#[test]
fn the_later_line_wins_and_a_delete_removes() {
    let mut stored = Stored::new(10);
    let all = [line("snapshot", 1, 10), line("snapshot", 2, 10), line("update", 1, 20), line("delete", 2, 30)];
    stored.take("dt=1/a.jsonl", &lines(&all)).unwrap();
    stored
        .take("dt=1/b.jsonl", &lines(&[line("create", 3, 40), line("delete", 3, 50), line("update", 3, 60)]))
        .unwrap();
    let live: Vec<(String, i64)> = stored.live.iter().map(|(id, at)| (id.to_string(), at.at())).collect();
    assert_eq!(live, [("1".to_owned(), 20_000), ("3".to_owned(), 60_000)]);
    assert_eq!(stored.deleted, BTreeSet::from([Id::Number(2)]));
    assert_eq!(stored.sample[&Id::Number(1)]["email"], Some(Cell::Text("1-20".to_owned())));
    assert_eq!(stored.sample[&Id::Number(1)]["city"], None);
    assert_eq!((stored.objects, stored.records, stored.sample.len()), (2, 7, 2));
}

#[test]
fn a_flat_line_and_a_line_without_its_end_are_read() {
    let mut stored = Stored::new(10);
    let text = r#"{"_operation":"update","_id":"7","_updated_at":null,"vip":true,"amount":12.50,"_more":{"properties":{"odd":"x"}}}"#;
    stored.take("a.jsonl", &text.into()).unwrap();
    let values = &stored.sample[&Id::Number(7)];
    assert_eq!(values["vip"], Some(Cell::Boolean(true)));
    assert!(values["amount"].as_ref().unwrap().is(Some("12.5")) && values["odd"].as_ref().unwrap().is(Some("x")));
}

#[test]
fn what_is_no_record_is_an_error_that_names_the_line_and_no_value() {
    let mut stored = Stored::new(10);
    for wrong in [r#"{"email":"secret@x.org"}"#, "secret@x.org", r#"{"operation":"update","key":{"id":7}}"#, "[]"] {
        let text = format!("{}\n{wrong}\n", line("update", 1, 1));
        let error = format!("{:#}", stored.take("a.jsonl", &text.into()).unwrap_err());
        assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
    }
    for wrong in ["a,b\n1,2\n", "_operation,_id,_updated_at,_more\nupdate,1\n"] {
        assert!(stored.take("a.csv", &wrong.into()).is_err(), "{wrong}");
    }
    assert!(stored.take("a.parquet", &"PAR1".into()).is_err());
}

#[test]
fn a_compressed_object_in_many_steps_is_read_whole() {
    let many: Vec<String> = (0..20_000).map(|id| line("snapshot", id, 5)).collect();
    let mut gzip = Stored::new(0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&lines(&many)).unwrap();
    gzip.take("a.jsonl.gz", &encoder.finish().unwrap().into()).unwrap();
    assert_eq!((gzip.live.len(), gzip.sample.len()), (20_000, 0));
}

#[test]
fn the_sample_is_always_the_same_and_as_large_as_it_was_wanted() {
    let sample = |lots: usize| {
        let mut stored = Stored::new(100);
        let all: Vec<String> = (0..10_000).map(|id| line("snapshot", 17_100_000_001 + id, 5)).collect();
        for lot in all.chunks(all.len() / lots) {
            stored.take("a.jsonl", &lines(lot)).unwrap();
            assert!(stored.sample.len() <= 400, "bounded while it grows");
        }
        stored.settle();
        stored.sample.keys().cloned().collect::<Vec<Id>>()
    };
    assert_eq!(sample(1).len(), 100);
    assert_eq!(sample(1), sample(7));
}

#[test]
fn a_cell_is_compared_as_what_its_file_can_hold() {
    assert!(Cell::Text("a".into()).is(Some("a")) && Cell::Text(String::new()).is(None));
    assert!(Cell::Guarded("'=1+1".into()).is(Some("=1+1")) && Cell::Guarded("'a".into()).is(Some("'a")));
    assert!(!Cell::Guarded("=1".into()).is(Some("'=1")));
    assert!(Cell::Number(5.1).is(Some("5.10")) && !Cell::Number(5.1).is(None));
    assert!(Cell::Boolean(true).is(Some("true")) && !Cell::Boolean(true).is(Some("yes")));
    assert!(Cell::Days(20_089).is(Some("2025-01-01")) && Cell::Days(20_089).is(Some("1735689600000")));
    assert!(!Cell::Days(20_089).is(Some("2025-01-02")));
    assert!(Cell::Milliseconds(1_735_689_600_123).is(Some("2025-01-01T00:00:00.123Z")));
    assert!(!Cell::Milliseconds(1).is(Some("")));
}

#[test]
fn only_the_captures_own_objects_are_read() {
    assert!(is_object("dt=2026-11-22/a-b.000001.jsonl.zst") && is_object("dt=2026-11-22/a.parquet"));
    for other in [
        "a.jsonl",
        "other/dt=2026-11-22/a.jsonl",
        "dt=2026-11-22/x/a.jsonl",
        "dt=2026-11-22/a.json",
        "dt=2026-11-22/jsonl",
    ] {
        assert!(!is_object(other), "{other}");
    }
}

#[test]
fn a_version_keeps_its_time_and_whether_it_was_met_in_eight_bytes() {
    let mut version = Version::new(Some(Timestamp::from_millisecond(-7).unwrap()));
    assert!(!version.is_met());
    version.meet();
    assert_eq!((version.at(), version.is_met()), (-7, true));
    assert_eq!(size_of::<(Id, Version)>(), 24);
    assert!(Version::new(None).at() < 0);
}
