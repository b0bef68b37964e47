//! The Salesforce client against the simulated org: each rule of the API that a sync has to survive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod bulk;
mod changes;
mod sessions;
mod statements;
mod writes;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use hubferry::{
    ErrorKind,
    clock::{Clock, Deadline, Rng, VirtualClock},
    codes,
    config::{SalesforceOrg, SalesforceQuota},
    http::{HttpError, HttpService, Sent},
    salesforce::{
        model::{SalesforceId, Values},
        org::{Org, OrgParts},
        quota::QuotaLimits,
        write::Record,
    },
    secrets::{MemorySecrets, Redacted, Secrets},
};
use hubferry_simulator::salesforce::{self as simulator, OrgSettings, Outcome};
use serde_json::{Value, json};

const SECRET: &str = "hubferry/salesforce";

/// An org in process, virtual time, secrets in memory, one seed.
struct World {
    org: Rc<RefCell<simulator::Org>>,
    clock: Rc<VirtualClock>,
    secrets: Rc<MemorySecrets>,
    /// So many writes of the secret fail.
    put_fails: Rc<Cell<u32>>,
    rng: Rc<Rng>,
}

/// Secrets whose writes fail on request.
struct Failing(Rc<MemorySecrets>, Rc<Cell<u32>>);

#[async_trait(?Send)]
impl Secrets for Failing {
    async fn get(&self, id: &str) -> hubferry::Result<Redacted> {
        self.0.get(id).await
    }

    async fn put(&self, id: &str, value: &Redacted, token: &str) -> hubferry::Result<()> {
        if self.1.get() > 0 {
            self.1.set(self.1.get() - 1);
            self.0.fail_next(ErrorKind::Unavailable { retry_after: None }, codes::AWS_UNAVAILABLE);
        }
        self.0.put(id, value, token).await
    }
}

struct InProcess {
    org: Rc<RefCell<simulator::Org>>,
    clock: Rc<VirtualClock>,
}

#[async_trait(?Send)]
impl HttpService for InProcess {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let reply = self.org.borrow_mut().handle(self.clock.now(), &request);
        self.clock.sleep(reply.latency).await;
        let lost = |message: &str| HttpError { sent: Sent::Maybe, message: message.to_owned() };
        match reply.response {
            Outcome::Response(response) => Ok(response),
            Outcome::ResetBefore | Outcome::ResetAfter => Err(lost("connection reset")),
            Outcome::Truncated(_) => Err(lost("the body ended early")),
        }
    }
}

impl World {
    fn new(settings: OrgSettings) -> Self {
        let secrets = MemorySecrets::new();
        secrets.insert(SECRET, &client_credentials(OrgSettings::LOGIN_URL).to_string());
        let seed = settings.seed;
        let settings = OrgSettings { latency_ms: 100, ..settings };
        Self {
            org: Rc::new(RefCell::new(simulator::Org::new(settings))),
            clock: Rc::new(VirtualClock::starting_at("2026-03-02T09:00:00Z".parse().unwrap())),
            secrets: Rc::new(secrets),
            put_fails: Rc::default(),
            rng: Rc::new(Rng::seeded(seed)),
        }
    }

    /// A new process: nothing is remembered but what is behind the doors.
    fn client(&self) -> Org {
        self.client_with(QuotaLimits::default())
    }

    fn client_with(&self, quota: QuotaLimits) -> Org {
        self.client_over(Rc::new(InProcess { org: self.org.clone(), clock: self.clock.clone() }), quota)
    }

    fn client_over(&self, http: Rc<dyn HttpService>, quota: QuotaLimits) -> Org {
        Org::new(OrgParts {
            name: "default".to_owned(),
            settings: SalesforceOrg {
                secret: SECRET.to_owned(),
                api_version: "67.0".to_owned(),
                org_id: None,
                quota: SalesforceQuota::default(),
            },
            quota,
            http,
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            secrets: Rc::new(Failing(self.secrets.clone(), self.put_fails.clone())),
        })
    }

    /// A person creates a contact with this last name and these further fields.
    fn contact(&self, last_name: &str, more: &[(&str, &str)]) -> SalesforceId {
        let mut values = vec![("LastName", last_name)];
        values.extend_from_slice(more);
        let id = self.org.borrow_mut().create(self.clock.now(), "Contact", &values).unwrap();
        SalesforceId::parse(&id).unwrap()
    }

    fn look(&self, id: &SalesforceId, field: &str) -> Option<String> {
        self.org.borrow().look("Contact", id.as_str())?.get(field).cloned()
    }

    /// Calls whose path contains this.
    fn calls(&self, path: &str) -> usize {
        self.org.borrow().log().iter().filter(|call| call.path.contains(path)).count()
    }

    fn contacts(&self) -> usize {
        self.org.borrow().live_records("Contact").count()
    }
}

fn client_credentials(login_url: &str) -> Value {
    json!({"flow": "client_credentials", "login_url": login_url, "client_id": OrgSettings::CLIENT_ID,
        "client_secret": OrgSettings::CLIENT_SECRET})
}

fn values(json: Value) -> Values {
    json.as_object().unwrap().clone()
}

fn record(json: Value) -> Record {
    Record { id: None, values: values(json) }
}

fn of(id: &SalesforceId, json: Value) -> Record {
    Record { id: Some(id.clone()), values: values(json) }
}

const NONE: Deadline = Deadline::NONE;
