//! The variables of a Pandium run. Their spellings differ between the published samples; all of them are understood, with `-` as `_`.

use std::collections::BTreeMap;

use hubferry::secrets::Redacted;
use serde::Deserialize;

/// Where the samples keep a HubSpot credential: access tokens first, since those that are called keys may be left over.
const HUBSPOT: [&str; 8] = [
    "HUBSPOT_OAUTH_ACCESS_TOKEN",
    "HUBSPOT_ACCESS_TOKEN",
    "HUBSPOT_BASIC_ACCESS_TOKEN",
    "HUBSPOT_PRIVATE_APP_ACCESS_TOKEN",
    "HUBSPOT_BASIC_API_KEY",
    "HUBSPOT_API_KEY",
    "HUBSPOT_HAPIKEY",
    "HUBSPOT_BASIC_HAPIKEY",
];
const AWS_ID: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_ACCESS_TOKEN", "AWS_ACCESS_KEY"];
const AWS_SECRET: [&str; 3] = ["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_TOKEN", "AWS_SECRET_KEY"];
const REGION: [&str; 3] = ["S3_REGION", "S3_REGION_NAME", "AWS_REGION"];
/// As the samples that name no region take it.
const REGION_DEFAULT: &str = "us-east-1";

/// Why the run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The tenant has just connected: the file is imported whatever an earlier run said.
    Init,
    /// By schedule or by hand.
    Normal,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Normal => "normal",
        }
    }
}

/// AWS keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Redacted,
    pub(super) session: Option<Redacted>,
}

/// A column that has another name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Renamed {
    /// In the file.
    #[serde(rename = "in")]
    pub(super) from: String,
    /// One of the nine columns, or a property of contacts.
    #[serde(rename = "out")]
    pub(super) to: String,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Variables {
    pub(super) bucket: String,
    pub(super) file: String,
    pub(super) region: String,
    pub(super) make_contact: bool,
    pub(super) make_company: bool,
    pub(super) mapper: Vec<Renamed>,
    pub(super) aws_keys: Option<Keys>,
    pub(super) hubspot: Redacted,
    pub(super) mode: Mode,
    pub(super) last_stdout: Option<String>,
}

