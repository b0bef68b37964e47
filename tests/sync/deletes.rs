//! Records that go, and come back.

use std::time::Duration;

use hubferry::{
    clock::Clock as _,
    report::Outcome,
    sync::{
        model::{Choice, ReviewKind, Side},
        resolve,
        reviews::Reviews,
    },
};

use super::{Both, EMAIL, LAST, PEOPLE, PHONE, WIDE, told};

const THREE: [&str; 3] = [EMAIL, LAST, PHONE];

/// A linked pair; then one side is deleted.
async fn deleted(more: &str, side: Side) -> (Both, String, String) {
    let both = Both::people(&THREE, more);
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Phone", "030 1")]).await;
    both.wait(600).await;
    delete(&both, side, &h, &s);
    (both, h, s)
}

fn delete(both: &Both, side: Side, h: &str, s: &str) {
    let now = both.world.clock.now();
    assert!(match side {
        Side::Hubspot => both.world.portal.borrow_mut().set_archived(now, "contacts", h, true),
        Side::Salesforce => both.world.org.borrow_mut().delete(now, "Contact", s),
    });
}

fn bring_back(both: &Both, side: Side, h: &str, s: &str) {
    let now = both.world.clock.now();
    assert!(match side {
        Side::Hubspot => both.world.portal.borrow_mut().set_archived(now, "contacts", h, false),
        Side::Salesforce => both.world.org.borrow_mut().undelete(now, "Contact", s),
    });
}

fn edit(both: &Both, side: Side, h: &str, s: &str, phone: &str) {
    match side {
        Side::Hubspot => both.h_edit(h, &[("phone", phone)]),
        Side::Salesforce => both.s_edit(s, &[("Phone", phone)]),
    }
}

fn lives(both: &Both, side: Side, h: &str, s: &str) -> bool {
    match side {
        Side::Hubspot => both.h_lives(h),
        Side::Salesforce => both.s_lives(s),
    }
}

const SIDES: [Side; 2] = [Side::Hubspot, Side::Salesforce];

