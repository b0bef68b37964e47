//! Opt-in: properties that a file has columns for and the account lacks are created, with types that fit the whole column.

use std::{collections::BTreeSet, rc::Rc};

use super::{
    job::{Job, normal, record_specs},
    plan::PlanProperty,
    rows::{Columns, REJECT_MEMBERS, Reader},
    source::{Source, Step},
};
use crate::{
    config::Compression,
    csv::{dialect::Dialect, records::Start},
    error::Result,
    hubspot::{
        model::ObjectSchema,
        properties::{NewProperty, SchemaParts},
    },
    mapping::TypeInference,
};

impl Job {
    /// Creates the properties that columns are meant for and that the account lacks, with types that fit their whole columns.
    pub(super) async fn create_missing(
        &mut self,
        columns: &Columns,
        dialect: Option<&Dialect>,
        names: &[String],
        compression: Compression,
    ) -> Result<()> {
        let mut missing: Vec<(Rc<ObjectSchema>, usize, Option<String>, bool)> = Vec::new();
        for record in record_specs(&self.import)? {
            let schema = self.account.schema(&record.object, SchemaParts::default(), self.calls_until()).await?;
            let known: BTreeSet<String> = schema
                .properties
                .values()
                .flat_map(|property| [normal(&property.name), normal(&property.label)])
                .collect();
            match record.columns {
                Some(rules) => {
                    for (column, rule) in rules {
                        let property = rule.details().property;
                        let place = columns.header.iter().position(|name| normal(name) == normal(column));
                        if let Some(place) = place.filter(|_| !schema.properties.contains_key(&property)) {
                            let is_key = record.key.as_deref() == Some(&property);
                            missing.push((schema.clone(), place, Some(property), is_key));
                        }
                    }
                }
                None => {
                    for (place, name) in columns.header.iter().enumerate() {
                        let wanted = !name.trim().is_empty() && !REJECT_MEMBERS.contains(&name.as_str());
                        if wanted && !known.contains(&normal(name)) {
                            missing.push((schema.clone(), place, None, record.key.as_deref() == Some(name)));
                        }
                    }
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let inference = self.infer_types(columns, dialect, names, compression).await?;
        for (schema, place, property, is_key) in missing {
            let header = columns.header.get(place).map(String::as_str).unwrap_or_default();
            let mut new = inference.property(place, header, property.as_deref());
            if schema.properties.contains_key(&new.name) {
                continue;
            }
            new.group_name = schema
                .properties
                .values()
                .find(|known| ["email", "domain", "dealname", "subject", "name"].contains(&known.name.as_str()))
                .or_else(|| schema.properties.values().find(|known| !known.group_name.is_empty()))
                .map(|known| known.group_name.clone())
                .unwrap_or_default();
            if is_key {
                // What identifies records is compared as text.
                new = NewProperty {
                    kind: "string".to_owned(),
                    field_type: "text".to_owned(),
                    has_unique_value: true,
                    options: Vec::new(),
                    ..new
                };
            }
            if let Some(plan) = &self.plan {
                let planned = PlanProperty { object: schema.object.clone(), property: new };
                plan.properties.borrow_mut().push(planned);
                continue;
            }
            self.account.create_property(&schema.object, &new, self.calls_until()).await?;
            tracing::info!(run_id = self.lease.run_id, object_type = %schema.object, property = new.name, "property created");
            self.note(format!("created the property `{}` ({}) of {}", new.name, new.kind, schema.object));
        }
        Ok(())
    }

    /// Reads the whole file once, in flat memory, for the types of its columns.
    async fn infer_types(
        &self,
        columns: &Columns,
        dialect: Option<&Dialect>,
        names: &[String],
        compression: Compression,
    ) -> Result<TypeInference> {
        let mut source = Source::new(self.env.objects.clone(), self.object.clone(), Some(compression), 0);
        let mut reader = match dialect {
            Some(dialect) => Reader::csv(dialect, Start::default()),
            None => Reader::json(Start::default()),
        };
        let mut inference = TypeInference::new(columns.header.len());
        let mut header = dialect.is_some_and(|dialect| dialect.header);
        let mut bytes = Vec::new();
        loop {
            while let Some(raw) = reader.next() {
                if std::mem::take(&mut header) {
                    reader.expect_columns(names.len());
                    continue;
                }
                let row = columns.row(raw);
                if row.fault.is_none() {
                    inference.observe(&row.cells);
                }
            }
            bytes.clear();
            match source.step(&mut bytes)? {
                Step::Bytes => reader.feed(&bytes),
                Step::Wait => source.fetched().await?,
                Step::End => {
                    reader.finish();
                    while let Some(raw) = reader.next() {
                        let row = columns.row(raw);
                        if row.fault.is_none() && !header {
                            inference.observe(&row.cells);
                        }
                    }
                    return Ok(inference);
                }
            }
        }
    }
}
