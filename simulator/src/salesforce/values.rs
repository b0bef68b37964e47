//! What a value sent to a field becomes, or why it is refused.

use jiff::civil::Date;
use serde_json::{Map, Value};

use super::Org;
use super::answer::{ApiError, Handled, parse_datetime};
use super::catalog::{Field, FieldType};
use super::ids;
use super::store::Cell;

/// What Salesforce removes around a text; a no-break space stays.
fn trim(text: &str) -> &str {
    text.trim_matches(|letter: char| letter <= ' ')
}

fn is_email(text: &str) -> bool {
    let Some((name, domain)) = text.split_once('@') else { return false };
    let plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
    };
    plain(name, "!#$%&'*+-/=?^_`{|}~.")
        && !name.starts_with('.')
        && !name.ends_with('.')
        && plain(domain, "-.")
        && domain.contains('.')
        && domain.split('.').all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'))
}

fn parser(kind: &str, token: &str) -> Box<ApiError> {
    ApiError::bad(
        "JSON_PARSER_ERROR",
        format!("Cannot deserialize instance of {kind} from {token} value or request may be missing a required field"),
    )
}

impl Org {
    /// Refuses values whose JSON type does not fit: that is refused as a whole, before any record is looked at.
    pub(crate) fn check_shape(&self, table: usize, values: &Map<String, Value>) -> Handled<()> {
        for (name, value) in values {
            let Some(at) = self.tables[table].at(name) else { continue };
            let Some(field) = self.tables[table].field(at) else { continue };
            let fits = match value {
                Value::Null => true,
                Value::String(text) => match field.kind {
                    FieldType::Date => text.is_empty() || day(text).is_some(),
                    FieldType::DateTime => text.is_empty() || parse_datetime(text).is_some(),
                    FieldType::Boolean => matches!(text.as_str(), "true" | "false"),
                    kind if kind.is_number() => text.trim().parse::<f64>().is_ok(),
                    _ => true,
                },
                Value::Number(_) => field.kind.is_number(),
                Value::Bool(_) => field.kind == FieldType::Boolean,
                Value::Array(_) | Value::Object(_) => false,
            };
            if !fits {
                let token = match value {
                    Value::String(_) => "VALUE_STRING",
                    Value::Number(_) => "VALUE_NUMBER",
                    Value::Bool(_) => "VALUE_TRUE",
                    Value::Array(_) => "START_ARRAY",
                    _ => "START_OBJECT",
                };
                return Err(parser(field.kind.name(), token));
            }
        }
        Ok(())
    }

