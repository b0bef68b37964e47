//! From a CSV's header and an account's properties to a commented `hubferry.yaml`.
//!
//! What is sure is written as a setting; what is likely is a setting with a comment that says why; what is not known is a comment with the
//! nearest names. Nothing is guessed that would write a wrong value: dates whose order shows nowhere get no format.

use std::{collections::BTreeMap, fmt::Write as _, fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, Result, bail};
use hubferry::{
    config::CsvSettings,
    csv::{
        Cells,
        dialect::{self, Dialect, Hints},
        records::{RecordReader, Start, header_names},
    },
    hubspot::model::{ObjectSchema, PropertyDefinition},
    mapping::{self, DateOrder, DetectedColumn, suggest},
};

use super::conduit::plain;

/// Bytes of the file that are looked at.
const SAMPLE_BYTES: u64 = 512 * 1024;
/// Rows that are looked at.
const SAMPLE_ROWS: usize = 2_000;
/// Nearest names in a comment.
const NEAR: usize = 3;
/// Cells that are no options, in a comment.
const CELLS_SHOWN: usize = 5;

/// What headers mean that are neither name nor label.
const ALIASES: [(&str, &str); 27] = [
    ("mail", "email"),
    ("emailaddress", "email"),
    ("first", "firstname"),
    ("givenname", "firstname"),
    ("forename", "firstname"),
    ("vorname", "firstname"),
    ("last", "lastname"),
    ("surname", "lastname"),
    ("familyname", "lastname"),
    ("nachname", "lastname"),
    ("telephone", "phone"),
    ("phonenumber", "phone"),
    ("tel", "phone"),
    ("mobile", "mobilephone"),
    ("cell", "mobilephone"),
    ("companyname", "company"),
    ("organisation", "company"),
    ("organization", "company"),
    ("title", "jobtitle"),
    ("role", "jobtitle"),
    ("zipcode", "zip"),
    ("postcode", "zip"),
    ("postalcode", "zip"),
    ("street", "address"),
    ("url", "website"),
    ("owner", "hubspot_owner_id"),
    ("stage", "lifecyclestage"),
];

/// A file's beginning.
pub(super) struct Sample {
    pub(super) dialect: Dialect,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Cells>,
}

/// Reads a file's beginning. `is_known` tells a header from a first row of data.
pub(super) fn sample(path: &Path, is_known: &dyn Fn(&str) -> bool) -> Result<Sample> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let size = file.metadata()?.len();
    file.take(SAMPLE_BYTES).read_to_end(&mut bytes)?;
    let whole = bytes.len() as u64 >= size;
    let dialect = dialect::detect(&bytes, whole, &CsvSettings::default(), &Hints { is_known })?;
    let mut reader = RecordReader::new(&dialect, Start::default());
    reader.feed(&bytes);
    if whole {
        reader.finish();
    }
    if !dialect.header {
        bail!("{}: the first line names no columns; give the file a header", path.display());
    }
    let Some(first) = reader.next() else { bail!("{} is empty", path.display()) };
    let header: Vec<String> = header_names(&first.cells)
        .into_iter()
        .filter(|name| !mapping::REJECT_COLUMNS.contains(&name.as_str()))
        .collect();
    reader.expect_columns(first.cells.len());
    let rows = std::iter::from_fn(|| reader.next()).filter(|record| record.fault.is_none()).map(|record| record.cells);
    let rows = rows.take(SAMPLE_ROWS).collect();
    Ok(Sample { dialect, header, rows })
}

/// How sure a match is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sure {
    Name,
    Label,
    Spelling,
    Alias,
}

impl Sure {
    fn comment(self, property: &PropertyDefinition) -> Option<String> {
        match self {
            Self::Name | Self::Label => None,
            Self::Spelling => Some(format!("likely: spelled nearly like `{}`", property.label)),
            Self::Alias => Some(format!("likely: the usual meaning, `{}`", property.label)),
        }
    }
}

/// Which object a file is of, by its header.
pub(super) fn object_of(header: &[String]) -> &'static str {
    let has = |names: &[&str]| header.iter().any(|name| names.contains(&suggest_key(name).as_str()));
    if has(&["email", "emailaddress", "mail"]) {
        "contacts"
    } else if has(&["dealname", "dealstage"]) {
        "deals"
    } else if has(&["domain", "companydomain", "companydomainname", "companyname"]) {
        "companies"
    } else {
        "contacts"
    }
}

