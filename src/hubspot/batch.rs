//! Batch writes: up to 100 records a call, and exactly one verdict for each input, whatever HubSpot answers.
//!
//! An upsert may be sent any number of times, so everything that is not known is asked again in smaller or later calls, within bounds.

use std::{cell::RefCell, collections::HashSet};

use bytes::Bytes;
use http::StatusCode;

use super::{
    account::{Account, Answer, Call, describe},
    envelope::Refusal,
    verdict::{BatchAnswer, Verdict, judge, reason},
};
use crate::{
    Error, ErrorKind, Result,
    clock::Deadline,
    codes,
    http::rate_limit::Permit,
    mutate::{self, Bug},
    record::{Input, KeyHashing, ObjectType, Reason, fold_key, folded},
};

/// HubSpot refuses a call with more inputs.
pub const BATCH_INPUTS_MAX: usize = 100;

/// HubSpot tells no limit of a call's size; above about 1 MB calls were seen to fail.
pub const BATCH_BYTES_MAX: usize = 1_000_000;

/// How often inputs that an answer does not mention are sent.
pub const ROUNDS_MAX: u32 = 4;

/// Single rows refused with one text that names none of them, before the last row is asked and the run is given up.
const NAMELESS_MAX: u32 = 3;

/// What a batch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// Creates or updates, by a property with unique values.
    Upsert,
    /// Creates; not safe to repeat.
    Create,
    /// Updates, by record id or by a property with unique values.
    Update,
    /// Archives, by record id.
    Archive,
}

impl WriteKind {
    fn path(self) -> &'static str {
        match self {
            Self::Upsert => "batch/upsert",
            Self::Create => "batch/create",
            Self::Update => "batch/update",
            Self::Archive => "batch/archive",
        }
    }
}

/// Where inputs go, and how.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// What to do.
    pub kind: WriteKind,
    /// The object type.
    pub object: &'a ObjectType,
    /// The property that [`Input::key`] is a value of; `None`: it is the record's id.
    pub id_property: Option<&'a str>,
}

/// Inputs of one call.
struct Group {
    members: Vec<usize>,
    round: u32,
    /// Sent alone to learn whether every row would be refused.
    probe: bool,
}

struct Work<'a> {
    write: Write<'a>,
    inputs: &'a [Input],
    verdicts: &'a mut [Option<Verdict>],
    /// The last one is next.
    stack: Vec<Group>,
    /// A refusal of single rows that names none of them, and how often it came.
    nameless: Option<(String, u32)>,
}

