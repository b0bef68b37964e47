//! Captures under fixed seeds; and deliberate faults in them, each of which has to be noticed.

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use hubferry::mutate::{self, Bug};
use hubferry_simulation::{Job, Scale, live};

/// Each seed's world, on two threads: time is virtual, so a second processor halves what it takes.
#[track_caller]
pub(crate) fn worlds(job: Job, seeds: Range<u64>) {
    let failed = Mutex::new(Vec::new());
    side_by_side(seeds.clone().collect(), |seed| {
        if let Err(failure) = live(job, seed, &Scale::FULL).end {
            let again = format!("hubferry simulate --job {} --seeds 1 --first-seed {seed}", job.name());
            failed.lock().unwrap().push(format!("seed {seed} ({again}): {}: {}", failure.invariant, failure.seen));
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} worlds of {seeds:?} went wrong:\n{}", failed.len(), failed.join("\n\n"));
}

/// Two lives of one seed are the same, step by step.
#[track_caller]
pub(crate) fn same_twice(job: Job, seeds: Range<u64>) {
    for seed in seeds {
        let (one, other) = (live(job, seed, &Scale::FULL), live(job, seed, &Scale::FULL));
        assert_eq!(one.trace.hash(), other.trace.hash(), "seed {seed}");
        assert_eq!(one.end, other.end, "seed {seed}");
    }
}

/// A deliberate fault: where to begin looking, and the invariants that it may break.
pub(crate) type Fault = (Bug, u64, &'static [&'static str]);

/// Worlds in which a fault must be noticed.
const WORLDS: u64 = 12;

/// Each fault is noticed in one of a few worlds, by an invariant that makes sense.
#[track_caller]
pub(crate) fn notices(job: Job, faults: &[Fault]) {
    let missed = Mutex::new(Vec::new());
    side_by_side(faults.to_vec(), |(bug, first, invariants)| {
        mutate::switch(Some(bug));
        let broken = (first..first + WORLDS).find_map(|seed| Some((seed, live(job, seed, &Scale::FULL).end.err()?)));
        mutate::switch(None);
        match broken {
            None => missed.lock().unwrap().push(format!("{}: nobody noticed", bug.name())),
            Some((seed, failure)) if !invariants.contains(&failure.invariant) => {
                let told = format!("{}: seed {seed}: {}: {}", bug.name(), failure.invariant, failure.seen);
                missed.lock().unwrap().push(told);
            }
            Some(_) => {}
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn side_by_side<T: Clone + Sync>(all: Vec<T>, each: impl Fn(T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            each(one.clone());
        }
    };
    thread::scope(|threads| {
        let other = threads.spawn(work);
        work();
        if let Err(panic) = other.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn what_is_in_s3_is_what_is_in_hubspot_while_people_work_and_captures_fail_and_die() {
    worlds(Job::Capture, 0..60);
}

#[test]
fn the_same_seed_is_the_same_capture_twice() {
    same_twice(Job::Capture, 0..4);
}

#[test]
fn a_restore_is_a_version_of_its_own_where_hubspots_clock_is_ahead_of_ours() {
    worlds(Job::Capture, 172..173);
}

#[test]
fn the_last_object_of_a_dead_process_is_found_and_removed() {
    worlds(Job::Capture, 886..887);
    worlds(Job::Capture, 1837..1838);
}

#[test]
fn who_was_merged_into_a_record_whose_associations_changed_is_told_in_a_world_of_people() {
    worlds(Job::Capture, 1342..1343);
}

#[test]
fn the_objects_of_a_run_that_failed_are_in_one_manifest_with_their_changes() {
    worlds(Job::Capture, 7178..7179);
}

/// A process that the table does not answer has turns that it has not reserved.
#[test]
fn calls_without_the_table_are_half_a_limit_more_at_most() {
    worlds(Job::Capture, 8079..8080);
}

#[test]
fn a_list_that_is_answered_with_nothing_twice_is_asked_for_again() {
    worlds(Job::Capture, 5326..5327);
}

#[test]
fn what_moving_pages_hide_of_a_content_snapshot_is_found() {
    worlds(Job::Capture, 5635..5636);
    worlds(Job::Capture, 9766..9767);
}

#[test]
fn what_the_snapshot_told_with_other_associations_is_another_version() {
    worlds(Job::Capture, 7391..7392);
}

/// They were archived and brought back between two looks at the recycle bin: no model that is exact calls that wrong.
#[test]
fn who_was_away_unseen_is_not_asked_for() {
    for seed in [508, 630, 697, 1169, 1878, 1915, 6728] {
        worlds(Job::Capture, seed..seed + 1);
    }
}

const IN_S3: &str = "what is in HubSpot is in S3, as it was changed last";
const GONE: &str = "what is gone in HubSpot is told";
const EQUAL: &str = "a record in S3 is the one in HubSpot";
const DURABLE: &str = "everything before the position is durable";
const MANIFESTS: &str = "the manifests list what is there";
const FENCE: &str = "who has lost the lease writes nothing";

/// What each fault may break; where to begin looking was found by trying.
const FAULTS: &[Fault] = &[
    (Bug::PositionBeforeObject, 3, &[IN_S3, EQUAL, DURABLE, MANIFESTS]),
    (Bug::LagDropped, 12, &[IN_S3, EQUAL, DURABLE]),
    (Bug::TrailingSkipped, 1, &[IN_S3, EQUAL, DURABLE]),
    (Bug::ArchivedSkipped, 0, &[GONE]),
    (Bug::ReturnedSkipped, 1, &[IN_S3, EQUAL, DURABLE, GONE]),
    (Bug::MergesSkipped, 0, &[GONE]),
    (Bug::LostFenceIgnored, 55, &[FENCE]),
    (Bug::PartForgotten, 5, &[MANIFESTS, IN_S3, EQUAL, DURABLE, GONE]),
    (Bug::HandoverAtTheEnd, 15, &[IN_S3, EQUAL, DURABLE]),
    (Bug::LogForgotten, 0, &[MANIFESTS, GONE, IN_S3, EQUAL, DURABLE]),
];

#[test]
fn every_deliberate_fault_of_a_capture_is_noticed() {
    notices(Job::Capture, FAULTS);
}
