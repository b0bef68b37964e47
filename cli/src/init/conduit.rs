//! A pipeline configuration of Conduit, read: what hubferry does in the place of its HubSpot connectors, and what it does not.
//!
//! Versions 2.x (lists) and 1.x (maps) are understood. Tokens are compared, to tell accounts apart, and go nowhere.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use hubferry::hubspot::resources::Resource;
use serde_json::{Map, Value};

/// The configuration, and what a person has to know besides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    pub(super) config: String,
    pub(super) notes: Vec<String>,
}

/// One connector, wherever it stands.
struct Connector<'a> {
    id: String,
    /// `source` or `destination`.
    is_source: bool,
    plugin: &'a str,
    settings: Map<String, Value>,
}

/// An account that a token stands for.
struct Account {
    token: Option<String>,
    name: String,
    secret: String,
}

#[derive(Default)]
struct Work {
    accounts: Vec<Account>,
    captures: String,
    imports: String,
    names: Vec<String>,
    notes: Vec<String>,
}

/// Translates the text of a pipeline file. An error if it is none, or holds no HubSpot connector.
pub(super) fn translate(text: &str, bucket: &str) -> Result<Translated> {
    let file: Value = serde_saphyr::from_str(text).context("this is no YAML")?;
    let Some(pipelines) = file.get("pipelines").filter(|pipelines| pipelines.is_array() || pipelines.is_object())
    else {
        bail!("this is no pipeline configuration of Conduit: there are no `pipelines`");
    };
    let mut work = Work::default();
    for (id, pipeline) in entries(pipelines) {
        work.pipeline(&id, pipeline, bucket);
    }
    if work.captures.is_empty() && work.imports.is_empty() {
        let mut message = "no HubSpot connector that hubferry could stand in for".to_owned();
        for note in &work.notes {
            let _ = write!(message, "; {note}");
        }
        bail!(message);
    }
    let config = work.config();
    work.notes.push(format!(
        "`{bucket}` is the bucket of the captures and of the files to import{}",
        if bucket == "your-bucket" { ": put the name of yours in its place, or say --bucket NAME" } else { "" }
    ));
    Ok(Translated { config, notes: work.notes })
}

/// The members of a list with `id`s, or of a map.
fn entries(value: &Value) -> Vec<(String, &Value)> {
    match value {
        Value::Array(list) => {
            let id = |one: &Value| one.get("id").and_then(text).unwrap_or_default();
            list.iter().map(|one| (id(one), one)).collect()
        }
        Value::Object(map) => map.iter().map(|(id, one)| (id.clone(), one)).collect(),
        _ => Vec::new(),
    }
}

/// Settings are texts, and written as numbers and flags too.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// `builtin:hubspot`, `standalone:hubspot@v0.2.0`, `/connectors/conduit-connector-hubspot`.
fn is_hubspot(plugin: &str) -> bool {
    let name = plugin.rsplit([':', '/']).next().unwrap_or_default();
    let name = name.split('@').next().unwrap_or_default();
    matches!(name, "hubspot" | "conduit-connector-hubspot")
}

impl Work {
    fn pipeline(&mut self, id: &str, pipeline: &Value, bucket: &str) {
        let at = |name: &str| format!("pipeline `{id}`{name}");
        let connectors: Vec<Connector<'_>> = pipeline
            .get("connectors")
            .map(entries)
            .unwrap_or_default()
            .into_iter()
            .map(|(id, connector)| Connector {
                id,
                is_source: connector.get("type").and_then(text).as_deref() == Some("source"),
                plugin: connector.get("plugin").and_then(Value::as_str).unwrap_or_default(),
                settings: connector.get("settings").and_then(Value::as_object).cloned().unwrap_or_default(),
            })
            .collect();
        let (ours, others): (Vec<_>, Vec<_>) =
            connectors.into_iter().partition(|connector| is_hubspot(connector.plugin));
        if ours.is_empty() {
            self.notes.push(at(" has no HubSpot connector and was left out"));
            return;
        }
        if pipeline.get("status").and_then(text).as_deref() == Some("stopped") {
            self.notes
                .push(at(" is stopped in Conduit; hubferry has no such state: leave its schedule or its files away"));
        }
        let processors = pipeline.get("processors").map(entries).unwrap_or_default();
        for (processor, _) in processors {
            self.notes.push(at(&format!(
                ": the processor `{processor}` was not carried over; hubferry delivers records as they are"
            )));
        }
        if pipeline.get("dead-letter-queue").or_else(|| pipeline.get("dlq")).is_some() {
            self.notes.push(at(
                ": in place of the dead-letter queue, records that are refused stand in rejects/<import>/<run>.jsonl with their reasons; `abort_if_rejected` stops a run at too many",
            ));
        }
        let mut source: Option<String> = None;
        for connector in ours.iter().filter(|connector| connector.is_source) {
            if let Some(name) = self.capture(id, connector, bucket) {
                source.get_or_insert(name);
            }
        }
        for connector in ours.iter().filter(|connector| !connector.is_source) {
            self.import(id, connector, bucket, source.as_deref());
        }
        for connector in others {
            let (id, plugin) = (&connector.id, connector.plugin);
            self.notes.push(at(&if connector.is_source {
                format!(
                    ": the source `{id}` ({plugin}) is not hubferry's: let it write OpenCDC records, one a line, into the folder that the import matches (Conduit's s3 connector does)"
                )
            } else {
                format!(
                    ": the destination `{id}` ({plugin}) is not hubferry's: let it read the capture's files, one OpenCDC record a line, from the bucket"
                )
            }));
        }
    }

