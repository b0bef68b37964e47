//! What tells that a record is a person's. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::record::{ObjectType, fold_key};

/// A person, as far as hubferry's files know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Person {
    /// Addresses, folded.
    pub(super) addresses: BTreeSet<String>,
    /// Ids of the person's contacts, by account.
    pub(super) ids: BTreeMap<String, BTreeSet<String>>,
    /// Ids of the person's records in Salesforce, of any org.
    pub(super) salesforce: BTreeSet<String>,
    /// Values of other properties that imports identify contacts by, folded; by property.
    pub(super) keys: BTreeMap<String, BTreeSet<String>>,
}

/// Bytes of the shortest address that is taken: a shorter text would be found in the middle of other people's values.
const ADDRESS_BYTES_MIN: usize = 5;

/// Whether this is an e-mail address, as far as that can be told: only those are searched for in the middle of text.
pub(super) fn is_address(key: &str) -> bool {
    let plain = !key.chars().any(|c| c.is_whitespace() || c.is_control() || "\"\\<>,;".contains(c));
    let parts = key.split_once('@').is_some_and(|(name, domain)| {
        !name.is_empty()
            && !domain.contains('@')
            && domain.contains('.')
            && !domain.starts_with('.')
            && !domain.ends_with('.')
    });
    plain && parts && key.len() >= ADDRESS_BYTES_MIN
}

/// What is known of a record by its place in the format, beside its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The record's id.
    pub(super) id: Option<String>,
    /// Its own address.
    pub(super) email: Option<String>,
    /// Its key in an import.
    pub(super) key: Option<String>,
    /// Its object type, where the format says so.
    pub(super) object: Option<String>,
    /// Its id in Salesforce, where the format says so.
    pub(super) salesforce: Option<String>,
}

impl Person {
    /// The person's ids in an account.
    pub(super) fn ids_in(&self, account: &str) -> impl Iterator<Item = &str> {
        self.ids.get(account).into_iter().flatten().map(String::as_str)
    }

    /// Whether a text mentions an address of the person: as a whole, not as a part of a longer one.
    pub(super) fn is_mentioned(&self, text: &str) -> bool {
        // Most texts hold no address at all.
        if !text.contains('@') && !text.contains("\\u") {
            return false;
        }
        let lower = text.to_lowercase();
        self.addresses.iter().any(|address| mentions(&lower, address))
            || (lower.contains("\\u") && decoded(text).is_some_and(|text| self.is_mentioned(&text)))
    }

    /// Whether a record is the person's, or mentions them. `contacts`: its id is that of a contact in this account, unless it says otherwise.
    pub(super) fn is_of(&self, text: &str, facts: impl FnOnce() -> Facts, contacts: Option<&str>) -> bool {
        if self.is_mentioned(text) {
            return true;
        }
        let Some(account) = contacts else { return false };
        let lower = || text.to_lowercase();
        let may_be = self.ids_in(account).chain(self.salesforce.iter().map(String::as_str)).any(|id| text.contains(id))
            || (!self.keys.is_empty() && self.keys.values().flatten().any(|key| lower().contains(key)));
        if !may_be {
            return false;
        }
        let facts = facts();
        if facts.object.is_some_and(|object| !ObjectType(object).is_contacts()) {
            return false;
        }
        let by_id = facts.id.is_some_and(|id| self.ids_in(account).any(|known| known == id));
        let by_key = facts.key.is_some_and(|key| {
            let key = fold_key(&key);
            self.keys.values().any(|values| values.contains(&key))
        });
        by_id || by_key || facts.salesforce.is_some_and(|id| self.salesforce.contains(&id))
    }

    /// Whether a record's own address is the person's: then its id is, too.
    pub(super) fn owns(&self, facts: &Facts) -> bool {
        facts.email.as_deref().is_some_and(|email| self.addresses.contains(&fold_key(email.trim_start_matches('\''))))
    }
}

/// `address` in `text`, both in lower case, with nothing of an address on either side.
fn mentions(text: &str, address: &str) -> bool {
    let mut from = 0;
    while let Some(found) = text.get(from..).and_then(|rest| rest.find(address)) {
        let (start, end) = (from + found, from + found + address.len());
        let before = text.get(..start).unwrap_or_default();
        let mut after = text.get(end..).unwrap_or_default().chars();
        let goes_on = match after.next() {
            // The end of a sentence, or of a longer domain.
            Some('.') => after.next().is_some_and(char::is_alphanumeric),
            Some(c) => c.is_alphanumeric() || matches!(c, '-' | '_' | '@'),
            None => false,
        };
        if !goes_on && !runs_into(before) {
            return true;
        }
        from = end;
    }
    false
}

/// Whether what stands before an address is a part of it.
fn runs_into(before: &str) -> bool {
    let mut last = before.chars().rev();
    match last.next() {
        // A line break or a tab as JSON writes it.
        Some('n' | 't' | 'r' | 'b' | 'f') if last.next() == Some('\\') => false,
        Some(c) => c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '&' | '=' | '~' | '/'),
        None => false,
    }
}

