//! The proof of the proof: each deliberate fault is switched on, and one of a few worlds has to notice.

use std::thread;

use hubferry::mutate::{Bug, switch};
use hubferry_simulation::{Job, Scale, live};

/// A fault, the job whose worlds notice it, the first of them and how many there are: a fault that shows only where a world is of a certain
/// kind (small daily limits, a secret that is replaced) begins with worlds of which some are.
type Case = (Bug, Job, u64, u64);

const CASES: [Case; 20] = [
    (Bug::CheckpointBeforeEffect, Job::Delivery, 0, 12),
    (Bug::PartialSuccessIgnored, Job::Delivery, 0, 12),
    (Bug::FirstRowWins, Job::Import, 0, 12),
    (Bug::RejectsDroppedOnResume, Job::Import, 10, 12),
    (Bug::CreateRepeated, Job::Delivery, 4, 12),
    (Bug::AdoptionWithoutLook, Job::Delivery, 0, 12),
    (Bug::LeaseNotRenewed, Job::Import, 2, 12),
    (Bug::LeaseTaken, Job::Delivery, 0, 12),
    (Bug::DeadlineIgnored, Job::Import, 10, 12),
    (Bug::MarkKept, Job::Import, 0, 12),
    (Bug::QuotesKept, Job::Delivery, 0, 12),
    (Bug::SequencersReversed, Job::Delivery, 0, 12),
    (Bug::IndexNotWritten, Job::Delivery, 0, 12),
    (Bug::ImageAfterWrite, Job::Import, 1, 12),
    (Bug::RetryAfterIgnored, Job::Import, 4, 12),
    (Bug::DayIgnored, Job::Import, 10, 12),
    (Bug::SlotsTwice, Job::Import, 2, 12),
    (Bug::ContinuationNotSent, Job::Import, 54, 12),
    (Bug::CountsTwice, Job::Import, 10, 12),
    (Bug::BlankCellClears, Job::Import, 0, 12),
];

/// The first world that notices the fault, and what it says.
fn noticed((bug, job, first, count): Case) -> Option<(u64, &'static str)> {
    switch(Some(bug));
    let found =
        (first..first + count).find_map(|seed| Some((seed, live(job, seed, &Scale::FULL).end.err()?.invariant)));
    switch(None);
    found
}

#[test]
fn each_deliberate_fault_of_imports_and_deliveries_is_noticed() {
    let half = |remainder| -> Vec<String> {
        let cases = CASES.iter().enumerate().filter(|(at, _)| at % 2 == remainder);
        cases
            .filter_map(|(_, case)| match noticed(*case) {
                Some(_) => None,
                None => Some(format!("{} by none of {} worlds of {}", case.0.name(), case.3, case.1.name())),
            })
            .collect()
    };
    let missed: Vec<String> = thread::scope(|threads| {
        let other = threads.spawn(|| half(1));
        half(0).into_iter().chain(other.join().unwrap()).collect()
    });
    assert!(missed.is_empty(), "deliberate faults that nobody noticed: {missed:#?}");
}

#[test]
fn at_least_fourteen_faults_are_tried_each_once() {
    let bugs: std::collections::BTreeSet<Bug> = CASES.iter().map(|case| case.0).collect();
    assert_eq!(bugs.len(), CASES.len());
    assert!(bugs.len() >= 14, "{bugs:?}");
}
