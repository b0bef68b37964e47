//! `hubferry erase`: removes a person from everything that hubferry keeps, and looks again to see that nothing is left.

mod tables;

use std::path::Path;

use anyhow::Result;
use hubferry::{
    clock::Deadline,
    erase::{Erasure, Removed, Request, erase},
};

use self::tables::ParquetTables;
use crate::{
    DONE, FAILED,
    doors::{self, Use},
    text::{self, WIDTH, grouped, wrap},
    turns,
    watch::Watch,
};

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The person's e-mail address.
    #[arg(long, value_name = "ADDRESS")]
    key: String,
    /// A bucket to look through, besides those that the settings and the last runs name; may be given several times.
    #[arg(long, value_name = "BUCKET")]
    bucket: Vec<String>,
    /// Let HubSpot delete the contact for good, too, in every account of the settings. This cannot be undone, and HubSpot refuses the address from then on.
    #[arg(long)]
    gdpr: bool,
    /// Do not ask HubSpot and Salesforce which ids and further addresses are the person's: take those of captured records and links alone.
    #[arg(long, conflicts_with = "gdpr")]
    offline: bool,
    /// List what would be removed, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON; README.md has its shape.
    #[arg(long)]
    json: bool,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

async fn work(options: &Options) -> Result<u8> {
    let wish = match (options.offline, options.dry_run) {
        (true, _) => Use::Look,
        (false, true) => Use::Check,
        (false, false) => Use::Work,
    };
    let doors = doors::open(&options.place, wish, None).await?;
    let watch = Watch::new();
    let mut buckets = options.bucket.clone();
    // What runs of this machine's own files wrote.
    buckets.extend(doors.files.file(Path::new("/")).map(|location| location.bucket));
    let request = Request {
        key: options.key.clone(),
        buckets,
        offline: options.offline,
        gdpr: options.gdpr,
        dry_run: options.dry_run,
    };
    let told = |what: &str| watch.count(what);
    let erasure = Box::pin(erase(&doors.app, &request, Some(&ParquetTables), &told, Deadline::NONE)).await;
    watch.clear();
    let erasure = erasure?;
    if options.json {
        text::json_line(&serde_json::to_value(&erasure)?)?;
    } else {
        text::print(&show(&erasure))?;
    }
    Ok(if erasure.complete || options.dry_run { DONE } else { FAILED })
}

/// Words for what was looked through.
const KINDS: [(&str, &str); 6] = [
    ("rejects", "rejects files"),
    ("before_images", "before-images"),
    ("captured", "captured objects"),
    ("remembered", "what captures remember"),
    ("indexes", "delivered indexes"),
    ("synced", "what syncs keep"),
];

fn show(erasure: &Erasure) -> String {
    let mut lines = vec!["looked through".to_owned()];
    for (kind, words) in KINDS {
        let searched = erasure.searched.get(kind).copied().unwrap_or_default();
        let records =
            if searched.records > 0 { format!(", {} records", grouped(searched.records)) } else { String::new() };
        lines.push(format!("  {words:<24}{}{records}", grouped(searched.objects)));
    }
    for (account, there) in &erasure.hubspot {
        let contacts = match there.contacts {
            0 => "no contact".to_owned(),
            1 => "1 contact".to_owned(),
            several => format!("{several} contacts, merged ones included"),
        };
        let deleted = if there.deleted { ", deleted for good" } else { "" };
        lines.push(format!("  {:<24}{contacts}{deleted}", format!("HubSpot, {account}")));
    }
    match (erasure.removed.is_empty(), erasure.dry_run) {
        (true, _) => lines.push("found nothing".to_owned()),
        (false, true) => lines.push("would be removed".to_owned()),
        (false, false) => lines.push("removed".to_owned()),
    }
    for Removed { location, records, .. } in &erasure.removed {
        let word = if *records == 1 { "record" } else { "records" };
        lines.extend(wrap(&format!("  {} {word}  ", grouped(*records)), location, WIDTH));
    }
    if !erasure.left.is_empty() {
        lines.push("left".to_owned());
    }
    for left in &erasure.left {
        lines.extend(wrap("  ", &format!("{}: {}", left.location, left.why), WIDTH));
    }
    if erasure.complete && !erasure.dry_run {
        lines.push("Nothing is left: everything was read once more.".to_owned());
    }
    for note in &erasure.notes {
        lines.extend(wrap("note  ", note, WIDTH));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use hubferry::erase::{Left, Searched};

    use super::*;

    #[test]
    fn the_outcome_says_what_was_removed_from_where_and_that_nothing_is_left() {
        let mut erasure = Erasure { complete: true, ..Erasure::default() };
        erasure.searched.insert("rejects", Searched { objects: 2, records: 1_200 });
        erasure.removed.push(Removed { what: "rejects", location: "s3://b/rejects/a/R.csv".to_owned(), records: 1 });
        let text = show(&erasure);
        assert!(text.contains("  rejects files           2, 1,200 records\n"), "{text}");
        assert!(text.contains("removed\n  1 record  s3://b/rejects/a/R.csv\nNothing is left"), "{text}");
        erasure.complete = false;
        erasure.left.push(Left { location: "import a".to_owned(), why: "run R is open".to_owned() });
        let text = show(&erasure);
        assert!(text.contains("left\n  import a: run R is open\n") && !text.contains("Nothing is left"), "{text}");
    }
}