    /// A sent value as it is stored.
    pub(crate) fn convert(&self, field: &Field, value: &Value) -> Handled<Option<Cell>> {
        let name = field.name.as_str();
        let text = match value {
            Value::Null if field.kind == FieldType::Boolean => {
                return Err(ApiError::bad(
                    "INVALID_TYPE_ON_FIELD_IN_RECORD",
                    format!("{}: value not of required type: null", field.label),
                )
                .on(&[name]));
            }
            Value::Null => return Ok(None),
            Value::String(text) => trim(text).to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Array(_) | Value::Object(_) => return Err(parser(field.kind.name(), "START_OBJECT")),
        };
        if text.is_empty() {
            return match field.kind {
                FieldType::Boolean => Err(parser("boolean", "VALUE_STRING")),
                _ => Ok(None),
            };
        }
        let refuse = |code: &str, message: String| Err(ApiError::bad(code, message).on(&[name]));
        let too_long =
            |text: &str| format!("{}: data value too large: {text} (max length={})", field.label, field.length);
        match field.kind {
            FieldType::Boolean => match text.as_str() {
                "true" => Ok(Some(Cell::Bool(true))),
                "false" => Ok(Some(Cell::Bool(false))),
                _ => Err(parser("boolean", "VALUE_STRING")),
            },
            FieldType::Date => match day(&text) {
                Some(day) => Ok(Some(Cell::Text(day))),
                None => Err(parser("date", "VALUE_STRING")),
            },
            FieldType::DateTime => match parse_datetime(&text) {
                Some(ms) => Ok(Some(Cell::Time(ms.div_euclid(1_000) * 1_000))),
                None => Err(parser("datetime", "VALUE_STRING")),
            },
            kind if kind.is_number() => {
                let Ok(number) = text.parse::<f64>() else { return Err(parser(kind.name(), "VALUE_STRING")) };
                let digits = field.precision.saturating_sub(field.scale);
                if !number.is_finite() || number.abs() >= 10_f64.powi(i32::try_from(digits).unwrap_or(18)) {
                    return refuse(
                        "NUMBER_OUTSIDE_VALID_RANGE",
                        format!("{}: value outside of valid range on numeric field: {text}", field.label),
                    );
                }
                let scale = 10_f64.powi(i32::try_from(field.scale).unwrap_or(0));
                Ok(Some(Cell::Number((number * scale).round() / scale)))
            }
            FieldType::Reference | FieldType::Id => self.reference(field, &text).map(Some),
            FieldType::Email => {
                let text = if self.settings.lowers_email { text.to_lowercase() } else { text };
                if text.chars().count() > field.length {
                    return refuse("STRING_TOO_LONG", too_long(&text));
                }
                if !is_email(&text) {
                    let message = format!("{}: invalid email address: {text}", field.label);
                    return refuse("INVALID_EMAIL_ADDRESS", message);
                }
                Ok(Some(Cell::Text(text)))
            }
            FieldType::Picklist | FieldType::MultiPicklist => {
                let several = field.kind == FieldType::MultiPicklist;
                let parts: Vec<&str> = if several { text.split(';').map(trim).collect() } else { vec![&text] };
                let unknown = parts.iter().find(|part| !field.picklist.iter().any(|value| value == *part));
                if let Some(part) = unknown.filter(|_| field.restricted) {
                    return refuse(
                        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                        format!("{}: bad value for restricted picklist field: {part}", field.label),
                    );
                }
                if several {
                    // Several values come back in the order of the list.
                    let place = |part: &&str| field.picklist.iter().position(|value| value == part);
                    let mut sorted = parts.clone();
                    sorted.sort_by_key(|part| place(part).unwrap_or(usize::MAX));
                    sorted.dedup();
                    return Ok(Some(Cell::Text(sorted.join(";"))));
                }
                Ok(Some(Cell::Text(text)))
            }
            _ => {
                if field.length > 0 && text.chars().count() > field.length {
                    return refuse("STRING_TOO_LONG", too_long(&text));
                }
                Ok(Some(Cell::Text(text)))
            }
        }
    }

    fn reference(&self, field: &Field, text: &str) -> Handled<Cell> {
        let name = field.name.as_str();
        let Some(id) = ids::full(text) else {
            let message = format!("{}: id value of incorrect type: {text}", field.label);
            return Err(ApiError::bad("MALFORMED_ID", message).on(&[name]));
        };
        let tables = field.reference_to.iter().filter_map(|object| self.table_at(object));
        let mut right_type = false;
        for table in tables {
            if self.tables[table].kind.prefix == id[..3] {
                right_type = true;
                if self.tables[table].live(&id).is_some() {
                    return Ok(Cell::Text(id));
                }
            }
        }
        if !right_type {
            let message = format!("{}: id value of incorrect type: {text}", field.label);
            return Err(ApiError::bad("FIELD_INTEGRITY_EXCEPTION", message).on(&[name]));
        }
        Err(ApiError::bad("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id").on(&[name]))
    }
}

/// `YYYY-MM-DD`; a time behind it is dropped.
fn day(text: &str) -> Option<String> {
    let text = trim(text);
    let head = text.get(..10)?;
    if text.len() > 10 && parse_datetime(text).is_none() {
        return None;
    }
    head.parse::<Date>().ok().map(|day| day.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_other_texts() {
        for good in ["a@b.co", "o'brien@x.com", "a.b+c@d-e.org"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["a", "a@b", "@b.co", "a@@b.co", "a b@c.de", ".a@b.co", "a@-b.co", "ü@b.co", "a@b..co"] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
