//! Tells people: a Slack webhook, an SNS topic.
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `notice#<job>#<name>` | `notice` | for each kind of message `<kind>_at`, `<kind>_run` (who told it last, and when, in ms since 1970) and `<kind>_held` (how many were held back since); `failing`: the run that failed last, while no good one followed; `told`: `failing` or `recovered`; `rejected_permille` of the last good run; `review_open` when it was told last |
//!
//! What is promised:
//!
//! - *A message is extra.* The run is over and its report is stored before anything is told. Whatever fails here is a line in the log: it
//!   neither fails nor delays a run beyond [`TELLING_MAX`], nor beyond its deadline.
//! - *At most one message an hour of each kind for each job.* Who tells has claimed the hour in the table by a conditional write; of two
//!   invocations one gets it. A message that surely went nowhere gives the claim back but for some minutes.
//! - *What was told last is true in the end.* A failure or a recovery that fell into its hour is told afterwards, by the resume schedule, if it
//!   is still so.
//! - *Nothing secret, and nothing of a row* in a message or in the log: the webhook's address is the secret itself, and appears nowhere.

mod notice;
mod slack;
#[cfg(test)]
mod tests;
mod topic;

use std::{pin::pin, rc::Rc, time::Duration};

use futures_util::future::{Either, join, select};
use jiff::Timestamp;

use self::notice::{Decision, Remembered, TOLD_FAILING, TOLD_RECOVERED, decide, message};
pub use self::{
    notice::{Kind, Message, SUBJECT_MAX},
    topic::{MemoryTopic, Sns, Topic},
};
use crate::{
    app::Env,
    clock::Deadline,
    codes,
    config::{Config, Notify},
    error::{Error, ErrorKind, Result},
    http::{Sent, token::call_within},
    report::Report,
    state::{Changed, Condition, Item, Key, Update, Value, runs::Runs},
};

/// One message of a kind for a job in so much time.
pub const QUIET: Duration = Duration::from_secs(3_600);

/// All that is done for one run: state, and both ways side by side.
pub const TELLING_MAX: Duration = Duration::from_secs(8);

/// One way's attempt; webhooks answer in a tenth of a second.
const SENDING_MAX: Duration = Duration::from_secs(3);

/// What is left of an invocation for its answer.
const ANSWER_NEEDS: Duration = Duration::from_secs(1);

/// With less time than this nothing is begun.
const TELLING_MIN: Duration = Duration::from_secs(1);

/// When a message that went nowhere may be tried again, by the next run of the job that is worth one.
const TRY_AGAIN: Duration = Duration::from_secs(5 * 60);

/// A job that never runs is forgotten after this.
const FORGOTTEN_AFTER_SECONDS: i64 = 180 * 24 * 3_600;
/// The item of one that runs is kept alive this long before.
const REFRESH_BEFORE_SECONDS: i64 = 90 * 24 * 3_600;

/// Tells about runs, as the settings say.
pub struct Notifier<'a> {
    /// The doors.
    pub env: &'a Env,
    /// Whom to tell.
    pub settings: &'a Notify,
    /// The door to SNS, where there is one.
    pub topic: Option<&'a Rc<dyn Topic>>,
}

