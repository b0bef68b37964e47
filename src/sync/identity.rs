//! Which record of the other side is the one that a record without a link belongs to.
//!
//! In this order: a cross-id on either record, if it does not contradict the other's; the value that records are recognised by, if it is
//! unique on both sides; else nobody's, and it is created, or a person decides. Never the first of several, and never "none" because a
//! lookup failed: that is an error, which ends the run.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    fields::Pair,
    model::{ReviewKind, Side},
    records::{GoneRow, HubspotRecord},
    run::Job,
};
use crate::{
    error::Result,
    hubspot::{batch::BATCH_INPUTS_MAX, read::Found},
    mutate::{self, Bug},
    record::PropertyName,
    salesforce::{
        model::{Row, SalesforceId},
        soql::{Literal, Select},
    },
};

/// Calls of one lookup, or one write, under way at once: 16 of 100 records keep an account of 190 calls in 10 s busy at 800 ms a call.
pub(super) const CALLS_AT_ONCE: usize = 16;

/// What a record without a link belongs to.
pub(super) enum Match {
    /// The two are one.
    Link(HubspotRecord, Row),
    /// There is nobody: it can be created on the other side.
    Create,
    /// A person decides.
    Review { kind: ReviewKind, candidates: Vec<String>, candidates_of: Side, why: String },
    /// It does not take part.
    Skip,
}

fn review(kind: ReviewKind, candidates_of: Side, candidates: Vec<String>, why: impl Into<String>) -> Match {
    Match::Review { kind, candidates, candidates_of, why: why.into() }
}

impl Job {
    /// The pair that records are recognised by.
    fn matched_by(&self) -> Option<&Pair> {
        self.mapping.pairs.get(self.mapping.matched_by?)
    }

    /// Whether HubSpot itself sees to it that no two records share the value.
    fn is_unique_in_hubspot(&self, pair: &Pair) -> bool {
        self.resource.object.is_contacts() && &*pair.hubspot == "email"
    }

    fn is_outside(&self, row: &Row) -> bool {
        let says = |field: &str| row.get(field) == Some(&serde_json::Value::Bool(true));
        says("IsPersonAccount") || says("IsConverted")
    }

