//! One pair of fields: what each side shows, in the form in which it is compared, and what is written on the other.

use serde_json::{Number, Value};

use super::choices::{Choices, Unmatched};
use crate::{
    codes,
    config::{OnConflict, SyncRule},
    record::PropertyName,
    salesforce::{model::SalesforceId, soql::Literal},
    sync::{
        model::Canon,
        values::{self, Epoch, FieldFault, Seen},
    },
};

/// Characters that HubSpot takes in one value.
const HUBSPOT_CHARS_MAX: usize = 65_536;

/// A HubSpot property and a Salesforce field that are kept in step.
///
/// The canonical values of both sides are in one form: the two hold the same exactly if they are equal. What is written is read back as the
/// canonical value that was promised, unless something on that side rewrites it.
#[derive(Debug, Clone)]
pub struct Pair {
    /// `hubspot|Salesforce`: names the pair in links and reviews.
    pub key: String,
    /// The property.
    pub hubspot: PropertyName,
    /// The field, as the org spells it; it may be a parent's (`Account.Name`), which is only read.
    pub salesforce: String,
    /// Who wins.
    pub rule: SyncRule,
    /// What to do with a true conflict.
    pub on_conflict: OnConflict,
    /// Salesforce is written only if the record has not been changed since it was read.
    pub strict: bool,
    /// HubSpot's contacts are told apart by it: the property is their `email`.
    pub is_email: bool,
    /// HubSpot takes values for it.
    pub writable_in_hubspot: bool,
    /// Salesforce takes values for it when a record is updated.
    pub writable_in_salesforce: bool,
    /// Salesforce takes values for it when a record is created.
    pub createable_in_salesforce: bool,
    /// Salesforce wants a value when a record is created, and has none of its own.
    pub required_in_salesforce: bool,
    pub(super) kind: Kind,
    pub(super) in_hubspot: HubspotForm,
    pub(super) in_salesforce: SalesforceForm,
    /// Salesforce takes null.
    pub(super) nillable: bool,
    pub(super) truncate: bool,
    /// What stands in Salesforce for a blank: as it is written, and in the form in which it is compared.
    pub(super) placeholder: Option<(Value, String)>,
}

/// What the two fields' values mean: how they are compared.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text,
    Email,
    Phone,
    /// A company's domain, of which Salesforce has the whole address.
    Domain,
    /// A Salesforce record's id.
    Id,
    /// Blank is false.
    Boolean,
    Number,
    /// A day, in UTC where a side has moments.
    Day,
    Moment,
    Choice(Box<Choices>),
}

impl Kind {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Domain => "domain",
            Self::Id => "id",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::Day => "day",
            Self::Moment => "moment",
            Self::Choice(_) => "choice",
        }
    }
}

/// What HubSpot keeps it as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HubspotForm {
    Text,
    Number,
    Boolean,
    Day,
    Moment,
    Options { several: bool },
}

/// What Salesforce keeps it as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SalesforceForm {
    /// So many characters; 0: not known.
    Text {
        length: usize,
    },
    Boolean,
    /// Digits behind the point, and before it where that is known.
    Number {
        scale: usize,
        whole: Option<usize>,
    },
    Day,
    Moment,
    Reference,
    Picklist {
        several: bool,
    },
    /// A parent's field: its type is not known, and it is only read.
    Parent,
}

fn fault(reason: String, hint: impl Into<String>) -> FieldFault {
    FieldFault { code: codes::SYNC_VALUE, reason, hint: hint.into() }
}

impl Pair {
    /// HubSpot's value; `None` and `""` are blank.
    pub fn of_hubspot(&self, value: Option<&str>) -> Seen {
        let raw = value.unwrap_or_default();
        let is_moments = matches!(self.in_hubspot, HubspotForm::Day | HubspotForm::Moment);
        let epoch = if is_moments { Epoch::Milliseconds } else { Epoch::Unknown };
        let canon = match &self.kind {
            Kind::Choice(choices) => choices.of_hubspot(raw).or_else(|| self.blank()),
            _ => self.canon(raw, epoch),
        };
        self.seen(canon, raw)
    }

    /// Salesforce's value; null is blank, and so is the placeholder.
    pub fn of_salesforce(&self, value: &Value) -> Seen {
        let raw = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let is_moments =
            matches!(self.in_salesforce, SalesforceForm::Day | SalesforceForm::Moment) || value.is_number();
        let epoch = if is_moments { Epoch::Milliseconds } else { Epoch::Unknown };
        let canon = match &self.kind {
            Kind::Choice(choices) => {
                let id = matches!(self.in_salesforce, SalesforceForm::Reference)
                    .then(|| SalesforceId::parse(values::trim(&raw)).ok())
                    .flatten();
                choices.of_salesforce(id.as_ref().map_or(&raw, SalesforceId::as_str)).or_else(|| self.blank())
            }
            _ => self.canon(&raw, epoch),
        };
        self.seen(canon, &raw)
    }

