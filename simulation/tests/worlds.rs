//! Fixed seeds of each job.

use std::{ops::Range, thread};

use hubferry_simulation::{Failure, Job, Scale, live, shrink::shrink};

/// Each seed's world, on two threads: time is virtual, so a second processor halves what it takes.
#[track_caller]
fn worlds(job: Job, seeds: Range<u64>) {
    let half = |remainder| {
        let mut failed = Vec::new();
        for seed in seeds.clone().filter(|seed| seed % 2 == remainder) {
            if let Err(failure) = live(job, seed, &Scale::FULL).end {
                failed.push(format!(
                    "seed {seed} (hubferry simulate --job {} --first-seed {seed} --seeds 1 --trace): {}: {}",
                    job.name(),
                    failure.invariant,
                    failure.seen
                ));
            }
        }
        failed
    };
    let failed: Vec<String> = thread::scope(|threads| {
        let other = threads.spawn(|| half(1));
        half(0).into_iter().chain(other.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} worlds of {seeds:?} went wrong:\n{}", failed.len(), failed.join("\n\n"));
}

#[test]
fn imports_keep_every_promise_in_fixed_worlds() {
    worlds(Job::Import, 0..100);
}

#[test]
fn deliveries_keep_every_promise_in_fixed_worlds() {
    worlds(Job::Delivery, 0..120);
}
