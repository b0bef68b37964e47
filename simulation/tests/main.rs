//! Whole runs under fixed seeds; and the proof of the proof: deliberate faults that must be noticed.

#![allow(clippy::unwrap_used)]

mod capture;
#[cfg(debug_assertions)]
mod mutations;
mod sync;
mod worlds;
