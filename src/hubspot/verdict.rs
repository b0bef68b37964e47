//! What became of each input of a batch, read from answers of every shape.
//!
//! Pure. Answers are matched to inputs by trace id, then by key, then by elimination: never by position, and never by status.

use serde_json::Value;

use super::{envelope::Refusal, skim};
use crate::{
    codes,
    record::{Input, Reason, fold_key},
};

/// What became of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// HubSpot has it.
    Written {
        /// The record's id; empty where HubSpot wrote several records and did not tell which is which.
        id: String,
        /// Whether the record is new.
        created: bool,
    },
    /// It will never succeed as it is.
    Refused(Reason),
    /// However often it was asked, HubSpot did not say.
    Unknown,
}

/// One of the `results`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) created: Option<bool>,
    /// The place in the call of the input whose trace id was echoed.
    pub(super) at: Option<usize>,
    /// The id property's value, where the trace id was not echoed.
    pub(super) key: Option<String>,
}

/// A 2xx answer to a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BatchAnswer {
    pub(super) results: Vec<Found>,
    pub(super) errors: Vec<Refusal>,
}

impl BatchAnswer {
    /// Reads a body; `None` if it is not JSON of any shape we know. An empty body (204) is an empty answer. `position` gives the place in
    /// the call that a trace id of it stands for.
    pub(super) fn read(
        body: &[u8],
        id_property: Option<&str>,
        position: impl Fn(&str) -> Option<usize>,
    ) -> Option<Self> {
        if body.is_empty() {
            return Some(Self::default());
        }
        if let Some(answer) = skim::answer(body, &position) {
            return Some(answer);
        }
        let json: Value = serde_json::from_slice(body).ok()?;
        let json = json.as_object()?;
        let list = |name: &str| json.get(name).and_then(Value::as_array).into_iter().flatten();
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let results = list("results").map(|found| Found {
            id: found.get("id").and_then(text).unwrap_or_default(),
            created: found.get("new").and_then(Value::as_bool),
            at: found.get("objectWriteTraceId").and_then(text).and_then(|trace| position(&trace)),
            key: id_property.and_then(|name| found.get("properties")?.get(name)).and_then(text),
        });
        Some(Self { results: results.collect(), errors: list("errors").map(Refusal::of).collect() })
    }
}

/// What an answer says about the members of a call, by their position in it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judgement {
    pub(super) verdicts: Vec<Option<Verdict>>,
    /// Something was said that could not be told apart: a smaller call would tell.
    pub(super) ambiguous: bool,
}

/// Matches `answer` to the `members` of a call. `position` gives the position that a trace id of this call stands for.
pub(super) fn judge(
    answer: BatchAnswer,
    members: &[&Input],
    by_record_id: bool,
    position: impl Fn(&str) -> Option<usize>,
    reason: impl Fn(&Refusal, &Input) -> Reason,
) -> Judgement {
    let mut verdicts: Vec<Option<Verdict>> = members.iter().map(|_| None).collect();
    let with_key = |key: &str| {
        let key = fold_key(key);
        members.iter().position(|input| input.folded_key() == key)
    };
    let mut set = |at: usize, verdict: Verdict| {
        // A row of which HubSpot says both is told to the person: sending it again does no harm.
        if let Some(slot @ (None | Some(Verdict::Written { .. }))) = verdicts.get_mut(at) {
            *slot = Some(verdict);
        }
    };
    let mut nameless_results = Vec::new();
    let mut nameless_errors = Vec::new();
    for found in answer.results {
        let keyed = || if by_record_id { with_key(&found.id) } else { with_key(found.key.as_deref()?) };
        match found.at.or_else(keyed) {
            Some(at) => set(at, Verdict::Written { id: found.id, created: found.created.unwrap_or(false) }),
            None => nameless_results.push(found),
        }
    }
    for error in &answer.errors {
        let mut named: Vec<usize> = error.trace_ids.iter().filter_map(|trace| position(trace)).collect();
        if named.is_empty() {
            named = error.ids.iter().filter_map(|id| with_key(id)).collect();
        }
        if named.is_empty() {
            nameless_errors.push(error);
        }
        for at in named {
            if let Some(input) = members.get(at) {
                set(at, Verdict::Refused(reason(error, input)));
            }
        }
    }
    let left: Vec<usize> =
        verdicts.iter().enumerate().filter(|(_, verdict)| verdict.is_none()).map(|(at, _)| at).collect();
    let mut ambiguous = false;
    match (nameless_results.as_slice(), nameless_errors.as_slice(), left.as_slice()) {
        ([], [], _) => {}
        (results, [], left) if results.len() == left.len() => {
            let one = results.len() == 1;
            for (found, at) in results.iter().zip(left) {
                let id = if one { found.id.clone() } else { String::new() };
                if let Some(slot) = verdicts.get_mut(*at) {
                    *slot = Some(Verdict::Written { id, created: found.created.unwrap_or(false) });
                }
            }
        }
        ([], [error, ..], [at]) => {
            if let (Some(slot), Some(input)) = (verdicts.get_mut(*at), members.get(*at)) {
                *slot = Some(Verdict::Refused(reason(error, input)));
            }
        }
        _ => ambiguous = true,
    }
    Judgement { verdicts, ambiguous }
}

/// The reason for a row, in HubSpot's words, the row's values masked.
pub(super) fn reason(refusal: &Refusal, input: &Input) -> Reason {
    let code = if is_forgotten(refusal) { codes::GDPR_BLACKLISTED_EMAIL.as_str() } else { refusal.code() };
    let plain = !code.is_empty()
        && code.len() <= 80
        && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let code = if plain { code } else { codes::VALIDATION_ERROR.as_str() };
    let values = input.properties.iter().map(|(_, value)| value.as_str()).chain([input.key.as_str()]);
    let text = refusal.text(values);
    Reason::from_hubspot(
        code,
        if text.is_empty() { "HubSpot refused the row and did not say why".to_owned() } else { text },
    )
}

/// Whether the row's address was deleted for privacy. HubSpot's code is that of any address it does not take (`INVALID_EMAIL`); only the words
/// tell that correcting the address is not what is to be done.
fn is_forgotten(refusal: &Refusal) -> bool {
    const WORDS: &str = "email has been gdpr blacklisted";
    let says = |message: &str| message.to_ascii_lowercase().contains(WORDS);
    says(&refusal.message) || refusal.faults.iter().any(|fault| says(&fault.message))
}
