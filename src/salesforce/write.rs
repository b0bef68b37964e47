//! sObject Collections: up to 200 records a call, and one verdict for each, whatever Salesforce answers.
//!
//! The status of such a call says nothing: 200 also if every record failed. What is locked, or too much at once for the org's automation, is
//! sent again in smaller calls, within bounds and before the deadline. Creating without a key is the one thing that is never sent again after a lost answer.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::{
    fault::{Class, Fault, Match},
    model::{SalesforceId, Values},
    org::{Answer, Call, Org, refused},
    soql::Name,
};
use crate::{
    Error, ErrorKind, Result,
    clock::Deadline,
    codes,
    http::retry::ATTEMPT_RESERVE,
    mutate::{self, Bug},
};

/// Records of one call.
pub const RECORDS_MAX: usize = 200;

/// How often a record that is locked, or whose write came too early, is sent.
pub const ROUNDS_MAX: u32 = 5;

/// Waits between rounds, times the round: a lock is held for seconds.
const ROUND_WAIT: Duration = Duration::from_secs(2);

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write<'a> {
    /// Creates. Not safe to repeat: prefer [`Write::Upsert`].
    Create,
    /// Changes, by [`Record::id`].
    Update,
    /// Creates or changes, by an external-id field that is among the values.
    Upsert {
        /// The external-id field; unique in the org, or two records may have it.
        key: &'a str,
    },
    /// Puts into the recycle bin, by [`Record::id`].
    Delete,
}

/// A record to write.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// For updates and deletes.
    pub id: Option<SalesforceId>,
    /// `null` clears a field, what is absent stays as it is.
    pub values: Values,
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Salesforce has it.
    Written {
        /// Its id.
        id: SalesforceId,
        /// Whether an upsert says that it is new. A repeated call says `false` of what its lost first answer created.
        created: bool,
    },
    /// It is deleted or was never there: nothing was written (of a delete: it is gone).
    Gone,
    /// Another record has the unique value.
    Taken {
        /// That record, where Salesforce names it.
        by: Option<SalesforceId>,
        /// Why.
        refusal: Refusal,
    },
    /// Several records have the external id; nothing was written.
    Ambiguous(Refusal),
    /// A duplicate rule takes these records for the same.
    Duplicates {
        /// Candidates for a link; empty where Salesforce does not name them.
        matches: Vec<Match>,
        /// The rule lets a caller save all the same.
        may_save: bool,
        /// Why.
        refusal: Refusal,
    },
    /// Not allowed to this user, or a field that cannot be written: about the mapping or the permissions, not about the record.
    Forbidden(Refusal),
    /// It will never succeed as it is.
    Refused(Refusal),
    /// It was not written and may be in a later run: locked, or too much for the org's automation, each time.
    Later(Refusal),
    /// The record changed since it was read; nothing was written.
    LostRace,
    /// The answer was lost, and the write must not be repeated: it may or may not be there.
    Unknown,
}

impl Verdict {
    /// What it says of a change that was sent before, and whose answer was lost: what was not carried out now may have been then.
    pub(super) fn of_repeat(self) -> Self {
        match self {
            Self::Gone | Self::LostRace | Self::Later(_) => Self::Unknown,
            verdict => verdict,
        }
    }
}

/// Why a record was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Salesforce's code.
    pub code: String,
    /// The fields it names.
    pub fields: Vec<String>,
    /// Code, fields and Salesforce's words, the record's values masked.
    pub text: String,
}

impl Refusal {
    fn of(fault: &Fault, sent: &Values) -> Self {
        let plain = !fault.code.is_empty()
            && fault.code.len() <= 100
            && fault.code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let code = if plain { fault.code.clone() } else { codes::SALESFORCE_REFUSED.as_str().to_owned() };
        Self { code, fields: fault.fields.clone(), text: fault.told(Some(sent)) }
    }
}

/// What to do with a record after an answer about it.
enum Next {
    Done(Verdict),
    /// Again, after a wait, in a smaller call; after the last round this.
    Again(Verdict),
}

/// The verdict that a fault means.
pub(super) fn verdict_of(fault: &Fault, sent: &Values) -> Verdict {
    let refusal = Refusal::of(fault, sent);
    match fault.class() {
        Class::Gone => Verdict::Gone,
        Class::LostRace => Verdict::LostRace,
        Class::Taken => Verdict::Taken { by: fault.taken_by(), refusal },
        Class::Ambiguous => Verdict::Ambiguous(refusal),
        Class::Duplicates => {
            Verdict::Duplicates { matches: fault.matches.clone(), may_save: fault.allow_save, refusal }
        }
        Class::Permission => Verdict::Forbidden(refusal),
        Class::Locked | Class::TooMany | Class::RolledBack | Class::Throttled | Class::Unavailable => {
            Verdict::Later(refusal)
        }
        _ => Verdict::Refused(refusal),
    }
}

struct Group {
    members: Vec<usize>,
    round: u32,
}

