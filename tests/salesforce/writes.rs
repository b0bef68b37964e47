//! One verdict for each record, and no record twice, whatever Salesforce answers.

use hubferry::salesforce::write::{Verdict, Write};
use hubferry_simulator::salesforce::{
    Automation, DuplicateRule, Fault, Field, FieldType, OrgSettings, Rewrite, Test, ValidationRule, What, five_percent,
};

use super::*;

const KEY: &str = "HubSpot_Contact_Id__c";

fn person(number: usize) -> Record {
    record(
        json!({KEY: number.to_string(), "LastName": format!("Name {number}"), "Email": format!("p{number}@example.com")}),
    )
}

async fn upsert(client: &Org, records: &[Record]) -> Vec<Verdict> {
    client.write_all("Contact", Write::Upsert { key: KEY }, records, NONE).await.unwrap()
}

fn written(verdict: &Verdict) -> (SalesforceId, bool) {
    match verdict {
        Verdict::Written { id, created } => (id.clone(), *created),
        other => panic!("{other:?}"),
    }
}

fn refused_with(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Refused(refusal) | Verdict::Forbidden(refusal) | Verdict::Later(refusal) => &refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn five_hundred_records_take_three_calls_and_a_second_time_creates_nothing() {
    let world = World::new(OrgSettings::default());
    let client = world.client();
    let records: Vec<_> = (0..500).map(person).collect();
    let first = upsert(&client, &records).await;
    assert_eq!(world.calls("/composite/sobjects"), 3);
    let second = upsert(&client, &records).await;
    for (first, second) in first.iter().zip(&second) {
        let ((id, created), (same, again)) = (written(first), written(second));
        assert_eq!((id, true, false), (same, created, again));
    }
    assert_eq!(world.contacts(), 500);
}

#[tokio::test(start_paused = true)]
async fn every_record_has_the_verdict_that_is_its_own_in_the_order_of_the_request() {
    let mut settings = OrgSettings::default();
    settings.fields.push(("Contact".to_owned(), Field::picklist("Tier__c", &["Gold", "Silver"], true)));
    settings.fields.push(("Contact".to_owned(), Field::number("Score__c", FieldType::Double, 5, 1)));
    settings.validation.push(ValidationRule {
        object: "Contact".to_owned(),
        field: "Title".to_owned(),
        refuse_if: Test::Contains("spam".to_owned()),
        message: "Title Spammer in Chief is not welcome".to_owned(),
    });
    let world = World::new(settings);
    let client = world.client();
    let table = [
        (json!({"LastName": "Fine"}), ""),
        (json!({"FirstName": "No last name"}), "REQUIRED_FIELD_MISSING"),
        (json!({"LastName": "X", "Email": "secret.person"}), "INVALID_EMAIL_ADDRESS"),
        (json!({"LastName": "X", "FirstName": "Longnameof41characters".repeat(2)}), "STRING_TOO_LONG"),
        (json!({"LastName": "X", "Tier__c": "Bronze"}), "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        (json!({"LastName": "X", "Score__c": 123_456}), "NUMBER_OUTSIDE_VALID_RANGE"),
        (json!({"LastName": "X", "Company": "No such field"}), "INVALID_FIELD"),
        (json!({"LastName": "X", "MailingAddress": null}), "INVALID_FIELD_FOR_INSERT_UPDATE"),
        (json!({"LastName": "X", "AccountId": "001ak000000000zAAB"}), "MALFORMED_ID"),
        (json!({"LastName": "X", "AccountId": "001ak000000000z"}), "INVALID_CROSS_REFERENCE_KEY"),
        (json!({"LastName": "X", "Title": "Spammer in Chief"}), "FIELD_CUSTOM_VALIDATION_EXCEPTION"),
        (json!({"LastName": "Also fine", "Tier__c": "Gold", "Score__c": 12.34}), ""),
    ];
    let records: Vec<_> = table.iter().map(|(json, _)| record(json.clone())).collect();
    let verdicts = client.write_all("Contact", Write::Create, &records, NONE).await.unwrap();
    for ((json, code), verdict) in table.iter().zip(&verdicts) {
        match *code {
            "" => assert!(written(verdict).1),
            code => {
                assert_eq!(refused_with(verdict), code, "{json}");
                let text = format!("{verdict:?}");
                for value in ["secret.person", "Longnameof", "Bronze", "123456", "Spammer in Chief"] {
                    assert!(!text.contains(value), "{value} in {text}");
                }
            }
        }
    }
    assert_eq!(world.contacts(), 2);
    let last = written(verdicts.last().unwrap()).0;
    assert_eq!(world.look(&last, "Score__c").as_deref(), Some("12.3"), "as the org keeps it");
}

#[tokio::test(start_paused = true)]
async fn a_value_of_a_wrong_shape_fails_its_own_record_and_not_the_other_hundred() {
    let world = World::new(OrgSettings::default());
    let mut records: Vec<_> = (0..100).map(person).collect();
    records[37].values.insert("HasOptedOutOfEmail".to_owned(), json!("perhaps"));
    let verdicts = upsert(&world.client(), &records).await;
    assert_eq!(refused_with(&verdicts[37]), "JSON_PARSER_ERROR");
    assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Written { .. })).count(), 99);
    assert_eq!(world.contacts(), 99);
}

