//! Which values are the same, what is written, and what cannot be.

use serde_json::{Value, json};

use super::*;
use crate::{codes, salesforce::soql::Literal};

#[track_caller]
fn same(pair: &Pair, hubspot: &str, salesforce: Value) {
    let (ours, theirs) = canons(pair, hubspot, &salesforce);
    assert_eq!(ours, theirs, "{}: {hubspot:?} and {salesforce}", pair.key);
}

#[track_caller]
fn different(pair: &Pair, hubspot: &str, salesforce: Value) {
    let (ours, theirs) = canons(pair, hubspot, &salesforce);
    assert_ne!(ours, theirs, "{}: {hubspot:?} and {salesforce}", pair.key);
}

/// What Salesforce is sent for HubSpot's value.
#[track_caller]
fn sent_to_salesforce(pair: &Pair, hubspot: &str) -> Value {
    pair.to_salesforce(&pair.of_hubspot(Some(hubspot))).unwrap().0
}

#[track_caller]
fn sent_to_hubspot(pair: &Pair, salesforce: &Value) -> String {
    pair.to_hubspot(&pair.of_salesforce(salesforce)).unwrap().0
}

#[track_caller]
fn refused_by_salesforce(pair: &Pair, hubspot: &str) -> FieldFault {
    pair.to_salesforce(&pair.of_hubspot(Some(hubspot))).unwrap_err()
}

#[test]
fn texts_are_compared_without_what_salesforce_takes_away() {
    let pair = pair("words", "Notes__c");
    same(&pair, " Ada\r\nLovelace \n", json!("Ada\nLovelace"));
    same(&pair, "Zoe\u{308}", json!("Zo\u{eb}"));
    same(&pair, "", Value::Null);
    same(&pair, "  ", Value::Null);
    assert_eq!(pair.of_hubspot(None), Seen::default());
    different(&pair, "ada", json!("Ada"));
    different(&pair, "a b", json!("a\u{a0}b"));
    // As it was given: a difference of form is never written.
    assert_eq!(sent_to_salesforce(&pair, "Zoe\u{308}\r\n"), json!("Zoe\u{308}"));
    assert_eq!(sent_to_salesforce(&pair, ""), Value::Null);
    assert_eq!(sent_to_hubspot(&pair, &Value::Null), "");
}

#[test]
fn addresses_and_numbers_of_telephones_are_compared_by_what_they_reach() {
    let email = pair("email", "Email");
    assert!(email.is_email);
    same(&email, "Ada@X.com", json!("ada@x.COM "));
    assert_eq!(sent_to_salesforce(&email, "Ada@X.com"), json!("ada@x.com"));
    let phone = pair("mobile", "Phone");
    same(&phone, "+1 (555) 010-9999", json!("+15550109999"));
    different(&phone, "1 555 010 9999", json!("+15550109999"));
    different(&phone, "1-800-FLOWERS", json!("1-800-PARTNER"));
    assert_eq!(sent_to_salesforce(&phone, "+1 (555) 010-9999"), json!("+1 (555) 010-9999"));
    // Where it does not fit as it was given.
    let spaced = format!("+1 {} 5", " ".repeat(50));
    assert_eq!(sent_to_salesforce(&phone, &spaced), json!("+15"));
    let domain = pair_in("companies", named("domain", "Website", SyncRule::TwoWay));
    same(&domain, "example.com", json!("https://www.Example.com/about"));
    different(&domain, "example.com", json!("https://eu.example.com"));
    assert_eq!(sent_to_hubspot(&domain, &json!("https://www.Example.com/about")), "example.com");
}

#[test]
fn numbers_are_compared_as_decimals_at_salesforces_scale() {
    let amount = pair("amount", "Amount__c");
    same(&amount, "1200.50", json!(1200.5));
    same(&amount, "1.005", json!(1.0));
    same(&amount, "1.2E3", json!(1200));
    same(&amount, "-0", json!(0.0));
    different(&amount, "", json!(0));
    different(&amount, "1.01", json!(1.0));
    assert_eq!(sent_to_salesforce(&amount, "12.345"), json!(12.34));
    assert_eq!(sent_to_salesforce(&amount, "12.00"), json!(12));
    assert_eq!(sent_to_hubspot(&amount, &json!(1e3)), "1000");
    same(&pair("amount", "Count__c"), "7.5", json!(8));
    // A text takes a number, at its own scale.
    let text = pair("amount", "Title");
    same(&text, "7.50", json!("007.5"));
    different(&text, "7.5", json!("seven"));
    assert_eq!(sent_to_salesforce(&text, "7.50"), json!("7.5"));
    let text = pair("words", "Amount__c");
    same(&text, "7.501", json!(7.5));
    assert_eq!(sent_to_salesforce(&text, "7"), json!(7));
}

