//! Whole syncs in virtual time: a simulated portal and a simulated org, people at work in both, and what stands in each when the
//! syncs have run.

mod accounts;
mod bulk;
mod decisions;
mod deletes;
mod identity;
mod killed;
mod limits;
mod naive;
mod refusals;
mod rules;
mod survival;

use std::ops::{Deref, DerefMut};

use hubferry_simulation::sync::both;
pub(crate) use hubferry_simulation::sync::both::*;
use hubferry_simulator::{hubspot::PortalSettings, salesforce::OrgSettings};

/// The portal and the org of `simulation/`, to which tests add what only they need.
pub(crate) struct Both(both::Both);

impl Both {
    /// The people's sync with these pairs; `more` is appended to it.
    pub(crate) fn people(fields: &[&str], more: &str) -> Self {
        Self(both::Both::people(fields, more))
    }

    pub(crate) fn new(config: &str) -> Self {
        Self(both::Both::new(config))
    }

    pub(crate) fn with(config: &str, portal: PortalSettings, org: OrgSettings) -> Self {
        Self(both::Both::with(config, portal, org))
    }
}

impl Deref for Both {
    type Target = both::Both;

    fn deref(&self) -> &both::Both {
        &self.0
    }
}

impl DerefMut for Both {
    fn deref_mut(&mut self) -> &mut both::Both {
        &mut self.0
    }
}
