//! Chance under a seed, in streams that do not disturb each other: what is left out of a world changes nothing else in it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The numbers of one stream: the same for the same seed, name and number.
pub fn dice(seed: u64, stream: &str, number: u64) -> fastrand::Rng {
    let name = xxh3_64_with_seed(stream.as_bytes(), seed);
    fastrand::Rng::with_seed(xxh3_64_with_seed(&number.to_le_bytes(), name))
}

/// What happens with this chance, from 0 to 1.
pub fn happens(rng: &mut fastrand::Rng, chance: f64) -> bool {
    rng.f64() < chance
}

/// One of them.
pub fn one_of<T: Copy>(rng: &mut fastrand::Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}
