//! The fields that are kept in step, and how the oracle compares them: in its own words, not in the engine's.

use hubferry::sync::model::Side;
use jiff::Timestamp;

/// How values are compared, in the oracle's own words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Text,
    Email,
    Phone,
    Number,
    Date,
    Several,
    Source,
    Flag,
    Moment,
}

/// What the rule promises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// The side that changed; a conflict waits for a person.
    Ask,
    /// The side that changed; a conflict is decided.
    Decided,
    /// Salesforce's value unless it is blank.
    PreferSalesforce,
    /// HubSpot's value unless it is blank.
    PreferHubspot,
    Salesforce,
    Hubspot,
}

pub(super) struct Field {
    pub(super) h: &'static str,
    pub(super) s: &'static str,
    pub(super) kind: Kind,
    pub(super) rule: Rule,
    /// No value is written twice by people, and no automation writes it: what happens to it is known exactly.
    pub(super) exact: bool,
}

pub(super) const fn field(h: &'static str, s: &'static str, kind: Kind, rule: Rule, exact: bool) -> Field {
    Field { h, s, kind, rule, exact }
}

pub(super) const FIELDS: [Field; 13] = [
    field("email", "Email", Kind::Email, Rule::Ask, true),
    field("firstname", "FirstName", Kind::Text, Rule::PreferSalesforce, true),
    field("lastname", "LastName", Kind::Text, Rule::Ask, true),
    field("jobtitle", "Title", Kind::Text, Rule::Salesforce, true),
    field("phone", "Phone", Kind::Phone, Rule::Ask, true),
    field("score", "Score__c", Kind::Number, Rule::PreferHubspot, true),
    field("member_since", "Member_Since__c", Kind::Date, Rule::Hubspot, true),
    field("interests", "Interests__c", Kind::Several, Rule::Ask, false),
    field("source", "LeadSource", Kind::Source, Rule::Decided, false),
    field("optout", "HasOptedOutOfEmail", Kind::Flag, Rule::Decided, false),
    field("last_seen", "Last_Seen__c", Kind::Moment, Rule::Decided, true),
    field("bio", "Description", Kind::Text, Rule::Ask, true),
    field("nickname", "Nickname__c", Kind::Text, Rule::Ask, false),
];

/// Fields that people edit: all but the last.
pub(super) const EDITED: usize = FIELDS.len() - 1;

pub(super) const SOURCES: [(&str, &str); 4] =
    [("web", "Web"), ("phone", "Phone Inquiry"), ("partner", "Partner Referral"), ("other", "Other")];

impl Field {
    /// What two values must share to be the same.
    pub(super) fn canon(&self, side: Side, text: Option<&str>) -> Option<String> {
        let text = text.map(|text| text.replace("\r\n", "\n")).map(|text| text.trim().to_owned());
        let text = text.filter(|text| !text.is_empty());
        match self.kind {
            Kind::Text => text,
            Kind::Email => text.map(|text| text.to_lowercase()),
            Kind::Phone => text.map(|text| text.chars().filter(|c| c.is_ascii_digit() || *c == '+').collect()),
            Kind::Number => text.map(|text| format!("{:.2}", text.parse::<f64>().unwrap())),
            Kind::Date => text.map(|text| text[..10].to_owned()),
            Kind::Several => text.map(|text| {
                let mut all: Vec<&str> = text.split(';').filter(|one| !one.is_empty()).collect();
                all.sort_unstable();
                all.join(";")
            }),
            Kind::Source if side == Side::Salesforce => {
                text.map(|text| SOURCES.iter().find(|(_, s)| *s == text).unwrap().0.to_owned())
            }
            Kind::Source => text,
            Kind::Flag => Some((text.as_deref() == Some("true")).to_string()),
            Kind::Moment => text.map(|text| text.parse::<Timestamp>().unwrap().as_second().to_string()),
        }
    }

    /// A new value, as this side writes it.
    pub(super) fn value(&self, side: Side, number: u32, rng: &mut fastrand::Rng) -> String {
        match self.kind {
            Kind::Text => format!("{}{number}", self.s.chars().next().unwrap_or('x')),
            Kind::Email => format!("e{number}@example.com"),
            Kind::Phone => format!("+49 30 {number}"),
            Kind::Number => format!("{number}.25"),
            Kind::Date => {
                let day = jiff::civil::date(1990, 1, 1).saturating_add(jiff::Span::new().days(i64::from(number)));
                day.to_string()
            }
            Kind::Several => {
                let all = ["cycling", "music", "chess", "tea"];
                let mut some: Vec<&str> = all.into_iter().filter(|_| rng.bool()).collect();
                if some.is_empty() {
                    some.push("tea");
                }
                rng.shuffle(&mut some);
                some.join(";")
            }
            Kind::Source => {
                let (h, s) = SOURCES[rng.usize(..SOURCES.len())];
                if side == Side::Hubspot { h } else { s }.to_owned()
            }
            Kind::Flag => rng.bool().to_string(),
            Kind::Moment => Timestamp::from_second(1_700_000_000 + i64::from(number) * 60).unwrap().to_string(),
        }
    }
}
