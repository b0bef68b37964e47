//! A plan as a file: JSON lines, one member each, whose name says what the line is.
//!
//! ```text
//! {"plan":{"version":1,"of":"import","import":"contacts",…}}
//! {"record":{"object":"contacts","key":"ada@example.com","id":"101","do":"update","fields":{"phone":[null,"1"]},"lines":[2]}}
//! {"associate":{"from":"contacts","to":"companies","from_id":"101","to_key":"example.com","lines":[2]}}
//! {"reject":{"line":7,"column":"Stage","code":"INVALID_OPTION","reason":"…","hint":"…"}}
//! {"totals":{…}}
//! ```
//!
//! The first line says what the plan is of, the last one that it is whole: a plan without totals was cut off and is not applied. Lines in
//! between may be taken out by hand; what is left is still a plan.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use crate::{
    codes,
    error::{Error, Result},
    hubspot::properties::NewProperty,
    record::{ObjectType, PropertyName},
};

/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;

/// Bytes of a plan's first line at most: it names the object types of one import, and properties to create.
pub const HEADER_BYTES_MAX: usize = 256 * 1024;

/// What a plan is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// Of importing a file.
    Import,
    /// Of undoing a run.
    Undo,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// What it is of.
    pub of: Of,
    /// The import's name.
    pub import: String,
    /// The account, by its name under `hubspot`.
    pub account: String,
    /// The account's portal: a plan is applied to the portal it was made of, and to no other.
    pub portal_id: u64,
    /// The import's mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The file, or the run that is undone.
    pub source: PlanSource,
    /// When HubSpot was looked at; null of the plan of an undo, whose file is the same whenever it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Timestamp>,
    /// What rows become, the first record first.
    pub records: Vec<PlanObject>,
    /// Properties that are to be created before the first write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create_properties: Vec<PlanProperty>,
    /// Undo: the end of the run, by HubSpot's clock. What was edited later is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What cannot be planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a plan was made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanSource {
    /// The file's path or address; of an undo, of the folder of before-images.
    pub uri: String,
    /// Its entity tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub etag: String,
    /// Its bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Undo: the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// How the file is written, as detected or set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Value>,
    /// `none`, `gzip` or `zstd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One kind of record in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanObject {
    /// The object type.
    pub object: ObjectType,
    /// The property that the keys are values of.
    pub key: String,
    /// The unique property that hubferry keeps for a key that is not unique: records are created by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_property: Option<String>,
}

/// A property that is to be created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanProperty {
    /// Of this object type.
    pub object: ObjectType,
    /// As HubSpot takes it.
    #[serde(flatten)]
    pub property: NewProperty,
}

/// What is to be done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// It is made.
    Create,
    /// Fields of it are changed.
    Update,
    /// It is archived.
    Archive,
    /// Nothing.
    Unchanged,
    /// Undo: it was archived by the run. HubSpot's API cannot bring it back.
    Restore,
}

impl Act {
    /// The word in plans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Archive => "archive",
            Self::Unchanged => "unchanged",
            Self::Restore => "restore",
        }
    }
}

/// A field's name, the value it has and the one it is to have; `None` is no value.
pub type Field = (PropertyName, Option<String>, Option<String>);

/// A record, and what is to be done with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The object type.
    pub object: ObjectType,
    /// The value of the key; blank where the record is known by its id only.
    pub key: String,
    /// HubSpot's id; null where the record is not there yet.
    pub id: Option<String>,
    /// Undo: the property that the key is a value of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What is to be done.
    #[serde(rename = "do")]
    pub act: Act,
    /// Field to `[old, new]`, in the order of the file's columns. Of a record that an undo archives: what the run made it with.
    #[serde(default, with = "fields", skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
    /// Why nothing is to be done, or why it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The physical lines of the file whose rows it merges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<u64>,
}

/// What is to be done with a pair of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tie {
    /// They are associated, with the label if there is one. What is associated already is not looked at: doing it twice changes nothing.
    #[default]
    Associate,
    /// Undo: the run associated them, and they are taken apart.
    Part,
    /// Undo: the run gave them the label, which is taken off.
    Unlabel,
}

impl Tie {
    fn is_associate(&self) -> bool {
        *self == Self::Associate
    }

    /// The word in plans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Associate => "associate",
            Self::Part => "part",
            Self::Unlabel => "unlabel",
        }
    }
}

/// Two records that are to be associated, or taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanAssociation {
    /// What is to be done; without it they are associated.
    #[serde(rename = "do", skip_serializing_if = "Tie::is_associate")]
    pub tie: Tie,
    /// Object type of the one.
    pub from: String,
    /// Object type of the other.
    pub to: String,
    /// The association's label; null for the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Id of the one, where it is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_id: Option<String>,
    /// Its key, where it is to be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_key: Option<String>,
    /// Id of the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_id: Option<String>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_key: Option<String>,
    /// Undo: the record that had the label before, of those of which only one has it at a time; it gets it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_to: Option<String>,
}

/// A row that would be rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReject {
    /// The physical line on which the row starts; of the plan of an undo, the place of its record.
    pub line: u64,
    /// The column, where the reason names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The code.
    pub code: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

/// What mode `mirror` would archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMirror {
    /// Records known from earlier files.
    pub known: u64,
    /// How many of them the file lacks.
    pub missing: u64,
    /// More than the brake allows: none is in the plan.
    pub braked: bool,
}

