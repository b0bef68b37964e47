//! What is wrong with a mapping is told all at once, before anything is read.

use super::*;
use crate::config::SyncMatch;

/// What is wrong with these fields of contacts.
#[track_caller]
fn problems(fields: Vec<SyncField>) -> Vec<String> {
    compiled(&settings("contacts", fields)).unwrap_err()
}

fn two_way(hubspot: &str, salesforce: &str) -> SyncField {
    named(hubspot, salesforce, SyncRule::TwoWay)
}

#[test]
fn names_that_do_not_exist_come_with_those_that_do() {
    let found = problems(vec![
        two_way("emial", "Email"),
        named("nonsense_zzz", "Nonsense_zzz", SyncRule::DontSync),
        two_way("words", "Titel"),
        two_way("mobile", "Company"),
        named("words", "Acount.Name", SyncRule::AlwaysSalesforce),
        two_way("met at", "Met At"),
        two_way("zzzzzz", "Qqqqqq__c"),
    ]);
    assert_eq!(
        found,
        [
            "syncs: people, fields[0]: HubSpot's contacts have no property `emial`. Is it `email`? Correct the name, or create the property in HubSpot.",
            "syncs: people, fields[2]: Salesforce's Contact has no field `Titel`, or the integration user may not see it. Is it `Title`? Correct the name, or give the user access to the field.",
            "syncs: people, fields[3]: Salesforce's Contact has no field `Company`, or the integration user may not see it. Is it `Account.Name`? Correct the name, or give the user access to the field.",
            "syncs: people, fields[4]: Salesforce's Contact has no parent by which `Acount.Name` could be read. Is it `Account.Name`? Correct the name.",
            "syncs: people, fields[5]: HubSpot's contacts have no property `met at`. Is it `met_at`? Correct the name, or create the property in HubSpot.",
            "syncs: people, fields[5]: Salesforce's Contact has no field `Met At`, or the integration user may not see it. Is it `Met_At__c`? Correct the name, or give the user access to the field.",
            "syncs: people, fields[6]: HubSpot's contacts have no property `zzzzzz`. Correct the name, or create the property in HubSpot.",
            "syncs: people, fields[6]: Salesforce's Contact has no field `Qqqqqq__c`, or the integration user may not see it. Correct the name, or give the user access to the field.",
        ]
    );
}

#[test]
fn what_a_rule_writes_must_be_writable() {
    let found = problems(vec![
        two_way("words", "Name"),
        two_way("mobile", "Account.Phone"),
        two_way("score", "Formula__c"),
        named("domain", "Once__c", SyncRule::AlwaysHubspot),
        named("lastmodifieddate", "SystemModstamp", SyncRule::AlwaysSalesforce),
        named("email", "MailingAddress", SyncRule::AlwaysSalesforce),
        named("sf_contact_id_ext", "Id", SyncRule::AlwaysSalesforce),
        named("size", "HubSpot_Contact_Id__c", SyncRule::TwoWay),
    ]);
    assert_eq!(
        found,
        [
            "syncs: people, fields[0]: Salesforce's `Name` is read-only, or the integration user may not edit it, and the rule two_way writes it. Use always_salesforce, or another field.",
            "syncs: people, fields[1]: Salesforce's `Account.Phone` is a field of a parent record, which is only read, and the rule two_way writes it. Use always_salesforce, or another field.",
            "syncs: people, fields[2]: HubSpot's `score` is calculated by HubSpot, and the rule two_way writes it. Use always_hubspot, or another property.",
            "syncs: people, fields[2]: Salesforce's `Formula__c` is a formula, and the rule two_way writes it. Use always_salesforce, or another field.",
            "syncs: people, fields[3]: Salesforce's `Once__c` can be given when a record is created, but not changed, and the rule always_hubspot writes it. Use always_salesforce, or another field.",
            "syncs: people, fields[4]: HubSpot's `lastmodifieddate` may only be read, and the rule always_salesforce writes it. Use always_hubspot, or another property.",
            "syncs: people, fields[5]: Salesforce's `MailingAddress` is made of other fields. Map those one by one.",
            "syncs: people, fields[6]: `sf_contact_id_ext` holds the Salesforce id of the sync's links. Take the pair out of hubferry.yaml.",
            "syncs: people, fields[7]: `hubspot_contact_id__C` holds the HubSpot id of the sync's links. Take the pair out of hubferry.yaml.",
        ]
    );
    // One-way rules go with what is read-only on the other side.
    for field in [
        named("words", "Name", SyncRule::AlwaysSalesforce),
        named("score", "Amount__c", SyncRule::AlwaysHubspot),
        named("mobile", "Account.Phone", SyncRule::AlwaysSalesforce),
        named("words", "Id", SyncRule::AlwaysSalesforce),
    ] {
        compiled(&settings("contacts", vec![field])).unwrap();
    }
}