impl Variables {
    /// Those of the process. All that is wrong at once.
    pub(super) fn read() -> Result<Self, String> {
        Self::from_pairs(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    fn from_pairs(pairs: impl Iterator<Item = (String, String)>) -> Result<Self, String> {
        let all: BTreeMap<String, String> = pairs
            .map(|(name, value)| (name.to_uppercase().replace('-', "_"), value.trim().to_owned()))
            .filter(|(name, value)| name.starts_with("PAN_") && !value.is_empty())
            .collect();
        let first =
            |kind: &str, names: &[&str]| names.iter().find_map(|name| all.get(&format!("PAN_{kind}_{name}")).cloned());
        let mut wrong: Vec<String> = Vec::new();
        let mut required = |kind: &str, names: &[&str]| {
            first(kind, names).unwrap_or_else(|| {
                wrong.push(format!("PAN_{kind}_{} is not set", names.first().unwrap_or(&"")));
                String::new()
            })
        };
        let bucket = required("CFG", &["S3_BUCKET_NAME"]);
        let file = required("CFG", &["S3_FILE_NAME"]).trim_start_matches('/').to_owned();
        let hubspot = Redacted::new(required("SEC", &HUBSPOT));
        let mut switch = |name: &str| match first("CFG", &[name]).map(|value| value.to_lowercase()).as_deref() {
            Some("true" | "t" | "1" | "yes" | "y" | "on") => true,
            None | Some("false" | "f" | "0" | "no" | "n" | "off" | "none" | "null") => false,
            Some(_) => {
                wrong.push(format!("PAN_CFG_{name} is neither true nor false"));
                false
            }
        };
        let (make_contact, make_company) = (switch("MAKE_CONTACT"), switch("MAKE_COMPANY"));
        let mapper = first("CFG", &["CSV_MAPPER_NAME"]).unwrap_or_else(|| "[]".to_owned());
        let mapper = serde_json::from_str(&mapper).unwrap_or_else(|_| {
            wrong
                .push("PAN_CFG_CSV_MAPPER_NAME is not of the form [{\"in\":\"COLUMN\",\"out\":\"COLUMN\"}]".to_owned());
            Vec::new()
        });
        let aws_keys = match (first("SEC", &AWS_ID), first("SEC", &AWS_SECRET)) {
            (Some(id), Some(secret)) => {
                let session = first("SEC", &["AWS_SESSION_TOKEN"]).map(Redacted::new);
                Some(Keys { id, secret: Redacted::new(secret), session })
            }
            // The machine's own, then.
            (None, None) => None,
            (id, _) => {
                let lacking = if id.is_some() { AWS_SECRET } else { AWS_ID };
                wrong.push(format!("PAN_SEC_{} is not set", lacking.first().unwrap_or(&"")));
                None
            }
        };
        let mode = match first("CTX", &["RUN_MODE"]).map(|mode| mode.to_lowercase()).as_deref() {
            None | Some("normal") => Mode::Normal,
            Some("init") => Mode::Init,
            Some(_) => {
                wrong.push("PAN_CTX_RUN_MODE is neither init nor normal".to_owned());
                Mode::Normal
            }
        };
        let last_stdout = first("CTX", &["LAST_SUCCESSFUL_RUN_STD_OUT"]);
        if !wrong.is_empty() {
            return Err(format!("The variables of the run are not complete:\n  {}", wrong.join("\n  ")));
        }
        let region = first("CFG", &REGION).unwrap_or_else(|| REGION_DEFAULT.to_owned());
        Ok(Self { bucket, file, region, make_contact, make_company, mapper, aws_keys, hubspot, mode, last_stdout })
    }

    /// Whether the HubSpot credential is an API key of the old kind, a bare UUID.
    pub(super) fn is_retired_key(&self) -> bool {
        let groups: Vec<&str> = self.hubspot.expose().split('-').collect();
        groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
            && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: [(&str, &str); 3] = [
        ("PAN_CFG_S3_BUCKET_NAME", "b"),
        ("PAN_CFG_S3_FILE_NAME", "/in/a.csv"),
        ("PAN_SEC_HUBSPOT_ACCESS_TOKEN", "pat-1\n"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<Variables, String> {
        let all = LEAST.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Variables::from_pairs(all)
    }

    #[test]
    fn every_spelling_of_the_samples_is_understood() {
        for name in [
            "HUBSPOT_HAPIKEY",
            "HUBSPOT_OAUTH_ACCESS_TOKEN",
            "HUBSPOT-BASIC_API_KEY",
            "HUBSPOT_BASIC_API_KEY",
            "HUBSPOT_API_KEY",
            "HUBSPOT-BASIC_ACCESS_TOKEN",
        ] {
            let name = format!("PAN_SEC_{name}");
            let pairs =
                [LEAST[0], LEAST[1], (&*name, "secret")].map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(Variables::from_pairs(pairs.into_iter()).unwrap().hubspot.expose(), "secret", "{name}");
        }
        for (id, secret) in
            [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_ACCESS_TOKEN", "AWS_SECRET_ACCESS_TOKEN")]
        {
            let keys = read(&[(&format!("PAN_SEC_{id}"), "i"), (&format!("PAN_SEC_{secret}"), "s")])
                .unwrap()
                .aws_keys
                .unwrap();
            assert_eq!((&*keys.id, keys.secret.expose()), ("i", "s"));
        }
        for name in ["PAN_CFG_S3_REGION", "PAN_CFG_S3_REGION_NAME", "PAN-CFG_S3_REGION_NAME"] {
            assert_eq!(read(&[(name, "eu-west-1")]).unwrap().region, "eu-west-1", "{name}");
        }
        let least = read(&[("PAN_SEC_HUBSPOT_API_KEY", "old")]).unwrap();
        assert_eq!(
            (least.hubspot.expose(), &*least.file, &*least.region),
            ("pat-1", "in/a.csv", "us-east-1"),
            "a token goes before a key"
        );
    }

    #[test]
    fn switches_are_read_as_people_write_them_and_everything_wrong_is_told_at_once_without_values() {
        for (value, expected) in
            [("True", true), ("1", true), ("yes", true), ("ON", true), ("False", false), ("0", false), ("", false)]
        {
            assert_eq!(read(&[("PAN_CFG_MAKE_CONTACT", value)]).unwrap().make_contact, expected, "{value}");
        }
        let wrong = read(&[
            ("PAN_CFG_MAKE_COMPANY", "perhaps"),
            ("PAN_CFG_CSV_MAPPER_NAME", "{secret"),
            ("PAN_SEC_AWS_ACCESS_KEY_ID", "AKIA-secret"),
            ("PAN_CTX_RUN_MODE", "other"),
        ]);
        let wrong = wrong.unwrap_err();
        for part in ["MAKE_COMPANY", "CSV_MAPPER_NAME", "AWS_SECRET_ACCESS_KEY", "RUN_MODE"] {
            assert!(wrong.contains(part), "{wrong}");
        }
        assert!(!wrong.contains("secret,") && !wrong.contains("AKIA") && !wrong.contains("perhaps"), "{wrong}");
        let nothing = Variables::from_pairs(std::iter::empty()).unwrap_err();
        assert!(
            nothing.contains("S3_BUCKET_NAME")
                && nothing.contains("S3_FILE_NAME")
                && nothing.contains("HUBSPOT_OAUTH_ACCESS_TOKEN"),
            "{nothing}"
        );
    }

    #[test]
    fn the_form_and_the_code_know_the_same_settings() {
        let form = include_str!("../../../PANDIUM.yaml");
        for name in ["s3_bucket_name", "s3_file_name", "s3_region", "make_contact", "make_company", "csv_mapper_name"] {
            assert!(
                form.contains(&format!("      {name}:\n")) && form.contains(&format!("'#/properties/{name}'")),
                "{name}"
            );
        }
        assert_eq!(form.matches("'#/properties/").count(), 6, "no field that nobody reads");
    }
}
