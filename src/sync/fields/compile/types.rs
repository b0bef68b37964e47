//! What two fields' types make of a pair: how it is compared, and which options each side has.

use std::collections::BTreeMap;

use super::{
    super::{
        choices::{Choice, Choices, Side},
        pair::{HubspotForm, Kind, SalesforceForm},
    },
    Compiler, suggestion,
};
use crate::{
    config::SyncField,
    hubspot::model::PropertyDefinition,
    mapping::{holds_owners, holds_pipelines, holds_stages},
    salesforce::{describe::FieldSchema, model::SalesforceId},
};

impl Compiler<'_> {
    pub(super) fn kind(
        &mut self,
        field: &SyncField,
        property: &PropertyDefinition,
        own: Option<&FieldSchema>,
        in_hubspot: HubspotForm,
        in_salesforce: SalesforceForm,
    ) -> Option<Kind> {
        use HubspotForm as H;
        use SalesforceForm as S;
        let is_text = matches!(in_hubspot, H::Text) || matches!(in_salesforce, S::Text { .. } | S::Parent);
        let kind = match (in_hubspot, in_salesforce) {
            (H::Options { .. }, S::Reference) if field.values.is_empty() => {
                self.problem(format_args!(
                    "HubSpot's `{}` holds options, and Salesforce's `{}` ids of records. Say which is which: `values: {{ 005…: option }}`.",
                    property.name, field.salesforce
                ));
                return None;
            }
            (H::Options { several: true }, S::Boolean) => None,
            (H::Options { .. }, S::Picklist { .. } | S::Boolean | S::Text { .. } | S::Parent | S::Reference)
            | (H::Text | H::Boolean, S::Picklist { .. }) => {
                return Some(self.choice(field, property, own, in_hubspot, in_salesforce));
            }
            (H::Number, S::Number { .. }) => Some(Kind::Number),
            (H::Boolean, S::Boolean) => Some(Kind::Boolean),
            (H::Day, S::Day | S::Moment) | (H::Moment, S::Day) => Some(Kind::Day),
            (H::Moment, S::Moment) => Some(Kind::Moment),
            // A text takes every type's plain form.
            (H::Text, S::Text { .. } | S::Parent) => Some(self.text_kind(property, own)),
            (H::Text, S::Number { .. }) | (H::Number, _) if is_text => Some(Kind::Number),
            (H::Text, S::Boolean) | (H::Boolean, _) if is_text => Some(Kind::Boolean),
            (H::Text, S::Day) | (H::Day, _) if is_text => Some(Kind::Day),
            (H::Text, S::Moment) | (H::Moment, _) if is_text => Some(Kind::Moment),
            (H::Text, S::Reference) => Some(Kind::Id),
            _ => None,
        };
        let type_of_own = own.map(|own| own.kind.as_str()).unwrap_or_default();
        if kind.is_none() {
            self.problem(format_args!(
                "HubSpot's `{}` is of type {}, and Salesforce's `{}` of type {type_of_own}: they cannot be kept in step. Map fields of like types; a text goes with every type.",
                property.name, property.kind, field.salesforce,
            ));
        } else if !field.values.is_empty() {
            self.problem(format_args!(
                "`values` says which option is which, and neither HubSpot's `{}` nor Salesforce's `{}` has options. Take `values` out.",
                property.name, field.salesforce
            ));
        }
        kind
    }

    fn text_kind(&self, property: &PropertyDefinition, own: Option<&FieldSchema>) -> Kind {
        let type_of_own = own.map(|own| own.kind.as_str()).unwrap_or_default();
        let is_address = self.hubspot.object.is_contacts() && property.name == "email";
        if is_address || type_of_own == "email" {
            Kind::Email
        } else if self.hubspot.object.is_companies() && property.name == "domain" {
            Kind::Domain
        } else if type_of_own == "phone" || property.kind == "phone_number" || property.field_type == "phonenumber" {
            Kind::Phone
        } else {
            Kind::Text
        }
    }

    fn choice(
        &mut self,
        field: &SyncField,
        property: &PropertyDefinition,
        own: Option<&FieldSchema>,
        in_hubspot: HubspotForm,
        in_salesforce: SalesforceForm,
    ) -> Kind {
        let mut hubspot = self.hubspot_side(property, in_hubspot);
        let mut salesforce = salesforce_side(own, in_salesforce);
        // A text takes several where the other side has several.
        if matches!(in_salesforce, SalesforceForm::Text { .. } | SalesforceForm::Parent) {
            salesforce.is_several = hubspot.is_several;
        }
        if in_hubspot == HubspotForm::Text {
            hubspot.is_several = salesforce.is_several;
        }
        let is_reference = in_salesforce == SalesforceForm::Reference;
        let given: BTreeMap<String, String> = (field.values.iter())
            .map(|(from, to)| match SalesforceId::parse(from) {
                Ok(id) if is_reference => (id.as_str().to_owned(), to.clone()),
                _ => (from.clone(), to.clone()),
            })
            .collect();
        let is_stage = holds_stages(&self.hubspot.object, property);
        let (choices, unknown) = Choices::new(hubspot, salesforce, &given, is_stage);
        for (value, near) in unknown {
            let near: Vec<&str> = near.as_deref().into_iter().collect();
            self.problem(format_args!(
                "`values`: HubSpot's `{}` has no option `{value}`.{} Correct it, or add the option in HubSpot.",
                property.name,
                suggestion(&near)
            ));
        }
        for value in given.keys() {
            let is_known =
                if is_reference { SalesforceId::parse(value).is_ok() } else { choices.is_of_salesforce(value) };
            if !is_known {
                let near = choices.nearest_in_salesforce(value);
                let near: Vec<&str> = near.as_deref().into_iter().collect();
                self.problem(format_args!(
                    "`values`: Salesforce's `{}` has no value `{value}`.{} `values` has Salesforce's values on the left and HubSpot's on the right.",
                    field.salesforce,
                    suggestion(&near)
                ));
            }
        }
        Kind::Choice(Box::new(choices))
    }

    fn hubspot_side(&self, property: &PropertyDefinition, form: HubspotForm) -> Side {
        let choice =
            |value: &str, label: &str| Choice { value: value.to_owned(), label: label.to_owned(), is_active: true };
        let mut choices: Vec<Choice> =
            property.options.iter().map(|option| choice(&option.value, &option.label)).collect();
        let object = &self.hubspot.object;
        if form == HubspotForm::Boolean {
            choices.extend([choice("true", "Yes"), choice("false", "No")]);
        } else if holds_owners(property) {
            let owners = self.hubspot.owners.iter().filter(|owner| !owner.archived);
            choices.extend(owners.map(|owner| choice(&owner.id, owner.email.as_deref().unwrap_or_default())));
        } else if holds_pipelines(object, property) {
            let pipelines = self.hubspot.pipelines.iter().filter(|pipeline| !pipeline.archived);
            choices.extend(pipelines.map(|pipeline| choice(&pipeline.id, &pipeline.label)));
        } else if holds_stages(object, property) {
            let pipelines = self.hubspot.pipelines.iter().filter(|pipeline| !pipeline.archived);
            let stages = pipelines.flat_map(|pipeline| pipeline.stages.iter()).filter(|stage| !stage.archived);
            choices.extend(stages.map(|stage| choice(&stage.id, &stage.label)));
        }
        let is_open = form == HubspotForm::Text || (choices.is_empty() && property.external_options);
        Side { choices, is_open, is_several: form == HubspotForm::Options { several: true } }
    }
}

