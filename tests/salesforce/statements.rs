//! What our builder writes, Salesforce's grammar reads: and reads as the same values. Queries, pages, describe, ids.

use hubferry::salesforce::soql::{Comparison, Condition, Literal, Select};
use hubferry_simulator::salesforce::{
    Fault, OrgSettings, What,
    soql::{Expr, Literal as Read, parse},
};
use proptest::prelude::*;

use super::*;

fn filter(condition: Condition) -> Expr {
    let text = Select::from("Contact").unwrap().and(condition).to_string();
    parse(&text).unwrap_or_else(|error| panic!("{error:?} in {text}")).filter.unwrap()
}

/// Conditions of any depth over texts that look for trouble.
fn conditions() -> impl Strategy<Value = Condition> {
    let text = "(?s)['\\\\\n\r\t\"%_a-zA-Z0-9 \u{0}\u{8}\u{c}\u{1b}\u{2028}äß€😀()=,-]{0,12}";
    let leaf = prop_oneof![
        text.prop_map(|text| Condition::equal("Email", text.as_str()).unwrap()),
        prop::collection::vec(text, 1..4).prop_map(|texts| {
            Condition::one_of("LastName", texts.into_iter().map(Literal::Text).collect()).unwrap()
        }),
        (0_i64..4_000_000_000).prop_map(|seconds| {
            let at = jiff::Timestamp::from_second(seconds).unwrap();
            Condition::is("SystemModstamp", Comparison::AtLeast, Literal::DateTime(at)).unwrap()
        }),
        any::<bool>().prop_map(|value| Condition::equal("IsDeleted", Literal::Bool(value)).unwrap()),
        Just(Condition::is("Phone", Comparison::NotEqual, Literal::Null).unwrap()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Condition::All),
            prop::collection::vec(inner.clone(), 1..3).prop_map(Condition::Any),
            inner.prop_map(|one| Condition::Not(Box::new(one))),
        ]
    })
}

