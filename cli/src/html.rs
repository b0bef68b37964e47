//! HTML from values: whatever comes from outside goes through [`Esc`].

use std::fmt::{self, Write as _};

/// Text as HTML, in an element or in a quoted attribute.
pub(crate) struct Esc<'a>(pub(crate) &'a str);

impl fmt::Display for Esc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Text as HTML.
pub(crate) fn esc(text: &str) -> String {
    Esc(text).to_string()
}

/// A part of a path or a value of a query, percent-encoded, so that it also stands in an attribute as it is.
pub(crate) fn url(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => safe.push(char::from(byte)),
            byte => {
                let _ = write!(safe, "%{byte:02X}");
            }
        }
    }
    safe
}

/// What [`url`] did, undone; `+` stays. `None` where it is no UTF-8.
pub(crate) fn unurl(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let mut digit = || char::from(ahead.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (byte, digit(), digit()) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                rest = ahead;
            }
            (byte, ..) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_markup_is_text() {
        assert_eq!(esc("<b a=\"x\" b='y'>&amp;"), "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;");
    }

    #[test]
    fn an_address_carries_any_text_there_and_back() {
        for text in ["a b+c", "é/ü?&#=", "100%", "%41", "\"><script>"] {
            let safe = url(text);
            assert!(safe.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte)), "{safe}");
            assert_eq!(unurl(&safe).as_deref(), Some(text));
        }
        assert_eq!(unurl("%zz%4"), Some("%zz%4".to_owned()), "what encodes nothing stays");
        assert_eq!(unurl("%ff"), None);
    }
}
