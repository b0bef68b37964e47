//! Up to 100 records in one call. What one bad row does to the others is the heart of HubSpot's behaviour: without
//! trace ids everything is refused, with them the good rows are written. SOURCES.md "Batches".

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Answer, ApiError, Handled, parse};
use super::objects::{AssociationInput, Claims, Id, Refusal, Row, Values, invalid_values};
use super::store::{Kind, iso};
use super::{Call, Portal, Show, shown};

/// Inputs of one call, and of one that reads history.
const INPUTS_MAX: usize = 100;
const INPUTS_WITH_HISTORY_MAX: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct Inputs<T> {
    inputs: Vec<T>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WriteInput {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    id_property: Option<String>,
    #[serde(default)]
    properties: Values,
    #[serde(default)]
    associations: Option<Vec<AssociationInput>>,
    #[serde(default)]
    object_write_trace_id: Option<String>,
}

/// A row that may be written.
struct Planned {
    at: usize,
    existing: Option<u64>,
    row: Row,
}

/// What becomes of the batch.
struct Batch {
    inputs: Vec<WriteInput>,
    /// Every input has a trace id: rows succeed or fail one by one.
    traced: bool,
    results: Vec<Vec<u8>>,
    errors: Vec<Value>,
    echo: bool,
}

impl Portal {
    fn read_inputs(&self, call: &Call<'_>, keys: bool, email: bool) -> Handled<Batch> {
        let inputs: Vec<WriteInput> = parse::<Inputs<WriteInput>>(call.body)?.inputs;
        too_many(inputs.len(), INPUTS_MAX)?;
        let mut traces = HashSet::new();
        let traced = !inputs.is_empty() && inputs.iter().all(|input| input.object_write_trace_id.is_some());
        for trace in inputs.iter().filter_map(|input| input.object_write_trace_id.as_deref()) {
            if !traces.insert(trace) {
                return Err(ApiError::validation(
                    "Duplicate objectWriteTraceId found in batch input. IDs must be unique",
                )
                .context("objectWriteTraceId", vec![trace.to_owned()]));
            }
        }
        if keys {
            let fold = email && self.settings.unsettled.case_variants_are_duplicates;
            let mut seen = HashSet::new();
            let mut twice = Vec::new();
            for input in &inputs {
                let key = if fold { input.id.0.trim().to_lowercase() } else { input.id.0.clone() };
                if !seen.insert((input.id_property.as_deref(), key)) && !twice.contains(&input.id.0) {
                    twice.push(input.id.0.clone());
                }
            }
            if !twice.is_empty() {
                let text = format!("Duplicate IDs found in batch input: [{}]. IDs must be unique", twice.join(", "));
                return Err(ApiError::validation(text).context("ids", twice));
            }
        }
        Ok(Batch { inputs, traced, results: Vec::new(), errors: Vec::new(), echo: true })
    }

    pub(super) fn batch_create(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        let mut batch = self.read_inputs(call, false, false)?;
        batch.echo = self.settings.unsettled.create_echoes_trace_id;
        if !batch.traced {
            let mut claims = Claims::new();
            let mut rows = Vec::with_capacity(batch.inputs.len());
            let mut refused = Vec::new();
            for (at, input) in batch.inputs.iter().enumerate() {
                let associations = input.associations.as_deref().unwrap_or_default();
                let version = &call.route.version;
                match self.check(kind, None, &input.properties, version, call.now, Some(&mut claims)) {
                    Ok(_) if !self.ends_exist(kind, associations) => refused.push(Refusal::Association),
                    Ok(row) => rows.push(Planned { at, existing: None, row }),
                    Err(refusal) => refused.push(refusal),
                }
            }
            if !refused.is_empty() {
                return Err(self.refuse_all(kind, refused, batch.inputs.len() == 1));
            }
            for planned in rows {
                let ends = batch.inputs.get_mut(planned.at).and_then(|input| input.associations.take());
                let warnings = planned.row.warnings.clone();
                let id = self.insert(kind, planned.row, &ends.unwrap_or_default(), call.now);
                self.push(&mut batch, planned.at, kind, id, None, &warnings);
            }
        } else {
            for at in 0..batch.inputs.len() {
                let Some(input) = batch.inputs.get_mut(at) else { continue };
                let ends = input.associations.take().unwrap_or_default();
                let checked = self.check(kind, None, &input.properties, &call.route.version, call.now, None);
                match checked {
                    Ok(_) if !self.ends_exist(kind, &ends) => self.fail(&mut batch, at, kind, Refusal::Association),
                    Ok(row) => {
                        let warnings = row.warnings.clone();
                        let id = self.insert(kind, row, &ends, call.now);
                        self.push(&mut batch, at, kind, id, None, &warnings);
                    }
                    Err(refusal) => self.fail(&mut batch, at, kind, refusal),
                }
            }
        }
        let whole = if call.route.version.is("2025-09") { 200 } else { 201 };
        Ok(self.finish(batch, call, whole))
    }

    pub(super) fn batch_upsert(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        let own = self.at(kind);
        let email = own.email;
        let first: Inputs<KeyOnly> = parse(call.body)?;
        too_many(first.inputs.len(), INPUTS_MAX)?;
        let mut keys: Vec<Option<u16>> = Vec::with_capacity(first.inputs.len());
        for input in &first.inputs {
            let name = input.id_property.as_deref().filter(|name| !name.is_empty());
            keys.push(match name {
                None => None,
                Some(name) => match own.property(name, call.now).map(|found| found.0).filter(|at| own.is_unique(*at)) {
                    Some(property) => Some(property),
                    None => return Err(self.not_unique(kind, name)),
                },
            });
        }
        let by_email = email.is_some() && keys.iter().all(|key| *key == email);
        let mut batch = self.read_inputs(call, true, by_email)?;
        for (input, key) in batch.inputs.iter_mut().zip(&keys) {
            if let Some(key) = key {
                let name = own.name_of(*key);
                if !input.properties.0.iter().any(|(property, _)| property == name) {
                    input.properties.0.push((name.to_owned(), input.id.0.clone()));
                }
            }
        }
        let target = |portal: &Self, input: &WriteInput, key: Option<u16>| -> Result<Option<u64>, Refusal> {
            let own = portal.at(kind);
            match key {
                Some(property) => Ok(own.holder(property, &input.id.0)),
                None => {
                    let id = input.id.0.parse::<u64>().ok().map(|id| own.survivor(id));
                    match id.filter(|id| own.live(*id).is_some()) {
                        Some(id) => Ok(Some(id)),
                        None => Err(Refusal::NotFound(input.id.0.clone())),
                    }
                }
            }
        };
        if !batch.traced {
            let mut claims = Claims::new();
            let mut rows = Vec::with_capacity(batch.inputs.len());
            let mut refused = Vec::new();
            for ((at, input), key) in batch.inputs.iter().enumerate().zip(&keys) {
                let checked = target(self, input, *key).and_then(|existing| {
                    let version = &call.route.version;
                    let row = self.check(kind, existing, &input.properties, version, call.now, Some(&mut claims))?;
                    Ok(Planned { at, existing, row })
                });
                match checked {
                    Ok(planned) => rows.push(planned),
                    Err(refusal) => refused.push(refusal),
                }
            }
            if !refused.is_empty() {
                return Err(self.refuse_all(kind, refused, true));
            }
            for planned in rows {
                self.commit(&mut batch, planned, kind, call.now);
            }
        } else {
            for (at, key) in keys.iter().enumerate() {
                let Some(input) = batch.inputs.get(at) else { continue };
                let checked = target(self, input, *key).and_then(|existing| {
                    let row = self.check(kind, existing, &input.properties, &call.route.version, call.now, None)?;
                    Ok(Planned { at, existing, row })
                });
                match checked {
                    Ok(planned) => self.commit(&mut batch, planned, kind, call.now),
                    Err(refusal) => self.fail(&mut batch, at, kind, refusal),
                }
            }
        }
        Ok(self.finish(batch, call, 200))
    }

    fn commit(&mut self, batch: &mut Batch, planned: Planned, kind: usize, now: i64) {
        let warnings = planned.row.warnings.clone();
        let (id, new) = match planned.existing {
            Some(id) => {
                self.write(kind, id, planned.row, now);
                (id, false)
            }
            None => (self.insert(kind, planned.row, &[], now), true),
        };
        self.push(batch, planned.at, kind, id, Some(new), &warnings);
    }

    pub(super) fn batch_update(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        let mut batch = self.read_inputs(call, true, false)?;
        let mut rows = Vec::new();
        let mut refused = Vec::new();
        let mut missing = Vec::new();
        let mut claims = Claims::new();
        for at in 0..batch.inputs.len() {
            let Some(input) = batch.inputs.get(at) else { continue };
            let own = self.at(kind);
            let id = match input.id_property.as_deref().filter(|name| !name.is_empty()) {
                // Updates know emails only as values, not as keys.
                Some(name) => {
                    let property = own.property(name, call.now).map(|found| found.0);
                    match property.filter(|at| own.is_unique(*at) && own.email != Some(*at)) {
                        Some(property) => own.holder(property, &input.id.0),
                        None => return Err(self.not_unique(kind, name)),
                    }
                }
                None => input.id.0.parse::<u64>().ok().map(|id| own.survivor(id)),
            };
            let Some(id) = id.filter(|id| own.live(*id).is_some()) else {
                if batch.traced {
                    let lost = Refusal::NotFound(input.id.0.clone());
                    self.fail(&mut batch, at, kind, lost);
                } else {
                    missing.push(input.id.0.clone());
                }
                continue;
            };
            let claims = if batch.traced { None } else { Some(&mut claims) };
            match self.check(kind, Some(id), &input.properties, &call.route.version, call.now, claims) {
                Ok(row) if batch.traced => {
                    let warnings = row.warnings.clone();
                    self.write(kind, id, row, call.now);
                    self.push(&mut batch, at, kind, id, None, &warnings);
                }
                Ok(row) => rows.push(Planned { at, existing: Some(id), row }),
                Err(refusal) if batch.traced => self.fail(&mut batch, at, kind, refusal),
                Err(refusal) => refused.push(refusal),
            }
        }
        if !refused.is_empty() {
            return Err(self.refuse_all(kind, refused, true));
        }
        for planned in rows {
            let warnings = planned.row.warnings.clone();
            let id = planned.existing.unwrap_or_default();
            self.write(kind, id, planned.row, call.now);
            self.push(&mut batch, planned.at, kind, id, None, &warnings);
        }
        if !missing.is_empty() {
            let error = self.could_not_get(kind, missing);
            batch.errors.push(error.item(None));
        }
        Ok(self.finish(batch, call, 200))
    }

    pub(super) fn batch_read(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Read {
            #[serde(default)]
            id_property: Option<String>,
            #[serde(default)]
            properties: Option<Vec<String>>,
            #[serde(default)]
            properties_with_history: Option<Vec<String>>,
            inputs: Vec<OneId>,
        }
        let input: Read = parse(call.body)?;
        let history = input.properties_with_history.unwrap_or_default();
        if history.is_empty() {
            too_many(input.inputs.len(), INPUTS_MAX)?;
        } else if input.inputs.len() > INPUTS_WITH_HISTORY_MAX {
            return Err(ApiError::validation(
                "The maximum number of inputs supported in a batch request for property histories is 50",
            ));
        }
        let archived = call.route.get("archived") == Some("true");
        let own = self.at(kind);
        let key = match input.id_property.as_deref().filter(|name| !name.is_empty() && *name != "hs_object_id") {
            None => None,
            Some(name) => match own.property(name, call.now).map(|found| found.0).filter(|at| own.is_unique(*at)) {
                Some(property) => Some(property),
                None => return Err(self.not_unique(kind, name)),
            },
        };
        let show = self.selection(kind, &input.properties.unwrap_or_default(), call.now);
        let mut results = Vec::with_capacity(input.inputs.len());
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        for OneId { id } in input.inputs {
            let found = match key {
                Some(property) => own.holder(property, &id.0),
                None => id.0.parse::<u64>().ok().map(|id| own.survivor(id)),
            };
            let record = found.and_then(|id| own.get(id, archived, call.now));
            match record {
                None => missing.push(id.0),
                Some(record) if seen.insert(record.id) => {
                    let more = self.extras(kind, record, &history, &[])?;
                    let portal_id = self.settings.portal_id;
                    results.push(own.write(record, Kind::newest(record), &shown(&show), portal_id, &more));
                }
                Some(_) => {}
            }
        }
        let mut errors = Vec::new();
        if !missing.is_empty() {
            errors.push(self.could_not_get(kind, missing).item(None));
        }
        let batch = Batch { inputs: Vec::new(), traced: false, results, errors, echo: false };
        Ok(self.finish(batch, call, 200))
    }

    pub(super) fn batch_archive(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        let inputs = parse::<Inputs<OneId>>(call.body)?.inputs;
        too_many(inputs.len(), INPUTS_MAX)?;
        for OneId { id } in inputs {
            if let Ok(id) = id.0.parse::<u64>() {
                self.archive_record(kind, id, call.now);
            }
        }
        Ok(Answer::empty(204))
    }

    /// The refusal of a whole batch: what is invalid first, all of it in one; else the first of the others.
    fn refuse_all(&self, kind: usize, refused: Vec<Refusal>, tell: bool) -> Box<ApiError> {
        let mut invalid = Vec::new();
        let mut other = None;
        for refusal in refused {
            match refusal {
                Refusal::Invalid(mut all) => invalid.append(&mut all),
                refusal if other.is_none() => other = Some(refusal),
                _ => {}
            }
        }
        match other {
            Some(refusal) if invalid.is_empty() => {
                let mut error = self.refuse(kind, refusal, tell);
                if error.status == 404 {
                    error.status = 400;
                }
                error
            }
            _ => invalid_values(&invalid, self.settings.portal_id),
        }
    }

    fn push(&self, batch: &mut Batch, at: usize, kind: usize, id: u64, new: Option<bool>, warnings: &[Value]) {
        let own = self.at(kind);
        let Some(record) = own.records.get(&id) else { return };
        let mut more = String::new();
        if let Some(new) = new {
            more.push_str(if new { r#","new":true"# } else { r#","new":false"# });
        }
        let trace = batch.inputs.get(at).and_then(|input| input.object_write_trace_id.as_deref());
        if let Some(trace) = trace.filter(|_| batch.echo) {
            more.push_str(&format!(r#","objectWriteTraceId":{}"#, Value::from(trace)));
        }
        if !warnings.is_empty() {
            more.push_str(&format!(r#","warnings":{}"#, json!(warnings)));
        }
        batch.results.push(own.write(record, Kind::newest(record), &Show::All, self.settings.portal_id, &more));
    }

    fn fail(&self, batch: &mut Batch, at: usize, kind: usize, refusal: Refusal) {
        let existing = match &refusal {
            Refusal::Conflict(existing) => *existing,
            _ => None,
        };
        let mut error = self.refuse(kind, refusal, true);
        if let Some(id) = existing {
            error = error.context("existingId", vec![id.to_string()]);
        }
        // Items of a batch carry no details beside the message.
        error.errors.clear();
        let trace = batch.inputs.get(at).and_then(|input| input.object_write_trace_id.clone());
        batch.errors.push(error.item(trace.as_deref()));
    }

    fn finish(&mut self, mut batch: Batch, call: &Call<'_>, whole: u16) -> Answer {
        if self.settings.shuffle_results {
            self.rng.shuffle(&mut batch.results);
        }
        let status = if batch.errors.is_empty() {
            whole
        } else if call.route.version.since_2026_09() {
            self.settings.unsettled.dated_partial_status
        } else {
            207
        };
        let at = iso(call.now);
        answer::batch(status, &batch.results, batch.errors, &at, &at)
    }
}

#[derive(Debug, Deserialize)]
struct OneId {
    id: Id,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyOnly {
    #[serde(default)]
    id_property: Option<String>,
}

fn too_many(count: usize, most: usize) -> Handled<()> {
    if count > most {
        return Err(ApiError::validation(format!(
            "The maximum number of inputs supported in a batch is {most}. Please reduce the number of items and try again"
        )));
    }
    Ok(())
}

/// Members of `inputs`, for the log.
pub(crate) fn count_inputs(path: &str, body: &[u8]) -> usize {
    if !path.contains("/batch/") {
        return 0;
    }
    serde_json::from_slice::<Inputs<serde::de::IgnoredAny>>(body).map_or(0, |body| body.inputs.len())
}
