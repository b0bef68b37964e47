//! Credentials of a command line: what the environment holds stands in for the secrets of its system, and for no others.

use std::{collections::BTreeSet, rc::Rc};

use async_trait::async_trait;
use hubferry::{
    Error, Result, codes,
    config::Config,
    secrets::{EnvironmentSecret, Redacted, Secrets},
};

/// It stands in for the secrets of HubSpot accounts: an access token.
pub(crate) const HUBSPOT_ACCESS_TOKEN: &str = "HUBSPOT_ACCESS_TOKEN";
/// It stands in for the secrets of Salesforce orgs: the JSON that a secret would hold.
pub(crate) const SALESFORCE_CREDENTIAL: &str = "SALESFORCE_CREDENTIAL";

/// Secrets from the environment, else from where they are kept.
pub(crate) struct Credentials {
    hubspot: Option<EnvironmentSecret>,
    salesforce: Option<Redacted>,
    /// Ids of the settings' secrets.
    of_hubspot: BTreeSet<String>,
    of_salesforce: BTreeSet<String>,
    /// Secrets Manager; with `--local` there is none.
    kept: Option<Rc<dyn Secrets>>,
}

/// What stands in for a secret.
enum StandIn<'c> {
    Hubspot(&'c EnvironmentSecret),
    Salesforce(&'c Redacted),
    Kept(&'c dyn Secrets),
}

impl Credentials {
    /// What the environment holds, and `kept` for the rest.
    pub(crate) fn new(config: &Config, kept: Option<Rc<dyn Secrets>>) -> Self {
        Self::of(variable(HUBSPOT_ACCESS_TOKEN), variable(SALESFORCE_CREDENTIAL), config, kept)
    }

    fn of(token: Option<String>, salesforce: Option<String>, config: &Config, kept: Option<Rc<dyn Secrets>>) -> Self {
        Self {
            hubspot: token.map(|token| EnvironmentSecret::new(&token)),
            salesforce: salesforce.map(Redacted::new),
            of_hubspot: config.hubspot.values().map(|account| account.secret.clone()).collect(),
            of_salesforce: config.salesforce.values().map(|org| org.secret.clone()).collect(),
            kept,
        }
    }

    fn stand_in(&self, id: &str) -> Result<StandIn<'_>> {
        let of = [
            (self.of_salesforce.contains(id), self.salesforce.as_ref().map(StandIn::Salesforce), SALESFORCE_CREDENTIAL),
            (self.of_hubspot.contains(id), self.hubspot.as_ref().map(StandIn::Hubspot), HUBSPOT_ACCESS_TOKEN),
        ];
        let found = of.into_iter().find(|(is_of, _, _)| *is_of);
        match (found, &self.kept) {
            (Some((_, Some(stand_in), _)), _) => Ok(stand_in),
            (_, Some(kept)) => Ok(StandIn::Kept(&**kept)),
            (Some((_, None, variable)), None) => {
                let message =
                    format!("the environment variable {variable} is not set, and with --local nothing else is asked");
                Err(Error::invalid(codes::SECRET_MISSING, message)
                    .with_hint(format!("Set {variable} to what the secret {id} would hold, or leave --local out.")))
            }
            (None, None) => {
                Err(Error::invalid(codes::SECRET_MISSING, format!("secret {id} is in AWS, which --local does not ask"))
                    .with_hint("Leave --local out."))
            }
        }
    }
}

/// A variable that is set and not blank.
pub(crate) fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name).and_then(|value| value.into_string().ok());
    value.filter(|value| !value.trim().is_empty())
}

#[async_trait(?Send)]
impl Secrets for Credentials {
    async fn get(&self, id: &str) -> Result<Redacted> {
        match self.stand_in(id)? {
            StandIn::Hubspot(secret) => secret.get(id).await,
            StandIn::Salesforce(value) => Ok(value.clone()),
            StandIn::Kept(kept) => kept.get(id).await,
        }
    }

    async fn put(&self, id: &str, value: &Redacted, token: &str) -> Result<()> {
        match self.stand_in(id)? {
            StandIn::Hubspot(secret) => secret.put(id, value, token).await,
            StandIn::Salesforce(_) => {
                let message = format!("secret {id} comes from {SALESFORCE_CREDENTIAL} and cannot be replaced");
                Err(Error::invalid(codes::SECRET_INVALID, message).with_hint(
                    "Use the flow client_credentials or jwt there; a refresh token that works once needs Secrets Manager.",
                ))
            }
            StandIn::Kept(kept) => kept.put(id, value, token).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use hubferry::{config::load, secrets::MemorySecrets};

    use super::*;

    fn config() -> Config {
        let text = "version: 1\nhubspot:\n  default: { secret: a }\nsalesforce:\n  default: { secret: b }\n";
        load::parse(text, "x").unwrap()
    }

    #[tokio::test]
    async fn each_variable_stands_in_for_the_secrets_of_its_own_system() {
        let credentials =
            Credentials::of(Some("pat".to_owned()), Some("{\"flow\":\"jwt\"}".to_owned()), &config(), None);
        assert_eq!(credentials.get("a").await.unwrap().expose(), "{\"access_token\":\"pat\"}");
        assert_eq!(credentials.get("b").await.unwrap().expose(), "{\"flow\":\"jwt\"}");
        assert!(credentials.put("b", &Redacted::new("x"), "t").await.is_err());
    }

    #[tokio::test]
    async fn what_the_environment_lacks_is_kept_elsewhere_or_asked_for_by_name() {
        let kept = MemorySecrets::new();
        kept.insert("b", "kept");
        let credentials = Credentials::of(Some("pat".to_owned()), None, &config(), Some(Rc::new(kept)));
        assert_eq!(credentials.get("b").await.unwrap().expose(), "kept");
        let credentials = Credentials::of(Some("pat".to_owned()), None, &config(), None);
        let error = credentials.get("b").await.unwrap_err();
        assert_eq!(error.code(), codes::SECRET_MISSING);
        assert!(error.message().contains(SALESFORCE_CREDENTIAL), "{error:?}");
        // A webhook's address is no token.
        assert_eq!(credentials.get("slack").await.unwrap_err().code(), codes::SECRET_MISSING);
    }
}