/// Without case, spaces and signs.
fn suggest_key(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn find<'a>(
    column: &str,
    schema: &'a ObjectSchema,
    taken: &BTreeMap<String, String>,
) -> Option<(&'a PropertyDefinition, Sure)> {
    let free = |property: &&PropertyDefinition| {
        (!property.read_only() || property.name == mapping::RECORD_ID) && !taken.contains_key(&property.name)
    };
    let all = || schema.properties.values().filter(free);
    let key = suggest_key(column);
    if key.is_empty() {
        return None;
    }
    let by_name = all().find(|property| property.name.eq_ignore_ascii_case(column.trim()));
    let by_label = || all().find(|property| property.label.trim().eq_ignore_ascii_case(column.trim()));
    let by_spelling =
        || all().find(|property| suggest_key(&property.name) == key || suggest_key(&property.label) == key);
    let alias = || {
        let (_, name) = ALIASES.iter().find(|(alias, _)| *alias == key)?;
        all().find(|property| property.name == *name)
    };
    by_name
        .map(|found| (found, Sure::Name))
        .or_else(|| by_label().map(|found| (found, Sure::Label)))
        .or_else(|| by_spelling().map(|found| (found, Sure::Spelling)))
        .or_else(|| alias().map(|found| (found, Sure::Alias)))
}

/// What is written.
pub(super) struct Made {
    pub(super) config: String,
    pub(super) notes: Vec<String>,
}

/// What is known besides the file.
pub(super) struct About<'a> {
    pub(super) name: &'a str,
    pub(super) pattern: &'a str,
    pub(super) file: &'a str,
    pub(super) account: &'a str,
    pub(super) portal_id: u64,
}

/// The settings for a file, by the account's definitions.
pub(super) fn translate(sample: &Sample, schema: &ObjectSchema, about: &About<'_>) -> Made {
    let detected = mapping::detect(&sample.header, &sample.rows);
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let (mut columns, mut notes) = (String::new(), Vec::new());
    let mut unknown = 0;
    for (at, column) in sample.header.iter().enumerate() {
        let column = column.trim();
        if column.is_empty() {
            continue;
        }
        let cells =
            || sample.rows.iter().filter_map(move |row| row.get(at)).map(str::trim).filter(|cell| !cell.is_empty());
        match find(column, schema, &taken) {
            Some((property, sure)) => {
                taken.insert(property.name.clone(), column.to_owned());
                let style = detected.columns.get(column).copied().unwrap_or_default();
                let (setting, comments) = setting(property, cells(), style);
                let comments: Vec<String> = sure.comment(property).into_iter().chain(comments).collect();
                let _ = write!(columns, "      {}: {setting}", plain(column));
                match comments.split_first() {
                    Some((first, more)) => {
                        let _ = writeln!(columns, "  # {first}");
                        for comment in more {
                            let _ = writeln!(columns, "      #   {comment}");
                        }
                    }
                    None => columns.push('\n'),
                }
            }
            None => {
                unknown += 1;
                let writable = schema.properties.values().filter(|property| !property.read_only());
                let names = writable.clone().map(|property| property.name.as_str());
                let near =
                    suggest::nearest(column, names.chain(writable.map(|property| property.label.as_str())), NEAR);
                let near: Vec<&str> = near.into_iter().filter(|name| !taken.contains_key(*name)).collect();
                let told = match near.as_slice() {
                    [] => "no property has this name or label".to_owned(),
                    near => format!("no property of this name; near: {}", near.join(", ")),
                };
                let _ = writeln!(columns, "      # {}: …  # {told}", plain(column));
            }
        }
    }
    let (key, key_comment, creates) = key(schema, &taken);
    if unknown > 0 {
        notes.push(format!("{unknown} columns are left out: HubSpot has no property for them. Name one, or set create_properties: true and leave `columns` out"));
    }
    let mut config = String::from(
        "# Written by `hubferry init`. Every setting: examples/hubferry.yaml, `hubferry schema`. Then: `hubferry check FILE`, `hubferry plan FILE`.\nversion: 1\nhubspot:\n",
    );
    config.push_str(about.account);
    let _ = write!(
        config,
        "imports:\n  - name: {}\n    # What is uploaded there is imported: `*` stays within a folder, `**` does not.\n    match: {}\n    object: {}\n",
        plain(about.name),
        plain(about.pattern),
        plain(schema.object.as_str())
    );
    match key {
        Some(key) => {
            let _ = writeln!(config, "    key: {}  # {key_comment}", plain(&key));
        }
        None => {
            let _ = writeln!(config, "    key: email  # TO DO: {key_comment}");
            notes.push(format!("no column can identify a record: {key_comment}"));
        }
    }
    if creates {
        config.push_str("    # HubSpot does not hold the key unique: hubferry keeps a property of its own for it.\n    create_properties: true\n");
    }
    config.push_str("    mode: upsert  # or create, update, archive, mirror\n    blank: keep   # an empty cell keeps the old value; or clear\n");
    config.push_str("    # before_images: true   # keep old values, so that `hubferry undo` can put them back\n    # skip_unchanged: true  # leave out rows that the last file held just so\n");
    let dialect = &sample.dialect;
    let encoding = serde_json::to_value(dialect.encoding)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default();
    let delimiter = if dialect.delimiter == '\t' { "tabs".to_owned() } else { format!("`{}`", dialect.delimiter) };
    let _ = write!(
        config,
        "    # {}: {encoding}, cells between {delimiter}; both are detected for each file.\n    columns:\n{columns}",
        about.file
    );
    notes.push(format!(
        "portal {}: {} of {} columns have a property",
        about.portal_id,
        taken.len(),
        sample.header.len()
    ));
    Made { config, notes }
}