    /// For each Salesforce record without a link.
    pub(super) async fn match_salesforce(&self, rows: Vec<Row>) -> Result<Vec<(Row, Match)>> {
        let mapping = self.mapping.clone();
        let properties = &mapping.hubspot_properties;
        let rows: Vec<(SalesforceId, Row)> = rows.into_iter().filter_map(|row| Some((row.id()?, row))).collect();
        let inside: Vec<&(SalesforceId, Row)> = rows.iter().filter(|(_, row)| !self.is_outside(row)).collect();

        let claimed: BTreeSet<String> =
            inside.iter().filter_map(|(_, row)| hubspot_id_of(row.text(&mapping.salesforce_link)?)).collect();
        let named = self.read_hubspot(claimed);
        let own_ids: Vec<String> = inside.iter().map(|(id, _)| id.to_string()).collect();
        let pointing = self.read_by(&mapping.hubspot_link, &own_ids, properties);
        let (named, pointing) = futures_util::future::try_join(named, pointing).await?;
        let pointing: BTreeMap<&String, HubspotRecord> =
            own_ids.iter().zip(pointing).filter_map(|(id, found)| Some((id, HubspotRecord::from(found?)))).collect();

        let value_of =
            |row: &Row| self.matched_by().and_then(|pair| pair.of_salesforce(row.get(&pair.salesforce)?).canon);
        let open = inside.iter().filter(|(id, row)| {
            !pointing.contains_key(&id.to_string())
                && row
                    .text(&mapping.salesforce_link)
                    .and_then(hubspot_id_of)
                    .is_none_or(|claimed| !named.contains_key(&claimed))
        });
        let values: BTreeSet<String> = open.filter_map(|(_, row)| value_of(row)).collect();
        let by_value = self.hubspot_by_value(&values).await?;
        let sharing = self.salesforce_by_value(&values).await?;

        let mut candidates: BTreeSet<String> = named.values().map(|record| record.id.clone()).collect();
        candidates.extend(pointing.values().map(|record| record.id.clone()));
        candidates.extend(by_value.values().flatten().map(|record| record.id.clone()));
        let candidates: Vec<String> = candidates.into_iter().collect();
        let linked = self.links.by_hubspot(&candidates).await?;
        let claimants = self.salesforce_naming(&candidates).await?;

        let mut matches = Vec::with_capacity(rows.len());
        for (id, row) in &rows {
            if self.is_outside(row) {
                matches.push(Match::Skip);
                continue;
            }
            let claimed = row.text(&mapping.salesforce_link).and_then(hubspot_id_of);
            let named = claimed.as_ref().and_then(|claimed| named.get(claimed));
            let pointing = pointing.get(&id.to_string());
            let found = match (named, pointing) {
                (Some(named), Some(pointing)) if named.id != pointing.id => {
                    let ids = vec![named.id.clone(), pointing.id.clone()];
                    let why = "Salesforce's record names one record of HubSpot, and another one names it";
                    matches.push(review(ReviewKind::Identity, Side::Hubspot, ids, why));
                    continue;
                }
                (_, Some(pointing)) => Some(pointing),
                (Some(named), None) => {
                    match named.text(&mapping.hubspot_link).and_then(|other| SalesforceId::parse(other).ok()) {
                        Some(other) if other != *id && self.is_there(&other).await? => {
                            let ids = vec![named.id.clone()];
                            let why = "Salesforce's record names a record of HubSpot that names another one";
                            matches.push(review(ReviewKind::Identity, Side::Hubspot, ids, why));
                            continue;
                        }
                        _ => Some(named),
                    }
                }
                (None, None) => match value_of(row) {
                    None => None,
                    Some(value) => {
                        let others = sharing.get(&value).into_iter().flatten().filter(|other| *other != id);
                        let others: Vec<String> = others.map(ToString::to_string).collect();
                        if !others.is_empty() && !mutate::on(Bug::LinkedToTheFirst) {
                            let why = "several records of Salesforce share what it would be recognised by";
                            matches.push(review(ReviewKind::Duplicate, Side::Salesforce, others, why));
                            continue;
                        }
                        match by_value.get(&value).map(Vec::as_slice) {
                            None | Some([]) => None,
                            Some([one]) if self.shows(one, &value) => Some(one),
                            Some(several) => {
                                let ids = several.iter().map(|record| record.id.clone()).collect();
                                let why = match several {
                                    [_] => "a record of HubSpot has its address as a further one",
                                    _ => "several records of HubSpot share what it would be recognised by",
                                };
                                matches.push(review(ReviewKind::Duplicate, Side::Hubspot, ids, why));
                                continue;
                            }
                        }
                    }
                },
            };
            if let Some(found) = found {
                let others = claimants.get(&found.id).into_iter().flatten().filter(|other| *other != id);
                let others: Vec<String> = others.map(ToString::to_string).collect();
                if !others.is_empty() && !linked.contains_key(&found.id) {
                    let why = "another record of Salesforce names the record of HubSpot that it belongs to";
                    matches.push(review(ReviewKind::Identity, Side::Salesforce, others, why));
                    continue;
                }
            }
            matches.push(match found {
                None => Match::Create,
                Some(found) => match linked.get(&found.id) {
                    None => Match::Link(found.clone(), row.clone()),
                    // The link has just come to it.
                    Some(link) if link.salesforce_id == *id => Match::Skip,
                    // It takes the place of the one that was merged into it: that one's deletion brings the link.
                    Some(link) if self.was_merged_into(&link.salesforce_id, id).await? => Match::Skip,
                    Some(link) => {
                        let ids = vec![found.id.clone()];
                        let why =
                            format!("the record of HubSpot that it belongs to is linked with {}", link.salesforce_id);
                        let kind = if named.is_some() || pointing.is_some() {
                            ReviewKind::Identity
                        } else {
                            ReviewKind::Duplicate
                        };
                        review(kind, Side::Hubspot, ids, why)
                    }
                },
            });
        }
        Ok(rows.into_iter().map(|(_, row)| row).zip(matches).collect())
    }

