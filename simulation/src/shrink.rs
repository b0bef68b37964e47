//! A world that fails, made as small as it goes: what is turned down while the same invariant breaks is not part of the reason.

use crate::{Failure, Scale};

/// Percentages that are tried, the smallest first.
const PERCENTS: [u8; 8] = [2, 5, 10, 20, 35, 50, 70, 85];

/// Rounds over everything that can be turned down; each must have helped for another to follow.
const ROUNDS_MAX: u32 = 4;

/// The smallest scale at which `fails` says that this invariant breaks, by turning one thing down after the other, and what is seen then.
///
/// `fails` lives through the world: some thirty times at most a round.
pub fn shrink(
    invariant: &str,
    full: Scale,
    mut fails: impl FnMut(&Scale) -> Option<Failure>,
) -> (Scale, Option<Failure>) {
    let mut best = full;
    let mut seen = None;
    let mut keeps = |scale: &Scale| fails(scale).filter(|failure| failure.invariant == invariant);
    for _ in 0..ROUNDS_MAX {
        let before = best;
        for name in Scale::PARTS {
            let Some(less) = best.without(name).filter(|less| *less != best) else { continue };
            if let Some(failure) = keeps(&less) {
                (best, seen) = (less, Some(failure));
            }
        }
        for percent in PERCENTS.into_iter().filter(|percent| *percent < before.rounds) {
            let less = Scale { rounds: percent, ..best };
            if let Some(failure) = keeps(&less) {
                (best, seen) = (less, Some(failure));
                break;
            }
        }
        for percent in PERCENTS.into_iter().filter(|percent| *percent < before.size) {
            let less = Scale { size: percent, ..best };
            if let Some(failure) = keeps(&less) {
                (best, seen) = (less, Some(failure));
                break;
            }
        }
        if best == before {
            break;
        }
    }
    (best, seen)
}
