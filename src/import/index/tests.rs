use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use proptest::prelude::*;

use super::{
    format::{BLOCK_ENTRIES, Reader, Writer, object_bytes},
    *,
};
use crate::{
    clock::SystemClock,
    codes,
    error::ErrorKind,
    import::log::{Log, LogState},
    objects::{Location, Objects, memory::MemoryObjects},
    state::{
        Key, Table,
        admission::Admission,
        memory::MemoryTable,
        runs::{RunSource, Runs},
    },
};

fn input(key: &str, properties: &[(&str, &str)]) -> Input {
    Input {
        key: key.to_owned(),
        properties: properties.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect(),
    }
}

fn fingerprint(settings: &str) -> Fingerprint {
    Fingerprint { target: "7/contacts/email".to_owned(), settings: settings.to_owned() }
}

struct Bench {
    objects: MemoryObjects,
    table: Rc<MemoryTable>,
    runs: Rc<Runs>,
    count: u32,
    entries_max: Option<usize>,
}

impl Bench {
    fn new() -> Self {
        let table = Rc::new(MemoryTable::new());
        let runs = Rc::new(Runs::new(table.clone(), Rc::new(SystemClock::new())));
        Self { objects: MemoryObjects::new(), table, runs, count: 0, entries_max: None }
    }

    fn keeper(&self, settings: &str) -> Keeper {
        let mut keeper = Keeper::new(
            Rc::new(self.objects.clone()),
            self.table.clone(),
            self.runs.clone(),
            "contacts",
            "data",
            fingerprint(settings),
        );
        if let Some(max) = self.entries_max {
            keeper.entries_max = max;
        }
        keeper
    }

    async fn log(&self, run_id: &str, fence: i64, saved: LogState) -> Log {
        let folder = Location::new("data", format!("state/import/contacts/{run_id}/"));
        Log::open(Rc::new(self.objects.clone()), folder, "index", fence, saved).await.unwrap()
    }

    /// A new open run; its id.
    async fn admit(&mut self) -> String {
        self.count += 1;
        let id = format!("run{:04}", self.count);
        let source = RunSource {
            bucket: "data".to_owned(),
            key: format!("{id}.csv"),
            version_id: None,
            etag: id.clone(),
            size: 1,
            sequencer: None,
        };
        let admission = self.runs.admit("import", "contacts", &source, "", &id, |_| false).await.unwrap();
        assert!(matches!(admission, Admission::Run(_)));
        id
    }

    /// Delivers a whole file in one invocation; which rows were sent, and what was published.
    async fn deliver(&mut self, rows: &[Input]) -> (Vec<usize>, Published, Option<String>) {
        let id = self.admit().await;
        let keeper = self.keeper("s");
        let mut log = self.log(&id, 1, LogState::default()).await;
        let claim = keeper.begin(&id, 1, true).await.unwrap();
        let mut index = keeper.load(&claim, &log).await.unwrap();
        let sent = send(&mut index, &mut log, rows);
        let note = index.note().map(str::to_owned);
        (sent, keeper.publish(&claim, &log, Ending::Delivered).await.unwrap(), note)
    }

    async fn indexes(&self) -> Vec<Location> {
        self.objects.list(&Location::new("data", "state/import/contacts/index/")).await.unwrap()
    }
}

fn send(index: &mut Index, log: &mut Log, rows: &[Input]) -> Vec<usize> {
    let hasher = Hasher::new(&fingerprint("s"));
    let mut sent = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let mark = hasher.mark(0, row);
        let fate = match index.verdict(mark) {
            Verdict::Unchanged => Fate::Unchanged,
            Verdict::Changed => {
                sent.push(number);
                Fate::Delivered
            }
        };
        log.append(&entry(mark, fate));
    }
    sent
}

fn people(count: usize, changed: usize) -> Vec<Input> {
    let name = |number| if number < changed { "Grace" } else { "Ada" };
    (0..count).map(|number| input(&format!("k{number}"), &[("email", "x"), ("firstname", name(number))])).collect()
}

