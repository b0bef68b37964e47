//! What syncs keep of a person: links with what both sides held, what waits for a person's decision, what was refused or put off.
//!
//! The whole table is read, a part at a time: no index leads from an address to a link. What is the person's is removed; what is somebody else's
//! and mentions the person (a note, an address that two people share) goes too, with its pair noted to be looked at again, so that the two records
//! are linked anew from what they hold.

use std::collections::{BTreeMap, BTreeSet};

use super::{Removed, Work, person::Person};
use crate::{
    clock::Deadline,
    codes,
    config::Sync,
    error::{Error, ErrorKind, Result},
    record::fold_key,
    salesforce::{
        model::SalesforceId,
        soql::{Literal, Select},
    },
    state::{Condition, Item, Key, Value, runs::decode},
    sync::{
        links::Links,
        model::{Link, Refused, Review, Side, Todo, TodoWhy},
        todo::Todos,
    },
};

/// Parts of the table that are read: a part has a thousand items or a megabyte, so this is more than any table of links.
const PARTS_MAX: usize = 1_000_000;

/// Items of one person, and those that mention the person: more is a key that is nobody's address.
const FOUND_MAX: usize = 50_000;

/// What an item of a sync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Review,
    Refused,
    Todo,
    Link,
}

impl Kind {
    /// As [`Removed::what`] has it.
    fn what(self) -> &'static str {
        match self {
            Self::Review => "reviews",
            Self::Refused => "refused",
            Self::Todo => "put_off",
            Self::Link => "links",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Review => "review",
            Self::Refused => "refused",
            Self::Todo => "todo",
            Self::Link => "link",
        }
    }
}

/// Which sync's an item is, and of a link's item, which record's.
struct Place<'k> {
    kind: Kind,
    sync: &'k str,
    record: Option<(Side, &'k str)>,
}

fn place_of(key: &Key) -> Option<Place<'_>> {
    for kind in [Kind::Review, Kind::Refused, Kind::Todo] {
        if let Some(sync) = key.pk.strip_prefix(kind.prefix()).and_then(|rest| rest.strip_prefix('#')) {
            return Some(Place { kind, sync, record: None });
        }
    }
    let rest = key.pk.strip_prefix("link#")?;
    let (rest, id) = rest.rsplit_once('#')?;
    let (sync, side) = rest.rsplit_once('#')?;
    let side = match side {
        "h" => Side::Hubspot,
        "s" => Side::Salesforce,
        _ => return None,
    };
    // A link of a record that was merged lies beside the record's own item, behind a mark.
    let id = id.split('~').next().unwrap_or(id);
    Some(Place { kind: Kind::Link, sync, record: Some((side, id)) })
}

/// An item that goes.
struct Found {
    kind: Kind,
    sync: String,
    key: Key,
    link: Option<Link>,
    /// It is of the person's own records.
    own: bool,
}

/// The ids in an item, and what it says in all.
struct Said<'i> {
    text: &'i str,
    hubspot: Vec<String>,
    salesforce: Vec<String>,
    link: Option<Link>,
}

