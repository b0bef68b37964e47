//! The short way through the answer to a batch: some 60 kB, of which 100 ids are needed.
//!
//! Members are told apart by their place and everything else is passed over, unread. Whatever is unusual (a result without its trace id, an
//! escape where an id belongs, a cut body) gives `None`, and the answer is read in full.

use serde_json::Value;

use super::{
    envelope::Refusal,
    verdict::{BatchAnswer, Found},
};

/// What a byte means between the texts of a JSON value.
const PLAIN: u8 = 0;
const QUOTE: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;
const BACKSLASH: u8 = 4;

static CLASSES: [u8; 256] = {
    let mut classes = [PLAIN; 256];
    classes[b'"' as usize] = QUOTE;
    classes[b'{' as usize] = OPEN;
    classes[b'[' as usize] = OPEN;
    classes[b'}' as usize] = CLOSE;
    classes[b']' as usize] = CLOSE;
    classes[b'\\' as usize] = BACKSLASH;
    classes
};

/// An answer each of whose results has its trace id; `None` if it is not as plain as that. `position` gives the place in the call that a
/// trace id stands for.
pub(super) fn answer(body: &[u8], position: impl Fn(&str) -> Option<usize>) -> Option<BatchAnswer> {
    let mut text = Text { bytes: body, at: 0 };
    let mut answer = BatchAnswer::default();
    text.members(|text, name| match name {
        b"results" => text.elements(|text| {
            let mut found = Found::default();
            let mut trace = None;
            text.members(|text, name| match name {
                b"id" => text.string().and_then(utf8).map(|id| id.clone_into(&mut found.id)),
                b"new" => text.boolean().map(|new| found.created = Some(new)),
                b"objectWriteTraceId" => text.string().map(|id| trace = Some(id)),
                _ => text.skip(),
            })?;
            found.at = Some(position(utf8(trace?)?)?);
            answer.results.push(found);
            Some(())
        }),
        b"errors" => {
            let start = text.at;
            text.skip()?;
            let errors: Vec<Value> = serde_json::from_slice(body.get(start..text.at)?).ok()?;
            answer.errors.extend(errors.iter().map(Refusal::of));
            Some(())
        }
        _ => text.skip(),
    })?;
    text.blank();
    (text.at == body.len()).then_some(answer)
}

fn utf8(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Text<'a> {
    fn blank(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// Whether the next byte that is not blank is this one; passes it.
    fn is(&mut self, sign: u8) -> bool {
        self.blank();
        let is = self.bytes.get(self.at) == Some(&sign);
        self.at += usize::from(is);
        is
    }

    /// The members of an object, each of which `each` passes.
    fn members(&mut self, mut each: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        if !self.is(b'{') {
            return None;
        }
        if self.is(b'}') {
            return Some(());
        }
        loop {
            let name = self.string()?;
            if !self.is(b':') {
                return None;
            }
            each(self, name)?;
            if !self.is(b',') {
                return self.is(b'}').then_some(());
            }
        }
    }

    /// The elements of a list.
    fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if !self.is(b'[') {
            return None;
        }
        if self.is(b']') {
            return Some(());
        }
        loop {
            each(self)?;
            if !self.is(b',') {
                return self.is(b']').then_some(());
            }
        }
    }

    /// A text without escapes.
    fn string(&mut self) -> Option<&'a [u8]> {
        if !self.is(b'"') {
            return None;
        }
        let rest = self.bytes.get(self.at..)?;
        let end = text_end(rest)?;
        self.at += end + 1;
        if rest.get(end) == Some(&b'"') { rest.get(..end) } else { None }
    }

    fn boolean(&mut self) -> Option<bool> {
        self.blank();
        let rest = self.bytes.get(self.at..)?;
        let value = rest.starts_with(b"true");
        if !value && !rest.starts_with(b"false") {
            return None;
        }
        self.at += if value { "true".len() } else { "false".len() };
        Some(value)
    }

    /// Passes a value of any kind, up to the sign that ends it.
    fn skip(&mut self) -> Option<()> {
        self.blank();
        let mut depth = 0_usize;
        loop {
            let byte = *self.bytes.get(self.at)?;
            match CLASSES[usize::from(byte)] {
                QUOTE => self.skip_string()?,
                OPEN => {
                    depth += 1;
                    self.at += 1;
                }
                // The end of what holds the value, if it is a number or a word.
                CLOSE if depth == 0 => return Some(()),
                CLOSE => {
                    depth -= 1;
                    self.at += 1;
                }
                PLAIN if depth == 0 && byte == b',' => return Some(()),
                PLAIN => {
                    self.at += 1;
                    continue;
                }
                _ => return None,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += text_end(self.bytes.get(self.at..)?)?;
            let is_quote = self.bytes.get(self.at) == Some(&b'"');
            self.at += 1;
            if is_quote {
                return Some(());
            }
            // An escape: the sign after the backslash is part of the text.
            self.at += 1;
        }
    }
}