    /// What a person typed as the resolution of a review: as if HubSpot showed it, or, of options, as either side calls them; `""` is blank.
    pub fn typed(&self, text: &str) -> Seen {
        match &self.kind {
            Kind::Choice(choices) => self.seen(choices.typed(text).or_else(|| self.blank()), text),
            // A person types no milliseconds.
            _ => self.seen(self.canon(text, Epoch::Unknown), text),
        }
    }

    fn seen(&self, canon: Canon, raw: &str) -> Seen {
        let is_placeholder = self.placeholder.as_ref().is_some_and(|(_, same)| canon.as_ref() == Some(same));
        if canon.is_none() || is_placeholder {
            return Seen::default();
        }
        Seen { canon, raw: raw.to_owned() }
    }

    /// A blank as it is compared: a checkbox of Salesforce's is never null.
    fn blank(&self) -> Canon {
        match &self.kind {
            Kind::Boolean => Some("false".to_owned()),
            Kind::Choice(choices) if self.in_salesforce == SalesforceForm::Boolean => choices.of_salesforce("false"),
            _ => None,
        }
    }

    /// What cannot be read as the pair's kind stays a text: it differs from everything that can.
    fn canon(&self, raw: &str, epoch: Epoch) -> Canon {
        let text = || values::text(raw);
        match &self.kind {
            Kind::Text | Kind::Choice(_) => {
                let text = text()?;
                match self.cut_at() {
                    Some(length) => Some(values::cut(&text, length).to_owned()).filter(|cut| !cut.is_empty()),
                    None => Some(text),
                }
            }
            Kind::Email => values::email(raw),
            Kind::Phone => values::phone(raw),
            Kind::Domain => values::domain(raw),
            Kind::Id => SalesforceId::parse(values::trim(raw)).ok().map(|id| id.as_str().to_owned()).or_else(text),
            Kind::Boolean => match values::trim(raw).to_ascii_lowercase().as_str() {
                "" | "false" | "no" | "0" => Some("false".to_owned()),
                "true" | "yes" | "1" => Some("true".to_owned()),
                _ => text(),
            },
            Kind::Number => values::number(raw, self.scale()).map(|number| number.to_string()).or_else(text),
            Kind::Day => values::day(raw, epoch).or_else(text),
            Kind::Moment => values::moment(raw, epoch).or_else(text),
        }
    }

    fn scale(&self) -> Option<usize> {
        match self.in_salesforce {
            SalesforceForm::Number { scale, .. } => Some(scale),
            _ => None,
        }
    }

    /// Characters of which only the first count; the same on both sides, so that a cut text and the whole one are the same.
    pub(super) fn cut_at(&self) -> Option<usize> {
        match self.in_salesforce {
            SalesforceForm::Text { length } if self.truncate && length > 0 && matches!(self.kind, Kind::Text) => {
                Some(length)
            }
            _ => None,
        }
    }

    /// What HubSpot is sent for a value that was seen in Salesforce, or typed; `""` clears. And as what it will be read back.
    pub fn to_hubspot(&self, seen: &Seen) -> Result<(String, Canon), FieldFault> {
        let Some(canon) = seen.canon.clone().or_else(|| self.blank()) else { return Ok((String::new(), None)) };
        let raw = values::trim(&seen.raw);
        let value = match &self.kind {
            Kind::Text | Kind::Phone if !raw.is_empty() => raw.to_owned(),
            Kind::Text | Kind::Phone | Kind::Domain | Kind::Email => canon.clone(),
            Kind::Id => canon.clone(),
            Kind::Boolean => self.readable(&canon, is_boolean(&canon), "yes or no")?,
            Kind::Number => self.readable(&canon, values::number(&canon, None).is_some(), "number")?,
            Kind::Day => {
                let day = self.readable(&canon, values::day(&canon, Epoch::Unknown).is_some(), "date")?;
                if self.in_hubspot == HubspotForm::Moment { format!("{day}T00:00:00Z") } else { day }
            }
            Kind::Moment => self.readable(&canon, values::moment(&canon, Epoch::Unknown).is_some(), "date and time")?,
            Kind::Choice(choices) => choices.to_hubspot(&canon, &seen.raw).map_err(|why| self.unmatched(why, true))?,
        };
        if value.len() > HUBSPOT_CHARS_MAX && value.chars().count() > HUBSPOT_CHARS_MAX {
            let reason =
                format!("`{}` is longer than the {HUBSPOT_CHARS_MAX} characters that HubSpot takes", self.salesforce);
            return Err(fault(reason, "Shorten the text in Salesforce."));
        }
        Ok((value, Some(canon)))
    }

