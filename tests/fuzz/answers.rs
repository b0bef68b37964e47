//! Answers of both systems that are not what they should be: cut, mixed up, with other types. A row counts as written only if something readable said so.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use hubferry::{
    clock::{Clock as _, Deadline, Rng},
    config::{SalesforceOrg, SalesforceQuota},
    http::{HttpError, HttpService, Sent, rate_limit::LocalBudget},
    hubspot::{
        account::{Account, AccountParts},
        verdict::Verdict,
    },
    record::{Input, ObjectType, PropertyName},
    salesforce::{
        org::{Org, OrgParts},
        quota::QuotaLimits,
        soql::Select,
        write::{self, Record, Write},
    },
    secrets::MemorySecrets,
};
use hubferry_simulator::{
    hubspot::{self, PortalSettings},
    salesforce,
};
use serde_json::{Value, json};

use super::fuzz;
use crate::support::{World, contacts};

const WORDS: [&[u8]; 22] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"\"results\":[]",
    b"\"results\"",
    b"\"status\":\"COMPLETE\"",
    b"\"status\":\"error\"",
    b"\"id\":null",
    b"\"id\":\"\"",
    b"\"success\":true",
    b"\"success\":false",
    b"\"errors\":[]",
    b"\"errors\":[{}]",
    b"\"created\":true",
    b"\"numErrors\":1",
    b"\"new\":false",
    b"\\u0000",
    b"<html>",
    b",",
    b"\"objectWriteTraceId\":\"x\"",
];

/// Where in an answer's path the changed one is.
struct Tampered {
    world: World,
    /// Calls to addresses with this part: the first one's answer is replaced. The write is carried out or not, as `commits` says.
    path: &'static str,
    body: RefCell<Option<Bytes>>,
    commits: bool,
    /// Whether an answer was replaced, and whether what stood in for it is JSON.
    replaced: Cell<Option<bool>>,
}

#[async_trait(?Send)]
impl HttpService for Tampered {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let now = self.world.clock.now();
        let hit = request.uri().path().contains(self.path) && self.body.borrow().is_some();
        let salesforce = request.uri().host().is_some_and(|host| host.ends_with(".salesforce.com"));
        let mut answer = None;
        if !hit || self.commits {
            answer = if salesforce {
                match self.world.org.borrow_mut().handle(now, &request).response {
                    salesforce::Outcome::Response(response) => Some(response),
                    _ => None,
                }
            } else {
                match self.world.portal.borrow_mut().handle(now, &request).response {
                    hubspot::Outcome::Response(response) => Some(response),
                    _ => None,
                }
            };
        }
        self.world.clock.sleep(std::time::Duration::from_millis(50)).await;
        if hit {
            let body = self.body.borrow_mut().take().unwrap_or_default();
            let is_json = body.is_empty() || serde_json::from_slice::<Value>(&body).is_ok();
            self.replaced.set(Some(is_json));
            return Ok(Response::builder().header("content-type", "application/json").body(body).unwrap());
        }
        answer.ok_or_else(|| HttpError { sent: Sent::Maybe, message: "connection reset".to_owned() })
    }
}

