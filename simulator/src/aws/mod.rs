//! The part of AWS that hubferry uses, in this process, on loopback.
//!
//! [`Cloud::start`] serves S3, DynamoDB, Secrets Manager, SQS and the Lambda APIs to real SDK clients and to the real
//! function binary. It exists so that the main job can be run, broken on purpose and watched without an account.
//! It is not AWS: `simulator/AWS.md` says what is left out.

mod dynamodb;
pub mod events;
pub mod faults;
mod http;
mod lambda;
mod mapping;
mod recorder;
mod runtime;
mod s3;
mod secrets;
mod sqs;

use std::{
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet};

pub use dynamodb::Tables;
pub use faults::{Fault, Faults, When};
pub use lambda::{Functions, Invocation, LambdaError};
pub use mapping::{Mapping, Rule, Schedule, Target};
pub use recorder::{CALLS_KEPT, Call, Recorder};
pub use runtime::CloudClock;
pub use s3::{Bodies, Generator, Listed, S3};
pub use secrets::Secrets;
pub use sqs::{Message, Sqs};

/// The only region.
pub const REGION: &str = "us-east-1";
/// The only account.
pub const ACCOUNT: &str = "000000000000";
/// The least size of a part that is not the last, as S3 bounds it.
pub const MINIMUM_PART_BYTES: u64 = 5 * 1024 * 1024;

/// A service of the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// S3.
    S3,
    /// DynamoDB.
    DynamoDb,
    /// Secrets Manager.
    SecretsManager,
    /// SQS.
    Sqs,
    /// Lambda: the Runtime API and Invoke.
    Lambda,
}

impl Service {
    const ALL: [Self; 5] = [Self::S3, Self::DynamoDb, Self::SecretsManager, Self::Sqs, Self::Lambda];

    /// The SDKs' variable for this service's endpoint.
    fn endpoint_variable(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ENDPOINT_URL_S3",
            Self::DynamoDb => "AWS_ENDPOINT_URL_DYNAMODB",
            Self::SecretsManager => "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            Self::Sqs => "AWS_ENDPOINT_URL_SQS",
            Self::Lambda => "AWS_ENDPOINT_URL_LAMBDA",
        }
    }
}

/// Why the cloud did not start.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// A port or a folder could not be had.
    #[error("the local cloud could not open {what}")]
    Io {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// DynamoDB did not start.
    #[error("the local DynamoDB failed: {0}")]
    Database(String),
}

/// The sockets of a cloud, bound before any runtime exists, so that a caller knows the ports first.
#[derive(Debug)]
pub struct CloudListeners {
    /// S3.
    pub s3: TcpListener,
    /// DynamoDB.
    pub dynamodb: TcpListener,
    /// Secrets Manager.
    pub secrets: TcpListener,
    /// SQS.
    pub sqs: TcpListener,
    /// Lambda's Runtime API and Invoke.
    pub lambda: TcpListener,
}

impl CloudListeners {
    /// Five free ports on 127.0.0.1.
    pub fn bind() -> Result<Self, CloudError> {
        Ok(Self { s3: listen()?, dynamodb: listen()?, secrets: listen()?, sqs: listen()?, lambda: listen()? })
    }

    /// Where each service is going to be.
    pub fn addresses(&self) -> Result<Addresses, CloudError> {
        let at = |listener: &TcpListener| listener.local_addr().map_err(|error| not_open("a port", error));
        Ok(Addresses {
            s3: at(&self.s3)?,
            dynamodb: at(&self.dynamodb)?,
            secrets: at(&self.secrets)?,
            sqs: at(&self.sqs)?,
            lambda: at(&self.lambda)?,
        })
    }
}

/// Where each service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    s3: SocketAddr,
    dynamodb: SocketAddr,
    secrets: SocketAddr,
    sqs: SocketAddr,
    lambda: SocketAddr,
}

impl Addresses {
    /// Host and port.
    pub fn of(&self, service: Service) -> SocketAddr {
        match service {
            Service::S3 => self.s3,
            Service::DynamoDb => self.dynamodb,
            Service::SecretsManager => self.secrets,
            Service::Sqs => self.sqs,
            Service::Lambda => self.lambda,
        }
    }

    /// `http://127.0.0.1:port`: never `localhost`, which makes S3 clients look up `bucket.localhost`.
    pub fn url(&self, service: Service) -> String {
        format!("http://{}", self.of(service))
    }

    /// What a process needs in its environment to use this cloud: endpoints, credentials, region and the Runtime API.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = Service::ALL
            .into_iter()
            .map(|service| (service.endpoint_variable().to_owned(), self.url(service)))
            .collect();
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", REGION),
            ("AWS_DEFAULT_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            environment.push((name.to_owned(), value.to_owned()));
        }
        environment.push(("AWS_LAMBDA_RUNTIME_API".to_owned(), self.lambda.to_string()));
        environment
    }
}