/// The property that identifies a record, why, and whether it takes one of hubferry's own.
fn key(schema: &ObjectSchema, taken: &BTreeMap<String, String>) -> (Option<String>, String, bool) {
    let mapped = |name: &str| taken.contains_key(name);
    if schema.object.is_contacts() && mapped("email") {
        return (Some("email".to_owned()), "contacts are unique by their address".to_owned(), false);
    }
    if mapped(mapping::RECORD_ID) {
        return (
            Some(mapping::RECORD_ID.to_owned()),
            "HubSpot's own id: records that are there only".to_owned(),
            false,
        );
    }
    let unique =
        taken.keys().find(|name| schema.properties.get(*name).is_some_and(|property| property.has_unique_value));
    if let Some(unique) = unique {
        return (Some(unique.clone()), "HubSpot holds it unique".to_owned(), false);
    }
    for name in ["domain", "dealname", "name", "subject"] {
        if mapped(name) {
            return (Some(name.to_owned()), "identifies a record; HubSpot does not hold it unique".to_owned(), true);
        }
    }
    (None, "name the property that identifies a record; it must be among the columns".to_owned(), false)
}

/// A column's setting, and what a reader should know about it.
fn setting<'c>(
    property: &PropertyDefinition,
    cells: impl Iterator<Item = &'c str>,
    style: DetectedColumn,
) -> (String, Vec<String>) {
    let name = plain(&property.name);
    let is_date = matches!(property.kind.as_str(), "date" | "datetime");
    if is_date {
        return match format_of(cells, style) {
            Some(Ok(format)) => {
                (format!("{{ property: {name}, date: {} }}", serde_json::Value::from(format)), Vec::new())
            }
            Some(Err(told)) => (name, vec![told]),
            None => (name, Vec::new()),
        };
    }
    if property.kind == "enumeration" && !property.external_options && !property.options.is_empty() {
        let known = |cell: &str| {
            property
                .options
                .iter()
                .any(|option| option.value.eq_ignore_ascii_case(cell) || option.label.eq_ignore_ascii_case(cell))
        };
        let mut others: Vec<&str> = Vec::new();
        for cell in cells.flat_map(|cell| cell.split(';')).map(str::trim) {
            if !cell.is_empty() && !known(cell) && !others.contains(&cell) && others.len() < CELLS_SHOWN {
                others.push(cell);
            }
        }
        let options = || property.options.iter().flat_map(|option| [option.label.as_str(), option.value.as_str()]);
        let comments = others.iter().map(|cell| {
            let near = suggest::closest(cell, options())
                .and_then(|near| property.options.iter().find(|option| option.label == near || option.value == near));
            match near {
                Some(option) => format!("no option: {0}; values: {{ {0}: {1} }}", plain(cell), plain(&option.value)),
                None => format!("no option: {0}; map it: values: {{ {0}: … }}", plain(cell)),
            }
        });
        return (name, comments.collect());
    }
    (name, Vec::new())
}

