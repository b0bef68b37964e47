//! Whether a value fits its property, in HubSpot's words. SOURCES.md "Values" and "Validation codes".

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::{Value, json};

use super::catalog::{self, PropertyDefinition};

/// Characters in one value.
pub(crate) const VALUE_CHARS_MAX: usize = 65_536;

/// A value that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Invalid {
    pub(crate) name: String,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) value: Option<String>,
}

impl Invalid {
    pub(crate) fn inner(&self, portal_id: u64) -> Value {
        let mut one = json!({"isValid": false, "message": self.message, "error": self.code, "name": self.name});
        if let Some(members) = one.as_object_mut() {
            if let Some(value) = &self.value {
                members.insert("propertyValue".into(), value.as_str().into());
            }
            members.insert("localizedErrorMessage".into(), self.message.as_str().into());
            members.insert("portalId".into(), portal_id.into());
        }
        one
    }

    pub(crate) fn detail(&self) -> Value {
        json!({"message": self.message, "code": self.code, "context": {"propertyName": [self.name]}})
    }
}

/// What is stored of a valid value.
#[derive(Debug, PartialEq)]
pub(crate) enum Fit {
    AsIs,
    /// Stored in another form, silently.
    Stored(String),
    /// Stored in another form, with the warning of 2026-09.
    Normalized {
        stored: String,
        shown: String,
    },
}

/// Whether the rules of 2026-09 apply, and who the owners are.
pub(crate) struct Rules<'a> {
    pub(crate) lenient_dates: bool,
    pub(crate) owners: &'a [super::settings::Owner],
    pub(crate) object_type_id: &'a str,
}

pub(crate) fn check(definition: &PropertyDefinition, value: &str, rules: &Rules<'_>) -> Result<Fit, Invalid> {
    let refuse = |code: &'static str, message: String| {
        Err(Invalid { name: definition.name.clone(), code, message, value: Some(value.to_owned()) })
    };
    if definition.read_only() {
        let text = if definition.calculated {
            format!("\"{}\" is a calculated property; its value cannot be set.", definition.name)
        } else {
            format!("\"{}\" is a read only property; its value cannot be set.", definition.name)
        };
        return refuse("READ_ONLY_VALUE", text);
    }
    if value.is_empty() {
        return Ok(Fit::AsIs);
    }
    if value.len() > VALUE_CHARS_MAX && value.chars().count() > VALUE_CHARS_MAX {
        return refuse("PROPERTY_VALUE_TOO_LONG", format!("Value is longer than {VALUE_CHARS_MAX} characters."));
    }
    let kind = definition.kind.as_str();
    if definition.name == "email" && definition.hubspot_defined {
        let email = value.trim().to_lowercase();
        if !is_email(&email) {
            return refuse("INVALID_EMAIL", format!("Email address {value} is invalid"));
        }
        return Ok(if email == value { Fit::AsIs } else { Fit::Stored(email) });
    }
    if kind != "string" && kind != "phone_number" && value.trim() != value {
        let text = format!("\"{value}\" includes leading or trailing whitespace.");
        return refuse("LEADING_TRAILING_WHITESPACE", text);
    }
    match kind {
        "number" => {
            if is_number(value) {
                Ok(Fit::AsIs)
            } else {
                refuse("INVALID_LONG", format!("{value} was not a valid long."))
            }
        }
        "bool" if value == "true" || value == "false" => Ok(Fit::AsIs),
        "bool" => refuse("INVALID_OPTION", not_an_option(value, definition)),
        "date" => match date(value, rules.lenient_dates) {
            Ok(fit) => Ok(fit),
            Err(text) => refuse("INVALID_DATE", text),
        },
        "datetime" => match instant(value) {
            Some(at) if at.to_string() == value => Ok(Fit::AsIs),
            Some(at) => Ok(Fit::Stored(at.to_string())),
            None => refuse("INVALID_DATE", format!("{value} was not a valid date.")),
        },
        "enumeration" => match enumeration(definition, value, rules) {
            Ok(()) => Ok(Fit::AsIs),
            Err((code, text)) => refuse(code, text),
        },
        _ => Ok(Fit::AsIs),
    }
}

fn enumeration(definition: &PropertyDefinition, value: &str, rules: &Rules<'_>) -> Result<(), (&'static str, String)> {
    if definition.referenced_object_type.as_deref() == Some("OWNER") {
        if rules.owners.iter().any(|owner| owner.id == value) {
            return Ok(());
        }
        return Err(("INVALID_OWNER_ID", format!("Owner {value} does not exist")));
    }
    if definition.external_options {
        return Ok(());
    }
    if definition.options.is_empty() && definition.hubspot_defined {
        let pipelines = catalog::pipelines(rules.object_type_id);
        let known = if definition.name.ends_with("stage") {
            pipelines.iter().any(|pipeline| pipeline.stages.iter().any(|stage| stage.0 == value))
        } else {
            pipelines.iter().any(|pipeline| pipeline.id == value)
        };
        if known {
            return Ok(());
        }
        let all: Vec<&str> = if definition.name.ends_with("stage") {
            pipelines.iter().flat_map(|pipeline| pipeline.stages.iter().map(|stage| stage.0)).collect()
        } else {
            pipelines.iter().map(|pipeline| pipeline.id).collect()
        };
        let text = format!("{value} was not one of the allowed options: [{}]", all.join(", "));
        return Err(("INVALID_OPTION", text));
    }
    let known = |one: &str| definition.options.iter().any(|option| option.value == one);
    let wrong = if definition.field_type == "checkbox" {
        value.split(';').filter(|one| !one.is_empty()).find(|one| !known(one))
    } else {
        Some(value).filter(|one| !known(one))
    };
    match wrong {
        None => Ok(()),
        Some(one) => Err(("INVALID_OPTION", not_an_option(one, definition))),
    }
}

