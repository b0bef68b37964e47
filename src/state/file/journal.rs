//! The form of the journal: one line a change, each with a checksum, so that a line that was not written whole is known. Pure.
//!
//! ```text
//! hubferry state journal 1 of 12
//! 8c0f3a6e1d2b4759 31 {"pk":"link#people#h#1","sk":"link","item":{"version":3}}
//! ```
//!
//! The first line says which main file it goes on from. A change has the checksum of the rest of its line, then how many bytes of the
//! journal were known to be on the disk when it was written, then the item as it is from then on; `null` where there is none.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Before the number of the main file.
const FIRST: &str = "hubferry state journal 1 of ";

/// Characters of a checksum.
const CHECKSUM_CHARS: usize = 16;

/// The first line.
pub(super) fn first_line(generation: u64) -> String {
    format!("{FIRST}{generation}\n")
}

/// A journal's content: the main file that it belongs to, and how long its first line is. `None` if the line was not written whole.
pub(super) fn belongs_to(content: &[u8]) -> Option<(u64, usize)> {
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(content.get(..end)?).ok()?;
    Some((line.strip_prefix(FIRST)?.parse().ok()?, end + 1))
}

/// A change as it is written. `generation` is that of the main file: a line of another journal has another checksum.
pub(super) fn line(change: &impl Serialize, synced: u64, generation: u64) -> serde_json::Result<Vec<u8>> {
    let rest = format!("{synced} {}", serde_json::to_string(change)?);
    Ok(format!("{:016x} {rest}\n", xxh3_64_with_seed(rest.as_bytes(), generation)).into_bytes())
}

/// What is in a part of a journal that begins with a line.
#[derive(Debug)]
pub(super) struct Lines<T> {
    /// The changes that were written whole, up to the first that was not.
    pub(super) changes: Vec<T>,
    /// Bytes of them.
    pub(super) bytes: usize,
}

/// A change is damaged that had been on the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// Reads the changes in `content`, which begins at byte `offset` of the journal.
///
/// What was not on the disk yet when the machine stopped may be there in part, and what was written after it too: nobody was told that it
/// is stored, so it is left out. A line that says of an earlier one that it was on the disk makes its absence a damage.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    content: &[u8],
    offset: u64,
    generation: u64,
) -> Result<Lines<T>, Damaged> {
    let mut lines = Lines { changes: Vec::new(), bytes: 0 };
    let mut is_torn = false;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        match (change(line, generation), is_torn) {
            (Some((_, json)), false) => {
                // The checksum says that we have written it.
                lines.changes.push(serde_json::from_str(json).map_err(|_| Damaged)?);
                lines.bytes += line.len();
            }
            (Some((synced, _)), true) if synced > offset + lines.bytes as u64 => return Err(Damaged),
            (Some(_), true) => {}
            (None, _) => is_torn = true,
        }
    }
    Ok(lines)
}

/// How much was on the disk, and the change, if the line is whole.
fn change(line: &[u8], generation: u64) -> Option<(u64, &str)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (checksum, rest) = line.split_at_checked(CHECKSUM_CHARS)?;
    let rest = rest.strip_prefix(' ')?;
    let right = u64::from_str_radix(checksum, 16).ok()? == xxh3_64_with_seed(rest.as_bytes(), generation);
    let (synced, json) = rest.split_once(' ')?;
    right.then_some((synced.parse().ok()?, json))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three changes; each says that those before it were on the disk, but for the third.
    fn journal() -> (Vec<u8>, Vec<usize>) {
        let (mut content, mut ends) = (Vec::new(), vec![0]);
        for (change, synced) in [("a", 0), ("b\nä", 1), ("c", 1)] {
            let synced = if synced == 0 { 100 } else { 100 + ends[1] as u64 };
            content.extend(line(&change, synced, 7).unwrap());
            ends.push(content.len());
        }
        (content, ends)
    }

    #[test]
    fn a_journal_that_ends_anywhere_has_the_changes_that_are_whole() {
        let (content, ends) = journal();
        for end in 0..=content.len() {
            let lines: Lines<String> = read(&content[..end], 100, 7).unwrap();
            let whole = ends.iter().filter(|one| **one <= end).count() - 1;
            assert_eq!(lines.changes, ["a", "b\nä", "c"][..whole], "{end} bytes");
            assert_eq!(lines.bytes, ends[whole]);
        }
    }

    #[test]
    fn a_byte_that_is_wrong_is_damage_only_where_it_had_been_on_the_disk() {
        let (content, ends) = journal();
        for at in 0..content.len() {
            let mut wrong = content.clone();
            wrong[at] ^= 0x55;
            let lines = read::<String>(&wrong, 100, 7);
            if at < ends[1] {
                assert_eq!(lines.unwrap_err(), Damaged, "byte {at}: a later line says that it was on the disk");
            } else {
                let whole = if at < ends[2] { 1 } else { 2 };
                assert_eq!(lines.unwrap().bytes, ends[whole], "byte {at}");
            }
        }
    }

    #[test]
    fn lines_of_another_journal_do_not_count() {
        let (content, _) = journal();
        assert!(read::<String>(&content, 100, 8).unwrap().changes.is_empty());
        assert_eq!(belongs_to(first_line(12).as_bytes()), Some((12, first_line(12).len())));
        for torn in ["", "hubferry state journal 1 of 12", "hubferry state journal 2 of 12\n", "x\n"] {
            assert_eq!(belongs_to(torn.as_bytes()), None, "{torn:?}");
        }
    }
}