#[tokio::test]
async fn a_file_that_comes_again_with_one_percent_changed_sends_about_one_percent() {
    let mut bench = Bench::new();
    let (sent, published, note) = bench.deliver(&people(20_000, 0)).await;
    assert_eq!((sent.len(), published.rows, published.skips, note), (20_000, 20_000, true, None));
    let (sent, ..) = bench.deliver(&people(20_000, 0)).await;
    assert_eq!(sent, Vec::<usize>::new());
    let (sent, ..) = bench.deliver(&people(20_000, 200)).await;
    assert!((200..=240).contains(&sent.len()), "{} rows were sent", sent.len());
    let (sent, ..) = bench.deliver(&people(20_000, 200)).await;
    assert_eq!(sent.len(), 0, "what was left out stays in the index, what was sent is in it anew");
    assert_eq!(bench.indexes().await.len(), 1, "only the current index is kept");
}

#[tokio::test]
async fn a_key_that_is_sent_once_is_sent_to_the_end_and_never_compared_again() {
    let mut bench = Bench::new();
    let (old, new) = (input("k", &[("a", "1")]), input("K ", &[("a", "2")]));
    bench.deliver(std::slice::from_ref(&old)).await;
    let (sent, ..) = bench.deliver(&[old.clone(), old.clone()]).await;
    assert_eq!(sent.len(), 0, "equal rows of a key are as one");
    let (sent, ..) = bench.deliver(&[old.clone(), new.clone(), old.clone()]).await;
    assert_eq!(sent, [1, 2], "the third row puts back what the second changed");
    let (sent, ..) = bench.deliver(std::slice::from_ref(&old)).await;
    assert_eq!(sent, [0], "a key that several rows wrote is not known well enough to leave out a row");
}

#[tokio::test]
async fn a_run_that_wrote_nothing_leaves_the_index_as_good_as_before_and_one_that_did_does_not() {
    let mut bench = Bench::new();
    let file = people(10, 0);
    bench.deliver(&file).await;
    for (wrote, sent_next) in [(false, 0), (true, 10)] {
        let id = bench.admit().await;
        let keeper = bench.keeper("s");
        let claim = keeper.begin(&id, 1, true).await.unwrap();
        keeper.release(&claim, wrote).await.unwrap();
        keeper.release(&claim, wrote).await.unwrap();
        assert_eq!(bench.deliver(&file).await.0.len(), sent_next);
    }
}

#[tokio::test]
async fn a_run_that_did_not_use_the_index_or_an_undo_spoils_it() {
    let mut bench = Bench::new();
    let file = people(10, 0);
    assert!(bench.keeper("s").begin_untracked("other", 1).await.unwrap().is_none(), "there was no index yet");
    bench.deliver(&file).await;
    let id = bench.admit().await;
    let claim = bench.keeper("s").begin_untracked(&id, 1).await.unwrap().unwrap();
    bench.keeper("s").release(&claim, true).await.unwrap();
    assert_eq!(bench.deliver(&file).await.0.len(), 10);
    assert_eq!(bench.deliver(&file).await.0.len(), 0);
    bench.keeper("s").distrust("undo").await.unwrap();
    assert_eq!(bench.deliver(&file).await.0.len(), 10);
}

#[tokio::test]
async fn two_runs_at_once_leave_no_row_to_compare_with_but_all_keys() {
    for earlier_ends_first in [true, false] {
        let mut bench = Bench::new();
        let keeper = bench.keeper("s");
        let (one, two) = (bench.admit().await, bench.admit().await);
        let first = keeper.begin(&one, 1, true).await.unwrap();
        let second = keeper.begin(&two, 1, true).await.unwrap();
        let mut runs = [(&one, &first, 5), (&two, &second, 8)];
        if !earlier_ends_first {
            runs.reverse();
        }
        let mut keys = 0;
        for (id, claim, count) in runs {
            let mut log = bench.log(id, 1, LogState::default()).await;
            send(&mut Index::default(), &mut log, &people(count, 0));
            let published = keeper.publish(claim, &log, Ending::Delivered).await.unwrap();
            assert!(!published.skips);
            keys = published.rows;
        }
        assert_eq!(keys, 8);
        let (sent, published, _) = bench.deliver(&people(8, 0)).await;
        assert_eq!((sent.len(), published.skips), (8, true));
    }
}