fn tampered(path: &'static str, commits: bool, body: &[u8]) -> Rc<Tampered> {
    let world = World::with(&contacts(""), PortalSettings::default());
    let body = RefCell::new(Some(Bytes::copy_from_slice(body)));
    Rc::new(Tampered { world, path, body, commits, replaced: Cell::new(None) })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn email(at: usize) -> String {
    format!("p{at}@x.io")
}

#[test]
fn whatever_hubspot_answers_to_a_batch_no_row_counts_that_nothing_readable_has_told() {
    const ROWS: usize = 3;
    let object = ObjectType("contacts".to_owned());
    let unreadable = Cell::new(0_u64);
    let tried = fuzz("hubspot", Vec::new(), &WORDS, |input| {
        let (choice, body) = input.split_first().map_or((0, input), |(first, rest)| (*first, rest));
        let http = tampered("/batch/upsert", choice & 1 == 1, body);
        let world = &http.world;
        let secrets = MemorySecrets::new();
        secrets.insert("s", &json!({ "access_token": PortalSettings::TOKEN }).to_string());
        let mut settings = world.config.hubspot["default"].clone();
        settings.secret = "s".to_owned();
        let account = Account::new(AccountParts {
            name: "default".to_owned(),
            settings,
            http: http.clone(),
            clock: world.clock.clone(),
            rng: Rc::new(Rng::seeded(1)),
            secrets: Rc::new(secrets),
            budget: Rc::new(LocalBudget::default()),
        });
        let inputs: Vec<Input> = (0..ROWS)
            .map(|at| Input {
                key: email(at),
                properties: vec![
                    (PropertyName::from("email"), email(at)),
                    (PropertyName::from("firstname"), "N".to_owned()),
                ],
            })
            .collect();
        let Ok(verdicts) = block_on(account.upsert(&object, "email", &inputs, None, Deadline::NONE)) else { return };
        assert_eq!(verdicts.len(), ROWS);
        if http.replaced.get() != Some(false) {
            return;
        }
        unreadable.set(unreadable.get() + 1);
        // What came was no JSON: it says nothing, and what is told was told by the calls that followed.
        for (at, verdict) in verdicts.iter().enumerate() {
            let there = world.portal.borrow().find_by("contacts", "email", &email(at));
            match verdict {
                Verdict::Written { id, .. } => {
                    let there = there.unwrap_or_else(|| panic!("{} counts as written and is not there", email(at)));
                    assert!(id.is_empty() || there["hs_object_id"] == *id, "{}: {id}", email(at));
                }
                other => panic!("{}: {other:?}, after an answer that said nothing", email(at)),
            }
        }
        assert_eq!(world.portal.borrow().record_count("contacts"), ROWS, "nothing is made twice");
    });
    assert!(unreadable.get() * 10 > tried, "{} of {tried} answers were unreadable", unreadable.get());
}

#[test]
fn whatever_salesforce_answers_to_a_collection_no_record_counts_that_nothing_readable_has_told() {
    const KEY: &str = "HubSpot_Contact_Id__c";
    const ROWS: usize = 3;
    let unreadable = Cell::new(0_u64);
    let tried = fuzz("salesforce", Vec::new(), &WORDS, |input| {
        let (choice, body) = input.split_first().map_or((0, input), |(first, rest)| (*first, rest));
        let path = if choice & 2 == 0 { "/composite/sobjects" } else { "/query" };
        let http = tampered(path, choice & 1 == 1, body);
        let world = &http.world;
        let org = Org::new(OrgParts {
            name: "default".to_owned(),
            settings: SalesforceOrg {
                secret: "hubferry/salesforce".to_owned(),
                api_version: "67.0".to_owned(),
                org_id: None,
                quota: SalesforceQuota::default(),
            },
            quota: QuotaLimits::default(),
            http: http.clone(),
            clock: world.clock.clone(),
            rng: Rc::new(Rng::seeded(1)),
            secrets: world.secrets.clone(),
        });
        if choice & 2 == 2 {
            // Any answer to a query is rows or an error.
            let select = Select::from("Contact").unwrap().fields(["Email"]).unwrap();
            if let Ok(rows) = block_on(org.query_to_end(&select, true, Deadline::NONE)) {
                for row in &rows {
                    let _ =
                        (row.id(), row.text("Email"), row.system_modstamp(), row.is_deleted(), row.master_record_id());
                }
            }
            return;
        }
        let records: Vec<Record> = (0..ROWS)
            .map(|at| json!({ KEY: at.to_string(), "LastName": "N", "Email": email(at) }))
            .map(|values| Record { id: None, values: values.as_object().unwrap().clone() })
            .collect();
        let written = block_on(org.write_all("Contact", Write::Upsert { key: KEY }, &records, Deadline::NONE));
        let Ok(verdicts) = written else { return };
        assert_eq!(verdicts.len(), ROWS);
        if http.replaced.get() != Some(false) {
            return;
        }
        unreadable.set(unreadable.get() + 1);
        for (at, verdict) in verdicts.iter().enumerate() {
            if let write::Verdict::Written { id, .. } = verdict {
                let there = world.org.borrow().find_by("Contact", KEY, &at.to_string());
                let there = there.unwrap_or_else(|| panic!("{at} counts as written and is not there"));
                assert_eq!(there["Id"], id.as_str(), "{at}");
            }
        }
        assert!(world.org.borrow().live_records("Contact").count() <= ROWS, "nothing is made twice");
    });
    assert!(unreadable.get() * 20 > tried, "{} of {tried} answers were unreadable", unreadable.get());
}