#[test]
fn a_blank_is_false_where_salesforce_has_a_checkbox() {
    let agreed = pair("agreed", "Agreed__c");
    same(&agreed, "", json!(false));
    same(&agreed, "true", json!(true));
    different(&agreed, "", json!(true));
    assert_eq!(sent_to_salesforce(&agreed, ""), json!(false));
    assert_eq!(agreed.to_salesforce(&Seen::default()).unwrap().0, json!(false), "never null");
    assert_eq!(sent_to_hubspot(&agreed, &json!(true)), "true");
    // A list of yes and no does as well.
    let text = pair("words", "Agreed__c");
    same(&text, "Yes", json!(true));
    assert_eq!(sent_to_hubspot(&text, &json!(false)), "false");
    let list = pair_of(with_values("size", "Agreed__c", &[("true", "Large"), ("false", "Small")]));
    same(&list, "l", json!(true));
    same(&list, "", json!(false));
    assert_eq!(sent_to_salesforce(&list, "l"), json!(true));
    assert_eq!(sent_to_hubspot(&list, &json!(true)), "l");
}

#[test]
fn days_and_moments_meet_in_utc() {
    let day = pair("birthday", "Birthdate");
    same(&day, "2024-02-29", json!("2024-02-29"));
    same(&day, "1709164800000", json!("2024-02-29"));
    assert_eq!(sent_to_salesforce(&day, "1709164800000"), json!("2024-02-29"));
    let moment = pair("met_at", "Met_At__c");
    same(&moment, "2024-09-09T19:25:27.632Z", json!("2024-09-09T19:25:27.000+0000"));
    same(&moment, "1725909927632", json!("2024-09-09T21:25:27.000+0200"));
    assert_eq!(sent_to_salesforce(&moment, "1725909927632"), json!("2024-09-09T19:25:27.000Z"));
    assert_eq!(sent_to_hubspot(&moment, &json!("2024-09-09T19:25:27.000+0000")), "2024-09-09T19:25:27Z");
    let day_of_moment = pair("birthday", "Met_At__c");
    same(&day_of_moment, "2024-09-09", json!("2024-09-09T23:59:59.000+0000"));
    different(&day_of_moment, "2024-09-09", json!("2024-09-09T23:59:59.000-0100"));
    assert_eq!(sent_to_salesforce(&day_of_moment, "2024-09-09"), json!("2024-09-09T00:00:00.000Z"));
    let moment_of_day = pair("met_at", "Birthdate");
    same(&moment_of_day, "2024-09-09T19:25:27Z", json!("2024-09-09"));
    assert_eq!(sent_to_hubspot(&moment_of_day, &json!("2024-09-09")), "2024-09-09T00:00:00Z");
    assert_eq!(
        pair("words", "Birthdate").of_hubspot(Some("20240229")).canon.as_deref(),
        Some("20240229"),
        "no milliseconds"
    );
}

#[test]
fn options_are_told_by_value_or_label_without_regard_to_case() {
    let size = pair("size", "Size__c");
    same(&size, "s", json!("Small"));
    same(&size, "m", json!("MEDIUM"));
    // What may not be chosen any more may still stand there.
    same(&size, "l", json!("Large"));
    different(&size, "Other", json!("Huge"));
    assert_eq!(sent_to_salesforce(&size, "m"), json!("MEDIUM"));
    assert_eq!(sent_to_hubspot(&size, &json!("small")), "s");
    assert_eq!(sent_to_salesforce(&pair("size", "Open_Size__c"), "Other"), json!("Other"));
    // What people see is what goes into a list or a text that takes everything.
    assert_eq!(sent_to_salesforce(&pair("size", "Title"), "l"), json!("Large"));
    same(&pair("size", "Title"), "l", json!("LARGE"));
    let text = pair("words", "Size__c");
    same(&text, "SMALL", json!("Small"));
    assert_eq!(sent_to_salesforce(&text, "medium"), json!("MEDIUM"));
    assert_eq!(sent_to_hubspot(&text, &json!("Huge")), "Huge");
    same(&pair("agreed", "Title"), "true", json!("yes"));
}

