//! What Salesforce says is wrong, in each of the shapes in which it says it. Pure.
//!
//! What to do follows from the code, never from the status: the daily limit is a 403, a lock is a 400, and a collection answers 200
//! although every record failed.

use serde_json::{Map, Value};

use super::model::{SalesforceId, Values};

/// One error of an answer, or of a record in a collection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fault {
    /// `errorCode` or `statusCode`; of an OAuth answer `error`. Empty if there was none.
    pub code: String,
    /// Salesforce's words. They may quote values: only [`Fault::told`] may be shown.
    message: String,
    /// Fields it names.
    pub fields: Vec<String>,
    /// Records that a duplicate rule found.
    pub matches: Vec<Match>,
    /// Whether the duplicate rule lets a caller save all the same.
    pub allow_save: bool,
}

/// A record that a duplicate rule takes for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Its object; standard rules also match leads with contacts.
    pub object: String,
    /// Its id.
    pub id: SalesforceId,
}

/// What is to be done about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The session ended.
    Session,
    /// 401, but a new session will not help.
    NotTheSession,
    /// The calls of the day are spent.
    Quota,
    /// Too many long calls at the same time.
    Throttled,
    /// Another transaction holds the record, or its account.
    Locked,
    /// Automation of the org cannot cope with so many records at once.
    TooMany,
    /// A duplicate rule.
    Duplicates,
    /// Another record has the unique value.
    Taken,
    /// Several records have the external id.
    Ambiguous,
    /// Deleted, or never there.
    Gone,
    /// It was changed since.
    LostRace,
    /// Rolled back because of another record.
    RolledBack,
    /// Not allowed to this user, or a field that cannot be written.
    Permission,
    /// A query's cursor ended.
    Locator,
    /// The server cannot at the moment.
    Unavailable,
    /// The record's values, or the request; repeating it as it is will not help.
    Data,
}

/// Fields named in an error text, and matches kept: more are of no use to anybody.
const LISTED_MAX: usize = 50;
/// Characters of a message that are shown.
const TOLD_MAX: usize = 300;

