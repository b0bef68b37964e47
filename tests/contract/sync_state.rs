//! What a sync keeps in the table: links, reviews, todo items, refusals. With deaths between any two writes, lost answers, and several
//! processes at once.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use async_trait::async_trait;
use futures_util::future::{LocalBoxFuture, join_all};
use hubferry::{
    Error, ErrorKind, Result,
    clock::Rng,
    codes,
    salesforce::model::SalesforceId,
    state::{
        Changed, Condition, Item, Key, Table, Update, Value, dynamo::DynamoTable, file::FileTable, memory::MemoryTable,
    },
    sync::{
        links::{self, Created, Links},
        model::{Choice, FieldState, Link, Refused, Review, ReviewField, ReviewKind, Side, Status, Todo, TodoWhy},
        reviews::{self, Reviews},
        todo::{Refusals, Todos},
    },
};

use super::table::{create_table, dynamodb};

/// What befalls the write of this number, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The process dies before it, or after it: nothing works from then on.
    DiesBefore(u64),
    DiesAfter(u64),
    /// It is carried out, and its answer is lost.
    LostAnswer(u64),
    Lives,
}

/// A process's view of a table.
struct Process {
    table: Rc<dyn Table>,
    fate: Fate,
    writes: Cell<u64>,
    dead: Cell<bool>,
    /// Other processes get up to so many turns before each call.
    dawdles: Option<RefCell<fastrand::Rng>>,
    /// Called after each write.
    watcher: Option<Rc<dyn Fn() -> LocalBoxFuture<'static, ()>>>,
}

impl Process {
    fn new(table: Rc<dyn Table>, fate: Fate) -> Rc<Self> {
        Rc::new(Self { table, fate, writes: Cell::new(0), dead: Cell::new(false), dawdles: None, watcher: None })
    }

    async fn before(&self) -> Result<()> {
        let turns = self.dawdles.as_ref().map_or(0, |rng| rng.borrow_mut().u8(..6));
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if self.dead.get() { Err(died()) } else { Ok(()) }
    }

    async fn writing<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.before().await?;
        let number = self.writes.get() + 1;
        self.writes.set(number);
        if self.fate == Fate::DiesBefore(number) {
            self.dead.set(true);
            return Err(died());
        }
        let answer = call.await;
        if let Some(watcher) = &self.watcher {
            watcher().await;
        }
        match self.fate {
            Fate::DiesAfter(dies) if dies == number => {
                self.dead.set(true);
                Err(died())
            }
            Fate::LostAnswer(lost) if lost == number => {
                Err(Error::new(ErrorKind::Unknown, codes::STATE_UNAVAILABLE, "the answer was lost"))
            }
            _ => answer,
        }
    }
}

fn died() -> Error {
    Error::new(ErrorKind::Fenced, codes::FENCED, "the process is dead")
}

#[async_trait(?Send)]
impl Table for Process {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.before().await?;
        self.table.get(key).await
    }
    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        self.writing(self.table.update(key, update)).await
    }
    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        self.writing(self.table.delete(key, condition)).await
    }
    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.before().await?;
        self.table.query(pk, limit).await
    }
    fn writes(&self) -> u64 {
        self.writes.get()
    }
}

/// The kinds of table that every test runs on.
fn tables() -> Vec<(Rc<dyn Table>, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let file = FileTable::new(folder.path().join("state.json"));
    vec![(Rc::new(MemoryTable::new()), None), (Rc::new(file), Some(folder))]
}

fn links_on(table: &Rc<dyn Table>, seed: u64) -> Links {
    Links::new(Rc::clone(table), Rc::new(Rng::seeded(seed)), "people")
}

fn salesforce(number: usize) -> SalesforceId {
    SalesforceId::parse(&format!("003ak{number:010}")).unwrap()
}

fn hubspot(number: usize) -> String {
    format!("{}", 100 + number)
}

fn link(h: usize, s: usize) -> Link {
    let phone = FieldState { hubspot: Some("+1".into()), salesforce: None, ..FieldState::default() };
    Link {
        hubspot_id: hubspot(h),
        salesforce_id: salesforce(s),
        status: Status::Active,
        fields: BTreeMap::from([("phone|Phone".to_owned(), phone)]),
        hubspot_read: 1_790_000_000_000,
        salesforce_read: 0,
        intent: None,
        account: None,
        refused: None,
        version: 0,
    }
}

/// How many records of each side the tests have.
const RECORDS: usize = 5;

/// The links that there are; both ways of finding them must agree.
async fn all(table: &Rc<dyn Table>) -> Vec<Link> {
    let links = links_on(table, 99);
    let ids: Vec<String> = (0..RECORDS).map(hubspot).collect();
    let by_hubspot = links.by_hubspot(&ids).await.unwrap();
    let ids: Vec<SalesforceId> = (0..RECORDS).map(salesforce).collect();
    let by_salesforce = links.by_salesforce(&ids).await.unwrap();
    for (id, link) in &by_hubspot {
        assert_eq!(link.hubspot_id, *id);
        assert_eq!(by_salesforce.get(&link.salesforce_id), Some(link), "of the HubSpot record {id}");
    }
    for (id, link) in &by_salesforce {
        assert_eq!(link.salesforce_id, *id);
        assert_eq!(by_hubspot.get(&link.hubspot_id), Some(link), "of the Salesforce record {id}");
    }
    by_hubspot.into_values().collect()
}

