//! Windows-1252 as text.
//!
//! One table of 32 characters; the library that knows every encoding of the web brings 150 kB of tables for Chinese, Japanese and Korean.

use std::borrow::Cow;

/// 0x80 to 0x9f. The five that Windows leaves open are control characters, as browsers have it.
const UPPER: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', //
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The text. Every byte is a character.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if let (true, Ok(text)) = (bytes.is_ascii(), std::str::from_utf8(bytes)) {
        return Cow::Borrowed(text);
    }
    let character = |byte: &u8| match byte {
        0x80..=0x9f => UPPER.get(usize::from(byte - 0x80)).copied().unwrap_or(char::REPLACEMENT_CHARACTER),
        byte => char::from(*byte),
    };
    Cow::Owned(bytes.iter().map(character).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_the_character_that_the_usual_library_says() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(decode(&bytes), encoding_rs::WINDOWS_1252.decode_without_bom_handling(&bytes).0);
        assert!(matches!(decode(b"plain"), Cow::Borrowed("plain")));
    }
}