/// Where the first quote or backslash is. Most of an answer is text, so this looks at eight bytes at a time.
fn text_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest high bit of the result stands for the first byte of `word` that is 0; those above it may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64));
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn position(trace: &str) -> Option<usize> {
        trace.strip_prefix("t-")?.parse().ok()
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\"\\\\{}\\[\\],: a-zé]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[\"{}a-z]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever the members hold, and however they are laid out: the ids are those that are there.
        #[test]
        fn ids_and_traces_are_found_among_anything(
            rows in proptest::collection::vec((any::<u32>(), any::<Option<bool>>(), anything(), anything()), 0..6),
            around in anything(),
            pretty: bool,
        ) {
            let results: Vec<Value> = rows.iter().enumerate().map(|(at, (id, new, first, last))| {
                let mut one = json!({"first": first, "id": id.to_string(), "properties": last});
                if let Some(new) = new {
                    one["new"] = (*new).into();
                }
                one["objectWriteTraceId"] = format!("t-{at}").into();
                one["last"] = first.clone();
                one
            }).collect();
            let error = json!({"category": "CONFLICT", "message": "a]\"}", "context": {"objectWriteTraceId": ["t-9"]}});
            let whole = json!({"status": "COMPLETE", "before": around, "results": results, "errors": [error], "startedAt": around});
            let body = if pretty { serde_json::to_vec_pretty(&whole) } else { serde_json::to_vec(&whole) }.unwrap();
            let found = answer(&body, position);
            let expected = rows.iter().enumerate().map(|(at, (id, new, ..))| Found { id: id.to_string(), created: *new, at: Some(at), key: None });
            prop_assert_eq!(found, Some(BatchAnswer { results: expected.collect(), errors: vec![Refusal::of(&error)] }));
            // A body that was cut is never taken for a whole one.
            for end in 0..body.len() {
                prop_assert_eq!(answer(&body[..end], position), None);
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_ends_at_its_first_quote_or_backslash(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'#'), Just(b'!')], 0..40)) {
            prop_assert_eq!(text_end(&bytes), bytes.iter().position(|byte| matches!(byte, b'"' | b'\\')));
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_long_way() {
        for body in [
            r#"{"results":[{"id":"1","objectWriteTraceId":"t-0"}],"errors":{}}"#,
            r#"{"results":[{"id":"1","objectWriteTraceId":"another"}]}"#,
            r#"{"results":[{"id":"1"}]}"#,
            r#"{"results":[{"id":1,"objectWriteTraceId":"t-0"}]}"#,
            r#"{"results":[{"id":"\u0031","objectWriteTraceId":"t-0"}]}"#,
            r#"{"results":[{"id":"1","objectWriteTraceId":"t-0"}]} x"#,
            r#"{"results":{}}"#,
            r#"[]"#,
            "",
            "<html>",
        ] {
            assert_eq!(answer(body.as_bytes(), position), None, "{body}");
        }
    }
}
