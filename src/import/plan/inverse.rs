//! From before-images to the plan of an undo.
//!
//! Images are read from the last to the first, so that of a record that was changed several times the last change is taken back first, and
//! that of a batch which was sent again after a kill the image from before the run is the last word. The plan is written once, beside the images, and
//! is the same whenever it is made: undoing a run twice is applying one plan twice.

use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::{
    format::{Act, Field, Header, Line, Of, PlanAssociation, PlanRecord, PlanSource, Tie, Totals, VERSION},
    replay::CLOCK_SLACK,
};
use crate::{
    app::App,
    clock::Deadline,
    codes,
    error::{Error, ErrorKind, Result},
    objects::Location,
    record::{ObjectType, PropertyName},
    state::runs::Run,
};

/// How names of images of pairs end.
const PAIRS_END: &str = "-pairs.jsonl";

/// Images fetched at once.
const READ_AHEAD: usize = 8;

/// The plan of undoing a run, made if it is not there.
///
/// Errors: `NAME_UNKNOWN` if there is no such run, `RUN_OPEN` if it is not at its end, `NO_BEFORE_IMAGES`.
pub(super) async fn plan_of(app: &App, run: &Run, account: &str, keep_created: bool) -> Result<Location> {
    let env = app.env();
    if run.outcome.is_none() {
        let message = format!("run {} is not at its end", run.run_id);
        return Err(Error::invalid(codes::RUN_OPEN, message));
    }
    let folder = Location::new(&run.source.bucket, format!("state/import/{}/{}/", run.name, run.run_id));
    let name = if keep_created { "undo-keep-created.jsonl" } else { "undo.jsonl" };
    let target = Location::new(&folder.bucket, format!("{}{name}", folder.key));
    match env.objects.head(&target, None).await {
        Ok(_) => return Ok(target),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let prefix = Location::new(&folder.bucket, format!("{}before-", folder.key));
    let mut images = env.objects.list(&prefix).await?;
    if images.is_empty() {
        let message = format!("run {} of `{}` has no before-images under {prefix}*", run.run_id, run.name);
        return Err(Error::invalid(codes::NO_BEFORE_IMAGES, message));
    }
    // Names sort as the images were taken.
    images.sort_by(|a, b| b.key.cmp(&a.key));
    let account_client = app.account(account)?;
    let portal_id = account_client.details(Deadline::NONE).await?.portal_id;
    let ended = run.report.as_ref().map_or(run.started_at, |report| report.finished_at);
    let notes = match (keep_created, images.iter().any(|image| image.key.ends_with(PAIRS_END))) {
        (true, true) => vec!["associations that the run made are kept too (--keep-created)".to_owned()],
        (false, true) => Vec::new(),
        // Of a run that made none, or of an earlier version of hubferry.
        (_, false) => vec!["the run wrote down no association that it made: any stays as it is".to_owned()],
    };
    let header = Header {
        version: VERSION,
        of: Of::Undo,
        import: run.name.clone(),
        account: account.to_owned(),
        portal_id,
        mode: None,
        source: PlanSource { uri: folder.to_string(), run_id: Some(run.run_id.clone()), ..PlanSource::default() },
        made_at: None,
        records: Vec::new(),
        create_properties: Vec::new(),
        until: Some(account_client.at_hubspot(ended).saturating_add(CLOCK_SLACK).unwrap_or(ended)),
        notes,
    };
    let mut upload = env.objects.upload(&target, "application/x-ndjson").await?;
    upload.write(Line::Plan(Box::new(header)).text()?.as_bytes()).await?;
    let mut totals = Totals::default();
    let reads = images.iter().map(|image| async move { (image, env.objects.get(image).await) });
    let mut reads = std::pin::pin!(stream::iter(reads).buffered(READ_AHEAD));
    while let Some((image, bytes)) = reads.next().await {
        let Some((bytes, _)) = bytes? else { continue };
        let mut text = String::new();
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        for line in lines.into_iter().rev() {
            let value: Value = serde_json::from_slice(line).map_err(|_| damaged(image))?;
            totals.rows += 1;
            if value.get("pair").is_some() {
                let pair = inverse_pair(&value).ok_or_else(|| damaged(image))?;
                // What was kept is still associated.
                if keep_created {
                    totals.unchanged += 1;
                    continue;
                }
                match pair.tie {
                    Tie::Associate => totals.associations += 1,
                    Tie::Part | Tie::Unlabel => totals.parted += 1,
                }
                text.push_str(&Line::Associate(Box::new(pair)).text()?);
                continue;
            }
            let record = inverse(&value, keep_created).ok_or_else(|| damaged(image))?;
            match record.act {
                Act::Update => totals.update += 1,
                Act::Archive => totals.archive += 1,
                Act::Restore => totals.restore += 1,
                Act::Create | Act::Unchanged => totals.unchanged += 1,
            }
            text.push_str(&Line::Record(Box::new(record)).text()?);
        }
        upload.write(text.as_bytes()).await?;
    }
    upload.write(Line::Totals(Box::new(totals)).text()?.as_bytes()).await?;
    upload.finish().await?;
    Ok(target)
}

fn damaged(image: &Location) -> Error {
    Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, format!("{image}: a before-image cannot be read"))
}