/// The queue for messages that were received so often without success.
pub type DeadLetters = (String, u64);

/// What a cloud has in it from the start.
#[derive(Debug)]
pub struct CloudSettings {
    /// Sockets; free ports if none.
    pub listeners: Option<CloudListeners>,
    /// Where bodies of objects are kept.
    pub bodies: Bodies,
    /// Where tables are kept.
    pub tables: Tables,
    /// Buckets, with versions.
    pub buckets: Vec<String>,
    /// A table with the string keys `pk` and `sk` and the TTL attribute `expires_at`.
    pub table: Option<String>,
    /// Queues: name, visibility time-out, and dead-letter queue with the most receives.
    pub queues: Vec<(String, Duration, Option<DeadLetters>)>,
    /// Which uploads wake whom.
    pub rules: Vec<Rule>,
    /// Queues that feed the function.
    pub mappings: Vec<Mapping>,
    /// What invokes the function from time to time.
    pub schedules: Vec<Schedule>,
    /// The function's name.
    pub function: String,
    /// The function's time-out.
    pub timeout: Duration,
    /// The least size of a part that is not the last.
    pub minimum_part_bytes: u64,
    /// Of ids and of faults with a probability.
    pub seed: u64,
}

impl Default for CloudSettings {
    fn default() -> Self {
        Self {
            listeners: None,
            bodies: Bodies::Memory,
            tables: Tables::Memory,
            buckets: Vec::new(),
            table: None,
            queues: Vec::new(),
            rules: Vec::new(),
            mappings: Vec::new(),
            schedules: Vec::new(),
            function: "hubferry".to_owned(),
            timeout: Duration::from_secs(900),
            minimum_part_bytes: MINIMUM_PART_BYTES,
            seed: 1,
        }
    }
}

/// What all services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<CloudClock>,
    pub(crate) faults: Faults,
    pub(crate) recorder: Recorder,
    rng: Mutex<fastrand::Rng>,
    background: Mutex<JoinSet<()>>,
}

impl Shared {
    /// Applies faults that come before the call; the others are for the caller to apply.
    async fn admit(&self, call: &Call) -> Result<Option<Fault>, http::Closed> {
        match self.faults.decide(call.service, &call.action, &call.resource) {
            Some(Fault::Refuse) => Err(http::Closed),
            Some(Fault::Slow { by }) => {
                self.clock.sleep(by).await;
                Ok(None)
            }
            fault => Ok(fault),
        }
    }

    fn letters(&self, count: usize) -> String {
        let mut rng = lock(&self.rng);
        (0..count).map(|_| rng.alphanumeric()).collect()
    }

    fn hex_letters(&self, count: usize) -> String {
        let mut rng = lock(&self.rng);
        (0..count).map(|_| char::from_digit(rng.u32(0..16), 16).unwrap_or('0')).collect()
    }

    fn uuid(&self) -> String {
        let part = |count| self.hex_letters(count);
        format!("{}-{}-4{}-8{}-{}", part(8), part(4), part(3), part(3), part(12))
    }

    /// Runs until done, or until the cloud is dropped.
    fn background(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut background = lock(&self.background);
        while background.try_join_next().is_some() {}
        background.spawn(future);
    }
}

/// A running cloud; it stops when it is dropped.
pub struct Cloud {
    addresses: Addresses,
    shared: Arc<Shared>,
    s3: Arc<S3>,
    secrets: Arc<Secrets>,
    sqs: Arc<Sqs>,
    functions: Arc<Functions>,
    database: dynoxide::Database,
    rules: Arc<Mutex<Vec<Rule>>>,
    tasks: JoinSet<()>,
}

