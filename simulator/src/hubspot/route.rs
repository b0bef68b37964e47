//! Which operation a path means, whichever version it was written for. SOURCES.md "Versions".

use percent_encoding::percent_decode_str;

/// The API version a path names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Version(String);

impl Version {
    pub(crate) fn dated(&self) -> bool {
        !self.0.starts_with('v')
    }

    /// Whether the rules that came with 2026-09 apply: required properties, lenient dates, no documented 207.
    pub(crate) fn since_2026_09(&self) -> bool {
        self.dated() && self.0.as_str() >= "2026-09"
    }

    pub(crate) fn is(&self, version: &str) -> bool {
        self.0 == version
    }
}

/// What a path is about. The rest are the segments after what is named here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Area {
    Token(String),
    Objects {
        kind: String,
    },
    Associations {
        from: String,
        to: String,
    },
    Properties {
        kind: String,
    },
    Owners,
    Pipelines {
        kind: String,
    },
    Schemas,
    Account,
    /// A kind of content, by its number in `cms`.
    Content(usize),
    Unknown,
}

/// A path, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) area: Area,
    pub(crate) version: Version,
    pub(crate) rest: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
}

impl Route {
    pub(crate) fn parse(path: &str, query_text: Option<&str>) -> Self {
        let segments: Vec<String> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let text: Vec<&str> = segments.iter().map(String::as_str).collect();
        let query = query_text.map(query).unwrap_or_default();
        let owned = |one: &&str| (*one).to_owned();
        let (area, version, used) = match text.as_slice() {
            ["oauth", version, "token"] => (Area::Token(owned(version)), *version, 3),
            ["crm", version @ ("v3" | "v4"), "objects", kind, ..] | ["crm", "objects", version, kind, ..] => {
                (Area::Objects { kind: owned(kind) }, *version, 4)
            }
            ["crm", version @ ("v3" | "v4"), "associations", from, to, ..]
            | ["crm", "associations", version, from, to, ..] => {
                (Area::Associations { from: owned(from), to: owned(to) }, *version, 5)
            }
            ["crm", version @ "v3", "properties", kind, ..] | ["crm", "properties", version, kind, ..] => {
                (Area::Properties { kind: owned(kind) }, *version, 4)
            }
            ["crm", version @ "v3", "owners", ..] | ["crm", "owners", version, ..] => (Area::Owners, *version, 3),
            ["crm", version @ "v3", "pipelines", kind, ..] | ["crm", "pipelines", version, kind, ..] => {
                (Area::Pipelines { kind: owned(kind) }, *version, 4)
            }
            ["crm", version @ "v3", "schemas", ..] | ["crm-object-schemas", version, "schemas", ..] => {
                (Area::Schemas, *version, 3)
            }
            ["account-info", version, ..] => (Area::Account, *version, 2),
            ["integrations", "v1", "me"] => (Area::Account, "v1", 2),
            ["cms", "v3", rest @ ..] => match super::cms::route(rest) {
                Some((kind, used)) => (Area::Content(kind), "v3", 2 + used),
                None => (Area::Unknown, "v3", 0),
            },
            _ => (Area::Unknown, "v3", 0),
        };
        let version = Version(version.to_owned());
        let known = !version.dated() || is_date(&version.0);
        let area = if known { area } else { Area::Unknown };
        Self { area, version, rest: segments.into_iter().skip(used).collect(), query }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A list that may be one value with commas, several values, or both.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let values = self.query.iter().filter(|(key, _)| key == name);
        values
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .filter(|one| !one.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// `YYYY-MM`, perhaps with `-beta`.
fn is_date(version: &str) -> bool {
    let version = version.strip_suffix("-beta").unwrap_or(version);
    version.len() == 7
        && version.bytes().enumerate().all(|(at, byte)| if at == 4 { byte == b'-' } else { byte.is_ascii_digit() })
}

/// A query string or a form.
pub(crate) fn query(text: &str) -> Vec<(String, String)> {
    let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}
