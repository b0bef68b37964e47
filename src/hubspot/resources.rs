//! What can be captured and delivered, as data: the 20 resources of Conduit's connector, and every other CRM object type.
//!
//! A resource has one name in configurations and in `opencdc.collection` (`crm.lineItems`) and another one in addresses (`line_items`);
//! what differs from one to the next (which property tells when it changed, what is read when nothing is asked for, whether deletes can be seen) stands here and
//! nowhere else.

use http::Method;

use super::paths::Paths;
use crate::{Error, Result, codes, http::token::percent_encode, mapping::suggest::nearest, record::ObjectType};

/// Names told beside an unknown one.
const NEAREST_TOLD: usize = 3;

/// Longer names are no object type's: HubSpot's are shorter than this.
const NAME_BYTES_MAX: usize = 200;

/// One kind of thing that HubSpot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// CRM records: listed, searched, read and written in batches.
    Crm(CrmResource),
    /// Content: listed and written one at a time.
    Cms(CmsResource),
}

/// A CRM object type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrmResource {
    /// `crm.lineItems`; of those that Conduit does not name, `crm.` and the object type.
    pub collection: String,
    /// As it stands in addresses.
    pub object: ObjectType,
    /// Whether two records can be made one; also said of types that are not known to be otherwise.
    pub mergeable: bool,
}

/// How it is seen that something was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletes {
    /// The list of what is archived shows it, with the time.
    Archived,
    /// Only by its absence from the list.
    Absence,
}

/// A content resource. Its addresses have no dated version: always `/cms/v3/…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CmsResource {
    /// `cms.blogs.posts`.
    pub collection: &'static str,
    /// `/cms/v3/blogs/posts`.
    pub path: &'static str,
    /// The member that tells when it was made, and the word to sort by it.
    pub created: &'static str,
    /// The member that tells when it was changed, and the word to sort by it.
    pub updated: &'static str,
    /// How deletes are seen.
    pub deletes: Deletes,
    /// What stands behind the id where something is changed: HubDB tables are changed as drafts.
    update_suffix: &'static str,
}

/// A write to one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// A new one.
    Create,
    /// Some of its members.
    Update,
    /// To where HubSpot keeps what was deleted.
    Delete,
}

/// What Conduit's connector and HubSpot call a CRM object type.
struct Known {
    conduit: &'static str,
    object: &'static str,
    singular: &'static str,
    type_id: &'static str,
    created: &'static str,
    mergeable: bool,
    /// Read when nothing is asked for, beside the id and both dates.
    defaults: &'static [&'static str],
}

const fn known(
    conduit: &'static str,
    object: &'static str,
    singular: &'static str,
    type_id: &'static str,
    created: &'static str,
    defaults: &'static [&'static str],
) -> Known {
    Known { conduit, object, singular, type_id, created, mergeable: false, defaults }
}

const fn merging(known: Known) -> Known {
    Known { mergeable: true, ..known }
}