fn pairs(links: &[Link]) -> Vec<(String, SalesforceId)> {
    links.iter().map(|link| (link.hubspot_id.clone(), link.salesforce_id.clone())).collect()
}

/// The link of this HubSpot record.
async fn linked(links: &Links, h: usize) -> Link {
    links.by_hubspot(&[hubspot(h)]).await.unwrap().remove(&hubspot(h)).unwrap()
}

/// Something done to links.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Create(usize, usize),
    Store(usize),
    Move(usize, Option<usize>, Option<usize>),
    Remove(usize),
}

/// Does it, as who has just read what there is; does nothing where it is done already.
async fn perform(links: &Links, doing: Doing) -> Result<bool> {
    let read = async |h: usize| Ok::<_, Error>(links.by_hubspot(&[hubspot(h)]).await?.remove(&hubspot(h)));
    Ok(match doing {
        Doing::Create(h, s) => match links.create(&mut link(h, s)).await? {
            Created::Yes => true,
            Created::Hubspot(existing) => existing.salesforce_id == salesforce(s),
            Created::Salesforce(_) => false,
        },
        Doing::Store(h) => {
            let Some(mut link) = read(h).await? else { return Ok(false) };
            link.status = Status::Ignored;
            links.store(std::slice::from_mut(&mut link)).await? == [true]
        }
        Doing::Move(h, to_h, to_s) => {
            let at = match read(h).await? {
                Some(link) => Some(link),
                None => match to_h {
                    Some(to) => read(to).await?,
                    None => None,
                },
            };
            let Some(mut link) = at else { return Ok(false) };
            links.move_to(&mut link, to_h.map(hubspot), to_s.map(salesforce)).await?
        }
        Doing::Remove(h) => {
            if let Some(link) = read(h).await? {
                links.remove(&link).await?;
            }
            true
        }
    })
}

/// What there is, what is done, what there is afterwards.
type Story = (Vec<Doing>, Doing, Vec<(usize, usize)>);

fn stories() -> Vec<Story> {
    use Doing::{Create, Move, Remove, Store};
    vec![
        (vec![], Create(0, 0), vec![(0, 0)]),
        (vec![Create(1, 1)], Create(0, 0), vec![(0, 0), (1, 1)]),
        (vec![Create(0, 0)], Store(0), vec![(0, 0)]),
        (vec![Create(0, 0)], Remove(0), vec![]),
        (vec![Create(0, 0), Remove(0)], Create(0, 0), vec![(0, 0)]),
        (vec![Create(0, 0), Remove(0)], Create(1, 0), vec![(1, 0)]),
        // Salesforce merged the contact into another.
        (vec![Create(0, 0)], Move(0, None, Some(1)), vec![(0, 1)]),
        (vec![Create(0, 0), Create(1, 1), Remove(1)], Move(0, None, Some(1)), vec![(0, 1)]),
        (vec![Create(0, 0), Move(0, None, Some(1))], Create(1, 0), vec![(0, 1), (1, 0)]),
        (vec![Create(0, 0), Move(0, None, Some(1))], Move(0, None, Some(0)), vec![(0, 0)]),
        // HubSpot did.
        (vec![Create(0, 0)], Move(0, Some(1), None), vec![(1, 0)]),
        (vec![Create(0, 0), Move(0, Some(1), None)], Store(1), vec![(1, 0)]),
        (vec![Create(0, 0), Move(0, Some(1), None)], Remove(1), vec![]),
        (vec![Create(0, 0), Move(0, Some(1), None)], Create(0, 1), vec![(0, 1), (1, 0)]),
        (vec![Create(0, 0), Move(0, Some(1), None)], Move(1, Some(2), None), vec![(2, 0)]),
        (vec![Create(0, 0), Move(0, Some(1), None)], Move(1, Some(0), None), vec![(0, 0)]),
        (vec![Create(0, 0), Move(0, Some(1), None), Remove(1)], Create(1, 0), vec![(1, 0)]),
        (vec![Create(0, 0), Move(0, Some(1), None), Create(0, 1)], Remove(0), vec![(1, 0)]),
        (vec![Create(0, 0), Move(0, Some(1), None), Create(0, 1)], Move(0, Some(2), None), vec![(1, 0), (2, 1)]),
        (vec![Create(0, 0), Move(0, Some(1), None), Create(0, 1), Remove(0)], Move(1, Some(0), Some(1)), vec![(0, 1)]),
        // Both did.
        (vec![Create(0, 0)], Move(0, Some(1), Some(1)), vec![(1, 1)]),
        (vec![Create(0, 0), Create(1, 1), Remove(1)], Move(0, Some(1), Some(1)), vec![(1, 1)]),
    ]
}