#[test]
fn values_say_which_option_is_which() {
    let size = pair_of(with_values("size", "Size__c", &[("huge", "Other"), ("Small", "m")]));
    same(&size, "Other", json!("Huge"));
    same(&size, "m", json!("Small"));
    assert_eq!(sent_to_salesforce(&size, "Other"), json!("Huge"));
    assert_eq!(sent_to_salesforce(&size, "m"), json!("Small"), "what is said goes before what is alike");
    assert_eq!(sent_to_hubspot(&size, &json!("Huge")), "Other");
    let text = pair_of(with_values("words", "Size__c", &[("Huge", "Riesig")]));
    same(&text, "riesig", json!("Huge"));
    same(&text, "huge", json!("Huge"));
    assert_eq!(sent_to_hubspot(&text, &json!("Huge")), "Riesig");
    let owner = pair_of(with_values("hubspot_owner_id", "OwnerId", &[("005ak00000OQTie", "ADA@x.com")]));
    same(&owner, "77", json!("005ak00000OQTieAAH"));
    assert_eq!(sent_to_salesforce(&owner, "77"), json!("005ak00000OQTieAAH"));
    assert_eq!(sent_to_hubspot(&owner, &json!("005ak00000OQTie")), "77");
}

#[test]
fn several_options_are_a_set() {
    let colours = pair("colours", "Colours__c");
    same(&colours, "m;s", json!("Small;MEDIUM"));
    same(&colours, ";s;m;s", json!("MEDIUM; Small"));
    same(&colours, ";", Value::Null);
    different(&colours, "s", json!("Small;MEDIUM"));
    assert_eq!(sent_to_salesforce(&colours, "s;m"), json!("MEDIUM;Small"));
    assert_eq!(sent_to_hubspot(&colours, &json!("Small;MEDIUM")), "m;s");
    let text = pair("words", "Colours__c");
    same(&text, "medium; small", json!("Small;MEDIUM"));
    assert_eq!(sent_to_salesforce(&text, "medium; small"), json!("MEDIUM;Small"));
    assert_eq!(sent_to_salesforce(&pair("colours", "Notes__c"), "s;m"), json!("Medium;Small"));
    let one = pair("colours", "Size__c");
    assert_eq!(sent_to_salesforce(&one, "s"), json!("Small"));
    assert_eq!(
        refused_by_salesforce(&one, "s;m").reason,
        "HubSpot's `colours` has several values, and Salesforce's `Size__c` takes one"
    );
}

#[test]
fn ids_are_compared_in_eighteen_characters() {
    let account = pair("words", "AccountId");
    same(&account, "001ak00000OQTie", json!("001ak00000OQTieAAH"));
    different(&account, "001AK00000OQTIE", json!("001ak00000OQTieAAH"));
    assert_eq!(sent_to_salesforce(&account, "001ak00000OQTie"), json!("001ak00000OQTieAAH"));
    assert_eq!(refused_by_salesforce(&account, "Acme").reason, "`words` holds no id of a Salesforce record");
}

#[test]
fn a_parents_field_is_compared_by_the_propertys_type() {
    let company = pair("words", "account.Name");
    assert_eq!(company.salesforce, "Account.Name");
    assert!(!company.writable_in_salesforce && !company.createable_in_salesforce && !company.required_in_salesforce);
    same(&company, " Acme", json!("Acme"));
    same(&pair("amount", "Account.Size__c"), "12.0", json!(12));
    same(&pair("hubspot_owner_id", "Owner.Email"), "77", json!("Ada@x.com"));
    assert_eq!(sent_to_hubspot(&pair("hubspot_owner_id", "Owner.Email"), &json!("Ada@x.com")), "77");
}

#[test]
fn stages_of_the_same_name_are_one() {
    let stage = pair_in("deals", named("dealstage", "Title", SyncRule::TwoWay));
    same(&stage, "12", json!("Closed Won"));
    same(&stage, "21", json!("Closed Won"));
    different(&stage, "11", json!("Closed Won"));
    assert_eq!(sent_to_hubspot(&stage, &json!("closed won")), "12");
    assert_eq!(
        sent_to_salesforce(&pair_in("deals", named("dealstage", "Notes__c", SyncRule::TwoWay)), "21"),
        json!("Closed Won")
    );
}

#[test]
fn a_text_that_is_cut_is_the_whole_one() {
    let title = pair_of(SyncField { truncate: true, ..named("words", "Title", SyncRule::TwoWay) });
    same(&title, "Head of Engineering", json!("Head of En"));
    same(&title, "Head of E ngineering", json!("Head of E"));
    different(&title, "Head of En", json!("Head of E"));
    assert_eq!(sent_to_salesforce(&title, "Head of Engineering"), json!("Head of En"));
    assert_eq!(sent_to_salesforce(&title, "Head"), json!("Head"));
}

#[test]
fn a_placeholder_never_comes_back() {
    let name =
        pair_of(SyncField { placeholder: Some("[unknown]".into()), ..named("words", "LastName", SyncRule::TwoWay) });
    assert!(name.required_in_salesforce);
    assert_eq!(name.of_salesforce(&json!("[unknown]")), Seen::default());
    assert_eq!(name.of_hubspot(Some("[unknown]")), Seen::default());
    assert_eq!(name.to_salesforce(&name.of_hubspot(None)).unwrap(), (json!("[unknown]"), None));
    assert_eq!(name.to_hubspot(&name.of_salesforce(&json!("[unknown]"))).unwrap(), (String::new(), None));
    assert_eq!(sent_to_salesforce(&name, "Lovelace"), json!("Lovelace"));
}

