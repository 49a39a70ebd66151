//! The spool keeps what it took, in order, through restarts, damage and its bound.

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::quantity::{Bytes, Span};

use super::*;

fn config(directory: &Path) -> SpoolConfig {
    SpoolConfig {
        directory: directory.to_owned(),
        bytes_max: Bytes(1 << 30),
        generation_bytes: Bytes(1_000),
        generation_age: Span::secs(3_600),
    }
}

fn open(directory: &Path) -> Spool {
    Spool::open(&config(directory), UnixMicros(1_000)).unwrap()
}

fn seqs(spool: &mut Spool, epoch: Epoch) -> Vec<Seq> {
    let items = spool.read(epoch, 0, 1_000).unwrap();
    items
        .iter()
        .map(|item| match item {
            Item::Frame(seq, _) => *seq,
            Item::Gap(gap) => panic!("{gap:?}"),
        })
        .collect()
}

#[test]
fn frames_survive_a_restart_under_their_old_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let first = spool.epoch();
    spool.append(0, Some((SchemaId(7), b"schema")), b"zero").unwrap();
    spool.append(1, None, b"one").unwrap();
    drop(spool);
    let mut spool = open(dir.path());
    assert!(spool.epoch() > first, "a new run has a new epoch");
    assert_eq!(spool.read(first, 1, 9).unwrap(), [Item::Frame(1, b"one".to_vec())]);
    assert_eq!(spool.schema(SchemaId(7)).unwrap().unwrap(), b"schema");
    assert_eq!(spool.epochs(), [first, spool.epoch()]);
}

#[test]
fn an_acknowledged_generation_gives_its_disk_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let epoch = spool.epoch();
    for seq in 0..20 {
        spool.append(seq, None, &[7; 400]).unwrap();
    }
    let directories = || numbers(dir.path()).unwrap().len();
    assert!(directories() >= 6);
    spool.ack(Durable { epoch, next: 11 }).unwrap();
    assert_eq!(seqs(&mut spool, epoch).last(), Some(&19));
    assert_eq!(spool.stats().frames_unacked, 9);
    spool.ack(Durable { epoch, next: 20 }).unwrap();
    assert_eq!(directories(), 1);
    assert_eq!(spool.stats().frames_unacked, 0);
}

#[test]
fn a_damaged_sled_is_rebuilt_from_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let epoch = spool.epoch();
    spool.append(0, Some((SchemaId(7), b"schema")), b"zero").unwrap();
    spool.append(1, None, b"one").unwrap();
    drop(spool);
    let db = path_of(dir.path(), 0).join("db");
    std::fs::remove_dir_all(&db).unwrap();
    std::fs::write(&db, b"not a directory").unwrap();
    let mut spool = open(dir.path());
    assert_eq!(seqs(&mut spool, epoch), [0, 1]);
    assert_eq!(spool.schema(SchemaId(7)).unwrap().unwrap(), b"schema");
}

#[test]
fn a_full_spool_gives_up_its_oldest_frames_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.bytes_max = Bytes(3_000_000);
    config.generation_bytes = Bytes(1_000_000);
    let mut spool = Spool::open(&config, UnixMicros(1_000)).unwrap();
    let epoch = spool.epoch();
    for seq in 0..100 {
        spool.append(seq, None, &vec![7; 60_000]).unwrap();
    }
    let items = spool.read(epoch, 0, 1_000).unwrap();
    let Some(Item::Gap(gap)) = items.first() else { panic!("no gap: {:?}", spool.stats()) };
    assert_eq!(gap.from, 0);
    assert_eq!(spool.stats().frames_lost, gap.to);
    assert!(
        matches!(items.get(1), Some(Item::Frame(seq, _)) if *seq == gap.to),
        "the frames go on behind the gap"
    );
    drop(spool);
    let mut spool = Spool::open(&config, UnixMicros(1_000)).unwrap();
    assert_eq!(spool.stats().frames_lost, gap.to, "a loss is remembered");
    spool.ack(Durable { epoch, next: 100 }).unwrap();
    assert_eq!(spool.stats().frames_unacked, 0);
    assert!(matches!(spool.read(epoch, 0, 1).unwrap().first(), Some(Item::Frame(..))), "the gap is told");
}

#[test]
fn frames_keep_their_schema_when_the_generation_that_brought_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let epoch = spool.epoch();
    spool.append(0, Some((SchemaId(7), b"schema")), &[7; 1_000]).unwrap();
    for seq in 1..4 {
        spool.append(seq, None, &[7; 1_000]).unwrap();
    }
    spool.ack(Durable { epoch, next: 3 }).unwrap();
    assert_eq!(seqs(&mut spool, epoch), [3], "the generation with the schema is gone");
    assert_eq!(spool.schema(SchemaId(7)).unwrap().unwrap(), b"schema");
    drop(spool);
    let mut spool = open(dir.path());
    assert_eq!(seqs(&mut spool, epoch), [3]);
    assert_eq!(spool.schema(SchemaId(7)).unwrap().unwrap(), b"schema");
}