impl Org {
    /// Writes any number of records of one object; `verdicts` gets one for each, in their order. Places already filled are left alone.
    ///
    /// After an error those that are known are filled, and the call can be made again for the rest: of a [`Write::Create`] whose answer
    /// was lost, [`Verdict::Unknown`] is known. Kinds of errors are those of [`Org::call`].
    pub async fn write(
        &self,
        object: &str,
        write: Write<'_>,
        records: &[Record],
        verdicts: &mut [Option<Verdict>],
        deadline: Deadline,
    ) -> Result<()> {
        let object = Name::new(object)?;
        if let Write::Upsert { key } = write {
            Name::new(key)?;
        }
        let mut stack = split(write, records, verdicts);
        // What is said of those that are sent again, should there be no time for that.
        let mut waiting: BTreeMap<usize, Verdict> = BTreeMap::new();
        // Those that an attempt may have changed whose answer was lost.
        let mut unsure: BTreeSet<usize> = BTreeSet::new();
        while let Some(group) = stack.pop() {
            if group.round > 0 {
                let wait = ROUND_WAIT.saturating_mul(group.round);
                if !deadline.allows(self.parts.clock.now(), wait + ATTEMPT_RESERVE) {
                    for at in group.members {
                        if let Some(verdict) = waiting.remove(&at) {
                            set(verdicts, at, verdict);
                        }
                    }
                    continue;
                }
                self.pause(wait).await;
            }
            let members: Vec<(usize, &Record)> =
                group.members.iter().filter_map(|at| Some((*at, records.get(*at)?))).collect();
            let call = request(&object, write, &members)?;
            let what = format!("{} {}", call.method, call.path);
            // Read once, for both questions: whether it can be read, and what it says.
            let read = RefCell::new(None);
            let readable = |answer: &Answer| {
                let results = serde_json::from_slice::<Vec<Values>>(&answer.body).ok();
                let results = results.filter(|results| results.len() == members.len());
                let is_readable = results.is_some();
                read.replace(results);
                is_readable
            };
            let answer = match self.ask_until(call, deadline, readable).await {
                Ok(answer) => answer,
                Err(error) if error.kind() == ErrorKind::Unknown && write == Write::Create => {
                    for (at, _) in members {
                        set(verdicts, at, Verdict::Unknown);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if answer.is_repeat && write == Write::Update {
                unsure.extend(members.iter().map(|(at, _)| *at));
            }
            if !answer.status.is_success() {
                self.whole_refused(&what, &answer, &members, group.round, &mut stack, verdicts)?;
                continue;
            }
            let mut again = Vec::new();
            for (result, (at, record)) in read.into_inner().unwrap_or_default().iter().zip(&members) {
                match judge(write, result, record) {
                    Next::Again(verdict) if group.round + 1 < ROUNDS_MAX => {
                        again.push(*at);
                        waiting.insert(*at, verdict);
                    }
                    Next::Done(verdict) | Next::Again(verdict) => set(verdicts, *at, verdict),
                }
            }
            // A quarter of the size each round: 200, 50, 13, 4, 1.
            let size = members.len().div_ceil(4).max(1);
            for chunk in again.chunks(size).rev() {
                stack.push(Group { members: chunk.to_vec(), round: group.round + 1 });
            }
        }
        for at in unsure {
            if let Some(slot) = verdicts.get_mut(at) {
                *slot = slot.take().map(Verdict::of_repeat);
            }
        }
        Ok(())
    }

    /// A call that was refused as a whole: halved until the record that is to blame stands alone.
    fn whole_refused(
        &self,
        what: &str,
        answer: &Answer,
        members: &[(usize, &Record)],
        round: u32,
        stack: &mut Vec<Group>,
        verdicts: &mut [Option<Verdict>],
    ) -> Result<()> {
        let fault = answer.fault();
        let about_records = answer.status.as_u16() == 400
            && fault.as_ref().is_some_and(|fault| {
                !fault.code.is_empty() && !matches!(fault.class(), Class::Permission) && fault.code != "INVALID_TYPE"
            });
        let (Some(fault), true) = (fault, about_records) else { return Err(refused(what, answer)) };
        match members {
            [] => {}
            [(at, record)] => set(verdicts, *at, verdict_of(&fault, &record.values)),
            members => {
                let (left, right) = members.split_at(members.len() / 2);
                for half in [right, left] {
                    stack.push(Group { members: half.iter().map(|(at, _)| *at).collect(), round });
                }
            }
        }
        Ok(())
    }

    /// As [`Org::write`], with a verdict for each record or an error for all of them. For calls that are safe to repeat.
    pub async fn write_all(
        &self,
        object: &str,
        write: Write<'_>,
        records: &[Record],
        deadline: Deadline,
    ) -> Result<Vec<Verdict>> {
        let mut verdicts = vec![None; records.len()];
        self.write(object, write, records, &mut verdicts, deadline).await?;
        Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Unknown)).collect())
    }
}

fn set(verdicts: &mut [Option<Verdict>], at: usize, verdict: Verdict) {
    if let Some(place @ None) = verdicts.get_mut(at) {
        *place = Some(verdict);
    }
}

