//! Search: the only way to find records by a value that is not unique, over an index that trails behind by seconds.
//!
//! What it does not show may still be there, and what it shows may be gone: nothing is written on its word alone ([`super::adopt`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    account::{Account, Call, describe},
    read::{Found, Paging},
};
use crate::{
    Error, ErrorKind, Result,
    clock::Deadline,
    codes,
    http::rate_limit::Bucket,
    record::{ObjectType, PropertyName, fold_key},
};

/// HubSpot's largest page of a search.
pub const SEARCH_PAGE: usize = 200;

/// How far paging reaches: HubSpot answers the next page with 400.
pub const SEARCH_REACH: u64 = 10_000;

/// Values of one `IN`.
pub const SEARCH_VALUES_MAX: usize = 100;

/// Bytes of the values of one `IN`: HubSpot's documentation speaks of 3,000 characters a body.
pub const SEARCH_VALUES_BYTES_MAX: usize = 2_500;

/// How a filter compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operator {
    /// Equal to `value`.
    Eq,
    /// Unequal to `value`.
    Neq,
    /// Less than `value`.
    Lt,
    /// At most `value`.
    Lte,
    /// Greater than `value`.
    Gt,
    /// At least `value`.
    Gte,
    /// From `value` to `high_value`.
    Between,
    /// One of `values`; those of texts in lower case.
    In,
    /// None of `values`.
    NotIn,
    /// Has any value.
    HasProperty,
    /// Has no value.
    NotHasProperty,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// What is compared.
    pub property_name: String,
    /// How.
    pub operator: Operator,
    /// With what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The end of [`Operator::Between`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_value: Option<String>,
    /// Of [`Operator::In`] and [`Operator::NotIn`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Filter {
    /// A comparison with one value.
    pub fn new(property: &str, operator: Operator, value: impl Into<String>) -> Self {
        Self {
            property_name: property.to_owned(),
            operator,
            value: Some(value.into()),
            high_value: None,
            values: Vec::new(),
        }
    }

    /// One of these values. Texts are to be in lower case.
    pub fn one_of(property: &str, values: Vec<String>) -> Self {
        Self { property_name: property.to_owned(), operator: Operator::In, value: None, high_value: None, values }
    }
}

/// Filters that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FilterGroup {
    /// At most 6.
    pub filters: Vec<Filter>,
}

/// The order of the results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sort {
    /// By what.
    pub property_name: String,
    /// `ASCENDING` or `DESCENDING`.
    pub direction: &'static str,
}

impl Sort {
    /// Smallest first.
    pub fn ascending(property: &str) -> Self {
        Self { property_name: property.to_owned(), direction: "ASCENDING" }
    }
}

/// A search.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Search {
    /// A record matches if it matches one group. At most 5; none matches everything.
    pub filter_groups: Vec<FilterGroup>,
    /// At most 1.
    pub sorts: Vec<Sort>,
    /// What to return of each record.
    pub properties: Vec<PropertyName>,
    /// At most [`SEARCH_PAGE`].
    pub limit: usize,
    /// The offset that the page before named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A page of results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPage {
    /// How many match in all; a hint.
    pub total: u64,
    /// The records, as the index shows them.
    pub records: Vec<Found>,
    /// Where the next page begins; `None` after the last one and where paging reaches no further ([`SEARCH_REACH`]).
    pub after: Option<String>,
    /// There are more, but paging does not reach them.
    pub cut: bool,
}

#[derive(Deserialize)]
struct SearchAnswer {
    // A search always tells it: what has none is not a search's answer.
    total: u64,
    results: Vec<Found>,
    paging: Option<Paging>,
}

