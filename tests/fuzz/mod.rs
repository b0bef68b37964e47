//! Bytes from outside that nobody has foreseen: parsers must take or refuse them, never panic, never lose or invent anything.
//!
//! Each target first replays its inputs in `corpus/<target>/` (small ones that are interesting, and every one that has ever failed), then changes them at
//! random until its time is over: `HUBFERRY_FUZZ_SECONDS`, two by default. A failure prints the seed and the input, cut down as far as it still fails, and
//! says where to put it. `HUBFERRY_FUZZ_SEED` repeats a run; `HUBFERRY_FUZZ_SECONDS=600 cargo test --workspace --test main fuzz::` runs for long.

mod answers;
mod csv;
mod text;

use std::{
    cell::Cell,
    fs,
    hash::{BuildHasher as _, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Longer inputs find nothing that shorter ones do not, and cost time.
const BYTES_MAX: usize = 4_096;

/// How often a failing input is tried to be made smaller.
const SHRINKS_MAX: usize = 4_000;

/// An integer from the environment.
#[expect(clippy::disallowed_methods, reason = "settings of a test run")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// The committed inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(folder(target))
        .unwrap_or_else(|error| panic!("the corpus of {target}: {error}"))
        .map(|file| file.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    all.sort();
    assert!(!all.is_empty(), "the corpus of {target} is empty");
    all
}

/// Replays the corpus of `target` and `more`, then changes them with pieces of `words` until the time is over. How many inputs were tried.
fn fuzz(target: &str, more: Vec<(String, Vec<u8>)>, words: &[&[u8]], check: impl Fn(&[u8])) -> u64 {
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for (name, bytes) in corpus(target).into_iter().chain(more) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&bytes))) {
            eprintln_input(&format!("{target}: {name} of the corpus fails"), &bytes);
            std::panic::resume_unwind(panic);
        }
        inputs.push(bytes);
    }
    let seed = setting("HUBFERRY_FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(target));
    let seconds = setting("HUBFERRY_FUZZ_SECONDS").unwrap_or(2);
    let mut rng = fastrand::Rng::with_seed(seed);
    let tried = Cell::new(0);
    let began = now();
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..16 {
            let bytes = changed(&inputs, words, &mut rng);
            tried.set(tried.get() + 1);
            if catch_unwind(AssertUnwindSafe(|| check(&bytes))).is_err() {
                let small = shrunk(bytes, &check);
                let place = folder(target).join(format!("failed-{:016x}", rng.u64(..)));
                let how = format!(
                    "HUBFERRY_FUZZ_SEED={seed} HUBFERRY_FUZZ_SECONDS={seconds} cargo test --workspace --test main fuzz::"
                );
                eprintln_input(
                    &format!("{target}, seed {seed}: fails. Again with {how}; keep it as {}", place.display()),
                    &small,
                );
                // Once more, for its message.
                check(&small);
                panic!("{target}: it failed once, and does not with the same input");
            }
        }
    }
    tried.get()
}

#[expect(clippy::disallowed_methods, reason = "a budget of real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stderr, reason = "a failing test shows its input")]
fn eprintln_input(what: &str, bytes: &[u8]) {
    eprintln!("{what}:\n{}", bytes.escape_ascii());
}

/// One of the inputs with a few changes.
fn changed(inputs: &[Vec<u8>], words: &[&[u8]], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = inputs[rng.usize(..inputs.len())].clone();
    for _ in 0..=rng.usize(..6) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..12)).min(bytes.len());
        match rng.u8(..8) {
            0 => drop(bytes.drain(at..end)),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                let other = &inputs[rng.usize(..inputs.len())];
                let from = rng.usize(..=other.len());
                let to = (from + rng.usize(..64)).min(other.len());
                bytes.splice(at..at, other[from..to].to_vec());
            }
            5 => bytes.truncate(at),
            6 => bytes.insert(at, rng.u8(..)),
            _ if !words.is_empty() => drop(bytes.splice(at..at, words[rng.usize(..words.len())].to_vec())),
            _ => {}
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

/// The input without whatever it fails without.
fn shrunk(mut bytes: Vec<u8>, check: &impl Fn(&[u8])) -> Vec<u8> {
    let fails = |bytes: &[u8]| catch_unwind(AssertUnwindSafe(|| check(bytes))).is_err();
    let (mut size, mut tries) = (bytes.len() / 2, 0);
    while size > 0 && tries < SHRINKS_MAX {
        let mut at = 0;
        while at < bytes.len() && tries < SHRINKS_MAX {
            let mut less = bytes.clone();
            less.drain(at..(at + size).min(bytes.len()));
            tries += 1;
            if fails(&less) {
                bytes = less;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    bytes
}

#[test]
fn a_failing_input_is_cut_down_to_what_it_fails_for() {
    let check = |bytes: &[u8]| assert!(!bytes.windows(2).any(|two| two == b"!?"), "found");
    let small = shrunk(b"some long text with !? in it, and more behind".to_vec(), &check);
    assert_eq!(small, b"!?");
}

#[test]
fn the_same_seed_makes_the_same_inputs() {
    let inputs = vec![b"a,b\n1,2\n".to_vec(), b"{}".to_vec()];
    let some = |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..50).map(|_| changed(&inputs, &[b"word"], &mut rng)).collect::<Vec<_>>()
    };
    assert_eq!(some(7), some(7));
    assert_ne!(some(7), some(8));
}
