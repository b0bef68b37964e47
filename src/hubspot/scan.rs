//! Lists all records of a type, as fast as the account's limit allows: ranges of ids side by side.
//!
//! A list's cursor looks like the last id of a page. If it is one, a list can begin anywhere, and one cursor, which waits for each answer,
//! becomes many. That is an assumption, so it is proven before it is used ([`Scan`] asks for a page from the middle of the first one) and
//! checked with every page; where it does not hold, the scan goes the long way, with the cursor as HubSpot gives it.
//!
//! What is saved ([`Scan::state`]) covers only pages that the caller has said to be durable ([`Scan::covered`]).

mod ranges;

use std::{collections::VecDeque, pin::pin, rc::Rc, time::Duration};

use futures_util::{
    StreamExt,
    future::{Either, LocalBoxFuture, select},
    stream::FuturesUnordered,
};
use serde::{Deserialize, Serialize};

use ranges::{Ask, Plan};
pub use ranges::{RANGES_MAX, Ranges, SPANS_MAX, Span};

use super::{
    account::Account,
    records::{RawRecord, RecordPage, Wanted, names_fit},
};
use crate::{Error, ErrorKind, Result, clock::Deadline, codes, record::ObjectType};

/// Calls beyond what latency and limit ask for: answers come unevenly, and a slot that is missed is lost.
const SPARE: f64 = 1.5;

/// Weight of the last answer in the latency that is expected.
const LATENCY_WEIGHT: f64 = 0.2;

/// How often the assumption is tried before it is given up: records may come and go between two calls.
const PROBES_MAX: usize = 3;

/// Pages without a record, one after the other, that nevertheless name a next one.
const EMPTY_PAGES_MAX: u32 = 50;

/// Property values in pages that nobody has taken yet, about: while an object is written, pages gather. A dozen megabytes; at a record's usual
/// properties, seconds of listing.
const READY_VALUES_MAX: usize = 100_000;

/// Where a scan is. Small; saved with the position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "by")]
pub enum ScanState {
    /// Nothing was listed yet.
    #[default]
    New,
    /// By ranges of ids.
    Ids {
        /// What is still to be listed.
        open: Ranges,
    },
    /// By HubSpot's cursor.
    Cursor {
        /// The next page's; `None` for the first.
        after: Option<String>,
        /// Records so far.
        listed: u64,
    },
    /// Everything was listed.
    Done,
}

impl ScanState {
    /// Everything was listed, and is durable.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Ids { open } => open.is_done(),
            Self::New | Self::Cursor { .. } => false,
        }
    }

    /// Every record with an id up to this one is durable; `None` when all are.
    pub fn covered_to(&self) -> Option<u64> {
        match self {
            Self::New | Self::Cursor { .. } => Some(0),
            Self::Ids { open } => open.covered_to(),
            Self::Done => None,
        }
    }
}

/// A page of a scan.
#[derive(Debug)]
pub struct ScannedPage {
    /// Its records; not empty.
    pub records: Vec<RawRecord>,
    /// The ids it stands for; no other page stands for any of them. Pages of one range follow on each other: `after` is the one before's
    /// `until`. By HubSpot's cursor, which has no order that is known, the places in the list instead (the 100th record: (99, 100]).
    pub covers: Span,
    /// For [`Scan::covered`], once the records are durable.
    pub token: Token,
}

/// Names a page.
#[derive(Debug)]
pub struct Token(Place);

#[derive(Debug, Clone, Copy)]
enum Place {
    Span(Span),
    Page(u64),
}

/// What its calls need.
struct Reader {
    account: Rc<Account>,
    object: ObjectType,
    wanted: Wanted,
    /// What a list is asked for: `wanted`, or where its names do not fit an address, ids.
    listed: Wanted,
    deadline: Deadline,
}

impl Reader {
    fn by_batch(&self) -> bool {
        self.listed != self.wanted
    }