#[test]
fn types_that_cannot_be_kept_in_step_are_told() {
    let found = problems(vec![
        two_way("amount", "Birthdate"),
        two_way("words", "Opens_At__c"),
        two_way("hubspot_owner_id", "OwnerId"),
        two_way("colours", "Agreed__c"),
        with_values("amount", "Amount__c", &[("1", "2")]),
        with_values("size", "Size__c", &[("Smal", "s"), ("Huge", "larg")]),
        SyncField { placeholder: Some("false".into()), ..two_way("agreed", "Agreed__c") },
        SyncField { placeholder: Some(" ".into()), ..two_way("words", "LastName") },
        SyncField { placeholder: Some("[somebody]!".into()), ..two_way("mobile", "Title") },
        SyncField { placeholder: Some("some day".into()), ..two_way("birthday", "Met_At__c") },
    ]);
    assert_eq!(
        found,
        [
            "syncs: people, fields[0]: HubSpot's `amount` is of type number, and Salesforce's `Birthdate` of type date: they cannot be kept in step. Map fields of like types; a text goes with every type.",
            "syncs: people, fields[1]: Salesforce's `Opens_At__c` is of type time, which cannot be kept in step with anything. Take the pair out of hubferry.yaml.",
            "syncs: people, fields[2]: HubSpot's `hubspot_owner_id` holds options, and Salesforce's `OwnerId` ids of records. Say which is which: `values: { 005…: option }`.",
            "syncs: people, fields[3]: HubSpot's `colours` is of type enumeration, and Salesforce's `Agreed__c` of type boolean: they cannot be kept in step. Map fields of like types; a text goes with every type.",
            "syncs: people, fields[4]: `values` says which option is which, and neither HubSpot's `amount` nor Salesforce's `Amount__c` has options. Take `values` out.",
            "syncs: people, fields[5]: `values`: HubSpot's `size` has no option `larg`. Is it `Large`? Correct it, or add the option in HubSpot.",
            "syncs: people, fields[5]: `values`: Salesforce's `Size__c` has no value `Smal`. Is it `Small`? `values` has Salesforce's values on the left and HubSpot's on the right.",
            "syncs: people, fields[6]: Salesforce's `Agreed__c` is a checkbox, which is never blank. Take `placeholder` out.",
            "syncs: people, fields[7]: `placeholder` is blank. Write what stands in Salesforce for no value.",
            "syncs: people, fields[8]: `placeholder` is no value that Salesforce's `Title` takes. Write one that it takes.",
            "syncs: people, fields[9]: `placeholder` is no value that Salesforce's `Met_At__c` takes. Write one that it takes.",
        ]
    );
}

