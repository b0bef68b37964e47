//! Which objects hold what, by their keys, and whose ids stand in them. Pure.

use std::collections::BTreeSet;

use crate::{
    capture::known::Known,
    config::{Capture, Import},
    hubspot::resources::Resource,
    record::ObjectType,
};

/// A run's id is a ULID.
const RUN_ID_CHARS: usize = 26;

/// The properties other than the address by which imports know contacts.
pub(super) fn contact_keys(imports: &[Import]) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for import in imports {
        if import.object.as_ref().is_some_and(ObjectType::is_contacts) {
            keys.extend(import.key.clone());
        }
        keys.extend(
            import.records.iter().filter(|record| record.object.is_contacts()).map(|record| record.key.clone()),
        );
    }
    keys.remove("email");
    keys
}

/// Whether ids and keys in an import's files may be those of contacts.
pub(super) fn imports_contacts(import: &Import) -> bool {
    import.object.as_ref().is_some_and(ObjectType::is_contacts)
        || import.records.iter().any(|record| record.object.is_contacts())
        || import.resource.as_deref().is_some_and(is_contacts)
}

pub(super) fn captures_contacts(capture: &Capture) -> bool {
    is_contacts(&capture.resource)
}

fn is_contacts(resource: &str) -> bool {
    Resource::parse(resource).is_ok_and(|resource| resource.collection() == "crm.contacts")
}

/// Takes ids out of what a capture remembers; how many entries there were.
pub(super) fn forget(known: &mut Known, ids: &BTreeSet<u64>, is_contacts: bool, to_contacts: &[u8]) -> u64 {
    let mut count = 0;
    if is_contacts {
        for id in ids {
            count += u64::from(known.recent.remove(id).is_some());
            count += u64::from(known.archived.remove(id).is_some());
            count += u64::from(known.merged.remove(id));
            count += u64::from(known.links.remove(id).is_some());
        }
    }
    for links in known.links.values_mut() {
        let before = links.len();
        links.retain(|link| !(to_contacts.contains(&link.to) && ids.contains(&link.id)));
        count += (before - links.len()) as u64;
    }
    known.links.retain(|_, links| !links.is_empty());
    count
}

/// Whether a key below a capture's output is one of its objects.
pub(super) fn is_captured(below: &str) -> bool {
    let known = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv", ".csv.gz", ".csv.zst", ".parquet"];
    below.split_once('/').is_some_and(|(day, name)| {
        day.starts_with("dt=") && !name.contains('/') && known.iter().any(|end| name.ends_with(end))
    })
}

/// Whose a key is that looks like one of an import's or a sync's: what it holds, the import (or `sync-<name>`), and the run. A bucket may hold other
/// things under the same prefix.
pub(super) fn place_of(what: &'static str, key: &str) -> Option<(&'static str, String, String)> {
    let is_run = |text: &str| {
        text.len() == RUN_ID_CHARS && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    let parts: Vec<&str> = key.split('/').collect();
    let (what, import, run_id) = match (what, parts.as_slice()) {
        ("rejects", [_, import, file]) => {
            let (run_id, ending) = file.split_once('.')?;
            matches!(ending, "csv" | "jsonl").then_some((what, import, run_id))?
        }
        ("before_images", [_, import, rest @ ..]) => {
            let mut names = rest.iter().map(|part| part.split_once('.').map_or(*part, |(name, _)| name));
            (what, import, names.find(|name| is_run(name))?)
        }
        ("working_files", [_, "sync", sync, run_id, file]) => {
            let named = || ("rejects", format!("sync-{sync}"), (*run_id).to_owned());
            return (is_run(run_id) && file.starts_with("refused-")).then(named);
        }
        ("working_files", [_, _, import, run_id, file]) => {
            // The plan of an undo, and the copy of one that was applied, hold values as images do.
            let what = if ["before-", "undo", "plan"].iter().any(|begin| file.starts_with(begin)) {
                "before_images"
            } else if file.starts_with("rejects-") {
                "rejects"
            } else {
                return None;
            };
            (what, import, *run_id)
        }
        _ => return None,
    };
    is_run(run_id).then(|| (what, (*import).to_owned(), run_id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::known::{Archived, Link};

    #[test]
    fn only_keys_that_hubferry_makes_are_looked_into() {
        let run = "01M81X8WAQPWTZFPPZ0WHP7FWS";
        let place = |what, key: String| place_of(what, &key).map(|(what, import, _)| (what, import));
        assert_eq!(place("rejects", format!("rejects/a/{run}.csv")), Some(("rejects", "a".to_owned())));
        for image in
            [format!("before/a/{run}.jsonl"), format!("before/a/{run}/000001.jsonl.zst"), format!("before/a/{run}")]
        {
            assert_eq!(place("before_images", image), Some(("before_images", "a".to_owned())));
        }
        for file in
            ["before-1-0.jsonl", "before-1-0-pairs.jsonl", "undo.jsonl", "undo-keep-created.jsonl", "plan.jsonl"]
        {
            let image = format!("state/import/a/{run}/{file}");
            assert_eq!(place("working_files", image), Some(("before_images", "a".to_owned())));
        }
        assert_eq!(
            place("working_files", format!("state/import/a/{run}/rejects-0-1")),
            Some(("rejects", "a".to_owned()))
        );
        for key in ["rejects/mine.csv".to_owned(), "rejects/a/mine.csv".to_owned(), format!("rejects/a/{run}.xlsx")] {
            assert_eq!(place("rejects", key.clone()), None, "{key}");
        }
        assert_eq!(place("working_files", format!("state/import/a/{run}/index-0-1")), None);
        let piece = format!("state/sync/a/{run}/refused-000001.jsonl");
        assert_eq!(place("working_files", piece), Some(("rejects", "sync-a".to_owned())));
        assert_eq!(place("working_files", format!("state/sync/a/{run}/counted")), None);
        assert_eq!(place("rejects", format!("rejects/sync-a/{run}.jsonl")), Some(("rejects", "sync-a".to_owned())));
        assert!(is_captured("dt=2026-11-22/a-b.000001.jsonl.zst") && is_captured("dt=2026-11-22/a-b.000001.parquet"));
        assert!(!is_captured("dt=2026-11-22/readme.txt") && !is_captured("a.jsonl"));
    }

    #[test]
    fn what_a_capture_remembers_loses_the_persons_ids_and_links_to_them() {
        let mut known = Known::default();
        known.recent.extend([(1, 10), (2, 10)]);
        known.archived.insert(1, Archived { at: 5, told: true });
        known.merged.insert(1);
        known.links.insert(1, vec![Link { to: 0, id: 9, type_id: 1 }]);
        known.links.insert(2, vec![Link { to: 0, id: 9, type_id: 1 }, Link { to: 1, id: 1, type_id: 1 }]);
        assert_eq!(forget(&mut known, &[1].into(), true, &[1]), 5);
        assert_eq!((known.recent.len(), known.archived.len(), known.merged.len()), (1, 0, 0));
        assert_eq!(
            known.links[&2],
            [Link { to: 0, id: 9, type_id: 1 }],
            "a company with the number of the contact stays"
        );
        assert_eq!(forget(&mut known, &[1].into(), true, &[1]), 0);
    }
}
