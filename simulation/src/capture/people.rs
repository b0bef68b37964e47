//! People and programs at work in HubSpot while it is captured.

use std::{cell::Cell, time::Duration};

use hubferry::clock::Clock as _;
use serde_json::json;

use super::{World, plan::Kind};

/// Stands in every value that people write: none of it may be seen in a log.
pub const MARK: &str = "zq7";

/// The bin keeps so many records that a person restores one of them now and then.
const COMPANIES: usize = 3;

impl World {
    /// What stands there when the captures begin.
    pub(super) fn populate(&self, rng: &mut fastrand::Rng) {
        let now = self.outside.hubspot_now();
        for (account, kind) in self.kinds() {
            for _ in 0..self.plan.records {
                let name = self.value(rng);
                let mut portal = self.outside.portals[account].borrow_mut();
                if kind.modified.is_some() {
                    portal.seed_record(now, kind.object, &[(kind.name, &name)]);
                } else {
                    portal.create_content(now, kind.object, &content(&name));
                }
            }
            for _ in 0..COMPANIES {
                let name = self.value(rng);
                self.outside.portals[account].borrow_mut().seed_record(now, "companies", &[("name", &name)]);
            }
        }
    }

    /// What is captured, once each: account and kind.
    pub(super) fn kinds(&self) -> Vec<(usize, Kind)> {
        let mut kinds: Vec<(usize, Kind)> = Vec::new();
        for capture in &self.plan.captures {
            let is_known =
                kinds.iter().any(|(account, kind)| *account == capture.account && kind.object == capture.kind.object);
            if !is_known {
                kinds.push((capture.account, capture.kind));
            }
        }
        kinds
    }

    /// A new value.
    fn value(&self, rng: &mut fastrand::Rng) -> String {
        let (number, odd) = (self.next(), rng.u8(..8));
        match odd {
            0 if self.plan.odd => format!("{MARK} \"{number}\", y\nz"),
            1 if self.plan.odd => format!("{MARK}é\u{1f600}{number};"),
            _ => format!("{MARK}{number}"),
        }
    }

    /// People work until they are told to stop.
    pub(super) async fn people(&self, mut rng: fastrand::Rng, stop: &Cell<bool>) {
        while !stop.get() {
            let (pause, whole) = (rng.u64(1..20_000), rng.u8(..4) == 0);
            self.outside.clock.sleep(Duration::from_millis(pause)).await;
            if whole {
                // On the second: where a window begins.
                let over = self.outside.hubspot_now().subsec_millisecond();
                self.outside.clock.sleep(Duration::from_millis(u64::try_from(1_000 - over).unwrap_or(1))).await;
            }
            if stop.get() {
                break;
            }
            let now = self.outside.hubspot_now();
            for portal in &self.outside.portals {
                portal.borrow_mut().run_workflows(now);
            }
            let kinds = self.kinds();
            let (account, kind) = kinds[rng.usize(..kinds.len())];
            if kind.modified.is_some() {
                self.act(&mut rng, account, kind);
            } else {
                self.write_content(&mut rng, account, kind);
            }
        }
    }