impl Account {
    /// One page of a search. Counts against the account's searches (4 a second unless configured), of which other apps take theirs too.
    ///
    /// Errors: `HUBSPOT_REFUSED` where HubSpot cannot make sense of it, and those of [`Account::call`].
    pub async fn search(&self, object: &ObjectType, search: &Search, deadline: Deadline) -> Result<SearchPage> {
        let body = serde_json::to_vec(search).map_err(|error| {
            Error::new(ErrorKind::Corrupt, codes::HUBSPOT_REFUSED, "a search cannot be encoded").with_source(error)
        })?;
        let mut call = Call::post(self.paths.objects(object, "search"), Bytes::from(body));
        call.bucket = Bucket::Search;
        match self.parsed::<SearchAnswer>(call, None, deadline).await? {
            Ok(answer) => {
                let after = Paging::after(answer.paging);
                let beyond =
                    after.as_deref().is_some_and(|after| after.parse::<u64>().is_ok_and(|at| at >= SEARCH_REACH));
                Ok(SearchPage {
                    total: answer.total,
                    records: answer.results,
                    after: after.filter(|_| !beyond),
                    cut: beyond || answer.total > SEARCH_REACH,
                })
            }
            Err((status, refusal)) => {
                let message = format!("searching {object}: {}", describe(status, &refusal, true));
                Err(Error::new(ErrorKind::Refused, codes::HUBSPOT_REFUSED, message))
            }
        }
    }

    /// The records whose `property` is one of `values`, whatever the case, by the folded value ([`fold_key`]).
    ///
    /// Any number of values, [`SEARCH_VALUES_MAX`] a call. Of a value that more than [`SEARCH_REACH`] records share, those within reach.
    /// A value without an entry has no record *in the index*.
    pub async fn search_by_values(
        &self,
        object: &ObjectType,
        property: &str,
        values: &[String],
        properties: &[PropertyName],
        deadline: Deadline,
    ) -> Result<BTreeMap<String, Vec<Found>>> {
        let wanted: BTreeSet<String> =
            values.iter().map(|value| fold_key(value)).filter(|value| !value.is_empty()).collect();
        let mut properties = properties.to_vec();
        if !properties.iter().any(|name| &**name == property) {
            properties.push(property.into());
        }
        let mut stack = chunks(&wanted);
        let mut by_value: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        while let Some(mut values) = stack.pop() {
            let mut search = Search {
                filter_groups: vec![FilterGroup { filters: vec![Filter::one_of(property, values.clone())] }],
                // A fixed order: records that change while pages are turned do not move others across the edge.
                sorts: vec![Sort::ascending("hs_object_id")],
                properties: properties.clone(),
                limit: SEARCH_PAGE,
                after: None,
            };
            let mut records: BTreeMap<String, Found> = BTreeMap::new();
            // Every page but the last holds something, so paging ends at the reach at the latest.
            for _ in 0..SEARCH_REACH {
                let page = self.search(object, &search, deadline).await?;
                let empty = page.records.is_empty();
                if page.cut && values.len() > 1 {
                    let second = values.split_off(values.len().div_ceil(2));
                    stack.extend([second, values]);
                    records.clear();
                    break;
                }
                records.extend(page.records.into_iter().map(|found| (found.id.clone(), found)));
                search.after = page.after;
                if search.after.is_none() || empty {
                    break;
                }
            }
            for found in records.into_values() {
                // The filter is HubSpot's idea of equal; what is not ours is not kept.
                let value = fold_key(found.value(property).unwrap_or_default());
                if wanted.contains(&value) {
                    by_value.entry(value).or_default().push(found);
                }
            }
        }
        Ok(by_value)
    }
}

/// Values in lots of at most [`SEARCH_VALUES_MAX`] and [`SEARCH_VALUES_BYTES_MAX`].
fn chunks(values: &BTreeSet<String>) -> Vec<Vec<String>> {
    // Quotes and comma.
    const AROUND: usize = 3;
    let mut lots: Vec<Vec<String>> = Vec::new();
    let (mut lot, mut bytes) = (Vec::new(), 0);
    for value in values {
        let size = value.len() + AROUND;
        if !lot.is_empty() && (lot.len() >= SEARCH_VALUES_MAX || bytes + size > SEARCH_VALUES_BYTES_MAX) {
            lots.push(std::mem::take(&mut lot));
            bytes = 0;
        }
        lot.push(value.clone());
        bytes += size;
    }
    if !lot.is_empty() {
        lots.push(lot);
    }
    lots
}
