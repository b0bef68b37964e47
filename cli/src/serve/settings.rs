//! The settings of a local cloud: a file's, led to the simulators, or those that show the most.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use hubferry::{
    config::{Config, load},
    sync::fields::links_of,
};
use hubferry_simulator::{
    aws::{Rule, Target, events::Shape},
    hubspot::{self, Portal, PortalSettings, PropertyDefinition},
    salesforce::OrgSettings,
};
use serde_json::{Value, json};

use super::{BUCKET, QUEUE};
use crate::demo::world;

/// Accounts and orgs that one local cloud simulates: each is a server.
const PLACES_MAX: usize = 8;

/// Where the simulated places are, by the names that the settings give them.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// HubSpot accounts.
    pub(super) hubspot: BTreeMap<String, String>,
    /// Salesforce orgs.
    pub(super) salesforce: BTreeMap<String, String>,
}

/// Settings in force.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// As the function reads them.
    pub(super) text: String,
    /// The same, understood.
    pub(super) config: Config,
}

/// Which places a file speaks of: the names of its accounts and its orgs.
pub(super) fn names(file: Option<&Path>) -> Result<(Vec<String>, Vec<String>)> {
    let config = match file {
        Some(path) => load::parse(&read(path)?, &path.display().to_string())?,
        None => load::parse(&default_text(&Places::default()), "the default settings")?,
    };
    let (accounts, orgs): (Vec<String>, Vec<String>) =
        (config.hubspot.into_keys().collect(), config.salesforce.into_keys().collect());
    ensure!(
        accounts.len() + orgs.len() <= PLACES_MAX,
        "at most {PLACES_MAX} accounts and orgs can be simulated at once"
    );
    Ok((accounts, orgs))
}

/// The settings, led to these places.
pub(super) fn settings(file: Option<&Path>, places: &Places) -> Result<Settings> {
    let (text, name) = match file {
        None => (default_text(places), "the default settings".to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            let own = read(path)?;
            // What is wrong with it is told by its own lines.
            load::parse(&own, &name)?;
            let mut tree: Value = serde_saphyr::from_str(&own).with_context(|| format!("{name} is no YAML"))?;
            for (account, url) in &places.hubspot {
                if let Some(account) = tree.pointer_mut(&format!("/hubspot/{}", pointer(account))) {
                    account["base_url"] = url.as_str().into();
                }
            }
            // JSON is YAML.
            (format!("{tree:#}\n"), name)
        }
    };
    let config = load::parse(&text, &name)?;
    Ok(Settings { text, config })
}

fn read(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("{name} cannot be read"))?;
    Ok(load::text(&bytes, &name)?)
}

