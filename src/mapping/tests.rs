use proptest::prelude::*;

use super::*;
use crate::hubspot::model::{Owner, Pipeline, PropertyDefinition, PropertyOption, Stage};

fn property(name: &str, label: &str, kind: &str, field_type: &str) -> PropertyDefinition {
    PropertyDefinition {
        name: name.into(),
        label: label.into(),
        kind: kind.into(),
        field_type: field_type.into(),
        ..PropertyDefinition::default()
    }
}

fn with_options(mut definition: PropertyDefinition, options: &[(&str, &str)]) -> PropertyDefinition {
    let option =
        |&(value, label): &(&str, &str)| PropertyOption { value: value.into(), label: label.into(), hidden: false };
    definition.options = options.iter().map(option).collect();
    definition
}

fn schema(object: &str) -> ObjectSchema {
    let mut computed = property("score", "Score", "number", "number");
    computed.calculated = true;
    let mut unique = property("ext_id", "External id", "string", "text");
    unique.has_unique_value = true;
    let properties = [
        property("email", "Email", "string", "text"),
        property("firstname", "First Name", "string", "text"),
        property("amount", "Amount", "number", "number"),
        property("active", "Active", "bool", "booleancheckbox"),
        property("signup_date", "Signed up", "date", "date"),
        property("seen_at", "Last seen", "datetime", "date"),
        with_options(
            property("lifecyclestage", "Lifecycle Stage", "enumeration", "radio"),
            &[("lead", "Lead"), ("opportunity", "Hot one"), ("customer", "Customer")],
        ),
        with_options(property("tags", "Tags", "enumeration", "checkbox"), &[("a", "Alpha"), ("b", "Beta")]),
        property("hubspot_owner_id", "Owner", "enumeration", "select"),
        property("pipeline", "Pipeline", "enumeration", "select"),
        property("dealstage", "Deal Stage", "enumeration", "select"),
        property("hs_object_id", "Record ID", "number", "number"),
        computed,
        unique,
    ];
    let owner = |id: &str, email: &str, last: &str, archived| Owner {
        id: id.into(),
        email: Some(email.into()),
        first_name: Some("Pat".into()),
        last_name: Some(last.into()),
        archived,
    };
    let stage = |id: &str, label: &str| Stage { id: id.into(), label: label.into(), archived: false };
    let pipeline = |id: &str, label: &str, stages: Vec<Stage>| Pipeline {
        id: id.into(),
        label: label.into(),
        archived: false,
        stages,
    };
    ObjectSchema {
        object: ObjectType(object.into()),
        properties: properties.into_iter().map(|property| (property.name.clone(), property)).collect(),
        owners: vec![
            owner("1", "one@example.com", "Same", false),
            owner("2", "two@example.com", "Same", false),
            owner("3", "three@example.com", "Gone", true),
            owner("4", "four@example.com", "Here", false),
        ],
        pipelines: vec![
            pipeline("default", "Sales", vec![stage("s1", "New"), stage("won1", "Won")]),
            pipeline("77", "Renewals", vec![stage("r1", "Due"), stage("r2", "Late"), stage("won2", "Won")]),
            pipeline("78", "Partners", vec![stage("p1", "Late")]),
        ],
    }
}

struct Setup {
    object: &'static str,
    key: Option<&'static str>,
    columns: &'static str,
    blank: Blank,
    mode: Mode,
}

const PLAIN: Setup =
    Setup { object: "contacts", key: Some("email"), columns: "", blank: Blank::Keep, mode: Mode::Upsert };

impl Setup {
    fn compile(&self, header: &[&str]) -> Result<Mapping, Vec<Problem>> {
        let schema = schema(self.object);
        let columns: Option<BTreeMap<String, ColumnRule>> =
            (!self.columns.is_empty()).then(|| serde_json::from_str(self.columns).unwrap());
        let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
        let spec = MappingSpec {
            object: &schema.object,
            key: self.key,
            columns: columns.as_ref(),
            blank: self.blank,
            mode: self.mode,
            own_key: false,
            time_zone: "Europe/Berlin",
        };
        Mapping::compile(&spec, &header, &schema, Detected::default())
    }
}

/// One cell of `property`, as it is sent or the code with which it is refused.
#[track_caller]
fn check(object: &'static str, property: &str, cell: &str, expect: Result<&str, &str>) {
    let mapping = Setup { object, key: Some("ext_id"), ..PLAIN }.compile(&["ext_id", property]).unwrap();
    let got = mapping.apply(&["k", cell].into_iter().collect());
    let got = got.map(|input| input.properties[1].1.clone()).map_err(|reason| reason.code.into_string());
    assert_eq!(got, expect.map(String::from).map_err(String::from), "{property}: {cell}");
}

