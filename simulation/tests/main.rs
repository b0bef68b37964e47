//! Whole runs under fixed seeds; and the proof of the proof: deliberate faults that must be noticed.

#![allow(clippy::unwrap_used)]

mod capture;
mod sync;
mod worlds;
