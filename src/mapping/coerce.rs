//! One cell to one value, by the type of the property it goes to.
//!
//! Everything that depends on the column or the account is worked out once, in [`Converter::new`]; a cell then costs a
//! look-up at most, and one that is right already is borrowed.

use std::{borrow::Cow, collections::HashMap};

use jiff::tz::TimeZone;

use super::{
    dates::{self, DateFault, DateOrder},
    detect::DetectedColumn,
    numbers::{self, NumberFault, NumberStyle},
    suggest,
};
use crate::{
    codes::{self, Code},
    hubspot::model::{ObjectSchema, Owner, Pipeline, PropertyDefinition},
    record::ObjectType,
};

/// HubSpot's limit for one value.
pub(crate) const VALUE_CHARS_MAX: usize = 65_536;

/// Options named in a hint: enough to find the right one, few enough to read.
const SUGGESTIONS_MAX: usize = 5;

/// Why a cell does not convert. Says nothing that the cell holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    /// Continues "column `X`: ".
    pub(crate) what: String,
    /// Where the code's own hint would be too general.
    pub(crate) hint: Option<String>,
}

impl Fault {
    fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), hint: None }
    }

    fn hint(code: Code, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, what: what.into(), hint: Some(hint.into()) }
    }
}

/// What kind of thing a cell holds, for texts that must not hold the cell.
pub(crate) fn class(cell: &str) -> String {
    let bytes = cell.as_bytes();
    if bytes.iter().any(u8::is_ascii_digit)
        && bytes.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'-' | b'+'))
    {
        "a number".to_owned()
    } else {
        match cell.chars().count() {
            1 => "text of 1 character".to_owned(),
            count => format!("text of {count} characters"),
        }
    }
}

/// Whether the property takes owner ids.
pub fn holds_owners(definition: &PropertyDefinition) -> bool {
    definition.name == "hubspot_owner_id"
        || definition.referenced_object_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("OWNER"))
}

/// Whether the property takes pipeline ids.
pub fn holds_pipelines(object: &ObjectType, definition: &PropertyDefinition) -> bool {
    definition.name == "hs_pipeline" || (is_deals(object) && definition.name == "pipeline")
}

/// Whether the property takes ids of a pipeline's stages.
pub fn holds_stages(object: &ObjectType, definition: &PropertyDefinition) -> bool {
    definition.name == "hs_pipeline_stage" || (is_deals(object) && definition.name == "dealstage")
}

fn is_deals(object: &ObjectType) -> bool {
    matches!(object.as_str(), "deals" | "deal" | "0-3")
}

/// Converts the cells of one column.
#[derive(Debug)]
pub(crate) enum Converter {
    Text,
    Email,
    RecordId,
    Number(Option<NumberStyle>),
    Bool(Choices),
    Date { format: Option<Box<str>>, order: Option<DateOrder> },
    DateTime { format: Option<Box<str>>, order: Option<DateOrder>, zone: TimeZone },
    Choices(Choices),
    Stages(Box<Stages>),
}

impl Converter {
    pub(crate) fn new(
        schema: &ObjectSchema,
        definition: &PropertyDefinition,
        format: Option<&str>,
        detected: DetectedColumn,
        zone: &TimeZone,
    ) -> Self {
        let format = format.map(Box::from);
        if definition.name == "hs_object_id" {
            return Self::RecordId;
        }
        if schema.object.is_contacts() && definition.name == "email" {
            return Self::Email;
        }
        if holds_owners(definition) {
            return Self::Choices(Choices::owners(&schema.owners, several(definition)));
        }
        if !schema.pipelines.is_empty() {
            if holds_pipelines(&schema.object, definition) {
                return Self::Choices(Choices::pipelines(&schema.pipelines));
            }
            if holds_stages(&schema.object, definition) {
                return Self::Stages(Box::new(Stages::new(&schema.pipelines)));
            }
        }
        match definition.kind.as_str() {
            "number" => Self::Number(detected.number),
            "bool" => Self::Bool(Choices::options(definition)),
            "date" => Self::Date { format, order: detected.date },
            "datetime" => Self::DateTime { format, order: detected.date, zone: zone.clone() },
            "enumeration" if definition.field_type == "booleancheckbox" => Self::Bool(Choices::options(definition)),
            "enumeration" => Self::Choices(Choices::options(definition)),
            _ => Self::Text,
        }
    }

    /// Whether a `date:` rule means anything here.
    pub(crate) fn takes_format(&self) -> bool {
        matches!(self, Self::Date { .. } | Self::DateTime { .. })
    }

