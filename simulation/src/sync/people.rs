//! People at work on both sides, and what the oracle notes of it.

use std::{cell::Cell, collections::BTreeSet, rc::Rc, time::Duration};

use hubferry::{clock::Clock as _, sync::model::Side};

use super::{
    World,
    fields::{EDITED, FIELDS, Kind, Rule},
    oracle::{Dirty, Place},
    place,
};

/// Edits that somebody may go on with.
const EDITS_KEPT: usize = 3;

impl World {
    /// Takes note of an edit, before it is made.
    fn edited(&self, of: &Place, at: usize, value: Option<String>) {
        let field = &FIELDS[at];
        let twin = self.twin(of);
        let equal = twin.as_ref().is_some_and(|twin| self.held(of, field) == self.held(twin, field));
        // What is not one of a few choices is never written twice.
        let is_choice = matches!(field.kind, Kind::Source | Kind::Several | Kind::Flag);
        let may_be_old = is_choice || value.is_none() || value == self.held(of, field);
        let mut oracle = self.oracle.borrow_mut();
        if of.0 == Side::Salesforce && may_be_old {
            oracle.touched(of);
        }
        let mine = (of.clone(), at);
        let theirs = twin.clone().map(|twin| (twin, at));
        let mut soft = oracle.dirty.get(&mine).is_some_and(|dirty| dirty.soft);
        if equal {
            let was_dirty = oracle.dirty.remove(&mine).is_some();
            let other_dirty = theirs.as_ref().is_some_and(|theirs| oracle.dirty.remove(theirs).is_some());
            soft = was_dirty || other_dirty;
        }
        let dirty = Dirty { value, epoch: self.epoch.get(), active: self.active.get() > 0, soft };
        if let (Some((other, _)), Some(before)) = (&theirs, theirs.as_ref().and_then(|theirs| oracle.dirty.get(theirs)))
            && field.rule == Rule::Ask
            && field.exact
            && !dirty.active
            && !before.active
            && !before.soft
            && !dirty.soft
            && before.epoch == dirty.epoch
            && before.value != dirty.value
            && !oracle.dirty.contains_key(&mine)
        {
            let (h, s) = match of.0 {
                Side::Hubspot => (of.1.clone(), other.1.clone()),
                Side::Salesforce => (other.1.clone(), of.1.clone()),
            };
            oracle.definite.insert((h, s, at));
        }
        let mut edits = self.edits.borrow_mut();
        edits.push_back(mine.clone());
        if edits.len() > EDITS_KEPT {
            edits.pop_front();
        }
        if at == 0 {
            oracle.moved.insert(of.clone());
        }
        oracle.dirty.insert(mine, dirty);
    }

    /// A person writes a value.
    fn edit(&self, of: &Place, at: usize, text: &str) {
        let field = &FIELDS[at];
        let now = self.both.world.clock.now();
        let value = field.canon(of.0, Some(text));
        // The org refuses a contact without a last name, and a box that is neither ticked nor not; HubSpot an address that another contact has.
        let kept = field.s == "LastName" || field.kind == Kind::Flag;
        if of.0 == Side::Salesforce && kept && text.is_empty() {
            return;
        }
        if of.0 == Side::Hubspot && at == 0 && !text.is_empty() {
            let holder = self.both.world.portal.borrow().find_by("contacts", "email", text);
            if holder.is_some_and(|holder| holder["hs_object_id"] != of.1) {
                return;
            }
        }
        self.edited(of, at, value);
        self.note(format_args!("{:?} {} {} = {text:?}", of.0, of.1, field.h));
        match of.0 {
            Side::Hubspot => {
                self.both.world.portal.borrow_mut().edit(now, "contacts", &of.1, &[(field.h, text)]);
            }
            Side::Salesforce => {
                self.both
                    .world
                    .org
                    .borrow_mut()
                    .edit(self.both.world.org_now(), "Contact", &of.1, &[(field.s, text)])
                    .unwrap();
            }
        }
    }

    pub(super) fn edit_any(&self, side: Side) {
        let Some(of) = self.any(side) else { return };
        for _ in 0..=self.below(3) {
            let at = self.below(EDITED);
            let blank = self.below(8) == 0;
            let text = match blank {
                true => String::new(),
                false => self.value(at, side),
            };
            self.edit(&of, at, &text);
        }
    }

    /// Somebody goes on with what was edited last.
    pub(super) fn edit_again(&self) {
        let edits: Vec<(Place, usize)> = self.edits.borrow().iter().cloned().collect();
        for (of, at) in edits {
            let lives = match of.0 {
                Side::Hubspot => self.both.h_lives(&of.1),
                Side::Salesforce => self.both.s_lives(&of.1),
            };
            if lives {
                let text = self.value(at, of.0);
                self.edit(&of, at, &text);
            }
        }
    }