/// What makes two records of a call one record to Salesforce, which then refuses both.
fn identity(write: Write<'_>, record: &Record) -> Option<String> {
    match write {
        Write::Create => None,
        Write::Update | Write::Delete => record.id.as_ref().map(|id| id.as_str().to_owned()),
        Write::Upsert { key } => {
            let value = record.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?.1;
            let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_lowercase());
            (!text.is_empty() && !value.is_null()).then_some(text)
        }
    }
}

/// Records without a verdict in calls of 200, the same record never twice in one; the first call last.
fn split(write: Write<'_>, records: &[Record], verdicts: &mut [Option<Verdict>]) -> Vec<Group> {
    let mut rest: Vec<usize> = Vec::new();
    for (at, record) in records.iter().enumerate() {
        if verdicts.get(at).is_some_and(Option::is_some) {
            continue;
        }
        if write != Write::Create && identity(write, record).is_none() {
            let what = if matches!(write, Write::Upsert { .. }) { "key" } else { "Id" };
            let text = format!("the record has no {what}");
            set(
                verdicts,
                at,
                Verdict::Refused(Refusal { code: "MISSING_ARGUMENT".to_owned(), fields: Vec::new(), text }),
            );
            continue;
        }
        rest.push(at);
    }
    let mut groups = Vec::new();
    while !rest.is_empty() {
        let mut members = Vec::new();
        let mut seen = BTreeSet::new();
        let mut later = Vec::new();
        for at in rest {
            let identity = records.get(at).and_then(|record| identity(write, record));
            let is_twice = identity.is_some_and(|identity| !seen.insert(identity));
            // What stands behind a record that waits also waits: the order of writes to one record is kept.
            if is_twice || members.len() >= RECORDS_MAX {
                later.push(at);
            } else {
                members.push(at);
            }
        }
        groups.push(Group { members, round: 0 });
        rest = later;
    }
    groups.reverse();
    groups
}

fn request(object: &Name, write: Write<'_>, members: &[(usize, &Record)]) -> Result<Call> {
    if write == Write::Delete {
        let ids: Vec<&str> =
            members.iter().filter_map(|(_, record)| record.id.as_ref()).map(SalesforceId::as_str).collect();
        let mut call = Call::new(Method::DELETE, "composite/sobjects", Bytes::new());
        call.query = vec![("ids", ids.join(",")), ("allOrNone", "false".to_owned())];
        return Ok(call);
    }
    let records: Vec<Value> = (members.iter())
        .map(|(_, record)| {
            let mut values = Values::new();
            values.insert("attributes".to_owned(), json!({"type": object.as_str()}));
            if let (Write::Update, Some(id)) = (write, &record.id) {
                values.insert("id".to_owned(), json!(id));
            }
            let own = record
                .values
                .iter()
                .filter(|(name, _)| !name.eq_ignore_ascii_case("attributes") && !name.eq_ignore_ascii_case("id"));
            values.extend(own.map(|(name, value)| (name.clone(), value.clone())));
            Value::Object(values)
        })
        .collect();
    let body = serde_json::to_vec(&json!({"allOrNone": false, "records": records})).map_err(|_| {
        Error::invalid(codes::SALESFORCE_REFUSED, format!("records of {object} cannot be written as JSON"))
    })?;
    let (method, path) = match write {
        Write::Create => (Method::POST, "composite/sobjects".to_owned()),
        Write::Upsert { key } => (Method::PATCH, format!("composite/sobjects/{object}/{key}")),
        _ => (Method::PATCH, "composite/sobjects".to_owned()),
    };
    let mut call = Call::new(method, path, body);
    call.repeatable = write != Write::Create;
    Ok(call)
}

fn judge(write: Write<'_>, result: &Values, record: &Record) -> Next {
    // An id may stand there although the record was rolled back: only `success` counts.
    if result.get("success") == Some(&Value::Bool(true)) {
        let id = result.get("id").and_then(Value::as_str).and_then(|id| SalesforceId::parse(id).ok());
        let created = match write {
            Write::Create => true,
            _ => result.get("created").and_then(Value::as_bool).unwrap_or(false),
        };
        return match id.or_else(|| record.id.clone()) {
            Some(id) => Next::Done(Verdict::Written { id, created }),
            None => Next::Done(Verdict::Unknown),
        };
    }
    if let Some(id) = record.id.clone().filter(|_| mutate::on(Bug::PartialIgnored)) {
        return Next::Done(Verdict::Written { id, created: false });
    }
    let errors = result.get("errors").and_then(Value::as_array);
    let fault = errors.and_then(|errors| errors.first()?.as_object().map(Fault::of)).unwrap_or_default();
    let class = fault.class();
    let again = match class {
        Class::Locked | Class::TooMany | Class::Unavailable | Class::Throttled | Class::RolledBack => true,
        // Two first upserts of a key at the same time: the next one finds the record of the first.
        Class::Taken => matches!(write, Write::Upsert { key } if fault.is_about(key)),
        _ => false,
    };
    if again {
        return Next::Again(verdict_of(&fault, &record.values));
    }
    Next::Done(verdict_of(&fault, &record.values))
}
