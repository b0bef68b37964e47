//! Bytes of a CSV to bodies of batch upserts, in memory on one core: what of an import is hubferry's own work.
//!
//! The steps are the import's: [`RecordReader`], [`Mapping`], [`encode`]. Each is measured with those before it.

#![expect(clippy::print_stdout, reason = "a benchmark tells its results")]

mod support;

use std::{collections::BTreeMap, hint::black_box};

use hubferry::{
    config::{Blank, ColumnRule, CsvSettings, Mode},
    csv::{Hints, RecordReader, Start, detect},
    hubspot::{
        batch::{BATCH_INPUTS_MAX, Write, WriteKind, encode},
        model::{ObjectSchema, PropertyDefinition},
    },
    mapping::{self, Mapping, MappingSpec},
    record::{Input, ObjectType},
};
use hubferry_simulator::hubspot::{Portal, PortalSettings, server::machine_clock};
use support::{Outcome, machine, median, range, rows, tell, wanted};

const ROWS: u32 = 1_000_000;
const ROUNDS: usize = 5;
/// As the import feeds its reader.
const STEP_BYTES: usize = 128 * 1024;
/// Rows that are looked at for formats, as the import does.
const SAMPLE_ROWS: usize = 2_000;

fn main() -> Outcome {
    if !wanted("decode") {
        return Ok(());
    }
    println!("decode: {ROWS} rows of 8 typed columns, one core, {ROUNDS} rounds; {}", machine::describe());
    let file = rows::file(0..u64::from(ROWS), |_| false);
    let bench = Bench::new(&file)?;
    let steps: [(&str, Step<'_>); 3] =
        [("decode", Bench::decode), ("decode, map", Bench::map), ("decode, map, encode", Bench::encode)];
    let mut seconds = [const { Vec::new() }; 3];
    let mut bytes = [0; 3];
    for _ in 0..ROUNDS {
        for ((step, seconds), bytes) in steps.iter().zip(&mut seconds).zip(&mut bytes) {
            let before = machine::cpu_seconds("self")?;
            *bytes = black_box((step.1)(&bench)?);
            seconds.push(machine::cpu_seconds("self")? - before);
        }
    }
    let mb = file.len() as f64 / 1e6;
    for ((name, _), seconds) in steps.iter().zip(&seconds) {
        let (middle, (low, high)) = (median(seconds), range(seconds));
        let figure = format!(
            "{middle:.2} s of CPU ({low:.2} to {high:.2}), {:.2} million rows/s, {:.0} MB/s",
            f64::from(ROWS) / middle / 1e6,
            mb / middle
        );
        let target = (*name == "decode, map, encode").then_some(("under 1.2 s", middle < 1.2));
        tell(name, &figure, target);
    }
    println!("  the file: {mb:.0} MB; the bodies: {:.0} MB", bytes[2] as f64 / 1e6);
    Ok(())
}

/// One pass over the file; a number that depends on all of it.
type Step<'a> = fn(&Bench<'a>) -> Outcome<u64>;

struct Bench<'a> {
    file: &'a [u8],
    dialect: hubferry::csv::Dialect,
    mapping: Mapping,
    object: ObjectType,
}

impl<'a> Bench<'a> {
    fn new(file: &'a [u8]) -> Outcome<Self> {
        let object = ObjectType("contacts".to_owned());
        let schema = schema(&object)?;
        let sample = file.get(..STEP_BYTES).unwrap_or(file);
        let known = |name: &str| rows::HEADER.contains(name);
        let dialect = detect(sample, false, &CsvSettings::default(), &Hints { is_known: &known })?;
        let mut reader = RecordReader::new(&dialect, Start::default());
        reader.feed(file.get(..4 * STEP_BYTES).unwrap_or(file));
        let header = reader.next().ok_or("no header")?;
        let header: Vec<String> = header.cells.iter().map(str::to_owned).collect();
        let mut cells = Vec::new();
        while let Some(record) = reader.next().filter(|_| cells.len() < SAMPLE_ROWS) {
            cells.push(record.cells);
        }
        let columns: BTreeMap<String, ColumnRule> = serde_json::from_str(rows::COLUMNS)?;
        let spec = MappingSpec {
            object: &object,
            key: Some("email"),
            own_key: false,
            columns: Some(&columns),
            blank: Blank::Keep,
            mode: Mode::Upsert,
            time_zone: "UTC",
        };
        let detected = mapping::detect(&header, &cells);
        let mapping =
            Mapping::compile(&spec, &header, &schema, detected).map_err(|problems| format!("{problems:?}"))?;
        Ok(Self { file, dialect, mapping, object })
    }