    /// The value for a trimmed cell that is not empty. `pipeline` is the row's own, where it has one.
    pub(crate) fn convert<'a>(&'a self, cell: &'a str, pipeline: Option<&str>) -> Result<Cow<'a, str>, Fault> {
        match self {
            Self::Text => text(cell),
            Self::Email => email(cell),
            Self::RecordId => match cell.bytes().all(|byte| byte.is_ascii_digit()) {
                true => Ok(Cow::Borrowed(cell)),
                false => Err(Fault::hint(
                    codes::INVALID_INTEGER,
                    format!("{} is no record id", class(cell)),
                    "Use the record's id as HubSpot shows it: digits only.",
                )),
            },
            Self::Number(style) => numbers::convert(cell, *style).map_err(|fault| number_fault(cell, fault)),
            Self::Bool(options) => boolean(cell, options),
            Self::Date { format, order } => {
                dates::date(cell, format.as_deref(), *order).map_err(|fault| date_fault(cell, fault, format.as_deref()))
            }
            Self::DateTime { format, order, zone } => dates::datetime(cell, format.as_deref(), *order, zone)
                .map_err(|fault| date_fault(cell, fault, format.as_deref())),
            Self::Choices(choices) => choices.convert(cell),
            Self::Stages(stages) => stages.convert(cell, pipeline),
        }
    }
}

fn several(definition: &PropertyDefinition) -> bool {
    definition.field_type == "checkbox"
}

fn text(cell: &str) -> Result<Cow<'_, str>, Fault> {
    // Characters are counted only where there could be too many.
    if cell.len() > VALUE_CHARS_MAX && cell.chars().count() > VALUE_CHARS_MAX {
        return Err(Fault::new(codes::VALUE_TOO_LONG, format!("{}, HubSpot takes 65,536", class(cell))));
    }
    Ok(Cow::Borrowed(cell))
}

/// Bytes before the @ of an address, and of each part of its domain: RFC 5321.
const LOCAL_MAX: usize = 64;
const LABEL_MAX: usize = 63;

/// RFC 5321's limits; the letters are those that mail systems take in practice.
fn email(cell: &str) -> Result<Cow<'_, str>, Fault> {
    const ADDRESS_MAX: usize = 254;
    let refuse =
        |why: &str| Err(Fault::new(codes::INVALID_EMAIL, format!("{} is no e-mail address: {why}", class(cell))));
    if cell.len() > ADDRESS_MAX {
        return refuse("it is too long");
    }
    let Some((local, domain)) = cell.split_once('@') else { return refuse("the @ is missing") };
    if domain.contains('@') {
        return refuse("it has more than one @");
    }
    if is_plain_address(local, domain) {
        return Ok(lowercase(cell));
    }
    let forbidden = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '(' | ')' | '<' | '>' | '[' | ']' | ',' | ';' | ':' | '\\' | '"')
    };
    if local.is_empty() || local.len() > LOCAL_MAX || local.contains(forbidden) {
        return refuse("the part before the @ is not possible");
    }
    if local.starts_with('.') || local.ends_with('.') || cell.contains("..") {
        return refuse("a dot is in a wrong place");
    }
    let label_is_right = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let Some((_, top)) = domain.rsplit_once('.') else { return refuse("the domain has no dot") };
    if !domain.split('.').all(label_is_right) || top.len() < 2 || top.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse("the domain is not possible");
    }
    Ok(lowercase(cell))
}

/// Whether an address is of the kind that nearly all are, and cannot be wrong: letters, digits and single signs, all ASCII, in labels of
/// possible lengths. `false` says nothing.
fn is_plain_address(local: &str, domain: &str) -> bool {
    // Starts and ends with a letter or digit, and no two signs in a row.
    let is_plain = |text: &str, signs: &[u8]| {
        let mut after_sign = true;
        for byte in text.bytes() {
            let is_sign = signs.contains(&byte);
            if (is_sign && after_sign) || !(is_sign || byte.is_ascii_alphanumeric()) {
                return false;
            }
            after_sign = is_sign;
        }
        !after_sign
    };
    local.len() <= LOCAL_MAX
        && domain.len() <= LABEL_MAX
        && is_plain(local, b".-_+")
        && is_plain(domain, b".-")
        && domain
            .rsplit_once('.')
            .is_some_and(|(_, top)| top.len() >= 2 && top.bytes().any(|byte| byte.is_ascii_alphabetic()))
}