    async fn list(&self, after: Option<&str>) -> Result<(RecordPage, Duration)> {
        self.account.list_records_timed(&self.object, &self.listed, after, self.deadline).await
    }

    /// Whether a list's cursor is the last id of the page: ids ascend, the next page is asked for by the last of them, and a page asked for
    /// by one from the middle begins with the one behind it.
    async fn proven(&self, page: &RecordPage) -> Result<bool> {
        let Some(ids) = ids_in_order(page, 0).filter(|_| page.after.is_some()) else { return Ok(false) };
        let wanted = Wanted::ids(self.wanted.archived);
        for probe in 0..PROBES_MAX.min(ids.len().saturating_sub(1)) {
            let at = (ids.len().saturating_sub(2) / 2).saturating_sub(probe);
            let (Some(middle), Some(behind)) = (ids.get(at), ids.get(at + 1)) else { return Ok(false) };
            let after = middle.to_string();
            match self.account.list_records(&self.object, &wanted, Some(&after), self.deadline).await {
                Ok(page) => match ids_in_order(&page, *middle) {
                    Some(ids) if ids.first() == Some(behind) => return Ok(true),
                    // The record behind may have come or gone meanwhile.
                    Some(_) => {}
                    None => return Ok(false),
                },
                Err(error) if error.kind() == ErrorKind::Refused => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The records themselves, in the order of the list. Those that are gone since are left out, and those that another record took over,
    /// which is listed in its own place.
    async fn read(&self, listed: Vec<RawRecord>) -> Result<Vec<RawRecord>> {
        let ids: Vec<String> = listed.into_iter().map(|record| record.id).collect();
        let mut found = self.account.read_records(&self.object, &ids, &self.wanted, self.deadline).await?;
        Ok(ids.iter().filter_map(|id| found.remove(id).filter(|record| record.id == *id)).collect())
    }
}

/// What a call under way becomes.
enum Event {
    /// The first page, and whether ranges can be listed.
    First(Result<(RecordPage, Duration, bool)>),
    /// About the largest id.
    Largest(Result<Option<u64>>),
    Range(u64, Result<(RecordPage, Duration)>),
    Cursor(Result<(RecordPage, Duration)>),
    Read(Place, Span, Result<Vec<RawRecord>>),
}

/// The long way: one page after the other.
#[derive(Debug, Default)]
struct Cursor {
    after: Option<String>,
    listed: u64,
    busy: bool,
    ended: bool,
    /// The last page was asked for twice.
    certain: bool,
    /// The cursor is from an earlier process and was not accepted yet.
    resumed: bool,
    empty: u32,
    /// Pages that are not durable, oldest first.
    pages: VecDeque<CursorPage>,
    next: u64,
}

#[derive(Debug)]
struct CursorPage {
    number: u64,
    after: Option<String>,
    listed: u64,
    covered: bool,
}

/// A scan under way. Dropping it stops everything.
pub struct Scan {
    reader: Rc<Reader>,
    /// What is durable.
    state: ScanState,
    plan: Plan,
    cursor: Cursor,
    under_way: FuturesUnordered<LocalBoxFuture<'static, Event>>,
    ready: VecDeque<ScannedPage>,
    /// What a call takes, in seconds.
    latency: Option<f64>,
    begun: bool,
    failed: bool,
    /// What went wrong while nobody asked for pages.
    error: Option<Error>,
}

impl Scan {
    /// Goes on from `state`. Calls nothing yet.
    pub fn new(account: Rc<Account>, object: ObjectType, wanted: Wanted, state: ScanState, deadline: Deadline) -> Self {
        let listed = if names_fit(&wanted) { wanted.clone() } else { Wanted::ids(wanted.archived) };
        Self {
            reader: Rc::new(Reader { account, object, wanted, listed, deadline }),
            state,
            plan: Plan::default(),
            cursor: Cursor::default(),
            under_way: FuturesUnordered::new(),
            ready: VecDeque::new(),
            latency: None,
            begun: false,
            failed: false,
            error: None,
        }
    }

    /// What is durable: a scan made of it lists everything else, and of the pages that were not taken nothing is left out.
    pub fn state(&self) -> ScanState {
        match &self.state {
            ScanState::Ids { open } if open.is_done() => ScanState::Done,
            ScanState::Ids { open } => ScanState::Ids { open: open.compact() },
            state => state.clone(),
        }
    }

    /// The records of a page are durable. Any order will do.
    pub fn covered(&mut self, token: Token) {
        self.cover(token.0);
    }

    fn cover(&mut self, place: Place) {
        match (place, &mut self.state) {
            (Place::Span(span), ScanState::Ids { open }) => open.cover(span),
            (Place::Page(number), ScanState::Cursor { after, listed }) => {
                if let Some(page) = self.cursor.pages.iter_mut().find(|page| page.number == number) {
                    page.covered = true;
                }
                while let Some(page) = self.cursor.pages.pop_front_if(|page| page.covered) {
                    *listed = page.listed;
                    match page.after {
                        Some(next) => *after = Some(next),
                        None => {
                            self.state = ScanState::Done;
                            return;
                        }
                    }
                }
            }
            // A page from before the scan took to the long way: it is listed again.
            _ => {}
        }
    }

    /// The next page, in no particular order; `None` when everything was listed. Calls are under way only while this is waited for: what takes
    /// time is waited for [`beside`](Self::beside) the scan. May be dropped and called again.
    ///
    /// After an error the scan is over: make a new one of what was saved. Errors: those of [`Account::list_records`] and
    /// [`Account::read_records`].
    pub async fn next(&mut self) -> Result<Option<ScannedPage>> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.failed {
            let message = format!("listing {}: the scan has failed before", self.reader.object);
            return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message));
        }
        // Each round takes an answer, or ends.
        loop {
            self.fill();
            if let Some(page) = self.ready.pop_front() {
                return Ok(Some(page));
            }
            let Some(event) = self.under_way.next().await else { return self.end().map(|()| None) };
            self.answered(event)?;
        }
    }

