//! Texts, addresses, telephone numbers.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

/// Without what Salesforce removes around a text: spaces and control characters; a no-break space stays.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|letter: char| letter <= ' ')
}

/// Trimmed, lines ended by LF, composed (NFC); `None` where nothing is left.
pub(crate) fn text(raw: &str) -> Option<String> {
    let raw = trim(raw);
    if raw.is_empty() {
        return None;
    }
    let lines =
        if raw.contains('\r') { Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n")) } else { Cow::Borrowed(raw) };
    // Nearly all values are ASCII, which is composed.
    Some(match lines.is_ascii() {
        true => lines.into_owned(),
        false => ComposingNormalizerBorrowed::new_nfc().normalize(&lines).into_owned(),
    })
}

/// As [`text`], in lower case.
pub(crate) fn email(raw: &str) -> Option<String> {
    // Lower case of a composed text need not be composed.
    text(raw).and_then(|address| text(&address.to_lowercase()))
}

/// What Salesforce says it takes as an address. HubSpot takes these and more.
pub(crate) fn is_email(address: &str) -> bool {
    let Some((name, domain)) = address.split_once('@') else { return false };
    let made_of = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
    };
    made_of(name, "!#$%&'*+-/=?^_`{|}~.")
        && !name.starts_with('.')
        && !name.ends_with('.')
        && made_of(domain, "-.")
        && domain.contains('.')
        && domain.split('.').all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'))
}

/// Digits, with a leading `+` and, behind an `x`, the extension: `+1 (555) 010-9999 ext. 7` is `+15550109999x7`.
///
/// What holds other letters (`1-800-FLOWERS`, `none`) is compared as a text: two of them with the same digits are not the same.
pub(crate) fn phone(raw: &str) -> Option<String> {
    let text = text(raw)?;
    Some(dialled(&text).unwrap_or(text))
}

fn dialled(text: &str) -> Option<String> {
    let mut number = String::with_capacity(text.len());
    let mut rest = text;
    let mut extended = false;
    while let Some(sign) = rest.chars().next() {
        let mut used = sign.len_utf8();
        match sign {
            '0'..='9' => number.push(sign),
            '+' if number.is_empty() => number.push(sign),
            ' ' | '(' | ')' | '-' | '.' | '/' | '\u{a0}' | '\u{2010}'..='\u{2013}' => {}
            _ => {
                let has_digits = number.bytes().any(|byte| byte.is_ascii_digit());
                let word = ["extension", "ext", "x", "#"]
                    .iter()
                    .find(|word| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)))?;
                if extended || !has_digits {
                    return None;
                }
                extended = true;
                used = word.len();
                number.push('x');
            }
        }
        rest = rest.get(used..)?;
    }
    number.ends_with(|last: char| last.is_ascii_digit()).then_some(number)
}

/// At most `length` characters as Salesforce's servers count them (UTF-16 units), without a space at the end.
pub(crate) fn cut(text: &str, length: usize) -> &str {
    let mut units = 0;
    let end = text.char_indices().find(|(_, letter)| {
        units += letter.len_utf16();
        units > length
    });
    match end {
        Some((at, _)) => trim(text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// The members of a set that is written with `;` between them, trimmed, empty ones left out. HubSpot's leading `;` says nothing here.
pub(crate) fn joined(raw: &str) -> impl Iterator<Item = &str> {
    raw.split(';').map(trim).filter(|part| !part.is_empty())
}
