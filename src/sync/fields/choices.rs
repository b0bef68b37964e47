//! Picklists: which of HubSpot's options is which of Salesforce's values.
//!
//! An option's canonical form is HubSpot's internal value. What has no counterpart is compared in lower case and written where the other
//! side takes any value.

use std::collections::BTreeMap;

use super::super::values;
use crate::mapping::suggest;

/// Neither case, nor surrounding space, nor how letters with marks are put together counts.
fn fold(value: &str) -> String {
    values::email(value).unwrap_or_default()
}

/// One of a side's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// As it is stored.
    pub(super) value: String,
    /// As people see it.
    pub(super) label: String,
    /// It may be chosen.
    pub(super) is_active: bool,
}

/// A side's options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) choices: Vec<Choice>,
    /// Other values than these are taken.
    pub(super) is_open: bool,
    /// Holds several of them.
    pub(super) is_several: bool,
}

/// Why a value has no counterpart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unmatched {
    /// The other side does not have it; the nearest that it has.
    Unknown(Option<String>),
    /// The other side has it, but it may not be chosen any more.
    Inactive,
    /// `values` names it for several of Salesforce's.
    Several(Vec<String>),
    /// The other side holds one value only.
    OneOnly,
}

/// The options of a pair.
#[derive(Debug, Clone)]
pub(super) struct Choices {
    hubspot: Side,
    salesforce: Side,
    /// HubSpot's internal values, by themselves; stages of the same name in several pipelines are one.
    exact: BTreeMap<String, String>,
    /// HubSpot's internal values, by value, else by label, folded.
    folded: BTreeMap<String, String>,
    /// Salesforce's choices by value, else by label, folded.
    listed: BTreeMap<String, usize>,
    /// HubSpot's internal values by Salesforce's, folded: from `values`.
    given: BTreeMap<String, String>,
    /// Salesforce's values by HubSpot's internal ones: from `values`.
    given_back: BTreeMap<String, Vec<String>>,
}

impl Choices {
    /// `given`: HubSpot's value or label by Salesforce's value or label. What HubSpot does not have is returned with it: the nearest option.
    pub(super) fn new(
        mut hubspot: Side,
        salesforce: Side,
        given: &BTreeMap<String, String>,
        same_labels_are_one: bool,
    ) -> (Self, Vec<(String, Option<String>)>) {
        let mut listed = BTreeMap::new();
        for (at, choice) in salesforce.choices.iter().enumerate() {
            listed.entry(fold(&choice.value)).or_insert(at);
        }
        for (at, choice) in salesforce.choices.iter().enumerate() {
            listed.entry(fold(&choice.label)).or_insert(at);
        }
        if hubspot.is_open {
            // A text takes what `values` says, and Salesforce's own values.
            let is_given = |choice: &&Choice| {
                given.keys().any(|key| [&choice.value, &choice.label].iter().any(|name| fold(name) == fold(key)))
            };
            let named =
                given.values().map(|value| Choice { value: value.clone(), label: value.clone(), is_active: true });
            let own = salesforce.choices.iter().filter(|choice| !is_given(choice)).cloned();
            let more: Vec<Choice> = named.chain(own).collect();
            hubspot.choices.extend(more);
        }
        let (mut exact, mut folded, mut labels) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for choice in &hubspot.choices {
            let first: &String = labels.entry(fold(&choice.label)).or_insert(&choice.value);
            let canon = if same_labels_are_one { first.clone() } else { choice.value.clone() };
            exact.entry(choice.value.clone()).or_insert_with(|| canon.clone());
            folded.entry(fold(&choice.value)).or_insert(canon);
        }
        for (label, value) in labels {
            folded.entry(label).or_insert_with(|| value.clone());
        }
        let mut all =
            Self { hubspot, salesforce, exact, folded, listed, given: BTreeMap::new(), given_back: BTreeMap::new() };
        let mut unknown = Vec::new();
        for (from, to) in given {
            let Some(canon) = all.known_in_hubspot(to) else {
                unknown.push((to.clone(), all.nearest_in_hubspot(to)));
                continue;
            };
            let value = all.listed_choice(from).map_or_else(|| from.clone(), |choice| choice.value.clone());
            if all.hubspot.is_open {
                // A person may have written Salesforce's word into the text.
                all.folded.entry(fold(&value)).or_insert_with(|| canon.clone());
            }
            all.given.insert(fold(&value), canon.clone());
            let back = all.given_back.entry(canon).or_default();
            if !back.contains(&value) {
                back.push(value);
            }
        }
        (all, unknown)
    }

    fn listed_choice(&self, name: &str) -> Option<&Choice> {
        self.listed.get(&fold(name)).and_then(|at| self.salesforce.choices.get(*at))
    }

    /// Salesforce has this value, or takes any.
    pub(super) fn is_of_salesforce(&self, name: &str) -> bool {
        self.salesforce.is_open || self.listed_choice(name).is_some()
    }

    pub(super) fn nearest_in_salesforce(&self, name: &str) -> Option<String> {
        let names = self.salesforce.choices.iter().filter(|choice| choice.is_active);
        suggest::closest(name, names.map(|choice| choice.value.as_str())).map(str::to_owned)
    }

    fn nearest_in_hubspot(&self, name: &str) -> Option<String> {
        let choices = self.hubspot.choices.iter();
        let names = choices.flat_map(|choice| [choice.label.as_str(), choice.value.as_str()]);
        suggest::closest(name, names).map(str::to_owned)
    }

