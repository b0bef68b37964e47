//! The columns of the flat formats: always the same ones for the same definitions, whatever the records hold.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::Xxh3;

/// The columns before the record's own, and those after them: its associations, and whatever no column holds, each as JSON text.
pub use crate::csv::reject::{CAPTURE_LEADING as LEADING, CAPTURE_TRAILING as TRAILING};
use crate::hubspot::model::PropertyDefinition;

/// Changes when rows come to be written otherwise for the same columns, so that files of the two ways are kept apart.
const LAYOUT_VERSION: u8 = 1;

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text: also options, several of them too, and whatever else has no type of its own.
    Text,
    /// A number. HubSpot does not say which are whole, so all are doubles.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A day.
    Date,
    /// A moment, in milliseconds.
    DateTime,
}

impl Kind {
    /// By the `type` of a property definition.
    fn of(definition: &str) -> Self {
        match definition {
            "number" => Self::Number,
            "bool" => Self::Boolean,
            "date" => Self::Date,
            "datetime" => Self::DateTime,
            _ => Self::Text,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::DateTime => "datetime",
        }
    }
}

/// One column of a record's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// The property, or the member of a flat object.
    pub source: String,
    /// What the column is called: `source`, unless that is a name of ours.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
}

/// Where a record has its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Under `properties`: the CRM's objects.
    Properties,
    /// In the object itself: the CMS's.
    Members,
}

/// The columns of a capture's rows.
#[derive(Debug, Clone)]
pub struct Columns {
    pub(super) shape: Shape,
    pub(super) columns: Vec<Column>,
    by_source: HashMap<String, usize>,
}

impl Columns {
    /// Of a CRM object: one column for each definition, in this order; a second one of the same name is left out.
    pub fn new<'a>(definitions: impl IntoIterator<Item = &'a PropertyDefinition>) -> Self {
        let columns = definitions.into_iter().map(|definition| (definition.name.as_str(), Kind::of(&definition.kind)));
        Self::build(Shape::Properties, columns)
    }

    /// Of a CMS resource by Conduit's name, for example `cms.blogs.posts`: its plain members. What is nested or unknown stands in
    /// `_more`, and for an unknown resource everything does. JSON lines hold all members in any case.
    pub fn cms(resource: &str) -> Self {
        use Kind::{Boolean, DateTime, Number, Text};
        const CONTENT: &[(&str, Kind)] = &[
            ("name", Text),
            ("slug", Text),
            ("url", Text),
            ("domain", Text),
            ("language", Text),
            ("translatedFromId", Text),
            ("state", Text),
            ("currentState", Text),
            ("currentlyPublished", Boolean),
            ("publishDate", DateTime),
            ("htmlTitle", Text),
            ("metaDescription", Text),
            ("authorName", Text),
            ("blogAuthorId", Text),
            ("contentGroupId", Text),
            ("campaign", Text),
            ("featuredImage", Text),
            ("createdById", Text),
            ("updatedById", Text),
            ("archivedAt", DateTime),
        ];
        const AUTHORS: &[(&str, Kind)] = &[
            ("name", Text),
            ("fullName", Text),
            ("displayName", Text),
            ("email", Text),
            ("slug", Text),
            ("language", Text),
            ("translatedFromId", Text),
            ("bio", Text),
            ("website", Text),
            ("avatar", Text),
            ("deletedAt", DateTime),
        ];
        const TAGS: &[(&str, Kind)] =
            &[("name", Text), ("slug", Text), ("language", Text), ("translatedFromId", Text), ("deletedAt", DateTime)];
        const TABLES: &[(&str, Kind)] = &[
            ("name", Text),
            ("label", Text),
            ("published", Boolean),
            ("publishedAt", DateTime),
            ("rowCount", Number),
            ("columnCount", Number),
            ("allowPublicApiAccess", Boolean),
            ("allowChildTables", Boolean),
            ("useForPages", Boolean),
        ];
        const REDIRECTS: &[(&str, Kind)] = &[
            ("routePrefix", Text),
            ("destination", Text),
            ("redirectStyle", Number),
            ("precedence", Number),
            ("isMatchFullUrl", Boolean),
            ("isMatchQueryString", Boolean),
            ("isOnlyAfterNotFound", Boolean),
            ("isPattern", Boolean),
            ("isProtocolAgnostic", Boolean),
            ("isTrailingSlashOptional", Boolean),
        ];
        let members = match resource {
            "cms.blogs.posts" | "cms.pages.landing" | "cms.pages.site" => CONTENT,
            "cms.blogs.authors" => AUTHORS,
            "cms.blogs.tags" => TAGS,
            "cms.hubdb.tables" => TABLES,
            "cms.urlRedirects" => REDIRECTS,
            _ => &[],
        };
        Self::build(Shape::Members, members.iter().copied())
    }

    fn build<'a>(shape: Shape, members: impl Iterator<Item = (&'a str, Kind)>) -> Self {
        let mut by_source = HashMap::new();
        let mut columns: Vec<Column> = Vec::new();
        for (source, kind) in members {
            if by_source.contains_key(source) {
                continue;
            }
            by_source.insert(source.to_owned(), columns.len());
            columns.push(Column { source: source.to_owned(), name: source.to_owned(), kind });
        }
        let mut taken: HashSet<String> = by_source.keys().cloned().collect();
        for column in &mut columns {
            while is_ours(&column.name) || (column.name != column.source && taken.contains(&column.name)) {
                column.name.insert(0, '_');
            }
            taken.insert(column.name.clone());
        }
        Self { shape, columns, by_source }
    }

    /// Changes when a name, a type or the order does: rows of another fingerprint belong into another file. 16 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let mut hash = Xxh3::new();
        hash.update(&[LAYOUT_VERSION, u8::from(self.shape == Shape::Members)]);
        for column in &self.columns {
            // Neither a length nor a type can be taken for a part of a name.
            hash.update(&(column.name.len() as u64).to_le_bytes());
            hash.update(column.name.as_bytes());
            hash.update(column.kind.as_str().as_bytes());
        }
        format!("{:016x}", hash.digest())
    }

    /// Whether values of this property or member have a column.
    pub(super) fn has(&self, source: &str) -> bool {
        self.by_source.contains_key(source)
    }

    /// The names of all columns, ours too, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        LEADING.into_iter().chain(self.columns.iter().map(|column| column.name.as_str())).chain(TRAILING)
    }
}

/// Whether a column of ours is called so.
pub(super) fn is_ours(name: &str) -> bool {
    LEADING.contains(&name) || TRAILING.contains(&name)
}