/// The last line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Rows of the file (of an undo: before-images).
    pub rows: u64,
    /// Records by what is to be done with them.
    pub create: u64,
    /// Records that are changed.
    pub update: u64,
    /// Records that are archived.
    pub archive: u64,
    /// Records of which nothing is to be done.
    pub unchanged: u64,
    /// Undo: records that the run archived.
    #[serde(skip_serializing_if = "is_zero")]
    pub restore: u64,
    /// Rows merged into another row's record.
    pub merged: u64,
    /// Fields that get another value.
    pub fields: u64,
    /// Associations that are made.
    #[serde(skip_serializing_if = "is_zero")]
    pub associations: u64,
    /// Undo: associations, and labels, that are taken back.
    #[serde(skip_serializing_if = "is_zero")]
    pub parted: u64,
    /// Rows that would be rejected.
    pub rejected: u64,
    /// These, by code.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub rejected_by_code: std::collections::BTreeMap<String, u64>,
    /// Keys that come up in several rows that are too far apart to be merged: they have several lines in the plan.
    #[serde(skip_serializing_if = "is_zero")]
    pub repeated: u64,
    /// Mode `mirror`: what the file lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<PlanMirror>,
    /// The import would stop: more rows are rejected than `abort_if_rejected` allows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aborts: bool,
    /// Columns of the file that go nowhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored_columns: Vec<String>,
    /// What a reader should know besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Calls to HubSpot that applying takes, reads included, as far as can be told.
    pub calls: u64,
    /// Seconds that they take at the account's limit.
    pub seconds: u64,
    /// Calls that planning took.
    pub planning_calls: u64,
}

impl Totals {
    /// Records that applying changes.
    pub fn changes(&self) -> u64 {
        self.create + self.update + self.archive
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The first one.
    Plan(Box<Header>),
    /// A record.
    Record(Box<PlanRecord>),
    /// An association.
    Associate(Box<PlanAssociation>),
    /// A row that would be rejected.
    Reject(Box<PlanReject>),
    /// The last one.
    Totals(Box<Totals>),
}

impl Line {
    /// Reads a line. Members that a rejects file adds are read over. `PLAN_INVALID` if it is none; the text is not quoted.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |what: &str| Error::invalid(codes::PLAN_INVALID, format!("this is no line of a plan: {what}"));
        let value: Value = serde_json::from_str(text)
            .map_err(|error| invalid(&format!("no JSON from column {} on", error.column())))?;
        let Value::Object(members) = value else { return Err(invalid("no object")) };
        let known = ["plan", "record", "associate", "reject", "totals"];
        let mut own: Map<String, Value> =
            members.into_iter().filter(|(name, _)| known.contains(&name.as_str())).collect();
        if own.len() != 1 {
            return Err(invalid("expected one of the members plan, record, associate, reject and totals"));
        }
        let name = own.keys().next().cloned().unwrap_or_default();
        serde_json::from_value(Value::Object(std::mem::take(&mut own)))
            .map_err(|error| invalid(&format!("`{name}` is not written as it should be ({})", shape_of(&error))))
    }

    /// The line as text, with its line break.
    ///
    /// # Errors
    /// `PLAN_INVALID` if it cannot be written, which text never is.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::invalid(codes::PLAN_INVALID, "a line cannot be written").with_source(error))?;
        Ok(text + "\n")
    }
}

/// What serde says, without what it quotes.
fn shape_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("missing field") || text.starts_with("unknown variant") {
        text.split(" at line").next().unwrap_or_default().to_owned()
    } else {
        "a member has another type".to_owned()
    }
}

mod fields {
    use super::*;

    pub(super) fn serialize<S: Serializer>(fields: &[Field], serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(fields.iter().map(|(name, old, new)| (&**name, [old, new])))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<Field>, D::Error> {
        let members = Map::<String, Value>::deserialize(deserializer)?;
        let mut fields = Vec::with_capacity(members.len());
        for (name, values) in members {
            let [old, new]: [Option<String>; 2] =
                serde_json::from_value(values).map_err(|_| D::Error::custom("a field"))?;
            fields.push((PropertyName::from(name), old, new));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_survives_writing_and_reading_and_what_a_rejects_file_adds_is_read_over() {
        let text = r#"{"record":{"object":"contacts","key":"a@x.io","id":"1","do":"update","fields":{"z":[null,"1"],"a":["2",null]},"lines":[2,9]}}"#;
        let line = Line::parse(text).unwrap();
        assert_eq!(line.text().unwrap().trim_end(), text, "members keep their order");
        let with = text.replacen('{', "{\"_line\":7,\"_code\":\"PLAN_CHANGED\",", 1);
        assert_eq!(Line::parse(&with).unwrap(), line);
    }

    #[test]
    fn what_is_no_line_is_told_without_its_text() {
        for text in [
            "secret",
            "[1]",
            "{}",
            r#"{"record":{"object":"secret"}}"#,
            r#"{"record":{"do":"secret"}}"#,
            r#"{"plan":1,"record":2}"#,
        ] {
            let error = Line::parse(text).unwrap_err();
            assert_eq!(error.code(), codes::PLAN_INVALID, "{text}");
            assert!(text == r#"{"record":{"do":"secret"}}"# || !error.to_string().contains("secret"), "{error}");
        }
    }
}