    /// Each row in turn, as the import's loop takes them.
    fn each(&self, mut take: impl FnMut(hubferry::csv::Record) -> Outcome) -> Outcome {
        let mut reader = RecordReader::new(&self.dialect, Start::default());
        let mut read = 0;
        for piece in self.file.chunks(STEP_BYTES) {
            reader.feed(piece);
            while let Some(record) = reader.next() {
                read += 1;
                // The first is the header.
                if read == 1 {
                    reader.expect_columns(record.cells.len());
                    continue;
                }
                if record.fault.is_some() {
                    return Err("a row cannot be read".into());
                }
                take(record)?;
            }
        }
        if read == ROWS + 1 { Ok(()) } else { Err(format!("{read} lines were read").into()) }
    }

    fn decode(&self) -> Outcome<u64> {
        let mut bytes = 0;
        self.each(|record| {
            bytes += black_box(&record).cells.bytes() as u64;
            Ok(())
        })?;
        Ok(bytes)
    }

    fn map(&self) -> Outcome<u64> {
        let mut properties = 0;
        self.each(|record| {
            let input = self.mapping.apply(&record.cells).map_err(|reason| reason.reason)?;
            properties += black_box(&input).properties.len() as u64;
            Ok(())
        })?;
        Ok(properties)
    }

    fn encode(&self) -> Outcome<u64> {
        let write = Write { kind: WriteKind::Upsert, object: &self.object, id_property: Some("email") };
        let mut batch: Vec<Input> = Vec::with_capacity(BATCH_INPUTS_MAX);
        let mut bytes = 0;
        let mut calls: u64 = 0;
        self.each(|record| {
            batch.push(self.mapping.apply(&record.cells).map_err(|reason| reason.reason)?);
            if batch.len() == BATCH_INPUTS_MAX {
                let members: Vec<&Input> = batch.iter().collect();
                calls += 1;
                bytes += black_box(encode(write, &members, &format!("7f3a9c-{calls}-"))?).len() as u64;
                batch.clear();
            }
            Ok(())
        })?;
        if batch.is_empty() { Ok(bytes) } else { Err("the rows do not fill the last batch".into()) }
    }
}

/// The account's definitions, as the simulator tells them.
fn schema(object: &ObjectType) -> Outcome<ObjectSchema> {
    #[derive(serde::Deserialize)]
    struct List {
        results: Vec<PropertyDefinition>,
    }
    let mut settings = PortalSettings::unlimited();
    settings.properties.insert("contacts".to_owned(), rows::properties());
    let request = http::Request::get("/crm/v3/properties/contacts")
        .header("authorization", format!("Bearer {}", PortalSettings::TOKEN))
        .body(bytes::Bytes::new())?;
    let hubferry_simulator::hubspot::Outcome::Response(response) =
        Portal::new(settings).handle(machine_clock(), &request).response
    else {
        return Err("the simulator does not answer".into());
    };
    let list: List = serde_json::from_slice(response.body())?;
    let properties = list.results.into_iter().map(|property| (property.name.clone(), property)).collect();
    Ok(ObjectSchema { object: object.clone(), properties, owners: Vec::new(), pipelines: Vec::new() })
}