impl Account {
    /// Creates or updates records by `id_property`; one verdict for each input, in their order.
    ///
    /// `permit` is the first call's turn where it was waited for already. Any number of inputs: they are split into calls, rows with equal keys into calls after each other. An error means that the
    /// run cannot go on or has to wait: `KEY_NOT_UNIQUE`, `HUBSPOT_REFUSED` for a refusal that no row explains, and those of
    /// [`Account::call`]. Sending the same inputs again is always safe.
    pub async fn upsert(
        &self,
        object: &ObjectType,
        id_property: &str,
        inputs: &[Input],
        permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<Vec<Verdict>> {
        let mut verdicts = vec![None; inputs.len()];
        let write = Write { kind: WriteKind::Upsert, object, id_property: Some(id_property) };
        self.write(write, inputs, &mut verdicts, permit, deadline).await?;
        Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Unknown)).collect())
    }

    /// Any batch write. `verdicts` has as many places as `inputs`; those already filled are left alone. After an error the ones
    /// that are known are filled, and the call can be made again for the rest (not for [`WriteKind::Create`]).
    pub async fn write(
        &self,
        write: Write<'_>,
        inputs: &[Input],
        verdicts: &mut [Option<Verdict>],
        mut permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<()> {
        let mut work = Work { write, inputs, verdicts, stack: Vec::new(), nameless: None };
        work.split();
        while let Some(group) = work.stack.pop() {
            let members: Vec<&Input> = group.members.iter().filter_map(|at| inputs.get(*at)).collect();
            let sequence = self.sequence.get();
            self.sequence.set(sequence + 1);
            let prefix = format!("{:x}-{sequence}-", self.nonce);
            let body = encode(write, &members, &prefix)?;
            let mut call = Call::post(self.paths.objects(write.object, write.kind.path()), body);
            call.repeatable = write.kind != WriteKind::Create || mutate::on(Bug::CreateRepeated);
            let position =
                |trace: &str| trace.strip_prefix(&prefix)?.parse().ok().filter(|at: &usize| *at < group.members.len());
            // Read once, for both questions: whether it can be read, and what it says.
            let batch = RefCell::new(None);
            let readable = |answer: &Answer| {
                let read = BatchAnswer::read(&answer.body, write.id_property, position);
                let is_readable = read.is_some();
                batch.replace(read);
                is_readable
            };
            let answer = match self.ask_until(call, permit.take(), deadline, readable).await {
                Ok(answer) => answer,
                // Perhaps created, perhaps not: sending it again could create it twice.
                Err(error) if error.kind() == ErrorKind::Unknown && write.kind == WriteKind::Create => {
                    work.set_all(&group.members, &Verdict::Unknown);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if answer.status.is_success() {
                let batch = batch.take().unwrap_or_default();
                work.accept(group, &members, batch, &prefix, answer.body.is_empty());
            } else {
                work.refuse(group, &members, &answer)?;
            }
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Calls of at most [`BATCH_INPUTS_MAX`] inputs and about [`BATCH_BYTES_MAX`] bytes, no key twice in one.
    fn split(&mut self) {
        let mut groups = Vec::new();
        let (mut members, mut bytes) = (Vec::new(), 0);
        let mut keys =
            HashSet::with_capacity_and_hasher(self.inputs.len().min(BATCH_INPUTS_MAX), KeyHashing::default());
        for (at, input) in self.inputs.iter().enumerate() {
            if self.verdicts.get(at).is_none_or(Option::is_some) {
                continue;
            }
            let (key, size) = (folded(&input.key), input.bytes());
            let is_new = keys.insert(key.clone());
            if (members.len() >= BATCH_INPUTS_MAX || bytes + size > BATCH_BYTES_MAX || !is_new) && !members.is_empty() {
                groups.push(Group { members: std::mem::take(&mut members), round: 1, probe: false });
                keys.clear();
                keys.insert(key);
                bytes = 0;
            }
            members.push(at);
            bytes += size;
        }
        if !members.is_empty() {
            groups.push(Group { members, round: 1, probe: false });
        }
        groups.reverse();
        self.stack = groups;
    }

    fn set_all(&mut self, members: &[usize], verdict: &Verdict) {
        for at in members {
            if let Some(slot) = self.verdicts.get_mut(*at) {
                *slot = Some(verdict.clone());
            }
        }
    }

    /// A 2xx: takes the verdicts it holds and sends the rest again. `wordless` says that it had no body.
    fn accept(&mut self, group: Group, members: &[&Input], batch: BatchAnswer, prefix: &str, wordless: bool) {
        let write = self.write;
        if mutate::on(Bug::PartialSuccessIgnored) {
            return self.set_all(&group.members, &Verdict::Written { id: String::new(), created: false });
        }
        if write.kind == WriteKind::Archive && batch.errors.is_empty() && batch.results.is_empty() {
            // Archiving answers with no body at all. One that counts nothing is no word about the records: they are archived once more, which
            // does no harm, and should HubSpot answer so always, that is believed.
            if !wordless && group.round == 1 {
                self.stack.push(Group { round: group.round + 1, ..group });
                return;
            }
            for (at, input) in group.members.iter().zip(members) {
                if let Some(slot) = self.verdicts.get_mut(*at) {
                    *slot = Some(Verdict::Written { id: input.key.clone(), created: false });
                }
            }
            return;
        }
        let position = |trace: &str| trace.strip_prefix(prefix)?.parse().ok().filter(|at: &usize| *at < members.len());
        let judgement =
            judge(batch, members, write.id_property.is_none(), position, |refusal, input| write.reason(refusal, input));
        let mut left = Vec::new();
        for (at, verdict) in group.members.iter().zip(judgement.verdicts) {
            match (verdict, self.verdicts.get_mut(*at)) {
                (Some(Verdict::Refused(reason)), _) if group.round == 1 && write.outrun(&reason) => left.push(*at),
                (Some(mut verdict), Some(slot)) => {
                    if let (Verdict::Written { created, .. }, WriteKind::Create) = (&mut verdict, write.kind) {
                        *created = true;
                    }
                    *slot = Some(verdict);
                }
                _ => left.push(*at),
            }
        }
        if left.is_empty() {
            return;
        }
        if write.kind == WriteKind::Create {
            self.set_all(&left, &Verdict::Unknown);
        } else if write.kind == WriteKind::Archive && !judgement.ambiguous {
            // Only what failed is named.
            for at in left {
                if let (Some(slot), Some(input)) = (self.verdicts.get_mut(at), self.inputs.get(at)) {
                    *slot = Some(Verdict::Written { id: input.key.clone(), created: false });
                }
            }
        } else if judgement.ambiguous && left.len() > 1 {
            self.halve(left, group.round);
        } else if group.round < ROUNDS_MAX {
            self.stack.push(Group { members: left, round: group.round + 1, probe: false });
        } else {
            self.set_all(&left, &Verdict::Unknown);
        }
    }

    fn halve(&mut self, mut members: Vec<usize>, round: u32) {
        let second = members.split_off(members.len().div_ceil(2));
        self.stack.push(Group { members: second, round, probe: false });
        self.stack.push(Group { members, round, probe: false });
    }

    /// A 4xx for the whole call: finds the rows that it is about, or gives the run up where no row is.
    fn refuse(&mut self, group: Group, members: &[&Input], answer: &Answer) -> Result<()> {
        let refusal = Refusal::of_body(&answer.body);
        let message = refusal.message.as_str();
        if message.starts_with("Unable to perform update/upsert by non-unique") {
            let key = self.write.id_property.unwrap_or("the record id");
            let message =
                format!("HubSpot cannot identify {} by `{key}`: its values are not unique", self.write.object);
            return Err(Error::invalid(codes::KEY_NOT_UNIQUE, message));
        }
        let unrelated = message.starts_with("Unable to infer object type") || message.starts_with("Invalid input JSON");
        if unrelated || (answer.status == StatusCode::NOT_FOUND && refusal.category != "OBJECT_NOT_FOUND") {
            return Err(self.given_up(members, answer.status, &refusal));
        }
        let too_large = matches!(answer.status.as_u16(), 413 | 414);
        let named = |at: &usize| {
            self.inputs.get(*at).is_some_and(|input| refusal.ids.iter().any(|id| fold_key(id) == input.folded_key()))
        };
        if message.starts_with("Duplicate IDs found") && group.members.len() > 1 {
            // HubSpot takes two keys for one: send those it names one by one, in their order.
            let (twice, once): (Vec<_>, Vec<_>) = group.members.iter().partition(|at| named(at));
            if twice.is_empty() {
                self.halve(group.members, group.round);
                return Ok(());
            }
            for at in twice.into_iter().rev() {
                self.stack.push(Group { members: vec![at], round: group.round, probe: false });
            }
            if !once.is_empty() {
                self.stack.push(Group { members: once, round: group.round, probe: false });
            }
            return Ok(());
        }
        if let ([at], [input]) = (group.members.as_slice(), members) {
            let verdict = if too_large {
                Verdict::Refused(Reason::new(codes::ROW_TOO_LARGE, "HubSpot refused the row as too large"))
            } else {
                Verdict::Refused(self.write.reason(&refusal, input))
            };
            // Nothing about the row: perhaps every row gets this.
            if !too_large
                && refusal.faults.is_empty()
                && refusal.category != "CONFLICT"
                && refusal.trace_ids.is_empty()
                && refusal.ids.is_empty()
            {
                // As it came: words that quote the row's value differ from row to row, and then they do name it.
                let words = format!("{} {message}", answer.status);
                let count = match &mut self.nameless {
                    Some((seen, count)) if *seen == words => {
                        *count += 1;
                        *count
                    }
                    other => {
                        *other = Some((words, 1));
                        1
                    }
                };
                let accepted = self.verdicts.iter().any(|verdict| matches!(verdict, Some(Verdict::Written { .. })));
                if group.probe && count > NAMELESS_MAX && !accepted {
                    return Err(self.given_up(members, answer.status, &refusal));
                }
                if count == NAMELESS_MAX
                    && !accepted
                    && let Some(last) = self.stack.first_mut().and_then(|group| group.members.pop())
                {
                    self.stack.retain(|group| !group.members.is_empty());
                    self.stack.push(Group { members: vec![last], round: 1, probe: true });
                }
            }
            self.set_all(&[*at], &verdict);
            return Ok(());
        }
        // A property that does not exist or cannot be written is refused in each row that has it: no need to find them.
        let everywhere =
            |code: &str| code == codes::PROPERTY_DOESNT_EXIST.as_str() || code == codes::READ_ONLY_VALUE.as_str();
        if !refusal.faults.is_empty()
            && refusal.faults.iter().all(|fault| everywhere(&fault.code) && fault.property.is_some())
        {
            let has = |at: &usize| {
                let named = |name: &str| refusal.faults.iter().any(|fault| fault.property.as_deref() == Some(name));
                self.inputs.get(*at).is_some_and(|input| input.properties.iter().any(|(name, _)| named(name)))
            };
            let (with, without): (Vec<_>, Vec<_>) = group.members.iter().partition(|at| has(at));
            if !with.is_empty() {
                for at in with {
                    if let Some(input) = self.inputs.get(at) {
                        self.set_all(&[at], &Verdict::Refused(self.write.reason(&refusal, input)));
                    }
                }
                if !without.is_empty() {
                    self.stack.push(Group { members: without, round: group.round, probe: false });
                }
                return Ok(());
            }
        }
        self.halve(group.members, group.round);
        Ok(())
    }

    fn given_up(&self, members: &[&Input], status: StatusCode, refusal: &Refusal) -> Error {
        let values = members
            .iter()
            .flat_map(|input| input.properties.iter().map(|(_, value)| value.as_str()).chain([input.key.as_str()]));
        let words = refusal.text(values);
        let message = format!("writing {}: {}: {words}", self.write.object, describe(status, refusal, true));
        Error::invalid(codes::HUBSPOT_REFUSED, message)
    }
}

impl Write<'_> {
    /// Two upserts of one new key at once: the second is refused over the very value that would now find the record. Asked once more, it does.
    fn outrun(&self, reason: &Reason) -> bool {
        let property = self.id_property.unwrap_or_default();
        self.kind == WriteKind::Upsert
            && *reason.code == *codes::CONFLICTING_UNIQUE_VALUE.as_str()
            && reason.reason.strip_prefix(property).is_some_and(|rest| rest.starts_with(':'))
    }

    fn reason(&self, refusal: &Refusal, input: &Input) -> Reason {
        let reason = reason(refusal, input);
        match (self.kind, &*reason.code) {
            (WriteKind::Update | WriteKind::Archive, "OBJECT_NOT_FOUND") => {
                Reason::new(codes::KEY_NOT_FOUND, reason.reason)
            }
            (WriteKind::Create, "CONFLICT" | "OBJECT_ALREADY_EXISTS") => Reason::new(codes::KEY_EXISTS, reason.reason),
            _ => reason,
        }
    }
}

/// The JSON body of one batch call, written straight into bytes. The trace id of each input is `prefix` and its place among `members`.
///
/// # Errors
/// `HUBSPOT_REFUSED`, of kind `Corrupt`, if it cannot be encoded, which text never is.
pub fn encode(write: Write<'_>, members: &[&Input], prefix: &str) -> Result<Bytes> {
    encoded(write, members, prefix).map(Bytes::from).map_err(|error| {
        Error::new(ErrorKind::Corrupt, codes::HUBSPOT_REFUSED, "a batch cannot be encoded").with_source(error)
    })
}

fn encoded(write: Write<'_>, members: &[&Input], prefix: &str) -> serde_json::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(32 + members.iter().map(|input| input.bytes() + prefix.len()).sum::<usize>());
    // The same for all: text that is ready to be copied.
    let mut id_property = Vec::new();
    if let (WriteKind::Upsert | WriteKind::Update, Some(property)) = (write.kind, write.id_property) {
        id_property.extend_from_slice(b"\"idProperty\":");
        text(&mut id_property, property)?;
        id_property.push(b',');
    }
    let mut trace = b",\"objectWriteTraceId\":".to_vec();
    text(&mut trace, prefix)?;
    // The place comes before the closing quote.
    trace.pop();
    body.extend_from_slice(b"{\"inputs\":[");
    for (at, input) in members.iter().enumerate() {
        body.extend_from_slice(if at == 0 { b"{" } else { b",{" });
        if write.kind != WriteKind::Create {
            body.extend_from_slice(b"\"id\":");
            text(&mut body, &input.key)?;
        }
        if write.kind != WriteKind::Archive {
            if write.kind != WriteKind::Create {
                body.push(b',');
            }
            body.extend_from_slice(&id_property);
            body.extend_from_slice(b"\"properties\":{");
            for (number, (name, value)) in input.properties.iter().enumerate() {
                if number > 0 {
                    body.push(b',');
                }
                text(&mut body, name)?;
                body.push(b':');
                text(&mut body, value)?;
            }
            body.push(b'}');
            body.extend_from_slice(&trace);
            serde_json::to_writer(&mut body, &at)?;
            body.push(b'"');
        }
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}

/// Appends a JSON string. Nearly all texts need no escape, which is found out many bytes at a time.
fn text(body: &mut Vec<u8>, text: &str) -> serde_json::Result<()> {
    const STEP: usize = 16;
    let escaped = |bytes: &[u8]| {
        bytes.iter().fold(false, |found, byte| found | (*byte < b' ') | (*byte == b'"') | (*byte == b'\\'))
    };
    if text.as_bytes().chunks(STEP).any(escaped) {
        return serde_json::to_writer(body, text);
    }
    body.push(b'"');
    body.extend_from_slice(text.as_bytes());
    body.push(b'"');
    Ok(())
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
