//! Acknowledged means on disk: a store that is opened again has everything it acknowledged, once.

use std::path::Path;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::event::{Event, What};
use diarwatch_shared::quantity::{Bytes, Span};
use diarwatch_shared::wire::Codec;
use diarwatch_shared::wire::control::Gap;
use diarwatch_shared::wire::v1::FLAG_KEYFRAME;
use proptest::prelude::*;

use super::memory::Tally;
use super::*;

const EPOCH: u64 = 5;

fn config(directory: &Path) -> StoreConfig {
    StoreConfig {
        directory: directory.to_owned(),
        head_window: Span::secs(900),
        retention: Span::secs(86_400),
        bytes_max: Bytes(1 << 30),
    }
}

fn open(directory: &Path) -> Store {
    Store::start(&config(directory), &[], clock::now()).unwrap()
}

fn node() -> NodeId {
    NodeId::new("gpu-01").unwrap()
}

fn sealed(epoch: u64, seq: u64, codec: Codec, payload: Vec<u8>, ack: &Acks) -> Request {
    let arrived = clock::now();
    let header = Header {
        seq,
        base: arrived,
        epoch: Epoch(epoch),
        schema: SchemaId(0),
        ticks: 0,
        series: 0,
        flags: FLAG_KEYFRAME,
        codec,
    };
    let content = Content::decode(&header, &payload, None);
    let bytes = v1::seal(&header, payload).unwrap();
    Request::Frame { node: node(), arrived, live: true, header, content, bytes, ack: ack.clone(), room: None }
}

fn event_frame(seq: u64, ack: &Acks) -> Request {
    let event = Event::new(clock::now(), What::GpuDriverRecovered);
    sealed(EPOCH, seq, Codec::Event, event.to_bytes(), ack)
}

fn gap(epoch: u64, from: u64, to: u64, ack: &Acks) -> Request {
    let gap = Gap { epoch: Epoch(epoch), from, to, reason: "spool_full".into() };
    sealed(epoch, from, Codec::Gap, serde_json::to_vec(&gap).unwrap(), ack)
}

async fn durable_of(store: &Store) -> Vec<Durable> {
    let (answer, answered) = oneshot::channel();
    assert!(store.send(Request::Durable { node: node(), epochs: vec![Epoch(EPOCH)], answer }).await);
    answered.await.unwrap()
}

/// What must be the same after a restart.
fn kept(store: &Store) -> Tally {
    store.read(|memory| memory.tallies().remove(&node()).unwrap_or_default())
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_a_repeat_falls() {
    let dir = tempfile::tempdir().unwrap();
    let ack = Acks::default();
    let store = open(dir.path());
    for seq in [0, 1, 1, 3] {
        assert!(store.send(event_frame(seq, &ack)).await);
    }
    while ack.take().await != [Durable { epoch: Epoch(EPOCH), next: 2 }] {}
    assert_eq!(durable_of(&store).await, [Durable { epoch: Epoch(EPOCH), next: 2 }]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(durable_of(&store).await, [Durable { epoch: Epoch(EPOCH), next: 2 }]);
    assert_eq!(store.read(|memory| (memory.frames_stored(), memory.events.len())), (3, 3));
    assert!(store.send(event_frame(3, &ack)).await);
    assert!(store.send(event_frame(2, &ack)).await);
    assert_eq!(durable_of(&store).await, [Durable { epoch: Epoch(EPOCH), next: 4 }]);
    assert_eq!(store.read(|memory| memory.nodes[&node()].frames_duplicate), 1);
}

#[tokio::test]
async fn an_expected_node_is_known_before_it_sends() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(&config(dir.path()), &[node()], clock::now()).unwrap();
    assert_eq!(store.read(|memory| memory.nodes[&node()].last_arrival), None);
}

#[tokio::test]
async fn counts_and_the_last_sign_of_life_outlive_the_segments_that_are_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let ack = Acks::default();
    let store = open(dir.path());
    assert!(store.send(gap(EPOCH, 0, 100, &ack)).await);
    for seq in 100..1_300 {
        // More than a segment of frames that nobody can read.
        assert!(store.send(sealed(EPOCH, seq, Codec::Event, vec![b'x'; 60_000], &ack)).await);
    }
    assert_eq!(durable_of(&store).await, [Durable { epoch: Epoch(EPOCH), next: 1_300 }]);
    let before = kept(&store);
    drop(store);
    let later = clock::now().plus(Duration::from_secs(86_400));
    let store = Store::start(&config(dir.path()), &[], later).unwrap();
    assert!(dir.path().join("segments/00000001.log").exists(), "a segment was closed");
    assert_eq!(kept(&store), before);
    assert_eq!(store.read(|memory| memory.nodes[&node()].frames_lost), 100);
    assert_eq!(durable_of(&store).await, [Durable { epoch: Epoch(EPOCH), next: 1_300 }]);
}

#[test]
fn a_segment_whose_beginning_cannot_be_read_is_refused_with_what_to_do() {
    for (text, word) in [(&b"{"[..], "move the store's directory away"), (br#"{"version":9}"#, "upgrade")] {
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(dir.path(), UnixMicros(0), clock::now(), |_| ()).unwrap();
        segments.rotate(&[text.to_vec()], UnixMicros(0), u64::MAX, clock::now()).unwrap();
        drop(segments);
        let error = Store::start(&config(dir.path()), &[], clock::now()).unwrap_err();
        assert!(error.to_string().contains(word) && !error.may_pass(), "{error}");
    }
}

proptest! {
    // Each case waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_store_that_is_opened_again_says_what_it_said(
        frames in prop::collection::vec((0_u64..3, 0_u64..20, 0_u64..4), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let ack = Acks::default();
            let store = open(dir.path());
            for (epoch, seq, gap_of) in frames {
                let request = match gap_of {
                    0 => gap(EPOCH + epoch, seq, seq + 3, &ack),
                    _ => sealed(EPOCH + epoch, seq, Codec::Event, b"?".to_vec(), &ack),
                };
                assert!(store.send(request).await);
            }
            let before = (durable_of(&store).await, kept(&store));
            drop(store);
            let store = open(dir.path());
            prop_assert_eq!((durable_of(&store).await, kept(&store)), before);
            Ok(())
        })?;
    }
}
