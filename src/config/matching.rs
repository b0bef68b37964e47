//! Which import an object belongs to.

use std::cmp::Reverse;

use super::{Config, Import, glob::Glob};
use crate::{Error, Result, codes};

/// Prefixes under which hubferry itself writes. A pattern reaches into them only by naming them, so that
/// `**/*.csv` does not import the rejects of its own runs.
const OWN_PREFIXES: [&str; 3] = ["rejects/", "reports/", "state/"];

/// The patterns of all imports, ready to be asked.
#[derive(Debug)]
pub struct Matcher {
    patterns: Vec<(Glob, Specificity)>,
}

/// How closely a pattern describes a key, the greater the closer: more characters that stand for themselves, then fewer
/// wildcards, then none that crosses folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Specificity {
    literals: usize,
    wildcards: Reverse<usize>,
    stays: bool,
}

impl Matcher {
    /// Prepares the patterns of `imports`, in their order. `CONFIG_INVALID` if one is no glob, which a loaded file cannot have.
    pub fn new(imports: &[Import]) -> Result<Self> {
        let patterns = imports.iter().map(|import| {
            let glob = compile(&import.pattern).map_err(|text| {
                Error::invalid(codes::CONFIG_INVALID, format!("import {}: match: {text}", import.name))
            })?;
            Ok((glob, specificity(&import.pattern)))
        });
        Ok(Self { patterns: patterns.collect::<Result<_>>()? })
    }

    /// The import for the object `key`: of those whose pattern matches, the one with the most specific pattern.
    /// `imports` are those of [`Self::new`]. `MATCH_AMBIGUOUS` names two that match equally well.
    pub fn find<'i>(&self, imports: &'i [Import], key: &str) -> Result<Option<&'i Import>> {
        let mut best: Option<(&Import, Specificity)> = None;
        let mut rival: Option<&Import> = None;
        for (import, (glob, specificity)) in imports.iter().zip(&self.patterns) {
            if !glob.is_match(key)
                || OWN_PREFIXES.iter().any(|own| key.starts_with(own) && !import.pattern.starts_with(own))
            {
                continue;
            }
            match &best {
                Some((_, other)) if other > specificity => {}
                Some((_, other)) if other == specificity => rival = Some(import),
                _ => {
                    best = Some((import, *specificity));
                    rival = None;
                }
            }
        }
        match (best, rival) {
            (Some((one, _)), Some(other)) => Err(Error::invalid(
                codes::MATCH_AMBIGUOUS,
                format!(
                    "{key} matches import {} ({}) and import {} ({}) equally well",
                    one.name, one.pattern, other.name, other.pattern
                ),
            )),
            (best, _) => Ok(best.map(|(import, _)| import)),
        }
    }
}

impl Config {
    /// The import for the object `key`, or none. Whoever asks often keeps a [`Matcher`].
    ///
    /// `MATCH_AMBIGUOUS` where two patterns match equally well.
    pub fn import_for(&self, key: &str) -> Result<Option<&Import>> {
        Matcher::new(&self.imports)?.find(&self.imports, key)
    }
}

/// The glob of a pattern, or what is wrong with it.
pub(super) fn compile(pattern: &str) -> Result<Glob, String> {
    if pattern.is_empty() {
        return Err("is blank".to_owned());
    }
    if pattern.starts_with("s3://") {
        return Err("the pattern is over the object's key alone; leave out s3:// and the bucket".to_owned());
    }
    if pattern.starts_with('/') {
        return Err("keys do not start with `/`; leave it out".to_owned());
    }
    if pattern.split('/').any(|part| part.contains("**") && part != "**") {
        return Err("`**` stands for whole folders: write it between slashes, as in incoming/**/*.csv".to_owned());
    }
    Glob::new(pattern).map_err(|text| format!("not a pattern: {text}"))
}