    /// What Salesforce is sent for a value that was seen in HubSpot, or typed; null clears. And as what it will be read back.
    pub fn to_salesforce(&self, seen: &Seen) -> Result<(Value, Canon), FieldFault> {
        let Some(canon) = seen.canon.clone().or_else(|| self.blank()) else { return self.no_value() };
        self.value_for_salesforce(&canon, &seen.raw).map(|value| (value, Some(canon)))
    }

    fn no_value(&self) -> Result<(Value, Canon), FieldFault> {
        match &self.placeholder {
            Some((value, _)) => Ok((value.clone(), None)),
            None if self.nillable => Ok((Value::Null, None)),
            None => Err(FieldFault {
                code: codes::REQUIRED_FIELD_MISSING,
                reason: format!("`{}` is blank, and Salesforce wants a value for `{}`", self.hubspot, self.salesforce),
                hint: codes::REQUIRED_FIELD_MISSING.hint().to_owned(),
            }),
        }
    }

    pub(super) fn value_for_salesforce(&self, canon: &str, raw: &str) -> Result<Value, FieldFault> {
        let raw = values::trim(raw);
        let text = match &self.kind {
            Kind::Text | Kind::Phone | Kind::Domain => return self.fitting(raw, canon),
            Kind::Email => {
                if !values::is_email(canon) {
                    let reason = format!("`{}` holds no e-mail address that Salesforce takes", self.hubspot);
                    return Err(fault(reason, "Correct the address."));
                }
                canon.to_owned()
            }
            Kind::Id => {
                if SalesforceId::parse(canon).is_err() {
                    let reason = format!("`{}` holds no id of a Salesforce record", self.hubspot);
                    return Err(fault(
                        reason,
                        "Put the record's id there, of 15 or 18 characters, or clear the property.",
                    ));
                }
                canon.to_owned()
            }
            Kind::Boolean => {
                let text = self.readable(canon, is_boolean(canon), "yes or no")?;
                if self.in_salesforce == SalesforceForm::Boolean {
                    return Ok(Value::Bool(text == "true"));
                }
                text
            }
            Kind::Number => return self.number_for_salesforce(canon),
            Kind::Day => {
                let day = self.readable(canon, values::day(canon, Epoch::Unknown).is_some(), "date")?;
                if self.in_salesforce == SalesforceForm::Moment { format!("{day}T00:00:00.000Z") } else { day }
            }
            Kind::Moment => {
                let moment = self.readable(canon, values::moment(canon, Epoch::Unknown).is_some(), "date and time")?;
                match self.in_salesforce {
                    SalesforceForm::Moment => format!("{}.000Z", moment.trim_end_matches('Z')),
                    _ => moment,
                }
            }
            Kind::Choice(choices) => {
                let text = choices.to_salesforce(canon, raw).map_err(|why| self.unmatched(why, false))?;
                if self.in_salesforce == SalesforceForm::Boolean {
                    return Ok(Value::Bool(text == "true"));
                }
                text
            }
        };
        self.fitting(&text, &text)
    }

    fn number_for_salesforce(&self, canon: &str) -> Result<Value, FieldFault> {
        let number = values::number(canon, self.scale());
        self.readable(canon, number.is_some(), "number")?;
        let number = number.as_ref();
        let SalesforceForm::Number { whole, .. } = self.in_salesforce else { return self.fitting(canon, canon) };
        if let (Some(number), Some(whole)) = (number, whole)
            && number.whole_digits() > whole
        {
            let reason = format!(
                "`{}` holds more than the {whole} digits before the point that Salesforce's `{}` takes",
                self.hubspot, self.salesforce
            );
            return Err(fault(reason, "Correct the number, or give the Salesforce field more digits."));
        }
        let json: Option<Number> = number.and_then(values::Decimal::json);
        json.map(Value::Number).ok_or_else(|| self.unreadable("number"))
    }