/// The texts of a condition, in their order.
fn texts(condition: &Condition) -> Vec<String> {
    match condition {
        Condition::Is(_, _, Literal::Text(text)) => vec![text.clone()],
        Condition::Is(..) => Vec::new(),
        Condition::In(_, values) => values
            .iter()
            .filter_map(|value| match value {
                Literal::Text(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        Condition::All(all) | Condition::Any(all) => all.iter().flat_map(texts).collect(),
        Condition::Not(one) => texts(one),
    }
}

fn read_texts(expr: &Expr) -> Vec<String> {
    let text = |value: &Read| match value {
        Read::Text(text) => Some(text.clone()),
        _ => None,
    };
    match expr {
        Expr::Compare { value, .. } => text(value).into_iter().collect(),
        Expr::In { values, .. } => values.iter().filter_map(text).collect(),
        Expr::And(all) | Expr::Or(all) => all.iter().flat_map(read_texts).collect(),
        Expr::Not(one) => read_texts(one),
    }
}

proptest! {
    #[test]
    fn any_text_stays_one_value(text in any::<String>()) {
        let Expr::Compare { value, path, .. } = filter(Condition::equal("Email", text.as_str()).unwrap()) else {
            return Err(TestCaseError::fail("the value became a part of the statement"));
        };
        prop_assert_eq!(path, "Email");
        prop_assert_eq!(value, Read::Text(text));
    }

    #[test]
    fn conditions_of_any_shape_are_read_with_the_same_values(condition in conditions()) {
        prop_assert_eq!(read_texts(&filter(condition.clone())), texts(&condition));
    }
}

#[tokio::test(start_paused = true)]
async fn an_apostrophe_finds_its_record_and_injects_nothing() {
    let world = World::new(OrgSettings::default());
    let wanted = world.contact("O'Brien", &[("Email", "o'brien@example.com")]);
    world.contact("Other", &[("Email", "other@example.com")]);
    let client = world.client();
    let select = Select::from("Contact").unwrap().fields(["Email", "Phone"]).unwrap();
    let by = |text: &str| select.clone().and(Condition::equal("Email", text).unwrap());
    let rows = client.query_to_end(&by("O'BRIEN@example.com"), false, NONE).await.unwrap();
    assert_eq!(
        rows.iter().filter_map(|row| row.id()).collect::<Vec<_>>(),
        [wanted],
        "texts compare whatever their case"
    );
    assert_eq!(rows[0].get("Phone"), Some(&Value::Null), "blank is there, as null");
    assert_eq!(rows[0].get("Title"), None, "what was not selected is not blank");
    let rows = client.query_to_end(&by("x' OR Email != '"), false, NONE).await.unwrap();
    assert!(rows.is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_pages_come_however_short_they_are() {
    let world = World::new(OrgSettings { page_most: 50, short_pages: true, seed: 3, ..OrgSettings::default() });
    for number in 0..333 {
        world.contact(&format!("Name {number:03}"), &[]);
    }
    let client = world.client();
    let select = Select::from("Contact").unwrap().fields(["LastName"]).unwrap().order_by(["LastName"]).unwrap();
    let rows = client.query_to_end(&select, false, NONE).await.unwrap();
    let names: Vec<_> = rows.iter().map(|row| row.text("LastName").unwrap().to_owned()).collect();
    assert_eq!(names, (0..333).map(|number| format!("Name {number:03}")).collect::<Vec<_>>());
    assert!(world.calls("/query/") >= 7);
}

#[tokio::test(start_paused = true)]
async fn many_values_go_into_as_few_statements_as_addresses_allow() {
    let world = World::new(OrgSettings::default());
    let mut values = Vec::new();
    for number in 0..900 {
        let email = format!("somebody+{number:04}@example.com");
        world.contact("X", &[("Email", &email)]);
        values.push(Literal::Text(email));
    }
    let client = world.client();
    let select = Select::from("Contact").unwrap().fields(["Email"]).unwrap();
    let rows = client.query_one_of(&select, "Email", &values, NONE).await.unwrap();
    assert_eq!(rows.len(), 900);
    assert!((2..=5).contains(&world.calls("/query")), "{}", world.calls("/query"));
    assert!(client.query_one_of(&select, "Email", &[], NONE).await.unwrap().is_empty());
    assert!(world.org.borrow().log().iter().all(|call| call.status != 414));
}

#[tokio::test(start_paused = true)]
async fn a_field_that_contact_does_not_have_is_refused_by_name() {
    let world = World::new(OrgSettings::default());
    let select = Select::from("Contact").unwrap().fields(["Company"]).unwrap();
    let error = world.client().query(&select, false, NONE).await.unwrap_err();
    assert_eq!(error.kind(), hubferry::ErrorKind::Refused);
    assert!(error.message().contains("INVALID_FIELD"), "{error}");
    let schema = world.client().describe("Contact", NONE).await.unwrap();
    assert!(schema.field("Company").is_none() && schema.field("lastname").unwrap().is_required_on_create());
    assert!(schema.field("MailingAddress").unwrap().is_compound());
    assert!(schema.field("HubSpot_Contact_Id__c").unwrap().unique);
    assert_eq!(schema.field("Email").unwrap().length, 80);
    let required: Vec<_> =
        schema.fields().filter(|field| field.is_required_on_create()).map(|field| &field.name).collect();
    assert_eq!(required, ["LastName"]);
}

#[tokio::test(start_paused = true)]
async fn definitions_are_asked_for_once_and_follow_permissions_after_a_while() {
    let world = World::new(OrgSettings::default());
    let client = world.client();
    client.describe("Contact", NONE).await.unwrap();
    world.org.borrow_mut().hide_field("Contact", "Phone", true);
    assert!(client.describe("Contact", NONE).await.unwrap().field("Phone").is_some());
    assert_eq!(world.calls("/describe"), 1);
    world.clock.sleep(hubferry::salesforce::describe::SCHEMA_AGE_MAX).await;
    assert!(client.describe("Contact", NONE).await.unwrap().field("Phone").is_none(), "hidden fields are not there");
}

#[tokio::test(start_paused = true)]
async fn records_by_id_come_in_the_order_asked_with_none_for_those_that_are_gone() {
    let world = World::new(OrgSettings { query_lag_ms: 5_000, ..OrgSettings::default() });
    let (one, two, gone) = (world.contact("One", &[]), world.contact("Two", &[]), world.contact("Gone", &[]));
    world.org.borrow_mut().delete(world.clock.now(), "Contact", gone.as_str());
    let client = world.client();
    let rows = client.retrieve("Contact", &[two.clone(), gone, one.clone()], &["LastName", "id"], NONE).await.unwrap();
    let names: Vec<_> = rows.iter().map(|row| row.as_ref().and_then(|row| row.text("LastName"))).collect();
    assert_eq!(names, [Some("Two"), None, Some("One")], "also what a query does not show yet");
}

#[tokio::test(start_paused = true)]
async fn a_parent_is_reached_by_its_path() {
    let world = World::new(OrgSettings::default());
    let account = world.org.borrow_mut().create(world.clock.now(), "Account", &[("Name", "Acme")]).unwrap();
    world.contact("A", &[("AccountId", &account)]);
    world.contact("B", &[]);
    let select = Select::from("Contact").unwrap().fields(["Account.Name"]).unwrap().order_by(["LastName"]).unwrap();
    let rows = world.client().query_to_end(&select, false, NONE).await.unwrap();
    assert_eq!(rows[0].text("Account.Name"), Some("Acme"));
    assert_eq!(rows[1].get("Account.Name"), Some(&Value::Null), "no account: blank, not unknown");
}

#[tokio::test(start_paused = true)]
async fn an_ended_cursor_is_told_apart_from_a_refusal() {
    let world = World::new(OrgSettings { page_most: 10, locator_seconds: 60, ..OrgSettings::default() });
    for _ in 0..25 {
        world.contact("X", &[]);
    }
    let client = world.client();
    let page = client.query(&Select::from("Contact").unwrap(), false, NONE).await.unwrap();
    let next = page.next.unwrap();
    assert_eq!((page.rows.len(), page.total), (10, 25));
    assert!(client.next_page(&next, NONE).await.unwrap().is_some());
    world.clock.sleep(std::time::Duration::from_secs(120)).await;
    assert_eq!(client.next_page(&next, NONE).await.unwrap(), None);
    assert!(client.next_page("https://elsewhere.invalid/", NONE).await.is_err(), "no session goes to another place");
    world.org.borrow_mut().add_fault(Fault::always(What::TruncatedBody).on("/query").times(2));
    assert_eq!(client.query(&Select::from("Contact").unwrap(), false, NONE).await.unwrap().total, 25);
}