/// What takes back what was done with a pair. `None` if it is no image of one.
fn inverse_pair(image: &Value) -> Option<PlanAssociation> {
    let pair = image.get("pair")?;
    let text = |name: &str| pair.get(name).and_then(Value::as_str).map(str::to_owned);
    let tie = match image.get("was")?.as_str()? {
        "apart" => Tie::Part,
        "unlabelled" => Tie::Unlabel,
        "associated" | "labelled" => Tie::Associate,
        _ => return None,
    };
    Some(PlanAssociation {
        tie,
        from: text("from")?,
        to: text("to")?,
        label: text("label"),
        from_id: Some(text("from_id")?),
        to_id: Some(text("to_id")?),
        back_to: text("moved_from"),
        ..PlanAssociation::default()
    })
}

/// What takes an image's change back. `None` if it is no image.
fn inverse(image: &Value, keep_created: bool) -> Option<PlanRecord> {
    let text = |name: &str| image.get(name).and_then(Value::as_str).map(str::to_owned);
    let values = |name: &str| image.get(name).and_then(Value::as_object);
    let value = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let mut record = PlanRecord {
        object: ObjectType(text("object")?),
        key: text("key").unwrap_or_default(),
        id: text("id").filter(|id| !id.is_empty()),
        by: None,
        act: Act::Unchanged,
        fields: Vec::new(),
        why: None,
        lines: Vec::new(),
    };
    if !image.get("existed")?.as_bool()? {
        let made =
            |(name, after): (&String, &Value)| -> Field { (PropertyName::from(name.as_str()), None, value(after)) };
        record.fields = values("after")?.iter().map(made).filter(|(_, _, value)| value.is_some()).collect();
        record.by = text("key_property");
        (record.act, record.why) = match keep_created {
            false => (Act::Archive, None),
            true => (Act::Unchanged, Some("made by the run, and kept (--keep-created)".to_owned())),
        };
        return Some(record);
    }
    if image.get("archives").and_then(Value::as_bool).unwrap_or_default() {
        record.act = Act::Restore;
        return Some(record);
    }
    let (before, after) = (values("before")?, values("after")?);
    for (name, after) in after {
        let (was, is) = (before.get(name).and_then(value), value(after));
        if was != is {
            record.fields.push((PropertyName::from(name.as_str()), is, was));
        }
    }
    if record.fields.is_empty() {
        record.why = Some("the run did not change it".to_owned());
    } else {
        record.act = Act::Update;
    }
    Some(record)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_is_taken_back() {
        let changed = json!({"object": "contacts", "existed": true, "id": "1", "key": "a@x.io", "archives": false,
                             "before": {"a": "1", "b": null, "c": "3"}, "after": {"a": "1", "b": "2", "c": ""}});
        let record = inverse(&changed, false).unwrap();
        let fields: Vec<_> =
            record.fields.iter().map(|(name, old, new)| (&**name, old.as_deref(), new.as_deref())).collect();
        assert_eq!((record.act, fields), (Act::Update, vec![("b", Some("2"), None), ("c", None, Some("3"))]));
        let made = json!({"object": "contacts", "existed": false, "key": "a@x.io", "key_property": "email", "after": {"email": "a@x.io", "b": ""}});
        let record = inverse(&made, false).unwrap();
        assert_eq!((record.act, record.by.as_deref(), record.fields.len()), (Act::Archive, Some("email"), 1));
        assert_eq!(inverse(&made, true).unwrap().act, Act::Unchanged);
        let gone = json!({"object": "contacts", "existed": true, "id": "1", "key": "a", "archives": true, "before": {}, "after": {}});
        assert_eq!(inverse(&gone, false).unwrap().act, Act::Restore);
        assert!(inverse(&json!({"object": "contacts"}), false).is_none());
        let pair = |was: &str| json!({"pair": {"from": "contacts", "to": "companies", "label": null, "from_id": "1", "to_id": "2"}, "was": was});
        let ties = ["apart", "unlabelled", "associated"].map(|was| inverse_pair(&pair(was)).unwrap().tie);
        assert_eq!(ties, [Tie::Part, Tie::Unlabel, Tie::Associate]);
        assert!(inverse_pair(&pair("something")).is_none());
    }
}