    fn known_in_hubspot(&self, name: &str) -> Option<String> {
        self.exact.get(name).or_else(|| self.folded.get(&fold(name))).cloned()
    }

    fn one_of_hubspot(&self, value: &str) -> String {
        self.known_in_hubspot(value).unwrap_or_else(|| fold(value))
    }

    fn known_from_salesforce(&self, value: &str) -> Option<String> {
        if let Some(canon) = self.given.get(&fold(value)) {
            return Some(canon.clone());
        }
        let label = || self.listed_choice(value).and_then(|choice| self.known_in_hubspot(&choice.label));
        self.known_in_hubspot(value).or_else(label)
    }

    fn one_of_salesforce(&self, value: &str) -> String {
        self.known_from_salesforce(value).unwrap_or_else(|| fold(value))
    }

    fn is_several(&self) -> bool {
        self.hubspot.is_several || self.salesforce.is_several
    }

    fn canon(&self, raw: &str, one: impl Fn(&str) -> String) -> Option<String> {
        if self.is_several() {
            let set: std::collections::BTreeSet<String> = values::joined(raw).map(one).collect();
            let set: Vec<String> = set.into_iter().collect();
            return (!set.is_empty()).then(|| set.join(";"));
        }
        Some(values::trim(raw)).filter(|value| !value.is_empty()).map(one)
    }

    /// HubSpot's value in the form in which it is compared; of several, the set in order.
    pub(super) fn of_hubspot(&self, raw: &str) -> Option<String> {
        self.canon(raw, |value| self.one_of_hubspot(value))
    }

    /// As [`Choices::of_hubspot`], for Salesforce's.
    pub(super) fn of_salesforce(&self, raw: &str) -> Option<String> {
        self.canon(raw, |value| self.one_of_salesforce(value))
    }

    /// What a person typed: HubSpot's value or label, else Salesforce's.
    pub(super) fn typed(&self, raw: &str) -> Option<String> {
        self.canon(raw, |value| self.known_in_hubspot(value).unwrap_or_else(|| self.one_of_salesforce(value)))
    }

    /// The canonical values with the spelling that they came in.
    fn members<'a>(&self, canon: &'a str, raw: &'a str) -> Vec<(&'a str, &'a str)> {
        if !self.is_several() {
            return vec![(canon, values::trim(raw))];
        }
        let spelled = |canon: &str| {
            values::joined(raw).find(|part| {
                [self.one_of_hubspot(part), self.one_of_salesforce(part)].iter().any(|found| found == canon)
            })
        };
        values::joined(canon).map(|member| (member, spelled(member).unwrap_or(member))).collect()
    }

    /// Salesforce's value for a canonical one.
    pub(super) fn to_salesforce(&self, canon: &str, raw: &str) -> Result<String, Unmatched> {
        let members = self.members(canon, raw);
        if members.len() > 1 && !self.salesforce.is_several {
            return Err(Unmatched::OneOnly);
        }
        let written: Result<Vec<String>, Unmatched> =
            members.into_iter().map(|(canon, raw)| self.one_to_salesforce(canon, raw)).collect();
        Ok(written?.join(";"))
    }

    fn one_to_salesforce(&self, canon: &str, raw: &str) -> Result<String, Unmatched> {
        match self.given_back.get(canon).map(Vec::as_slice) {
            Some([one]) => return Ok(one.clone()),
            Some(several @ [_, ..]) => return Err(Unmatched::Several(several.to_vec())),
            _ => {}
        }
        let label = self.label(canon);
        let means_it = |value: &&str| self.one_of_salesforce(value) == canon;
        let names = [canon, label.unwrap_or(canon)];
        let found: Vec<&Choice> = names.iter().filter_map(|name| self.listed_choice(name)).collect();
        if let Some(choice) = found.iter().find(|choice| choice.is_active && means_it(&choice.value.as_str())) {
            return Ok(choice.value.clone());
        }
        if !self.salesforce.is_open {
            let is_inactive = found.iter().any(|choice| means_it(&choice.value.as_str()));
            let nearest = || self.nearest_in_salesforce(label.unwrap_or(raw));
            return Err(if is_inactive { Unmatched::Inactive } else { Unmatched::Unknown(nearest()) });
        }
        // Salesforce takes any value: what people see, if it is understood when it comes back.
        let spelled = [label.unwrap_or(raw), raw, canon];
        spelled.into_iter().find(means_it).map(str::to_owned).ok_or(Unmatched::Unknown(None))
    }

    fn label(&self, canon: &str) -> Option<&str> {
        let choices = self.hubspot.choices.iter();
        choices
            .filter(|choice| choice.value == canon)
            .map(|choice| choice.label.as_str())
            .find(|label| !label.is_empty())
    }

    /// HubSpot's internal value for a canonical one.
    pub(super) fn to_hubspot(&self, canon: &str, raw: &str) -> Result<String, Unmatched> {
        let members = self.members(canon, raw);
        if members.len() > 1 && !self.hubspot.is_several {
            return Err(Unmatched::OneOnly);
        }
        let one = |(canon, raw): (&str, &str)| match self.exact.contains_key(canon) {
            true => Ok(canon.to_owned()),
            false if self.hubspot.is_open => Ok(raw.to_owned()),
            false => Err(Unmatched::Unknown(self.nearest_in_hubspot(raw))),
        };
        let written: Result<Vec<String>, Unmatched> = members.into_iter().map(one).collect();
        Ok(written?.join(";"))
    }
}