impl Cloud {
    /// Starts serving, on the current runtime.
    ///
    /// # Errors
    /// A port, a folder or the database could not be opened.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn start(settings: CloudSettings) -> Result<Self, CloudError> {
        let listeners = match settings.listeners {
            Some(listeners) => listeners,
            None => CloudListeners::bind()?,
        };
        let addresses = listeners.addresses()?;
        if let Bodies::Folder(folder) | Bodies::Kept(folder) = &settings.bodies {
            std::fs::create_dir_all(folder).map_err(|error| not_open(&folder.display().to_string(), error))?;
        }
        let clock = Arc::new(CloudClock::start());
        let shared = Arc::new(Shared {
            faults: Faults::new(Arc::clone(&clock), settings.seed),
            clock,
            recorder: Recorder::default(),
            rng: Mutex::new(fastrand::Rng::with_seed(settings.seed)),
            background: Mutex::default(),
        });
        let database = settings.tables.open()?;
        if let Some(table) = &settings.table {
            dynamodb::create_table(&database, table)?;
        }
        let inner = listen()?;
        let upstream = inner.local_addr().map_err(|error| not_open("a port", error))?;
        let (created, receiver) = mpsc::unbounded_channel();
        let s3 = Arc::new(S3::new(Arc::clone(&shared), settings.bodies, settings.minimum_part_bytes, created));
        s3.load().map_err(|error| not_open("the index of the objects", error))?;
        for bucket in &settings.buckets {
            s3.create_bucket(bucket, true);
        }
        let sqs = Arc::new(Sqs::new(Arc::clone(&shared), addresses.url(Service::Sqs)));
        for (name, visibility, dead_letters) in &settings.queues {
            sqs.create(name, *visibility, dead_letters.as_ref().map(|(name, count)| (name.as_str(), *count)));
        }
        let secrets = Arc::new(Secrets::new(Arc::clone(&shared)));
        let functions = Arc::new(Functions::new(Arc::clone(&shared), settings.function, settings.timeout));
        let dynamodb = Arc::new(dynamodb::DynamoDb { shared: Arc::clone(&shared), upstream });

        let mut tasks = JoinSet::new();
        tasks.spawn(dynoxide::server::serve_on(adopt(inner)?, database.clone()));
        tasks.spawn(http::serve(adopt(listeners.s3)?, Arc::clone(&s3)));
        tasks.spawn(http::serve(adopt(listeners.dynamodb)?, dynamodb));
        tasks.spawn(http::serve(adopt(listeners.secrets)?, Arc::clone(&secrets)));
        tasks.spawn(http::serve(adopt(listeners.sqs)?, Arc::clone(&sqs)));
        tasks.spawn(http::serve(adopt(listeners.lambda)?, Arc::new(lambda::Lambda(Arc::clone(&functions)))));
        let rules = Arc::new(Mutex::new(settings.rules));
        tasks.spawn(mapping::route(receiver, Arc::clone(&rules), Arc::clone(&sqs), Arc::clone(&functions)));
        for schedule in settings.schedules {
            tasks.spawn(mapping::keep(schedule, Arc::clone(&functions), Arc::clone(&shared.clock)));
        }
        for mapping in settings.mappings {
            tasks.spawn(mapping::poll(mapping, Arc::clone(&sqs), Arc::clone(&functions)));
        }
        Ok(Self { addresses, shared, s3, secrets, sqs, functions, database, rules, tasks })
    }

    /// Where each service is.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What a process needs in its environment to use this cloud.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.addresses.environment()
    }

    /// S3, without HTTP.
    pub fn s3(&self) -> &S3 {
        &self.s3
    }

    /// Secrets Manager, without HTTP.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// SQS, without HTTP.
    pub fn sqs(&self) -> &Sqs {
        &self.sqs
    }

    /// The function.
    pub fn functions(&self) -> &Arc<Functions> {
        &self.functions
    }

    /// The database behind DynamoDB.
    pub fn database(&self) -> &dynoxide::Database {
        &self.database
    }

    /// Changes which uploads wake whom, from the next upload on.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        *lock(&self.rules) = rules;
    }

    /// One item of a table with the string keys `pk` and `sk`, as DynamoDB writes attributes (`{"S": …}`); `None` where there is none.
    pub fn item(&self, table: &str, pk: &str, sk: &str) -> Option<serde_json::Value> {
        dynamodb::item(&self.database, table, pk, sk)
    }

    /// The `sk` of the items under a `pk`, in order, `limit` at most.
    pub fn sort_keys(&self, table: &str, pk: &str, limit: usize) -> Vec<String> {
        dynamodb::sort_keys(&self.database, table, pk, limit)
    }

    /// Faults to arm.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What was asked so far.
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// The cloud's clock, which can be moved forward. DynamoDB has no part in it: leases carry their own times.
    pub fn clock(&self) -> &CloudClock {
        &self.shared.clock
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.s3.close();
        self.tasks.abort_all();
        // These hold the shared state that holds them.
        lock(&self.shared.background).abort_all();
    }
}

/// A lock whose holder panicked is still a lock: a test that fails should fail once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn not_open(what: &str, source: io::Error) -> CloudError {
    CloudError::Io { what: what.to_owned(), source }
}

fn listen() -> Result<TcpListener, CloudError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| not_open("a port", error))
}

fn adopt(listener: TcpListener) -> Result<tokio::net::TcpListener, CloudError> {
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|error| not_open("a port", error))
}
