//! Property definitions, owners, pipelines and the account's details: what a mapping is checked against.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    account::{Account, Answer, Call, describe},
    envelope::Refusal,
    model::{AccountDetails, ObjectSchema, Owner, Pipeline, PropertyDefinition, PropertyOption},
};
use crate::{Error, Result, clock::Deadline, codes, record::ObjectType};

/// How often a list of properties that is empty is asked for.
const LIST_TRIES_MAX: u32 = 3;

/// How long definitions are believed.
pub const SCHEMA_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// HubSpot's largest page of owners.
const OWNERS_PAGE: &str = "500";

/// 100,000 owners; a cursor that never ends must not hold the run.
const OWNER_PAGES_MAX: usize = 200;

/// A new property is readable after 250 to 700 ms.
const VISIBLE_WAIT: Duration = Duration::from_millis(300);
const VISIBLE_TRIES_MAX: u32 = 20;

/// What to fetch beside the property definitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchemaParts {
    /// Owners, where a mapped property holds them.
    pub owners: bool,
    /// Pipelines, where a mapped property holds them or their stages.
    pub pipelines: bool,
}

pub(super) struct CachedSchema {
    at: Duration,
    parts: SchemaParts,
    schema: Rc<ObjectSchema>,
}

/// A property to create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewProperty {
    /// Internal name: lower-case letters, digits, `_`; starts with a letter.
    pub name: String,
    /// What people see.
    pub label: String,
    /// `string`, `number`, `bool`, `date`, `datetime`, `enumeration`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `text`, `number`, `date`, `select`, `booleancheckbox`, …
    pub field_type: String,
    /// The group it is listed in, for example `contactinformation`.
    pub group_name: String,
    /// Whether it can identify records; cannot be changed later.
    pub has_unique_value: bool,
    /// Of enumerations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<PropertyOption>,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default = "Vec::new")]
    results: Vec<T>,
    paging: Option<Paging>,
}

#[derive(Deserialize)]
struct Paging {
    next: Option<Next>,
}

#[derive(Deserialize)]
struct Next {
    after: Option<String>,
}

impl Account {
    /// Everything about `object` that a mapping needs, at most ten minutes old.
    pub async fn schema(
        &self,
        object: &ObjectType,
        parts: SchemaParts,
        deadline: Deadline,
    ) -> Result<Rc<ObjectSchema>> {
        let now = self.parts.clock.elapsed();
        if let Some(cached) = self.schemas.borrow().get(object)
            && now.saturating_sub(cached.at) < SCHEMA_AGE_MAX
            && cached.parts.owners >= parts.owners
            && cached.parts.pipelines >= parts.pipelines
        {
            return Ok(Rc::clone(&cached.schema));
        }
        let mut list: Page<PropertyDefinition> = Page { results: Vec::new(), paging: None };
        for _ in 0..LIST_TRIES_MAX {
            list = self.page(Call::get(self.paths.properties(object, "")), deadline).await?;
            if !list.results.is_empty() {
                break;
            }
        }
        if list.results.is_empty() {
            // Every object has some: a mapping checked against none would be told to be wrong in every place.
            let message = format!("HubSpot lists no property of {object}");
            return Err(Error::new(crate::ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message));
        }
        let properties = list
            .results
            .into_iter()
            .filter(|property| !property.archived)
            .map(|property| (property.name.clone(), property));
        let mut schema = ObjectSchema {
            object: object.clone(),
            properties: properties.collect(),
            owners: Vec::new(),
            pipelines: Vec::new(),
        };
        if parts.owners {
            schema.owners = self.owners(deadline).await?;
        }
        if parts.pipelines {
            schema.pipelines =
                self.page::<Page<Pipeline>>(Call::get(self.paths.pipelines(object)), deadline).await?.results;
        }
        let schema = Rc::new(schema);
        self.schemas.borrow_mut().insert(object.clone(), CachedSchema { at: now, parts, schema: Rc::clone(&schema) });
        Ok(schema)
    }