/// In lower case; most cells are already.
fn lowercase(cell: &str) -> Cow<'_, str> {
    if cell.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(cell);
    }
    let lower = cell.to_lowercase();
    if lower == cell { Cow::Borrowed(cell) } else { Cow::Owned(lower) }
}

fn boolean<'a>(cell: &'a str, options: &'a Choices) -> Result<Cow<'a, str>, Fault> {
    const LONGEST: usize = 6;
    const TRUE: [&str; 11] = ["true", "yes", "y", "1", "on", "t", "ja", "oui", "si", "sí", "wahr"];
    const FALSE: [&str; 8] = ["false", "no", "n", "0", "off", "f", "nein", "non"];
    // The account may have given the two options labels of its own.
    if let Some(Target::Value(value)) = options.find(cell) {
        return Ok(Cow::Borrowed(value));
    }
    if cell.len() <= LONGEST {
        let word = lowercase(cell);
        if TRUE.contains(&&*word) {
            return Ok(Cow::Borrowed("true"));
        }
        if FALSE.contains(&&*word) {
            return Ok(Cow::Borrowed("false"));
        }
    }
    Err(Fault::new(codes::INVALID_BOOLEAN, format!("{} is neither a yes nor a no", class(cell))))
}

fn number_fault(cell: &str, fault: NumberFault) -> Fault {
    match fault {
        NumberFault::Unreadable => Fault::new(codes::INVALID_LONG, format!("{} where a number belongs", class(cell))),
        NumberFault::Percent => Fault::hint(
            codes::INVALID_LONG,
            "a percentage where a number belongs",
            "Write it without the percent sign; HubSpot's percentages are fractions: half is 0.5.",
        ),
        NumberFault::Ambiguous => Fault::hint(
            codes::INVALID_LONG,
            "a number that can be read in two ways, and the column does not show which is meant",
            "Write it without thousands separators, or with a fraction that has not three digits.",
        ),
        NumberFault::Contradicts(style) => Fault::hint(
            codes::INVALID_LONG,
            format!(
                "a number written unlike the column's others, whose decimal mark is the {}",
                match style {
                    NumberStyle::Comma => "comma",
                    _ => "point",
                }
            ),
            "Write all numbers of the column in one way.",
        ),
    }
}