#[tokio::test(start_paused = true)]
async fn a_deletion_is_a_review_and_the_other_record_stays() {
    for side in SIDES {
        let (both, h, s) = deleted("", side).await;
        let report = both.done(PEOPLE).await;
        assert!(lives(&both, side.other(), &h, &s), "{side:?}: {report}", report = super::brief(&report));
        let reviews = both.reviews();
        assert_eq!(both.review_kinds(), [ReviewKind::Delete], "{side:?}");
        assert_eq!(reviews[0].deleted_in, Some(side));
        assert_eq!(told(&report).reviews_opened, 1, "{report}", report = super::brief(&report));
        both.assert_quiet(PEOPLE).await;
        // An edit of the record that stays does not make the other one again.
        edit(&both, side.other(), &h, &s, "030 2");
        both.done(PEOPLE).await;
        assert!(!lives(&both, side, &h, &s));
        assert_eq!(both.review_kinds(), [ReviewKind::Delete], "{side:?}");
        assert_eq!(both.h_count() + both.s_count(), 1, "nothing is made again");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_out_of_the_bin_is_in_step_again() {
    for side in SIDES {
        for more in ["", "deletes: ignore\n"] {
            let (both, h, s) = deleted(more, side).await;
            both.done(PEOPLE).await;
            edit(&both, side.other(), &h, &s, "030 7");
            both.done(PEOPLE).await;
            bring_back(&both, side, &h, &s);
            both.done(PEOPLE).await;
            both.done(PEOPLE).await;
            assert!(both.reviews().is_empty(), "{side:?} {more}: {:?}", both.reviews());
            let phones = (both.h(&h, "phone"), both.s(&s, "Phone"));
            assert_eq!(
                phones,
                (Some("030 7".to_owned()), Some("030 7".to_owned())),
                "{side:?} {more}: what was edited meanwhile"
            );
            edit(&both, side, &h, &s, "030 8");
            both.done(PEOPLE).await;
            assert_eq!(both.h(&h, "phone"), both.s(&s, "Phone"), "{side:?} {more}");
            assert_eq!((both.h_count(), both.s_count()), (1, 1));
            both.assert_quiet(PEOPLE).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_and_brought_back_between_two_runs_is_as_before() {
    for side in SIDES {
        let (both, h, s) = deleted("deletes: propagate\n", side).await;
        both.wait(5).await;
        bring_back(&both, side, &h, &s);
        both.done(PEOPLE).await;
        assert!(both.h_lives(&h) && both.s_lives(&s), "{side:?}");
        assert!(both.reviews().is_empty(), "{:?}", both.reviews());
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_carried_over_where_the_sync_says_propagate() {
    for side in SIDES {
        let (both, h, s) = deleted("deletes: propagate\n", side).await;
        let report = both.done(PEOPLE).await;
        assert!(!both.h_lives(&h) && !both.s_lives(&s), "{side:?}: {report}", report = super::brief(&report));
        let sync = told(&report);
        let counted = if side == Side::Hubspot { sync.salesforce.deleted } else { sync.hubspot.deleted };
        assert_eq!(counted, 1, "{report}", report = super::brief(&report));
        assert!(both.reviews().is_empty());
        assert_eq!((both.h_count(), both.s_count()), (0, 0));
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_edited_while_its_twin_was_deleted_is_not_deleted_without_asking() {
    for side in SIDES {
        let (both, h, s) = deleted("deletes: propagate\n", side).await;
        edit(&both, side.other(), &h, &s, "030 2");
        both.done(PEOPLE).await;
        assert!(lives(&both, side.other(), &h, &s), "{side:?}: an edit is lost");
        assert_eq!(both.review_kinds(), [ReviewKind::Delete], "{side:?}");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_nothing_where_the_sync_says_ignore() {
    for side in SIDES {
        let (both, h, s) = deleted("deletes: ignore\n", side).await;
        both.done(PEOPLE).await;
        edit(&both, side.other(), &h, &s, "030 2");
        both.done(PEOPLE).await;
        assert!(lives(&both, side.other(), &h, &s));
        assert!(both.reviews().is_empty(), "{side:?} {:?}", both.reviews());
        assert_eq!(both.h_count() + both.s_count(), 1, "nothing is made again");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_on_both_sides_is_nobodys_question() {
    for more in ["", "deletes: propagate\n", "deletes: ignore\n"] {
        let (both, h, s) = deleted(more, Side::Hubspot).await;
        delete(&both, Side::Salesforce, &h, &s);
        both.done(PEOPLE).await;
        assert!(both.reviews().is_empty(), "{more} {:?}", both.reviews());
        both.assert_quiet(PEOPLE).await;
        // The other is deleted while the review waits.
        let (both, h, s) = deleted(more, Side::Salesforce).await;
        both.done(PEOPLE).await;
        if both.h_lives(&h) {
            delete(&both, Side::Hubspot, &h, &s);
            both.done(PEOPLE).await;
        }
        both.done(PEOPLE).await;
        assert!(both.reviews().is_empty(), "{more} {:?}", both.reviews());
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_for_good_is_noticed_when_its_twin_is_looked_at() {
    for side in SIDES {
        let both = Both::people(&THREE, "");
        let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Phone", "030 1")]).await;
        let now = both.world.clock.now();
        assert!(match side {
            Side::Hubspot => both.world.portal.borrow_mut().purge(now, "contacts", &h),
            Side::Salesforce => both.world.org.borrow_mut().purge("Contact", &s),
        });
        edit(&both, side.other(), &h, &s, "030 2");
        let report = both.done(PEOPLE).await;
        assert!(lives(&both, side.other(), &h, &s));
        assert_eq!(
            both.h_count() + both.s_count(),
            1,
            "{side:?}: nothing is made again: {report}",
            report = super::brief(&report)
        );
        assert_eq!(both.review_kinds(), [ReviewKind::Delete], "{side:?}");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn many_deletions_at_once_stop_the_run_before_the_first_of_them() {
    for side in SIDES {
        let more = "deletes: propagate\nlimits: { creates: 1000, updates: 1000, blanks: 100, deletes: 20 }\n";
        let both = Both::people(&THREE, more);
        for at in 0..60 {
            both.s_create(&[("LastName", "Many"), ("Email", &format!("m{at}@example.com"))]);
        }
        both.done(PEOPLE).await;
        let pairs = both.links();
        for (h, s) in pairs.iter().take(25) {
            delete(&both, side, h, s);
        }
        let (h, s) = pairs.last().unwrap();
        edit(&both, side, h, s, "030 5");
        let report = both.sync(PEOPLE).await;
        assert_eq!(report.outcome, Outcome::Aborted, "{side:?}: {report}", report = super::brief(&report));
        let code = report.error.as_ref().unwrap().code.clone();
        assert!(["SYNC_DELETES", "SYNC_LIMIT"].contains(&code.as_str()), "{code}");
        let left = if side == Side::Hubspot { both.s_count() } else { both.h_count() };
        assert_eq!(left, 60, "{side:?}: nothing was deleted");
        // Next time is no different: the deletions are not forgotten.
        let report = both.sync(PEOPLE).await;
        assert_eq!(report.outcome, Outcome::Aborted, "{side:?}: {report}", report = super::brief(&report));
        let left = if side == Side::Hubspot { both.s_count() } else { both.h_count() };
        assert_eq!(left, 60);
        // Some are brought back: now it may go on.
        for (h, s) in pairs.iter().take(10) {
            bring_back(&both, side, h, s);
        }
        let report = both.done(PEOPLE).await;
        let left = if side == Side::Hubspot { both.s_count() } else { both.h_count() };
        assert_eq!(left, 45, "{side:?}: {report}", report = super::brief(&report));
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_carried_over_and_then_taken_back_is_not_forgotten() {
    for side in SIDES {
        let (both, h, s) = deleted(&format!("deletes: propagate\n{WIDE}\n"), side).await;
        both.done(PEOPLE).await;
        assert_eq!((both.h_count(), both.s_count()), (0, 0));
        bring_back(&both, side, &h, &s);
        both.done(PEOPLE).await;
        both.done(PEOPLE).await;
        // Either it is brought back or made on the other side again, or a person is asked: never silence, never two.
        let counts = (both.h_count(), both.s_count());
        assert!(lives(&both, side, &h, &s), "{side:?}: what a person brought back is there");
        assert!(counts == (1, 1) || !both.reviews().is_empty(), "{side:?}: {counts:?}, and nobody is asked");
        both.assert_quiet(PEOPLE).await;
    }
}

/// A process dies while it creates the other record, and a person deletes the one that it was made from.
#[tokio::test(start_paused = true)]
async fn what_was_being_created_when_a_process_died_is_not_created_again_where_it_was_deleted() {
    let values = [("email", "d@example.com"), ("lastname", "Dyer")];
    for side in SIDES {
        let mut made = 0;
        for step in (0..4_000).step_by(7) {
            let both = Both::people(&THREE, WIDE);
            let id = match side {
                Side::Hubspot => both.h_create(&values),
                Side::Salesforce => both.s_create(&[("Email", "d@example.com"), ("LastName", "Dyer")]),
            };
            both.wait(60).await;
            if both.sync_until_killed(PEOPLE, Duration::from_millis(step)).await.is_some() {
                break;
            }
            let is_made = if side == Side::Hubspot { both.s_count() } else { both.h_count() } > 0;
            made += usize::from(is_made);
            delete(&both, side, &id, &id);
            both.wait(3_600).await;
            both.world.resume().await;
            for _ in 0..2 {
                both.done(PEOPLE).await;
            }
            let (left, other) = match side {
                Side::Hubspot => (both.h_count(), both.s_count()),
                Side::Salesforce => (both.s_count(), both.h_count()),
            };
            let reviews = both.review_kinds();
            assert_eq!(left, 0, "{side:?}, killed after {step} ms: it was created again");
            let expected = if is_made { vec![ReviewKind::Delete] } else { Vec::new() };
            assert_eq!((other, reviews), (usize::from(is_made), expected), "{side:?}, killed after {step} ms");
        }
        assert!(made > 3, "{side:?}: no process died after it had created the other record");
    }
}

/// A process dies after it has created the other record, and a person deletes what it has made: that is the deletion of one of a pair, as
/// after a run that came to its end.
#[tokio::test(start_paused = true)]
async fn what_a_dead_process_had_made_and_a_person_deleted_is_not_made_again() {
    let values = [("email", "d@example.com"), ("lastname", "Dyer")];
    for (deletes, side) in
        ["review", "propagate", "ignore"].into_iter().flat_map(|deletes| SIDES.map(|on| (deletes, on)))
    {
        let mut met = 0;
        for step in (0..4_000).step_by(97) {
            let both = Both::people(&THREE, &format!("deletes: {deletes}\n{WIDE}"));
            let id = match side {
                Side::Hubspot => both.h_create(&values),
                Side::Salesforce => both.s_create(&[("Email", "d@example.com"), ("LastName", "Dyer")]),
            };
            both.wait(60).await;
            if both.sync_until_killed(PEOPLE, Duration::from_millis(step)).await.is_some() {
                break;
            }
            let made = match side {
                Side::Hubspot => both.s_twin(&id),
                Side::Salesforce => both.h_twin(&id),
            };
            let Some(made) = made else { continue };
            met += 1;
            delete(&both, side.other(), &made, &made);
            both.wait(3_600).await;
            both.world.resume().await;
            for _ in 0..2 {
                both.done(PEOPLE).await;
            }
            let place = format!("{deletes}: made of one of {side:?}, killed after {step} ms");
            let left = match side {
                Side::Hubspot => (both.h_count(), both.s_count()),
                Side::Salesforce => (both.s_count(), both.h_count()),
            };
            assert_eq!(left, (usize::from(deletes != "propagate"), 0), "{place}");
            let asked = if deletes == "review" { vec![ReviewKind::Delete] } else { Vec::new() };
            assert_eq!(both.review_kinds(), asked, "{place}");
            both.assert_quiet(PEOPLE).await;
        }
        assert!(met > 1, "{deletes} {side:?}: no process died after it had made the other record");
    }
}

/// A person has it made anew, the process dies before it is: what was deleted is the old one, and the choice stands.
#[tokio::test(start_paused = true)]
async fn who_is_to_be_made_anew_is_made_also_where_a_process_dies_over_it() {
    for side in SIDES {
        let mut killed = 0;
        for step in (0..4_000).step_by(97) {
            let (both, h, s) = deleted(&format!("deletes: review\n{WIDE}"), side).await;
            both.done(PEOPLE).await;
            let review = resolve::list(&both.world.process(), None).await.unwrap().remove(0);
            assert_eq!(review.kind, ReviewKind::Delete);
            let store = Reviews::new(both.world.table.clone(), both.world.rng.clone(), PEOPLE);
            assert!(store.choose(&review.id, Choice::Side(side.other()), &review).await.unwrap());
            both.wait(60).await;
            let ended = both.sync_until_killed(PEOPLE, Duration::from_millis(step)).await.is_some();
            both.wait(3_600).await;
            both.world.resume().await;
            both.done(PEOPLE).await;
            both.done(PEOPLE).await;
            let place = format!("deleted in {side:?}, killed after {step} ms: {:?}", both.reviews());
            assert_eq!((both.h_count(), both.s_count()), (1, 1), "{place}");
            assert!(both.review_kinds().is_empty(), "{place}");
            assert!(if side == Side::Hubspot { both.s_lives(&s) } else { both.h_lives(&h) }, "{place}");
            if ended {
                break;
            }
            killed += 1;
        }
        assert!(killed > 3, "{side:?}: {killed}");
    }
}

/// Of two that were merged in HubSpot, and are still two in Salesforce, nothing is left in HubSpot: both are deleted there.
#[tokio::test(start_paused = true)]
async fn the_deletion_of_a_record_that_others_were_merged_into_creates_none_of_them_again() {
    let both = Both::people(&THREE, WIDE);
    let (winner, one) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com")]).await;
    let (loser, other) = both.linked(&[("LastName", "Ayer"), ("Email", "a@example.com")]).await;
    both.wait(600).await;
    assert!(both.world.portal.borrow_mut().merge(both.world.clock.now(), "contacts", &winner, &loser));
    both.done(PEOPLE).await;
    assert_eq!(both.review_kinds(), [ReviewKind::Merge]);
    both.wait(600).await;
    delete(&both, Side::Hubspot, &winner, &one);
    for _ in 0..3 {
        both.done(PEOPLE).await;
        both.wait(4_000).await;
        assert_eq!((both.h_count(), both.s_count()), (0, 2));
    }
    assert_eq!(both.review_kinds(), [ReviewKind::Delete, ReviewKind::Delete]);
    assert!(both.s_lives(&one) && both.s_lives(&other));
    both.assert_quiet(PEOPLE).await;
}
