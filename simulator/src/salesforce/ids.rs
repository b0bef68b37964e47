//! Record ids: 15 characters that tell case apart, and three more that make up for systems that do not.

/// What ids of one type begin with, then the org's pod and nine digits.
const POD: &str = "ak0";
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CHECK: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// The 18-character id of a type's nth record.
pub(crate) fn make(prefix: &str, mut number: u64) -> String {
    let mut digits = [b'0'; 9];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    let short = format!("{prefix}{POD}{}", String::from_utf8_lossy(&digits));
    full(&short).unwrap_or(short)
}

/// The 18-character form of an id in either form; `None` if it is none, or its last three characters do not fit the others.
pub fn full(id: &str) -> Option<String> {
    let bytes = id.as_bytes();
    if !matches!(bytes.len(), 15 | 18) || !bytes.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let mut all = id[..15].to_owned();
    for part in bytes[..15].chunks(5) {
        let bits =
            part.iter().enumerate().fold(0, |bits, (at, byte)| bits | (usize::from(byte.is_ascii_uppercase()) << at));
        all.push(char::from(CHECK[bits]));
    }
    // The last three characters are there for those who lose the case of the others.
    let fits = bytes.len() == 15 || all[15..].eq_ignore_ascii_case(&id[15..]);
    fits.then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_characters_are_those_of_recorded_ids() {
        for id in ["001ak00000OQTieAAH", "003ak000003dQCGAA2", "750ak000009BWKLAA4", "0031i000013x2TEAAY"] {
            assert_eq!(full(&id[..15]).as_deref(), Some(id));
            assert_eq!(full(id).as_deref(), Some(id));
        }
        assert_eq!(full("003ak000003dQCGAA3"), None, "wrong check characters");
        assert_eq!(full("003"), None);
        assert_ne!(make("003", 1), make("003", 2));
    }
}