/// A name in a JSON pointer.
fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl Settings {
    /// Every bucket that is spoken of, the one for uploads first.
    pub(super) fn buckets(&self) -> Vec<String> {
        let mut all = vec![BUCKET.to_owned()];
        let outputs = self.config.captures.iter().map(|capture| capture.output.as_str());
        for uri in outputs.chain(self.config.data.as_deref()) {
            let bucket = hubferry::objects::Location::parse(uri).map(|location| location.bucket);
            all.extend(bucket.filter(|bucket| !all.contains(bucket)));
        }
        all
    }

    /// Which uploads wake the function: those under the literal beginning of an import's pattern.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let begins: BTreeSet<&str> = self.config.imports.iter().map(|import| literal(&import.pattern)).collect();
        // A longer one below a shorter one would send the event twice.
        let short = |begin: &&&str| !begins.iter().any(|other| other != *begin && begin.starts_with(*other));
        let begins: Vec<&str> = begins.iter().filter(short).copied().collect();
        let rule = |bucket: &str, prefix: &str| Rule {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            shape: Shape::EventBridge,
            target: Target::Queue(QUEUE.to_owned()),
        };
        self.buckets().iter().flat_map(|bucket| begins.iter().map(|prefix| rule(bucket, prefix))).collect()
    }

    /// The secrets that the settings name, with what opens the simulated places.
    pub(super) fn secrets(&self, places: &Places) -> Vec<(String, String)> {
        let hubspot = self.config.hubspot.values();
        let mut all: Vec<(String, String)> = hubspot
            .map(|account| (account.secret.clone(), json!({ "access_token": PortalSettings::TOKEN }).to_string()))
            .collect();
        for (name, org) in &self.config.salesforce {
            let secret = json!({
                "flow": "client_credentials",
                "login_url": places.salesforce.get(name),
                "client_id": OrgSettings::CLIENT_ID,
                "client_secret": OrgSettings::CLIENT_SECRET,
            });
            all.push((org.secret.clone(), secret.to_string()));
        }
        all
    }

    /// Gives a simulated account the properties that the settings speak of and that HubSpot does not bring: whoever writes settings knows
    /// the account, and the simulation has to look like it.
    pub(super) fn furnish(&self, account: &str, portal: &mut Portal) {
        let mut wanted: Vec<(String, PropertyDefinition)> = Vec::new();
        let mut key = |object: &str, name: &str| {
            wanted.push((object.to_owned(), PropertyDefinition::new(name, "string").unique()));
        };
        for import in self.config.imports.iter().filter(|import| import.hubspot == account && !import.create_properties)
        {
            if let (Some(object), Some(name)) = (&import.object, &import.key) {
                key(object.as_str(), name);
            }
            for record in &import.records {
                key(record.object.as_str(), &record.key);
            }
        }
        for sync in self.config.syncs.iter().filter(|sync| sync.hubspot == account) {
            if let Some(links) = links_of(sync) {
                key(sync.hubspot_object.as_str(), &links.hubspot_property);
            }
        }
        for import in self.config.imports.iter().filter(|import| import.hubspot == account && !import.create_properties)
        {
            let own = import.object.iter().zip(&import.columns);
            let several = import.records.iter().map(|record| (&record.object, &record.columns));
            for (object, columns) in own.chain(several) {
                for details in columns.values().map(hubferry::config::ColumnRule::details) {
                    let kind = if details.date.is_some() { "date" } else { "string" };
                    let mut property = PropertyDefinition::new(&details.property, kind);
                    if !details.values.is_empty() {
                        property = PropertyDefinition::new(&details.property, "enumeration");
                        let values: BTreeSet<&str> = details.values.values().map(String::as_str).collect();
                        property = property.options(&values.into_iter().collect::<Vec<_>>());
                    }
                    wanted.push((object.as_str().to_owned(), property));
                }
            }
        }
        for (object, property) in wanted {
            if !portal.has_property(&object, &property.name) {
                portal.define_property(&object, property);
            }
        }
    }

    /// Object types that HubSpot does not bring.
    pub(super) fn custom_objects(&self, account: &str) -> Vec<hubspot::CustomObject> {
        let standard = Portal::new(PortalSettings::default());
        let imports = self.config.imports.iter().filter(|import| import.hubspot == account);
        let named = imports
            .flat_map(|import| import.object.iter().chain(import.records.iter().map(|record| &record.object)))
            .chain(self.config.syncs.iter().filter(|sync| sync.hubspot == account).map(|sync| &sync.hubspot_object));
        let mut names: Vec<&str> = named.map(hubferry::record::ObjectType::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let custom = names.into_iter().filter(|name| !standard.has_object(name));
        custom
            .zip(1_u32..)
            .map(|(name, number)| hubspot::CustomObject {
                object_type_id: format!("2-{}", 1_000_000 + number),
                name: name.to_owned(),
                properties: Vec::new(),
                required: Vec::new(),
                primary_display: String::new(),
            })
            .collect()
    }
}

/// The part of a pattern before its first wildcard.
pub(super) fn literal(pattern: &str) -> &str {
    let end = pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len());
    pattern.get(..end).unwrap_or_default()
}

/// The folder of keys into which a file for this pattern goes, with its `/`; empty for the root.
pub(super) fn folder(pattern: &str) -> &str {
    let literal = literal(pattern);
    literal.rfind('/').and_then(|at| literal.get(..=at)).unwrap_or_default()
}