fn said<'i>(place: &Place<'_>, key: &Key, item: &'i Item) -> Result<Said<'i>> {
    let text = match item.get("json") {
        Some(Value::S(text)) => text.as_str(),
        _ => "",
    };
    let mut said = Said { text, hubspot: Vec::new(), salesforce: Vec::new(), link: None };
    match place.record {
        Some((Side::Hubspot, id)) => said.hubspot.push(id.to_owned()),
        Some((Side::Salesforce, id)) => said.salesforce.push(id.to_owned()),
        None => {}
    }
    if text.is_empty() {
        return Ok(said);
    }
    let where_ = format!("{} / {}", key.pk, key.sk);
    let named = |id: &SalesforceId| id.as_str().to_owned();
    match place.kind {
        Kind::Link => {
            let link: Link = decode(text, &where_)?;
            said.hubspot.push(link.hubspot_id.clone());
            said.salesforce.push(named(&link.salesforce_id));
            let version = match item.get("version") {
                Some(Value::N(version)) => *version,
                _ => 0,
            };
            said.link = Some(Link { version, ..link });
        }
        Kind::Review => {
            let review: Review = decode(text, &where_)?;
            said.hubspot.extend(review.hubspot_id);
            said.salesforce.extend(review.salesforce_id.as_ref().map(named));
            match review.candidates_of {
                Some(Side::Hubspot) => said.hubspot.extend(review.candidates),
                Some(Side::Salesforce) => said.salesforce.extend(review.candidates),
                None => {}
            }
        }
        Kind::Refused => {
            for refused in decode::<Vec<Refused>>(text, &where_)? {
                said.hubspot.extend(refused.hubspot_id);
                said.salesforce.extend(refused.salesforce_id.as_ref().map(named));
            }
        }
        Kind::Todo => {
            let todo: Todo = decode(text, &where_)?;
            match todo.side {
                Side::Hubspot => said.hubspot.push(todo.id),
                Side::Salesforce => said.salesforce.push(todo.id),
            }
        }
    }
    Ok(said)
}

impl Person {
    /// Whether one of these records is the person's. `account`: that of the contacts; none where HubSpot's ids are not those of contacts.
    fn has_one_of(&self, said: &Said<'_>, account: Option<&str>) -> bool {
        let hubspot = |id: &String| account.is_some_and(|account| self.ids_in(account).any(|own| own == id));
        said.hubspot.iter().any(hubspot) || said.salesforce.iter().any(|id| self.salesforce.contains(id))
    }

    /// Whether the link's own address is the person's.
    fn owns_link(&self, link: &Link) -> bool {
        let fields = link.fields.iter().filter(|(key, _)| key.split('|').next() == Some("email"));
        let mut values = fields.flat_map(|(_, state)| [&state.hubspot, &state.salesforce]).flatten();
        values.any(|value| self.addresses.contains(&fold_key(value)))
    }
}