#[test]
fn records_are_recognised_by_what_can_be_looked_for() {
    let matched = |object: &str, fields: Vec<SyncField>, by: Option<(&str, &str)>| {
        let matched_by =
            by.map(|(hubspot, salesforce)| SyncMatch { hubspot: hubspot.into(), salesforce: salesforce.into() });
        compiled(&Sync { matched_by, ..settings(object, fields) }).map(|mapping| mapping.matched_by)
    };
    let fields = || {
        vec![
            named("email", "Website", SyncRule::DontSync),
            two_way("mobile", "Phone"),
            two_way("email", "Email"),
            two_way("domain", "Website"),
            two_way("amount", "Count__c"),
            two_way("words", "Notes__c"),
        ]
    };
    assert_eq!(matched("contacts", fields(), None), Ok(Some(1)));
    assert_eq!(matched("companies", fields(), None), Ok(Some(2)));
    assert_eq!(matched("deals", fields(), None), Ok(None));
    assert_eq!(matched("contacts", vec![two_way("mobile", "Phone")], None), Ok(None));
    assert_eq!(matched("contacts", fields(), Some(("amount", "COUNT__C"))), Ok(Some(3)));
    for ((hubspot, salesforce), expect) in [
        (("email", "Phone"), "are no pair under `fields`. Name a pair that is there, or add this one."),
        (
            ("email", "Website"),
            "is dont_sync: records cannot be recognised by it. Give the pair another rule, or name another pair.",
        ),
        (
            ("mobile", "Phone"),
            ": the field must be one of the record's own, and both must hold short texts, whole numbers or ids. Name another pair.",
        ),
        (
            ("words", "Notes__c"),
            ": the field must be one of the record's own, and both must hold short texts, whole numbers or ids. Name another pair.",
        ),
    ] {
        let problems = matched("contacts", fields(), Some((hubspot, salesforce))).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.starts_with("syncs: people, match: ") && problem.ends_with(expect), "{problem}");
        assert!(problem.contains(&format!("`{hubspot}` and `{salesforce}`")), "{problem}");
    }
}

#[test]
fn a_mapping_says_what_to_read() {
    let mut sync = settings(
        "contacts",
        vec![two_way("email", "EMAIL"), named("words", "account.Name", SyncRule::AlwaysSalesforce)],
    );
    sync.on_conflict = OnConflict::Latest;
    let mapping = compiled(&sync).unwrap();
    assert_eq!(
        mapping.pairs.iter().map(|pair| pair.key.as_str()).collect::<Vec<_>>(),
        ["email|Email", "words|Account.Name"]
    );
    assert_eq!(mapping.pair("email|Email").unwrap().on_conflict, OnConflict::Latest);
    let properties: Vec<&str> = mapping.hubspot_properties.iter().map(|name| &**name).collect();
    assert_eq!(properties, ["email", "words", "sf_contact_id_ext", "hs_object_id", "lastmodifieddate"]);
    assert_eq!(
        mapping.salesforce_fields,
        ["Email", "Account.Name", "HubSpot_Contact_Id__c", "SystemModstamp", "IsDeleted", "AccountId"]
    );
    assert_eq!(
        (mapping.salesforce_link.as_str(), mapping.salesforce_object.as_str()),
        ("HubSpot_Contact_Id__c", "Contact")
    );
    assert_eq!((mapping.is_person_aware, mapping.is_lead, mapping.has_account), (false, false, true));
    assert_eq!(mapping.required, ["LastName"]);
    let companies = compiled(&settings("companies", vec![two_way("words", "LastName")])).unwrap();
    assert!(companies.required.is_empty());
    assert!(companies.hubspot_properties.contains(&"hs_lastmodifieddate".into()));
}

#[test]
fn the_fingerprint_is_of_what_shadows_depend_on() {
    let fingerprint = |field: SyncField| compiled(&settings("contacts", vec![field])).unwrap().fingerprint;
    let plain = fingerprint(two_way("words", "Title"));
    let same = [
        named("words", "Title", SyncRule::AlwaysSalesforce),
        SyncField { strict: true, on_conflict: Some(OnConflict::Hubspot), ..two_way("words", "TITLE") },
    ];
    for field in same {
        assert_eq!(fingerprint(field.clone()), plain, "{field:?}");
    }
    for field in [
        two_way("words", "Notes__c"),
        two_way("mobile", "Title"),
        SyncField { truncate: true, ..two_way("words", "Title") },
        SyncField { placeholder: Some("[none]".into()), ..two_way("words", "Title") },
    ] {
        assert_ne!(fingerprint(field.clone()), plain, "{field:?}");
    }
    let list = |to: &str| fingerprint(with_values("size", "Size__c", &[("Huge", to)]));
    assert_ne!(list("l"), list("m"));
}

