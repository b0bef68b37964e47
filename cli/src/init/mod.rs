//! `hubferry init`: a `hubferry.yaml` to begin with, from a CSV and an account's properties, or from a pipeline configuration of Conduit.

mod conduit;
mod csv;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use hubferry::{clock::Deadline, hubspot::properties::SchemaParts, record::ObjectType};

use crate::{doors, text, turns};

/// What `hubferry init` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A CSV as it will be imported: its columns are matched with the account's properties.
    #[arg(required_unless_present = "from_conduit", conflicts_with = "from_conduit")]
    csv: Option<PathBuf>,
    /// A pipeline configuration file of Conduit: its HubSpot connectors become captures and imports.
    #[arg(long, value_name = "PIPELINES")]
    from_conduit: Option<PathBuf>,
    /// What rows become [default: told by the header; contacts, companies or deals].
    #[arg(long, value_name = "OBJECT", requires = "csv")]
    object: Option<String>,
    /// The import's name [default: the object's].
    #[arg(long = "as", value_name = "NAME", requires = "csv")]
    name: Option<String>,
    /// The account's secret in Secrets Manager; HUBSPOT_ACCESS_TOKEN stands in for it.
    #[arg(long, value_name = "ID", default_value = "hubferry/hubspot", requires = "csv")]
    secret: String,
    /// HubSpot's address, where it is another.
    #[arg(long, value_name = "URL", requires = "csv")]
    base_url: Option<String>,
    /// Where to write; without it, to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file that is there.
    #[arg(long)]
    force: bool,
    /// The bucket of captures and files to import, with --from-conduit.
    #[arg(long, default_value = "your-bucket")]
    bucket: String,
    /// Print JSON: `config` (the text) and `notes`.
    #[arg(long)]
    json: bool,
}

/// Writes the configuration; what could not be carried over is said on standard error.
pub(crate) fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    let (config, notes) = match (&options.from_conduit, &options.csv) {
        (Some(path), _) => {
            let made =
                fs::read_to_string(path).with_context(|| format!("reading {}", path.display())).and_then(|text| {
                    conduit::translate(&text, &options.bucket).with_context(|| path.display().to_string())
                });
            let made = text::and_json(options.json, made)?;
            (made.config, made.notes)
        }
        (None, Some(path)) => {
            let mut made = None;
            turns::command(options.json, async {
                made = Some(from_csv(options, path).await?);
                Ok(crate::DONE)
            })?;
            let made = made.context("nothing was made")?;
            (made.config, made.notes)
        }
        (None, None) => bail!("name a CSV file, or --from-conduit PIPELINES"),
    };
    if options.json {
        writeln!(out, "{}", serde_json::json!({ "config": config, "notes": notes }))?;
    }
    match &options.out {
        Some(file) => put(file, &config, options.force)?,
        None if !options.json => out.write_all(config.as_bytes())?,
        None => {}
    }
    if !options.json {
        let mut told = io::stderr().lock();
        if let Some(file) = &options.out {
            writeln!(told, "wrote {}", file.display())?;
        }
        for note in &notes {
            writeln!(told, "- {note}")?;
        }
    }
    Ok(())
}

async fn from_csv(options: &Options, path: &Path) -> Result<csv::Made> {
    let base_url =
        options.base_url.as_ref().map(|url| format!("\n    base_url: {}", conduit::plain(url))).unwrap_or_default();
    let account = format!("  default:\n    secret: {}{base_url}\n", conduit::plain(&options.secret));
    // A file that is no table is told before HubSpot is asked.
    let first = csv::sample(path, &|_| false).or_else(|_| csv::sample(path, &|_| true))?;
    let object = options.object.clone().unwrap_or_else(|| csv::object_of(&first.header).to_owned());
    let app = doors::without_settings(&account).await?;
    let client = app.account("default")?;
    let details = client.details(Deadline::NONE).await?;
    let schema = client.schema(&ObjectType(object.clone()), SchemaParts::default(), Deadline::NONE).await?;
    let squeeze =
        |name: &str| -> String { name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect() };
    let known: std::collections::BTreeSet<String> =
        schema.properties.values().flat_map(|property| [squeeze(&property.name), squeeze(&property.label)]).collect();
    let sample = csv::sample(path, &|name| known.contains(&squeeze(name))).unwrap_or(first);
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| object.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect());
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let about = csv::About {
        name: &name,
        pattern: &format!("incoming/{name}/*.csv"),
        file: &file,
        account: &account,
        portal_id: details.portal_id,
    };
    let made = csv::translate(&sample, &schema, &about);
    hubferry::config::load::parse(&made.config, "the settings that were made").context("please report this")?;
    Ok(made)
}

/// Writes a file that is not there, or with `force` one that is.
fn put(file: &Path, text: &str, force: bool) -> Result<()> {
    let mut open = fs::OpenOptions::new();
    open.write(true);
    if force {
        open.create(true).truncate(true);
    } else {
        open.create_new(true);
    }
    match open.open(file) {
        Ok(mut made) => made.write_all(text.as_bytes()).with_context(|| format!("writing {}", file.display())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} is there already; --force replaces it", file.display())
        }
        Err(error) => Err(error).with_context(|| format!("writing {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_replaced_by_force_only() {
        let folder = tempfile::tempdir().unwrap();
        let (pipelines, file) = (folder.path().join("pipelines.yaml"), folder.path().join("hubferry.yaml"));
        let source = "version: 2.2\npipelines:\n- id: p\n  connectors:\n  - { id: c, type: source, plugin: hubspot, settings: { accessToken: secret-token, resource: crm.deals } }\n";
        fs::write(&pipelines, source).unwrap();
        let mut options = Options {
            csv: None,
            from_conduit: Some(pipelines),
            object: None,
            name: None,
            secret: String::new(),
            base_url: None,
            out: Some(file.clone()),
            force: false,
            bucket: "data".to_owned(),
            json: false,
        };
        run(&options, &mut Vec::new()).unwrap();
        fs::write(&file, "mine").unwrap();
        let error = run(&options, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        options.force = true;
        run(&options, &mut Vec::new()).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("crm.deals"));
        options.json = true;
        let mut out = Vec::new();
        run(&options, &mut out).unwrap();
        let printed: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!(printed["config"].as_str().unwrap().contains("crm.deals") && printed["notes"].is_array());
        assert!(!String::from_utf8(out).unwrap().contains("secret-token"));
    }
}
