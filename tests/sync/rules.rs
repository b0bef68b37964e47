//! Who wins: each rule, whichever side changed, blank or not.

use std::time::Duration;

use hubferry::{clock::Clock as _, sync::model::ReviewKind};

use super::{Both, EMAIL, LAST, PEOPLE, WIDE};

/// What a person does to a field.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Edit {
    Keep,
    Clear,
    Write(&'static str),
}

impl Edit {
    fn text(self) -> Option<&'static str> {
        match self {
            Self::Keep => None,
            Self::Clear => Some(""),
            Self::Write(text) => Some(text),
        }
    }
}

/// What both sides hold at the end; `Err` where a person has to decide.
type Expected = Result<Option<&'static str>, ()>;

const WAS: &str = "was";
const S: &str = "of salesforce";
const H: &str = "of hubspot";

/// What the rule says about a field that was `was` on both sides, after these edits in Salesforce and in HubSpot.
fn expected(rule: &str, in_salesforce: Edit, in_hubspot: Edit) -> Expected {
    use Edit::{Clear, Keep, Write};
    let now = |edit| match edit {
        Keep => Some(WAS),
        Clear => None,
        Write(text) => Some(text),
    };
    let (s, h) = (now(in_salesforce), now(in_hubspot));
    match (rule, in_salesforce, in_hubspot) {
        ("two_way", Keep, _) => Ok(h),
        ("two_way", _, Keep) => Ok(s),
        ("two_way", Clear, Clear) => Ok(None),
        ("two_way", ..) => Err(()),
        ("always_salesforce", ..) => Ok(s),
        ("always_hubspot", ..) => Ok(h),
        // A value, or its being cleared, goes over; the other side's counts while there is none here.
        ("prefer_salesforce_unless_blank", Clear, Write(_)) => Ok(h),
        ("prefer_salesforce_unless_blank", ..) => Ok(s),
        ("prefer_hubspot_unless_blank", Write(_), Clear) => Ok(s),
        ("prefer_hubspot_unless_blank", ..) => Ok(h),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_rule_does_what_it_says_whichever_side_changed_blank_or_not() {
    let rules = [
        "two_way",
        "always_salesforce",
        "always_hubspot",
        "prefer_salesforce_unless_blank",
        "prefer_hubspot_unless_blank",
    ];
    for rule in rules {
        let field = format!("{{ hubspot: jobtitle, salesforce: Title, rule: {rule} }}");
        let both = Both::people(&[EMAIL, LAST, &field], WIDE);
        let mut cases = Vec::new();
        for salesforce in [Edit::Keep, Edit::Clear, Edit::Write(S)] {
            for hubspot in [Edit::Keep, Edit::Clear, Edit::Write(H)] {
                let email = format!("c{}@example.com", cases.len());
                let s = both.s_create(&[("LastName", "Case"), ("Email", &email), ("Title", WAS)]);
                let h = both.h_create(&[("lastname", "Case"), ("email", &email), ("jobtitle", WAS)]);
                cases.push((h, s, salesforce, hubspot));
            }
        }
        both.done(PEOPLE).await;
        assert_eq!(both.links().len(), cases.len());
        both.assert_quiet(PEOPLE).await;
        for (h, s, salesforce, hubspot) in &cases {
            if let Some(text) = salesforce.text() {
                both.s_edit(s, &[("Title", text)]);
            }
            if let Some(text) = hubspot.text() {
                both.h_edit(h, &[("jobtitle", text)]);
            }
        }
        both.done(PEOPLE).await;
        let reviews = both.reviews();
        for (h, s, salesforce, hubspot) in &cases {
            let case = format!("{rule}: Salesforce {salesforce:?}, HubSpot {hubspot:?}");
            let (there, here) = (both.s(s, "Title"), both.h(h, "jobtitle"));
            let review = reviews.iter().find(|review| review.hubspot_id.as_ref() == Some(h));
            match expected(rule, *salesforce, *hubspot) {
                Ok(value) => {
                    assert_eq!((there.as_deref(), here.as_deref()), (value, value), "{case}");
                    assert!(review.is_none(), "{case}: {review:?}");
                }
                Err(()) => {
                    let review = review.unwrap_or_else(|| panic!("{case}: no review"));
                    assert_eq!(review.kind, ReviewKind::Conflict, "{case}");
                    let field = review.field.as_ref().unwrap();
                    assert_eq!((field.hubspot.as_str(), field.salesforce.as_str()), ("jobtitle", "Title"));
                    assert_eq!((&field.hubspot_value, &field.salesforce_value), (&here, &there), "{case}");
                    assert_eq!(field.hubspot_before.as_deref(), Some(WAS), "{case}");
                    assert_eq!(field.salesforce_before.as_deref(), Some(WAS), "{case}");
                    let edited = |edit: Edit| edit.text().filter(|text| !text.is_empty()).map(str::to_owned);
                    assert_eq!((there, here), (edited(*salesforce), edited(*hubspot)), "{case}: left as they are");
                }
            }
        }
        both.assert_quiet(PEOPLE).await;
        assert_eq!(both.reviews().len(), reviews.len(), "{rule}: the same reviews, not new ones");
    }
}

/// First contact: nothing was ever in step.
#[tokio::test(start_paused = true)]
async fn the_first_meeting_of_two_records_fills_blanks_and_asks_where_both_have_a_value() {
    for (rule, s_and_h) in [
        ("two_way", Err(())),
        ("always_salesforce", Ok(S)),
        ("always_hubspot", Ok(H)),
        ("prefer_salesforce_unless_blank", Ok(S)),
        ("prefer_hubspot_unless_blank", Ok(H)),
    ] {
        let field = format!("{{ hubspot: jobtitle, salesforce: Title, rule: {rule} }}");
        let both = Both::people(&[EMAIL, LAST, &field], WIDE);
        let make = |at: u8, title: &str, jobtitle: &str| {
            let email = format!("c{at}@example.com");
            let s = both.s_create(&[("LastName", "Case"), ("Email", &email), ("Title", title)]);
            let h = both.h_create(&[("lastname", "Case"), ("email", &email), ("jobtitle", jobtitle)]);
            (h, s)
        };
        let (only_s, only_h, two) = (make(0, S, ""), make(1, "", H), make(2, S, H));
        both.done(PEOPLE).await;
        let of = |pair: &(String, String)| (both.s(&pair.1, "Title"), both.h(&pair.0, "jobtitle"));
        let both_hold = |text: &str| (Some(text.to_owned()), Some(text.to_owned()));
        // One-way rules carry a blank, too: that is what they say.
        let one_way = |text: &str, blanked: bool| if blanked { (None, None) } else { both_hold(text) };
        assert_eq!(of(&only_s), one_way(S, rule == "always_hubspot"), "{rule}");
        assert_eq!(of(&only_h), one_way(H, rule == "always_salesforce"), "{rule}");
        match s_and_h {
            Ok(text) => assert_eq!(of(&two), both_hold(text), "{rule}"),
            Err(()) => {
                assert_eq!(of(&two), (Some(S.to_owned()), Some(H.to_owned())), "{rule}");
                assert_eq!(both.review_kinds(), [ReviewKind::Conflict]);
            }
        }
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_true_conflict_goes_where_on_conflict_says() {
    for (on_conflict, expected) in [("salesforce", Some(S)), ("hubspot", Some(H)), ("review", None)] {
        let field = format!("{{ hubspot: jobtitle, salesforce: Title, rule: two_way, on_conflict: {on_conflict} }}");
        let both = Both::people(&[EMAIL, LAST, &field], "");
        let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Title", WAS)]).await;
        both.s_edit(&s, &[("Title", S), ("LastName", "Married")]);
        both.h_edit(&h, &[("jobtitle", H)]);
        both.done(PEOPLE).await;
        let now = (both.s(&s, "Title"), both.h(&h, "jobtitle"));
        match expected {
            Some(text) => assert_eq!(now, (Some(text.to_owned()), Some(text.to_owned())), "{on_conflict}"),
            None => {
                assert_eq!(now, (Some(S.to_owned()), Some(H.to_owned())));
                assert_eq!(both.review_kinds(), [ReviewKind::Conflict]);
            }
        }
        assert_eq!(both.h(&h, "lastname").as_deref(), Some("Married"), "the other fields still flow");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_later_of_two_changes_wins_where_the_clocks_can_tell_and_a_person_is_asked_where_they_cannot() {
    for (first, apart, expected) in [("s", 300, Some(H)), ("h", 300, Some(S)), ("s", 20, None), ("h", 20, None)] {
        let field = "{ hubspot: jobtitle, salesforce: Title, rule: two_way, on_conflict: latest }";
        let both = Both::people(&[EMAIL, LAST, field], "");
        let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Title", WAS)]).await;
        both.wait(600).await;
        for turn in 0..2 {
            if (first == "s") == (turn == 0) {
                both.s_edit(&s, &[("Title", S)]);
            } else {
                both.h_edit(&h, &[("jobtitle", H)]);
            }
            both.wait(apart).await;
        }
        both.done(PEOPLE).await;
        let now = (both.s(&s, "Title"), both.h(&h, "jobtitle"));
        match expected {
            Some(text) => assert_eq!(now, (Some(text.to_owned()), Some(text.to_owned())), "{first} first, {apart} s"),
            None => assert_eq!(both.review_kinds(), [ReviewKind::Conflict], "{first} first, {apart} s: {now:?}"),
        }
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_edit_on_both_sides_is_no_conflict() {
    let both = Both::people(&[EMAIL, LAST, "{ hubspot: jobtitle, salesforce: Title, rule: two_way }"], "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Title", WAS)]).await;
    both.s_edit(&s, &[("Title", "Chair"), ("Email", "New@Example.com")]);
    both.h_edit(&h, &[("jobtitle", " Chair "), ("email", "new@example.com")]);
    both.mark();
    both.done(PEOPLE).await;
    assert_eq!(both.writes(), (vec![], vec![]), "there is nothing to write");
    assert!(both.reviews().is_empty());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_people_settle_on_both_sides_is_settled() {
    let both = Both::people(&[EMAIL, LAST, "{ hubspot: jobtitle, salesforce: Title, rule: two_way }"], "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Title", WAS)]).await;
    both.s_edit(&s, &[("Title", S)]);
    both.h_edit(&h, &[("jobtitle", H)]);
    both.done(PEOPLE).await;
    let id = both.reviews()[0].id.clone();
    // One more edit while it waits: frozen still, the review shows what is there now.
    both.h_edit(&h, &[("jobtitle", "of hubspot, again")]);
    both.done(PEOPLE).await;
    let review = both.reviews().remove(0);
    assert_eq!(review.id, id, "the same thing has the same id");
    assert_eq!(review.field.unwrap().hubspot_value.as_deref(), Some("of hubspot, again"));
    assert_eq!(both.s(&s, "Title").as_deref(), Some(S));
    both.h_edit(&h, &[("jobtitle", S)]);
    both.done(PEOPLE).await;
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    both.s_edit(&s, &[("Title", "after")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "jobtitle").as_deref(), Some("after"), "the field flows again");
    both.assert_quiet(PEOPLE).await;
}

/// Values that are the same to people, and not to a program that compares texts.
#[tokio::test(start_paused = true)]
async fn the_same_value_in_other_clothes_is_left_alone_on_both_sides() {
    let both = Both::people(&super::FIELDS, WIDE);
    let pairs = [
        ("email", "ann@example.com", "Email", "Ann@Example.COM"),
        ("lastname", " Lee ", "LastName", "Lee"),
        ("phone", "+49 (30) 1234-567", "Phone", "+49301234567"),
        ("score", "12.50", "Score__c", "12.5"),
        ("member_since", "2020-02-29", "Member_Since__c", "2020-02-29"),
        ("interests", "tea;chess", "Interests__c", "chess;tea"),
        ("source", "phone", "LeadSource", "Phone Inquiry"),
        ("optout", "", "HasOptedOutOfEmail", "false"),
        ("last_seen", "2026-01-01T12:00:00.500Z", "Last_Seen__c", "2026-01-01T12:00:00Z"),
        ("bio", "one\ntwo", "Description", "one\r\ntwo"),
        ("firstname", "Zo\u{eb}", "FirstName", "Zoe\u{308}"),
    ];
    let here: Vec<(&str, &str)> = pairs.iter().map(|(name, value, ..)| (*name, *value)).collect();
    let there: Vec<(&str, &str)> = pairs.iter().map(|(.., name, value)| (*name, *value)).collect();
    let h = both.h_create(&here);
    let s = both.s_create(&there);
    both.done(PEOPLE).await;
    assert_eq!(both.h_twin(&s), Some(h));
    let links = ["sf_contact_id_ext", "HubSpot_Contact_Id__c"];
    let written: Vec<_> = both
        .h_written()
        .into_iter()
        .chain(both.s_written())
        .filter(|(_, name, _)| !links.contains(&name.as_str()))
        .collect();
    assert_eq!(written, [], "only the ids are written");
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn each_type_arrives_as_the_other_side_writes_it() {
    let both = Both::people(&super::FIELDS, WIDE);
    let h = both.h_create(&[
        ("email", "H@example.com"),
        ("lastname", "Types"),
        ("phone", "+49 (30) 1"),
        ("score", "1234.505"),
        ("member_since", "2020-02-29"),
        ("interests", "tea;music"),
        ("source", "partner"),
        ("optout", "true"),
        ("last_seen", "2026-01-01T12:00:00.999Z"),
        ("bio", "a\nb"),
    ]);
    let s = both.s_create(&[
        ("Email", "s@example.com"),
        ("LastName", "Types"),
        ("FirstName", "Sal"),
        ("Title", "Chair"),
        ("Phone", "+49 (30) 2"),
        ("Interests__c", "tea;music"),
        ("LeadSource", "Phone Inquiry"),
        ("HasOptedOutOfEmail", "true"),
        ("Last_Seen__c", "2026-01-01T12:00:00Z"),
        ("Description", "a\r\nb"),
    ]);
    both.done(PEOPLE).await;
    let there = both.s_twin(&h).unwrap();
    for (field, value) in [
        ("Email", "h@example.com"),
        ("Phone", "+49 (30) 1"),
        ("Score__c", "1234.5"),
        ("Member_Since__c", "2020-02-29"),
        ("LeadSource", "Partner Referral"),
        ("HasOptedOutOfEmail", "true"),
        ("Last_Seen__c", "2026-01-01T12:00:00.000Z"),
        ("Description", "a\nb"),
    ] {
        assert_eq!(both.s(&there, field).as_deref(), Some(value), "{field}");
    }
    let here = both.h_twin(&s).unwrap();
    for (property, value) in [
        ("email", "s@example.com"),
        ("firstname", "Sal"),
        ("jobtitle", "Chair"),
        ("phone", "+49 (30) 2"),
        ("source", "phone"),
        ("optout", "true"),
    ] {
        assert_eq!(both.h(&here, property).as_deref(), Some(value), "{property}");
    }
    let mut interests: Vec<String> = both.h(&here, "interests").unwrap().split(';').map(str::to_owned).collect();
    interests.sort();
    assert_eq!(interests, ["music", "tea"]);
    both.assert_quiet(PEOPLE).await;
}

/// The record's dates move only where something was written.
#[tokio::test(start_paused = true)]
async fn a_field_that_is_not_mapped_or_not_synced_is_never_touched() {
    let title = "{ hubspot: jobtitle, salesforce: Title, rule: dont_sync }";
    let both = Both::people(&[EMAIL, LAST, title], "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Title", "There")]).await;
    assert_eq!(both.h(&h, "jobtitle"), None);
    both.h_edit(&h, &[("jobtitle", "Here"), ("phone", "1")]);
    both.s_edit(&s, &[("Title", "Elsewhere"), ("Phone", "2")]);
    both.mark();
    both.done(PEOPLE).await;
    assert_eq!(both.writes(), (vec![], vec![]));
    both.world.clock.sleep(Duration::from_secs(60)).await;
    both.assert_quiet(PEOPLE).await;
}
