//! When two values of a property are the same to HubSpot. Pure.
//!
//! HubSpot keeps a number as it was written, tells a date in another form than it may be given, and lower-cases addresses. Who
//! compares text would plan changes that are none, and undo nothing.

use jiff::{Timestamp, civil::Date};

use crate::hubspot::{adopt::bare_domain, model::PropertyDefinition};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Whether `a` and `b` are one value. `None` and blank text are no value.
pub fn same(definition: Option<&PropertyDefinition>, a: Option<&str>, b: Option<&str>) -> bool {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    if a == b {
        return true;
    }
    let (a, b) = (a.trim(), b.trim());
    if a.is_empty() || b.is_empty() {
        return a.is_empty() == b.is_empty();
    }
    let kind = definition.map_or("string", |definition| definition.kind.as_str());
    let name = definition.map_or("", |definition| definition.name.as_str());
    match kind {
        "number" => matches!((plain_number(a), plain_number(b)), (Some(a), Some(b)) if a == b) || a == b,
        "date" => matches!((date(a), date(b)), (Some(a), Some(b)) if a == b) || a == b,
        "datetime" => matches!((moment(a), moment(b)), (Some(a), Some(b)) if a == b) || a == b,
        "bool" => a.eq_ignore_ascii_case(b),
        "enumeration" if holds_several(definition) => {
            let parts = |text: &str| {
                let mut parts: Vec<String> =
                    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
                parts.sort();
                parts.dedup();
                parts
            };
            parts(a) == parts(b)
        }
        _ if name == "email" => a.to_lowercase() == b.to_lowercase(),
        _ if name == "domain" => bare_domain(a) == bare_domain(b),
        _ => a == b,
    }
}

/// What a field holds after `new` was written over `old`: a leading `;` adds options to those that are there.
pub fn written(definition: Option<&PropertyDefinition>, old: Option<&str>, new: &str) -> Option<String> {
    let Some(more) = new.strip_prefix(';').filter(|_| holds_several(definition)) else {
        return (!new.is_empty()).then(|| new.to_owned());
    };
    let mut parts: Vec<&str> = old.unwrap_or_default().split(';').filter(|part| !part.is_empty()).collect();
    for part in more.split(';').filter(|part| !part.is_empty()) {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    (!parts.is_empty()).then(|| parts.join(";"))
}

fn holds_several(definition: Option<&PropertyDefinition>) -> bool {
    definition.is_some_and(|definition| definition.kind == "enumeration" && definition.field_type == "checkbox")
}

/// A number without signs, zeros and an exponent that say nothing: `+01.50` and `1.5e0` are `1.5`.
fn plain_number(text: &str) -> Option<String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some((mantissa, exponent)) = digits.split_once(['e', 'E']) {
        // HubSpot tells large and small numbers so; as many digits as it keeps.
        let exponent: i32 = exponent.parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if exponent.unsigned_abs() > 400 {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let point = i32::try_from(whole.len()).ok()? + exponent;
        let shifted = match usize::try_from(point) {
            Ok(point) if point >= all.len() => format!("{all}{}", "0".repeat(point - all.len())),
            Ok(point) => format!("{}.{}", all.get(..point)?, all.get(point..)?),
            Err(_) => format!("0.{}{all}", "0".repeat(usize::try_from(-point).ok()?)),
        };
        return plain_number(&format!("{}{shifted}", if negative { "-" } else { "" }));
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = !(whole.is_empty() && fraction.is_empty())
        && [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_number {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.is_empty() && fraction.is_empty() {
        return Some("0".to_owned());
    }
    let sign = if negative { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

fn moment(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse::<i64>() {
        return Some(ms);
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// Days since 1970.
fn date(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse::<i64>() {
        return Some(ms.div_euclid(DAY_MS));
    }
    let day = text.get(..10).filter(|_| text.len() == 10 || text.contains('T')).unwrap_or(text);
    let day: Date = day.parse().ok()?;
    let moment = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(moment.as_millisecond().div_euclid(DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(kind: &str, field_type: &str, name: &str) -> PropertyDefinition {
        PropertyDefinition {
            name: name.to_owned(),
            kind: kind.to_owned(),
            field_type: field_type.to_owned(),
            ..PropertyDefinition::default()
        }
    }

    #[track_caller]
    fn check(kind: &str, a: &str, b: &str, expect: bool) {
        let definition = property(kind, if kind == "enumeration" { "checkbox" } else { "text" }, "p");
        assert_eq!(same(Some(&definition), Some(a), Some(b)), expect, "{kind}: {a} {b}");
        assert_eq!(same(Some(&definition), Some(b), Some(a)), expect, "{kind}: {b} {a}");
    }

    #[test]
    fn values_are_compared_as_hubspot_means_them() {
        check("number", "1.50", "+01.5", true);
        check("number", "1.5E3", "1500", true);
        check("number", "1.5e-2", "0.015", true);
        check("number", "-0.0", "0", true);
        check("number", "1", "-1", false);
        check("number", "12345678901234567891", "12345678901234567892", false);
        check("date", "2024-03-01", "1709251200000", true);
        check("date", "2024-03-01", "2024-03-01T00:00:00Z", true);
        check("date", "2024-03-01", "2024-03-02", false);
        check("datetime", "2024-03-01T10:00:00Z", "2024-03-01T11:00:00.000+01:00", true);
        check("datetime", "1709287200000", "2024-03-01T10:00:00Z", true);
        check("bool", "TRUE", "true", true);
        check("enumeration", "a;b", "b;a", true);
        check("enumeration", "a;b", "a", false);
        check("string", "Ada", "ada", false);
        check("string", "Ada ", "Ada", true);
        check("string", "", " ", true);
        check("string", "", "x", false);
    }

    #[test]
    fn addresses_and_domains_have_no_case() {
        assert!(same(Some(&property("string", "text", "email")), Some("A@X.io"), Some("a@x.io")));
        assert!(same(Some(&property("string", "text", "domain")), Some("https://www.X.io/a"), Some("x.io")));
        assert!(same(None, None, Some("")), "no value is no value");
    }

    #[test]
    fn options_that_are_added_are_added_to_those_that_are_there() {
        let several = property("enumeration", "checkbox", "p");
        assert_eq!(written(Some(&several), Some("a;b"), ";b;c").as_deref(), Some("a;b;c"));
        assert_eq!(written(Some(&several), None, ";c").as_deref(), Some("c"));
        assert_eq!(written(Some(&several), Some("a"), ""), None);
        assert_eq!(written(None, Some("a"), ";c").as_deref(), Some(";c"), "text is text");
    }
}
