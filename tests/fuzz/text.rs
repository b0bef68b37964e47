//! Events, positions, plans and state, statements: text that is read again.

use std::{collections::BTreeMap, fs, path::Path};

use hubferry::{
    capture::known::Known,
    codes,
    event::{Event, parse},
    import::plan::format::Line,
    report::{Position, Report},
    salesforce::soql::{Comparison, Condition, Select},
    sync::{model::Link, progress::Progress},
};
use hubferry_simulator::salesforce::soql::{self, Expr, Literal as Read};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::fuzz;

const JSON_WORDS: [&[u8]; 26] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"1e400",
    b"-1",
    b"18446744073709551616",
    b"\"\"",
    b"\"\\u0000\"",
    b"\"\\ud800\"",
    b"\"Records\"",
    b"\"body\"",
    b"\"job\"",
    b"\"run_id\"",
    b"\"detail\"",
    b"\"eventSource\":\"aws:sqs\"",
    b"\"eventSource\":\"aws:s3\"",
    b"\"key\":\"a%2\"",
    b"%FF",
    b"+",
    b"\"s3:TestEvent\"",
    b"\\\"",
];

fn events() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("events");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

fn sound(event: &Event) {
    match event {
        Event::Imports(objects) => {
            for object in objects {
                assert!(!object.bucket.is_empty() && !object.key.is_empty(), "{object:?}");
            }
        }
        Event::Sqs(messages) => {
            messages.iter().filter_map(|message| message.body.as_ref().ok()).for_each(|event| sound(event))
        }
        _ => {}
    }
}

#[test]
fn any_event_is_understood_or_refused_with_its_code() {
    fuzz("event", events(), &JSON_WORDS, |bytes| {
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
        match parse(value) {
            Ok(event) => sound(&event),
            Err(error) => assert_eq!(error.code(), codes::EVENT_UNKNOWN),
        }
    });
}

/// What is read is written as something that reads as the same.
fn there_and_back<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<T>(&written).unwrap(), read, "{written}");
    }
}

#[test]
fn whatever_is_stored_is_read_as_it_was_written_or_refused() {
    fuzz("codecs", Vec::new(), &JSON_WORDS, |bytes| {
        there_and_back::<Position>(bytes);
        there_and_back::<hubferry::capture::position::Position>(bytes);
        there_and_back::<Progress>(bytes);
        there_and_back::<Link>(bytes);
        // Old reports are shown for ever: one of any kind is read, or is none.
        if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
            serde_json::to_string(&report).unwrap();
        }
        if let Ok(known) = Known::load(bytes, "what is stored") {
            let stored = known.store().unwrap();
            assert_eq!(Known::load(&stored, "what was stored").unwrap(), known);
        }
        if let Ok(text) = std::str::from_utf8(bytes) {
            for line in text.lines() {
                if let Ok(read) = Line::parse(line) {
                    let written = read.text().unwrap();
                    assert_eq!(Line::parse(written.trim_end()).unwrap().text().unwrap(), written, "{line}");
                }
            }
        }
    });
}

const SOQL_WORDS: [&[u8]; 16] = [
    b"'",
    b"\\",
    b"\\'",
    b"\"",
    b"\n",
    b"\r",
    b"\t",
    b"\x08",
    b"\x0c",
    b"%",
    b"_",
    b"') OR (Name != '",
    b"\\u0027",
    b"\xe2\x80\xa8",
    b"\xf0\x9f\x98\x80",
    b"null",
];

#[test]
fn any_text_in_a_statement_stays_the_one_value_that_it_is() {
    fuzz("soql", Vec::new(), &SOQL_WORDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(condition) = Condition::equal("Email", text.as_ref()) else { return };
        let more = Condition::is("LastName", Comparison::NotEqual, text.as_ref()).unwrap();
        let select = Select::from("Contact").unwrap().fields(["Email"]).unwrap().and(condition).and(more);
        let statement = select.to_string();
        let query = match soql::parse(&statement) {
            Ok(query) => query,
            // Nothing but the length of the whole may be wrong.
            Err(error) => {
                assert!(statement.chars().count() > 90_000, "{error:?} in {statement}");
                return;
            }
        };
        let Some(Expr::And(parts)) = query.filter else { panic!("{:?}", query.filter) };
        let values: BTreeMap<String, Read> = parts
            .into_iter()
            .map(|part| match part {
                Expr::Compare { path, value, .. } => (path, value),
                other => panic!("the value became a part of the statement: {other:?}"),
            })
            .collect();
        let expected = ["Email", "LastName"].map(|field| (field.to_owned(), Read::Text(text.clone().into_owned())));
        assert_eq!(values, BTreeMap::from(expected));
    });
}