    /// For each HubSpot record without a link.
    pub(super) async fn match_hubspot(&self, records: Vec<HubspotRecord>) -> Result<Vec<(HubspotRecord, Match)>> {
        let mapping = self.mapping.clone();
        let claims =
            |record: &HubspotRecord| record.text(&mapping.hubspot_link).and_then(|id| SalesforceId::parse(id).ok());
        let own_ids: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
        let pointing_at = self.salesforce_naming(&own_ids).await?;
        let value_of = |record: &HubspotRecord| {
            self.matched_by().and_then(|pair| pair.of_hubspot(record.text(&pair.hubspot)).canon)
        };
        let open = records.iter().filter(|record| !pointing_at.contains_key(&record.id));
        let values: BTreeSet<String> = open.filter_map(value_of).collect();
        let by_value = self.salesforce_by_value(&values).await?;
        let sharing = match self.matched_by() {
            Some(pair) if !self.is_unique_in_hubspot(pair) => self.hubspot_by_value(&values).await?,
            _ => BTreeMap::new(),
        };
        let mut candidates: BTreeSet<SalesforceId> = records.iter().filter_map(claims).collect();
        candidates.extend(pointing_at.values().flatten().cloned());
        candidates.extend(by_value.values().flatten().cloned());
        let all: Vec<SalesforceId> = candidates.iter().cloned().collect();
        // Read fresh: a query may be behind.
        let rows = self.read_salesforce(candidates).await?;
        let linked = self.links.by_salesforce(&all).await?;
        // Who in HubSpot says that it belongs to them.
        let keys: Vec<String> = rows.keys().map(ToString::to_string).collect();
        let holders = self.read_by(&mapping.hubspot_link, &keys, &[]).await?;
        let holders: BTreeMap<String, String> =
            keys.into_iter().zip(holders).filter_map(|(id, found)| Some((id, found?.id))).collect();

        let mut matches = Vec::with_capacity(records.len());
        for record in &records {
            let named = claims(record).filter(|id| rows.contains_key(id));
            let points_here = |id: &&SalesforceId| {
                let claim = rows.get(*id).and_then(|row| row.text(&mapping.salesforce_link)).and_then(hubspot_id_of);
                claim.as_deref() == Some(record.id.as_str())
            };
            let pointing: Vec<&SalesforceId> =
                pointing_at.get(&record.id).into_iter().flatten().filter(points_here).collect();
            let by_id = !pointing.is_empty() || named.is_some();
            let found = match (pointing.as_slice(), &named) {
                ([_, _, ..], _) => {
                    let ids = pointing.iter().map(ToString::to_string).collect();
                    let why = "several records of Salesforce name it";
                    matches.push(review(ReviewKind::Identity, Side::Salesforce, ids, why));
                    continue;
                }
                ([one], Some(named)) if *one != named => {
                    let ids = vec![one.to_string(), named.to_string()];
                    let why = "it names one record of Salesforce, and another one names it";
                    matches.push(review(ReviewKind::Identity, Side::Salesforce, ids, why));
                    continue;
                }
                ([one], _) => Some((*one).clone()),
                ([], Some(named)) => {
                    let other =
                        rows.get(named).and_then(|row| row.text(&mapping.salesforce_link)).and_then(hubspot_id_of);
                    let contradicts = match other.filter(|other| *other != record.id) {
                        Some(other) => self
                            .read_hubspot(BTreeSet::from([other]))
                            .await?
                            .values()
                            .any(|other| other.id != record.id),
                        None => false,
                    };
                    if contradicts {
                        let why = "it names a record of Salesforce that names another one";
                        matches.push(review(ReviewKind::Identity, Side::Salesforce, vec![named.to_string()], why));
                        continue;
                    }
                    Some(named.clone())
                }
                ([], None) => match value_of(record) {
                    None => None,
                    Some(value) => {
                        let others = sharing.get(&value).into_iter().flatten().filter(|other| other.id != record.id);
                        let others: Vec<String> = others.map(|other| other.id.clone()).collect();
                        if !others.is_empty() {
                            let why = "several records of HubSpot share what it would be recognised by";
                            matches.push(review(ReviewKind::Duplicate, Side::Hubspot, others, why));
                            continue;
                        }
                        let still = |id: &&SalesforceId| {
                            let seen = self
                                .matched_by()
                                .zip(rows.get(*id))
                                .and_then(|(pair, row)| pair.of_salesforce(row.get(&pair.salesforce)?).canon);
                            seen.as_ref() == Some(&value)
                        };
                        let own: Vec<&SalesforceId> =
                            by_value.get(&value).into_iter().flatten().filter(still).collect();
                        match own.as_slice() {
                            [] => None,
                            [one] => Some((*one).clone()),
                            [first, ..] if mutate::on(Bug::LinkedToTheFirst) => Some((*first).clone()),
                            several => {
                                let ids = several.iter().map(ToString::to_string).collect();
                                let why = "several records of Salesforce share what it would be recognised by";
                                matches.push(review(ReviewKind::Duplicate, Side::Salesforce, ids, why));
                                continue;
                            }
                        }
                    }
                },
            };
            let row = found.as_ref().and_then(|id| rows.get(id));
            matches.push(match (found, row) {
                (Some(id), Some(row)) => match linked.get(&id) {
                    _ if self.is_outside(row) => Match::Skip,
                    None => match holders.get(id.as_str()).filter(|holder| **holder != record.id) {
                        Some(holder) => {
                            let why = "another record of HubSpot names the record of Salesforce that it belongs to";
                            review(ReviewKind::Identity, Side::Hubspot, vec![holder.clone()], why)
                        }
                        None => Match::Link(record.clone(), row.clone()),
                    },
                    // The link has just come to it.
                    Some(link) if link.hubspot_id == record.id => Match::Skip,
                    // It has taken over the record that the link is of: the link follows.
                    Some(link) if self.is_now(&link.hubspot_id, &record.id).await? => Match::Skip,
                    Some(link) => {
                        let why =
                            format!("the record of Salesforce that it belongs to is linked with {}", link.hubspot_id);
                        let kind = if by_id { ReviewKind::Identity } else { ReviewKind::Duplicate };
                        review(kind, Side::Salesforce, vec![id.to_string()], why)
                    }
                },
                _ => Match::Create,
            });
        }
        Ok(records.into_iter().zip(matches).collect())
    }