    /// The same field on both sides, to different values.
    fn conflict(&self) {
        let Some(of) = self.any(Side::Hubspot) else { return };
        let Some(twin) = self.twin(&of) else { return };
        let at = self.below(EDITED);
        for one in [&of, &twin] {
            let text = self.value(at, one.0);
            self.edit(one, at, &text);
        }
    }

    /// A person creates a record; some fields stay blank.
    pub(super) fn create(&self, side: Side, email: Option<&str>) -> Place {
        let origin = format!("{}{}", if side == Side::Hubspot { "h" } else { "s" }, self.next());
        let mut values: Vec<(usize, String)> = Vec::new();
        for (at, field) in FIELDS.iter().enumerate().take(EDITED).skip(1) {
            let wanted = field.h == "lastname" && (side == Side::Salesforce || self.below(12) > 0);
            if wanted || self.below(3) == 0 {
                let text = self.value(at, side);
                values.push((at, text));
            }
        }
        if let Some(email) = email {
            values.push((0, email.to_owned()));
        }
        let name = |at: usize| if side == Side::Hubspot { FIELDS[at].h } else { FIELDS[at].s };
        let mut named: Vec<(&str, &str)> = values.iter().map(|(at, text)| (name(*at), text.as_str())).collect();
        named.push((if side == Side::Hubspot { "origin" } else { "Origin__c" }, &origin));
        if side == Side::Hubspot && !values.iter().any(|(at, _)| *at <= 2) {
            named.push(("firstname", "Some"));
        }
        let id = match side {
            Side::Hubspot => self.both.h_create(&named),
            Side::Salesforce => self.both.s_create(&named),
        };
        self.note(format_args!("{side:?} {id} created {named:?}"));
        let of = place(side, &id);
        for (at, text) in &values {
            let value = FIELDS[*at].canon(side, Some(text));
            let dirty = Dirty { value, epoch: self.epoch.get(), active: self.active.get() > 0, soft: false };
            self.oracle.borrow_mut().dirty.insert((of.clone(), *at), dirty);
        }
        of
    }

    pub(super) fn create_with_address(&self, side: Side) -> Place {
        let email = format!("e{}@example.com", self.next());
        self.create(side, Some(&email))
    }

    pub(super) fn create_on_both(&self) {
        let email = format!("e{}@example.com", self.next());
        let (h, s) = (self.create(Side::Hubspot, Some(&email)), self.create(Side::Salesforce, Some(&email)));
        let now = self.both.world.clock.now();
        self.oracle.borrow_mut().strangers.insert((h.1.clone(), s.1.clone()));
        if self.active.get() == 0 {
            self.oracle.borrow_mut().met.push((h.1, s.1, now));
        }
    }

    /// Two in Salesforce and one in HubSpot have one address.
    pub(super) fn create_three(&self) {
        let email = format!("e{}@example.com", self.next());
        let h = self.create(Side::Hubspot, Some(&email));
        let two = [self.create(Side::Salesforce, Some(&email)), self.create(Side::Salesforce, Some(&email))];
        let mut oracle = self.oracle.borrow_mut();
        oracle.strangers.extend(two.iter().map(|s| (h.1.clone(), s.1.clone())));
        oracle.three.push((h, two));
    }

    fn delete(&self, of: &Place) {
        let now = self.both.world.clock.now();
        let twin = self.twin(of);
        let mut oracle = self.oracle.borrow_mut();
        // While it was away, its counterpart may have got another one.
        oracle.moved.insert(of.clone());
        oracle.widowed.extend(twin);
        // The one that it names may be in the recycle bin, and come back.
        oracle.widowed.extend(self.named(of));
        // A run that is at work, or has died, may have made a pair of the two that no id shows yet.
        if self.active.get() > 0 || oracle.died {
            let other = of.0.other();
            let email = self.held(of, &FIELDS[0]);
            let same = |one: &Place| email.is_some() && self.held(one, &FIELDS[0]) == email;
            let met = |h: &str, s: &str| oracle.met.iter().any(|(here, there, _)| here == h && there == s);
            let is_pair = |one: &Place| match other {
                Side::Hubspot => met(&one.1, &of.1),
                Side::Salesforce => met(&of.1, &one.1),
            };
            let namesakes = self.live(other).into_iter().map(|id| place(other, &id));
            let namesakes: Vec<Place> = namesakes.filter(|one| same(one) || is_pair(one)).collect();
            oracle.widowed.extend(namesakes);
        }
        drop(oracle);
        self.note(format_args!("{:?} {} deleted", of.0, of.1));
        match of.0 {
            Side::Hubspot => {
                self.both.world.portal.borrow_mut().set_archived(now, "contacts", &of.1, true);
            }
            Side::Salesforce => {
                self.both.world.org.borrow_mut().delete(self.both.world.org_now(), "Contact", &of.1);
            }
        }
    }