impl Fault {
    /// The errors of a body: an array, one object, OAuth's object; nothing if it is none of them (a page of HTML).
    pub fn all(body: &[u8]) -> Vec<Self> {
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Array(all)) => all.iter().filter_map(Value::as_object).take(LISTED_MAX).map(Self::of).collect(),
            Ok(Value::Object(one)) => vec![Self::of(&one)],
            _ => Vec::new(),
        }
    }

    /// One error object.
    pub fn of(error: &Map<String, Value>) -> Self {
        let text = |names: &[&str]| {
            let found = names.iter().find_map(|name| error.get(*name)?.as_str());
            found.unwrap_or_default().to_owned()
        };
        let fields = error.get("fields").and_then(Value::as_array).into_iter().flatten();
        let fields = fields.filter_map(Value::as_str).take(LISTED_MAX).map(str::to_owned).collect();
        // The first is how Salesforce spells it, the second how it should be.
        let rule = ["duplicateResut", "duplicateResult"].iter().find_map(|name| error.get(*name));
        Self {
            code: text(&["errorCode", "statusCode", "error", "exceptionCode"]),
            message: text(&["message", "error_description", "exceptionMessage"]),
            fields,
            matches: rule.map(matches).unwrap_or_default(),
            allow_save: rule.and_then(|rule| rule.get("allowSave")?.as_bool()).unwrap_or(false),
        }
    }

    /// The error of a row of a Bulk job: `CODE:message:fields --`.
    pub fn of_row(text: &str) -> Self {
        let text = text.trim_end().trim_end_matches("--").trim_end();
        let (code, rest) = text.split_once(':').unwrap_or((text, ""));
        let (message, fields) = rest.rsplit_once(':').unwrap_or((rest, ""));
        let plain = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        Self {
            code: code.to_owned(),
            message: message.to_owned(),
            fields: fields.split(',').map(str::trim).filter(plain).map(str::to_owned).collect(),
            ..Self::default()
        }
    }

    /// What is to be done about it.
    pub fn class(&self) -> Class {
        let says = |part: &str| self.message.contains(part);
        match self.code.as_str() {
            "INVALID_SESSION_ID" | "INVALID_AUTH_HEADER" => {
                // Two answers that look like an ended session and come again with each new one.
                let other = says("This session is not valid for use with the REST API")
                    || says("Connected app is not attached to Agent");
                if other { Class::NotTheSession } else { Class::Session }
            }
            "REQUEST_LIMIT_EXCEEDED" if says("Concurrent") => Class::Throttled,
            "REQUEST_LIMIT_EXCEEDED" => Class::Quota,
            "UNABLE_TO_LOCK_ROW" => Class::Locked,
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY" if says("UNABLE_TO_LOCK_ROW") => Class::Locked,
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY" | "CANNOT_EXECUTE_FLOW_TRIGGER"
                if says("Too many ") || says("CPU time limit") =>
            {
                Class::TooMany
            }
            "APEX_CPU_TIME_LIMIT" | "CANNOT_EXECUTE_FLOW_TRIGGER" => Class::TooMany,
            "DUPLICATES_DETECTED" => Class::Duplicates,
            "DUPLICATE_VALUE" => Class::Taken,
            "DUPLICATE_EXTERNAL_ID" => Class::Ambiguous,
            "ENTITY_IS_DELETED" | "NOT_FOUND" => Class::Gone,
            // Without a field it is the record itself that is not there; with one, what it refers to.
            "INVALID_CROSS_REFERENCE_KEY" if self.fields.is_empty() => Class::Gone,
            "PRECONDITION_FAILED" => Class::LostRace,
            "ALL_OR_NONE_OPERATION_ROLLED_BACK" | "PROCESSING_HALTED" => Class::RolledBack,
            "INVALID_FIELD_FOR_INSERT_UPDATE" | "API_DISABLED_FOR_ORG" | "API_CURRENTLY_DISABLED" | "FORBIDDEN" => {
                Class::Permission
            }
            code if code.starts_with("INSUFFICIENT_ACCESS") => Class::Permission,
            "INVALID_QUERY_LOCATOR" => Class::Locator,
            "SERVER_UNAVAILABLE" | "UNKNOWN_EXCEPTION" | "QUERY_TIMEOUT" => Class::Unavailable,
            _ => Class::Data,
        }
    }

    /// The id that Salesforce names in the text of `DUPLICATE_VALUE`.
    pub fn taken_by(&self) -> Option<SalesforceId> {
        let (_, rest) = self.message.split_once("record with id:")?;
        let id: String = rest.trim_start().chars().take_while(char::is_ascii_alphanumeric).collect();
        SalesforceId::parse(&id).ok()
    }

    /// Whether the text of `DUPLICATE_VALUE` speaks of this field.
    pub fn is_about(&self, field: &str) -> bool {
        self.message.contains(field) || self.fields.iter().any(|name| name.eq_ignore_ascii_case(field))
    }

    /// Code, fields and Salesforce's words, with the values that were sent masked.
    pub fn told(&self, sent: Option<&Values>) -> String {
        let mut text = if is_plain(&self.code) { self.code.clone() } else { "an error without a code".to_owned() };
        let Some(sent) = sent else {
            // Words about something whose values are not known here stay out.
            self.append_fields(&mut text);
            return text;
        };
        let mut message = self.message.clone();
        let mut values: Vec<String> =
            sent.values().flat_map(plain_texts).filter(|text| !text.trim().is_empty()).collect();
        values.sort_by_key(|text| std::cmp::Reverse(text.len()));
        for value in values {
            for form in [value.as_str(), value.trim()] {
                message = message.replace(form, "…");
            }
            // Salesforce may quote it in its own form.
            let lower = value.trim().to_lowercase();
            if message.to_lowercase().contains(&lower) {
                message = "(the text quotes a value)".to_owned();
            }
        }
        if !message.is_empty() {
            text.push_str(": ");
            text.extend(message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD_MAX));
        }
        self.append_fields(&mut text);
        text
    }

    fn append_fields(&self, text: &mut String) {
        let names: Vec<&str> = self.fields.iter().map(String::as_str).filter(|name| is_plain(name)).collect();
        if !names.is_empty() {
            text.push_str(&format!(" [{}]", names.join(", ")));
        }
    }
}

fn is_plain(code: &str) -> bool {
    !code.is_empty() && code.len() <= 100 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
}

/// The texts in a value, as Salesforce might quote them.
fn plain_texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Number(number) => vec![number.to_string()],
        Value::Object(inner) => inner.values().flat_map(plain_texts).collect(),
        _ => Vec::new(),
    }
}

