//! A HubSpot of a few lines, for what the simulated portal does not do: odd orders of ids, opaque cursors, gaps of any size.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use hubferry::{
    clock::{Clock, Rng, VirtualClock},
    http::{HttpError, HttpService, Sent, rate_limit::LocalBudget},
    hubspot::account::{Account, AccountParts},
    secrets::MemorySecrets,
};
use serde_json::{Value, json};

use crate::support::{World, contacts};

/// Compares ids.
pub(super) type Order = fn(u64, u64) -> Ordering;

pub(super) fn numbers(left: u64, right: u64) -> Ordering {
    left.cmp(&right)
}

pub(super) fn text(left: u64, right: u64) -> Ordering {
    left.to_string().cmp(&right.to_string())
}

/// What a list's cursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursors {
    /// The last id; ids ascend.
    LastId,
    /// The last id until so many calls were made, then ids come in descending order.
    LastIdUntil(u64),
    /// A word that means a place in `ids` as they stand.
    Opaque,
}

pub(super) struct Fake {
    /// For lists by last id: ascending.
    pub(super) ids: RefCell<Vec<u64>>,
    pub(super) sort: Order,
    pub(super) filter: Order,
    pub(super) cursors: Cursors,
    /// Searches show nothing, although they count.
    pub(super) hides: Cell<u32>,
    pub(super) calls: Cell<u64>,
    pub(super) under_way: Cell<usize>,
    pub(super) most_under_way: Cell<usize>,
    pub(super) latency: Duration,
    clock: Rc<VirtualClock>,
}

impl Fake {
    pub(super) fn new(world: &World, ids: Vec<u64>) -> Self {
        Self {
            ids: RefCell::new(ids),
            sort: numbers,
            filter: numbers,
            cursors: Cursors::LastId,
            hides: Cell::new(0),
            calls: Cell::new(0),
            under_way: Cell::new(0),
            most_under_way: Cell::new(0),
            latency: Duration::from_millis(300),
            clock: world.clock.clone(),
        }
    }

    fn record(id: u64) -> Value {
        json!({"id": id.to_string(), "properties": {"hs_object_id": id.to_string()}, "archived": false,
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"})
    }

    fn search(&self, body: &Value) -> Value {
        let mut ids: Vec<u64> = self.ids.borrow().clone();
        for filter in body["filterGroups"][0]["filters"].as_array().into_iter().flatten() {
            if filter["propertyName"] != "hs_object_id" {
                continue;
            }
            let value = || filter["value"].as_str().unwrap().parse().unwrap();
            match filter["operator"].as_str().unwrap() {
                "GT" => ids.retain(|id| (self.filter)(*id, value()).is_gt()),
                "EQ" => ids.retain(|id| *id == value()),
                "IN" => ids.retain(|id| filter["values"].as_array().unwrap().contains(&json!(id.to_string()))),
                other => panic!("{other}"),
            }
        }
        ids.sort_by(|left, right| (self.sort)(*left, *right));
        if body["sorts"][0]["direction"] == "DESCENDING" {
            ids.reverse();
        }
        let total = ids.len();
        ids.truncate(usize::try_from(body["limit"].as_u64().unwrap()).unwrap());
        if self.hides.get() > 0 {
            self.hides.set(self.hides.get() - 1);
            return json!({"total": total, "results": []});
        }
        let more = total > ids.len();
        let results: Vec<Value> = ids.into_iter().map(Self::record).collect();
        let next = more.then(|| json!({"next": {"after": results.len().to_string()}}));
        json!({"total": total, "results": results, "paging": next})
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Value {
        let limit: usize = query["limit"].parse().unwrap();
        let after = query.get("after").map(String::as_str);
        let ids = self.ids.borrow();
        let broken = matches!(self.cursors, Cursors::LastIdUntil(calls) if self.calls.get() > calls);
        if self.cursors == Cursors::Opaque || broken {
            // A cursor of before leads to the start.
            let at: usize = after.and_then(|after| after.strip_prefix("at-")?.parse().ok()).unwrap_or_default();
            let page: Vec<Value> = ids.iter().rev().skip(at).take(limit).map(|id| Self::record(*id)).collect();
            let next =
                (at + page.len() < ids.len()).then(|| json!({"next": {"after": format!("at-{}", at + page.len())}}));
            return json!({"results": page, "paging": next});
        }
        let after: u64 = after.map_or(0, |after| after.parse().unwrap());
        let from = ids.partition_point(|id| *id <= after);
        let mut sorted: Vec<u64> = ids.iter().skip(from).take(limit + 1).copied().collect();
        let more = sorted.len() > limit;
        sorted.truncate(limit);
        let next = sorted.last().filter(|_| more).map(|last| json!({"next": {"after": last.to_string()}}));
        json!({"results": sorted.into_iter().map(Self::record).collect::<Vec<_>>(), "paging": next})
    }
}

#[async_trait(?Send)]
impl HttpService for Fake {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.calls.set(self.calls.get() + 1);
        self.under_way.set(self.under_way.get() + 1);
        self.most_under_way.set(self.most_under_way.get().max(self.under_way.get()));
        self.clock.sleep(self.latency).await;
        self.under_way.set(self.under_way.get() - 1);
        let query = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let query: BTreeMap<String, String> = query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let body = if request.uri().path().ends_with("/search") {
            self.search(&serde_json::from_slice(request.body()).unwrap())
        } else {
            self.list(&query)
        };
        Ok(Response::builder().header("x-hubspot-ratelimit-max", "190").body(Bytes::from(body.to_string())).unwrap())
    }
}

/// An account behind which this is.
pub(super) fn account(world: &World, fake: Rc<dyn HttpService>) -> Rc<Account> {
    let secrets = MemorySecrets::new();
    secrets.insert("s", &json!({ "access_token": "pat-na1-1" }).to_string());
    let mut settings = world.config.hubspot["default"].clone();
    settings.secret = "s".to_owned();
    Rc::new(Account::new(AccountParts {
        name: "default".to_owned(),
        settings,
        http: fake,
        clock: world.clock.clone(),
        rng: Rc::new(Rng::seeded(1)),
        secrets: Rc::new(secrets),
        budget: Rc::new(LocalBudget::default()),
    }))
}

/// Answers with what a function says: the status (0: the connection breaks after the request was sent) and the body.
pub(super) struct Scripted<F> {
    pub(super) answer: F,
    /// Method, path with query, and body of each request.
    pub(super) seen: RefCell<Vec<String>>,
}

#[async_trait(?Send)]
impl<F: Fn(usize, &str) -> (u16, String)> HttpService for Scripted<F> {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let address = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let told = format!("{} {address} {}", request.method(), String::from_utf8_lossy(request.body()));
        self.seen.borrow_mut().push(told.trim_end().to_owned());
        let count = self.seen.borrow().len();
        match (self.answer)(count, &told) {
            (0, _) => Err(HttpError { sent: Sent::Maybe, message: "connection reset".to_owned() }),
            (status, body) => Ok(Response::builder().status(status).body(Bytes::from(body)).unwrap()),
        }
    }
}

/// A world whose portal is not used.
pub(super) fn world() -> World {
    World::new(&contacts(""))
}
