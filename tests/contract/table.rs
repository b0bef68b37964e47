//! The contract of `Table`.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use futures_util::future::join_all;
use hubferry::{
    ErrorKind, aws, codes,
    state::{
        Changed, Condition, Item, Key, Table, Update, Value, dynamo::DynamoTable, file::FileTable, memory::MemoryTable,
    },
};

/// Runs the whole suite on an empty table.
pub(crate) async fn table_contract(table: &dyn Table) {
    items_are_made_changed_and_removed(table).await;
    conditions_mean_what_they_say(table).await;
    a_condition_that_does_not_hold_shows_the_item(table).await;
    one_of_64_racers_wins(table).await;
    additions_of_racers_are_all_counted(table).await;
    partitions_are_listed_in_order(table).await;
    deletes_heed_their_condition(table).await;
    what_cannot_be_stored_is_refused(table).await;
    a_scan_shows_every_item_once(table).await;
}

async fn a_scan_shows_every_item_once(table: &dyn Table) {
    const ITEMS: usize = 1_200;
    // Long enough that DynamoDB needs several parts, which end at a megabyte.
    let long = "x".repeat(900);
    for first in (0..ITEMS).step_by(100) {
        let puts = (first..first + 100).map(async |at| {
            let key = Key::new(format!("scan#{}", at % 7), format!("{at:05}"));
            table.update(&key, set("text", long.as_str())).await.unwrap();
        });
        join_all(puts).await;
    }
    let (mut seen, mut parts, mut after) = (Vec::new(), 0, None);
    loop {
        let part = table.scan(after.as_ref()).await.unwrap();
        parts += 1;
        seen.extend(part.items.into_iter().filter(|(key, _)| key.pk.starts_with("scan#")));
        after = part.last;
        if after.is_none() {
            break;
        }
    }
    assert!(parts > 1, "one part has everything");
    let keys: BTreeSet<&Key> = seen.iter().map(|(key, _)| key).collect();
    assert_eq!((keys.len(), seen.len()), (ITEMS, ITEMS));
    assert!(seen.iter().all(|(_, stored)| *stored == item([("text", long.as_str().into())])));
}

fn set(name: &'static str, value: impl Into<Value>) -> Update {
    Update { set: vec![(name, value.into())], ..Update::default() }
}