/// All texts of a JSON value in one: what escapes hide comes to light.
fn decoded(text: &str) -> Option<String> {
    fn collect(value: &Value, into: &mut String) {
        match value {
            Value::String(text) => {
                into.push(' ');
                // Text that holds an escape as such would be looked at again for ever.
                into.push_str(&text.replace("\\u", "\\ u").replace("\\U", "\\ U"));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            Value::Object(members) => members.iter().for_each(|(name, value)| {
                into.push(' ');
                into.push_str(&name.replace("\\u", "\\ u").replace("\\U", "\\ U"));
                collect(value, into);
            }),
            _ => {}
        }
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let mut texts = String::new();
    collect(&value, &mut texts);
    Some(texts)
}

/// What the shape of a JSON line tells: a captured record, flat or as OpenCDC, or a before-image.
pub(super) fn facts_of_json(line: &str) -> Facts {
    let Ok(value) = serde_json::from_str::<Value>(line) else { return Facts::default() };
    let text = |pointer: &str| match value.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    // A line of what a sync lists as refused.
    let is_refused = value.get("refused_by").is_some();
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| text(pointer));
    Facts {
        id: match is_refused {
            true => text("/hubspot_id"),
            false => first(&["/key/id", "/_id", "/id", "/payload/after/id", "/payload/before/id"]),
        },
        email: first(&[
            "/payload/after/properties/email",
            "/payload/before/properties/email",
            "/email",
            "/before/email",
            "/after/email",
        ]),
        key: value.get("key").and_then(Value::as_str).map(str::to_owned),
        object: value.get("object").and_then(Value::as_str).map(str::to_owned),
        salesforce: if is_refused { text("/salesforce_id") } else { None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person() -> Person {
        Person {
            addresses: ["ada@x.io".to_owned()].into(),
            ids: [("default".to_owned(), ["101".to_owned()].into())].into(),
            salesforce: ["003000000000001AAA".to_owned()].into(),
            keys: [("member_id".to_owned(), ["m-7".to_owned()].into())].into(),
        }
    }

    #[test]
    fn an_address_is_found_as_a_whole_in_any_case_and_not_as_a_part_of_another() {
        for text in [
            "ada@x.io",
            "ADA@X.io,Ada",
            "\"ada@x.io\"",
            "'ada@x.io",
            "write to ada@x.io.",
            "a;ada@x.io;b",
            r#"{"note":"first line\nada@x.io"}"#,
            r#"{"email":"ada\u0040x.io"}"#,
            "bada@x.io,ada@x.io",
            "<mailto:ada@x.io>",
        ] {
            assert!(person().is_mentioned(text), "{text}");
        }
        for text in ["", "nada@x.io", "ada@x.io.uk", "x.ada@x.io", "ada@x.ion", "ada@x", "ada+1@x.io", "ada@x.io-y.com"]
        {
            assert!(!person().is_mentioned(text), "{text}");
        }
    }

    #[test]
    fn an_escape_within_an_escape_ends() {
        assert!(!person().is_mentioned(r#"{"a":"\\u0041"}"#));
        assert!(!person().is_mentioned(r#"{"a":"{\"b\":\"\\\\u0041\"}"}"#));
        assert!(!person().is_mentioned("\\u not json"));
    }

    #[test]
    fn a_record_is_the_persons_by_id_where_ids_are_those_of_contacts() {
        let is_of = |text: &str, account| person().is_of(text, || facts_of_json(text), account);
        assert!(is_of(r#"{"_id":"101"}"#, Some("default")));
        assert!(!is_of(r#"{"_id":"1012"}"#, Some("default")));
        assert!(!is_of(r#"{"_id":"7","amount":"101"}"#, Some("default")), "another value");
        assert!(!is_of(r#"{"_id":"101"}"#, Some("other")));
        assert!(!is_of(r#"{"_id":"101"}"#, None), "a company may have the same number");
        assert!(is_of(r#"{"object":"contacts","id":"101","key":"eve@x.io"}"#, Some("default")));
        assert!(!is_of(r#"{"object":"companies","id":"101"}"#, Some("default")));
        assert!(is_of(r#"{"object":"contacts","existed":false,"key":"M-7 "}"#, Some("default")));
        assert!(is_of(r#"{"_id":"8","note":"with ada@x.io"}"#, None), "who is mentioned is there");
        let refused = |hubspot: &str, salesforce: &str| {
            format!(
                r#"{{"hubspot_id":{hubspot},"salesforce_id":{salesforce},"refused_by":"salesforce","field":"Phone"}}"#
            )
        };
        assert!(
            is_of(&refused("\"101\"", "null"), Some("default"))
                && is_of(&refused("null", "\"003000000000001AAA\""), Some("default"))
        );
        assert!(!is_of(&refused("\"1012\"", "\"003000000000002AAA\""), Some("default")));
        assert!(!is_of(&refused("\"101\"", "null"), None), "the sync is not of contacts");
    }

    #[test]
    fn only_a_records_own_address_makes_its_id_the_persons() {
        let own = facts_of_json(
            r#"{"operation":"create","key":{"id":"7"},"payload":{"after":{"properties":{"email":"Ada@x.io"}}}}"#,
        );
        assert_eq!((own.id.as_deref(), person().owns(&own)), (Some("7"), true));
        let other = facts_of_json(r#"{"_id":"8","email":"eve@x.io","assistant":"ada@x.io"}"#);
        assert_eq!((other.id.as_deref(), person().owns(&other)), (Some("8"), false));
        let image = facts_of_json(r#"{"object":"contacts","id":"9","key":"m-7","before":{"email":"ada@x.io"}}"#);
        assert_eq!((image.id.as_deref(), image.key.as_deref(), person().owns(&image)), (Some("9"), Some("m-7"), true));
        assert_eq!(facts_of_json("not json"), Facts::default());
    }

    #[test]
    fn an_address_is_told_from_what_would_be_found_everywhere() {
        for key in ["ada@x.io", "a.b+c@sub.example.com", "zoë@exämple.de"] {
            assert!(is_address(key), "{key}");
        }
        for key in ["", "a", "@x.io", "ada@", "ada@x", "ada@.io", "a@b@c.de", "a b@x.io", "a@x.io,b@x.io", "m-7"] {
            assert!(!is_address(key), "{key}");
        }
    }
}
