//! What forms do. Each brings the token, does one thing, says so, and leads to a page that shows it.

use std::collections::BTreeMap;

use hubferry::{
    objects::Location,
    sync::model::{Choice, Side},
};
use serde_json::json;

use super::{
    super::{
        BUCKET, forms,
        http::{Answer, Asked},
        review,
        settings::folder,
        stage::{Stage, now},
    },
    places,
    places::Kind,
    records::address,
    rejects::{Rejects, corrected_key},
};
use crate::html::url;

type Done = Result<Answer, Answer>;

/// Does it.
pub(super) fn post(stage: &Stage, asked: &Asked, path: &[&str]) -> Answer {
    let done = match path {
        ["upload"] => upload(stage, asked),
        ["jobs"] => job(stage, asked),
        ["trouble"] => trouble(stage, asked),
        ["runs", run, "corrected"] => corrected(stage, asked, run),
        ["review", id] => decide(stage, asked, id),
        ["hubspot", account, object, id, what @ ("edit" | "bin")] => hubspot(stage, asked, [account, object, id, what]),
        ["salesforce", org, object, id, what @ ("edit" | "bin")] => salesforce(stage, asked, [org, object, id, what]),
        _ => Err(Answer::text(404, "There is no such form.\n")),
    };
    done.unwrap_or_else(|refused| refused)
}

fn refuse(status: u16, text: impl Into<String>) -> Answer {
    Answer::text(status, text.into() + "\n")
}

/// A file for an import.
fn upload(stage: &Stage, asked: &Asked) -> Done {
    let parts = forms::parts(asked, &stage.token)?;
    let text = |name: &str| {
        let part = parts.iter().find(|part| part.name == name);
        part.and_then(|part| std::str::from_utf8(&part.bytes).ok()).unwrap_or_default()
    };
    let settings = stage.settings();
    let import = settings.config.imports.iter().find(|import| import.name == text("import"));
    let import = import.ok_or_else(|| refuse(400, "There is no such import."))?;
    let file = parts.iter().find(|part| part.name == "file").ok_or_else(|| refuse(400, "No file was chosen."))?;
    let name =
        file.file_name.as_deref().and_then(forms::file_name).ok_or_else(|| refuse(400, "No file was chosen."))?;
    let key = format!("{}{name}", folder(&import.pattern));
    match settings.config.import_for(&key) {
        Ok(Some(found)) if found.name == import.name => {}
        Ok(Some(other)) => {
            return Err(refuse(409, format!("{key} would be taken by the import {} ({}).", other.name, other.pattern)));
        }
        Ok(None) => {
            return Err(refuse(
                409,
                format!("{key} does not match the import's pattern {}: give the file another name.", import.pattern),
            ));
        }
        Err(error) => return Err(refuse(409, error.to_string())),
    }
    put(stage, BUCKET, &key, file.bytes.to_vec())?;
    Ok(Answer::see("/"))
}

fn put(stage: &Stage, bucket: &str, key: &str, bytes: Vec<u8>) -> Result<(), Answer> {
    let size = bytes.len();
    stage.cloud.s3().put(bucket, key, bytes).ok_or_else(|| refuse(500, "The file could not be stored."))?;
    stage.notice(format!("{key} arrived, {size} bytes."));
    Ok(())
}

/// Wakes the function.
fn job(stage: &Stage, asked: &Asked) -> Done {
    let fields = forms::fields(asked, &stage.token)?;
    let job = forms::field(&fields, "job");
    if !["capture", "sync", "resume"].contains(&job) {
        return Err(refuse(400, "There is no such job."));
    }
    if !stage.ask(json!({ "job": job })) {
        return Err(refuse(429, "The function was asked for much already: wait until some of it is done."));
    }
    let back = forms::field(&fields, "back");
    Ok(Answer::see(if back == "/review" { back } else { "/" }))
}

/// Makes something go wrong.
fn trouble(stage: &Stage, asked: &Asked) -> Done {
    let fields = forms::fields(asked, &stage.token)?;
    let done = places::inject(stage, forms::field(&fields, "place"), forms::field(&fields, "what"));
    stage.notice(done.ok_or_else(|| refuse(400, "There is no such trouble."))?);
    Ok(Answer::see("/#trouble-title"))
}

