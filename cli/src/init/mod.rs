//! `hubferry init`: a `hubferry.yaml` to begin with.

mod conduit;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

/// What `hubferry init` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A pipeline configuration file of Conduit: its HubSpot connectors become captures and imports.
    #[arg(long, value_name = "PIPELINES", required = true)]
    from_conduit: PathBuf,
    /// Where to write; without it, to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file that is there.
    #[arg(long)]
    force: bool,
    /// The bucket of captures and files to import.
    #[arg(long, default_value = "your-bucket")]
    bucket: String,
    /// Print JSON: `config` (the text) and `notes`.
    #[arg(long)]
    json: bool,
}

/// Writes the configuration; what could not be carried over is said on standard error.
pub(crate) fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    let path = &options.from_conduit;
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let made = conduit::translate(&text, &options.bucket).with_context(|| path.display().to_string())?;
    if options.json {
        writeln!(out, "{}", serde_json::json!({ "config": made.config, "notes": made.notes }))?;
    }
    match &options.out {
        Some(file) => put(file, &made.config, options.force)?,
        None if !options.json => out.write_all(made.config.as_bytes())?,
        None => {}
    }
    if !options.json {
        let mut told = io::stderr().lock();
        if let Some(file) = &options.out {
            writeln!(told, "wrote {}", file.display())?;
        }
        for note in &made.notes {
            writeln!(told, "- {note}")?;
        }
    }
    Ok(())
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
            from_conduit: pipelines,
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