pub(super) fn hubspot_form(property: &PropertyDefinition) -> HubspotForm {
    match property.kind.as_str() {
        "number" => HubspotForm::Number,
        "bool" => HubspotForm::Boolean,
        "date" => HubspotForm::Day,
        "datetime" => HubspotForm::Moment,
        "enumeration" if property.field_type == "booleancheckbox" => HubspotForm::Boolean,
        "enumeration" => HubspotForm::Options { several: property.field_type == "checkbox" },
        _ => HubspotForm::Text,
    }
}

pub(super) fn salesforce_form(own: &FieldSchema) -> Option<SalesforceForm> {
    let scale = usize::try_from(own.scale).ok()?;
    Some(match own.kind.as_str() {
        "string" | "textarea" | "email" | "phone" | "url" | "combobox" | "encryptedstring" => {
            SalesforceForm::Text { length: own.length }
        }
        "boolean" => SalesforceForm::Boolean,
        "int" | "long" | "double" | "currency" | "percent" => {
            // Whole numbers state no precision.
            let whole = own.precision.checked_sub(own.scale).filter(|whole| *whole > 0);
            SalesforceForm::Number { scale, whole: whole.and_then(|whole| usize::try_from(whole).ok()) }
        }
        "date" => SalesforceForm::Day,
        "datetime" => SalesforceForm::Moment,
        "reference" | "id" => SalesforceForm::Reference,
        "picklist" => SalesforceForm::Picklist { several: false },
        "multipicklist" => SalesforceForm::Picklist { several: true },
        _ => return None,
    })
}

fn salesforce_side(own: Option<&FieldSchema>, form: SalesforceForm) -> Side {
    let listed = own.into_iter().flat_map(|own| &own.picklist_values);
    let mut choices: Vec<Choice> = listed
        .map(|value| Choice { value: value.value.clone(), label: value.label.clone(), is_active: value.active })
        .collect();
    if form == SalesforceForm::Boolean {
        let choice =
            |value: &str, label: &str| Choice { value: value.to_owned(), label: label.to_owned(), is_active: true };
        choices = vec![choice("true", "Yes"), choice("false", "No")];
    }
    let is_open = match form {
        SalesforceForm::Text { .. } | SalesforceForm::Parent => true,
        SalesforceForm::Picklist { .. } => own.is_some_and(|own| !own.restricted_picklist),
        _ => false,
    };
    Side { choices, is_open, is_several: form == SalesforceForm::Picklist { several: true } }
}
