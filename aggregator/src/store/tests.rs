//! Acknowledged means on disk: a store that is opened again has everything it acknowledged, once.

use std::path::Path;

use diarwatch_shared::event::What;
use diarwatch_shared::quantity::{Bytes, Span};
use diarwatch_shared::wire::v1::FLAG_KEYFRAME;

use super::*;

fn config(directory: &Path) -> StoreConfig {
    StoreConfig {
        directory: directory.to_owned(),
        head_window: Span::secs(900),
        retention: Span::secs(86_400),
        bytes_max: Bytes(1 << 30),
    }
}

fn node() -> NodeId {
    NodeId::new("gpu-01").unwrap()
}

fn event_frame(seq: u64, ack: &mpsc::Sender<Durable>) -> Request {
    let event = Event::new(clock::now(), What::GpuDriverRecovered);
    let header = Header {
        seq,
        base: event.at,
        epoch: Epoch(5),
        schema: SchemaId(0),
        ticks: 0,
        series: 0,
        flags: FLAG_KEYFRAME,
        codec: Codec::Event,
    };
    let bytes = v1::seal(&header, event.to_bytes()).unwrap();
    Request::Frame {
        node: node(),
        arrived: clock::now(),
        header,
        content: Content::Event(event),
        bytes,
        ack: ack.clone(),
    }
}

async fn durable_of(store: &Store) -> Vec<Durable> {
    let (answer, answered) = oneshot::channel();
    assert!(store.send(Request::Durable { node: node(), epochs: vec![Epoch(5)], answer }).await);
    answered.await.unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_a_repeat_falls() {
    let dir = tempfile::tempdir().unwrap();
    let (ack, mut acks) = mpsc::channel(16);
    let store = Store::start(&config(dir.path()), &[], clock::now()).unwrap();
    for seq in [0, 1, 1, 3] {
        assert!(store.send(event_frame(seq, &ack)).await);
    }
    while acks.recv().await != Some(Durable { epoch: Epoch(5), next: 2 }) {}
    assert_eq!(durable_of(&store).await, [Durable { epoch: Epoch(5), next: 2 }]);
    drop(store);
    let store = Store::start(&config(dir.path()), &[], clock::now()).unwrap();
    assert_eq!(durable_of(&store).await, [Durable { epoch: Epoch(5), next: 2 }]);
    assert_eq!(store.read(|memory| (memory.frames_stored(), memory.events.len())), (3, 3));
    assert!(store.send(event_frame(3, &ack)).await);
    assert!(store.send(event_frame(2, &ack)).await);
    assert_eq!(durable_of(&store).await, [Durable { epoch: Epoch(5), next: 4 }]);
    assert_eq!(store.read(|memory| memory.nodes[&node()].frames_duplicate), 1);
}

#[tokio::test]
async fn an_expected_node_is_known_before_it_sends() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(&config(dir.path()), &[node()], clock::now()).unwrap();
    assert_eq!(store.read(|memory| memory.nodes[&node()].last_arrival), None);
}