impl Notifier<'_> {
    /// Tells what is worth telling about a run that has ended. Never fails; returns in time.
    pub async fn tell(&self, report: &Report, deadline: Deadline) {
        if !self.has_anybody() {
            return;
        }
        self.in_time(deadline, &report.job, &report.name, self.about(report)).await;
    }

    /// Tells what was held back and is still so: for the schedule that comes every few minutes. Never fails; returns in time.
    pub async fn catch_up(&self, config: &Config, runs: &Runs, deadline: Deadline) {
        if !self.has_anybody() {
            return;
        }
        let imports = config.imports.iter().map(|import| ("import", &import.name));
        let captures = config.captures.iter().map(|capture| ("capture", &capture.name));
        let syncs = config.syncs.iter().map(|sync| ("sync", &sync.name));
        for (job, name) in imports.chain(captures).chain(syncs) {
            self.in_time(deadline, job, name, self.held_back(job, name, runs)).await;
        }
    }

    fn has_anybody(&self) -> bool {
        let topic = self.settings.sns_topic_arn.is_some() && self.topic.is_some();
        topic || self.settings.slack_webhook_secret.is_some()
    }

    /// Gives up when the time is over; what went wrong is a line in the log.
    async fn in_time(&self, deadline: Deadline, job: &str, name: &str, telling: impl Future<Output = Result<()>>) {
        let clock = &self.env.clock;
        let left = deadline.remaining(clock.now()).saturating_sub(ANSWER_NEEDS);
        if left < TELLING_MIN {
            tracing::warn!(job, name, "no time is left to tell anybody about the run");
            return;
        }
        match select(pin!(telling), clock.sleep(left.min(TELLING_MAX))).await {
            Either::Left((Ok(()), _)) => {}
            Either::Left((Err(error), _)) => {
                tracing::warn!(job, name, error_code = %error.code(), hint = error.hint(), "nobody could be told about the run: {error}");
            }
            Either::Right(((), _)) => tracing::warn!(job, name, "telling about the run took too long and was given up"),
        }
    }

    async fn about(&self, report: &Report) -> Result<()> {
        let key = key(&report.job, &report.name);
        let known = self.env.table.get(&key).await?.as_ref().map(Remembered::from).unwrap_or_default();
        let Decision { notices, next } = decide(report, &known, self.settings.unusual_rejects);
        self.remember(&key, &known, &next).await?;
        for kind in notices {
            self.tell_of(&key, kind, report).await?;
        }
        Ok(())
    }

    /// A failure or a recovery that fell into its hour.
    async fn held_back(&self, job: &str, name: &str, runs: &Runs) -> Result<()> {
        let key = key(job, name);
        let Some(item) = self.env.table.get(&key).await? else { return Ok(()) };
        let known = Remembered::from(&item);
        let run_id = match (&known.failing, known.told_failing) {
            (Some(run_id), false) => run_id.clone(),
            (None, true) => match runs.context(job, name).await? {
                Some(context) => context.last_run.run_id,
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        let Some(report) = runs.get(&run_id).await?.and_then(|run| run.report) else { return Ok(()) };
        let told = decide(&report, &known, self.settings.unusual_rejects).notices;
        for kind in told.into_iter().filter(|kind| matches!(kind, Kind::Failed | Kind::Braked | Kind::Recovered)) {
            // One that is not due is held back already, and not once more.
            if is_due(&item, kind, self.env.clock.now()) {
                self.tell_of(&key, kind, &report).await?;
            }
        }
        Ok(())
    }

    /// Writes what has changed, and nothing where nothing has: most good runs write nothing.
    async fn remember(&self, key: &Key, known: &Remembered, next: &Remembered) -> Result<()> {
        let mut update = Update::default();
        if known.failing != next.failing {
            match &next.failing {
                Some(run_id) => update.set.push(("failing", run_id.as_str().into())),
                None => update.remove.push("failing"),
            }
        }
        if known.rejected_permille != next.rejected_permille
            && let Some(permille) = next.rejected_permille
        {
            update.set.push(("rejected_permille", number(permille).into()));
        }
        if known.review_open != next.review_open {
            update.set.push(("review_open", number(next.review_open).into()));
        }
        let now = self.env.clock.now().as_second();
        let kept = known.expires_at > 0 && known.expires_at - now < REFRESH_BEFORE_SECONDS;
        if update.set.is_empty() && update.remove.is_empty() && !kept {
            return Ok(());
        }
        update.set.push(("expires_at", now.saturating_add(FORGOTTEN_AFTER_SECONDS).into()));
        self.env.table.update(key, update).await?;
        Ok(())
    }

    /// Tells of one thing, if its hour is free.
    async fn tell_of(&self, key: &Key, kind: Kind, report: &Report) -> Result<()> {
        let run_id = report.run_id.as_deref().unwrap_or_default();
        let Some((at, held)) = self.claim(key, kind, run_id).await? else {
            tracing::info!(
                run_id,
                job = report.job,
                name = report.name,
                notice = kind.as_str(),
                "a message is held back: there was one like it within the hour"
            );
            return Ok(());
        };
        let message = message(kind, report, held);
        if self.send(&message).await {
            tracing::info!(run_id, job = report.job, name = report.name, notice = kind.as_str(), "a message was sent");
            self.note_told(key, kind, report, held).await
        } else {
            self.give_back(key, kind, run_id, at).await
        }
    }

    /// Takes the hour: when, and how many messages were held back before. `None` if it is another's.
    async fn claim(&self, key: &Key, kind: Kind, run_id: &str) -> Result<Option<(i64, u64)>> {
        let [at, run, held] = kind.attributes();
        let now = self.env.clock.now();
        let update = Update {
            set: vec![
                (at, now.as_millisecond().into()),
                (run, run_id.into()),
                ("expires_at", now.as_second().saturating_add(FORGOTTEN_AFTER_SECONDS).into()),
            ],
            condition: Some(Condition::Any(vec![
                Condition::Absent(at),
                Condition::AtMost(at, quiet_since(now).into()),
            ])),
            ..Update::default()
        };
        let item = match self.env.table.update(key, update).await? {
            Changed::Yes(item) => item,
            // The answer to our own first attempt was lost.
            Changed::No(Some(item))
                if item.get(at) == Some(&now.as_millisecond().into()) && item.get(run) == Some(&run_id.into()) =>
            {
                item
            }
            Changed::No(_) => {
                self.env.table.update(key, Update { add: vec![(held, 1)], ..Update::default() }).await?;
                return Ok(None);
            }
        };
        let held = match item.get(held) {
            Some(Value::N(held)) => u64::try_from(*held).unwrap_or(0),
            _ => 0,
        };
        Ok(Some((now.as_millisecond(), held)))
    }

    /// What was told: failing or not, how much waits for review, and that nothing is held back any more.
    async fn note_told(&self, key: &Key, kind: Kind, report: &Report, held: u64) -> Result<()> {
        let mut update = Update::default();
        match kind {
            Kind::Failed | Kind::Braked => update.set.push(("told", TOLD_FAILING.into())),
            Kind::Recovered => update.set.push(("told", TOLD_RECOVERED.into())),
            Kind::Review => {
                let open = crate::metrics::review_open(report).unwrap_or_default();
                update.set.push(("review_open", number(open).into()));
            }
            Kind::Rejects => {}
        }
        if held > 0 {
            let [_, _, attribute] = kind.attributes();
            update.add.push((attribute, -number(held)));
        }
        if update.set.is_empty() && update.add.is_empty() {
            return Ok(());
        }
        self.env.table.update(key, update).await?;
        Ok(())
    }

    /// Nothing was sent: the hour is free again in some minutes.
    async fn give_back(&self, key: &Key, kind: Kind, run_id: &str, claimed: i64) -> Result<()> {
        let [at, run, _] = kind.attributes();
        let quiet = i64::try_from(QUIET.saturating_sub(TRY_AGAIN).as_millis()).unwrap_or(0);
        let update = Update {
            set: vec![(at, claimed.saturating_sub(quiet).into())],
            condition: Some(Condition::All(vec![
                Condition::Equals(at, claimed.into()),
                Condition::Equals(run, run_id.into()),
            ])),
            ..Update::default()
        };
        self.env.table.update(key, update).await?;
        Ok(())
    }

    /// Sends a message every way there is; whether one of them took it, or may have.
    async fn send(&self, message: &Message) -> bool {
        let slack = async {
            let Some(id) = &self.settings.slack_webhook_secret else { return false };
            told("Slack", self.slack(id, message).await)
        };
        let sns = async {
            let (Some(arn), Some(topic)) = (&self.settings.sns_topic_arn, self.topic) else { return false };
            let clock = &self.env.clock;
            let published = match select(topic.publish(arn, message), clock.sleep(SENDING_MAX)).await {
                Either::Left((published, _)) => published,
                Either::Right(((), _)) => {
                    let what = format!("publish to {arn}: no answer in {} s", SENDING_MAX.as_secs());
                    Err(Error::new(ErrorKind::Unknown, codes::NOTICE_FAILED, what))
                }
            };
            told("SNS", published)
        };
        let (slack, sns) = join(slack, sns).await;
        slack || sns
    }

    async fn slack(&self, id: &str, message: &Message) -> Result<()> {
        let secret = self.env.secrets.get(id).await?;
        let request = slack::request(&slack::address(id, &secret)?, message)?;
        let failed = |kind, what: String| {
            Error::new(kind, codes::NOTICE_FAILED, format!("post to the webhook in secret `{id}`: {what}"))
        };
        match call_within(&*self.env.http, &*self.env.clock, request, SENDING_MAX).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            // Slack's words would add little, and are not ours to judge.
            Ok(answer) => Err(failed(ErrorKind::Refused, format!("HTTP {}", answer.status().as_u16()))),
            Err(error) => {
                let kind = match error.sent {
                    Sent::Never => ErrorKind::Unavailable { retry_after: None },
                    Sent::Maybe => ErrorKind::Unknown,
                };
                Err(failed(kind, error.message))
            }
        }
    }
}

/// Whether a message went out, or may have; if not, a line says why.
fn told(way: &'static str, sent: Result<()>) -> bool {
    match sent {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(way, error_code = %error.code(), hint = error.hint(), "a message was not sent: {error}");
            error.kind() == ErrorKind::Unknown
        }
    }
}

fn is_due(item: &Item, kind: Kind, now: Timestamp) -> bool {
    let [at, _, _] = kind.attributes();
    match item.get(at) {
        Some(Value::N(at)) => *at <= quiet_since(now),
        _ => true,
    }
}

fn quiet_since(now: Timestamp) -> i64 {
    now.as_millisecond().saturating_sub(i64::try_from(QUIET.as_millis()).unwrap_or(0))
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn key(job: &str, name: &str) -> Key {
    Key::new(format!("notice#{job}#{name}"), "notice")
}