fn not_an_option(value: &str, definition: &PropertyDefinition) -> String {
    let options: Vec<String> = definition
        .options
        .iter()
        .map(|option| format!("label: \"{}\"\nvalue: \"{}\"\n", option.label, option.value))
        .collect();
    format!("{value} was not one of the allowed options: [{}]", options.join(", "))
}

/// A plain decimal: an optional sign, digits, at most one point.
fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    let mut points = 0;
    let mut any = false;
    for byte in digits.bytes() {
        match byte {
            b'0'..=b'9' => any = true,
            b'.' => points += 1,
            _ => return false,
        }
    }
    any && points <= 1
}

fn is_email(value: &str) -> bool {
    let Some((local, domain)) = value.split_once('@') else { return false };
    let plain = |byte: u8| byte > b' ' && !matches!(byte, b'@' | b',' | b';' | b'<' | b'>' | b'(' | b')' | b'"' | 0x7f);
    !local.is_empty()
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && domain.contains('.')
        && !domain.starts_with(['.', '-'])
        && !domain.ends_with(['.', '-'])
        && !domain.contains("..")
        && value.len() <= 254
        && local.bytes().all(plain)
        && domain.bytes().all(plain)
}

fn date(value: &str, lenient: bool) -> Result<Fit, String> {
    if value.len() == 10 && value.parse::<Date>().is_ok() {
        return Ok(Fit::AsIs);
    }
    let day_of = |at: Timestamp| at.to_zoned(jiff::tz::TimeZone::UTC).date();
    let (at, digits) = match value.parse::<i64>() {
        Ok(ms) => (Timestamp::from_millisecond(ms).ok(), true),
        Err(_) => (value.parse::<Timestamp>().ok(), false),
    };
    let Some(at) = at else { return Err(format!("{value} was not a valid date.")) };
    let zoned = at.to_zoned(jiff::tz::TimeZone::UTC);
    let midnight = at.as_millisecond().rem_euclid(86_400_000) == 0;
    let stored = day_of(at).to_string();
    if digits && midnight {
        return Ok(Fit::Stored(stored));
    }
    if lenient {
        let shown = at.as_millisecond() - at.as_millisecond().rem_euclid(86_400_000);
        return Ok(Fit::Normalized { stored, shown: shown.to_string() });
    }
    if digits {
        return Err(format!(
            "{value} is at {}:{}:{}.{} UTC, not midnight!",
            zoned.hour(),
            zoned.minute(),
            zoned.second(),
            zoned.millisecond()
        ));
    }
    Err(format!("{value} was not a valid date."))
}

fn instant(value: &str) -> Option<Timestamp> {
    match value.parse::<i64>() {
        Ok(ms) => Timestamp::from_millisecond(ms).ok(),
        Err(_) => value.parse::<Timestamp>().ok().or_else(|| {
            let date = value.parse::<Date>().ok().filter(|_| value.len() == 10)?;
            date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(kind: &str, value: &str, lenient: bool) -> Result<Fit, &'static str> {
        let definition = PropertyDefinition::new("x", kind).options(&["a", "b"]);
        let rules = Rules { lenient_dates: lenient, owners: &[], object_type_id: "0-1" };
        check(&definition, value, &rules).map_err(|invalid| invalid.code)
    }

    #[test]
    fn each_type_takes_its_forms_and_names_its_code() {
        for good in ["1", "-1.5", "+3", ".5", "1000000000000000000000"] {
            assert_eq!(result("number", good, false), Ok(Fit::AsIs), "{good}");
        }
        for bad in ["1,000", "1.2.3", "abc", "-", "1e5", "$5"] {
            assert_eq!(result("number", bad, false), Err("INVALID_LONG"), "{bad}");
        }
        assert_eq!(result("number", " 1", false), Err("LEADING_TRAILING_WHITESPACE"));
        assert_eq!(result("string", " kept ", false), Ok(Fit::AsIs));
        assert_eq!(result("bool", "true", false), Ok(Fit::AsIs));
        assert_eq!(result("bool", "TRUE", false), Err("INVALID_OPTION"));
        assert_eq!(result("enumeration", "a", false), Ok(Fit::AsIs));
        assert_eq!(result("enumeration", "A", false), Err("INVALID_OPTION"));
        assert_eq!(result("string", &"x".repeat(VALUE_CHARS_MAX), false), Ok(Fit::AsIs));
        assert!(result("string", &"x".repeat(VALUE_CHARS_MAX + 1), false).is_err());
        let stored = Fit::Stored("2025-11-03T23:36:13.632Z".to_owned());
        assert_eq!(result("datetime", "1762212973632", false), Ok(stored));
        assert_eq!(result("datetime", "yesterday", false), Err("INVALID_DATE"));
    }

    #[test]
    fn a_date_off_midnight_is_refused_before_2026_09_and_normalised_since() {
        assert_eq!(result("date", "1990-01-01", false), Ok(Fit::AsIs));
        assert_eq!(result("date", "631152000000", false), Ok(Fit::Stored("1990-01-01".to_owned())));
        assert_eq!(result("date", "631152060000", false), Err("INVALID_DATE"));
        assert_eq!(result("date", "1990-01-01T00:00:00Z", false), Err("INVALID_DATE"));
        let normalized = Fit::Normalized { stored: "1990-01-01".to_owned(), shown: "631152000000".to_owned() };
        assert_eq!(result("date", "1990-01-01T00:00:00Z", true), Ok(normalized));
    }
}