fn codes_of(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.code.as_str()).collect()
}

#[test]
fn values_are_converted_by_the_propertys_type() {
    check("contacts", "firstname", "  Ada ", Ok("Ada"));
    check("contacts", "email", " Ada@Example.COM ", Ok("ada@example.com"));
    check("contacts", "amount", "1,234.50", Ok("1234.50"));
    check("contacts", "active", "Ja", Ok("true"));
    check("contacts", "active", "maybe", Err("INVALID_BOOLEAN"));
    check("contacts", "signup_date", "31/12/2024", Ok("2024-12-31"));
    check("contacts", "signup_date", "30/02/2024", Err("INVALID_DATE"));
    check("contacts", "seen_at", "2024-03-01 10:15", Ok("2024-03-01T09:15:00.000Z"));
    check("contacts", "lifecyclestage", "LEAD", Ok("lead"));
    check("contacts", "lifecyclestage", "hot ONE", Ok("opportunity"));
    check("contacts", "lifecyclestage", "lead;customer", Err("INVALID_OPTION"));
    check("contacts", "tags", "Alpha; b;alpha", Ok("a;b"));
    check("contacts", "tags", "alpha, beta", Ok("a;b"));
    check("contacts", "tags", ";Beta", Ok(";b"));
    check("contacts", "tags", ";", Err("INVALID_OPTION"));
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    for bad in
        ["a", "a@b", "a@@b.com", "a b@c.com", "a@b..com", ".a@b.com", "a@-b.com", "a@b.c", "a@1.2.3.4", "<a@b.com>"]
    {
        check("contacts", "email", bad, Err("INVALID_EMAIL"));
    }
    for good in ["a@b.co", "a+b'c@d-e.example", "jürgen@müller.de"] {
        check("contacts", "email", good, Ok(good));
    }
}

#[test]
fn owners_are_found_by_id_address_and_unique_name() {
    for (cell, expect) in [
        ("4", Ok("4")),
        ("Four@example.com", Ok("4")),
        ("pat here", Ok("4")),
        ("Pat Same", Err("INVALID_OWNER")),
        ("three@example.com", Err("INVALID_OWNER")),
        ("3", Err("INVALID_OWNER")),
        ("nobody", Err("INVALID_OWNER")),
    ] {
        check("contacts", "hubspot_owner_id", cell, expect);
    }
}

#[test]
fn stages_are_found_in_the_rows_pipeline_or_the_default_one() {
    for (cell, expect) in [
        ("new", Ok("s1")),
        ("Won", Ok("won1")),
        ("won2", Ok("won2")),
        ("Due", Ok("r1")),
        ("Late", Err("INVALID_STAGE")),
        ("Nope", Err("INVALID_STAGE")),
    ] {
        check("deals", "dealstage", cell, expect);
    }
    let mapping =
        Setup { object: "deals", key: Some("ext_id"), ..PLAIN }.compile(&["dealstage", "ext_id", "pipeline"]).unwrap();
    let apply = |row: [&str; 3]| mapping.apply(&row.into_iter().collect()).map(|input| input.properties);
    let won = apply(["Won", "k", "Renewals"]).unwrap();
    assert!(
        won.contains(&("dealstage".into(), "won2".into())) && won.contains(&("pipeline".into(), "77".into())),
        "{won:?}"
    );
    assert_eq!(&*apply(["New", "k", "Renewals"]).unwrap_err().code, "INVALID_STAGE");
}

#[test]
fn all_problems_of_a_mapping_are_told_at_once() {
    let columns = r#"{"E-Mail":"email","First":"frstname","Score":"score","A":"amount","B":"amount",
        "Twice":"tags","Stage":{"property":"lifecyclestage","values":{"Hot":"hotter"}},
        "Name":{"property":"firstname","date":"%d/%m/%Y"}}"#;
    let header = ["Email", "First", "Score", "A", "B", "Twice", "Twice", "Stage", "Name"];
    let problems = Setup { columns, ..PLAIN }.compile(&header).unwrap_err();
    let mut codes = codes_of(&problems);
    codes.sort_unstable();
    assert_eq!(
        codes,
        [
            "DUPLICATE_PROPERTY",
            "HEADER_INVALID",
            "INVALID_OPTION",
            "KEY_COLUMN_MISSING",
            "MAPPING_INVALID",
            "PROPERTY_DOESNT_EXIST",
            "READ_ONLY_VALUE"
        ]
    );
    let hint = |code: &str| &problems.iter().find(|problem| problem.code.as_str() == code).unwrap().hint;
    assert!(hint("KEY_COLUMN_MISSING").contains("`Email`"), "{problems:?}");
    assert!(hint("PROPERTY_DOESNT_EXIST").contains("`firstname`"), "{problems:?}");
}

