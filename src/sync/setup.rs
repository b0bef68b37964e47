//! What a sync needs in both systems before it can begin.

use serde::Serialize;

use super::{
    fields::{self, Need},
    find,
    run::schemas,
};
use crate::{
    app::App,
    clock::Deadline,
    error::Result,
    hubspot::{
        properties::{NewProperty, SchemaParts},
        resources::Resource,
    },
};

/// What is there of what a sync needs, and what is wrong with its fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setup {
    /// The HubSpot property that holds Salesforce's id: one line of text with unique values.
    pub hubspot_property: String,
    /// Whether it is there.
    pub hubspot: Need,
    /// The Salesforce field that holds HubSpot's id: text of 20 characters, external id, unique.
    pub salesforce_field: String,
    /// Whether it is there.
    pub salesforce: Need,
    /// The HubSpot property was made just now.
    pub created: bool,
    /// What is wrong with the sync's `fields`.
    pub problems: Vec<String>,
}

/// Looks at what the sync `name` needs; with `create` makes the HubSpot property if it is missing. Fields of Salesforce are for an
/// administrator to make: the API that could is not one that an integration user should have.
pub async fn setup(app: &App, name: &str, create: bool, deadline: Deadline) -> Result<Setup> {
    let sync = find(app, name)?;
    let account = app.account(&sync.hubspot)?;
    let org = app.org(&sync.salesforce)?;
    let (links, mut hubspot, salesforce) = schemas(&sync, &account, &org, deadline).await?;
    let mut need = fields::hubspot_need(&links, &hubspot);
    let mut created = false;
    if create && need == Need::Missing {
        let object = match Resource::parse(sync.hubspot_object.as_str())? {
            Resource::Crm(crm) => crm.object,
            Resource::Cms(_) => sync.hubspot_object.clone(),
        };
        // In the group of a property that is synced: every object has one, by a name of its own.
        let group = sync
            .fields
            .iter()
            .find_map(|field| hubspot.properties.get(&field.hubspot))
            .map(|one| one.group_name.clone());
        let property = NewProperty {
            name: links.hubspot_property.clone(),
            label: format!("Salesforce {} id", sync.salesforce_object),
            group_name: group.unwrap_or_default(),
            kind: "string".to_owned(),
            field_type: "text".to_owned(),
            has_unique_value: true,
            options: Vec::new(),
        };
        account.create_property(&object, &property, deadline).await?;
        hubspot = account.schema(&object, SchemaParts::default(), deadline).await?;
        need = fields::hubspot_need(&links, &hubspot);
        created = true;
    }
    let problems = fields::compile(&sync, &links, &hubspot, &salesforce).err().unwrap_or_default();
    Ok(Setup {
        hubspot: need,
        salesforce: fields::salesforce_need(&links, &salesforce),
        hubspot_property: links.hubspot_property,
        salesforce_field: links.salesforce_field,
        created,
        problems,
    })
}
