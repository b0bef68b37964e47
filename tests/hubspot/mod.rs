//! The HubSpot client's calls against the simulated portal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod adopt;
mod associations;
mod cms;
mod fake;
mod read;
mod records;
mod scan;
mod search;

use std::rc::Rc;

use hubferry::{
    clock::{Clock, Deadline},
    hubspot::account::{Account, Call},
    record::{ObjectType, PropertyName},
};
use hubferry_simulator::hubspot::{Faults, IndexLag, PortalSettings};
use serde_json::Value;

use crate::support::{World, contacts};

/// A portal with results in any order, an index that trails by up to 30 s, and recoverable faults at 5 % of the calls if asked for.
fn portal(faults: bool, seed: u64) -> World {
    let mut settings = PortalSettings { seed, shuffle_results: true, ..PortalSettings::default() };
    settings.latency.fixed_ms = 100;
    settings.index_lag = IndexLag { fixed_ms: 2_000, jitter_ms: 28_000, ..IndexLag::default() };
    if faults {
        settings.faults = Faults::five_percent(seed);
    }
    World::with(&contacts(""), settings)
}

/// The account as a new process has it.
fn account(world: &World) -> Rc<Account> {
    world.process().account("default").unwrap()
}

fn object(name: &str) -> ObjectType {
    ObjectType(name.to_owned())
}

fn names(names: &[&str]) -> Vec<PropertyName> {
    names.iter().map(|name| PropertyName::from(*name)).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Puts a record there, indexed at once.
fn seed(world: &World, object: &str, properties: &[(&str, &str)]) -> String {
    world.portal.borrow_mut().seed_record(world.clock.now(), object, properties).unwrap()
}

/// Calls to addresses with this part.
fn calls(world: &World, path: &str) -> usize {
    world.portal.borrow().log().iter().filter(|call| call.path.contains(path)).count()
}

/// Creates a record through the API: it is not in the index yet.
async fn create(account: &Account, object: &ObjectType, properties: Value) -> String {
    let body = serde_json::json!({ "properties": properties }).to_string();
    let call = Call::post(account.paths().objects(object, ""), body.into());
    let made: Value = account.call(call, Deadline::NONE).await.unwrap().json("create").unwrap();
    made["id"].as_str().unwrap().to_owned()
}