#[test]
fn the_usual_names_of_the_cross_ids_follow_the_objects() {
    let usual = |hubspot: &str, salesforce: &str| {
        let sync = Sync { salesforce_object: salesforce.into(), ..settings(hubspot, Vec::new()) };
        links_of(&sync).map(|links| (links.hubspot_property, links.salesforce_field))
    };
    for (hubspot, salesforce, property, field) in [
        ("contacts", "Contact", "sf_contact_id_ext", "HubSpot_Contact_Id__c"),
        ("0-1", "Lead", "sf_lead_id_ext", "HubSpot_Contact_Id__c"),
        ("companies", "Account", "sf_account_id_ext", "HubSpot_Company_Id__c"),
        ("deals", "Opportunity", "sf_opportunity_id_ext", "HubSpot_Deal_Id__c"),
        ("tickets", "Case", "sf_case_id_ext", "HubSpot_Ticket_Id__c"),
        ("leads", "My_Thing__c", "sf_my_thing_id_ext", "HubSpot_Lead_Id__c"),
    ] {
        assert_eq!(
            usual(hubspot, salesforce),
            Some((property.to_owned(), field.to_owned())),
            "{hubspot} and {salesforce}"
        );
    }
    assert_eq!(usual("p123_car", "Car__c"), None);
    let own = SyncLinks { hubspot_property: "a".into(), salesforce_field: "B__c".into() };
    let sync = Sync { links: Some(own.clone()), ..settings("p123_car", Vec::new()) };
    assert_eq!(links_of(&sync), Some(own));
}

#[test]
fn what_is_wrong_with_a_cross_id_is_told() {
    let links =
        |property: &str, field: &str| SyncLinks { hubspot_property: property.into(), salesforce_field: field.into() };
    let fine = links("sf_contact_id_ext", "hubspot_contact_id__c");
    assert_eq!((hubspot_need(&fine, &account("contacts")), salesforce_need(&fine, &org())), (Need::Fine, Need::Fine));
    let missing = links("sf_id", "HubSpot_Id__c");
    assert_eq!(
        (hubspot_need(&missing, &account("contacts")), salesforce_need(&missing, &org())),
        (Need::Missing, Need::Missing)
    );
    let wrong = links("score", "Formula__c");
    assert_eq!(
        hubspot_need(&wrong, &account("contacts")),
        Need::Wrong("it is of type number, and must be single-line text; it does not require unique values; it may only be read".into())
    );
    assert_eq!(
        salesforce_need(&wrong, &org()),
        Need::Wrong("it is of type double, and must be Text; it is not an External ID; it is not Unique; the integration user may not write it: give its profile or permission set edit access".into())
    );
    let Need::Wrong(why) = salesforce_need(&links("", "Title"), &org()) else { panic!("Title will do") };
    assert!(why.starts_with("it takes 10 characters, and must take 19; "), "{why}");
}

#[test]
fn owners_and_pipelines_are_asked_for_where_a_pair_holds_them() {
    let parts = |object: &str, hubspot: &str, rule| {
        let parts = schema_parts(&settings(object, vec![named(hubspot, "Title", rule)]), &account(object));
        (parts.owners, parts.pipelines)
    };
    assert_eq!(parts("contacts", "email", SyncRule::TwoWay), (false, false));
    assert_eq!(parts("contacts", "hubspot_owner_id", SyncRule::TwoWay), (true, false));
    assert_eq!(parts("deals", "dealstage", SyncRule::TwoWay), (false, true));
    assert_eq!(parts("deals", "dealstage", SyncRule::DontSync), (false, false));
}