    /// What both kinds have in common: name, resource, account. `None` if there is nothing to be made of it.
    fn common(&mut self, pipeline: &str, connector: &Connector<'_>) -> Option<(String, String, String)> {
        let at = format!("connector `{}` of pipeline `{pipeline}`", connector.id);
        let resource = connector.settings.get("resource").and_then(text).unwrap_or_default();
        if let Err(error) = Resource::parse(&resource) {
            self.notes.push(format!("{at} was left out: {error}"));
            return None;
        }
        let token = connector.settings.get("accessToken").and_then(text).filter(|token| !token.is_empty());
        let name = self.name(pipeline, &connector.id);
        let account = self.account(token, &name);
        for setting in connector.settings.keys() {
            let told = match setting.as_str() {
                "accessToken" | "resource" | "pollingPeriod" | "extraProperties" | "snapshot" => continue,
                "maxRetries" => "`maxRetries` was not carried over: hubferry repeats calls within bounds of its own, in time and in number, and never a create whose answer was lost".to_owned(),
                "bufferSize" => "`bufferSize` was not carried over: hubferry reads the largest pages that HubSpot gives".to_owned(),
                other => format!("the setting `{other}` was not carried over"),
            };
            self.notes.push(format!("{at}: {told}"));
        }
        Some((name, resource, account))
    }

    fn capture(&mut self, pipeline: &str, connector: &Connector<'_>, bucket: &str) -> Option<String> {
        let (name, resource, account) = self.common(pipeline, connector)?;
        let mut lines = vec![format!("  - name: {}", plain(&name))];
        if account != "default" {
            lines.push(format!("    hubspot: {}", plain(&account)));
        }
        lines.push(format!("    resource: {resource}"));
        lines.push(format!("    output: s3://{bucket}/captures/{name}/"));
        if connector.settings.get("snapshot").and_then(text).as_deref() == Some("false") {
            lines.push("    snapshot: false".to_owned());
        }
        if let Some(extra) = connector.settings.get("extraProperties") {
            let names: Vec<String> = match extra {
                Value::Array(list) => list.iter().filter_map(text).collect(),
                one => text(one).unwrap_or_default().split(',').map(|name| name.trim().to_owned()).collect(),
            };
            let names: Vec<String> = names.iter().filter(|name| !name.is_empty()).map(|name| plain(name)).collect();
            if resource.starts_with("cms.") {
                self.notes.push(format!(
                    "capture `{name}`: `extraProperties` has no meaning for content, which is captured whole"
                ));
            } else if !names.is_empty() {
                lines.push(format!("    extra_properties: [{}]", names.join(", ")));
            }
        }
        let every = connector.settings.get("pollingPeriod").and_then(text).unwrap_or_else(|| "5s".to_owned());
        self.notes.push(format!(
            "capture `{name}`: Conduit polls every {every}; wake hubferry by a schedule with {{\"job\":\"capture\",\"name\":\"{name}\"}}, once a minute at the most (each run reads everything since the last one)"
        ));
        self.notes.push(format!(
            "capture `{name}` begins anew, with the snapshot where there is one: Conduit's position is not carried over"
        ));
        for line in lines {
            self.captures.push_str(&line);
            self.captures.push('\n');
        }
        Some(name)
    }