    /// What to look for in Salesforce to find the records whose value is `canon`: Salesforce compares texts without regard to case, and
    /// nothing else. Several for a domain, of which Salesforce has an address; what is found must be compared in its canonical form.
    pub fn searched_in_salesforce(&self, canon: &str) -> Vec<Literal> {
        let text = |text: &str| Literal::from(text);
        match &self.kind {
            Kind::Domain => {
                let hosts = [canon.to_owned(), format!("www.{canon}")];
                let starts = ["", "http://", "https://"];
                let all = hosts.iter().flat_map(|host| starts.map(|start| format!("{start}{host}")));
                all.flat_map(|address| [text(&address), text(&format!("{address}/"))]).collect()
            }
            Kind::Number => canon.parse().map(Literal::Integer).into_iter().collect(),
            Kind::Id => SalesforceId::parse(canon).map(Literal::Id).into_iter().collect(),
            _ => vec![text(canon)],
        }
    }

    /// Whether records can be found by a value of the pair on both sides: what is stored must be spelled as it is compared, but for case.
    pub(super) fn is_searchable(&self) -> bool {
        match self.kind {
            Kind::Text | Kind::Email | Kind::Domain => matches!(self.in_salesforce, SalesforceForm::Text { .. }),
            Kind::Id => true,
            Kind::Number => {
                self.in_hubspot == HubspotForm::Number
                    && matches!(self.in_salesforce, SalesforceForm::Number { scale: 0, .. })
            }
            Kind::Phone | Kind::Boolean | Kind::Day | Kind::Moment | Kind::Choice(_) => false,
        }
    }

    fn readable(&self, canon: &str, is_readable: bool, what: &str) -> Result<String, FieldFault> {
        if is_readable { Ok(canon.to_owned()) } else { Err(self.unreadable(what)) }
    }

    fn unreadable(&self, what: &str) -> FieldFault {
        let reason = format!("the value cannot be read as a {what}, which `{}` needs", self.key);
        let hint = match what {
            "number" => "Write a plain number: digits, with a point before decimals.",
            "date" => "Write the date as YYYY-MM-DD, between 1700 and 4000.",
            "date and time" => "Write it as 2024-01-05T13:45:00Z, between 1700 and 4000.",
            _ => "Write true or false.",
        };
        fault(reason, hint)
    }

    /// A text as it was given where that fits, else in its shorter canonical form.
    fn fitting(&self, raw: &str, canon: &str) -> Result<Value, FieldFault> {
        let SalesforceForm::Text { length } = self.in_salesforce else { return Ok(Value::from(canon)) };
        if let Some(length) = self.cut_at() {
            let whole = if raw.is_empty() { canon } else { raw };
            let fits = whole.encode_utf16().count() <= length;
            return Ok(Value::from(if fits { whole } else { canon }));
        }
        let fits = |text: &str| length == 0 || text.len() <= length || text.chars().count() <= length;
        match [raw, canon].into_iter().find(|text| !text.is_empty() && fits(text)) {
            Some(text) => Ok(Value::from(text)),
            None => {
                let count = canon.chars().count();
                let reason = format!(
                    "`{}` has {count} characters, and Salesforce's `{}` takes {length}",
                    self.hubspot, self.salesforce
                );
                let hint = match self.kind {
                    Kind::Text => "Shorten the text, or set `truncate: true` for the pair in hubferry.yaml.",
                    _ => "Shorten the value, or give the Salesforce field more characters.",
                };
                Err(fault(reason, hint))
            }
        }
    }

    fn unmatched(&self, why: Unmatched, into_hubspot: bool) -> FieldFault {
        let (from, to) = match into_hubspot {
            true => (format!("Salesforce's `{}`", self.salesforce), format!("HubSpot's `{}`", self.hubspot)),
            false => (format!("HubSpot's `{}`", self.hubspot), format!("Salesforce's `{}`", self.salesforce)),
        };
        match why {
            Unmatched::Unknown(nearest) => {
                let near = nearest.map(|near| format!("Is it `{near}`? ")).unwrap_or_default();
                fault(
                    format!("{from} has a value that {to} does not have"),
                    format!(
                        "{near}Add the value there, or name its counterpart under the pair's `values` in hubferry.yaml."
                    ),
                )
            }
            Unmatched::Inactive => fault(
                format!("{from} has a value that is not active in {to}"),
                "Activate the value in Salesforce, or choose another one.",
            ),
            Unmatched::Several(several) => fault(
                format!("{from} has a value that stands for several of {to}"),
                format!(
                    "Under `values` in hubferry.yaml, {} have the same counterpart: give each its own.",
                    several.join(", ")
                ),
            ),
            Unmatched::OneOnly => fault(
                format!("{from} has several values, and {to} takes one"),
                "Leave one value, or map a field that takes several.",
            ),
        }
    }
}

fn is_boolean(canon: &str) -> bool {
    matches!(canon, "true" | "false")
}