/// Tells all stories, each on an empty table.
async fn tell_stories<T: Table + 'static>(empty: impl AsyncFn() -> T) {
    for (before, doing, after) in stories() {
        let table: Rc<dyn Table> = Rc::new(empty().await);
        let links = links_on(&table, 1);
        for step in &before {
            assert!(perform(&links, *step).await.unwrap(), "{step:?} of {before:?}");
            all(&table).await;
        }
        assert!(perform(&links, doing).await.unwrap(), "{doing:?} after {before:?}");
        let after: Vec<_> = after.iter().map(|(h, s)| (hubspot(*h), salesforce(*s))).collect();
        assert_eq!(pairs(&all(&table).await), after, "{doing:?} after {before:?}");
    }
}

#[tokio::test]
async fn links_are_found_from_both_sides_after_everything_that_can_be_done_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let number = Cell::new(0);
    tell_stories(async || MemoryTable::new()).await;
    tell_stories(async || {
        number.set(number.get() + 1);
        FileTable::new(folder.path().join(format!("{}.json", number.get())))
    })
    .await;
    dynamodb(async |client| {
        tell_stories(async || {
            number.set(number.get() + 1);
            let name = format!("state-{}", number.get());
            create_table(&client, &name).await;
            DynamoTable::new(client.clone(), name)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_death_before_or_after_any_write_leaves_links_that_agree_and_doing_it_again_completes_it() {
    for (before, doing, after) in stories() {
        let after: Vec<_> = after.iter().map(|(h, s)| (hubspot(*h), salesforce(*s))).collect();
        let mut deaths = 0;
        for (table_number, fate) in
            (1..20).flat_map(|n| [Fate::DiesBefore(n), Fate::DiesAfter(n)]).flat_map(|fate| [(0, fate), (1, fate)])
        {
            let Some((table, _folder)) = tables().into_iter().nth(table_number) else { continue };
            for step in &before {
                perform(&links_on(&table, 1), *step).await.unwrap();
            }
            let there = pairs(&all(&table).await);
            let process = Process::new(Rc::clone(&table), fate);
            let dying: Rc<dyn Table> = Rc::<Process>::clone(&process);
            let died = perform(&links_on(&dying, 2), doing).await.is_err();
            assert_eq!(died, process.dead.get());
            if !died {
                // It does not write so often.
                break;
            }
            let left = pairs(&all(&table).await);
            assert!(left == there || left == after, "{doing:?} after {before:?}, {fate:?}: {left:?}");
            assert!(perform(&links_on(&table, 3), doing).await.unwrap(), "{doing:?} after {before:?}, {fate:?}");
            assert_eq!(pairs(&all(&table).await), after, "{doing:?} after {before:?}, {fate:?}");
            deaths += 1;
        }
        assert!(deaths >= 4, "{doing:?}: it writes at least once, on both tables");
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_changes_nothing_in_what_is_answered() {
    for (before, doing, after) in stories() {
        let after: Vec<_> = after.iter().map(|(h, s)| (hubspot(*h), salesforce(*s))).collect();
        for n in 1..8 {
            for (table, _folder) in tables() {
                for step in &before {
                    perform(&links_on(&table, 1), *step).await.unwrap();
                }
                let process: Rc<dyn Table> = Process::new(Rc::clone(&table), Fate::LostAnswer(n));
                match perform(&links_on(&process, 2), doing).await {
                    Ok(done) => assert!(done, "{doing:?} after {before:?}, answer {n} lost"),
                    // Of tidying up after the change.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unknown, "{doing:?}, answer {n} lost"),
                }
                assert_eq!(pairs(&all(&table).await), after, "{doing:?} after {before:?}, answer {n} lost");
            }
        }
    }
}

#[tokio::test]
async fn a_link_that_is_read_back_is_what_was_stored() {
    for (table, _folder) in tables() {
        let links = links_on(&table, 1);
        let mut first = link(0, 0);
        assert_eq!(links.create(&mut first).await.unwrap(), Created::Yes);
        assert_eq!(first.version, 1);
        assert_eq!(linked(&links, 0).await, first);
        first.status = Status::SalesforceDeleted;
        first.fields.clear();
        assert_eq!(links.store(std::slice::from_mut(&mut first)).await.unwrap(), [true]);
        assert_eq!(first.version, 2);
        assert_eq!(linked(&links, 0).await, first);
        let other = Links::new(Rc::clone(&table), Rc::new(Rng::seeded(1)), "companies");
        assert_eq!(other.by_hubspot(&[hubspot(0)]).await.unwrap(), BTreeMap::new(), "another sync's");
    }
}

#[tokio::test]
async fn many_links_are_written_and_read_at_once_and_each_id_is_read_once() {
    let table = Rc::new(MemoryTable::new());
    let dyn_table: Rc<dyn Table> = Rc::<MemoryTable>::clone(&table);
    let links = links_on(&dyn_table, 1);
    let mut made = Vec::new();
    for at in 0..100 {
        let mut one = link(at, at);
        assert_eq!(links.create(&mut one).await.unwrap(), Created::Yes);
        made.push(one);
    }
    assert_eq!(table.writes(), 200, "a link takes two writes");
    for one in &mut made {
        one.status = Status::Ignored;
    }
    let (stale, fresh) = made.split_at_mut(50);
    assert_eq!(links.store(stale).await.unwrap(), [true; 50]);
    for one in stale.iter_mut().step_by(2) {
        one.version -= 1;
    }
    let answers: Vec<bool> = links.store(stale).await.unwrap();
    assert_eq!(answers, [false, true].repeat(25), "answers stand in the order of the links");
    assert_eq!(links.store(fresh).await.unwrap(), [true; 50]);
    let ids: Vec<String> = (0..200).map(|at| hubspot(at % 150)).collect();
    assert_eq!(links.by_hubspot(&ids).await.unwrap().len(), 100);
    let ids: Vec<SalesforceId> = (0..200).map(|at| salesforce(at % 150)).collect();
    assert_eq!(links.by_salesforce(&ids).await.unwrap().len(), 100);
}

#[tokio::test]
async fn of_two_processes_that_change_a_link_one_is_told_that_it_was_late() {
    for (table, _folder) in tables() {
        let (one, two) = (links_on(&table, 1), links_on(&table, 2));
        one.create(&mut link(0, 0)).await.unwrap();
        let (mut first, mut second) = (linked(&one, 0).await, linked(&two, 0).await);
        // They would store the very same.
        first.status = Status::Ignored;
        second.status = Status::Ignored;
        assert_eq!(one.store(std::slice::from_mut(&mut first)).await.unwrap(), [true]);
        assert_eq!(two.store(std::slice::from_mut(&mut second)).await.unwrap(), [false]);
        assert!(!two.move_to(&mut second, None, Some(salesforce(1))).await.unwrap());
        assert!(!two.move_to(&mut second, Some(hubspot(1)), None).await.unwrap());
        assert_eq!(second.salesforce_id, salesforce(0), "it is as it was given");
        let error = two.remove(&second).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(all(&table).await, [first]);
    }
}

#[tokio::test]
async fn a_record_that_has_a_link_gets_no_other_one() {
    for (table, _folder) in tables() {
        let links = links_on(&table, 1);
        let (mut first, mut second) = (link(0, 0), link(1, 1));
        links.create(&mut first).await.unwrap();
        links.create(&mut second).await.unwrap();
        assert_eq!(links.create(&mut link(0, 2)).await.unwrap(), Created::Hubspot(first.clone()));
        assert_eq!(links.create(&mut link(2, 0)).await.unwrap(), Created::Salesforce(first.clone()));
        assert_eq!(links.create(&mut link(0, 1)).await.unwrap(), Created::Hubspot(first.clone()));
        assert_eq!(links.create(&mut first.clone()).await.unwrap(), Created::Yes, "it is stored so already");
        let another = links_on(&table, 2);
        assert_eq!(another.create(&mut first.clone()).await.unwrap(), Created::Hubspot(first.clone()), "not by it");
        assert!(!links.move_to(&mut first.clone(), Some(hubspot(1)), None).await.unwrap());
        assert!(!links.move_to(&mut first.clone(), None, Some(salesforce(1))).await.unwrap());
        assert!(!links.move_to(&mut first.clone(), Some(hubspot(2)), Some(salesforce(1))).await.unwrap());
        assert_eq!(all(&table).await, [first.clone(), second]);
        assert_eq!(links.store(std::slice::from_mut(&mut first)).await.unwrap(), [true], "nobody has touched it");
        assert_eq!(
            links.create(&mut link(2, 2)).await.unwrap(),
            Created::Yes,
            "tries that failed do not stand in the way"
        );
    }
}

#[tokio::test]
async fn a_link_that_was_removed_and_made_again_is_not_the_one_that_was_read_before() {
    for (table, _folder) in tables() {
        let links = links_on(&table, 1);
        let mut first = link(0, 0);
        links.create(&mut first).await.unwrap();
        links.remove(&first).await.unwrap();
        links.remove(&first).await.unwrap();
        let mut again = link(0, 0);
        assert_eq!(links.create(&mut again).await.unwrap(), Created::Yes);
        assert_eq!(links.store(std::slice::from_mut(&mut first)).await.unwrap(), [false]);
        assert!(links.remove(&first).await.is_err());
        assert_eq!(all(&table).await, [again]);
    }
}

#[tokio::test]
async fn a_link_that_is_too_large_is_refused_before_anything_is_written() {
    for (table, _folder) in tables() {
        let links = links_on(&table, 1);
        let mut small = link(0, 0);
        links.create(&mut small).await.unwrap();
        let writes = table.writes();
        let mut large = link(1, 1);
        let text = FieldState { hubspot: Some("secret".repeat(60_000)), ..FieldState::default() };
        large.fields.insert("notes|Notes__c".to_owned(), text);
        for error in [
            links.create(&mut large).await.unwrap_err(),
            links.store(&mut [small, large.clone()]).await.unwrap_err(),
            links::check(&large).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::SYNC_VALUE));
            assert!(error.message().contains("101") && !error.message().contains("secret"), "{error}");
        }
        assert_eq!(table.writes(), writes);
    }
}

/// Everything in `table`, in a table of its own, which nobody changes.
async fn copy_of(table: &MemoryTable) -> Rc<dyn Table> {
    const NAMES: [&str; 7] = ["json", "version", "writer", "hubspot", "salesforce", "at", "at_writer"];
    let copy = MemoryTable::new();
    for (key, item) in table.snapshot() {
        assert!(item.keys().all(|name| NAMES.contains(&name.as_str())), "{item:?}");
        let set = NAMES.iter().filter_map(|name| Some((*name, item.get(*name)?.clone()))).collect();
        copy.update(&key, Update { set, ..Update::default() }).await.unwrap();
    }
    Rc::new(copy)
}

/// The link in each item, as JSON.
fn stored(table: &MemoryTable) -> BTreeMap<Key, Link> {
    let read = |item: &Item| match item.get("json") {
        Some(Value::S(json)) => Some(serde_json::from_str(json).unwrap()),
        _ => None,
    };
    table.snapshot().iter().filter_map(|(key, item)| Some((key.clone(), read(item)?))).collect()
}

/// Processes that do things to links at random, all at once, and die at random. After each write of each of them the links must agree,
/// and each version must have been made from the one before it.
async fn turmoil(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let table = Rc::new(MemoryTable::new());
    // Each version of a link carries a number, and the number of the version that it was made from.
    let numbers = Rc::new(Cell::new(1_i64));
    let seen = Rc::new(RefCell::new(BTreeMap::<Key, Link>::new()));
    let made = Rc::new(RefCell::new(BTreeSet::<i64>::new()));
    let watcher = {
        let (table, seen, made) = (Rc::clone(&table), Rc::clone(&seen), Rc::clone(&made));
        Rc::new(move || -> LocalBoxFuture<'static, ()> {
            let (table, seen, made) = (Rc::clone(&table), Rc::clone(&seen), Rc::clone(&made));
            Box::pin(async move {
                let now = stored(&table);
                for (key, link) in &now {
                    let before = seen.borrow().get(key).map_or(0, |link| link.hubspot_read);
                    if link.hubspot_read != before {
                        assert_eq!(link.salesforce_read, before, "seed {seed}: a change was overwritten in {}", key.pk);
                        made.borrow_mut().insert(link.hubspot_read);
                    }
                }
                *seen.borrow_mut() = now;
                all(&copy_of(&table).await).await;
            })
        })
    };
    let processes = (0..3).map(|process| {
        let fate = match rng.u8(..4) {
            0 => Fate::DiesBefore(rng.u64(1..12)),
            1 => Fate::DiesAfter(rng.u64(1..12)),
            2 => Fate::LostAnswer(rng.u64(1..12)),
            _ => Fate::Lives,
        };
        let view: Rc<dyn Table> = Rc::new(Process {
            table: Rc::<MemoryTable>::clone(&table),
            fate,
            writes: Cell::new(0),
            dead: Cell::new(false),
            dawdles: Some(RefCell::new(rng.fork())),
            watcher: Some(Rc::<_>::clone(&watcher) as Rc<dyn Fn() -> LocalBoxFuture<'static, ()>>),
        });
        let links = links_on(&view, seed * 10 + process);
        let (mut rng, numbers, made) = (rng.fork(), Rc::clone(&numbers), Rc::clone(&made));
        async move {
            for _ in 0..5 {
                // An error is a death, or an answer that was lost too often.
                let _ = step(&links, &mut rng, &numbers, &made, seed).await;
            }
        }
    });
    join_all(processes.collect::<Vec<_>>()).await;
    // Whoever comes next can do everything.
    let dyn_table: Rc<dyn Table> = Rc::<MemoryTable>::clone(&table);
    let links = links_on(&dyn_table, seed);
    for left in all(&dyn_table).await {
        links.remove(&left).await.unwrap();
    }
    assert_eq!(all(&dyn_table).await, []);
    for at in 0..3 {
        assert_eq!(links.create(&mut link(at, 2 - at)).await.unwrap(), Created::Yes, "seed {seed}");
    }
    assert_eq!(all(&dyn_table).await.len(), 3);
}

async fn step(
    links: &Links,
    rng: &mut fastrand::Rng,
    numbers: &Cell<i64>,
    made: &RefCell<BTreeSet<i64>>,
    seed: u64,
) -> Result<()> {
    let next = || {
        numbers.set(numbers.get() + 1);
        numbers.get()
    };
    let (h, s) = (rng.usize(..3), rng.usize(..3));
    let mut new = link(h, s);
    new.hubspot_read = next();
    let Some(mut read) = links.by_hubspot(&[hubspot(h)]).await?.remove(&hubspot(h)) else {
        if links.create(&mut new).await? == Created::Yes {
            assert!(made.borrow().contains(&new.hubspot_read), "seed {seed}: it was not made");
        }
        return Ok(());
    };
    read.salesforce_read = read.hubspot_read;
    read.hubspot_read = next();
    let number = read.hubspot_read;
    let done = match rng.u8(..5) {
        0 => links.store(std::slice::from_mut(&mut read)).await? == [true],
        1 => links.move_to(&mut read, None, Some(salesforce((s + 1) % 3))).await?,
        2 => links.move_to(&mut read, Some(hubspot((h + 1) % 3)), None).await?,
        3 => links.move_to(&mut read, Some(hubspot((h + 1) % 3)), Some(salesforce(s))).await?,
        _ => {
            links.remove(&read).await?;
            false
        }
    };
    // A move to where it is writes nothing.
    let moved = done && read.version > 0 && made.borrow().contains(&number);
    assert!(!done || moved || read.salesforce_id == salesforce((s + 1) % 3), "seed {seed}: it was not made");
    Ok(())
}

#[tokio::test]
async fn whatever_processes_do_at_once_and_wherever_they_die_links_agree_and_no_change_is_overwritten() {
    // Most faults that were put in on trial were found by the first ten.
    for seed in 0..300 {
        turmoil(seed).await;
    }
}

fn review(kind: ReviewKind, hubspot_value: &str) -> Review {
    let salesforce_id = salesforce(0);
    Review {
        id: Reviews::id_of("people", kind, Some("101"), Some(salesforce_id.as_str()), Some("phone|Phone")),
        sync: "people".into(),
        kind,
        hubspot_id: Some("101".into()),
        salesforce_id: Some(salesforce_id),
        field: Some(ReviewField {
            key: "phone|Phone".into(),
            hubspot: "phone".into(),
            salesforce: "Phone".into(),
            hubspot_value: Some(hubspot_value.into()),
            salesforce_value: None,
            hubspot_before: None,
            salesforce_before: None,
        }),
        candidates: vec![],
        candidates_of: None,
        deleted_in: None,
        why: "changed on both sides".into(),
        opened_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        choice: None,
        version: 0,
    }
}

#[test]
fn an_id_of_a_review_is_short_and_the_same_in_every_run_and_build() {
    let id = |kind, h: Option<&str>, s, field| Reviews::id_of("people", kind, h, s, field);
    let mut ids = BTreeSet::new();
    for kind in [
        ReviewKind::Conflict,
        ReviewKind::Flip,
        ReviewKind::Taken,
        ReviewKind::Duplicate,
        ReviewKind::Identity,
        ReviewKind::Merge,
        ReviewKind::Delete,
    ] {
        for h in [None, Some("1"), Some("11")] {
            for s in [None, Some("1"), Some("003ak0000000001AAA")] {
                for field in [None, Some("phone|Phone")] {
                    let id = id(kind, h, s, field);
                    assert_eq!(id.len(), 10, "{id}");
                    assert!(id.starts_with(|first: char| first.is_ascii_lowercase()), "{id}");
                    assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{id}");
                    assert!(ids.insert(id), "two reviews share an id");
                }
            }
        }
    }
    assert_ne!(
        id(ReviewKind::Delete, Some("1"), None, None),
        Reviews::id_of("x", ReviewKind::Delete, Some("1"), None, None)
    );
    // Reviews that are open must be recognised after an update of hubferry.
    assert_eq!(id(ReviewKind::Conflict, Some("101"), Some("003"), Some("phone|Phone")), "xkqpyvn5yv");
}

#[tokio::test]
async fn a_review_is_opened_once_renewed_when_values_change_and_closed() {
    for (table, _folder) in tables() {
        let reviews = Reviews::new(Rc::clone(&table), Rc::new(Rng::seeded(1)), "people");
        let mut first = review(ReviewKind::Conflict, "+1");
        assert!(reviews.put(&mut first).await.unwrap());
        assert_eq!((first.version, reviews.get(&first.id).await.unwrap()), (1, Some(first.clone())));
        let writes = table.writes();
        let later = "2026-02-02T00:00:00Z".parse().unwrap();
        let mut again = Review { opened_at: later, ..review(ReviewKind::Conflict, "+1") };
        assert!(!reviews.put(&mut again).await.unwrap());
        assert_eq!((&again, table.writes()), (&first, writes), "nothing new: nothing written");
        let mut renewed = Review { opened_at: later, ..review(ReviewKind::Conflict, "+2") };
        assert!(!reviews.put(&mut renewed).await.unwrap());
        assert_eq!((renewed.version, renewed.opened_at), (2, first.opened_at));
        let mut newer = Review { opened_at: later, ..review(ReviewKind::Flip, "+2") };
        reviews.put(&mut newer).await.unwrap();
        assert_eq!(reviews.list(10).await.unwrap(), [renewed.clone(), newer.clone()], "oldest first");
        assert_eq!(reviews.list(1).await.unwrap().len(), 1);
        let found = reviews::find(&*table, &["companies", "people"], &newer.id).await.unwrap();
        assert_eq!(found, Some(newer.clone()));
        for nothing in ["", "none", &"x".repeat(3000)] {
            assert_eq!(reviews::find(&*table, &["companies", "people"], nothing).await.unwrap(), None);
            assert_eq!(reviews.get(nothing).await.unwrap(), None);
            assert!(!reviews.close(nothing).await.unwrap());
        }
        assert!(reviews.close(&newer.id).await.unwrap());
        assert!(!reviews.close(&newer.id).await.unwrap());
        assert_eq!(reviews.list(10).await.unwrap(), [renewed]);
    }
}

#[tokio::test]
async fn a_choice_holds_for_what_was_shown_and_for_nothing_else() {
    for (table, _folder) in tables() {
        let reviews = Reviews::new(Rc::clone(&table), Rc::new(Rng::seeded(1)), "people");
        let mut shown = review(ReviewKind::Conflict, "+1");
        shown.candidates = vec!["7".into(), "5".into()];
        reviews.put(&mut shown).await.unwrap();
        let id = shown.id.clone();
        assert!(reviews.choose(&id, Choice::Side(Side::Hubspot), &shown).await.unwrap());
        assert!(!reviews.choose(&id, Choice::Keep, &shown).await.unwrap(), "somebody else has chosen");
        assert_eq!(reviews.get(&id).await.unwrap().unwrap().choice, Some(Choice::Side(Side::Hubspot)));

        let mut same = review(ReviewKind::Conflict, "+1");
        same.candidates = vec!["5".into(), "7".into()];
        same.why = "changed again".into();
        assert!(!reviews.put(&mut same).await.unwrap());
        assert_eq!(same.choice, Some(Choice::Side(Side::Hubspot)), "the values are what they were");
        let mut other = review(ReviewKind::Conflict, "+2");
        other.candidates = same.candidates.clone();
        reviews.put(&mut other).await.unwrap();
        assert_eq!(other.choice, None, "it was made for other values");
        assert_eq!(reviews.get(&id).await.unwrap(), Some(other.clone()));

        reviews.close(&id).await.unwrap();
        assert!(!reviews.choose(&id, Choice::Keep, &other).await.unwrap(), "it is closed");
        let mut anew = review(ReviewKind::Conflict, "+9");
        reviews.put(&mut anew).await.unwrap();
        assert!(!reviews.choose(&id, Choice::Keep, &shown).await.unwrap(), "that one was another");
        assert_eq!(reviews.get(&id).await.unwrap(), Some(anew));
    }
}

#[tokio::test]
async fn a_lost_answer_or_a_death_leaves_a_review_as_it_was_or_as_it_is_to_be() {
    for fate in [Fate::LostAnswer(1), Fate::DiesBefore(1), Fate::DiesAfter(1)] {
        for (table, _folder) in tables() {
            let on = |fate| {
                let process: Rc<dyn Table> = Process::new(Rc::clone(&table), fate);
                Reviews::new(process, Rc::new(Rng::seeded(2)), "people")
            };
            let (faulty, reviews) = (on(fate), on(Fate::Lives));
            let mut first = review(ReviewKind::Conflict, "+1");
            let new = faulty.put(&mut first).await;
            assert_eq!(new.ok(), (fate == Fate::LostAnswer(1)).then_some(true));
            reviews.put(&mut first).await.unwrap();
            assert_eq!(first.version, 1);

            let chosen = on(fate).choose(&first.id, Choice::Keep, &first).await;
            assert_eq!(chosen.ok(), (fate == Fate::LostAnswer(1)).then_some(true));
            if let Some(shown) = reviews.get(&first.id).await.unwrap().filter(|shown| shown.choice.is_none()) {
                assert!(reviews.choose(&shown.id, Choice::Keep, &shown).await.unwrap());
            }
            assert_eq!(reviews.get(&first.id).await.unwrap().unwrap().choice, Some(Choice::Keep));

            let closed = on(fate).close(&first.id).await;
            assert_eq!(closed.ok(), (fate == Fate::LostAnswer(1)).then_some(true));
            reviews.close(&first.id).await.unwrap();
            assert_eq!(reviews.get(&first.id).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn what_is_to_be_looked_at_again_is_kept_once_a_record() {
    for (table, _folder) in tables() {
        let todos = Todos::new(Rc::clone(&table), "people");
        let creating = TodoWhy::Creating(BTreeMap::from([("phone|Phone".to_owned(), Some("+1".to_owned()))]));
        let todo = |side, why: &TodoWhy| Todo { side, id: "1".into(), why: why.clone(), since: None };
        let (in_hubspot, in_salesforce) =
            (todo(Side::Hubspot, &TodoWhy::Deferred), todo(Side::Salesforce, &TodoWhy::Account(salesforce(3))));
        for one in [&in_hubspot, &in_salesforce, &in_hubspot] {
            todos.put(one).await.unwrap();
        }
        assert_eq!(table.writes(), 2, "what is known is not written again");
        assert_eq!(todos.list(10).await.unwrap(), [in_hubspot.clone(), in_salesforce.clone()]);
        assert_eq!(todos.list(1).await.unwrap().len(), 1);

        let creating = todo(Side::Hubspot, &creating);
        todos.put(&creating).await.unwrap();
        todos.put(&in_hubspot).await.unwrap();
        assert_eq!(todos.list(1).await.unwrap(), [creating], "what may have been created is not forgotten");
        todos.put(&todo(Side::Hubspot, &in_salesforce.why)).await.unwrap();
        assert_eq!(todos.list(1).await.unwrap(), [todo(Side::Hubspot, &in_salesforce.why)]);

        todos.remove(Side::Hubspot, "1").await.unwrap();
        let writes = table.writes();
        todos.remove(Side::Hubspot, "1").await.unwrap();
        assert_eq!((todos.list(10).await.unwrap(), table.writes()), (vec![in_salesforce], writes));
        assert_eq!(Todos::new(table, "companies").list(10).await.unwrap(), []);
    }
}

#[tokio::test]
async fn refusals_are_kept_one_a_record_and_field() {
    for (table, _folder) in tables() {
        let refusals = Refusals::new(Rc::clone(&table), "people");
        let refused = |field: Option<&str>, inputs| Refused {
            hubspot_id: Some("1".into()),
            salesforce_id: Some(salesforce(0)),
            by: Side::Salesforce,
            field: field.map(str::to_owned),
            code: "FIELD_CUSTOM_VALIDATION_EXCEPTION".into(),
            reason: "a rule".into(),
            hint: "look at it".into(),
            inputs,
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
            run: "01RUN".into(),
            piece: 1,
        };
        let only_salesforce = Refused { hubspot_id: None, ..refused(None, 9) };
        let (phone, whole) = (refused(Some("Phone"), 1), refused(None, 2));
        for one in [&phone, &whole, &only_salesforce] {
            refusals.put(one).await.unwrap();
        }
        let writes = table.writes();
        refusals.put(&Refused { at: "2026-03-03T00:00:00Z".parse().unwrap(), ..phone.clone() }).await.unwrap();
        assert_eq!(table.writes(), writes, "the same, refused again");
        assert_eq!(refusals.list(10).await.unwrap(), [phone, whole.clone(), only_salesforce.clone()]);
        let phone = refused(Some("Phone"), 7);
        refusals.put(&phone).await.unwrap();
        assert_eq!(refusals.list(10).await.unwrap(), [phone.clone(), whole.clone(), only_salesforce.clone()]);
        assert_eq!(refusals.list(1).await.unwrap(), [phone]);

        refusals.remove_field(Some("1"), None, Some("Phone")).await.unwrap();
        refusals.remove_field(Some("1"), None, Some("Phone")).await.unwrap();
        assert_eq!(refusals.list(10).await.unwrap(), [whole, only_salesforce.clone()]);
        refusals.remove_field(Some("1"), None, None).await.unwrap();
        assert_eq!(refusals.list(10).await.unwrap(), std::slice::from_ref(&only_salesforce));
        refusals.put(&refused(None, 2)).await.unwrap();
        refusals.remove(Some("1"), only_salesforce.salesforce_id.as_ref()).await.unwrap();
        assert_eq!(refusals.list(10).await.unwrap(), []);
        assert!(refusals.put(&Refused { hubspot_id: None, salesforce_id: None, ..refused(None, 2) }).await.is_err());
    }
}

#[tokio::test]
async fn lost_answers_and_deaths_leave_todo_items_and_refusals_whole() {
    for fate in [Fate::LostAnswer(1), Fate::DiesBefore(1), Fate::DiesAfter(1)] {
        for (table, _folder) in tables() {
            let on = |fate| {
                let process: Rc<dyn Table> = Process::new(Rc::clone(&table), fate);
                Todos::new(process, "people")
            };
            let todo = Todo { side: Side::Hubspot, id: "1".into(), why: TodoWhy::Deferred, since: None };
            assert_eq!(on(fate).put(&todo).await.is_ok(), fate == Fate::LostAnswer(1));
            on(Fate::Lives).put(&todo).await.unwrap();
            assert_eq!(on(Fate::Lives).list(5).await.unwrap(), [todo]);
            assert_eq!(on(fate).remove(Side::Hubspot, "1").await.is_ok(), fate == Fate::LostAnswer(1));
            on(Fate::Lives).remove(Side::Hubspot, "1").await.unwrap();
            assert_eq!(on(Fate::Lives).list(5).await.unwrap(), []);
        }
    }
}