    /// Whether the record shows this value itself: HubSpot also finds contacts by further addresses.
    fn shows(&self, record: &HubspotRecord, value: &str) -> bool {
        let shown = self.matched_by().and_then(|pair| pair.of_hubspot(record.text(&pair.hubspot)).canon);
        shown.as_deref() == Some(value)
    }

    /// HubSpot's records by the value of a property that is unique, in the order of the values; several calls at once.
    pub(super) async fn read_by(
        &self,
        property: &str,
        values: &[String],
        wanted: &[PropertyName],
    ) -> Result<Vec<Option<Found>>> {
        let object = &self.resource.object;
        let deadline = self.calls_until();
        let lots = values
            .chunks(BATCH_INPUTS_MAX)
            .map(|lot| self.account.read(object, Some(property), lot, wanted, None, deadline));
        let lots: Vec<Vec<Option<Found>>> = stream::iter(lots).buffered(CALLS_AT_ONCE).try_collect().await?;
        Ok(lots.into_iter().flatten().collect())
    }

    /// Salesforce's records by the HubSpot id that they name.
    pub(super) async fn salesforce_naming(&self, ids: &[String]) -> Result<BTreeMap<String, BTreeSet<SalesforceId>>> {
        let mut naming: BTreeMap<String, BTreeSet<SalesforceId>> = BTreeMap::new();
        if ids.is_empty() {
            return Ok(naming);
        }
        let field = self.mapping.salesforce_link.as_str();
        let select = Select::from(&self.mapping.salesforce_object)?.fields(["Id", field])?;
        let literals: Vec<Literal> = ids.iter().map(|id| Literal::Text(id.clone())).collect();
        for row in self.org.query_one_of(&select, field, &literals, self.calls_until()).await? {
            if let Some((id, of)) = row.id().zip(row.text(field).and_then(hubspot_id_of)) {
                naming.entry(of).or_default().insert(id);
            }
        }
        Ok(naming)
    }

