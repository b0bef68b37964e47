//! What HubSpot says when it refuses: envelopes whose members may all be missing, JSON inside message texts, and HTML from gateways.
//!
//! Everything is read member by member from free JSON, so that no unexpected type in one place hides the rest.

use serde_json::Value;

/// Text of HubSpot's that is kept: lists of allowed options can be many kilobytes.
pub const TEXT_MAX: usize = 300;

/// Values shorter than this are masked only where they stand as a word of their own: `a` is in every sentence.
const SHORT_VALUE: usize = 4;

/// Where a value stood.
const MASK: &str = "‹value›";

/// One thing that is wrong with a property's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `INVALID_EMAIL`, `PROPERTY_DOESNT_EXIST`, …
    pub code: String,
    /// HubSpot's words, which may quote the value.
    pub message: String,
    /// The property, where it is named.
    pub property: Option<String>,
}

/// A refusal: of a whole request, or one of the `errors` of a batch's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// HubSpot's words, which may quote values. Empty if there are none.
    pub message: String,
    /// `VALIDATION_ERROR`, `CONFLICT`, `MISSING_SCOPES`, … Empty if there is none.
    pub category: String,
    /// Finer than the category, where it is text.
    pub sub_category: String,
    /// Correlation id, for HubSpot's support.
    pub correlation_id: String,
    /// From the JSON inside the message, or from `errors`.
    pub faults: Vec<Fault>,
    /// Trace ids of the inputs it speaks of.
    pub trace_ids: Vec<String>,
    /// Ids or key values of the inputs it speaks of.
    pub ids: Vec<String>,
    /// Scopes that are missing.
    pub scopes: Vec<String>,
}

impl Refusal {
    /// Reads the body of an answer. A body that is not JSON gives an empty refusal.
    pub fn of_body(body: &[u8]) -> Self {
        serde_json::from_slice::<Value>(body).map_or_else(|_| Self::default(), |json| Self::of(&json))
    }

    /// Reads an envelope.
    pub fn of(json: &Value) -> Self {
        let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut refusal = Self {
            message: text("message"),
            category: text("category"),
            sub_category: text("subCategory"),
            correlation_id: text("correlationId"),
            ..Self::default()
        };
        let context = json.get("context");
        push_texts(context.and_then(|context| context.get("objectWriteTraceId")), &mut refusal.trace_ids);
        push_texts(context.and_then(|context| context.get("ids")), &mut refusal.ids);
        push_texts(context.and_then(|context| context.get("id")), &mut refusal.ids);
        push_texts(json.get("objectWriteTraceId"), &mut refusal.trace_ids);
        push_texts(context.and_then(|context| context.get("requiredGranularScopes")), &mut refusal.scopes);
        refusal.faults = faults_in(&refusal.message);
        for error in json.get("errors").and_then(Value::as_array).into_iter().flatten() {
            let context = error.get("context");
            push_texts(context.and_then(|context| context.get("requiredGranularScopes")), &mut refusal.scopes);
            push_texts(context.and_then(|context| context.get("objectWriteTraceId")), &mut refusal.trace_ids);
            let Some(code) = error.get("code").and_then(Value::as_str).filter(|code| !code.is_empty()) else {
                continue;
            };
            let mut properties = Vec::new();
            push_texts(context.and_then(|context| context.get("propertyName")), &mut properties);
            let property = properties.into_iter().next();
            if !refusal
                .faults
                .iter()
                .any(|fault| fault.code == code && (property.is_none() || fault.property == property))
            {
                let message = error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
                refusal.faults.push(Fault { code: code.to_owned(), message, property });
            }
        }
        refusal
    }

    /// The most telling code: of the first fault, else the category.
    pub fn code(&self) -> &str {
        match self.faults.first() {
            Some(fault) => &fault.code,
            None if self.message.contains("GDPR blacklisted") => "GDPR_BLACKLISTED_EMAIL",
            None if self.category.is_empty() => "VALIDATION_ERROR",
            None => &self.category,
        }
    }

    /// HubSpot's words with `values` masked, cut to [`TEXT_MAX`].
    pub fn text<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> String {
        let mut text = String::new();
        for fault in &self.faults {
            if !text.is_empty() {
                text.push_str("; ");
            }
            match &fault.property {
                Some(property) => text.push_str(&format!("{property}: {}", fault.message)),
                None => text.push_str(&fault.message),
            }
        }
        if self.faults.is_empty() {
            text.push_str(&self.message);
        }
        clean(&mask(&text, values))
    }
}

/// Texts or numbers, alone or in a list.
fn push_texts(value: Option<&Value>, list: &mut Vec<String>) {
    match value {
        Some(Value::Array(items)) => items.iter().for_each(|item| push_texts(Some(item), list)),
        Some(Value::String(text)) if !text.is_empty() => list.push(text.clone()),
        Some(Value::Number(number)) => list.push(number.to_string()),
        _ => {}
    }
}

