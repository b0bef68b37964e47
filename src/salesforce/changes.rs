//! What changed in an object since a moment, deletions and merges included, as pages with a position each.
//!
//! A sweep asks for `SystemModstamp` from a little before the last sweep's end up to now, by Salesforce's clock, ordered by it and by id. Why
//! nothing is missed:
//!
//! - Records become visible seconds after the moment they carry, behind a position that has passed it: each sweep begins [`OVERLAP`]
//!   earlier than the last one ended. What comes twice is told apart by its values, not by its date.
//! - Many records carry the same second: a sweep goes on behind `(SystemModstamp, Id)`, never behind a second.
//! - A sweep ends at a moment that was taken before its first query, not at the time when it is done.
//! - A cursor that ended, a killed process, a page shorter than asked: the sweep goes on behind the last record it gave out.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    model::{Row, SalesforceId},
    org::Org,
    soql::{Comparison, Condition, Literal, Select},
};
use crate::{Error, ErrorKind, Result, clock::Deadline, codes};

/// How far a sweep reaches back behind the end of the last one. Measured delays are 1 to 3 s; long transactions carry the time of their start.
pub const OVERLAP: SignedDuration = SignedDuration::from_mins(5);

/// What is read of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    object: String,
    fields: Vec<String>,
    filter: Option<Condition>,
}

/// Where a sweep is. Stored by the caller after the records before it were dealt with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// From here on, inclusive; `None`: from the beginning.
    pub since: Option<Timestamp>,
    /// Up to here, inclusive, by Salesforce's clock. When the sweep is over, the next one begins [`OVERLAP`] before it.
    pub until: Timestamp,
    /// The last record given out: its `SystemModstamp` and id.
    pub after: Option<(Timestamp, SalesforceId)>,
    /// Salesforce's cursor, as a shortcut.
    pub next: Option<String>,
}

/// Records of a sweep, and the sweep behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangesPage {
    /// In the order of their `SystemModstamp`.
    pub rows: Vec<Row>,
    /// Where to go on.
    pub sweep: Sweep,
    /// Whether there is more. If not, `sweep.until` is what the next sweep begins from.
    pub more: bool,
}

impl Feed {
    /// The fields of a feed, with `SystemModstamp`, `LastModifiedDate`, `LastModifiedById`, `IsDeleted`, and where the object has it
    /// `MasterRecordId`. `filter` restricts the live records as well as the deleted ones.
    pub async fn new(
        org: &Org,
        object: &str,
        fields: &[&str],
        filter: Option<Condition>,
        deadline: Deadline,
    ) -> Result<Self> {
        let schema = org.describe(object, deadline).await?;
        let system = ["SystemModstamp", "LastModifiedDate", "LastModifiedById", "IsDeleted", "MasterRecordId"];
        let own = system.into_iter().filter(|name| schema.field(name).is_some());
        let fields = own.chain(fields.iter().copied()).map(str::to_owned).collect();
        Ok(Self { object: schema.name.clone(), fields, filter })
    }

    fn select(&self, sweep: &Sweep) -> Result<Select> {
        let moment = |at: Timestamp| Literal::DateTime(at);
        let mut select = Select::from(&self.object)?.fields(self.fields.iter().map(String::as_str))?;
        select = select.and(Condition::is("SystemModstamp", Comparison::AtMost, moment(sweep.until))?);
        match &sweep.after {
            Some((at, id)) => {
                let same_second = Condition::All(vec![
                    Condition::is("SystemModstamp", Comparison::Equal, moment(*at))?,
                    Condition::is("Id", Comparison::More, id)?,
                ]);
                let later = Condition::is("SystemModstamp", Comparison::More, moment(*at))?;
                select = select.and(Condition::Any(vec![same_second, later]));
            }
            None => {
                if let Some(since) = sweep.since {
                    select = select.and(Condition::is("SystemModstamp", Comparison::AtLeast, moment(since))?);
                }
            }
        }
        if let Some(filter) = &self.filter {
            select = select.and(filter.clone());
        }
        select.order_by(["SystemModstamp", "Id"])
    }
}

impl Sweep {
    /// A sweep up to `now` (Salesforce's, from [`Org::server_time`] after a call) that begins [`OVERLAP`] before the end of the last one;
    /// without one, from the beginning.
    pub fn new(last_until: Option<Timestamp>, now: Timestamp) -> Self {
        let whole = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
        let since = last_until.map(|at| at.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN));
        Self { since: since.map(whole), until: whole(now), after: None, next: None }
    }
}

impl Org {
    /// The next page of a sweep. Asking again with the same sweep gives the same records again, or what they have become.
    pub async fn changes(&self, feed: &Feed, sweep: &Sweep, deadline: Deadline) -> Result<ChangesPage> {
        let cursor = match &sweep.next {
            Some(next) => self.next_page(next, deadline).await?,
            None => None,
        };
        let page = match cursor {
            Some(page) => page,
            None => self.query(&feed.select(sweep)?, true, deadline).await?,
        };
        let last = page.rows.last().map(|row| row.system_modstamp().zip(row.id()));
        let after = match last {
            None => sweep.after.clone(),
            Some(Some(place)) => Some(place),
            Some(None) => {
                let message = format!("a {} without Id or SystemModstamp", feed.object);
                return Err(Error::new(ErrorKind::Unknown, codes::SALESFORCE_ANSWER_UNREADABLE, message));
            }
        };
        let more = page.next.is_some();
        let sweep = Sweep { after, next: page.next, ..sweep.clone() };
        Ok(ChangesPage { rows: page.rows, sweep, more })
    }
}