/// Conduit's 13.
const CRM: [Known; 13] = [
    merging(known("companies", "companies", "company", "0-2", "createdate", &["name", "domain"])),
    merging(known("contacts", "contacts", "contact", "0-1", "createdate", &["email", "firstname", "lastname"])),
    merging(known(
        "deals",
        "deals",
        "deal",
        "0-3",
        "createdate",
        &["dealname", "amount", "closedate", "pipeline", "dealstage"],
    )),
    known("feedbackSubmissions", "feedback_submissions", "feedback_submission", "0-19", "hs_createdate", &[]),
    known("lineItems", "line_items", "line_item", "0-8", "createdate", &["quantity", "amount", "price"]),
    known("products", "products", "product", "0-7", "createdate", &["name", "description", "price"]),
    merging(known(
        "tickets",
        "tickets",
        "ticket",
        "0-5",
        "createdate",
        &["content", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_category", "hs_ticket_priority", "subject"],
    )),
    known("quotes", "quotes", "quote", "0-14", "hs_createdate", &[]),
    known("calls", "calls", "call", "0-48", "hs_createdate", &[]),
    known("emails", "emails", "email", "0-49", "hs_createdate", &[]),
    known("meetings", "meetings", "meeting", "0-47", "hs_createdate", &[]),
    known("notes", "notes", "note", "0-46", "hs_createdate", &[]),
    known("tasks", "tasks", "task", "0-27", "hs_createdate", &[]),
];

const fn cms(
    collection: &'static str,
    path: &'static str,
    created: &'static str,
    updated: &'static str,
    deletes: Deletes,
) -> CmsResource {
    CmsResource { collection, path, created, updated, deletes, update_suffix: "" }
}

/// Conduit's 7.
const CMS: [CmsResource; 7] = [
    cms("cms.blogs.authors", "/cms/v3/blogs/authors", "created", "updated", Deletes::Archived),
    cms("cms.blogs.posts", "/cms/v3/blogs/posts", "created", "updated", Deletes::Archived),
    cms("cms.blogs.tags", "/cms/v3/blogs/tags", "created", "updated", Deletes::Archived),
    cms("cms.pages.landing", "/cms/v3/pages/landing-pages", "createdAt", "updatedAt", Deletes::Archived),
    cms("cms.pages.site", "/cms/v3/pages/site-pages", "createdAt", "updatedAt", Deletes::Archived),
    CmsResource {
        update_suffix: "/draft",
        ..cms("cms.hubdb.tables", "/cms/v3/hubdb/tables", "createdAt", "updatedAt", Deletes::Absence)
    },
    cms("cms.urlRedirects", "/cms/v3/url-redirects", "createdAt", "updatedAt", Deletes::Absence),
];

impl Resource {
    /// By Conduit's name (`crm.contacts`, `cms.blogs.posts`), or any name that HubSpot knows an object type by (`contacts`, `0-1`, `crm.leads`, `2-123`,
    /// `p1_car`, `cars`). `CONFIG_INVALID` for what cannot be one, and for content that is not among the seven.
    pub fn parse(name: &str) -> Result<Self> {
        let name = name.trim();
        if let Some(content) = CMS.iter().find(|content| content.collection == name) {
            return Ok(Self::Cms(*content));
        }
        let (prefixed, object) = match name.strip_prefix("crm.") {
            Some(object) => (true, object),
            None => (false, name),
        };
        if let Some(known) = Known::named(object) {
            return Ok(Self::Crm(known.resource()));
        }
        let speakable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if object.is_empty() || object.len() > NAME_BYTES_MAX || !object.bytes().all(speakable) {
            return Err(unknown(name));
        }
        let object = if prefixed && !fully_qualified(object) { snake_case(object) } else { object.to_owned() };
        // Of HubSpot's own types only those above can be merged; a type of the account's own can, and a bare name may be one.
        let mergeable = !object.starts_with("0-");
        Ok(Self::Crm(CrmResource { collection: format!("crm.{object}"), object: ObjectType(object), mergeable }))
    }

    /// All names of [`Resource::parse`] that Conduit's connector has too.
    pub fn names() -> Vec<String> {
        let content = CMS.iter().map(|content| content.collection.to_owned());
        content.chain(CRM.iter().map(|known| format!("crm.{}", known.conduit))).collect()
    }

    /// Its name in `opencdc.collection`.
    pub fn collection(&self) -> &str {
        match self {
            Self::Crm(resource) => &resource.collection,
            Self::Cms(resource) => resource.collection,
        }
    }

    /// How deletes are seen.
    pub fn deletes(&self) -> Deletes {
        match self {
            Self::Crm(_) => Deletes::Archived,
            Self::Cms(resource) => resource.deletes,
        }
    }
}

impl CrmResource {
    /// The property that tells when a record was changed.
    pub fn modified_property(&self) -> &'static str {
        if self.object.is_contacts() { "lastmodifieddate" } else { "hs_lastmodifieddate" }
    }

    /// The property that tells when a record was made.
    pub fn created_property(&self) -> &'static str {
        Known::named(self.object.as_str()).map_or("hs_createdate", |known| known.created)
    }

    /// What HubSpot shows when nothing is asked for: the id and both dates among it.
    pub fn default_properties(&self) -> Vec<&'static str> {
        let own = Known::named(self.object.as_str()).map_or(&[][..], |known| known.defaults);
        let dates = [self.created_property(), self.modified_property(), "hs_object_id"];
        own.iter().copied().chain(dates).collect()
    }

    /// Where a batch of up to 100 such writes goes; all are `POST`.
    pub fn write(&self, paths: &Paths, write: Write) -> String {
        let rest = match write {
            Write::Create => "batch/create",
            Write::Update => "batch/update",
            Write::Delete => "batch/archive",
        };
        paths.objects(&self.object, rest)
    }
}

impl CmsResource {
    /// Where one of them is.
    pub fn one(&self, id: &str) -> String {
        let mut path = format!("{}/", self.path);
        percent_encode(&mut path, id);
        path
    }

    /// How and where one of them is written; a new one has no `id` yet.
    pub fn write(&self, write: Write, id: &str) -> (Method, String) {
        match write {
            Write::Create => (Method::POST, self.path.to_owned()),
            Write::Update => (Method::PATCH, self.one(id) + self.update_suffix),
            Write::Delete => (Method::DELETE, self.one(id)),
        }
    }

    /// What makes a draft that was written the thing itself; `None` where writes take effect by themselves.
    pub fn publish(&self, id: &str) -> Option<String> {
        (!self.update_suffix.is_empty()).then(|| self.one(id) + self.update_suffix + "/publish")
    }
}

impl Known {
    fn named(name: &str) -> Option<&'static Self> {
        CRM.iter().find(|known| [known.conduit, known.object, known.singular, known.type_id].contains(&name))
    }

    fn resource(&self) -> CrmResource {
        CrmResource {
            collection: format!("crm.{}", self.conduit),
            object: ObjectType(self.object.to_owned()),
            mergeable: self.mergeable,
        }
    }
}