/// The format of a column's dates: `None` where they need none.
fn format_of<'c>(cells: impl Iterator<Item = &'c str>, style: DetectedColumn) -> Option<Result<String, String>> {
    let mut sign: Option<char> = None;
    let mut any = false;
    for cell in cells {
        let mut parts = cell.split(['/', '.', '-']);
        let shape: Vec<usize> = parts.by_ref().map(|part| part.len()).collect();
        let digits = cell.chars().all(|c| c.is_ascii_digit() || matches!(c, '/' | '.' | '-'));
        let [first, second, year] = shape.as_slice() else { return None };
        // ISO dates need no format; what has times or names is detected row by row.
        if !digits || *first > 2 || *second > 2 || *year != 4 {
            return None;
        }
        let own = cell.chars().find(|c| !c.is_ascii_digit())?;
        if *sign.get_or_insert(own) != own {
            return None;
        }
        any = true;
    }
    let sign = sign.filter(|_| any)?;
    match style.date {
        Some(DateOrder::DayFirst) => Some(Ok(format!("%d{sign}%m{sign}%Y"))),
        Some(DateOrder::MonthFirst) => Some(Ok(format!("%m{sign}%d{sign}%Y"))),
        _ if sign == '.' => Some(Ok("%d.%m.%Y".to_owned())),
        _ => Some(Err(format!(
            "day or month first? no row tells: {{ property: …, date: \"%d{sign}%m{sign}%Y\" }} or %m{sign}%d{sign}%Y"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use hubferry::{config::load, hubspot::model::PropertyOption, record::ObjectType};

    use super::*;

    fn schema() -> ObjectSchema {
        let property = |name: &str, label: &str, kind: &str| PropertyDefinition {
            name: name.to_owned(),
            label: label.to_owned(),
            kind: kind.to_owned(),
            ..PropertyDefinition::default()
        };
        let mut stage = property("lifecyclestage", "Lifecycle Stage", "enumeration");
        let option = |label: &str, value: &str| PropertyOption {
            label: label.to_owned(),
            value: value.to_owned(),
            hidden: false,
        };
        stage.options = vec![option("Lead", "lead"), option("Opportunity", "opportunity")];
        let all = [
            property("email", "Email", "string"),
            property("firstname", "First Name", "string"),
            property("signup_date", "Signed up", "date"),
            property("closedate", "Close Date", "date"),
            property("jobtitle", "Job Title", "string"),
            stage,
        ];
        ObjectSchema {
            object: ObjectType("contacts".to_owned()),
            properties: all.into_iter().map(|property| (property.name.clone(), property)).collect(),
            owners: Vec::new(),
            pipelines: Vec::new(),
        }
    }

    fn made(text: &str) -> Made {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let sample = sample(&path, &|name| suggest_key(name) == "email").unwrap();
        let about = About {
            name: "contacts",
            pattern: "incoming/contacts/*.csv",
            file: "a.csv",
            account: "  default: { secret: hubferry/hubspot }\n",
            portal_id: 1,
        };
        translate(&sample, &schema(), &about)
    }

    #[test]
    fn a_header_becomes_settings_that_load() {
        let made = made(
            "E-Mail;FIRST_NAME;Signed up;Close Date;Stage;Role;Shoe size: \n\"a@x.io\";Ada;31/12/2024;01/02/2024;Oportunity;Boss;44\nb@x.io;Bob;01/02/2024;03/04/2024;Lead;;45\n",
        );
        let config =
            load::parse(&made.config, "hubferry.yaml").unwrap_or_else(|error| panic!("{error}\n{}", made.config));
        let import = &config.imports[0];
        assert_eq!((import.key.as_deref(), import.create_properties), (Some("email"), false));
        let columns = import.columns.as_ref().unwrap();
        let property = |column: &str| columns[column].details();
        assert_eq!(property("E-Mail").property, "email");
        assert_eq!(property("FIRST_NAME").property, "firstname");
        assert_eq!(property("Signed up").date.as_deref(), Some("%d/%m/%Y"));
        assert_eq!(property("Close Date").date, None, "no row tells the order");
        assert_eq!(property("Stage").property, "lifecyclestage");
        assert_eq!(property("Role").property, "jobtitle");
        assert_eq!(columns.len(), 6);
        for told in
            ["day or month first?", "values: { Oportunity: opportunity }", "# \"Shoe size:\": …", "the usual meaning"]
        {
            assert!(made.config.contains(told), "{told}:\n{}", made.config);
        }
    }

    #[test]
    fn objects_are_told_by_the_header() {
        let of = |names: &[&str]| object_of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["Name", "E-mail"]), "contacts");
        assert_eq!(of(&["Company domain name", "City"]), "companies");
        assert_eq!(of(&["Deal Name", "Amount"]), "deals");
    }
}