    fn import(&mut self, pipeline: &str, connector: &Connector<'_>, bucket: &str, source: Option<&str>) {
        let Some((name, resource, account)) = self.common(pipeline, connector) else { return };
        for only in ["pollingPeriod", "extraProperties", "snapshot"] {
            if connector.settings.contains_key(only) {
                self.notes.push(format!("import `{name}`: `{only}` is a source's setting and was not carried over"));
            }
        }
        let folder = match source {
            Some(source) => format!("captures/{source}/**/*.jsonl*"),
            None => format!("incoming/{name}/**"),
        };
        let _ = writeln!(self.imports, "  - name: {}", plain(&name));
        if account != "default" {
            let _ = writeln!(self.imports, "    hubspot: {}", plain(&account));
        }
        let _ = writeln!(self.imports, "    match: {}", plain(&folder));
        let _ = writeln!(self.imports, "    format: opencdc\n    resource: {resource}");
        match source {
            Some(source) => {
                self.imports.push_str("    # The ids in the records are another account's: a property of hubferry's own holds them.\n    create_properties: true\n");
                self.notes.push(format!(
                    "import `{name}` delivers what capture `{source}` writes, and adds the property `hubferry_hs_object_id_key` to find records by the id that they have in the source; Conduit would take those ids for the account's own"
                ));
            }
            None => {
                self.imports.push_str("    # key: email     # to update what is there already by a unique property, in place of the account's own ids\n");
                self.notes.push(format!(
                    "import `{name}`: as in Conduit, an update or a delete means the record with the id in `key`, and a create makes a new one; with `key` or `create_properties: true` nothing is made twice"
                ));
                self.notes.push(format!(
                    "import `{name}` takes OpenCDC records, one a line, from s3://{bucket}/incoming/{name}/"
                ));
            }
        }
    }

    /// A name that no other has: of the connector, with its pipeline's where needed.
    fn name(&mut self, pipeline: &str, connector: &str) -> String {
        let fit = |text: &str| -> String {
            let fit = text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' });
            fit.collect::<String>().trim_matches('-').to_owned()
        };
        let (short, long) = (fit(connector), fit(&format!("{pipeline}-{connector}")));
        let first = if short.is_empty() { "hubspot".to_owned() } else { short };
        let numbered = (2..).map(|number| format!("{long}-{number}"));
        let mut candidates = [first, long.clone()].into_iter().chain(numbered);
        let name = candidates.find(|name| !name.is_empty() && !self.names.contains(name)).unwrap_or_default();
        self.names.push(name.clone());
        name
    }

    /// The account of a token; a new one where it was not seen before.
    fn account(&mut self, token: Option<String>, name: &str) -> String {
        if let Some(known) = self.accounts.iter().find(|account| account.token == token) {
            return known.name.clone();
        }
        let (account, secret) = match self.accounts.len() {
            0 => ("default".to_owned(), "hubferry/hubspot".to_owned()),
            _ => (name.to_owned(), format!("hubferry/hubspot-{name}")),
        };
        self.notes.push(format!(
            "account `{account}`: the access token was not copied. Store it: aws secretsmanager create-secret --name {secret} --secret-string '{{\"access_token\":\"…\"}}'"
        ));
        self.accounts.push(Account { token, name: account.clone(), secret });
        account
    }

    fn config(&self) -> String {
        let mut config = String::from(
            "# Written by `hubferry init --from-conduit`. Every setting: examples/hubferry.yaml, `hubferry schema`.\nversion: 1\nhubspot:\n",
        );
        for account in &self.accounts {
            let _ = writeln!(config, "  {}: {{ secret: {} }}", plain(&account.name), plain(&account.secret));
        }
        for (title, jobs) in [("captures", &self.captures), ("imports", &self.imports)] {
            if !jobs.is_empty() {
                let _ = write!(config, "{title}:\n{jobs}");
            }
        }
        config
    }
}