fn specificity(pattern: &str) -> Specificity {
    let (mut literals, mut wildcards) = (0, 0);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
                literals += 1;
            }
            '*' => {
                while chars.next_if_eq(&'*').is_some() {}
                wildcards += 1;
            }
            '?' => wildcards += 1,
            // A class or a choice is one wildcard, whatever is in it.
            '[' => {
                for inner in chars.by_ref() {
                    if inner == ']' {
                        break;
                    }
                }
                wildcards += 1;
            }
            '{' => {
                let mut depth = 1_usize;
                for inner in chars.by_ref() {
                    match inner {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
                wildcards += 1;
            }
            _ => literals += 1,
        }
    }
    Specificity { literals, wildcards: Reverse(wildcards), stays: !pattern.contains("**") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(patterns: &[&str]) -> Config {
        let imports = patterns.iter().enumerate().map(|(number, pattern)| {
            serde_json::json!({ "name": format!("n{number}"), "match": pattern, "object": "contacts", "key": "email" })
        });
        serde_json::from_value(serde_json::json!({ "version": 1, "imports": imports.collect::<Vec<_>>() })).unwrap()
    }

    #[track_caller]
    fn check(patterns: &[&str], key: &str, expected: Option<&str>) {
        let config = config(patterns);
        let found = config.import_for(key).unwrap().map(|import| import.pattern.as_str());
        assert_eq!(found, expected, "{key} among {patterns:?}");
    }

    #[test]
    fn the_most_specific_pattern_that_matches_wins() {
        check(&["incoming/contacts/*.csv"], "incoming/contacts/a.csv", Some("incoming/contacts/*.csv"));
        check(&["incoming/contacts/*.csv"], "incoming/contacts/old/a.csv", None);
        check(&["incoming/contacts/*.csv"], "other/incoming/contacts/a.csv", None);
        check(&["incoming/people/**"], "incoming/people/2026/11/a.csv", Some("incoming/people/**"));
        check(&["incoming/**/*.csv"], "incoming/a.csv", Some("incoming/**/*.csv"));
        check(&["incoming/opencdc/*.jsonl*"], "incoming/opencdc/x.jsonl.zst", Some("incoming/opencdc/*.jsonl*"));
        check(&["**", "incoming/**"], "incoming/a.csv", Some("incoming/**"));
        check(&["incoming/**", "incoming/*.csv"], "incoming/a.csv", Some("incoming/*.csv"));
        check(&["incoming/**/a.csv", "incoming/*/a.csv"], "incoming/x/a.csv", Some("incoming/*/a.csv"));
        check(&["in/[ab]*.csv", "in/*.csv"], "in/a1.csv", Some("in/*.csv"));
        check(&["in/a*.csv", "in/*.csv"], "in/a1.csv", Some("in/a*.csv"));
        check(&["in/\\*.csv", "in/*.csv"], "in/*.csv", Some("in/\\*.csv"));
        check(&["in/{x,y}/*.csv"], "in/y/a.csv", Some("in/{x,y}/*.csv"));
        check(&["in/*.csv"], "in/ÄÖ und mehr.csv", Some("in/*.csv"));
        check(&[], "in/a.csv", None);
    }

    #[test]
    fn two_patterns_that_match_equally_well_are_an_error_that_names_both_whatever_the_order() {
        for patterns in [["in/a*.csv", "in/*a.csv"], ["in/*a.csv", "in/a*.csv"]] {
            let error = config(&patterns).import_for("in/aa.csv").unwrap_err();
            assert_eq!(error.code(), codes::MATCH_AMBIGUOUS);
            assert!(patterns.iter().all(|pattern| error.message().contains(pattern)), "{error}");
        }
        // A third, closer one settles it.
        check(&["in/a*.csv", "in/*a.csv", "in/aa*.csv"], "in/aa.csv", Some("in/aa*.csv"));
    }

    #[test]
    fn what_hubferry_writes_itself_is_not_imported_unless_the_pattern_says_so() {
        for own in ["rejects/contacts/x.csv", "reports/import/contacts/x.csv", "state/index/x.csv"] {
            check(&["**", "**/*.csv", "*/*/*.csv", "r*/**"], own, None);
        }
        check(&["rejects/**/*.csv", "**"], "rejects/contacts/x.csv", Some("rejects/**/*.csv"));
        check(&["**"], "old/rejects/x.csv", Some("**"));
    }

    #[test]
    fn a_pattern_that_can_never_work_is_refused() {
        for pattern in ["", "/in/*.csv", "s3://bucket/in/*.csv", "in/[a.csv", "in/{a,b", "in/**.csv"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }
}