    /// The record of the other side that this one names.
    fn named(&self, of: &Place) -> Option<Place> {
        let id = match of.0 {
            Side::Hubspot => self.both.h(&of.1, "sf_contact_id_ext"),
            Side::Salesforce => self.both.s(&of.1, "HubSpot_Contact_Id__c"),
        };
        id.map(|id| place(of.0.other(), &id))
    }

    fn bring_back(&self, side: Side) {
        let now = self.both.world.clock.now();
        let bin: Vec<String> = match side {
            Side::Hubspot => {
                let portal = self.both.world.portal.borrow();
                // A person would be told that the address is taken.
                let all = portal.archived_objects(now, "contacts").into_iter().map(|(id, _)| id);
                all.collect()
            }
            Side::Salesforce => {
                let org = self.both.world.org.borrow();
                let deleted: BTreeSet<String> =
                    org.history().iter().filter(|write| write.what == "delete").map(|write| write.id.clone()).collect();
                deleted.into_iter().filter(|id| !self.both.s_lives(id)).collect()
            }
        };
        let at = self.below(bin.len().max(1));
        let Some(id) = bin.get(at) else { return };
        self.note(format_args!("{side:?} {id} brought back"));
        if side == Side::Salesforce {
            self.oracle.borrow_mut().touched(&place(side, id));
        }
        match side {
            Side::Hubspot => {
                self.both.world.portal.borrow_mut().set_archived(now, "contacts", id, false);
            }
            Side::Salesforce => {
                self.both.world.org.borrow_mut().undelete(self.both.world.org_now(), "Contact", id);
            }
        }
    }

    fn merge(&self, side: Side) {
        let (Some(winner), Some(loser)) = (self.any(side), self.any(side)) else { return };
        if winner == loser {
            return;
        }
        let now = self.both.world.clock.now();
        self.note(format_args!("{side:?} {} takes in {}", winner.1, loser.1));
        let twins = [self.twin(&winner), self.twin(&loser)];
        // It may be in the recycle bin, and come back.
        let named = self.named(&loser);
        let merged = match side {
            Side::Hubspot => self.both.world.portal.borrow_mut().merge(now, "contacts", &winner.1, &loser.1),
            Side::Salesforce => {
                self.both.world.org.borrow_mut().merge(self.both.world.org_now(), "Contact", &winner.1, &[&loser.1])
            }
        };
        if merged {
            let mut oracle = self.oracle.borrow_mut();
            oracle.muddled.extend([winner, loser].into_iter().chain(twins.into_iter().flatten()));
            oracle.widowed.extend(named);
        }
    }

    /// What a person does next.
    fn act(&self) {
        let what = self.below(100);
        let side = if self.rng.borrow_mut().bool() { Side::Hubspot } else { Side::Salesforce };
        match what {
            0..=54 => self.edit_any(side),
            55..=63 => self.conflict(),
            64..=70 => {
                self.create_with_address(side);
            }
            71..=72 => {
                self.create(side, None);
            }
            73..=76 => self.create_on_both(),
            77..=82 => {
                if let Some(of) = self.any(side) {
                    self.delete(&of);
                }
            }
            83..=87 => self.bring_back(side),
            88..=90 => self.merge(side),
            91..=92 => {
                // Somebody else's address.
                let (Some(of), Some(other)) = (self.any(side), self.any(side)) else { return };
                if let Some(email) = self.held(&other, &FIELDS[0]) {
                    self.edit(&of, 0, &email);
                }
            }
            93..=96 => {
                // A write that changes nothing.
                let Some(of) = self.any(side) else { return };
                let now = self.both.world.clock.now();
                match side {
                    Side::Hubspot => {
                        self.both.world.portal.borrow_mut().edit(now, "contacts", &of.1, &[]);
                    }
                    Side::Salesforce => {
                        self.both.world.org.borrow_mut().touch(self.both.world.org_now(), "Contact", &of.1);
                    }
                }
            }
            _ => {
                // An import: many records in one moment.
                let ids: Vec<String> = self.live(Side::Salesforce).into_iter().take(12).collect();
                for id in ids {
                    let text = self.value(4, Side::Salesforce);
                    self.edit(&place(Side::Salesforce, &id), 4, &text);
                }
            }
        }
    }

    pub(super) async fn people(&self, seconds: u64, stop: Rc<Cell<bool>>) {
        let end = self.both.world.clock.elapsed() + Duration::from_secs(seconds);
        while self.both.world.clock.elapsed() < end {
            let pause = self.rng.borrow_mut().u64(1..25_000);
            self.both.world.clock.sleep(Duration::from_millis(pause)).await;
            if self.scale.people {
                self.act();
            }
        }
        stop.set(true);
    }
}
