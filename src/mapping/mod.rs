//! Rows in, HubSpot inputs out. Pure: the account's definitions come in as values, and nothing here does I/O.
//!
//! HubSpot judges a batch as a whole and a value by its type; finding out before the call, with the cell's own column named,
//! is what makes a rejected row fixable. So a mapping is compiled once against header and account, with all its problems
//! told at once, and then applied to row after row.

mod coerce;
mod compile;
mod dates;
mod detect;
mod infer;
mod numbers;
pub mod suggest;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use serde::Serialize;

use self::{
    coerce::{Converter, Fault},
    compile::resolve,
};
pub use self::{
    coerce::{holds_owners, holds_pipelines, holds_stages},
    dates::DateOrder,
    detect::{Detected, DetectedColumn, detect},
    infer::{TypeInference, property_name},
    numbers::NumberStyle,
};
use crate::{
    codes::{self, Code},
    config::{Blank, ColumnRule, Mode},
    csv::Cells,
    hubspot::model::ObjectSchema,
    record::{Input, ObjectType, PropertyName, Reason},
};

/// The columns that a reject file adds; they are read over when it is dropped back.
pub const REJECT_COLUMNS: [&str; 4] = ["_line", "_code", "_reason", "_hint"];

/// HubSpot's own id of a record: identifies it without being writable.
pub const RECORD_ID: &str = "hs_object_id";

/// What the settings say about one object of an import.
#[derive(Debug, Clone)]
pub struct MappingSpec<'a> {
    /// The object that rows become.
    pub object: &'a ObjectType,
    /// The property that identifies a record. Without one only `create` is possible.
    pub key: Option<&'a str>,
    /// The key need not be unique in HubSpot: hubferry keeps a unique property of its own for it.
    pub own_key: bool,
    /// Column to property; `None` maps headers to properties of the same name or label.
    pub columns: Option<&'a BTreeMap<String, ColumnRule>>,
    /// What an empty cell means, where the column does not say.
    pub blank: Blank,
    /// What is done with the rows. `archive` converts the key only.
    pub mode: Mode,
    /// The account's time zone (IANA), for times that state none.
    pub time_zone: &'a str,
}

/// One thing that is wrong with a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of thing.
    pub code: Code,
    /// The column, as the settings or the header name it.
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.code, self.message, self.hint)
    }
}

/// A column that goes nowhere, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IgnoredColumn {
    /// Its name in the header.
    pub column: String,
    /// Why.
    pub why: WhyIgnored,
}

/// Why a column goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyIgnored {
    /// The settings do not mention it.
    NotMapped,
    /// No property has this name or label.
    NoSuchProperty,
    /// HubSpot computes the property of this name.
    ReadOnly,
}

/// Which lists beside the properties a mapping needs in its [`ObjectSchema`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The account's owners, archived ones too.
    pub owners: bool,
    /// The object's pipelines.
    pub pipelines: bool,
}

/// One mapped column, ready to convert.
#[derive(Debug)]
struct Column {
    index: usize,
    /// Its name in the header, for reasons.
    header: Box<str>,
    property: PropertyName,
    converter: Converter,
    /// Lower-cased cell to the text that is converted in its place.
    values: HashMap<Box<str>, Box<str>>,
    clear: bool,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    Key,
    /// The key, which identifies but is not written.
    RecordId,
    Pipeline,
}

/// A mapping that fits the file and the account.
#[derive(Debug)]
pub struct Mapping {
    /// The pipeline's column before its stage's.
    columns: Vec<Column>,
    ignored: Vec<IgnoredColumn>,
    detected: Detected,
    fill_if_empty: Vec<PropertyName>,
    mode: Mode,
}

impl Mapping {
    /// Checks the settings against the file's header and the account's definitions.
    ///
    /// # Errors
    /// All problems at once, in the order of the columns; nothing may be written then.
    pub fn compile(
        spec: &MappingSpec<'_>,
        header: &[String],
        schema: &ObjectSchema,
        detected: Detected,
    ) -> Result<Self, Vec<Problem>> {
        compile::compile(spec, header, schema, detected)
    }