fn date_fault(cell: &str, fault: DateFault, format: Option<&str>) -> Fault {
    let code = codes::INVALID_DATE;
    match (fault, format) {
        (DateFault::Impossible, _) => Fault::new(code, "a date or time that does not exist"),
        (_, Some(format)) => Fault::hint(
            code,
            format!("{} is no date in the stated format", class(cell)),
            format!("Write it as the column's format `{format}` says, or correct the format in hubferry.yaml."),
        ),
        (DateFault::Ambiguous, None) => Fault::hint(
            code,
            "a date that can be read in two ways, and the column does not show which is meant",
            "State the column's format in hubferry.yaml: { property: …, date: \"%d/%m/%Y\" } or \"%m/%d/%Y\".",
        ),
        (DateFault::Contradicts(order), None) => Fault::hint(
            code,
            format!(
                "a date written unlike the column's others, which put the {} first",
                match order {
                    DateOrder::MonthFirst => "month",
                    _ => "day",
                }
            ),
            "Write all dates of the column in one way, or state its format: { property: …, date: \"%d/%m/%Y\" }.",
        ),
        (DateFault::Serial, None) => Fault::hint(
            code,
            "a number where a date belongs, perhaps a spreadsheet's day count",
            "Format the column as dates in the spreadsheet before exporting it.",
        ),
        (DateFault::Seconds, None) => Fault::hint(
            code,
            "a number where a date belongs, perhaps seconds since 1970",
            "State the column's format in hubferry.yaml: { property: …, date: \"%s\" }.",
        ),
        (DateFault::NotMidnight, _) => Fault::new(code, "a moment that is no midnight in UTC, where a date belongs"),
        (DateFault::Unreadable, None) => Fault::new(code, format!("{} where a date belongs", class(cell))),
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Value(Box<str>),
    /// Several things have this name.
    Ambiguous,
    /// An owner who was deactivated.
    Inactive,
}

/// Names and what they stand for: options, owners, pipelines, stages.
#[derive(Debug)]
pub(crate) struct Choices {
    /// Spelled exactly: saves the lower-casing of nearly all cells.
    exact: HashMap<Box<str>, Target>,
    folded: HashMap<Box<str>, Target>,
    /// To name in hints; people's names are not.
    labels: Vec<Box<str>>,
    code: Code,
    noun: &'static str,
    several: bool,
    /// Some name has a comma, so that a comma separates nothing.
    commas: bool,
    /// The list is not complete: what is not in it is HubSpot's to judge.
    open: bool,
}

impl Choices {
    fn empty(code: Code, noun: &'static str) -> Self {
        Self {
            exact: HashMap::new(),
            folded: HashMap::new(),
            labels: Vec::new(),
            code,
            noun,
            several: false,
            commas: false,
            open: false,
        }
    }

    fn options(definition: &PropertyDefinition) -> Self {
        let mut choices = Self::empty(codes::INVALID_OPTION, "an option of the property");
        choices.several = several(definition);
        choices.open = definition.external_options;
        let options = || definition.options.iter().map(|option| (option.value.as_str(), option.label.as_str()));
        choices.fill(options());
        choices.labels = definition
            .options
            .iter()
            .filter(|option| !option.hidden)
            .map(|option| option.label.as_str().into())
            .collect();
        choices
    }

    fn owners(owners: &[Owner], several: bool) -> Self {
        let mut choices = Self::empty(codes::INVALID_OWNER, "an owner of the account");
        choices.several = several;
        let name = |owner: &Owner| {
            let parts = [owner.first_name.as_deref(), owner.last_name.as_deref()];
            parts.into_iter().flatten().map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        };
        // Those who left come last: a name or an address is that of whoever is still there.
        for active in [true, false] {
            let mut seen: HashMap<Box<str>, Target> = HashMap::new();
            for owner in owners.iter().filter(|owner| owner.archived != active) {
                let target = if active { Target::Value(owner.id.as_str().into()) } else { Target::Inactive };
                choices.exact.entry(owner.id.as_str().into()).or_insert_with(|| target.clone());
                for name in [owner.email.clone().unwrap_or_default(), name(owner)] {
                    if !name.is_empty() {
                        meet(&mut seen, fold(&name), &target);
                    }
                }
            }
            for (name, target) in seen {
                choices.folded.entry(name).or_insert(target);
            }
        }
        choices
    }

    fn pipelines(pipelines: &[Pipeline]) -> Self {
        let mut choices = Self::empty(codes::INVALID_PIPELINE, "a pipeline of this object");
        let pipelines = || pipelines.iter().filter(|pipeline| !pipeline.archived);
        choices.fill(pipelines().map(|pipeline| (pipeline.id.as_str(), pipeline.label.as_str())));
        choices.labels = pipelines().map(|pipeline| pipeline.label.as_str().into()).collect();
        choices
    }

    /// Values win over labels, exact ones over those that differ in case.
    fn fill<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) {
        for (value, label) in pairs.clone() {
            self.commas |= value.contains(',') || label.contains(',');
            self.exact.insert(value.into(), Target::Value(value.into()));
            meet(&mut self.folded, fold(value), &Target::Value(value.into()));
        }
        let mut labels: HashMap<Box<str>, Target> = HashMap::new();
        for (value, label) in pairs.clone() {
            meet(&mut labels, fold(label), &Target::Value(value.into()));
        }
        for (label, target) in labels {
            self.folded.entry(label).or_insert(target);
        }
        for (_, label) in pairs {
            if let Some(target) = self.folded.get(&fold(label)) {
                self.exact.entry(label.trim().into()).or_insert_with(|| target.clone());
            }
        }
    }

    fn find(&self, name: &str) -> Option<&Target> {
        self.exact.get(name).or_else(|| self.folded.get(&*lowercase(name.trim())))
    }

    fn convert<'a>(&'a self, cell: &'a str) -> Result<Cow<'a, str>, Fault> {
        if let Some(Target::Value(value)) = self.find(cell) {
            return Ok(Cow::Borrowed(value));
        }
        let separator = if cell.contains(';') { ';' } else { ',' };
        if !self.several || !cell.contains(separator) || (separator == ',' && self.commas) {
            return self.one(cell);
        }
        let mut values: Vec<Cow<'_, str>> = Vec::new();
        for name in cell.split(separator).map(str::trim).filter(|name| !name.is_empty()) {
            let value = self.one(name)?;
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if values.is_empty() {
            return Err(self.unknown(cell));
        }
        // `;d` adds to what the record has; `d` replaces it.
        let mut joined = if cell.starts_with(';') { String::from(";") } else { String::with_capacity(cell.len()) };
        joined.push_str(&values.join(";"));
        Ok(if joined == cell { Cow::Borrowed(cell) } else { Cow::Owned(joined) })
    }

    fn one<'a>(&'a self, name: &'a str) -> Result<Cow<'a, str>, Fault> {
        match self.find(name) {
            Some(Target::Value(value)) => Ok(Cow::Borrowed(value)),
            Some(Target::Ambiguous) => Err(Fault::hint(
                self.code,
                format!("{} stands for several things: more than one is called so", class(name)),
                "Use the internal value or id instead.",
            )),
            Some(Target::Inactive) => Err(Fault::new(self.code, "an owner who was deactivated")),
            None if self.open => text(name),
            None => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &str) -> Fault {
        let what = format!("{} is not {}", class(name), self.noun);
        let near = suggest::nearest(name, self.labels.iter().map(AsRef::as_ref), SUGGESTIONS_MAX);
        let (intro, shown) = if near.is_empty() {
            ("One of: ", self.labels.iter().map(AsRef::as_ref).take(SUGGESTIONS_MAX).collect())
        } else {
            ("Nearest: ", near)
        };
        if shown.is_empty() {
            return Fault::new(self.code, what);
        }
        let more =
            if self.labels.len() > shown.len() { format!(" ({} in all)", self.labels.len()) } else { String::new() };
        let shown: Vec<_> = shown.into_iter().map(super::clip).collect();
        Fault::hint(self.code, what, format!("{intro}{}{more}.", shown.join(", ")))
    }
}

fn fold(name: &str) -> Box<str> {
    lowercase(name.trim()).into()
}

fn meet(names: &mut HashMap<Box<str>, Target>, name: Box<str>, target: &Target) {
    names
        .entry(name)
        .and_modify(|known| {
            if known != target {
                *known = Target::Ambiguous;
            }
        })
        .or_insert_with(|| target.clone());
}

/// The stages of an object's pipelines. A label is looked up in the row's pipeline, else in the default one, else in all.
#[derive(Debug)]
pub(crate) struct Stages {
    by_pipeline: HashMap<Box<str>, Choices>,
    any: Choices,
}

impl Stages {
    /// HubSpot's ids of the pipelines that deals and tickets start with.
    const DEFAULT_IDS: [&str; 2] = ["default", "0"];

    fn new(pipelines: &[Pipeline]) -> Self {
        let active: Vec<&Pipeline> = pipelines.iter().filter(|pipeline| !pipeline.archived).collect();
        fn stages(pipeline: &Pipeline) -> impl Iterator<Item = (&str, &str)> + Clone {
            pipeline
                .stages
                .iter()
                .filter(|stage| !stage.archived)
                .map(|stage| (stage.id.as_str(), stage.label.as_str()))
        }
        let labels = |choices: &mut Choices| {
            // In the order of the stages, each once.
            let mut seen = std::collections::HashSet::new();
            choices.labels.retain(|label| seen.insert(label.clone()));
        };
        let mut any = Choices::empty(codes::INVALID_STAGE, "a stage of any pipeline");
        any.fill(active.iter().flat_map(|pipeline| stages(pipeline)));
        any.labels = active.iter().flat_map(|pipeline| stages(pipeline)).map(|(_, label)| label.into()).collect();
        labels(&mut any);
        let mut by_pipeline = HashMap::new();
        for pipeline in &active {
            let mut choices = Choices::empty(codes::INVALID_STAGE, "a stage of the row's pipeline");
            choices.fill(stages(pipeline));
            choices.labels = stages(pipeline).map(|(_, label)| label.into()).collect();
            if Self::DEFAULT_IDS.contains(&pipeline.id.as_str()) {
                for (name, target) in &choices.folded {
                    if any.folded.get(name) == Some(&Target::Ambiguous) {
                        any.folded.insert(name.clone(), target.clone());
                    }
                }
                for (name, target) in &choices.exact {
                    if any.exact.get(name) == Some(&Target::Ambiguous) {
                        any.exact.insert(name.clone(), target.clone());
                    }
                }
            }
            by_pipeline.insert(pipeline.id.as_str().into(), choices);
        }
        Self { by_pipeline, any }
    }

    fn convert<'a>(&'a self, cell: &'a str, pipeline: Option<&str>) -> Result<Cow<'a, str>, Fault> {
        match pipeline.and_then(|pipeline| self.by_pipeline.get(pipeline)) {
            Some(stages) => stages.one(cell),
            None if matches!(self.any.find(cell), Some(Target::Ambiguous)) => Err(Fault::hint(
                codes::INVALID_STAGE,
                format!("{} is a stage of several pipelines", class(cell)),
                "Map a column to the pipeline as well, or use the stage's id.",
            )),
            None => self.any.one(cell),
        }
    }
}
