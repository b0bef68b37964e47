//! `hubferry explain CODE`: the page of an error code, from inside the binary, so that it is at hand where the code was met.

use std::io::Write;

use anyhow::Result;
use hubferry::{Error, codes};
use serde_json::json;

use crate::text;

/// Code and page, by code.
static PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Names suggested for a code that does not exist.
const SUGGESTIONS_MAX: usize = 3;
/// Below this likeness (0 to 1) a name is no suggestion.
const LIKENESS_MIN: f64 = 0.75;

/// Prints the page of `code`, in any case, with `-` or `_`; without a code the list of all.
///
/// # Errors
/// There is no such code; the text names those that are spelt alike.
pub(crate) fn run(code: Option<&str>, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let Some(code) = code else {
        if as_json {
            let codes: Vec<_> = PAGES.iter().map(|(code, _)| *code).collect();
            writeln!(out, "{}", json!({ "codes": codes }))?;
        } else {
            for (code, page) in PAGES {
                writeln!(out, "{code}\n    {}", first_sentence(page))?;
            }
        }
        return Ok(());
    };
    let wanted = code.trim().to_uppercase().replace('-', "_");
    let Some((code, page)) = PAGES.iter().find(|(name, _)| *name == wanted) else {
        let error = anyhow::Error::from(
            Error::invalid(codes::NAME_UNKNOWN, unknown(&wanted))
                .with_hint("`hubferry explain` without a code lists them all."),
        );
        if as_json {
            text::json_error(&error)?;
        }
        return Err(error);
    };
    if as_json {
        let hint = hubferry::codes::Code::named(code).map(|code| code.hint());
        writeln!(out, "{}", json!({ "code": code, "hint": hint, "page": page }))?;
    } else {
        writeln!(out, "{}", page.trim_end())?;
    }
    Ok(())
}

/// The page of a code, as it is in `docs/errors`.
pub(crate) fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(name, _)| *name == code).map(|(_, page)| *page)
}

fn first_sentence(page: &str) -> &str {
    page.lines().skip(1).map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

fn unknown(wanted: &str) -> String {
    let mut near: Vec<(f64, &str)> = PAGES
        .iter()
        .map(|(name, _)| (strsim::jaro_winkler(wanted, name), *name))
        .filter(|(likeness, name)| *likeness >= LIKENESS_MIN || (wanted.len() > 3 && name.contains(wanted)))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<&str> = near.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect();
    let advice = match near.as_slice() {
        [] => "; `hubferry explain` lists them all".to_owned(),
        names => format!("; did you mean {}?", names.join(", ")),
    };
    format!("there is no error code {wanted}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(code: Option<&str>) -> Result<String> {
        let mut out = Vec::new();
        run(code, false, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_code_of_the_library_has_its_page_in_the_binary() {
        for code in hubferry::codes::ALL {
            assert!(explain(Some(code.as_str())).unwrap().contains("## What to do"), "{code}");
        }
    }

    #[test]
    fn a_code_is_found_however_it_is_typed_and_a_near_miss_gets_suggestions() {
        assert!(explain(Some(" invalid-email ")).unwrap().starts_with("# INVALID_EMAIL"));
        let error = explain(Some("INVALD_EMAIL")).unwrap_err().to_string();
        assert!(error.contains("did you mean INVALID_EMAIL"), "{error}");
        let error = explain(Some("xyzzy")).unwrap_err().to_string();
        assert!(error.contains("lists them all"), "{error}");
        assert!(explain(None).unwrap().contains("KEY_BLANK\n    "));
    }
}