/// The list of faults that HubSpot writes as JSON into the message, after some words.
fn faults_in(message: &str) -> Vec<Fault> {
    let Some(json) = message.find('[').and_then(|start| message.get(start..)) else { return Vec::new() };
    // What follows the list is ignored.
    let Some(Ok(Value::Array(items))) = serde_json::Deserializer::from_str(json).into_iter::<Value>().next() else {
        return Vec::new();
    };
    let text = |item: &Value, name: &str| {
        item.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let fault = |item: &Value| {
        let message = text(item, "message").or_else(|| text(item, "localizedErrorMessage")).unwrap_or_default();
        Some(Fault { code: text(item, "error")?, message, property: text(item, "name") })
    };
    items.iter().filter_map(fault).collect()
}

/// Replaces `values` in `text`, whatever their case; of several that overlap the longest.
fn mask<'a>(text: &str, values: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = Vec::new();
    for value in values {
        // HubSpot quotes single options of several, and JSON where it cannot be read keeps its escapes.
        let escaped = serde_json::to_string(value).unwrap_or_default();
        let escaped = escaped.get(1..escaped.len().saturating_sub(1)).unwrap_or_default();
        for word in [value, escaped].into_iter().chain(value.split(';')) {
            let word = word.trim().to_lowercase();
            if !word.is_empty() && !words.contains(&word) {
                words.push(word);
            }
        }
    }
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before: Option<char> = None;
    while let Some(first) = rest.chars().next() {
        let hit = words.iter().find_map(|word| {
            let length = prefix_length(rest, word)?;
            let after = rest.get(length..)?.chars().next();
            let stands_alone = !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric);
            (word.chars().count() >= SHORT_VALUE || stands_alone).then_some(length)
        });
        let step = match hit {
            Some(length) => {
                out.push_str(MASK);
                length
            }
            None => {
                out.push(first);
                first.len_utf8()
            }
        };
        before = rest.get(..step).and_then(|taken| taken.chars().next_back());
        rest = rest.get(step..).unwrap_or_default();
    }
    out
}

/// How many bytes of `text` are `word` (lower case), whatever the case of `text`.
fn prefix_length(text: &str, word: &str) -> Option<usize> {
    let mut expected = word.chars().peekable();
    let mut length = 0;
    for found in text.chars() {
        if expected.peek().is_none() {
            return Some(length);
        }
        for lower in found.to_lowercase() {
            if expected.next() != Some(lower) {
                return None;
            }
        }
        length += found.len_utf8();
    }
    expected.peek().is_none().then_some(length)
}

/// One line of at most [`TEXT_MAX`] characters, without control characters.
fn clean(text: &str) -> String {
    let mut out = String::new();
    for (count, word) in
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).enumerate()
    {
        if count > 0 {
            out.push(' ');
        }
        out.push_str(word);
        if out.len() > TEXT_MAX * 4 {
            break;
        }
    }
    if out.chars().count() <= TEXT_MAX {
        return out;
    }
    out.chars().take(TEXT_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_come_from_the_json_inside_the_message_or_from_errors() {
        let inside = r#"Property values were not valid: [{"isValid":false,"message":"Email address x@ is invalid","error":"INVALID_EMAIL","name":"email","portalId":1}]"#;
        let both = Refusal::of(&json!({"category": "VALIDATION_ERROR", "message": inside,
            "errors": [{"message": "again", "code": "INVALID_EMAIL", "context": {"propertyName": ["email"]}},
                       {"message": "no such", "code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": ["z"]}}]}));
        let codes: Vec<_> = both.faults.iter().map(|fault| (fault.code.as_str(), fault.property.as_deref())).collect();
        assert_eq!(codes, [("INVALID_EMAIL", Some("email")), ("PROPERTY_DOESNT_EXIST", Some("z"))]);
        let damaged = Refusal::of(
            &json!({"message": "Property values were not valid: [{\"isVal", "category": "VALIDATION_ERROR"}),
        );
        assert_eq!((damaged.faults.len(), damaged.code()), (0, "VALIDATION_ERROR"));
    }

    #[test]
    fn odd_types_and_html_hide_nothing_else() {
        let odd = Refusal::of(&json!({"message": 5, "category": "CONFLICT", "subCategory": {"a": 1}, "errors": "none",
            "context": {"objectWriteTraceId": "t-1", "ids": [12, "13", null]}}));
        assert_eq!(
            (odd.code(), odd.trace_ids.clone(), odd.ids.clone()),
            ("CONFLICT", vec!["t-1".to_owned()], vec!["12".to_owned(), "13".to_owned()])
        );
        assert_eq!(Refusal::of_body(b"<html>"), Refusal::default());
    }

    #[test]
    fn both_shapes_name_the_missing_scopes() {
        let new = json!({"category": "MISSING_SCOPES", "errors": [{"context": {"requiredGranularScopes": ["a.read", "b.write"]}}]});
        let old = json!({"category": "MISSING_SCOPES", "context": {"requiredGranularScopes": ["a.read", "b.write"], "links": ["x"]}});
        for shape in [new, old] {
            assert_eq!(Refusal::of(&shape).scopes, ["a.read", "b.write"]);
        }
    }

    #[test]
    fn values_are_masked_whatever_their_case_and_short_ones_only_as_words() {
        let text = |message: &str, values: &[&str]| {
            Refusal { message: message.to_owned(), ..Refusal::default() }.text(values.iter().copied())
        };
        assert_eq!(
            text("Email address ann@example.com is invalid", &["Ann@Example.com"]),
            "Email address ‹value› is invalid"
        );
        assert_eq!(text("5 was not a valid date of 1995", &["5", "a"]), "‹value› was not ‹value› valid date of 1995");
        assert_eq!(
            text("RED was not one of the allowed options", &["blue;red"]),
            "‹value› was not one of the allowed options"
        );
        assert_eq!(text("İzmir Ünal!", &["ünal", "İzmir"]), "‹value› ‹value›!");
        assert_eq!(text("got [{\"v\":\"say \\\"hi\\\" now", &["say \"hi\" now"]), "got [{\"v\":\"‹value›");
        assert_eq!(text("ann@example.community", &["ann@example.com", "ann@example.community"]), "‹value›");
    }

    #[test]
    fn long_lists_of_options_are_cut() {
        let message = format!("x was not one of the allowed options: [{}]", "label: \"A\"\nvalue: \"B\"\n".repeat(500));
        let text = Refusal { message, ..Refusal::default() }.text([]);
        assert!(text.chars().count() == TEXT_MAX && text.ends_with('…') && !text.contains('\n'), "{text}");
    }
}