impl Work<'_> {
    /// The sync of this name, where it is one of contacts.
    fn contacts_sync(&self, name: &str) -> Option<&Sync> {
        self.app.config().syncs.iter().find(|sync| sync.name == name && sync.hubspot_object.is_contacts())
    }

    /// Ids of the person's records in Salesforce, in every object and org that a sync of contacts has.
    pub(super) async fn ask_salesforce(&mut self, deadline: Deadline) -> Result<()> {
        let addresses: Vec<Literal> =
            self.person.addresses.iter().map(|address| Literal::from(address.as_str())).collect();
        let mut asked = BTreeSet::new();
        for sync in self.app.config().syncs.iter().filter(|sync| sync.hubspot_object.is_contacts()) {
            let Some(field) = sync.fields.iter().find(|field| field.hubspot == "email") else { continue };
            if !asked.insert((&sync.salesforce, &sync.salesforce_object, &field.salesforce)) {
                continue;
            }
            (self.told)(&format!("asking Salesforce, org {}", sync.salesforce));
            let found = async {
                let select = Select::from(&sync.salesforce_object)?;
                let org = self.app.org(&sync.salesforce)?;
                org.query_one_of(&select, &field.salesforce, &addresses, deadline).await
            };
            let rows = found.await.map_err(|error| error.context(format!("org {}", sync.salesforce)))?;
            let ids: Vec<String> = rows.iter().filter_map(|row| Some(row.id()?.as_str().to_owned())).collect();
            self.person.salesforce.extend(ids);
        }
        Ok(())
    }

    /// Ids under which links know the person, in both systems: neither may know the person any more.
    pub(super) async fn learn_from_links(&mut self) -> Result<()> {
        (self.told)("looking through the table");
        let (mut hubspot, mut salesforce) = (Vec::new(), Vec::new());
        let mut learn = |work: &Self, key: &Key, item: &Item| {
            let Some(place) = place_of(key).filter(|place| place.kind == Kind::Link) else { return };
            let Some(sync) = work.contacts_sync(place.sync) else { return };
            // What cannot be read is told by the pass that follows.
            let Ok(said) = said(&place, key, item) else { return };
            let Some(link) = &said.link else { return };
            // Not by Salesforce's id alone: an address that was put on somebody else's record there would make all of theirs the person's.
            let known = work.person.ids_in(&sync.hubspot).any(|id| id == link.hubspot_id);
            if known || work.person.owns_link(link) {
                hubspot.push((sync.hubspot.clone(), link.hubspot_id.clone()));
                salesforce.push(link.salesforce_id.as_str().to_owned());
            }
        };
        self.each_item(&mut learn).await?;
        for (account, id) in hubspot {
            self.person.ids.entry(account).or_default().insert(id);
        }
        self.person.salesforce.extend(salesforce);
        Ok(())
    }

    /// Shows every item of the table.
    async fn each_item(&self, show: &mut dyn FnMut(&Self, &Key, &Item)) -> Result<()> {
        let mut after = None;
        for _ in 0..PARTS_MAX {
            let part = self.app.env().table.scan(after.as_ref()).await?;
            for (key, item) in &part.items {
                show(self, key, item);
            }
            after = part.last;
            if after.is_none() {
                return Ok(());
            }
        }
        let message = format!("the table has more than {PARTS_MAX} parts");
        Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message))
    }

    /// What syncs keep of the person, and what mentions the person. The records themselves stay linked by the ids that stand on them, and a sync finds
    /// them again while they exist.
    pub(super) async fn synced(&mut self, write: bool, removed: &mut Vec<Removed>) -> Result<()> {
        (self.told)("looking through the table");
        let (mut found, mut left, mut searched) = (Vec::new(), Vec::new(), 0_u64);
        let mut look = |work: &Self, key: &Key, item: &Item| {
            let Some(place) = place_of(key) else {
                // Jobs name files, and a file's name may be anything.
                let texts =
                    item.values().filter_map(|value| if let Value::S(text) = value { Some(text) } else { None });
                if texts.chain([&key.pk, &key.sk]).any(|text| work.person.is_mentioned(text)) {
                    let kind = key.pk.split('#').next().unwrap_or_default();
                    left.push((format!("{kind} in the table"), "an item mentions the address".to_owned()));
                }
                return;
            };
            searched += 1;
            if work.open.iter().any(|(job, name, _)| job == "sync" && name == place.sync) {
                return;
            }
            let said = match said(&place, key, item) {
                Ok(said) => said,
                Err(error) => {
                    left.push((format!("{}#{}", place.kind.prefix(), place.sync), error.message().to_owned()));
                    return;
                }
            };
            let account = work.contacts_sync(place.sync).map(|sync| sync.hubspot.as_str());
            let has = work.person.has_one_of(&said, account);
            let own = match &said.link {
                Some(link) => {
                    account.is_some_and(|account| work.person.ids_in(account).any(|id| id == link.hubspot_id))
                }
                None => has,
            };
            if has || work.person.is_mentioned(said.text) {
                found.push((place.kind, place.sync.to_owned(), key.clone(), said.link.clone(), own, said.hubspot));
            }
        };
        self.each_item(&mut look).await?;
        self.erasure.searched.entry("synced").or_default().records += searched;
        for (location, why) in left {
            self.leave(&location, why);
        }
        if found.len() > FOUND_MAX {
            let message = format!("more than {FOUND_MAX} items of syncs mention this address: it is not one person's");
            return Err(Error::new(ErrorKind::Refused, codes::INVALID_EMAIL, message));
        }
        // A field that waits for a review must not outlive it: the link goes with it, whosever it is.
        let mut waiting: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (_, sync, _, _, own, hubspot) in found.iter().filter(|(kind, ..)| *kind == Kind::Review) {
            if !own {
                waiting.entry(sync.clone()).or_default().extend(hubspot.iter().cloned());
            }
        }
        let mut all: Vec<Found> =
            found.into_iter().map(|(kind, sync, key, link, own, _)| Found { kind, sync, key, link, own }).collect();
        for (sync, ids) in waiting {
            let links = Links::new(self.app.env().table.clone(), self.app.env().rng.clone(), &sync);
            let ids: Vec<String> = ids.into_iter().collect();
            for link in links.by_hubspot(&ids).await?.into_values() {
                let is_known = |one: &Found| one.sync == sync && one.link.as_ref().is_some_and(|own| *own == link);
                if !all.iter().any(is_known) {
                    let key = Key::new(format!("link#{sync}#h#{}", link.hubspot_id), "link");
                    all.push(Found { kind: Kind::Link, sync: sync.clone(), key, link: Some(link), own: false });
                }
            }
        }
        let mut counts: BTreeMap<(Kind, String), u64> = BTreeMap::new();
        for one in &all {
            *counts.entry((one.kind, one.sync.clone())).or_default() += 1;
        }
        if write {
            // Links of others first: their reviews must not go before them. The person's own last: they tell the ids by which the rest is found,
            // should this be cut off.
            // Pointers to links go after those.
            all.sort_by_key(|one| match (one.kind, one.own, one.link.is_some()) {
                (Kind::Link, false, _) => 0,
                (Kind::Link, true, true) => 2,
                (Kind::Link, true, false) => 3,
                _ => 1,
            });
            for one in &all {
                if let Err(error) = self.remove_item(one).await {
                    self.leave(&format!("{}#{}", one.kind.prefix(), one.sync), error.message().to_owned());
                }
            }
        }
        for ((kind, sync), records) in counts {
            removed.push(Removed { what: kind.what(), location: format!("{}#{sync}", kind.prefix()), records });
        }
        Ok(())
    }

    async fn remove_item(&self, one: &Found) -> Result<()> {
        let table = &self.app.env().table;
        if one.kind != Kind::Link {
            table.delete(&one.key, None).await?;
            return Ok(());
        }
        if let Some(link) = &one.link {
            if !one.own {
                let todo =
                    Todo { side: Side::Hubspot, id: link.hubspot_id.clone(), why: TodoWhy::Deferred, since: None };
                Todos::new(table.clone(), &one.sync).put(&todo).await?;
            }
            Links::new(table.clone(), self.app.env().rng.clone(), &one.sync).remove(link).await?;
        }
        if one.own {
            // What is left of the item is its key, which is an id of the person's. No run is open that could have use of it.
            table.delete(&one.key, Some(Condition::Absent("json"))).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_items_key_tells_whose_it_is() {
        let place = |pk: &str| {
            let key = Key::new(pk, "link");
            place_of(&key)
                .map(|place| (place.kind, place.sync.to_owned(), place.record.map(|(side, id)| (side, id.to_owned()))))
        };
        let (people, id) = ("people".to_owned(), "17".to_owned());
        assert_eq!(place("link#people#h#17"), Some((Kind::Link, people.clone(), Some((Side::Hubspot, id.clone())))));
        assert_eq!(place("link#people#h#17~a1"), Some((Kind::Link, people.clone(), Some((Side::Hubspot, id.clone())))));
        assert_eq!(
            place("link#people#s#003A"),
            Some((Kind::Link, people.clone(), Some((Side::Salesforce, "003A".to_owned()))))
        );
        assert_eq!(place("review#people"), Some((Kind::Review, people.clone(), None)));
        assert_eq!(place("refused#people"), Some((Kind::Refused, people.clone(), None)));
        assert_eq!(place("todo#people"), Some((Kind::Todo, people, None)));
        for other in ["run#17", "context#sync#people", "links", "link#people", "reviews#people"] {
            assert_eq!(place(other), None, "{other}");
        }
    }
}