fn item<const N: usize>(attributes: [(&str, Value); N]) -> Item {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

async fn items_are_made_changed_and_removed(table: &dyn Table) {
    let key = Key::new("change", "one");
    assert_eq!(table.get(&key).await.unwrap(), None);
    let changed = table.update(&key, Update::default()).await.unwrap();
    assert_eq!(changed, Changed::Yes(Item::new()), "a change of nothing makes the item");
    assert_eq!(table.get(&key).await.unwrap(), Some(Item::new()));

    // `status`, `name` and `values` are reserved words of DynamoDB.
    let update = Update {
        set: vec![("status", "running".into()), ("name", "".into()), ("expires_at", i64::MAX.into())],
        add: vec![("values", -3), ("fence", 1)],
        ..Update::default()
    };
    table.update(&key, update).await.unwrap();
    let update = Update {
        set: vec![("status", "ended".into())],
        add: vec![("fence", 2)],
        remove: vec!["values", "never"],
        ..Update::default()
    };
    let now =
        item([("status", "ended".into()), ("name", "".into()), ("expires_at", i64::MAX.into()), ("fence", 3.into())]);
    assert_eq!(table.update(&key, update).await.unwrap(), Changed::Yes(now.clone()));
    assert_eq!(table.get(&key).await.unwrap(), Some(now));
    assert_eq!(table.get(&Key::new("change", "other")).await.unwrap(), None);
}

async fn conditions_mean_what_they_say(table: &dyn Table) {
    let key = Key::new("condition", "one");
    table.update(&key, Update { set: vec![("n", 5.into()), ("s", "m".into())], ..Update::default() }).await.unwrap();
    let number = |n: i64| Value::N(n);
    let cases = [
        (Condition::Absent("pk"), false),
        (Condition::Absent("none"), true),
        (Condition::Absent("n"), false),
        (Condition::Equals("n", number(5)), true),
        (Condition::Equals("n", "5".into()), false),
        (Condition::Equals("none", number(0)), false),
        (Condition::Less("n", number(6)), true),
        (Condition::Less("n", number(5)), false),
        (Condition::Less("n", number(40)), true),
        (Condition::Less("n", "9".into()), false),
        (Condition::Less("none", number(9)), false),
        (Condition::AtMost("n", number(5)), true),
        (Condition::AtMost("n", number(4)), false),
        (Condition::AtMost("s", "m".into()), true),
        (Condition::Less("s", "ma".into()), true),
        (Condition::Less("s", number(9)), false),
        (Condition::All(vec![Condition::Equals("n", number(5)), Condition::Less("s", "z".into())]), true),
        (Condition::All(vec![Condition::Equals("n", number(5)), Condition::Less("s", "a".into())]), false),
        (Condition::Any(vec![Condition::Absent("pk"), Condition::AtMost("n", number(5))]), true),
        (Condition::Any(vec![Condition::Absent("pk"), Condition::AtMost("n", number(1))]), false),
        (Condition::All(vec![]), true),
        (Condition::Any(vec![]), false),
        (Condition::Any(vec![Condition::Any(vec![Condition::All(vec![Condition::Absent("none")])])]), true),
        (
            Condition::Any(vec![
                Condition::Absent("owner"),
                Condition::All(vec![Condition::Equals("owner", "me".into()), Condition::Less("n", number(1))]),
            ]),
            true,
        ),
    ];
    for (condition, holds) in cases {
        let update = Update { condition: Some(condition.clone()), ..Update::default() };
        let changed = table.update(&key, update).await.unwrap();
        assert_eq!(matches!(changed, Changed::Yes(_)), holds, "{condition:?}");
    }
}

async fn a_condition_that_does_not_hold_shows_the_item(table: &dyn Table) {
    let key = Key::new("no", "one");
    let update = Update { condition: Some(Condition::Equals("owner", "me".into())), ..set("owner", "you") };
    assert_eq!(table.update(&key, update.clone()).await.unwrap(), Changed::No(None));
    assert_eq!(table.get(&key).await.unwrap(), None, "nothing was made");
    table.update(&key, set("owner", "her")).await.unwrap();
    let current = item([("owner", "her".into())]);
    assert_eq!(table.update(&key, update).await.unwrap(), Changed::No(Some(current.clone())));
    assert_eq!(table.get(&key).await.unwrap(), Some(current));
}

async fn one_of_64_racers_wins(table: &dyn Table) {
    let key = Key::new("race", "one");
    let racers = (0..64_i64).map(|racer| {
        let update = Update { condition: Some(Condition::Absent("pk")), ..set("owner", racer) };
        table.update(&key, update)
    });
    let mut winners = Vec::new();
    let mut shown = Vec::new();
    for changed in join_all(racers).await {
        match changed.unwrap() {
            Changed::Yes(item) => winners.push(item),
            Changed::No(item) => shown.push(item.unwrap()),
        }
    }
    assert_eq!((winners.len(), shown.len()), (1, 63));
    assert!(shown.iter().all(|item| *item == winners[0]), "all others see the winner");
}

async fn additions_of_racers_are_all_counted(table: &dyn Table) {
    let key = Key::new("race", "sum");
    let additions = (0..50).map(|_| table.update(&key, Update { add: vec![("sum", 2)], ..Update::default() }));
    for changed in join_all(additions).await {
        changed.unwrap();
    }
    assert_eq!(table.get(&key).await.unwrap(), Some(item([("sum", 100.into())])));
}

async fn partitions_are_listed_in_order(table: &dyn Table) {
    for sk in ["b", "a", "B", "é", "aa", "10", "9"] {
        table.update(&Key::new("list", sk), set("sk_is", sk)).await.unwrap();
    }
    table.update(&Key::new("list2", "a"), Update::default()).await.unwrap();
    let found = table.query("list", 100).await.unwrap();
    let keys: Vec<_> = found.iter().map(|(key, _)| key.sk.as_str()).collect();
    assert_eq!(keys, ["10", "9", "B", "a", "aa", "b", "é"], "by the bytes of the sort key");
    assert!(found.iter().all(|(key, item)| item.get("sk_is") == Some(&Value::from(key.sk.as_str()))));
    let first: Vec<_> = table.query("list", 2).await.unwrap().into_iter().map(|(key, _)| key.sk).collect();
    assert_eq!(first, ["10", "9"]);
    assert_eq!(table.query("list", 0).await.unwrap(), []);
    assert_eq!(table.query("nothing", 5).await.unwrap(), []);

    // More than the one megabyte that DynamoDB puts into a page.
    for sk in ["1", "2", "3", "4"] {
        table.update(&Key::new("large", sk), set("text", "x".repeat(350_000))).await.unwrap();
    }
    assert_eq!(table.query("large", 10).await.unwrap().len(), 4);
}

async fn deletes_heed_their_condition(table: &dyn Table) {
    let key = Key::new("delete", "one");
    table.update(&key, set("owner", "me")).await.unwrap();
    let before = table.writes();
    assert!(!table.delete(&key, Some(Condition::Equals("owner", "you".into()))).await.unwrap());
    assert!(table.get(&key).await.unwrap().is_some());
    assert!(table.delete(&key, Some(Condition::Equals("owner", "me".into()))).await.unwrap());
    assert_eq!(table.get(&key).await.unwrap(), None);
    assert!(!table.delete(&key, Some(Condition::Equals("owner", "me".into()))).await.unwrap(), "it is gone");
    assert!(table.delete(&key, None).await.unwrap(), "a delete without a condition may be repeated");
    assert_eq!(table.writes() - before, 4, "each is a write");
}

async fn what_cannot_be_stored_is_refused(table: &dyn Table) {
    let key = Key::new("refused", "one");
    table.update(&key, set("text", "t")).await.unwrap();
    let twice = Update { set: vec![("a", 1.into())], remove: vec!["a"], ..Update::default() };
    let to_text = Update { add: vec![("text", 1)], ..Update::default() };
    for update in [set("pk", "x"), twice, to_text, set("large", "x".repeat(410 * 1024))] {
        let error = table.update(&key, update).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::STATE_CORRUPT), "{error}");
    }
    assert!(table.update(&Key::new("refused", ""), Update::default()).await.is_err());
    assert_eq!(table.get(&key).await.unwrap(), Some(item([("text", "t".into())])), "nothing was changed");
}