fn matches(rule: &Value) -> Vec<Match> {
    let results = rule.get("matchResults").and_then(Value::as_array).into_iter().flatten();
    let records = results.flat_map(|result| {
        let object = result.get("entityType").and_then(Value::as_str).unwrap_or_default();
        let records = result.get("matchRecords").and_then(Value::as_array).into_iter().flatten();
        records.filter_map(move |record| {
            let record = record.get("record")?;
            let id = SalesforceId::parse(record.get("Id")?.as_str()?).ok()?;
            let named = record.get("attributes").and_then(|attributes| attributes.get("type")?.as_str());
            Some(Match { object: named.unwrap_or(object).to_owned(), id })
        })
    });
    records.take(LISTED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(body: &Value) -> Fault {
        Fault::all(body.to_string().as_bytes()).pop().unwrap()
    }

    #[test]
    fn both_spellings_of_the_duplicate_result_are_read() {
        for key in ["duplicateResut", "duplicateResult"] {
            let fault = one(&json!([{ key: {"allowSave": true, "duplicateRule": "Contacts_DR", "matchResults": [
                {"entityType": "Lead", "matchRecords": [{"record": {"attributes": {"type": "Lead"}, "Id": "00Qak00000696HF"}}]},
                {"entityType": "Contact", "matchRecords": [{"record": {"Id": "0031i000013x2TEAAY"}}, {"record": {}}]}]},
                "errorCode": "DUPLICATES_DETECTED", "message": "You're creating a duplicate record."}]));
            assert_eq!(fault.class(), Class::Duplicates);
            assert!(fault.allow_save);
            let found: Vec<_> = fault.matches.iter().map(|one| (one.object.as_str(), one.id.as_str())).collect();
            assert_eq!(found, [("Lead", "00Qak00000696HFEAY"), ("Contact", "0031i000013x2TEAAY")], "{key}");
        }
    }

    #[test]
    fn each_code_has_its_class_whatever_the_status() {
        let table = [
            ("INVALID_SESSION_ID", "Session expired or invalid", Class::Session),
            ("INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE", Class::Session),
            ("INVALID_SESSION_ID", "This session is not valid for use with the REST API", Class::NotTheSession),
            ("INVALID_SESSION_ID", "Connected app is not attached to Agent", Class::NotTheSession),
            ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", Class::Quota),
            ("REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.", Class::Throttled),
            ("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record", Class::Locked),
            ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "X: execution of Y caused by: UNABLE_TO_LOCK_ROW", Class::Locked),
            ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "Too many SOQL queries: 101", Class::TooMany),
            ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "a trigger said no", Class::Data),
            ("CANNOT_EXECUTE_FLOW_TRIGGER", "x", Class::TooMany),
            ("DUPLICATE_VALUE", "x", Class::Taken),
            ("DUPLICATE_EXTERNAL_ID", "x", Class::Ambiguous),
            ("ENTITY_IS_DELETED", "entity is deleted", Class::Gone),
            ("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", Class::Gone),
            ("ALL_OR_NONE_OPERATION_ROLLED_BACK", "x", Class::RolledBack),
            ("INSUFFICIENT_ACCESS_OR_READONLY", "x", Class::Permission),
            ("INVALID_QUERY_LOCATOR", "x", Class::Locator),
            ("UNKNOWN_EXCEPTION", "x", Class::Unavailable),
            ("REQUIRED_FIELD_MISSING", "x", Class::Data),
            ("SOMETHING_NEW", "x", Class::Data),
            ("", "", Class::Data),
        ];
        for (code, message, class) in table {
            let fault = one(&json!([{"errorCode": code, "message": message}]));
            assert_eq!(fault.class(), class, "{code} {message}");
            let fault = one(&json!([{"statusCode": code, "message": message}]));
            assert_eq!(fault.class(), class, "of a record: {code} {message}");
        }
        let parent = one(&json!([{"errorCode": "INVALID_CROSS_REFERENCE_KEY", "fields": ["AccountId"]}]));
        assert_eq!(parent.class(), Class::Data, "what it refers to is gone, not the record");
    }

    #[test]
    fn the_record_that_has_the_value_is_found_in_the_text() {
        let fault = one(&json!([{"errorCode": "DUPLICATE_VALUE",
            "message": "duplicate value found: Ext__c duplicates value on record with id: 003ak000003dQCG"}]));
        assert_eq!(fault.taken_by().unwrap().as_str(), "003ak000003dQCGAA2");
        assert!(fault.is_about("Ext__c") && !fault.is_about("Other__c"));
        let hidden = one(&json!([{"errorCode": "DUPLICATE_VALUE", "message": "… with id: <unknown>"}]));
        assert_eq!(hidden.taken_by(), None);
    }

    #[test]
    fn no_value_gets_into_a_text() {
        let fault = one(&json!([{"errorCode": "STRING_TOO_LONG", "fields": ["FirstName"],
            "message": "First Name: data value too large: Maximiliana (max length=5)"}]));
        let sent = json!({"FirstName": " Maximiliana "});
        let told = fault.told(sent.as_object());
        assert!(
            !told.contains("Maximiliana") && told.contains("STRING_TOO_LONG") && told.contains("[FirstName]"),
            "{told}"
        );
        assert!(!fault.told(None).contains("Maximiliana"));
        let other_case = json!({"FirstName": "MAXIMILIANA"});
        assert!(!fault.told(other_case.as_object()).contains("aximil"));
    }

    #[test]
    fn a_row_of_a_bulk_job_says_the_same() {
        let fault = Fault::of_row("REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName --");
        assert_eq!(
            (fault.code.as_str(), fault.fields.as_slice()),
            ("REQUIRED_FIELD_MISSING", &["LastName".to_owned()][..])
        );
        assert_eq!(Fault::of_row("DUPLICATES_DETECTED:Use one of these records?:--").class(), Class::Duplicates);
        assert_eq!(Fault::of_row("").class(), Class::Data);
    }

    #[test]
    fn a_body_of_any_shape_is_read_without_a_panic() {
        for body in ["", "<html>", "[1, null, {}]", "{\"error\":\"invalid_grant\"}", "\"x\"", "[{\"fields\":\"x\"}]"] {
            let _ = Fault::all(body.as_bytes());
        }
        assert_eq!(Fault::all(b"{\"error\":\"invalid_grant\"}")[0].code, "invalid_grant");
    }
}