    /// As [`next`](Self::next), with all the other pages that are there already.
    pub async fn next_all(&mut self) -> Result<Vec<ScannedPage>> {
        let first = self.next().await?;
        Ok(first.into_iter().chain(self.ready.drain(..)).collect())
    }

    /// Waits for `work`, and keeps calls under way meanwhile, as far as what they bring can be held. What goes wrong with the scan, the next
    /// [`next`](Self::next) tells.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        // Each round takes an answer, or ends.
        while self.error.is_none() && self.has_room() {
            self.fill();
            match select(work.as_mut(), self.under_way.next()).await {
                Either::Left((done, _)) => return done,
                Either::Right((None, _)) => break,
                Either::Right((Some(event), _)) => {
                    if let Err(error) = self.answered(event) {
                        self.error = Some(error);
                    }
                }
            }
        }
        work.await
    }

    fn has_room(&self) -> bool {
        let values = self.reader.wanted.properties.len().max(1).saturating_mul(self.reader.wanted.page());
        self.ready.len().saturating_add(1).saturating_mul(values) <= READY_VALUES_MAX
    }

    /// There is nothing more to ask for.
    fn end(&self) -> Result<()> {
        if self.plan.is_done() {
            return Ok(());
        }
        let message = format!("listing {}: a range is listed by nobody", self.reader.object);
        Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message))
    }

    /// Takes an answer. After an error nothing is under way any more.
    fn answered(&mut self, event: Event) -> Result<()> {
        let taken = self.take(event);
        if taken.is_err() {
            self.failed = true;
            self.under_way.clear();
        }
        taken
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::First(first) => {
                let (page, took, proven) = first?;
                self.learn(took);
                self.first_listed(page, took, proven)?;
            }
            Event::Largest(largest) => self.divide(largest)?,
            Event::Range(range, page) => {
                let (page, took) = page?;
                self.learn(took);
                self.range_listed(range, page);
            }
            Event::Cursor(page) => self.cursor_listed(page)?,
            Event::Read(place, covers, records) => self.page(place, covers, records?),
        }
        Ok(())
    }

    fn begin(&mut self) {
        match &self.state {
            ScanState::Done => {}
            ScanState::Cursor { after, listed } => {
                self.cursor = Cursor { after: after.clone(), listed: *listed, resumed: true, ..Cursor::default() };
            }
            ScanState::Ids { open } => {
                self.plan = Plan::of(open);
                self.ask_for_largest();
            }
            ScanState::New => {
                let reader = Rc::clone(&self.reader);
                let first = async move {
                    let (page, took) = reader.list(None).await?;
                    let proven = reader.proven(&page).await?;
                    Ok((page, took, proven))
                };
                self.under_way.push(Box::pin(async move { Event::First(first.await) }));
            }
        }
    }

    fn first_listed(&mut self, page: RecordPage, took: Duration, proven: bool) -> Result<()> {
        if !proven {
            tracing::debug!(object = %self.reader.object, "the list is read page after page");
            self.take_to_cursor();
            self.cursor.busy = true;
            return self.cursor_listed(Ok((page, took)));
        }
        let open = Ranges::default();
        self.plan = Plan::of(&open);
        self.state = ScanState::Ids { open };
        if let Some(ask) = self.plan.take() {
            self.range_listed(ask.range, page);
        }
        self.ask_for_largest();
        Ok(())
    }

    /// What it takes to give the range without an end one, so that it can be listed side by side.
    fn ask_for_largest(&mut self) {
        if self.plan.is_endless() {
            let reader = Rc::clone(&self.reader);
            self.under_way.push(Box::pin(async move {
                Event::Largest(reader.account.largest_id(&reader.object, reader.deadline).await)
            }));
        }
    }

    /// A hint is all that is needed, and none is no error.
    fn divide(&mut self, largest: Result<Option<u64>>) -> Result<()> {
        match largest {
            Ok(Some(largest)) => self.plan.divide(largest),
            Ok(None) => {}
            Err(error) => match error.kind() {
                // Not every type can be searched, and search may be down while lists are not.
                ErrorKind::Refused
                | ErrorKind::NotFound
                | ErrorKind::Unknown
                | ErrorKind::Unavailable { .. }
                | ErrorKind::Throttled { .. } => {
                    tracing::info!(object = %self.reader.object, %error, "the list is not divided");
                }
                _ => return Err(error),
            },
        }
        Ok(())
    }

    fn take_to_cursor(&mut self) {
        self.under_way.clear();
        self.ready.clear();
        self.plan = Plan::default();
        self.cursor = Cursor::default();
        self.state = ScanState::Cursor { after: None, listed: 0 };
    }

    fn learn(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let known = self.latency.unwrap_or(took);
        self.latency = Some(known + (took - known) * LATENCY_WEIGHT);
    }

    /// Calls to keep under way.
    fn width(&self) -> usize {
        let Some(latency) = self.latency else { return 1 };
        // Truncation is meant, and what does not fit is clamped.
        let calls = (latency * self.reader.account.ceiling_per_second() * SPARE).ceil() as usize;
        calls.saturating_add(1).clamp(1, RANGES_MAX)
    }

    fn fill(&mut self) {
        if !self.begun {
            self.begun = true;
            self.begin();
        }
        if matches!(self.state, ScanState::Cursor { .. }) {
            if !self.cursor.busy && !self.cursor.ended {
                self.cursor.busy = true;
                let (reader, after) = (Rc::clone(&self.reader), self.cursor.after.clone());
                self.under_way.push(Box::pin(async move { Event::Cursor(reader.list(after.as_deref()).await) }));
            }
            return;
        }
        while self.under_way.len() < self.width() {
            let Some(Ask { range, after }) = self.plan.take() else { break };
            let reader = Rc::clone(&self.reader);
            self.under_way.push(Box::pin(async move {
                let after = (after > 0).then(|| after.to_string());
                Event::Range(range, reader.list(after.as_deref()).await)
            }));
        }
    }

    fn range_listed(&mut self, range: u64, mut page: RecordPage) {
        // Whether ids ascend beyond the cursor is for the plan to see; that the cursor is the last id is seen here.
        let ids: Option<Vec<u64>> = page.records.iter().map(|record| record.id.parse().ok()).collect();
        let listed = match (ids, &page.after) {
            (Some(ids), Some(after)) if ids.last().map(u64::to_string).as_ref() != Some(after) => None,
            (Some(ids), _) => self.plan.listed(range, &ids).ok(),
            (None, _) => None,
        };
        let Some(listed) = listed else {
            tracing::warn!(object = %self.reader.object, "the list left the order of ids: it is read again, page after page");
            return self.take_to_cursor();
        };
        page.records.truncate(listed.keep);
        self.records(Place::Span(listed.covers), listed.covers, page.records);
    }

    fn cursor_listed(&mut self, page: Result<(RecordPage, Duration)>) -> Result<()> {
        let cursor = &mut self.cursor;
        cursor.busy = false;
        let page = match page {
            Ok((page, _)) => page,
            // HubSpot does not take the cursor any more: from the beginning, once.
            Err(error) if error.kind() == ErrorKind::Refused && cursor.resumed && cursor.after.is_some() => {
                self.take_to_cursor();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        cursor.resumed = false;
        let unreadable = |what: &str| {
            let message = format!("listing {}: {what}", self.reader.object);
            Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message)
        };
        if page.after.is_none() && !page.records.is_empty() && !cursor.certain {
            // A page that was cut short looks like the last one: it is believed when it comes twice.
            cursor.certain = true;
            return Ok(());
        }
        cursor.certain = false;
        if page.after.is_some() && page.after == cursor.after {
            return Err(unreadable("a page names itself as the next one"));
        }
        cursor.empty = if page.records.is_empty() { cursor.empty + 1 } else { 0 };
        if cursor.empty > EMPTY_PAGES_MAX {
            return Err(unreadable("the pages are empty and do not end"));
        }
        let before = cursor.listed;
        cursor.listed = before.saturating_add(u64::try_from(page.records.len()).unwrap_or(u64::MAX));
        cursor.ended = page.after.is_none();
        cursor.after.clone_from(&page.after);
        let (number, listed) = (cursor.next, cursor.listed);
        cursor.next += 1;
        cursor.pages.push_back(CursorPage { number, after: page.after, listed, covered: false });
        self.records(Place::Page(number), Span { after: before, until: Some(listed) }, page.records);
        Ok(())
    }

    /// Records as they were listed: whole, or ids to be read.
    fn records(&mut self, place: Place, covers: Span, records: Vec<RawRecord>) {
        if records.is_empty() || !self.reader.by_batch() {
            return self.page(place, covers, records);
        }
        let reader = Rc::clone(&self.reader);
        self.under_way.push(Box::pin(async move { Event::Read(place, covers, reader.read(records).await) }));
    }

    fn page(&mut self, place: Place, covers: Span, records: Vec<RawRecord>) {
        if records.is_empty() {
            // There is nothing to be made durable.
            return self.cover(place);
        }
        self.ready.push_back(ScannedPage { records, covers, token: Token(place) });
    }
}

/// The ids of a page, if they ascend beyond `after` and the next page is asked for by the last of them.
fn ids_in_order(page: &RecordPage, after: u64) -> Option<Vec<u64>> {
    let ids: Vec<u64> = page.records.iter().map(|record| record.id.parse().ok()).collect::<Option<_>>()?;
    let ascending = ids.iter().zip(ids.iter().skip(1)).all(|(one, next)| one < next);
    let beyond = ids.first().is_some_and(|first| *first > after);
    let last = ids.last().map(u64::to_string);
    (ascending && beyond && (page.after.is_none() || page.after == last)).then_some(ids)
}