#[tokio::test(start_paused = true)]
async fn lost_answers_of_upserts_make_no_second_record() {
    for what in [What::ResetAfter, What::TruncatedBody, What::TimeoutAfterCommit, What::ResetBefore] {
        let faults = vec![Fault::always(what.clone()).on("/composite").times(2)];
        let world = World::new(OrgSettings { faults, ..OrgSettings::default() });
        let verdicts = upsert(&world.client(), &(0..10).map(person).collect::<Vec<_>>()).await;
        verdicts.iter().for_each(|verdict| drop(written(verdict)));
        assert_eq!(world.contacts(), 10, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_was_lost_is_not_repeated_and_says_so() {
    for (what, there, calls) in [
        (What::ResetAfter, 2, 1),
        (What::TruncatedBody, 2, 1),
        (What::TimeoutAfterCommit, 2, 1),
        (What::UnknownException, 0, 1),
        (What::ServerUnavailable, 2, 2),
        (What::Html(503), 2, 2),
        (What::RowLocked, 2, 2),
    ] {
        let faults = vec![Fault::nth("/composite", 1, what.clone())];
        let world = World::new(OrgSettings { faults, ..OrgSettings::default() });
        let records = [record(json!({"LastName": "A"})), record(json!({"LastName": "B"}))];
        let verdicts = world.client().write_all("Contact", Write::Create, &records, NONE).await.unwrap();
        let unknown = verdicts.iter().all(|verdict| *verdict == Verdict::Unknown);
        assert_eq!(unknown, calls == 1, "{what:?}: {verdicts:?}");
        assert_eq!((world.contacts(), world.calls("/composite")), (there, calls), "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn locked_records_are_written_in_the_end_and_those_locked_for_long_are_for_later() {
    for wrapped in [false, true] {
        let settings = OrgSettings { lock_share: 0.3, locks_wrapped: wrapped, seed: 5, ..OrgSettings::default() };
        let world = World::new(settings);
        let verdicts = upsert(&world.client(), &(0..200).map(person).collect::<Vec<_>>()).await;
        let later = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Later(_))).count();
        let done = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Written { .. })).count();
        assert_eq!(done + later, 200);
        assert!(later <= 5, "{later}");
        assert_eq!(world.contacts(), done);
    }
    let world = World::new(OrgSettings::default());
    let (held, free) = (world.contact("Held", &[]), world.contact("Free", &[]));
    world.org.borrow_mut().lock_until(held.as_str(), "2026-03-03T00:00:00Z".parse().unwrap());
    let records = [of(&held, json!({"Title": "x"})), of(&free, json!({"Title": "x"}))];
    let verdicts = world.client().write_all("Contact", Write::Update, &records, NONE).await.unwrap();
    assert_eq!(refused_with(&verdicts[0]), "UNABLE_TO_LOCK_ROW");
    written(&verdicts[1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_locked_is_for_later_when_the_invocation_has_no_time_to_wait() {
    let world = World::new(OrgSettings::default());
    let (held, free) = (world.contact("Held", &[]), world.contact("Free", &[]));
    world.org.borrow_mut().lock_until(held.as_str(), "2026-03-03T00:00:00Z".parse().unwrap());
    let records = [of(&held, json!({"Title": "x"})), of(&free, json!({"Title": "x"}))];
    let at = world.clock.now() + jiff::SignedDuration::from_secs(5);
    let client = world.client();
    let verdicts = client.write_all("Contact", Write::Update, &records, Deadline { at }).await.unwrap();
    assert_eq!(refused_with(&verdicts[0]), "UNABLE_TO_LOCK_ROW");
    written(&verdicts[1]);
    assert!(world.clock.now() < at, "it stops before its deadline");
}

#[tokio::test(start_paused = true)]
async fn both_spellings_of_the_duplicate_result_name_the_candidates() {
    for misspelt in [true, false] {
        let mut settings = OrgSettings { misspelt_duplicates: misspelt, ..OrgSettings::default() };
        settings.duplicates.push(DuplicateRule {
            name: "Contacts_DR".to_owned(),
            object: "Contact".to_owned(),
            against: vec!["Contact".to_owned(), "Lead".to_owned()],
            fields: vec!["Email".to_owned()],
            block: false,
        });
        let world = World::new(settings);
        let known = world.contact("Known", &[("Email", "P1@example.com")]);
        let lead = [("LastName", "L"), ("Company", "C"), ("Email", "p2@example.com")];
        let lead = world.org.borrow_mut().create(world.clock.now(), "Lead", &lead).unwrap();
        let verdicts = upsert(&world.client(), &[person(1), person(2), person(3)]).await;
        for (verdict, object, id) in [(&verdicts[0], "Contact", known.as_str()), (&verdicts[1], "Lead", lead.as_str())]
        {
            let Verdict::Duplicates { matches, may_save, .. } = verdict else { panic!("{verdict:?}") };
            assert!(may_save);
            assert_eq!(
                (matches[0].object.as_str(), matches[0].id.as_str(), matches.len()),
                (object, id, 1),
                "{misspelt}"
            );
        }
        written(&verdicts[2]);
        assert_eq!(world.contacts(), 2, "nothing is saved over the rule");
    }
}

#[tokio::test(start_paused = true)]
async fn a_taken_unique_value_names_its_record_and_an_ambiguous_key_writes_nothing() {
    let world = World::new(OrgSettings::default());
    let holder = world.contact("Holder", &[(KEY, "77")]);
    let other = world.contact("Other", &[]);
    let client = world.client();
    let verdicts = client.write_all("Contact", Write::Update, &[of(&other, json!({KEY: "77"}))], NONE).await.unwrap();
    let Verdict::Taken { by, .. } = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!(by.as_ref(), Some(&holder), "15 characters in the text, 18 here");

    world.org.borrow_mut().define_field("Contact", Field::text("Legacy__c", 20).external_id(false));
    world.contact("One", &[("Legacy__c", "9")]);
    world.contact("Two", &[("Legacy__c", "9")]);
    let row = record(json!({"Legacy__c": "9", "LastName": "New"}));
    let many = client.write_all("Contact", Write::Upsert { key: "Legacy__c" }, &[row], NONE).await.unwrap();
    assert!(matches!(many[0], Verdict::Ambiguous(_)), "{many:?}");
    let one = client.upsert("Contact", "Legacy__c", "9", &values(json!({"LastName": "New"})), NONE).await.unwrap();
    assert!(matches!(one, Verdict::Ambiguous(_)), "300: {one:?}");
    assert!(world.org.borrow().find_by("Contact", "LastName", "New").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_record_twice_in_a_batch_is_written_twice_in_order_not_refused_twice() {
    let world = World::new(OrgSettings::default());
    let id = world.contact("X", &[]);
    let records = [of(&id, json!({"Title": "first"})), of(&id, json!({"Title": "second"}))];
    let verdicts = world.client().write_all("Contact", Write::Update, &records, NONE).await.unwrap();
    verdicts.iter().for_each(|verdict| drop(written(verdict)));
    assert_eq!(world.look(&id, "Title").as_deref(), Some("second"));
    let mut again = person(1);
    again.values.insert("Title".to_owned(), json!("second"));
    let verdicts = upsert(&world.client(), &[person(1), again, record(json!({"LastName": "no key"}))]).await;
    assert_eq!((written(&verdicts[0]).1, written(&verdicts[1]).1), (true, false));
    assert_eq!(refused_with(&verdicts[2]), "MISSING_ARGUMENT");
}

#[tokio::test(start_paused = true)]
async fn null_clears_absent_keeps_and_an_empty_text_clears() {
    let world = World::new(OrgSettings::default());
    let id = world.contact("X", &[("Title", "t"), ("Department", "d"), ("Phone", "1")]);
    let values = json!({"Title": null, "Department": "  ", "LastName": " Padded "});
    world.client().write_all("Contact", Write::Update, &[of(&id, values)], NONE).await.unwrap();
    let all = world.org.borrow().look("Contact", id.as_str()).unwrap();
    assert_eq!(
        (all.get("Title"), all.get("Department"), all["Phone"].as_str(), all["LastName"].as_str()),
        (None, None, "1", "Padded")
    );
}

#[tokio::test(start_paused = true)]
async fn automation_rewrites_what_was_written_and_the_history_tells_who_did_what() {
    let mut settings = OrgSettings::default();
    settings.automation.push(Automation {
        object: "Contact".to_owned(),
        when_changed: "Phone".to_owned(),
        writes: "Phone".to_owned(),
        value: Rewrite::UsPhone,
    });
    let world = World::new(settings);
    let id = world.contact("X", &[]);
    let update = |phone: &str| of(&id, json!({ "Phone": phone }));
    world.client().write_all("Contact", Write::Update, &[update("5550100199")], NONE).await.unwrap();
    assert_eq!(world.look(&id, "Phone").as_deref(), Some("(555) 010-0199"));
    let org = world.org.borrow();
    let last = org.history().last().unwrap();
    assert!(!last.by_person && last.what == "update");
    assert_eq!(last.changes, [("Phone".to_owned(), None, Some("(555) 010-0199".to_owned()))]);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_gone_in_every_way_of_writing() {
    let world = World::new(OrgSettings::default());
    let (deleted, purged, live) = (world.contact("A", &[]), world.contact("B", &[]), world.contact("C", &[]));
    world.org.borrow_mut().delete(world.clock.now(), "Contact", deleted.as_str());
    world.org.borrow_mut().purge("Contact", purged.as_str());
    let client = world.client();
    let records = [&deleted, &purged, &live].map(|id| of(id, json!({"Title": "x"})));
    let verdicts = client.write_all("Contact", Write::Update, &records, NONE).await.unwrap();
    assert_eq!(verdicts[..2], [Verdict::Gone, Verdict::Gone]);
    written(&verdicts[2]);
    let verdicts = client.write_all("Contact", Write::Delete, &records, NONE).await.unwrap();
    assert_eq!(verdicts[..2], [Verdict::Gone, Verdict::Gone]);
    written(&verdicts[2]);
    for id in [&deleted, &purged] {
        assert_eq!(client.get("Contact", id, &[], NONE).await.unwrap(), None);
        let verdict = client.update("Contact", id, &values(json!({"Title": "x"})), None, NONE).await.unwrap();
        assert_eq!(verdict, Verdict::Gone);
        assert_eq!(client.delete("Contact", id, NONE).await.unwrap(), Verdict::Gone);
    }
}

#[tokio::test(start_paused = true)]
async fn a_condition_on_the_date_stops_the_write_that_would_undo_a_persons_edit() {
    let world = World::new(OrgSettings::default());
    let id = world.contact("X", &[]);
    let client = world.client();
    let read = client.get("Contact", &id, &["LastModifiedDate"], NONE).await.unwrap().unwrap();
    let at = hubferry::salesforce::model::datetime(read.get("LastModifiedDate").unwrap());
    world.clock.sleep(std::time::Duration::from_secs(2)).await;
    let change = values(json!({"Title": "ours"}));
    written(&client.update("Contact", &id, &change, at, NONE).await.unwrap());
    world.clock.sleep(std::time::Duration::from_secs(2)).await;
    world.org.borrow_mut().edit(world.clock.now(), "Contact", id.as_str(), &[("Title", "theirs")]).unwrap();
    assert_eq!(client.update("Contact", &id, &change, at, NONE).await.unwrap(), Verdict::LostRace);
    assert_eq!(world.look(&id, "Title").as_deref(), Some("theirs"));
    // A lock that is held by whoever changes it is no lost answer; where an answer was lost, the change may be our own.
    world.org.borrow_mut().add_fault(Fault::always(What::RowLocked).on("/sobjects/Contact").times(1));
    assert_eq!(client.update("Contact", &id, &change, at, NONE).await.unwrap(), Verdict::LostRace);
    let read = client.get("Contact", &id, &["LastModifiedDate"], NONE).await.unwrap().unwrap();
    let at = hubferry::salesforce::model::datetime(read.get("LastModifiedDate").unwrap());
    world.clock.sleep(std::time::Duration::from_secs(2)).await;
    world.org.borrow_mut().add_fault(Fault::always(What::ResetAfter).on("/sobjects/Contact").times(1));
    assert_eq!(client.update("Contact", &id, &change, at, NONE).await.unwrap(), Verdict::Unknown);
    assert_eq!(world.look(&id, "Title").as_deref(), Some("ours"));
}

#[tokio::test(start_paused = true)]
async fn one_record_is_upserted_by_its_key_and_its_value_stays_out_of_errors() {
    let world = World::new(OrgSettings::default());
    let client = world.client();
    let person = values(json!({"LastName": "A"}));
    let (id, created) = written(&client.upsert("Contact", KEY, "a/b 'c", &person, NONE).await.unwrap());
    assert!(created);
    assert_eq!(written(&client.upsert("Contact", KEY, "A/B 'C", &person, NONE).await.unwrap()), (id, false));
    let error = client.upsert("Contact", "Nonsense__c", "hidden-value", &person, NONE).await.unwrap_err();
    assert!(!error.message().contains("hidden-value") && error.message().contains("404"), "{error}");
    world.org.borrow_mut().add_fault(Fault::always(What::Html(502)).on("/sobjects"));
    let error = client.upsert("Contact", KEY, "hidden-value", &person, NONE).await.unwrap_err();
    assert!(!error.message().contains("hidden"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_field_that_may_not_be_written_is_told_apart_from_bad_data() {
    let world = World::new(OrgSettings::default());
    world.org.borrow_mut().protect_field("Contact", "Title", true);
    let id = world.contact("X", &[]);
    let client = world.client();
    let verdicts = client.write_all("Contact", Write::Update, &[of(&id, json!({"Title": "x"}))], NONE).await.unwrap();
    assert!(matches!(&verdicts[0], Verdict::Forbidden(refusal) if refusal.fields == ["Title"]), "{verdicts:?}");
    let verdict = client.update("Contact", &id, &values(json!({"Title": "x"})), None, NONE).await.unwrap();
    assert!(matches!(verdict, Verdict::Forbidden(_)), "{verdict:?}");
}

/// Loses the race for a key: the first answer says that another record has the value, the second finds that record.
struct LosesTheRace {
    calls: Cell<u32>,
    field: &'static str,
}

#[async_trait(?Send)]
impl HttpService for LosesTheRace {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let body = if request.uri().path().ends_with("/token") {
            json!({"access_token": "t", "instance_url": OrgSettings::LOGIN_URL})
        } else {
            self.calls.set(self.calls.get() + 1);
            match self.calls.get() {
                1 => json!([{"success": false, "errors": [{"statusCode": "DUPLICATE_VALUE", "fields": [],
                    "message": format!("duplicate value found: {} duplicates value on record with id: 003ak000003dQCG", self.field)}]}]),
                _ => json!([{"id": "003ak000003dQCGAA2", "success": true, "created": false, "errors": []}]),
            }
        };
        Ok(Response::new(Bytes::from(body.to_string())))
    }
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_race_for_a_key_updates_the_winners_record() {
    for (field, calls) in [(KEY, 2), ("Other_Key__c", 1)] {
        let world = World::new(OrgSettings::default());
        let http = Rc::new(LosesTheRace { calls: Cell::new(0), field });
        let client = world.client_over(http.clone(), QuotaLimits::default());
        let verdicts = upsert(&client, &[person(1)]).await;
        assert_eq!(http.calls.get(), calls, "{field}");
        match calls {
            2 => assert!(!written(&verdicts[0]).1),
            _ => assert!(matches!(&verdicts[0], Verdict::Taken { by: Some(_), .. }), "another field: a true conflict"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn upserts_under_every_fault_leave_one_record_for_each_key() {
    for seed in 0..20 {
        let settings = OrgSettings { seed, lock_share: 0.02, faults: five_percent(seed), ..OrgSettings::default() };
        let world = World::new(settings);
        let records: Vec<_> = (0..600).map(person).collect();
        let mut verdicts = vec![None; records.len()];
        let client = world.client();
        // An error leaves what is known; the rest is asked again.
        for _ in 0..10 {
            if client.write("Contact", Write::Upsert { key: KEY }, &records, &mut verdicts, NONE).await.is_ok() {
                break;
            }
        }
        for (number, verdict) in verdicts.iter().enumerate() {
            match verdict.as_ref().unwrap() {
                Verdict::Written { id, .. } => assert_eq!(world.look(id, KEY), Some(number.to_string())),
                Verdict::Later(_) => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let later = verdicts.iter().flatten().filter(|verdict| matches!(verdict, Verdict::Later(_))).count();
        assert_eq!(world.contacts() + later, 600, "seed {seed}");
    }
}