#[test]
fn what_a_person_typed_is_understood() {
    let size = pair_of(with_values("size", "Size__c", &[("Huge", "l")]));
    for typed in ["l", "large", "HUGE"] {
        assert_eq!(size.typed(typed).canon.as_deref(), Some("l"), "{typed}");
    }
    assert_eq!(size.typed(" "), Seen::default());
    assert_eq!(pair("birthday", "Birthdate").typed("2024-02-29").canon.as_deref(), Some("2024-02-29"));
    assert_eq!(pair("agreed", "Agreed__c").typed("").canon.as_deref(), Some("false"));
}

#[test]
fn what_cannot_be_written_is_told_with_both_fields_and_no_value() {
    let required = pair("words", "LastName");
    let fault = refused_by_salesforce(&required, " ");
    assert_eq!(fault.code, codes::REQUIRED_FIELD_MISSING);
    assert_eq!(fault.reason, "`words` is blank, and Salesforce wants a value for `LastName`");
    let size = pair("size", "Size__c");
    let cases = [
        (pair("words", "Title"), "secret that is long", "`words` has 19 characters, and Salesforce's `Title` takes 10"),
        (pair("email", "Email"), "secret", "`email` holds no e-mail address that Salesforce takes"),
        (pair("words", "Amount__c"), "secret", "the value cannot be read as a number, which `words|Amount__c` needs"),
        (pair("words", "Birthdate"), "secret", "the value cannot be read as a date, which `words|Birthdate` needs"),
        (
            pair("words", "Met_At__c"),
            "secret",
            "the value cannot be read as a date and time, which `words|Met_At__c` needs",
        ),
        (
            pair("words", "Agreed__c"),
            "secret",
            "the value cannot be read as a yes or no, which `words|Agreed__c` needs",
        ),
        (
            pair("amount", "Amount__c"),
            "12345.5",
            "`amount` holds more than the 4 digits before the point that Salesforce's `Amount__c` takes",
        ),
        (
            pair("amount", "Amount__c"),
            "9999.999",
            "`amount` holds more than the 4 digits before the point that Salesforce's `Amount__c` takes",
        ),
        (size.clone(), "Other", "HubSpot's `size` has a value that Salesforce's `Size__c` does not have"),
        (size.clone(), "l", "HubSpot's `size` has a value that is not active in Salesforce's `Size__c`"),
        (
            pair_of(with_values("size", "Size__c", &[("Huge", "l"), ("Small", "l")])),
            "l",
            "HubSpot's `size` has a value that stands for several of Salesforce's `Size__c`",
        ),
    ];
    for (pair, value, reason) in cases {
        let fault = refused_by_salesforce(&pair, value);
        assert_eq!((fault.code, fault.reason.as_str()), (codes::SYNC_VALUE, reason));
        assert!(!fault.hint.contains("secret") && fault.hint.ends_with('.'), "{}", fault.hint);
    }
    let fault = size.to_hubspot(&size.of_salesforce(&json!("Larg"))).unwrap_err();
    assert_eq!(fault.reason, "Salesforce's `Size__c` has a value that HubSpot's `size` does not have");
    assert_eq!(
        fault.hint,
        "Is it `Large`? Add the value there, or name its counterpart under the pair's `values` in hubferry.yaml."
    );
    let text = pair("words", "Notes__c");
    let fault = text.to_hubspot(&text.of_salesforce(&json!("x".repeat(65_537)))).unwrap_err();
    assert_eq!(fault.reason, "`Notes__c` is longer than the 65536 characters that HubSpot takes");
    let number = pair("amount", "Title");
    assert_eq!(number.to_hubspot(&number.of_salesforce(&json!("n/a"))).unwrap_err().code, codes::SYNC_VALUE);
}

#[test]
fn a_domain_is_looked_for_as_salesforce_spells_addresses() {
    let domain = pair_in("companies", named("domain", "Website", SyncRule::TwoWay));
    let searched = domain.searched_in_salesforce("example.com");
    for text in ["example.com", "www.example.com", "https://www.example.com/", "http://example.com"] {
        assert!(searched.contains(&Literal::from(text)), "{text}");
    }
    assert_eq!(pair("amount", "Count__c").searched_in_salesforce("7"), [Literal::Integer(7)]);
    assert_eq!(pair("email", "Email").searched_in_salesforce("a@b.co"), [Literal::from("a@b.co")]);
}