#[test]
fn the_spool_of_a_living_agent_is_not_touched_by_a_second_one() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let before = std::fs::read_dir(dir.path()).unwrap().count();
    let error = Spool::open(&config(dir.path()), UnixMicros(1_000)).err().unwrap();
    assert!(error.to_string().contains("in use by another agent; stop that one first"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before);
    drop(spool);
    open(dir.path());
}

#[test]
fn an_ack_of_what_was_never_sent_drops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let epoch = spool.epoch();
    spool.append(0, None, b"zero").unwrap();
    spool.ack(Durable { epoch, next: Seq::MAX }).unwrap();
    for number in 0..1_000 {
        spool.ack(Durable { epoch: Epoch(number), next: Seq::MAX }).unwrap();
    }
    assert_eq!(spool.acked.len(), 1, "a foreign ack costs no memory");
    for seq in 1..4 {
        spool.append(seq, None, &[7; 1_000]).unwrap();
    }
    spool.ack(Durable { epoch, next: 1 }).unwrap();
    assert_eq!(spool.stats().frames_unacked, 3);
    assert!(seqs(&mut spool, epoch).ends_with(&[1, 2, 3]));
}

#[test]
fn an_epoch_is_new_even_when_nothing_is_left_of_the_one_before_and_the_clock_went_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spool::open(&config(dir.path()), UnixMicros(9_000)).unwrap().epoch();
    std::fs::remove_dir_all(path_of(dir.path(), 0)).unwrap();
    assert!(Spool::open(&config(dir.path()), UnixMicros(1)).unwrap().epoch() > first);
}

#[test]
fn an_agent_that_is_started_again_and_again_leaves_one_generation() {
    let dir = tempfile::tempdir().unwrap();
    let mut epochs = Vec::new();
    for _ in 0..5 {
        let mut spool = open(dir.path());
        spool.append(0, None, b"started").unwrap();
        epochs.push(spool.epoch());
    }
    assert_eq!(numbers(dir.path()).unwrap(), [0]);
    let mut spool = open(dir.path());
    assert_eq!(spool.epochs().len(), 6);
    assert!(epochs.iter().all(|epoch| seqs(&mut spool, *epoch) == [0]));
}

#[test]
fn an_acknowledged_generation_goes_though_an_older_one_still_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let first = spool.epoch();
    spool.append(0, None, &[7; 1_000]).unwrap();
    drop(spool);
    let mut spool = open(dir.path());
    let second = spool.epoch();
    for seq in 0..3 {
        spool.append(seq, None, &[7; 1_000]).unwrap();
    }
    assert_eq!(numbers(dir.path()).unwrap().len(), 4);
    spool.ack(Durable { epoch: second, next: 2 }).unwrap();
    assert_eq!(numbers(dir.path()).unwrap().len(), 2);
    assert_eq!(seqs(&mut spool, first), [0]);
}

#[test]
fn a_gap_is_never_given_before_the_frames_in_front_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let epoch = spool.epoch();
    for seq in 0..8 {
        spool.append(seq, None, &[7; 500]).unwrap();
    }
    spool.notes.give_up(epoch, Range { from: 8, to: 9 });
    let mut at = 0;
    let mut seen = Vec::new();
    while at < 9 {
        for item in spool.read(epoch, at, 3).unwrap() {
            at = match item {
                Item::Frame(seq, _) => seq + 1,
                Item::Gap(gap) => gap.to,
            };
            seen.push(at);
        }
    }
    assert_eq!(seen, (1..=9).collect::<Vec<_>>());
}

#[test]
fn damaged_notes_are_set_aside_and_those_of_a_later_version_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = dir.path().join("spool.json");
    std::fs::write(&path, b"{\"version\":1,\"lost").unwrap();
    drop(open(dir.path()));
    assert!(dir.path().join("spool.damaged").exists());
    std::fs::write(&path, b"{\"version\":2,\"lost\":0,\"gaps\":[]}").unwrap();
    let error = Spool::open(&config(dir.path()), UnixMicros(1)).err().unwrap();
    assert!(error.to_string().contains("upgrade it"), "{error}");
}

#[test]
fn however_many_generations_an_outage_leaves_few_are_open_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let epoch = spool.epoch();
    for seq in 0..60 {
        spool.append(seq, Some((SchemaId(7), b"schema")), &[7; 400]).unwrap();
    }
    assert!(spool.generations.len() >= 15);
    assert_eq!(spool.awake(), 1, "only the newest is open while nobody reads");
    let mut at = 0;
    while let Some(Item::Frame(seq, _)) = spool.read(epoch, at, 2).unwrap().pop() {
        assert_eq!(spool.schema(SchemaId(7)).unwrap().unwrap(), b"schema");
        assert!(spool.awake() <= 3, "{} sleds are open", spool.awake());
        at = seq + 1;
    }
    assert_eq!(at, 60);
    drop(spool);
    assert_eq!(open(dir.path()).awake(), 1);
}