/// Text as a YAML scalar.
pub(super) fn plain(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.' | '*'))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use hubferry::config::{ExtraProperties, load};

    use super::*;

    const PIPELINES: &str = r#"
version: 2.2
pipelines:
  - id: people
    status: running
    connectors:
      - id: hubspot.in
        type: source
        plugin: standalone:hubspot@v0.2.0
        settings:
          accessToken: pat-na1-one
          resource: crm.contacts
          pollingPeriod: 10s
          bufferSize: "50"
          extraProperties: favourite_colour, shoe size
          snapshot: "false"
      - id: hubspot.out
        type: destination
        plugin: builtin:hubspot
        settings: { accessToken: pat-na1-two, resource: crm.contacts, maxRetries: 7 }
    processors:
      - { id: rename, plugin: field.rename }
    dead-letter-queue: { plugin: builtin:log }
  - id: posts
    connectors:
      - { id: pg, type: source, plugin: builtin:postgres, settings: { table: posts } }
      - id: hubspot.out
        type: destination
        plugin: hubspot
        settings: { accessToken: pat-na1-one, resource: cms.blogs.posts, sdk.rate.perSecond: 5 }
  - id: broken
    connectors:
      - { id: x, type: source, plugin: builtin:hubspot, settings: { accessToken: pat-na1-one, resource: cms.pages } }
  - id: else
    connectors:
      - { id: y, type: source, plugin: builtin:generator }
"#;

    #[test]
    fn a_pipeline_file_becomes_a_configuration_that_loads() {
        let made = translate(PIPELINES, "data").unwrap();
        let config =
            load::parse(&made.config, "hubferry.yaml").unwrap_or_else(|error| panic!("{error}\n{}", made.config));
        assert_eq!(config.hubspot.len(), 2);
        let [capture] = config.captures.as_slice() else { panic!("{:?}", config.captures) };
        assert_eq!(
            (capture.name.as_str(), capture.resource.as_str(), capture.snapshot),
            ("hubspot-in", "crm.contacts", false)
        );
        let ExtraProperties::Names(extra) = &capture.extra_properties else { panic!("{:?}", capture.extra_properties) };
        assert_eq!(extra, &["favourite_colour", "shoe size"]);
        let imports: Vec<_> = config
            .imports
            .iter()
            .map(|import| {
                let resource = import.resource.as_deref().unwrap();
                (
                    import.name.as_str(),
                    import.hubspot.as_str(),
                    import.pattern.as_str(),
                    resource,
                    import.create_properties,
                )
            })
            .collect();
        assert_eq!(
            imports,
            [
                ("hubspot-out", "hubspot-out", "captures/hubspot-in/**/*.jsonl*", "crm.contacts", true),
                ("posts-hubspot-out", "default", "incoming/posts-hubspot-out/**", "cms.blogs.posts", false),
            ]
        );
    }

    #[test]
    fn what_was_not_carried_over_is_said_and_no_token_is_repeated() {
        let made = translate(PIPELINES, "data").unwrap();
        let all = format!("{}{}", made.config, made.notes.join("\n"));
        assert!(!all.contains("pat-na1"), "{all}");
        for told in [
            "maxRetries",
            "bufferSize",
            "polls every 10s",
            "`rename`",
            "dead-letter",
            "builtin:postgres",
            "sdk.rate.perSecond",
            "hubferry/hubspot ",
            "hubferry/hubspot-hubspot-out ",
            "connector `x` of pipeline `broken` was left out",
            "pipeline `else`",
        ] {
            assert!(
                made.notes.iter().any(|note| note.contains(told)),
                "{told} is not told:\n{}",
                made.notes.join("\n")
            );
        }
    }

    #[test]
    fn version_one_has_maps_where_version_two_has_lists() {
        let text = "version: 1.1\npipelines:\n  p:\n    connectors:\n      c:\n        type: source\n        plugin: builtin:hubspot\n        settings:\n          accessToken: ${TOKEN}\n          resource: crm.deals\n";
        let made = translate(text, "your-bucket").unwrap();
        let config = load::parse(&made.config, "hubferry.yaml").unwrap();
        assert_eq!(config.captures[0].name, "c");
        assert!(made.notes.iter().any(|note| note.contains("--bucket")));
    }

    #[test]
    fn what_is_no_pipeline_file_is_an_error() {
        for (text, told) in [
            ("a: [", "YAML"),
            ("version: 2.2", "no `pipelines`"),
            ("pipelines: []", "no HubSpot connector"),
            (
                "pipelines: [{ id: p, connectors: [{ id: c, plugin: builtin:hubspot, type: source, settings: {} }] }]",
                "no HubSpot connector",
            ),
        ] {
            let error = format!("{:#}", translate(text, "b").unwrap_err());
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