#[tokio::test]
async fn a_run_that_is_still_open_keeps_the_next_ones_from_leaving_out_rows() {
    let mut bench = Bench::new();
    let file = people(8, 0);
    bench.deliver(&file).await;
    let yielded = bench.admit().await;
    bench.keeper("s").begin(&yielded, 1, true).await.unwrap();
    for _ in 0..2 {
        let (sent, published, note) = bench.deliver(&file).await;
        assert_eq!((sent.len(), published.skips, note.is_some()), (8, false, true));
    }
}

#[test]
fn what_was_sent_before_a_crash_is_known_after_it() {
    let row = |a| Line::Row { key: 0, upper: false, a: Some(a), b: None };
    let first = Plan {
        lines: vec![row(1)],
        narrow: (false, false),
        crash: None,
        intruder: None,
        finish: Finish::Complete,
        mirror: false,
    };
    let second = Plan { lines: vec![row(2), row(1)], crash: Some((1, 1)), ..first.clone() };
    let world = play(&[first, second]);
    assert_eq!(world.indexed["k0"]["a"], "1");
}

#[tokio::test]
async fn an_invocation_that_lost_its_lease_cannot_publish() {
    let mut bench = Bench::new();
    let keeper = bench.keeper("s");
    let id = bench.admit().await;
    let old = keeper.begin(&id, 1, true).await.unwrap();
    let new = keeper.begin(&id, 2, false).await.unwrap();
    let log = bench.log(&id, 1, LogState::default()).await;
    assert_eq!(keeper.publish(&old, &log, Ending::Delivered).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(keeper.begin(&id, 1, false).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert!(keeper.publish(&new, &log, Ending::Delivered).await.unwrap().skips);
}

#[tokio::test]
async fn a_run_that_published_and_died_before_it_was_finished_leaves_the_index_alone() {
    let mut bench = Bench::new();
    let keeper = bench.keeper("s");
    let id = bench.admit().await;
    let claim = keeper.begin(&id, 1, true).await.unwrap();
    let mut log = bench.log(&id, 1, LogState::default()).await;
    send(&mut Index::default(), &mut log, &people(9, 0));
    let published = keeper.publish(&claim, &log, Ending::Delivered).await.unwrap();
    let again = keeper.begin(&id, 2, false).await.unwrap();
    let missing = keeper.missing(&again, &log, 100).await.unwrap();
    assert_eq!((missing.known, missing.count, missing.is_certain()), (9, 0, true));
    assert_eq!(keeper.publish(&again, &log, Ending::Delivered).await.unwrap(), published);
    assert_eq!(bench.deliver(&people(9, 0)).await.0.len(), 0);
}

/// A table that carries out each change and loses the answer, every other time.
struct Lossy(Rc<MemoryTable>, std::cell::Cell<bool>);

#[async_trait::async_trait(?Send)]
impl Table for Lossy {
    async fn get(&self, key: &Key) -> crate::Result<Option<crate::state::Item>> {
        self.0.get(key).await
    }

    async fn update(&self, key: &Key, update: crate::state::Update) -> crate::Result<crate::state::Changed> {
        if !self.1.replace(!self.1.get()) {
            self.0.lose_next_answer();
        }
        self.0.update(key, update).await
    }

    async fn delete(&self, key: &Key, condition: Option<crate::state::Condition>) -> crate::Result<bool> {
        self.0.delete(key, condition).await
    }

    async fn query(&self, pk: &str, limit: usize) -> crate::Result<Vec<(Key, crate::state::Item)>> {
        self.0.query(pk, limit).await
    }

    fn writes(&self) -> u64 {
        self.0.writes()
    }
}

#[tokio::test]
async fn a_lost_answer_of_the_table_changes_nothing() {
    let mut bench = Bench::new();
    let file = people(9, 0);
    for wanted in [9, 0] {
        let id = bench.admit().await;
        let table = Rc::new(Lossy(bench.table.clone(), false.into()));
        let objects = Rc::new(bench.objects.clone());
        let keeper = Keeper::new(objects, table, bench.runs.clone(), "contacts", "data", fingerprint("s"));
        assert_eq!(keeper.begin(&id, 1, true).await.unwrap_err().kind(), ErrorKind::Unknown);
        let claim = keeper.begin(&id, 1, true).await.unwrap();
        let mut log = bench.log(&id, 1, LogState::default()).await;
        let mut index = keeper.load(&claim, &log).await.unwrap();
        assert_eq!(send(&mut index, &mut log, &file).len(), wanted);
        assert_eq!(keeper.publish(&claim, &log, Ending::Delivered).await.unwrap_err().kind(), ErrorKind::Unknown);
        let published = keeper.publish(&claim, &log, Ending::Delivered).await.unwrap();
        assert_eq!((published.rows, published.skips), (9, true));
    }
}

#[tokio::test]
async fn a_damaged_or_truncated_or_deleted_index_is_an_absent_one_with_a_note() {
    for damage in 0..4 {
        let mut bench = Bench::new();
        let file = people(5_000, 0);
        bench.deliver(&file).await;
        let at = bench.indexes().await.remove(0);
        let mut bytes = bench.objects.contents(&at).unwrap().to_vec();
        match damage {
            0 => bytes.truncate(bytes.len() - 1),
            1 => bytes[70_000] ^= 1,
            2 => bytes[0] ^= 1,
            _ => bytes.clear(),
        }
        if bytes.is_empty() {
            bench.objects.delete(&at).await.unwrap();
        } else {
            bench.objects.insert(&at, bytes);
        }
        let id = bench.admit().await;
        let keeper = bench.keeper("s");
        let claim = keeper.begin(&id, 1, true).await.unwrap();
        let log = bench.log(&id, 1, LogState::default()).await;
        let missing = keeper.missing(&claim, &log, 10_000).await.unwrap();
        assert!(!missing.is_certain() && missing.note.is_some(), "nothing may be archived by it");
        keeper.release(&claim, false).await.unwrap();
        let (sent, published, note) = bench.deliver(&file).await;
        assert_eq!(sent.len(), 5_000);
        assert!(note.unwrap().contains("could not be used"));
        assert_eq!((published.rows, published.skips), (5_000, true));
        assert_eq!(bench.deliver(&file).await.0.len(), 0);
    }
}

#[tokio::test]
async fn an_index_that_cannot_be_fetched_just_now_is_an_error_not_an_absent_one() {
    let mut bench = Bench::new();
    bench.deliver(&people(10, 0)).await;
    let id = bench.admit().await;
    let keeper = bench.keeper("s");
    let claim = keeper.begin(&id, 1, true).await.unwrap();
    let log = bench.log(&id, 1, LogState::default()).await;
    bench.objects.fail_next(ErrorKind::Unavailable { retry_after: None }, codes::OBJECTS_UNAVAILABLE);
    keeper.load(&claim, &log).await.unwrap_err();
    assert_eq!(keeper.load(&claim, &log).await.unwrap().rows(), 10);
}

#[tokio::test]
async fn of_a_file_larger_than_memory_a_part_is_compared_and_the_note_says_so() {
    let mut bench = Bench::new();
    let file = people(1_000, 0);
    bench.deliver(&file).await;
    let id = bench.admit().await;
    let mut keeper = bench.keeper("s");
    keeper.held_max = 250;
    let claim = keeper.begin(&id, 1, true).await.unwrap();
    let mut log = bench.log(&id, 1, LogState::default()).await;
    let mut index = keeper.load(&claim, &log).await.unwrap();
    assert!(index.note().unwrap().contains("1000 keys, of which 250"));
    let sent = send(&mut index, &mut log, &file).len();
    assert!((750..=760).contains(&sent), "{sent}");
}

#[tokio::test]
async fn a_log_of_too_many_keys_leaves_no_index_and_archives_nothing() {
    let mut bench = Bench::new();
    bench.deliver(&people(10, 0)).await;
    let id = bench.admit().await;
    let mut keeper = bench.keeper("s");
    keeper.entries_max = 2;
    let claim = keeper.begin(&id, 1, true).await.unwrap();
    let mut log = bench.log(&id, 1, LogState::default()).await;
    send(&mut Index::default(), &mut log, &people(100, 0));
    let missing = keeper.missing(&claim, &log, 1_000).await.unwrap();
    assert!(!missing.is_certain());
    let published = keeper.publish(&claim, &log, Ending::Delivered).await.unwrap();
    assert_eq!((published.rows, published.skips, published.note.is_some()), (0, false, true));
    assert_eq!(bench.indexes().await.len(), 0);
    assert_eq!(bench.deliver(&people(10, 0)).await.0.len(), 10);
}

#[tokio::test]
async fn the_brake_sees_the_count_even_where_the_keys_are_too_many() {
    let mut bench = Bench::new();
    bench.deliver(&people(100, 0)).await;
    let id = bench.admit().await;
    let keeper = bench.keeper("s");
    let claim = keeper.begin(&id, 1, true).await.unwrap();
    let mut log = bench.log(&id, 1, LogState::default()).await;
    send(&mut Index::default(), &mut log, &people(10, 0));
    let missing = keeper.missing(&claim, &log, 5).await.unwrap();
    assert_eq!((missing.known, missing.count, missing.is_certain()), (100, 90, false));
    let missing = keeper.missing(&claim, &log, 90).await.unwrap();
    assert!(missing.is_certain());
    let hasher = Hasher::new(&fingerprint("s"));
    assert!(missing.contains(hasher.key(0, "k50")) && !missing.contains(hasher.key(0, "k5")));
}

#[test]
fn a_row_hash_heeds_values_names_and_clearing_but_not_the_order_of_columns() {
    let hasher = Hasher::new(&fingerprint("s"));
    let row = |properties: &[(&str, &str)]| hasher.row(&input("k", properties));
    let base = row(&[("a", "1"), ("b", "2")]);
    assert_eq!(base, row(&[("b", "2"), ("a", "1")]));
    let others = [
        row(&[("a", "2"), ("b", "1")]),
        row(&[("a", "1")]),
        row(&[("a", "1"), ("b", "")]),
        row(&[("a", "12"), ("b", "")]),
        row(&[("b", "1"), ("a", "2")]),
        row(&[("ab", "12")]),
        hasher.row(&input("K", &[("a", "1"), ("b", "2")])),
    ];
    let distinct: BTreeSet<_> = others.iter().chain([&base]).collect();
    assert_eq!(distinct.len(), others.len(), "but for the two that clear nothing else and say the same");
}

#[test]
fn keys_of_different_records_of_a_row_and_of_different_accounts_differ() {
    let hasher = Hasher::new(&fingerprint("s"));
    let elsewhere = Hasher::new(&Fingerprint { target: "8/contacts/email".to_owned(), settings: "s".to_owned() });
    assert_ne!(hasher.key(0, "k"), hasher.key(1, "k"));
    assert_ne!(hasher.key(0, "k"), elsewhere.key(0, "k"));
    let other_settings = Hasher::new(&fingerprint("other"));
    assert_eq!(hasher.key(0, "k"), other_settings.key(0, "k"), "the keys outlive a change of settings");
}

#[test]
fn a_million_rows_take_16_mb_in_s3_and_less_in_memory() {
    assert!(object_bytes(1_000_000) < 16_003_000);
    assert_eq!(size_of::<Mark>(), ENTRY_BYTES);
    let million = Index::new((0..1_000_000).collect(), None);
    assert!(million.bytes() <= 8_000_000 + 4_194_304, "{}", million.bytes());
    let held = HELD_ROWS_MAX * size_of::<u64>() + SENT_BITS_MAX / 8;
    assert!(held <= 25_000_000, "{held}");
    assert!(super::merge::SORT_ENTRIES_MAX * size_of::<(u64, u64)>() + MISSING_MAX * 8 <= 33_000_000);
}

#[tokio::test]
async fn an_index_reads_back_as_it_was_written_at_every_size_around_a_block() {
    let objects = MemoryObjects::new();
    let at = Location::new("data", "index");
    for rows in [0, 1, BLOCK_ENTRIES - 1, BLOCK_ENTRIES, BLOCK_ENTRIES + 1, 20 * BLOCK_ENTRIES + 7] {
        let mut writer = Writer::create(&objects, &at).await.unwrap();
        for key in 0..rows as u64 {
            writer.push(key * 3, key | 4);
            if key % 1_000 == 0 {
                writer.flush().await.unwrap();
            }
        }
        assert_eq!(writer.finish().await.unwrap(), rows as u64);
        assert_eq!(objects.contents(&at).unwrap().len() as u64, object_bytes(rows as u64));
        let mut reader = Reader::open(&objects, &at, rows as u64).await.unwrap();
        for key in 0..rows as u64 {
            assert_eq!(reader.peek().await.unwrap(), Some((key * 3, key | 4)));
            reader.advance();
        }
        assert_eq!(reader.peek().await.unwrap(), None);
    }
}

/// A line of a generated file.
#[derive(Debug, Clone)]
enum Line {
    Row {
        key: u8,
        upper: bool,
        a: Option<u8>,
        b: Option<u8>,
    },
    /// HubSpot refuses it.
    Refused {
        key: u8,
    },
    /// The mapping refuses it.
    Unmapped {
        key: u8,
    },
    Unreadable,
}

#[derive(Debug, Clone, Copy)]
enum Finish {
    Complete,
    /// Stops after so many lines; two more were sent and are in no log.
    Cut(usize),
    /// As before, and nothing is published.
    Released(usize),
    /// Stops before anything is sent.
    Nothing,
}

#[derive(Debug, Clone)]
struct Plan {
    lines: Vec<Line>,
    /// Settings of the invocations before and after the crash; with `true`, column `b` is not mapped.
    narrow: (bool, bool),
    /// Checkpoint and crash, in lines.
    crash: Option<(usize, usize)>,
    /// Another run of the import, from start to end, after the crash.
    intruder: Option<Vec<Line>>,
    finish: Finish,
    mirror: bool,
}

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        12 => (0u8..5, any::<bool>(), proptest::option::of(0u8..3), proptest::option::of(0u8..2))
            .prop_map(|(key, upper, a, b)| Line::Row { key, upper, a, b }),
        1 => (0u8..5).prop_map(|key| Line::Refused { key }),
        1 => (0u8..5).prop_map(|key| Line::Unmapped { key }),
        1 => Just(Line::Unreadable),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let lines = || {
        // Files that come again nearly as they were, and others.
        let usual = (0..5u8).map(|key| Line::Row { key, upper: false, a: Some(1), b: None }).collect::<Vec<_>>();
        prop_oneof![
            Just(usual.clone()),
            (0..5usize, line()).prop_map(move |(at, line)| {
                let mut lines = usual.clone();
                lines[at] = line;
                lines
            }),
            proptest::collection::vec(line(), 0..9),
        ]
    };
    let finish = prop_oneof![
        5 => Just(Finish::Complete),
        1 => (0..9usize).prop_map(Finish::Cut),
        1 => (0..9usize).prop_map(Finish::Released),
        1 => Just(Finish::Nothing),
    ];
    let narrow = prop_oneof![4 => Just((false, false)), 1 => any::<(bool, bool)>()];
    let crash = proptest::option::weighted(0.4, (0..9usize, 0..9usize));
    let intruder = proptest::option::weighted(0.3, lines());
    (lines(), narrow, crash, intruder, finish, any::<bool>()).prop_map(
        |(lines, narrow, crash, intruder, finish, mirror)| Plan { lines, narrow, crash, intruder, finish, mirror },
    )
}

type Records = BTreeMap<String, BTreeMap<String, String>>;

/// HubSpot with the index, HubSpot without it, and what the import should know.
#[derive(Default)]
struct World {
    indexed: Records,
    naive: Records,
    known: BTreeSet<String>,
    skipped: usize,
}

fn put(records: &mut Records, input: &Input) {
    let record = records.entry(input.folded_key()).or_default();
    record.extend(input.properties.iter().map(|(name, value)| (name.to_string(), value.clone())));
}

fn mapped(line: &Line, narrow: bool) -> Option<Input> {
    let (Line::Row { key, .. } | Line::Refused { key } | Line::Unmapped { key }) = line else { return None };
    let mut made = input(&format!("k{key}"), &[]);
    if let Line::Row { upper, a, b, .. } = line {
        if *upper {
            made.key = made.key.to_uppercase();
        }
        let text = |value: u8| if value == 0 { String::new() } else { value.to_string() };
        made.properties.extend(a.map(|a| ("a".into(), text(a))));
        made.properties.extend(b.filter(|_| !narrow).map(|b| ("b".into(), text(b))));
    }
    Some(made)
}

impl World {
    /// One line is worked on; its entry for the log.
    fn work(&mut self, index: &mut Index, line: &Line, narrow: bool) -> [u8; ENTRY_BYTES] {
        let hasher = Hasher::new(&fingerprint(""));
        let Some(input) = mapped(line, narrow) else { return unreadable_entry() };
        if matches!(line, Line::Unmapped { .. }) {
            return entry(Mark::of_key(hasher.key(0, &input.folded_key())), Fate::Undelivered);
        }
        let mark = hasher.mark(0, &input);
        if matches!(line, Line::Refused { .. }) {
            return match index.verdict(mark) {
                Verdict::Unchanged => entry(mark, Fate::Unchanged),
                Verdict::Changed => entry(mark, Fate::Undelivered),
            };
        }
        put(&mut self.naive, &input);
        match index.verdict(mark) {
            Verdict::Unchanged => {
                self.skipped += 1;
                entry(mark, Fate::Unchanged)
            }
            Verdict::Changed => {
                put(&mut self.indexed, &input);
                entry(mark, Fate::Delivered)
            }
        }
    }

    fn keys(lines: &[Line], delivered: bool) -> BTreeSet<String> {
        let of_interest = lines.iter().filter(|line| !delivered || matches!(line, Line::Row { .. }));
        of_interest.filter_map(|line| Some(mapped(line, false)?.folded_key())).collect()
    }

    async fn run(&mut self, bench: &mut Bench, plan: &Plan) {
        let id = bench.admit().await;
        let settings = |narrow: bool| if narrow { "narrow" } else { "wide" };
        let (mut from, mut saved, mut fence, mut narrow) = (0, LogState::default(), 1, plan.narrow.0);
        if let Some((checkpoint, crash)) = plan.crash {
            let keeper = bench.keeper(settings(narrow));
            let claim = keeper.begin(&id, fence, true).await.unwrap();
            let mut log = bench.log(&id, fence, LogState::default()).await;
            let mut index = keeper.load(&claim, &log).await.unwrap();
            for (number, line) in plan.lines.iter().enumerate().take(crash) {
                log.append(&self.work(&mut index, line, narrow));
                if number + 1 == checkpoint {
                    let unsaved = log.unsaved();
                    unsaved.write(&bench.objects).await.unwrap();
                    (from, saved) = (checkpoint, unsaved.state);
                }
            }
            if let Some(lines) = &plan.intruder {
                let finish = Finish::Complete;
                let intruder =
                    Plan { lines: lines.clone(), narrow: (false, false), crash: None, intruder: None, finish, ..*plan };
                Box::pin(self.run(bench, &intruder)).await;
            }
            fence = 2;
            narrow = plan.narrow.1;
        }
        let keeper = bench.keeper(settings(narrow));
        let claim = keeper.begin(&id, fence, from == 0).await.unwrap();
        let mut log = bench.log(&id, fence, saved).await;
        let mut index = keeper.load(&claim, &log).await.unwrap();
        let stop = match plan.finish {
            Finish::Complete => plan.lines.len(),
            Finish::Cut(at) | Finish::Released(at) => at.max(from).min(plan.lines.len()),
            Finish::Nothing => from,
        };
        for line in &plan.lines[from..stop] {
            log.append(&self.work(&mut index, line, narrow));
        }
        match plan.finish {
            Finish::Complete => self.complete(&keeper, &claim, &log, plan).await,
            Finish::Nothing => keeper.release(&claim, plan.crash.is_some()).await.unwrap(),
            Finish::Cut(_) | Finish::Released(_) => {
                for line in plan.lines[stop..].iter().take(2) {
                    self.work(&mut index, line, narrow);
                }
                if matches!(plan.finish, Finish::Cut(_)) {
                    keeper.publish(&claim, &log, Ending::CutShort).await.unwrap();
                    self.known.extend(Self::keys(&plan.lines[..stop], true));
                } else {
                    keeper.release(&claim, true).await.unwrap();
                }
            }
        }
        assert_eq!(self.indexed, self.naive, "after {id}");
    }

    async fn complete(&mut self, keeper: &Keeper, claim: &Claim, log: &Log, plan: &Plan) {
        let (seen, delivered) = (Self::keys(&plan.lines, false), Self::keys(&plan.lines, true));
        let mut ending = Ending::Delivered;
        if plan.mirror {
            let hasher = Hasher::new(&fingerprint(""));
            let missing = keeper.missing(claim, log, 100).await.unwrap();
            let expected: BTreeSet<String> = self.known.difference(&seen).cloned().collect();
            let hashes: BTreeSet<u64> = expected.iter().map(|key| hasher.key(0, key)).collect();
            assert_eq!(missing.keys().collect::<BTreeSet<_>>(), hashes);
            assert_eq!(missing.count, expected.len() as u64);
            if missing.is_certain() {
                assert!(!plan.lines.iter().any(|line| matches!(line, Line::Unreadable)));
                self.indexed.retain(|key, _| !missing.contains(hasher.key(0, key)));
                self.naive.retain(|key, _| !expected.contains(key));
            } else {
                ending = Ending::NotArchived;
            }
        }
        let published = keeper.publish(claim, log, ending).await.unwrap();
        if published.skips && ending == Ending::Delivered {
            self.known.retain(|key| seen.contains(key));
        }
        self.known.extend(delivered);
        assert_eq!(published.rows, self.known.len() as u64);
    }
}

fn play(plans: &[Plan]) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut world, mut bench) = (World::default(), Bench::new());
        // So small that each key has a pass of its own.
        bench.entries_max = Some(2);
        for plan in plans {
            world.run(&mut bench, plan).await;
        }
        world
    })
}