/// Imports, a capture, a sync and both places, commented.
fn default_text(places: &Places) -> String {
    let hubspot = places.hubspot.get("default").map_or("http://127.0.0.1", String::as_str);
    let secret = world::SECRET;
    format!(
        "\
version: 1
hubspot:
  default:
    secret: {secret}
    base_url: {hubspot}             # the simulated account
salesforce:
  default:
    secret: hubferry/salesforce                # its login_url is the simulated org
imports:
  - name: contacts
    match: incoming/contacts/*.csv
    object: contacts
    key: email
    columns:
      Email: email
      First Name: firstname
      Last Name: lastname
      Stage: lifecyclestage
      Plan: plan
      Signed up: signup_date
      Annual spend: annual_spend
      Newsletter: newsletter
      Owner: hubspot_owner_id
      Notes: notes
    abort_if_rejected: 20%
  - name: people                               # one row, a contact and its company, associated
    match: incoming/people/*.csv
    records:
      - {{ object: contacts, key: email, columns: {{ email: email, first_name: firstname, last_name: lastname }} }}
      - {{ object: companies, key: domain, columns: {{ company_domain: domain, company: name }} }}
    associate: [{{ from: contacts, to: companies }}]
    create_properties: true                    # lets hubferry keep a unique property for `domain`
captures:
  - name: contacts
    resource: crm.contacts
    output: s3://{BUCKET}/captures/contacts/
    extra_properties: [lifecyclestage]
    format: jsonl
    compression: none
    lag_seconds: 5
    trailing_seconds: 60
syncs:
  - name: people                               # contacts here are contacts there, both ways
    hubspot_object: contacts
    salesforce_object: Contact
    fields:
      - {{ hubspot: email, salesforce: Email, rule: two_way }}
      - {{ hubspot: firstname, salesforce: FirstName, rule: two_way }}
      - {{ hubspot: lastname, salesforce: LastName, rule: two_way, placeholder: \"[unknown]\" }}
      - {{ hubspot: phone, salesforce: Phone, rule: two_way }}
      - {{ hubspot: jobtitle, salesforce: Title, rule: prefer_salesforce_unless_blank }}
    limits: {{ creates: 50000, updates: 50000, blanks: 1000, deletes: 20 }}
data: s3://{BUCKET}/                      # reports of syncs
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let one = |url: &str| BTreeMap::from([("default".to_owned(), url.to_owned())]);
        Places { hubspot: one("http://127.0.0.1:1"), salesforce: one("http://127.0.0.1:2") }
    }

    #[test]
    fn the_default_settings_lead_to_the_simulators() {
        let settings = settings(None, &places()).unwrap();
        assert_eq!(settings.config.hubspot["default"].base_url, "http://127.0.0.1:1");
        let secrets = settings.secrets(&places());
        assert!(secrets.iter().any(|(name, value)| name == "hubferry/salesforce" && value.contains("127.0.0.1:2")));
        assert_eq!(settings.buckets(), [BUCKET]);
        let prefixes: Vec<String> = settings.rules().into_iter().map(|rule| rule.prefix).collect();
        assert_eq!(prefixes, ["incoming/contacts/", "incoming/people/"]);
    }

    #[test]
    fn a_file_is_led_to_the_simulators_whatever_it_says_and_keeps_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hubferry.yaml");
        let own = "version: 1\nhubspot:\n  default: { secret: a/b }\n  eu: { secret: c, base_url: \"https://api.hubapi.eu\" }\n\
                   imports:\n  - { name: things, match: \"in/**/*.csv\", object: machines, key: serial, hubspot: eu, columns: { Serial: serial, \
                   Built: { property: built, date: \"%d/%m/%Y\" } } }\n  - { name: all, match: \"in/deep/*.csv\", object: contacts, key: email }\n";
        fs::write(&path, own).unwrap();
        let (accounts, orgs) = names(Some(&path)).unwrap();
        assert_eq!((accounts, orgs), (vec!["default".to_owned(), "eu".to_owned()], Vec::new()));
        let mut places = places();
        places.hubspot.insert("eu".to_owned(), "http://127.0.0.1:3".to_owned());
        let settings = settings(Some(&path), &places).unwrap();
        assert_eq!(settings.config.hubspot["eu"].base_url, "http://127.0.0.1:3");
        assert_eq!(settings.rules().len(), 1, "`in/deep/` is below `in/`: one event for an upload");
        assert_eq!((folder_of("in/**/*.csv"), folder_of("a*.csv"), folder_of("x/y.csv")), ("in/", "", "x/"));

        // The account of the file's mind.
        let custom = settings.custom_objects("eu");
        assert_eq!(custom[0].name, "machines");
        let mut portal = Portal::new(PortalSettings { custom_objects: custom, ..PortalSettings::default() });
        settings.furnish("eu", &mut portal);
        assert!(portal.has_property("machines", "serial") && portal.has_property("machines", "built"));
    }

    fn folder_of(pattern: &str) -> &str {
        folder(pattern)
    }

    #[test]
    fn a_file_with_a_mistake_is_told_by_its_own_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hubferry.yaml");
        fs::write(&path, "version: 1\nhubspott: {}\n").unwrap();
        let error = format!("{:#}", settings(Some(&path), &places()).unwrap_err());
        assert!(error.contains("hubspott"), "{error}");
    }
}
