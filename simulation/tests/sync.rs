//! Syncs under fixed seeds; and deliberate faults in them, each of which has to be noticed.

use hubferry_simulation::Job;

use crate::capture::{same_twice, worlds};

#[test]
fn people_on_both_sides_and_a_sync_that_fails_and_dies_end_in_step_worlds_0_to_49() {
    worlds(Job::Sync, 0..50);
}

#[test]
fn people_on_both_sides_and_a_sync_that_fails_and_dies_end_in_step_worlds_50_to_99() {
    worlds(Job::Sync, 50..100);
}

#[test]
fn people_on_both_sides_and_a_sync_that_fails_and_dies_end_in_step_worlds_100_to_149() {
    worlds(Job::Sync, 100..150);
}

#[test]
fn people_on_both_sides_and_a_sync_that_fails_and_dies_end_in_step_worlds_150_to_199() {
    worlds(Job::Sync, 150..200);
}

#[test]
fn the_same_seed_is_the_same_sync_twice() {
    same_twice(Job::Sync, 3..6);
}