proptest! {
    /// Whatever files come, with rows refused or unreadable, runs cut off, resumed, crossed by other runs or given other settings:
    /// HubSpot ends up as if every row had been sent, and mirror archives what earlier files delivered and this one lacks, no more.
    #[test]
    fn leaving_rows_out_by_the_index_changes_nothing(plans in proptest::collection::vec(plan(), 1..7)) {
        play(&plans);
    }
}

#[test]
fn the_model_does_leave_rows_out() {
    let lines: Vec<_> = (0..5).map(|key| Line::Row { key, upper: false, a: Some(1), b: None }).collect();
    let plan = Plan {
        lines,
        narrow: (false, false),
        crash: Some((2, 4)),
        intruder: None,
        finish: Finish::Complete,
        mirror: true,
    };
    assert_eq!(play(&[plan.clone(), plan.clone()]).skipped, 4 + 3, "two of them in both invocations");
    let intruded = Plan { intruder: Some(plan.lines.clone()), ..plan.clone() };
    assert_eq!(play(&[plan.clone(), intruded, plan]).skipped, 4, "none after another run came between");
}

#[tokio::test]
async fn the_pointer_says_what_it_is_when_it_cannot_be_read() {
    let bench = Bench::new();
    let key = Key::new("index#contacts", "current");
    let update = crate::state::Update { set: vec![("version", 1.into()), ("state", "{".into())], ..Default::default() };
    bench.table.update(&key, update).await.unwrap();
    let error = bench.keeper("s").begin("run", 1, true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("index#contacts"));
}