/// Rejects, corrected, as a new file beside the old one.
fn corrected(stage: &Stage, asked: &Asked, run: &str) -> Done {
    let fields = forms::fields(asked, &stage.token)?;
    let (report, _) = stage.report(run).ok_or_else(|| refuse(404, "There is no such run."))?;
    let rejects =
        Rejects::of(stage, &report).ok_or_else(|| refuse(404, "The run has no rejects that can be corrected here."))?;
    let source = Location::parse(&report.source.uri).ok_or_else(|| refuse(404, "The run's source is no object."))?;
    let mut changes = BTreeMap::new();
    for (name, value) in &fields {
        let place = name.strip_prefix('r').and_then(|rest| rest.split_once('c'));
        if let Some((Ok(row), Ok(column))) = place.map(|(row, column)| (row.parse::<usize>(), column.parse::<usize>()))
        {
            // Browsers send line breaks of areas as CR LF.
            changes.insert((row, column), value.replace("\r\n", "\n"));
        }
    }
    let page = forms::field(&fields, "page").parse().unwrap_or(1).max(1);
    let bytes = rejects.corrected(page, &changes).ok_or_else(|| refuse(500, "The rows could not be written."))?;
    put(stage, &source.bucket, &corrected_key(&source.key), bytes)?;
    Ok(Answer::see("/"))
}

/// Decides about something in the review queue.
fn decide(stage: &Stage, asked: &Asked, id: &str) -> Done {
    let fields = forms::fields(asked, &stage.token)?;
    let choice = match forms::field(&fields, "choose") {
        "salesforce" => Choice::Side(Side::Salesforce),
        "hubspot" => Choice::Side(Side::Hubspot),
        "keep" => Choice::Keep,
        "value" => Choice::Value(forms::field(&fields, "value").to_owned()),
        other => match other.strip_prefix("value:") {
            Some(record) => Choice::Value(record.to_owned()),
            None => return Err(refuse(400, "There is no such choice.")),
        },
    };
    let shown = forms::field(&fields, "shown");
    let done = review::resolve(stage, id, shown, choice).map_err(|text| refuse(429, text))?;
    Ok(Answer::see("/review").after(done))
}

/// Edits a record of an account, archives it or takes it back.
fn hubspot(stage: &Stage, asked: &Asked, [account, object, id, what]: [&str; 4]) -> Done {
    let fields = forms::fields(asked, &stage.token)?;
    let place = stage.account(account).ok_or_else(|| refuse(404, "There is no such account."))?;
    let (name, value) = (forms::field(&fields, "name"), forms::field(&fields, "value"));
    let done = match what {
        "edit" => {
            let known = place.lock().has_property(object, name);
            known && place.lock().edit(now(), object, id, &[(name, value)])
        }
        _ => place.lock().set_archived(now(), object, id, forms::field(&fields, "archived") == "true"),
    };
    stage.edited();
    stage.notice(match (done, what) {
        (true, "edit") => format!("{object} {id}: {name} was changed."),
        (true, _) => format!("{object} {id}: moved."),
        (false, _) => format!("{object} {id}: this cannot be done."),
    });
    Ok(Answer::see(&format!("{}/{}/{}", address(Kind::HubSpot, account), url(object), url(id))))
}

/// Edits a record of an org, deletes it or takes it back.
fn salesforce(stage: &Stage, asked: &Asked, [org, object, id, what]: [&str; 4]) -> Done {
    let fields = forms::fields(asked, &stage.token)?;
    let place = stage.org(org).ok_or_else(|| refuse(404, "There is no such org."))?;
    let (name, value) = (forms::field(&fields, "name"), forms::field(&fields, "value"));
    let mut state = place.lock();
    let told = match (what, forms::field(&fields, "archived")) {
        ("edit", _) => state.edit(now(), object, id, &[(name, value)]).map(|()| format!("{name} was changed")),
        (_, "true") if state.delete(now(), object, id) => Ok("moved to the recycle bin".to_owned()),
        (_, "false") if state.undelete(now(), object, id) => Ok("taken out of the recycle bin".to_owned()),
        _ => Err("this cannot be done".to_owned()),
    };
    drop(state);
    stage.edited();
    stage.notice(format!("{object} {id}: {}.", told.unwrap_or_else(|refused| refused)));
    Ok(Answer::see(&format!("{}/{}/{}", address(Kind::Salesforce, org), url(object), url(id))))
}
