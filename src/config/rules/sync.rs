//! What no schema can say about syncs, each alone and beside the others.

use std::collections::BTreeMap;

use super::{Place, Rules, nearest, quoted};
use crate::{
    config::{Amount, SalesforceOrg, Sync, SyncCreate, SyncDeletes, SyncRule},
    salesforce::model::SalesforceId,
};

/// Ids of orgs begin so.
const ORG_PREFIX: &str = "00D";
/// Objects for whose cross-ids there are usual names.
const USUALLY_LINKED: [&str; 5] = ["contacts", "companies", "deals", "leads", "tickets"];
/// Properties of HubSpot's own connector to Salesforce.
const NATIVE_IDS: [&str; 4] =
    ["salesforcecontactid", "salesforceleadid", "salesforceaccountid", "salesforceopportunityid"];

impl Rules<'_> {
    pub(super) fn org(&mut self, org: &SalesforceOrg, place: &Place) {
        if let Some(id) = &org.org_id
            && !SalesforceId::parse(id.trim()).is_ok_and(|id| id.prefix() == ORG_PREFIX)
        {
            self.problem(
                &place.key("org_id"),
                format!("{} is no org's id: 15 or 18 characters that begin with {ORG_PREFIX}", quoted(id)),
            );
        }
        let place = place.key("quota");
        for (key, amount) in [("org", org.quota.org), ("run", org.quota.run)] {
            if matches!(amount, Amount::Count(0)) || matches!(amount, Amount::Share(share) if share <= 0.0) {
                self.problem(&place.key(key), "leaves hubferry no call; use more than 0");
            }
        }
        let is_more = match (org.quota.run, org.quota.org) {
            (Amount::Share(run), Amount::Share(all)) => all > 0.0 && run > all,
            (Amount::Count(run), Amount::Count(all)) => all > 0 && run > all,
            _ => false,
        };
        if is_more {
            self.problem(&place.key("run"), "is more than `org`, which a run never passes");
        }
    }

    /// Each of them alone.
    pub(super) fn sync(&mut self, sync: &Sync, place: &Place) {
        for (key, text) in
            [("hubspot_object", sync.hubspot_object.as_str()), ("salesforce_object", sync.salesforce_object.as_str())]
        {
            if text.trim().is_empty() {
                self.problem(&place.key(key), "is blank");
            }
        }
        let fields = place.key("fields");
        if sync.fields.is_empty() && !self.damaged(&fields) {
            self.problem(&fields, "is empty; name at least one pair of fields");
        }
        let (mut properties, mut salesforce) = (BTreeMap::new(), BTreeMap::new());
        for (index, field) in sync.fields.iter().enumerate() {
            let place = fields.index(index);
            let sides =
                [("hubspot", &field.hubspot, &mut properties), ("salesforce", &field.salesforce, &mut salesforce)];
            for (key, name, seen) in sides {
                let place = place.key(key);
                if name.trim().is_empty() {
                    self.problem(&place, "is blank");
                } else if let Some(first) = seen.insert(name.to_lowercase(), index) {
                    self.problem(
                        &place,
                        format!("{} is in fields[{first}] already; name each field once", quoted(name)),
                    );
                }
            }
            if field.on_conflict.is_some() && field.rule != SyncRule::TwoWay {
                self.problem(
                    &place.key("on_conflict"),
                    "has no meaning here: only `rule: two_way` has conflicts, the other rules say who wins",
                );
            }
            if field.rule == SyncRule::AlwaysSalesforce {
                for (key, said) in [("truncate", field.truncate), ("strict", field.strict)] {
                    if said {
                        self.problem(
                            &place.key(key),
                            "has no meaning here: with `rule: always_salesforce` nothing is written there",
                        );
                    }
                }
            }
            if field.placeholder.as_ref().is_some_and(|text| text.trim().is_empty()) {
                self.problem(&place.key("placeholder"), "is blank; Salesforce takes a blank for no value");
            }
            if let Some(value) = field.values.iter().find_map(|(theirs, ours)| {
                let is_blank = theirs.trim().is_empty() || ours.trim().is_empty();
                is_blank.then_some(theirs)
            }) {
                self.problem(&place.key("values").key(value), "maps a blank; blank is blank on both sides");
            }
        }
        self.matched_by(sync, place, &fields);
        self.links(sync, place);
        self.limits(sync, place);
    }

    fn matched_by(&mut self, sync: &Sync, place: &Place, fields: &Place) {
        let Some(wanted) = &sync.matched_by else { return };
        let place = place.key("match");
        let is = |name: &str, other: &str| name.trim().eq_ignore_ascii_case(other.trim());
        let pair = sync
            .fields
            .iter()
            .find(|field| is(&field.hubspot, &wanted.hubspot) && is(&field.salesforce, &wanted.salesforce));
        match pair {
            Some(field) if field.rule == SyncRule::DontSync => {
                self.problem(&place, "names a pair that is not synced; records are recognised by one that is");
            }
            Some(_) => {}
            None if self.damaged(fields) => {}
            None => {
                let text = format!(
                    "{} and {} are no pair of `fields`; name one that is",
                    quoted(&wanted.hubspot),
                    quoted(&wanted.salesforce)
                );
                self.problem(&place, text);
            }
        }
    }

    fn links(&mut self, sync: &Sync, place: &Place) {
        let place = place.key("links");
        let Some(links) = &sync.links else {
            let object = sync.hubspot_object.as_str();
            if !USUALLY_LINKED.contains(&object) && !object.trim().is_empty() && !self.disputed(&place) {
                self.problem(
                    &place,
                    format!(
                        "missing; for {} there are no usual names: give `hubspot_property` and `salesforce_field`",
                        quoted(object)
                    ),
                );
            }
            return;
        };
        let property = links.hubspot_property.trim();
        let at = place.key("hubspot_property");
        if !is_property_name(property) {
            let text = format!(
                "{} is no name of a property: lower-case letters, digits and `_`, a letter first",
                quoted(property)
            );
            self.problem(&at, text);
        } else if property.starts_with("hs_") || NATIVE_IDS.contains(&property) {
            self.problem(&at, format!("{} is HubSpot's own; name one for hubferry alone", quoted(property)));
        }
        let field = links.salesforce_field.trim();
        let at = place.key("salesforce_field");
        if !is_custom_field(field) {
            let text = format!("{} is no custom field: letters, digits and `_`, with `__c` at the end", quoted(field));
            self.problem(&at, text);
        }
        for (index, pair) in sync.fields.iter().enumerate() {
            if pair.hubspot == property || (is_custom_field(field) && pair.salesforce.eq_ignore_ascii_case(field)) {
                self.problem(
                    &place,
                    format!("fields[{index}] syncs one of them; they hold ids and are hubferry's alone"),
                );
            }
        }
    }

    fn limits(&mut self, sync: &Sync, place: &Place) {
        let place = place.key("limits");
        if sync.limits.updates == 0 {
            self.problem(&place.key("updates"), "must be at least 1: every run that has something to do would stop");
        }
        if sync.limits.creates == 0 && sync.create != SyncCreate::None {
            self.problem(&place.key("creates"), "must be at least 1; where nothing is to be created: `create: none`");
        }
        if sync.limits.deletes == 0 && sync.deletes == SyncDeletes::Propagate {
            self.problem(
                &place.key("deletes"),
                "must be at least 1; where nothing is to be deleted: `deletes: review`",
            );
        }
    }

    /// One beside the other.
    pub(super) fn syncs(&mut self, syncs: &[(Place, Sync)]) {
        for (at, (place, sync)) in syncs.iter().enumerate() {
            self.accounts(sync, place, syncs);
            for (_, other) in syncs.iter().take(at) {
                self.beside(sync, place, other);
            }
        }
    }

    fn accounts(&mut self, sync: &Sync, place: &Place, syncs: &[(Place, Sync)]) {
        let Some(name) = &sync.accounts else { return };
        let place = place.key("accounts");
        let Some((_, named)) = syncs.iter().find(|(_, other)| other.name == *name) else {
            if !self.damaged(&Place::root().key("syncs")) {
                let names = syncs.iter().map(|(_, other)| other.name.as_str()).filter(|other| *other != sync.name);
                let near = nearest(name, names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                self.problem(&place, format!("no sync {}{near}", quoted(name)));
            }
            return;
        };
        if named.hubspot_object.as_str() != "companies" || !named.salesforce_object.eq_ignore_ascii_case("Account") {
            self.problem(&place, format!("sync {} does not sync companies with Account", quoted(name)));
        } else if (&named.hubspot, &named.salesforce) != (&sync.hubspot, &sync.salesforce) {
            self.problem(&place, format!("sync {} works on other accounts than this one", quoted(name)));
        }
    }

    fn beside(&mut self, sync: &Sync, place: &Place, other: &Sync) {
        let same_hubspot = sync.hubspot == other.hubspot && sync.hubspot_object == other.hubspot_object;
        let same_salesforce = sync.salesforce == other.salesforce
            && sync.salesforce_object.eq_ignore_ascii_case(&other.salesforce_object);
        if same_hubspot && same_salesforce {
            self.problem(
                place,
                format!("sync `{}` keeps these two objects in step already; put its fields there", other.name),
            );
            return;
        }
        let creates = |sync: &Sync| matches!(sync.create, SyncCreate::Both | SyncCreate::Salesforce);
        let is = |sync: &Sync, object: &str| sync.salesforce_object.eq_ignore_ascii_case(object);
        let people = (is(sync, "Contact") && is(other, "Lead")) || (is(sync, "Lead") && is(other, "Contact"));
        if same_hubspot && people && sync.salesforce == other.salesforce && creates(sync) && creates(other) {
            let text = format!(
                "sync `{}` creates the same records in Salesforce, and each would be a contact and a lead there: \
                 say `create: hubspot` or `create: none` in one of them",
                other.name
            );
            self.problem(&place.key("create"), text);
        }
        if let (Some(links), Some(others)) = (&sync.links, &other.links) {
            let shared = if same_hubspot && links.hubspot_property == others.hubspot_property {
                Some("hubspot_property")
            } else if same_salesforce && links.salesforce_field.eq_ignore_ascii_case(&others.salesforce_field) {
                Some("salesforce_field")
            } else {
                None
            };
            if let Some(key) = shared {
                let text = format!("is that of sync `{}` already; each sync needs one of its own", other.name);
                self.problem(&place.key("links").key(key), text);
            }
        }
    }
}

fn is_property_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_custom_field(name: &str) -> bool {
    name.len() > "__c".len()
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.to_ascii_lowercase().ends_with("__c")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
