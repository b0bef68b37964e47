//! The simulated places as the page speaks of them, and what can be made to go wrong in them.

use std::time::Duration;

use hubferry_simulator::{
    aws::{self, Service, When},
    hubspot, salesforce,
};

use super::super::stage::Stage;

/// What a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    HubSpot,
    Salesforce,
    Aws,
}

impl Kind {
    /// In addresses.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::HubSpot => "hubspot",
            Self::Salesforce => "salesforce",
            Self::Aws => "aws",
        }
    }

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HubSpot => "HubSpot",
            Self::Salesforce => "Salesforce",
            Self::Aws => "AWS",
        }
    }
}

/// A place with an address of its own.
pub(super) struct Place {
    pub(super) kind: Kind,
    /// `hubspot/default`.
    pub(super) id: String,
    pub(super) name: String,
}

/// All of them.
pub(super) fn all(stage: &Stage) -> Vec<Place> {
    let place = |kind: Kind, name: &str| Place {
        kind,
        id: format!("{}/{name}", kind.path()),
        name: format!("{} {name}", kind.name()),
    };
    let hubspot = stage.accounts.iter().map(|account| place(Kind::HubSpot, &account.name));
    let salesforce = stage.orgs.iter().map(|org| place(Kind::Salesforce, &org.name));
    let aws = Place { kind: Kind::Aws, id: "aws".to_owned(), name: "S3 and DynamoDB".to_owned() };
    hubspot.chain(salesforce).chain([aws]).collect()
}

/// What can go wrong there: its name in forms, what the button says, and what it does.
pub(super) fn troubles(kind: Kind) -> &'static [(&'static str, &'static str, &'static str)] {
    match kind {
        Kind::HubSpot => &[
            ("storm", "429 storm", "The next 30 calls are answered 429"),
            ("errors", "5xx", "The next 15 calls are answered 502, with a page of HTML"),
            ("lost", "Lost answers", "The next 5 calls are carried out, and their answers get lost"),
            ("slow", "Slow", "The next 40 calls take 2 seconds longer"),
            ("mixed", "A bit of everything", "5 % of all calls fail in one of 14 ways, until it is stopped"),
        ],
        Kind::Salesforce => &[
            ("storm", "Limit reached", "The next 5 calls are refused because of requests side by side"),
            ("errors", "5xx", "The next 10 calls are answered 503"),
            ("lost", "Lost answers", "The next 3 calls are carried out, and their answers get lost"),
            ("slow", "Slow", "The next 20 calls take 2 seconds longer"),
            ("mixed", "A bit of everything", "5 % of all calls fail in one of 12 ways, until it is stopped"),
        ],
        Kind::Aws => &[
            ("storm", "S3 SlowDown", "The next 5 requests to S3 are answered 503"),
            ("errors", "DynamoDB 500", "The next 5 requests to DynamoDB are answered 500"),
            ("lost", "Lost answers", "The next 2 requests to DynamoDB are carried out, and their answers get lost"),
            ("slow", "Slow S3", "Requests to S3 take a second longer, for 20 seconds"),
        ],
    }
}

/// Makes it go wrong; what was done, in words. `None` for what nobody offers.
pub(super) fn inject(stage: &Stage, place: &str, what: &str) -> Option<String> {
    let (kind, name) = place.split_once('/').unwrap_or((place, ""));
    let explained = |kind: Kind| {
        let found = troubles(kind).iter().find(|(own, ..)| *own == what).map(|(_, _, explained)| *explained);
        let text = if what == "clear" { Some("nothing goes wrong any more") } else { found };
        let whose = if name.is_empty() { kind.name().to_owned() } else { format!("{} {name}", kind.name()) };
        text.map(|text| format!("{whose}: {text}."))
    };
    match kind {
        "hubspot" => {
            use hubspot::{Fault, Faults, What};
            let mut portal = stage.account(name)?.lock();
            match what {
                "storm" => portal.add_fault(Fault::always(What::BurstLimit).times(30)),
                "errors" => portal.add_fault(Fault::always(What::Html(502)).times(15)),
                "lost" => portal.add_fault(Fault::always(What::ResetAfter).times(5)),
                "slow" => portal.add_fault(Fault::always(What::Slow(2_000)).times(40)),
                "mixed" => {
                    // Twice would be ten percent.
                    portal.clear_faults();
                    Faults::five_percent(0).into_iter().for_each(|fault| portal.add_fault(fault));
                }
                "clear" => portal.clear_faults(),
                _ => return None,
            }
            explained(Kind::HubSpot)
        }
        "salesforce" => {
            use salesforce::{Fault, What, five_percent};
            let mut org = stage.org(name)?.lock();
            match what {
                "storm" => org.add_fault(Fault::always(What::ConcurrentLimit).times(5)),
                "errors" => org.add_fault(Fault::always(What::ServerUnavailable).times(10)),
                "lost" => org.add_fault(Fault::always(What::ResetAfter).times(3)),
                "slow" => org.add_fault(Fault::always(What::Slow(2_000)).times(20)),
                "mixed" => {
                    org.clear_faults();
                    five_percent(0).into_iter().for_each(|fault| org.add_fault(fault));
                }
                "clear" => org.clear_faults(),
                _ => return None,
            }
            explained(Kind::Salesforce)
        }
        "aws" => {
            use aws::Fault;
            let faults = stage.cloud.faults();
            match what {
                "storm" => faults.inject(Service::S3, Fault::slow_down(), When::Next(5)),
                "errors" => faults.inject(Service::DynamoDb, Fault::internal_server_error(), When::Next(5)),
                "lost" => faults.inject(Service::DynamoDb, Fault::LoseAnswer, When::Next(2)),
                "slow" => {
                    let slow = Fault::Slow { by: Duration::from_secs(1) };
                    faults.inject(Service::S3, slow, When::For(Duration::from_secs(20)));
                }
                "clear" => faults.clear(),
                _ => return None,
            }
            explained(Kind::Aws)
        }
        _ => None,
    }
}
