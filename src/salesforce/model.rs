//! What passes between Salesforce and the rest: ids, moments, rows. Pure.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Values by field name: `null` clears a field, what is absent stays as it is.
pub type Values = Map<String, Value>;

/// A record's id in its 18-character form, which systems that do not tell case apart cannot confuse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SalesforceId(String);

/// Not an id of Salesforce's: neither 15 nor 18 letters and digits, or the last three do not fit the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Salesforce id")]
pub struct NotAnId;

impl SalesforceId {
    /// Reads an id of 15 or 18 characters.
    pub fn parse(text: &str) -> Result<Self, NotAnId> {
        const CHECK: [char; 32] = [
            'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U',
            'V', 'W', 'X', 'Y', 'Z', '0', '1', '2', '3', '4', '5',
        ];
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) || !matches!(text.len(), 15 | 18) {
            return Err(NotAnId);
        }
        let (own, check) = text.split_at_checked(15).ok_or(NotAnId)?;
        let mut all = own.to_owned();
        for part in own.as_bytes().chunks(5) {
            let bits = part.iter().rev().fold(0_usize, |bits, byte| bits * 2 + usize::from(byte.is_ascii_uppercase()));
            all.extend(CHECK.get(bits));
        }
        let right = all.get(15..).is_some_and(|sum| check.is_empty() || sum.eq_ignore_ascii_case(check));
        if right { Ok(Self(all)) } else { Err(NotAnId) }
    }

    /// The 18 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first three: which object it is a record of.
    pub fn prefix(&self) -> &str {
        self.0.get(..3).unwrap_or_default()
    }
}

impl TryFrom<String> for SalesforceId {
    type Error = NotAnId;
    fn try_from(text: String) -> Result<Self, NotAnId> {
        Self::parse(&text)
    }
}

impl From<SalesforceId> for String {
    fn from(id: SalesforceId) -> Self {
        id.0
    }
}

impl fmt::Display for SalesforceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment in any of Salesforce's forms: `2024-09-09T19:25:27.000+0000` (no colon: not RFC 3339), with `Z`, with a colon, or
/// milliseconds since 1970. `None` for anything else.
pub fn datetime(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(number) => Timestamp::from_millisecond(number.as_i64()?).ok(),
        Value::String(text) => {
            let with_colon =
                text.len().checked_sub(5).and_then(|at| text.split_at_checked(at)).and_then(|(head, zone)| {
                    let (sign, digits) = zone.split_at_checked(1)?;
                    let plain = matches!(sign, "+" | "-") && digits.bytes().all(|byte| byte.is_ascii_digit());
                    let (hours, minutes) = digits.split_at_checked(2)?;
                    plain.then(|| format!("{head}{sign}{hours}:{minutes}"))
                });
            with_colon.as_deref().unwrap_or(text).parse().ok()
        }
        _ => None,
    }
}

/// A record as a query shows it: what was selected, `null` where there is nothing, parents as objects.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub struct Row {
    /// Members, `attributes` among them.
    pub values: Values,
}

impl Row {
    /// A field, or a parent's field by its path (`Account.Name`). `None`: it was not selected, or may not be seen. That is
    /// not the same as `null`, which means blank.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut values = &self.values;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let found = values.iter().find(|(name, _)| name.eq_ignore_ascii_case(part)).map(|(_, value)| value)?;
            if parts.peek().is_none() {
                return Some(found);
            }
            match found {
                Value::Object(inner) => values = inner,
                // No parent: its fields are blank.
                Value::Null => return Some(found),
                _ => return None,
            }
        }
        None
    }

    /// A field's text; `None` where it is blank, absent, or not text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.get(path)?.as_str()
    }

    /// The record's id.
    pub fn id(&self) -> Option<SalesforceId> {
        SalesforceId::parse(self.text("Id")?).ok()
    }

    /// When anybody or anything changed it last, in whole seconds.
    pub fn system_modstamp(&self) -> Option<Timestamp> {
        datetime(self.get("SystemModstamp")?)
    }

    /// Whether it is in the recycle bin.
    pub fn is_deleted(&self) -> bool {
        self.get("IsDeleted") == Some(&Value::Bool(true))
    }

    /// The record that it was merged into.
    pub fn master_record_id(&self) -> Option<SalesforceId> {
        SalesforceId::parse(self.text("MasterRecordId")?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_lengths_of_an_id_are_one_id_and_a_damaged_one_is_none() {
        let id = SalesforceId::parse("003ak000003dQCG").unwrap();
        assert_eq!(id.as_str(), "003ak000003dQCGAA2");
        assert_eq!(SalesforceId::parse("003ak000003dQCGAA2"), Ok(id.clone()));
        assert_eq!(SalesforceId::parse("003ak000003dQCGaa2"), Ok(id), "a system that lost the case of the check");
        for bad in
            ["", "003ak000003dQCGAA3", "003AK000003DQCGAA2", "003ak000003dQC", "003ak000003dQC'", "003ak000003dQCGÄÄ"]
        {
            assert_eq!(SalesforceId::parse(bad), Err(NotAnId), "{bad}");
        }
    }

    #[test]
    fn every_form_of_a_moment_is_read() {
        let expected: Timestamp = "2024-09-09T19:25:27Z".parse().unwrap();
        for value in [
            json!("2024-09-09T19:25:27.000+0000"),
            json!("2024-09-09T21:25:27.000+0200"),
            json!("2024-09-09T19:25:27.000Z"),
            json!("2024-09-09T19:25:27+00:00"),
            json!(expected.as_millisecond()),
        ] {
            assert_eq!(datetime(&value), Some(expected), "{value}");
        }
        for value in [json!(null), json!("today"), json!("2024-09-09"), json!("ä+0000"), json!("+000ä")] {
            assert_eq!(datetime(&value), None, "{value}");
        }
    }

    #[test]
    fn what_was_not_selected_is_not_blank() {
        let row: Row = serde_json::from_value(json!({"Id": "003ak000003dQCGAA2", "Email": null,
            "Account": {"Name": "A"}, "Owner": null}))
        .unwrap();
        assert_eq!(row.get("Email"), Some(&Value::Null));
        assert_eq!(row.get("Phone"), None);
        assert_eq!(row.text("account.name"), Some("A"));
        assert_eq!(row.get("Owner.Name"), Some(&Value::Null));
        assert_eq!(row.get("Account.Phone"), None);
    }
}
