//! Texts, addresses, telephone numbers.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::hubspot::adopt::bare_domain;

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

/// A company's domain, bare: `https://www.Example.com/about` is `example.com`. What has none is compared as a text.
pub(crate) fn domain(raw: &str) -> Option<String> {
    let text = text(raw)?;
    let mut domain = bare_domain(&text);
    // `www.www.example.com`: each turn takes something away.
    loop {
        let barer = bare_domain(&domain);
        if barer.len() >= domain.len() {
            break;
        }
        domain = barer;
    }
    Some(self::text(&domain).unwrap_or(text))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_salesforce_keeps_of_it() {
        for (raw, expect) in [
            ("  Ada \t\r\n", Some("Ada")),
            ("", None),
            (" \n ", None),
            // A no-break space stays in Salesforce.
            ("\u{a0}Ada", Some("\u{a0}Ada")),
            ("a\r\nb\rc\nd", Some("a\nb\nc\nd")),
            ("Zoe\u{308}", Some("Zo\u{eb}")),
            ("\u{1112}\u{1161}\u{11ab}", Some("\u{d55c}")),
            ("Ada  Lovelace", Some("Ada  Lovelace")),
        ] {
            assert_eq!(text(raw).as_deref(), expect, "{raw:?}");
        }
    }

    #[test]
    fn a_telephone_number_is_its_digits() {
        let same = ["+1 (555) 010-9999 ext. 7", "+15550109999x7", "+1.555.010.9999 Extension 7", "+1/555/0109999 #7"];
        for raw in same {
            assert_eq!(phone(raw).as_deref(), Some("+15550109999x7"), "{raw}");
        }
        for (raw, expect) in [
            ("555 0100", Some("5550100")),
            ("555\u{a0}0100", Some("5550100")),
            ("555\u{2011}0100", Some("5550100")),
            ("(+44) 20", Some("+4420")),
            ("+", Some("+")),
            ("none", Some("none")),
            ("1-800-FLOWERS", Some("1-800-FLOWERS")),
            ("555 0100 or 555 0101", Some("555 0100 or 555 0101")),
            ("555+1", Some("555+1")),
            ("ext 5", Some("ext 5")),
            ("555x", Some("555x")),
            ("  ", None),
        ] {
            assert_eq!(phone(raw).as_deref(), expect, "{raw}");
        }
    }

    #[test]
    fn a_domain_is_bare_and_an_address_in_lower_case() {
        for (raw, expect) in [
            ("https://www.Example.com/about?x", Some("example.com")),
            ("www.www.example.com", Some("example.com")),
            ("eu.example.com.", Some("eu.example.com")),
            ("https://", Some("https://")),
            (" ", None),
        ] {
            assert_eq!(domain(raw).as_deref(), expect, "{raw}");
        }
        assert_eq!(email(" Ada@Example.COM\n").as_deref(), Some("ada@example.com"));
    }

    #[test]
    fn addresses_that_salesforce_refuses_are_told() {
        for good in ["a@b.co", "o'brien@x.com", "a.b+c@d-e.org", "a..b@x.com"] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "a",
            "a@b",
            "@b.co",
            "a@@b.co",
            "a b@c.de",
            ".a@b.co",
            "a.@b.co",
            "a@-b.co",
            "\u{fc}@b.co",
            "a@b..co",
            "a@b.co, c@d.ee",
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters_and_keeps_no_space_at_the_end() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("ab cdef", 3), "ab");
        // Two units each.
        assert_eq!(cut("\u{1f600}\u{1f600}", 3), "\u{1f600}");
        assert_eq!(cut("\u{1f600}", 1), "");
    }

    proptest::proptest! {
        #[test]
        fn the_form_of_a_form_is_that_form(raw in "(?s).{0,40}|(https?://)?(www\\.){0,3}[a-z:./@ ]{0,12}|\\+?[0-9 ()x#.-]{0,20}", length in 0_usize..20) {
            for canonical in [text, email, phone, domain] {
                let once = canonical(&raw);
                proptest::prop_assert_eq!(once.as_deref().and_then(canonical), once);
            }
            if let Some(text) = text(&raw) {
                let short = cut(&text, length).to_owned();
                proptest::prop_assert_eq!(cut(&short, length), short.as_str());
                proptest::prop_assert_eq!(super::text(&short).unwrap_or_default(), short);
            }
        }
    }
}
