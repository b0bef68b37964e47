//! Whole runs under fixed seeds; and the proof of the proof: deliberate faults that must be noticed.

#![allow(clippy::unwrap_used)]

#[cfg(debug_assertions)]
mod mutations;
mod worlds;