/// `p123_car`: the account's number and the type's name.
fn fully_qualified(name: &str) -> bool {
    let number = name.strip_prefix('p').and_then(|rest| rest.split_once('_')).map(|(number, _)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `marketingEvents` as `marketing_events`.
fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before_is_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && before_is_lower {
            out.push('_');
        }
        before_is_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn unknown(name: &str) -> Error {
    let names = Resource::names();
    let full = if name.is_empty() || name.contains('.') { name.to_owned() } else { format!("crm.{name}") };
    let near = nearest(&full, names.iter().map(String::as_str), NEAREST_TOLD);
    let shown: String = name.chars().take(60).collect();
    let message = if near.is_empty() {
        let content = CMS.map(|content| content.collection).join(", ");
        format!(
            "`{shown}` is no resource: an object type is letters, digits, `_` and `-`, and content is one of {content}"
        )
    } else {
        format!("`{shown}` is no resource; near it: {}", near.join(", "))
    };
    Error::invalid(codes::CONFIG_INVALID, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crm(name: &str) -> CrmResource {
        match Resource::parse(name).unwrap() {
            Resource::Crm(resource) => resource,
            Resource::Cms(resource) => panic!("{resource:?}"),
        }
    }

    #[test]
    fn every_name_leads_to_one_collection_and_one_object_type() {
        let table = [
            ("crm.contacts", "crm.contacts", "contacts"),
            ("contacts", "crm.contacts", "contacts"),
            ("contact", "crm.contacts", "contacts"),
            ("0-1", "crm.contacts", "contacts"),
            ("crm.lineItems", "crm.lineItems", "line_items"),
            ("line_items", "crm.lineItems", "line_items"),
            ("crm.feedbackSubmissions", "crm.feedbackSubmissions", "feedback_submissions"),
            ("crm.leads", "crm.leads", "leads"),
            ("crm.marketingEvents", "crm.marketing_events", "marketing_events"),
            ("2-123", "crm.2-123", "2-123"),
            ("p1_Car", "crm.p1_Car", "p1_Car"),
            ("crm.p1_myCar", "crm.p1_myCar", "p1_myCar"),
            (" cars ", "crm.cars", "cars"),
        ];
        for (name, collection, object) in table {
            let resource = crm(name);
            assert_eq!((resource.collection.as_str(), resource.object.as_str()), (collection, object), "{name}");
            // A name that was written into a record leads back to the same resource.
            assert_eq!(crm(collection), resource, "{name}");
        }
        assert_eq!(Resource::names().len(), 20);
        for name in Resource::names() {
            assert_eq!(Resource::parse(&name).unwrap().collection(), name);
        }
    }

    #[test]
    fn what_differs_from_type_to_type() {
        assert_eq!(crm("contacts").modified_property(), "lastmodifieddate");
        assert_eq!(crm("crm.leads").modified_property(), "hs_lastmodifieddate");
        let created = |name: &str| crm(name).created_property();
        assert_eq!(
            (created("products"), created("quotes"), created("2-5")),
            ("createdate", "hs_createdate", "hs_createdate")
        );
        assert_eq!(
            crm("companies").default_properties(),
            ["name", "domain", "createdate", "hs_lastmodifieddate", "hs_object_id"]
        );
        assert_eq!(crm("crm.notes").default_properties(), ["hs_createdate", "hs_lastmodifieddate", "hs_object_id"]);
        let mergeable: Vec<_> =
            ["contacts", "tickets", "2-5", "cars", "notes", "0-136"].map(|name| crm(name).mergeable).into();
        assert_eq!(mergeable, [true, true, true, true, false, false]);
    }

    #[test]
    fn unknown_content_is_refused_with_the_nearest_names() {
        for (name, expected) in [
            ("cms.blog.posts", "cms.blogs.posts"),
            ("cms.urlredirects", "cms.urlRedirects"),
            ("cms.nothing.of.the.kind", "cms.hubdb.tables"),
            ("", "cms.blogs.authors"),
            ("contacts/1", "crm.contacts"),
        ] {
            let error = Resource::parse(name).unwrap_err();
            assert_eq!(error.code(), codes::CONFIG_INVALID);
            assert!(error.message().contains(expected), "{error}");
        }
    }

    #[test]
    fn drafts_are_changed_and_published_and_everything_else_is_changed_in_place() {
        let content = |name: &str| match Resource::parse(name).unwrap() {
            Resource::Cms(resource) => resource,
            Resource::Crm(resource) => panic!("{resource:?}"),
        };
        let (posts, tables) = (content("cms.blogs.posts"), content("cms.hubdb.tables"));
        assert_eq!(posts.write(Write::Update, "a/b"), (Method::PATCH, "/cms/v3/blogs/posts/a%2Fb".to_owned()));
        assert_eq!(tables.write(Write::Update, "7"), (Method::PATCH, "/cms/v3/hubdb/tables/7/draft".to_owned()));
        assert_eq!(tables.write(Write::Delete, "7"), (Method::DELETE, "/cms/v3/hubdb/tables/7".to_owned()));
        assert_eq!(
            (posts.publish("1"), tables.publish("7").as_deref()),
            (None, Some("/cms/v3/hubdb/tables/7/draft/publish"))
        );
    }
}
