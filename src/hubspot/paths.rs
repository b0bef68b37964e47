//! Where things are, in both spellings of HubSpot's API: dated versions (`/crm/objects/2026-09/…`) and v3 (`/crm/v3/objects/…`).

use crate::{http::token::percent_encode, record::ObjectType};

/// Builds paths for one version of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    version: String,
}

impl Paths {
    /// For `v3`, or a dated version such as `2026-09`.
    pub fn new(version: &str) -> Self {
        Self { version: version.trim().to_owned() }
    }

    /// `/crm/v3/{area}` or `/crm/{area}/{version}`; v3 has its associations in v4.
    fn crm(&self, area: &str) -> String {
        match (self.numbered(), area) {
            (true, "associations") => "/crm/v4/associations".to_owned(),
            (true, _) => format!("/crm/{}/{area}", self.version),
            (false, _) => format!("/crm/{area}/{}", self.version),
        }
    }

    fn numbered(&self) -> bool {
        self.version.strip_prefix('v').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// Records of a type: `batch/upsert`, `search`, an id, or nothing.
    pub fn objects(&self, object: &ObjectType, rest: &str) -> String {
        join(self.crm("objects"), &[object.as_str()], rest)
    }

    /// Property definitions of a type.
    pub fn properties(&self, object: &ObjectType, rest: &str) -> String {
        join(self.crm("properties"), &[object.as_str()], rest)
    }

    /// Pipelines of a type.
    pub fn pipelines(&self, object: &ObjectType) -> String {
        join(self.crm("pipelines"), &[object.as_str()], "")
    }

    /// Owners.
    pub fn owners(&self) -> String {
        self.crm("owners")
    }

    /// Associations from one type to another: `batch/associate/default`, `batch/create`, `batch/read`, `labels`.
    pub fn associations(&self, from: &ObjectType, to: &ObjectType, rest: &str) -> String {
        join(self.crm("associations"), &[from.as_str(), to.as_str()], rest)
    }

    /// The account's id, time zone and so on.
    pub fn details(&self) -> String {
        format!("/account-info/{}/details", self.version)
    }

    /// The OAuth token endpoint.
    pub fn token(&self) -> String {
        format!("/oauth/{}/token", self.version)
    }
}

fn join(mut path: String, segments: &[&str], rest: &str) -> String {
    for segment in segments {
        path.push('/');
        percent_encode(&mut path, segment);
    }
    if !rest.is_empty() {
        path.push('/');
        path.push_str(rest);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_every_path() {
        let contacts = ObjectType("contacts".to_owned());
        let odd = ObjectType("p1_a/b".to_owned());
        let both = |path: fn(&Paths, &ObjectType, &ObjectType) -> String| {
            (path(&Paths::new("2026-09"), &contacts, &odd), path(&Paths::new("v3"), &contacts, &odd))
        };
        let table = [
            (
                both(|p, a, _| p.objects(a, "batch/upsert")),
                "/crm/objects/2026-09/contacts/batch/upsert",
                "/crm/v3/objects/contacts/batch/upsert",
            ),
            (both(|p, _, b| p.properties(b, "")), "/crm/properties/2026-09/p1_a%2Fb", "/crm/v3/properties/p1_a%2Fb"),
            (both(|p, a, _| p.pipelines(a)), "/crm/pipelines/2026-09/contacts", "/crm/v3/pipelines/contacts"),
            (both(|p, _, _| p.owners()), "/crm/owners/2026-09", "/crm/v3/owners"),
            (
                both(|p, a, b| p.associations(a, b, "labels")),
                "/crm/associations/2026-09/contacts/p1_a%2Fb/labels",
                "/crm/v4/associations/contacts/p1_a%2Fb/labels",
            ),
            (both(|p, _, _| p.details()), "/account-info/2026-09/details", "/account-info/v3/details"),
            (both(|p, _, _| p.token()), "/oauth/2026-09/token", "/oauth/v3/token"),
        ];
        for ((dated, numbered), expected_dated, expected_numbered) in table {
            assert_eq!((dated.as_str(), numbered.as_str()), (expected_dated, expected_numbered));
        }
    }
}
