use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    hubspot::model::{ModificationMetadata, PropertyDefinition},
    record::ObjectType,
};

fn intake(resource: &str, identity: Identity) -> Intake {
    let property = |name: &str, read_only_value: bool| {
        let definition = PropertyDefinition {
            name: name.to_owned(),
            modification_metadata: ModificationMetadata { read_only_value },
            ..PropertyDefinition::default()
        };
        (name.to_owned(), definition)
    };
    let properties: BTreeMap<_, _> = [
        property("email", false),
        property("city", false),
        property("hs_object_id", true),
        property("hs_language", false),
        property("num_notes", true),
        property("associatedcompanyid", false),
    ]
    .into();
    let schema = ObjectSchema {
        object: ObjectType("contacts".to_owned()),
        properties,
        owners: Vec::new(),
        pipelines: Vec::new(),
    };
    let resource = Resource::parse(resource).unwrap();
    Intake::new(resource, identity, Some(Rc::new(schema)), Blank::Keep, HashMap::new())
}

fn source() -> Identity {
    Identity::Source("hubferry_hs_object_id_key".into())
}

fn line(operation: &str, key: Value, after: Value) -> String {
    json!({"operation": operation, "key": key, "payload": {"before": null, "after": after}}).to_string()
}

/// Act, key, and what is written.
fn sent(order: Order) -> (Act, String, Vec<(String, String)>) {
    match order.what {
        What::Send(act, input) => {
            let written = input.properties.iter().map(|(name, value)| (name.to_string(), value.clone()));
            (act, input.key, written.collect())
        }
        settled => panic!("{settled:?}"),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn code(result: Result<Order, Reason>) -> String {
    result.unwrap_err().code.into()
}

#[test]
fn the_three_shapes_of_a_record_are_one() {
    let properties = json!({"email": "a@x.io", "city": "Bonn", "hs_object_id": "7"});
    let whole = json!({"id": "7", "properties": properties, "createdAt": "2026-01-01T00:00:00Z", "archived": false});
    let flat = json!({"id": 7, "email": "a@x.io", "city": "Bonn", "hs_object_id": 7.0, "archived": false});
    for after in [json!({"properties": properties}), whole, flat] {
        let order = intake("crm.contacts", Identity::Own).read(&line("update", json!({"id": 7}), after), 1).unwrap();
        assert_eq!(order.dropped.iter().map(|name| &**name).collect::<Vec<_>>(), ["hs_object_id"]);
        assert_eq!(sent(order), (Act::Update, "7".to_owned(), pairs(&[("email", "a@x.io"), ("city", "Bonn")])));
    }
}

#[test]
fn what_hubspot_keeps_itself_is_dropped_and_what_it_does_not_know_is_its_verdict() {
    let after = json!({"properties": {
        "num_notes": 3, "hs_unheard_of": 1, "createdate": "2026-01-01T00:00:00Z", "hubferry_domain_key": "x",
        "associatedcompanyid": 5, "favourite_colour": "red", "hs_language": "de",
    }});
    let dropped = |identity: Identity| {
        let order = intake("crm.contacts", identity).read(&line("create", json!({"id": 7}), after.clone()), 1).unwrap();
        order.dropped.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(dropped(Identity::Own), ["num_notes", "hs_unheard_of", "createdate", "hubferry_domain_key"]);
    assert_eq!(dropped(source()).last().map(String::as_str), Some("associatedcompanyid"), "it is another account's id");
    let order =
        intake("crm.contacts", Identity::Own).read(&line("create", json!({"id": 7}), after.clone()), 1).unwrap();
    let (_, _, written) = sent(order);
    assert!(written.contains(&("favourite_colour".to_owned(), "red".to_owned())), "{written:?}");
}

#[test]
fn a_value_that_is_gone_is_cleared_by_an_update_and_left_alone_by_a_snapshot() {
    let after = json!({"properties": {"email": "a@x.io", "city": null}});
    let written = |operation: &str, blank: Blank| {
        let mut intake = intake("crm.contacts", Identity::Property("email".into()));
        intake.blank = blank;
        sent(intake.read(&line(operation, json!({"id": 7}), after.clone()), 1).unwrap()).2
    };
    let (kept, cleared) = (pairs(&[("email", "a@x.io")]), pairs(&[("email", "a@x.io"), ("city", "")]));
    assert_eq!(written("update", Blank::Keep), cleared);
    assert_eq!(written("snapshot", Blank::Keep), kept);
    assert_eq!(written("snapshot", Blank::Clear), cleared);
}

#[test]
fn who_is_meant_by_the_accounts_own_ids() {
    let mut intake = intake("crm.contacts", Identity::Own);
    let mut read =
        |operation: &str, key: Value| intake.read(&line(operation, key, json!({"properties": {"city": "Bonn"}})), 3);
    assert_eq!(sent(read("delete", json!({"id": "7"})).unwrap()).0, Act::Archive);
    assert_eq!(sent(read("create", json!({"id": "7"})).unwrap()).1, "7");
    assert_eq!(sent(read("create", Value::Null).unwrap()).1, "\u{1}3", "its line names it");
    assert_eq!(code(read("update", Value::Null)), "RECORD_KEY_MISSING");
    assert_eq!(code(read("delete", json!({"id": ""}))), "RECORD_KEY_MISSING");
}

#[test]
fn who_is_meant_by_the_ids_of_another_account() {
    let mut intake = intake("crm.contacts", source());
    let written = pairs(&[("city", "Bonn"), ("hubferry_hs_object_id_key", "7")]);
    for (operation, key) in [("snapshot", json!({"id": 7})), ("update", json!({"id": "7"})), ("create", Value::Null)] {
        let after = json!({"id": "7", "properties": {"city": "Bonn"}});
        let order = intake.read(&line(operation, key, after), 1).unwrap();
        assert_eq!(sent(order), (Act::Upsert, "7".to_owned(), written.clone()));
    }
    let nameless = intake.read(&line("create", Value::Null, json!({"properties": {"city": "Bonn"}})), 1);
    assert_eq!(code(nameless), "RECORD_KEY_MISSING");
}

#[test]
fn who_is_meant_by_a_property() {
    let mut intake = intake("crm.contacts", Identity::Property("email".into()));
    let order = intake.read(&line("update", Value::Null, json!({"email": "a@x.io"})), 1).unwrap();
    assert_eq!(sent(order).1, "a@x.io");
    assert_eq!(code(intake.read(&line("update", json!({"id": 7}), json!({"city": "Bonn"})), 1)), "KEY_BLANK");
    // A delete is never one by the id of who knows which account.
    assert_eq!(code(intake.read(&line("delete", json!({"id": 7}), Value::Null), 1)), "RECORD_UNNAMED");
    let order = intake.read(&line("delete", json!({"email": "a@x.io"}), Value::Null), 1).unwrap();
    assert_eq!(sent(order), (Act::Archive, "a@x.io".to_owned(), Vec::new()));
    let before =
        json!({"operation": "delete", "key": {"id": 7}, "payload": {"before": {"properties": {"email": "b@x.io"}}}});
    assert_eq!(sent(intake.read(&before.to_string(), 1).unwrap()).1, "b@x.io");
}

#[test]
fn content_is_written_member_by_member_and_a_foreign_id_is_never_taken_for_our_own() {
    let act = |source_ids: bool, metadata: Value, operation: &str, after: Value| {
        let mut intake = intake("cms.blogs.posts", Identity::Content { source_ids });
        let line = json!({"operation": operation, "metadata": metadata, "key": {"id": 7}, "payload": {"after": after}});
        let order = intake.read(&line.to_string(), 1).unwrap();
        let dropped = order.dropped.len();
        let (act, _, written) = sent(order);
        (act, written, dropped)
    };
    let post = json!({"id": "7", "slug": "a", "tagIds": [1], "updated": "2026-01-01T00:00:00Z", "publishDate": null});
    let captured = json!({"hubferry.version": "1"});
    let written = pairs(&[("slug", "\"a\""), ("tagIds", "[1]")]);
    assert_eq!(act(false, json!({}), "create", post.clone()), (Act::Put, written, 2));
    assert_eq!(act(false, json!({}), "update", post.clone()).0, Act::Change);
    assert_eq!(act(false, json!({}), "delete", Value::Null).0, Act::Discard);
    for (source_ids, metadata) in [(true, json!({})), (false, captured)] {
        assert_eq!(act(source_ids, metadata.clone(), "update", post.clone()).0, Act::Put);
        assert_eq!(act(source_ids, metadata, "delete", Value::Null).0, Act::Remove);
    }
}

#[test]
fn what_was_being_created_when_the_process_died_is_not_created_again() {
    let mut intake = intake("crm.contacts", Identity::Own);
    intake.earlier = HashMap::from([("7".to_owned(), Earlier::Created), ("\u{1}2".to_owned(), Earlier::Doubtful)]);
    let mut what = |key: Value, number: u64| {
        intake.read(&line("create", key, json!({"properties": {"city": "Bonn"}})), number).unwrap().what
    };
    assert_eq!(what(json!({"id": 7}), 1), What::Settled(RowOutcome::Created, None));
    assert!(matches!(what(Value::Null, 2), What::Settled(RowOutcome::Deferred, Some(_))));
    assert!(matches!(what(json!({"id": 8}), 3), What::Send(Act::Create, _)));
}
