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

fn seqs(spool: &Spool, epoch: Epoch) -> Vec<Seq> {
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
    let spool = open(dir.path());
    assert!(spool.epoch() > first, "a new run has a new epoch");
    assert_eq!(spool.read(first, 1, 9).unwrap(), [Item::Frame(1, b"one".to_vec())]);
    assert_eq!(spool.schema(SchemaId(7)).unwrap(), b"schema");
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
    assert_eq!(seqs(&spool, epoch).last(), Some(&19));
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
    let spool = open(dir.path());
    assert_eq!(seqs(&spool, epoch), [0, 1]);
    assert_eq!(spool.schema(SchemaId(7)).unwrap(), b"schema");
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
    assert_eq!(spool.read(epoch, 0, 10).unwrap(), []);
}