#[tokio::test]
async fn memory_keeps_the_contract_of_a_table() {
    table_contract(&MemoryTable::new()).await;
}

#[tokio::test]
async fn a_file_keeps_the_contract_of_a_table() {
    let folder = tempfile::tempdir().unwrap();
    table_contract(&FileTable::new(folder.path().join("state.json"))).await;
}

#[tokio::test]
async fn what_is_removed_from_a_file_is_in_none_of_its_files_once_its_history_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let table = FileTable::new(folder.path().join("state.json"));
    let everything = || {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
        String::from_utf8(files.flatten().collect()).unwrap()
    };
    for who in ["eve", "ada", "bob"] {
        table.update(&Key::new("link", who), set("text", format!("{who}@x.io"))).await.unwrap();
    }
    table.update(&Key::new("link", "ada"), Update { remove: vec!["text"], ..Update::default() }).await.unwrap();
    assert!(table.delete(&Key::new("link", "ada"), None).await.unwrap());
    assert!(everything().contains("ada@x.io"), "the journal does not keep what was: this test proves nothing");
    table.drop_history().await.unwrap();
    let left = everything();
    assert!(!left.contains("ada"), "{left}");
    // Nothing else is lost, for this process or another.
    for table in [table, FileTable::new(folder.path().join("state.json"))] {
        assert_eq!(table.query("link", 9).await.unwrap().len(), 2);
        table.drop_history().await.unwrap();
    }
}

#[tokio::test]
async fn dynamodb_keeps_the_contract_of_a_table() {
    dynamodb(async |client| {
        create_table(&client, "state").await;
        table_contract(&DynamoTable::new(client.clone(), "state")).await;

        let error = DynamoTable::new(client, "elsewhere").get(&Key::new("a", "b")).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::STATE_UNAVAILABLE));
        assert!(error.hint().contains("elsewhere"), "{}", error.hint());
    })
    .await;
}

/// Runs `test` with a client of an empty DynamoDB.
pub(super) async fn dynamodb(test: impl AsyncFnOnce(aws_sdk_dynamodb::Client)) {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let client = aws::Clients::new(&aws::stand_in(&endpoint)).dynamodb;
    tokio::select! {
        () = dynoxide::server::serve_on(listener, dynoxide::Database::memory().unwrap()) => panic!("the server ended"),
        () = test(client) => {}
    }
}

/// Makes a table with our two keys.
pub(super) async fn create_table(client: &aws_sdk_dynamodb::Client, name: &str) {
    let mut request = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for (attribute, key) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
        let text = AttributeDefinition::builder().attribute_name(attribute).attribute_type(ScalarAttributeType::S);
        let element = KeySchemaElement::builder().attribute_name(attribute).key_type(key);
        request = request.attribute_definitions(text.build().unwrap()).key_schema(element.build().unwrap());
    }
    request.send().await.unwrap();
}