    async fn owners(&self, deadline: Deadline) -> Result<Vec<Owner>> {
        let mut owners = Vec::new();
        let mut after = None;
        for _ in 0..OWNER_PAGES_MAX {
            let mut call = Call::get(self.paths.owners());
            call.query.push(("limit", OWNERS_PAGE.to_owned()));
            call.query.extend(after.take().map(|after| ("after", after)));
            let page: Page<Owner> = self.page(call, deadline).await?;
            owners.extend(page.results);
            after = page.paging.and_then(|paging| paging.next?.after);
            if after.is_none() {
                break;
            }
        }
        Ok(owners)
    }

    async fn page<T: DeserializeOwned>(&self, call: Call, deadline: Deadline) -> Result<T> {
        let what = format!("{} {}", call.method, call.path);
        self.call(call, deadline).await?.json(&what)
    }

    /// One thing, where an answer that says nothing of it (seen as an empty list of results) is asked for again.
    pub(super) async fn told<T: DeserializeOwned + Default + PartialEq>(
        &self,
        call: Call,
        deadline: Deadline,
    ) -> Result<T> {
        let what = format!("{} {}", call.method, call.path);
        for _ in 0..LIST_TRIES_MAX {
            let told: T = self.call(call.clone(), deadline).await?.json(&what)?;
            if told != T::default() {
                return Ok(told);
            }
        }
        let message = format!("{what}: HubSpot's answer says nothing");
        Err(Error::new(crate::ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message))
    }

    /// Creates a property and returns its definition when it can be seen. One that exists already is fine; the caller checks that definition.
    ///
    /// A success that says nothing of the property (seen as an empty list of results) proves neither that it was made nor that it is there.
    pub async fn create_property(
        &self,
        object: &ObjectType,
        property: &NewProperty,
        deadline: Deadline,
    ) -> Result<PropertyDefinition> {
        let body = serde_json::to_vec(property).map_err(|error| {
            Error::invalid(codes::HUBSPOT_REFUSED, "a property cannot be encoded").with_source(error)
        })?;
        let mut call = Call::post(self.paths.properties(object, ""), Bytes::from(body));
        call.private = false;
        let told = |answer: &Answer| {
            let definition: Option<PropertyDefinition> = serde_json::from_slice(&answer.body).ok();
            definition.filter(|definition| answer.status.is_success() && definition.name == property.name)
        };
        for _ in 0..LIST_TRIES_MAX {
            let answer = self.ask(call.clone(), deadline).await?;
            if told(&answer).is_some() || answer.status == StatusCode::CONFLICT {
                break;
            }
            if !answer.status.is_success() {
                let told = describe(answer.status, &Refusal::of_body(&answer.body), false);
                let message = format!("creating property `{}` of {object}: {told}", property.name);
                return Err(Error::invalid(codes::HUBSPOT_REFUSED, message));
            }
        }
        self.schemas.borrow_mut().remove(object);
        for _ in 0..VISIBLE_TRIES_MAX {
            let seen = self.ask(Call::get(self.paths.properties(object, &property.name)), deadline).await?;
            if let Some(definition) = told(&seen) {
                return Ok(definition);
            }
            self.pause(VISIBLE_WAIT).await;
        }
        let message = format!("property `{}` of {object} was created and does not show up", property.name);
        Err(Error::new(crate::ErrorKind::Unavailable { retry_after: None }, codes::HUBSPOT_UNAVAILABLE, message))
    }

    /// Forgets the definitions of an object, so that the next [`Account::schema`] asks.
    pub fn forget_schema(&self, object: &ObjectType) {
        self.schemas.borrow_mut().remove(object);
    }

    /// The account's id and time zone; asked once. The day's limit ends at this zone's midnight from then on.
    pub async fn details(&self, deadline: Deadline) -> Result<AccountDetails> {
        if let Some(details) = self.details.borrow().clone() {
            return Ok(details);
        }
        let details: AccountDetails = self.told(Call::get(self.paths.details()), deadline).await?;
        if let Ok(zone) = jiff::tz::TimeZone::get(&details.time_zone) {
            self.limiter.set_time_zone(zone);
        }
        *self.details.borrow_mut() = Some(details.clone());
        Ok(details)
    }
}