#[test]
fn a_key_that_identifies_nothing_is_a_problem() {
    let problems = Setup { key: Some("firstname"), ..PLAIN }.compile(&["First Name"]).unwrap_err();
    assert_eq!(codes_of(&problems), ["KEY_NOT_UNIQUE"]);
    let problems = PLAIN.compile(&["First Name"]).unwrap_err();
    assert_eq!(codes_of(&problems), ["KEY_COLUMN_MISSING"]);
}

#[test]
fn headers_find_properties_by_name_and_label_and_the_rest_is_listed() {
    let mapping = PLAIN.compile(&["EMAIL", "first_name", "Score", "Shoe size", "_line", "_code"]).unwrap();
    let mapped: Vec<_> = mapping.columns().map(|(column, property)| (column, &**property)).collect();
    assert_eq!(mapped, [("EMAIL", "email"), ("first_name", "firstname")]);
    let ignored: Vec<_> =
        mapping.ignored_columns().iter().map(|ignored| (ignored.column.as_str(), ignored.why)).collect();
    assert_eq!(ignored, [("Score", WhyIgnored::ReadOnly), ("Shoe size", WhyIgnored::NoSuchProperty)]);
}

#[test]
fn blank_cells_keep_or_clear_but_never_the_key() {
    let keep = PLAIN.compile(&["email", "amount"]).unwrap();
    assert_eq!(keep.apply(&["a@b.co", " "].into_iter().collect()).unwrap().properties.len(), 1);
    let clear = Setup { blank: Blank::Clear, ..PLAIN }.compile(&["email", "amount"]).unwrap();
    assert_eq!(clear.apply(&["a@b.co"].into_iter().collect()).unwrap().properties[1].1, "");
    assert_eq!(&*clear.apply(&["", "1"].into_iter().collect()).unwrap_err().code, "KEY_BLANK");
}

#[test]
fn a_record_id_identifies_and_is_not_written() {
    let mapping = Setup { key: Some("hs_object_id"), ..PLAIN }.compile(&["Record ID", "amount"]).unwrap();
    let input = mapping.apply(&["123", "5"].into_iter().collect()).unwrap();
    assert_eq!((input.key.as_str(), input.properties), ("123", vec![("amount".into(), "5".into())]));
}

#[test]
fn reasons_name_the_column_and_the_nearest_options() {
    let columns = r#"{"E":"email","Stage":{"property":"lifecyclestage","values":{"Warm":"lead"}}}"#;
    let mapping = Setup { columns, ..PLAIN }.compile(&["E", "Stage"]).unwrap();
    assert_eq!(mapping.apply(&["a@b.co", "WARM"].into_iter().collect()).unwrap().properties[1].1, "lead");
    let reason = mapping.apply(&["a@b.co", "Custmer"].into_iter().collect()).unwrap_err();
    assert_eq!(reason.reason, "column `Stage`: text of 7 characters is not an option of the property");
    assert_eq!(reason.hint, "Nearest: Customer (3 in all).");
}

const TYPED: [&str; 8] = ["email", "firstname", "amount", "active", "signup_date", "seen_at", "lifecyclestage", "tags"];

proptest! {
    #[test]
    fn arbitrary_cells_never_panic_never_leak_and_convert_to_what_stays(cell in "\\PC{0,24}|[0-9.,:/ T+-]{1,20}", at in 0_usize..8) {
        let mapping = Setup { key: Some("ext_id"), ..PLAIN }.compile(&["ext_id", TYPED[at]]).unwrap();
        match mapping.apply(&["k", &cell].into_iter().collect()) {
            Ok(input) => if let Some((_, value)) = input.properties.get(1).filter(|_| at != 2) {
                let again = mapping.apply(&["k", value].into_iter().collect()).unwrap();
                prop_assert_eq!(&again.properties[1].1, value);
            },
            Err(reason) => {
                let odd = cell.chars().count() >= 4 && !cell.is_ascii();
                prop_assert!(!odd || !reason.reason.contains(&cell) && !reason.hint.contains(&cell));
            }
        }
    }
}