    async fn was_merged_into(&self, old: &SalesforceId, new: &SalesforceId) -> Result<bool> {
        if self.is_there(old).await? {
            return Ok(false);
        }
        let gone = self.gone_in_salesforce(&BTreeSet::from([old.clone()])).await?;
        Ok(gone.get(old) == Some(&GoneRow::Merged(new.clone())))
    }

    async fn is_now(&self, old: &str, new: &str) -> Result<bool> {
        let found = self.read_hubspot(BTreeSet::from([old.to_owned()])).await?;
        Ok(found.get(old).is_some_and(|record| record.id == new))
    }

    async fn is_there(&self, id: &SalesforceId) -> Result<bool> {
        Ok(!self.read_salesforce(BTreeSet::from([id.clone()])).await?.is_empty())
    }

    /// HubSpot's records by the value that they are recognised by.
    async fn hubspot_by_value(&self, values: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<HubspotRecord>>> {
        let Some(pair) = self.matched_by().filter(|_| !values.is_empty()) else { return Ok(BTreeMap::new()) };
        let (object, properties) = (&self.resource.object, &self.mapping.hubspot_properties);
        let deadline = self.calls_until();
        let values: Vec<String> = values.iter().cloned().collect();
        if self.is_unique_in_hubspot(pair) {
            let found = self.read_by(&pair.hubspot, &values, properties).await?;
            let found = values.into_iter().zip(found);
            return Ok(found.filter_map(|(value, found)| Some((value, vec![found?.into()]))).collect());
        }
        let found = self.account.search_by_values(object, &pair.hubspot, &values, properties, deadline).await?;
        let mut by_value: BTreeMap<String, Vec<HubspotRecord>> = BTreeMap::new();
        for record in found.into_values().flatten().map(HubspotRecord::from) {
            if let Some(value) = pair.of_hubspot(record.text(&pair.hubspot)).canon {
                by_value.entry(value).or_default().push(record);
            }
        }
        Ok(by_value)
    }

    /// Ids of Salesforce's records by the value that they are recognised by.
    async fn salesforce_by_value(&self, values: &BTreeSet<String>) -> Result<BTreeMap<String, BTreeSet<SalesforceId>>> {
        let Some(pair) = self.matched_by().filter(|_| !values.is_empty()) else { return Ok(BTreeMap::new()) };
        let select = Select::from(&self.mapping.salesforce_object)?.fields(["Id", pair.salesforce.as_str()])?;
        let literals: Vec<Literal> = values.iter().flat_map(|value| pair.searched_in_salesforce(value)).collect();
        let mut by_value: BTreeMap<String, BTreeSet<SalesforceId>> = BTreeMap::new();
        for row in self.org.query_one_of(&select, &pair.salesforce, &literals, self.calls_until()).await? {
            let value = row.get(&pair.salesforce).and_then(|value| pair.of_salesforce(value).canon);
            if let Some((value, id)) = value.zip(row.id()) {
                by_value.entry(value).or_default().insert(id);
            }
        }
        Ok(by_value)
    }
}

/// What stands in Salesforce's cross-id field, if it is an id of HubSpot's.
pub(super) fn hubspot_id_of(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.to_owned())
}
