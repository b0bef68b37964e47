//! What the benchmarks share: the file that is imported, what the system says about a process, and how results are told.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod rows;

use std::error::Error;

/// What a benchmark that cannot run says.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The names given on the command line (`cargo benches -- limit memory`); none means all.
pub(crate) fn wanted(name: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    names.peek().is_none() || names.any(|argument| argument == name)
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Lowest and highest, to be shown beside the median.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// Prints a figure with what it must be.
pub(crate) fn tell(what: &str, figure: &str, target: Option<(&str, bool)>) {
    match target {
        Some((target, true)) => println!("  {what}: {figure}   (must be {target}: met)"),
        Some((target, false)) => println!("  {what}: {figure}   (must be {target}: MISSED)"),
        None => println!("  {what}: {figure}"),
    }
}