    fn act(&self, rng: &mut fastrand::Rng, account: usize, kind: Kind) {
        let now = self.outside.hubspot_now();
        let object = kind.object;
        let mut portal = self.outside.portals[account].borrow_mut();
        let live: Vec<String> = portal.live_objects(object, &[]).map(|one| one.id).collect();
        let any = |rng: &mut fastrand::Rng, ids: &[String]| {
            let at = rng.usize(..ids.len().max(1));
            ids.get(at).cloned()
        };
        match rng.u8(..34) {
            0..=5 => {
                let id = portal.create_record(now, object, &[(kind.name, &self.value(rng))]);
                self.note(format_args!("{account} {object} {id:?} created"));
            }
            6..=14 => {
                let name = self.value(rng);
                for _ in 0..rng.usize(1..4) {
                    if let Some(id) = any(rng, &live) {
                        portal.edit(now, object, &id, &[(kind.name, &name)]);
                        self.note(format_args!("{account} {object} {id} edited"));
                    }
                }
            }
            15..=18 => {
                if let Some(id) = any(rng, &live) {
                    portal.set_archived(now, object, &id, true);
                    self.undated(account, object, &id);
                    self.ledger.borrow_mut().archived.insert((account, object.to_owned(), id.clone()), now);
                    self.note(format_args!("{account} {object} {id} archived"));
                }
            }
            19..=21 => {
                let binned: Vec<String> = portal.archived_objects(now, object).into_iter().map(|(id, _)| id).collect();
                if let Some(id) = any(rng, &binned) {
                    portal.set_archived(now, object, &id, false);
                    self.undated(account, object, &id);
                    self.restored(account, object, &id);
                    self.note(format_args!("{account} {object} {id} restored"));
                }
            }
            22 | 23 => {
                if let (Some(winner), Some(loser)) = (any(rng, &live), any(rng, &live))
                    && portal.merge(now, object, &winner, &loser)
                {
                    self.undated(account, object, &winner);
                    self.undated(account, object, &loser);
                    self.note(format_args!("{account} {object} {winner} takes in {loser}"));
                }
            }
            24 => {
                // A privacy deletion, of a record that lives or of one in the bin.
                if let Some(id) = any(rng, &live) {
                    portal.purge(now, object, &id);
                    self.ledger.borrow_mut().purged.insert((account, object.to_owned(), id.clone()));
                    self.note(format_args!("{account} {object} {id} purged"));
                }
            }
            25..=28 => {
                // No date moves with these.
                let companies: Vec<String> = portal.live_objects("companies", &[]).map(|one| one.id).collect();
                let (near, far, bind) = (any(rng, &live), any(rng, &companies), rng.bool());
                if let (Some(id), Some(company)) = (near, far)
                    && object != "companies"
                {
                    if bind {
                        portal.associate(object, &id, "companies", &company);
                    } else {
                        portal.dissociate(object, &id, "companies", &company);
                    }
                    self.note(format_args!("{account} {object} {id} and {company}: {bind}"));
                }
            }
            29..=31 => {
                // A program: many records in one millisecond.
                let name = self.value(rng);
                let ids: Vec<String> = live.into_iter().take(40).collect();
                self.note(format_args!("{account} {object} {} edited at once", ids.len()));
                portal.edit_many(now, object, ids, &[(kind.name, &name)]);
            }
            _ => {
                // A write that changes nothing.
                if let Some(id) = any(rng, &live) {
                    portal.edit(now, object, &id, &[]);
                    self.note(format_args!("{account} {object} {id} touched"));
                }
            }
        }
    }

    fn write_content(&self, rng: &mut fastrand::Rng, account: usize, kind: Kind) {
        let now = self.outside.hubspot_now();
        let mut portal = self.outside.portals[account].borrow_mut();
        let live: Vec<String> = portal
            .live_content(kind.object)
            .iter()
            .filter_map(|item| Some(item.get("id")?.as_str()?.to_owned()))
            .collect();
        let (what, at, name) = (rng.u8(..10), rng.usize(..live.len().max(1)), self.value(rng));
        match live.get(at) {
            Some(id) if what < 6 => {
                portal.edit_content(now, kind.object, id, &json!({ "name": name, "routePrefix": format!("/{name}") }));
                self.note(format_args!("{account} {} {id} edited", kind.object));
            }
            Some(id) if what < 8 => {
                portal.delete_content(now, kind.object, id);
                self.undated(account, kind.object, id);
                self.note(format_args!("{account} {} {id} deleted", kind.object));
            }
            _ => {
                let id = portal.create_content(now, kind.object, &content(&name));
                self.note(format_args!("{account} {} {id:?} created", kind.object));
            }
        }
    }

    fn restored(&self, account: usize, object: &str, id: &str) {
        let now = self.outside.hubspot_now();
        let key = (account, object.to_owned(), id.to_owned());
        let mut ledger = self.ledger.borrow_mut();
        if let Some(since) = ledger.archived.remove(&key) {
            ledger.absent.entry(key).or_default().push((since, now));
        }
    }

    /// Something happened to a record with which no date moves.
    fn undated(&self, account: usize, object: &str, id: &str) {
        self.ledger.borrow_mut().undated.insert((account, object.to_owned(), id.to_owned()));
    }
}

fn content(name: &str) -> serde_json::Value {
    json!({ "name": name, "label": "L", "slug": name, "routePrefix": format!("/{name}"), "destination": "/x",
        "redirectStyle": 301, "email": "a@example.com", "fullName": name })
}