    /// What else has to be fetched before [`Self::compile`]; `schema` needs its properties only.
    pub fn needs(spec: &MappingSpec<'_>, header: &[String], schema: &ObjectSchema) -> Needs {
        let (resolved, _) = resolve(spec, header, schema, &mut Vec::new());
        let mut needs = Needs::default();
        for column in resolved {
            needs.owners |= holds_owners(column.definition);
            needs.pipelines |=
                holds_pipelines(spec.object, column.definition) || holds_stages(spec.object, column.definition);
        }
        needs
    }

    /// The record a row describes.
    ///
    /// # Errors
    /// The first reason for which the row cannot be right. It names the column, never the cell's text.
    pub fn apply(&self, cells: &Cells) -> Result<Input, Reason> {
        let mut key = None;
        let mut pipeline: Option<Cow<'_, str>> = None;
        let mut properties = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let is_key = matches!(column.role, Role::Key | Role::RecordId);
            if self.mode == Mode::Archive && !is_key {
                continue;
            }
            let cell = column.translated(cells.get(column.index).unwrap_or_default().trim());
            if cell.is_empty() {
                if is_key {
                    return Err(column.reason(Fault {
                        code: codes::KEY_BLANK,
                        what: "the key is blank".into(),
                        hint: None,
                    }));
                }
                if column.clear {
                    properties.push((column.property.clone(), String::new()));
                }
                continue;
            }
            let value = column.converter.convert(cell, pipeline.as_deref()).map_err(|fault| column.reason(fault))?;
            match column.role {
                Role::Plain => {}
                Role::Key => key = Some(value.clone().into_owned()),
                Role::RecordId => {
                    key = Some(value.into_owned());
                    continue;
                }
                Role::Pipeline => pipeline = Some(value.clone()),
            }
            properties.push((column.property.clone(), value.into_owned()));
        }
        Ok(Input { key: key.unwrap_or_default(), properties })
    }

    /// The row's key as it would be sent, even where the rest of the row cannot be mapped.
    pub fn key_of(&self, cells: &Cells) -> Option<String> {
        let column = self.columns.iter().find(|column| matches!(column.role, Role::Key | Role::RecordId))?;
        let cell = column.translated(cells.get(column.index).unwrap_or_default().trim());
        if cell.is_empty() {
            return None;
        }
        column.converter.convert(cell, None).ok().map(Cow::into_owned)
    }

    /// Whether the row says nothing about this record: all of its cells are blank.
    pub fn is_blank(&self, cells: &Cells) -> bool {
        self.columns.iter().all(|column| cells.get(column.index).is_none_or(|cell| cell.trim().is_empty()))
    }

    /// Columns of the file that go nowhere, in the file's order.
    pub fn ignored_columns(&self) -> &[IgnoredColumn] {
        &self.ignored
    }

    /// Column and property of each mapped column.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &PropertyName)> {
        self.columns.iter().map(|column| (&*column.header, &column.property))
    }

    /// The key's property, and whether it is the record id (`hs_object_id`), which is sent as `id` and never as a property.
    pub fn key(&self) -> Option<(&PropertyName, bool)> {
        let column = self.columns.iter().find(|column| matches!(column.role, Role::Key | Role::RecordId))?;
        Some((&column.property, column.role == Role::RecordId))
    }

    /// What was detected about the columns whose conversion depends on it: for the report, and for the run's state.
    pub fn detected(&self) -> &Detected {
        &self.detected
    }

    /// Properties that are written only where HubSpot holds no value (`fill: if_empty`).
    pub fn fill_if_empty(&self) -> &[PropertyName] {
        &self.fill_if_empty
    }
}

impl Column {
    fn translated<'a>(&'a self, cell: &'a str) -> &'a str {
        if self.values.is_empty() {
            return cell;
        }
        let found = self.values.get(cell).or_else(|| self.values.get(cell.to_lowercase().as_str()));
        found.map_or(cell, |value| value)
    }

    fn reason(&self, fault: Fault) -> Reason {
        let text = format!("column `{}`: {}", clip(&self.header), fault.what);
        match fault.hint {
            Some(hint) => Reason::with_hint(fault.code, text, hint),
            None => Reason::new(fault.code, text),
        }
    }
}

/// A name cut to what a message can carry.
fn clip(name: &str) -> String {
    const SHOWN: usize = 60;
    match name.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", name.get(..at).unwrap_or_default()),
        None => name.to_owned(),
    }
}
