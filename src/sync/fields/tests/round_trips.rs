//! What is written reads back as promised, for every two fields that can be a pair, and any value.

use std::{cell::RefCell, collections::BTreeSet};

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use super::{super::super::model::Canon, *};

/// Every pair that can be made of the two schemas' fields, as two-way ones, and some with settings of their own.
fn all_pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for property in properties() {
        for field in org().fields() {
            let field = named(&property.name, &field.name, SyncRule::TwoWay);
            if let Ok(mapping) = compiled(&settings("contacts", vec![field])) {
                pairs.extend(mapping.pairs);
            }
        }
    }
    let two_way = |hubspot, salesforce| named(hubspot, salesforce, SyncRule::TwoWay);
    let placeholder = |text: &str| Some(text.to_owned());
    pairs.extend([
        pair_of(SyncField { truncate: true, ..two_way("words", "Title") }),
        pair_of(SyncField { truncate: true, placeholder: placeholder("[none]"), ..two_way("words", "LastName") }),
        pair_of(SyncField { placeholder: placeholder("huge"), ..two_way("words", "Size__c") }),
        pair_of(SyncField { placeholder: placeholder("0.00"), ..two_way("amount", "Amount__c") }),
        pair_of(SyncField { placeholder: placeholder("1900-01-01"), ..two_way("birthday", "Birthdate") }),
        pair_in("companies", two_way("domain", "Website")),
        pair_in("deals", two_way("dealstage", "Open_Size__c")),
        pair_of(with_values("hubspot_owner_id", "OwnerId", &[("005ak00000OQTieAAH", "77")])),
        pair_of(with_values("size", "Size__c", &[("Huge", "l"), ("Small", "l")])),
        pair_of(with_values("words", "Colours__c", &[("Huge", "Small"), ("Small", "Gro\u{df}")])),
        pair_of(with_values("colours", "Colours__c", &[("Huge", "m"), ("Large", "s")])),
    ]);
    pairs
}

/// Pairs of which one side's options are none of the other's, or too long for it: nothing can be written one way.
fn has_no_counterparts(key: &str) -> bool {
    let lists = ["agreed|Size__c", "agreed|Open_Size__c", "agreed|Colours__c", "size|Agreed__c", "met_at|Title"];
    key.starts_with("hubspot_owner_id|") || key.starts_with("dealstage|") || lists.contains(&key)
}

/// What Salesforce makes of a written value: see the simulator's `values.rs`.
fn kept_by_salesforce(field: &FieldSchema, value: Value) -> Value {
    let text = match &value {
        Value::String(text) => text.trim_matches(|letter: char| letter <= ' ').to_owned(),
        Value::Number(number) => {
            let power = 10_f64.powi(i32::try_from(field.scale).unwrap());
            return json!((number.as_f64().unwrap() * power).round() / power);
        }
        other => return other.clone(),
    };
    match field.kind.as_str() {
        _ if text.is_empty() => Value::Null,
        "datetime" => {
            let at: jiff::Timestamp = text.parse().unwrap();
            json!(at.strftime("%Y-%m-%dT%H:%M:%S.000+0000").to_string())
        }
        "email" => json!(text.to_lowercase()),
        "multipicklist" => {
            let place = |part: &&str| field.picklist_values.iter().position(|value| value.value == **part);
            let mut parts: Vec<&str> = text.split(';').collect();
            parts.sort_by_key(place);
            json!(parts.join(";"))
        }
        _ => json!(text),
    }
}

/// What HubSpot makes of one: see the simulator's `validate.rs`.
fn kept_by_hubspot(pair: &Pair, text: String) -> String {
    match &*pair.hubspot {
        _ if text.is_empty() => text,
        "met_at" => text.parse::<jiff::Timestamp>().unwrap().to_string(),
        _ if pair.is_email => text.to_lowercase(),
        _ => text,
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "(?s).{0,24}",
        "[ -~\r\n\u{a0}\u{e9}]{0,60}",
        "[-+]?[0-9]{0,22}(\\.[0-9]{0,12})?([eE][-+]?[0-9]{1,3})?",
        "(1[6-9]|[23]0)[0-9]{2}-(0[1-9]|1[0-2])-[0-2][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[-+]0[0-9]:?00))?",
        "(?i)(true|false|yes|no|0|1| s|m|l|small|medium|large|huge|other|77|12|21|closed won|gro\u{df})",
        "(?i)(;?( ?(s|m|l|small|medium|large|huge|other|[a-z]{1,3});?)){0,4}",
        "00[1-5]ak00000OQTie(AAH)?",
        "\\+?[0-9() x.-]{0,20}",
        "[A-Za-z.+']{1,8}@[A-Za-z.-]{1,8}\\.(com|DE)",
        "(https?://)?(www\\.){0,3}[A-Za-z]{1,6}\\.com\\.?(:80)?(/[a-z]{0,3})?",
    ]
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => texts().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => (-10_000_000_i64..10_000_000).prop_map(|cents| json!(cents as f64 / 100.0)),
        1 => Just(Value::Null),
    ]
}

#[test]
fn what_is_written_reads_back_as_promised_and_is_what_was_seen() {
    let (pairs, org) = (all_pairs(), org());
    assert!(pairs.len() > 80, "{} pairs: the schemas are not what they were", pairs.len());
    let written = RefCell::new(BTreeSet::new());
    let count = |way: &'static str, pair: &Pair, promised: &Canon| {
        if promised.is_some() {
            written.borrow_mut().insert((way, pair.key.clone()));
        }
    };
    let config = ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&(texts(), values()), |(text, value)| {
        for pair in &pairs {
            let seen = pair.of_hubspot(Some(&text));
            let again =
                seen.canon.as_deref().map_or_else(|| pair.of_hubspot(None), |canon| pair.of_hubspot(Some(canon)));
            prop_assert_eq!(&again.canon, &seen.canon, "{}: a canonical value is its own form", &pair.key);
            let field = org.field(&pair.salesforce).unwrap();
            if let Ok((value, promised)) = pair.to_salesforce(&seen) {
                let kept = kept_by_salesforce(field, value);
                let back = pair.of_salesforce(&kept).canon;
                prop_assert_eq!(&back, &promised, "{} in Salesforce: {}", &pair.key, kept);
                prop_assert_eq!(&promised, &seen.canon, "{}: then both hold the same", &pair.key);
                count("to", pair, &promised);
            }
            let seen = pair.of_salesforce(&value);
            if let Ok((text, promised)) = pair.to_hubspot(&seen) {
                let kept = kept_by_hubspot(pair, text);
                let back = pair.of_hubspot(Some(&kept)).canon;
                prop_assert_eq!(&back, &promised, "{} in HubSpot: {:?}", &pair.key, kept);
                prop_assert_eq!(&promised, &seen.canon, "{}: then both hold the same", &pair.key);
                count("of", pair, &promised);
            }
        }
        Ok(())
    });
    outcome.unwrap();
    // What was never written says nothing.
    for pair in pairs.iter().filter(|pair| !has_no_counterparts(&pair.key)) {
        for way in ["to", "of"] {
            assert!(written.borrow().contains(&(way, pair.key.clone())), "{way} {}: never written", pair.key);
        }
    }
}
