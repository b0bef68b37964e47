//! What is in the buckets, the sample file, and how to use this cloud from elsewhere.

use std::fmt::Write as _;

use hubferry_simulator::aws::Service;

use super::{
    super::{
        BUCKET, CONFIG_KEY, QUEUE, TABLE,
        http::{Answer, Asked},
        settings::folder,
        stage::{SAMPLE_ROWS, Stage},
    },
    attachment, framed, missing, page_number, pager, time,
};
use crate::{
    demo::file::File,
    html::{Esc, url},
    local,
    text::grouped,
};

/// Objects on a page.
const PER_PAGE: usize = 50;

/// The objects of all buckets, by words in their keys.
pub(super) fn list(stage: &Stage, asked: &Asked) -> Answer {
    let words = asked.query("q").unwrap_or_default();
    let s3 = stage.cloud.s3();
    let mut all: Vec<(String, hubferry_simulator::aws::Listed)> = Vec::new();
    for bucket in s3.bucket_names() {
        let listed = s3.list_objects(&bucket, "").into_iter().map(|object| (bucket.clone(), object));
        all.extend(listed.filter(|(bucket, object)| {
            words.split_whitespace().all(|word| object.key.contains(word) || bucket.contains(word))
        }));
    }
    all.sort_by_key(|one| std::cmp::Reverse(one.1.modified));
    let page = page_number(asked);
    let mut html = String::new();
    let _ = write!(
        html,
        "<h1>Files</h1>\n<form method=\"get\" action=\"/files\" role=\"search\" class=\"row\"><label for=\"q\">Search</label> <input id=\"q\" \
         type=\"search\" name=\"q\" value=\"{}\" placeholder=\"words in the key\"> <button>Search</button></form>\n<p id=\"found\">{} objects</p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Objects\">\n<table>\n<thead><tr><th scope=\"col\">Object</th><th scope=\"col\" \
         class=\"n\">Bytes</th><th scope=\"col\">Since</th></tr></thead>\n<tbody>\n",
        Esc(words),
        grouped(all.len() as u64)
    );
    for (bucket, object) in all.iter().skip((page - 1).saturating_mul(PER_PAGE)).take(PER_PAGE) {
        let key: Vec<String> = object.key.split('/').map(url).collect();
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\"><a href=\"/files/{}/{}\">s3://{}/{}</a></th><td class=\"n\">{}</td><td>{}</td></tr>",
            url(bucket),
            key.join("/"),
            Esc(bucket),
            Esc(&object.key),
            grouped(object.size),
            time(object.modified)
        );
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    html.push_str(&pager(all.len(), page, PER_PAGE, &format!("/files?q={}&page=", url(words)), ["Newer", "Older"]));
    framed(stage, "Files", "/files", None, &html)
}

/// An object, to be kept: never shown here, whatever is in it.
pub(super) fn download(stage: &Stage, bucket: &str, key: &str) -> Answer {
    match stage.cloud.s3().read(bucket, key) {
        Some(bytes) => {
            attachment(Answer::new(200, "application/octet-stream", bytes), key.rsplit('/').next().unwrap_or("object"))
        }
        None => missing(stage, "There is no such object."),
    }
}

/// Contacts with the usual faults.
pub(super) fn sample(_stage: &Stage) -> Answer {
    attachment(Answer::new(200, "text/csv; charset=utf-8", File::generate(SAMPLE_ROWS, 1).bytes), "sample.csv")
}

/// Addresses, variables and the settings in force.
pub(super) fn settings(stage: &Stage) -> Answer {
    let settings = stage.settings();
    let addresses = stage.cloud.addresses();
    let mut html = String::from(
        "<h1>Settings</h1>\n<section aria-labelledby=\"endpoints\">\n<h2 id=\"endpoints\">Where things are</h2>\n<table>\n<tbody>\n",
    );
    let mut rows: Vec<(String, String)> = Vec::new();
    rows.extend(stage.accounts.iter().map(|account| (format!("HubSpot {}", account.name), account.url.clone())));
    rows.extend(stage.orgs.iter().map(|org| (format!("Salesforce {}", org.name), org.url.clone())));
    for (name, service) in [
        ("S3", Service::S3),
        ("DynamoDB", Service::DynamoDb),
        ("Secrets Manager", Service::SecretsManager),
        ("SQS", Service::Sqs),
    ] {
        rows.push((name.to_owned(), addresses.url(service)));
    }
    rows.push(("Lambda".to_owned(), local::invoke_url(&addresses)));
    rows.push(("Watched folder".to_owned(), stage.drop_folder.clone()));
    for (name, value) in rows {
        let _ = writeln!(html, "<tr><th scope=\"row\">{}</th><td><code>{}</code></td></tr>", Esc(&name), Esc(&value));
    }
    let variables = local::environment(&addresses, &format!("s3://{BUCKET}/{CONFIG_KEY}"), TABLE, QUEUE);
    let first = settings.config.imports.first().map(|import| folder(&import.pattern)).unwrap_or_default();
    let _ = write!(
        html,
        "</tbody>\n</table>\n</section>\n<section aria-labelledby=\"shell\">\n<h2 id=\"shell\">From a shell</h2>\n<p>These lines lead any AWS client, and \
         <code>hubferry</code> itself, here:</p>\n<pre tabindex=\"0\">{}</pre>\n<p>Then an upload wakes the function:</p>\n<pre tabindex=\"0\">aws s3 cp \
         FILE.csv s3://{BUCKET}/{first}\ncurl -T FILE.csv {}/{BUCKET}/{first}FILE.csv</pre>\n</section>\n",
        Esc(&local::exports(&variables)),
        addresses.url(Service::S3),
        first = Esc(first),
    );
    let _ = write!(
        html,
        "<section aria-labelledby=\"yaml\">\n<h2 id=\"yaml\">hubferry.yaml</h2>\n<p>As the function reads it; a file that was given is read again when it \
         changes.</p>\n<pre tabindex=\"0\">{}</pre>\n</section>\n",
        Esc(&settings.text)
    );
    framed(stage, "Settings", "/settings", None, &html)
}
