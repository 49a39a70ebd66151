//! The intake with a real process, real certificates and real QUIC: what was acknowledged is there
//! after SIGKILL, whatever arrives in whatever order, and what breaks a limit harms nobody else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::agent::{
    Agent, connect, connect_from, ended, frame_of, hear_one, hello, identity, key, ready, schema_of, seal,
};
use common::{NEIGHBOUR, NODE, Site, make_pki, until, until_so};
use diarwatch_shared::clock;
use diarwatch_shared::identity::provider;
use diarwatch_shared::limits::{FRAME_BYTES_MAX, RUNS_AHEAD_MAX};
use diarwatch_shared::node::Epoch;
use diarwatch_shared::schema::{Schema, schema_id};
use diarwatch_shared::wire::control::{Durable, FromAggregator};
use diarwatch_shared::wire::record::Kind;
use diarwatch_shared::wire::{ALPN, Codec};
use quinn::VarInt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Frames of one node that are on disk.
async fn stored(site: &Site, node: &str) -> f64 {
    site.metric(&format!("diarwatch_frames_stored_total{{node=\"{node}\"}}")).await
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_sigkill() {
    let mut site = Site::running("").await;
    let mut known = 0;
    for round in 0..3_u32 {
        let mut agent = Agent::join(&site, NODE, 7).await;
        assert_eq!(agent.durable(), known, "round {round}");
        for seq in known..known + 20 {
            agent.live.send(seq, &[ready("w", Ok(1.0))]).await;
        }
        let acked = agent.acked(known + 1).await;
        site.kill();
        site.start().await;
        let again = Agent::join(&site, NODE, 7).await;
        assert!(again.durable() >= acked, "{} is less than {acked}", again.durable());
        known = again.durable();
        assert_eq!(site.node(NODE).await["frames_stored"], known);
        assert_eq!(site.node(NODE).await["epoch_frames"], known);
    }
    assert_eq!(site.node(NEIGHBOUR).await["frames_stored"].as_u64().unwrap_or(0), 0);
}

#[tokio::test]
async fn a_repeat_is_dropped_and_counted_also_after_a_restart() {
    let mut site = Site::running("").await;
    let rows = [ready("w", Ok(1.0))];
    let mut agent = Agent::join(&site, NODE, 7).await;
    for seq in [0, 1, 1, 0, 2] {
        agent.live.send(seq, &rows).await;
    }
    agent.acked(3).await;
    assert_eq!(site.node(NODE).await["frames_stored"], 3);
    assert_eq!(site.node(NODE).await["frames_duplicate"], 2);
    site.kill();
    site.start().await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    for seq in 0..4 {
        agent.live.send(seq, &rows).await;
    }
    agent.acked(4).await;
    assert_eq!(site.node(NODE).await["frames_stored"], 4);
    assert_eq!(site.node(NODE).await["frames_duplicate"], 3);
}

#[tokio::test]
async fn live_frames_before_the_backlog_end_in_one_contiguous_ack() {
    let site = Site::running("").await;
    let rows = [ready("w", Ok(1.0))];
    let mut agent = Agent::join(&site, NODE, 7).await;
    agent.live.send(10, &rows).await;
    assert_eq!(agent.ack().await, 0, "what is behind a hole is not acknowledged");
    let mut backlog = agent.backlog().await;
    for seq in (0..10).rev() {
        backlog.send(seq, &rows).await;
    }
    agent.live.send(11, &rows).await;
    assert_eq!(agent.acked(11).await.max(12), 12);
    until_so("all are stored once", async || stored(&site, NODE).await == 12.0).await;
}

#[tokio::test]
async fn a_gap_closes_a_hole_and_only_what_was_lost_is_counted() {
    let mut site = Site::running("").await;
    let rows = [ready("w", Ok(1.0))];
    let mut agent = Agent::join(&site, NODE, 7).await;
    agent.live.send(0, &rows).await;
    agent.live.send(3, &rows).await;
    agent.live.send(9, &rows).await;
    // 3 is here already: five of these six are lost.
    agent.live.gap(2, 8).await;
    agent.live.gap(1, 9).await;
    assert_eq!(agent.acked(10).await, 10);
    let expect = async |site: &Site| {
        let node = site.node(NODE).await;
        assert_eq!((&node["frames_stored"], &node["frames_lost"]), (&3.into(), &7.into()));
        assert_eq!(node["epoch_frames"], 3, "a gap is no frame");
    };
    expect(&site).await;
    site.kill();
    site.start().await;
    expect(&site).await;
}

#[tokio::test]
async fn gaps_without_measure_do_no_harm() {
    let mut site = Site::running("").await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    agent.live.gap(0, u64::MAX).await;
    agent.acked(u64::MAX).await;
    agent.live.epoch(8);
    agent.live.gap(0, u64::MAX).await;
    agent.live.send(u64::MAX, &[ready("w", Ok(1.0))]).await;
    while agent.any_ack().await != [Durable { epoch: Epoch(8), next: u64::MAX }] {}
    let mut neighbour = Agent::join(&site, NEIGHBOUR, 1).await;
    neighbour.live.send(0, &[ready("w", Ok(1.0))]).await;
    neighbour.acked(1).await;
    assert!(site.lives());
}

#[tokio::test]
async fn every_epoch_of_a_backlog_gets_its_ack_however_many_there_are() {
    let site = Site::running("").await;
    let mut agent = Agent::join(&site, NODE, 1_000).await;
    let mut backlog = agent.backlog().await;
    let rows = [ready("w", Ok(1.0))];
    for epoch in 0..200 {
        backlog.epoch(epoch);
        for seq in 0..3 {
            backlog.send(seq, &rows).await;
        }
    }
    let mut missing: std::collections::BTreeSet<u64> = (0..200).collect();
    while !missing.is_empty() {
        for durable in agent.any_ack().await {
            if durable.next == 3 {
                missing.remove(&durable.epoch.0);
            }
        }
    }
}

#[tokio::test]
async fn a_node_is_who_its_certificate_says_whatever_its_labels_say() {
    let site = Site::running("").await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    let liar = key("worker_ready", &[("node", NEIGHBOUR), ("worker", "w"), ("service", "w")]);
    agent.live.send(0, &[(liar, Ok(1.0))]).await;
    agent.acked(1).await;
    let rows = site.query("worker_ready").await;
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    assert_eq!(rows[0]["metric"]["node"], NODE);
    assert!(site.node(NEIGHBOUR).await.is_null());
}

/// Connects with this TLS and gives why that came to nothing.
async fn refused(site: &Site, tls: rustls::ClientConfig) -> String {
    match connect(site.intake(), tls).await {
        // In TLS 1.3 the client is done before the server has looked at its certificate.
        Ok(connection) => ended(&connection).await,
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn without_a_certificate_of_this_ca_for_a_node_nobody_comes_in() {
    let mut site = Site::running("").await;
    let pki = site.path("pki");
    make_pki(&site.path("foreign"), &[NODE]);
    let foreign = {
        // It knows our CA, so that its own side is content, and has a certificate of another one.
        std::fs::copy(pki.join("ca.pem"), site.path("foreign").join("ca.pem")).unwrap();
        identity(&site.path("foreign"), NODE).client().unwrap()
    };
    assert!(!refused(&site, foreign).await.is_empty());
    let servers_own = identity(&pki, "aggregator").client().unwrap();
    assert!(!refused(&site, servers_own).await.is_empty());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.pem")).unwrap()).unwrap();
    let mut nobody = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    nobody.alpn_protocols = vec![ALPN.to_vec()];
    assert!(!refused(&site, nobody).await.is_empty());
    let mut other_version = identity(&pki, NODE).client().unwrap();
    other_version.alpn_protocols = vec![b"diarwatch/2".to_vec()];
    assert!(!refused(&site, other_version).await.is_empty());
    assert_eq!(site.json("/api/v1/status").await["nodes"], serde_json::json!([]));
    Agent::join(&site, NODE, 1).await;
    assert!(site.lives());
}

#[tokio::test]
async fn what_breaks_a_limit_ends_its_own_connection_and_no_other() {
    let mut site = Site::running("").await;
    let mut neighbour = Agent::join(&site, NEIGHBOUR, 1).await;
    let rows = [ready("w", Ok(1.0))];
    let schema = schema_of(&rows);
    let sealed = frame_of(Epoch(7), 0, clock::now(), &schema, &rows);
    let mut flipped = sealed.clone();
    flipped[9] ^= 0x10;
    let record = |kind: u8, length: u32, body: &[u8]| {
        let mut bytes = vec![kind];
        bytes.extend(length.to_le_bytes());
        bytes.extend(body);
        bytes
    };
    let whole = |kind: u8, body: &[u8]| record(kind, u32::try_from(body.len()).unwrap(), body);
    let too_large = u32::try_from(FRAME_BYTES_MAX).unwrap() + 1;
    let bad = [
        ("an oversize record", record(1, too_large, &[]), "larger than the limit"),
        ("a record of the largest length there is", record(2, u32::MAX, &[]), "larger than the limit"),
        ("an unknown record kind", whole(99, b"x"), "unknown kind"),
        ("a truncated frame", record(1, 4_000, &sealed), "eof"),
        ("a bit-flipped frame", whole(1, &flipped), "damaged"),
        ("an empty frame", whole(1, &[]), "damaged"),
        ("a schema that is none", whole(2, b"{}"), "schema is not readable"),
        ("a schema of a later version", whole(2, br#"{"version":9}"#), "upgrade"),
        ("a control message on a frame stream", whole(16, b"{}"), "control message"),
    ];
    for (seq, (what, bytes, reason)) in (0..).zip(bad) {
        let mut agent = Agent::join(&site, NODE, 7).await;
        agent.live.raw(&bytes).await;
        let _ = agent.live.stream.finish();
        let said = agent.ended().await;
        assert!(said.contains(reason), "{what}: {said}");
        neighbour.live.send(seq, &rows).await;
        neighbour.acked(seq + 1).await;
    }
    assert!(neighbour.connection.close_reason().is_none());
    assert_eq!(site.node(NODE).await["frames_stored"], 0);
    assert!(site.lives());
}

#[tokio::test]
async fn a_frame_whose_schema_was_never_sent_is_kept_unread_and_counted() {
    let site = Site::running("").await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    let rows = [ready("w", Ok(1.0))];
    let sealed = frame_of(Epoch(7), 0, clock::now(), &schema_of(&rows), &rows);
    agent.live.record(Kind::Frame, &sealed).await;
    agent.live.record(Kind::Frame, &seal(Epoch(7), 1, Codec::Event, b"no event".to_vec())).await;
    agent.live.record(Kind::Frame, &seal(Epoch(7), 2, Codec::Gap, b"{}".to_vec())).await;
    agent.acked(3).await;
    assert_eq!(site.metric(&format!("diarwatch_frames_opaque_total{{node=\"{NODE}\"}}")).await, 3.0);
    assert_eq!(site.query("worker_ready").await, serde_json::json!([]));
    assert!(agent.connection.close_reason().is_none());
}

#[tokio::test]
async fn a_connection_has_64_schemas_over_all_its_streams() {
    let site = Site::running("").await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    let schema = |number: usize| schema_of(&[ready(&format!("w{number}"), Ok(1.0))]).to_bytes();
    for number in 0..40 {
        agent.live.record(Kind::Schema, &schema(number)).await;
    }
    let mut backlog = agent.backlog().await;
    for number in 0..64 {
        backlog.record(Kind::Schema, &schema(number)).await;
    }
    until("they are on disk", async || {
        let kept = std::fs::read_dir(site.path("store/schemas")).unwrap().count();
        (kept == 64).then_some(())
    })
    .await;
    // A known one is no new one.
    agent.live.send(0, &[ready("w0", Ok(1.0))]).await;
    agent.acked(1).await;
    agent.backlog().await.record(Kind::Schema, &schema(64)).await;
    let said = agent.ended().await;
    assert!(said.contains("64 schemas"), "{said}");
    let last = schema_id(&schema(64)).to_string();
    assert!(!site.path("store/schemas").join(format!("{last}.json")).exists());
}

#[tokio::test]
async fn who_says_nothing_is_sent_away_and_delays_nobody() {
    let mut site = Site::running("").await;
    let mut neighbour = Agent::join(&site, NEIGHBOUR, 1).await;
    let mute = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    mute.send_to(b"", site.intake()).await.unwrap();
    for length in [1, 20, 1_200, 1_472] {
        // Bytes that look like the long header of QUIC and are nothing.
        mute.send_to(&vec![0xC3; length], site.intake()).await.unwrap();
    }
    let tls = || identity(&site.path("pki"), NODE).client().unwrap();
    let silent = connect(site.intake(), tls()).await.unwrap();
    neighbour.live.send(0, &[ready("w", Ok(1.0))]).await;
    neighbour.acked(1).await;
    assert!(silent.close_reason().is_none(), "the neighbour did not wait for it");
    let said = ended(&silent).await;
    assert!(said.contains("did not say hello"), "{said}");
    // Half a hello is none.
    let halting = connect(site.intake(), tls()).await.unwrap();
    let (mut say, _hear) = halting.open_bi().await.unwrap();
    say.write_all(&[16, 200, 0, 0, 0, b'{']).await.unwrap();
    neighbour.live.send(1, &[ready("w", Ok(1.0))]).await;
    neighbour.acked(2).await;
    let said = ended(&halting).await;
    assert!(said.contains("did not say hello"), "{said}");
    assert!(site.lives());
}

#[tokio::test]
async fn a_new_connection_of_a_node_replaces_the_old_one() {
    let site = Site::running("").await;
    let first = Agent::join(&site, NODE, 7).await;
    let mut second = Agent::join(&site, NODE, 8).await;
    assert!(first.ended().await.contains("replaced"));
    second.live.send(0, &[ready("w", Ok(1.0))]).await;
    second.acked(1).await;
    let connected = format!("diarwatch_node_connected{{node=\"{NODE}\"}}");
    assert_eq!(site.metric(&connected).await, 1.0);
    second.connection.close(VarInt::from_u32(0), b"");
    until_so("it is seen as gone", async || site.metric(&connected).await == 0.0).await;
}

#[tokio::test]
async fn a_second_host_with_the_certificate_of_a_live_one_is_refused_and_told_why() {
    let site = Site::running("").await;
    let mut first = Agent::join(&site, NODE, 7).await;
    let tls = || identity(&site.path("pki"), NODE).client().unwrap();
    let second = connect_from([127, 0, 0, 2], site.intake(), tls()).await.unwrap();
    let (mut say, mut hear) = second.open_bi().await.unwrap();
    hello(&mut say, Epoch(8)).await;
    let FromAggregator::Refused { reason } = hear_one(&mut hear).await.unwrap() else { panic!("welcomed") };
    assert!(reason.contains(NODE) && reason.contains("127.0.0.1"), "{reason}");
    assert!(reason.contains("two hosts hold the same certificate"), "{reason}");
    first.live.send(0, &[ready("w", Ok(1.0))]).await;
    first.acked(1).await;
    // When the first has gone, the other is welcome.
    first.connection.close(VarInt::from_u32(0), b"");
    until("the second is welcome", async || {
        let second = connect_from([127, 0, 0, 2], site.intake(), tls()).await.ok()?;
        let (mut say, mut hear) = second.open_bi().await.ok()?;
        hello(&mut say, Epoch(8)).await;
        matches!(hear_one(&mut hear).await, Ok(FromAggregator::Welcome { .. })).then_some(())
    })
    .await;
}

#[tokio::test]
async fn frames_too_far_ahead_are_refused_counted_and_taken_when_they_come_again() {
    let site = Site::running("").await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    let rows = [ready("w", Ok(1.0))];
    let runs = RUNS_AHEAD_MAX as u64;
    for hole in 1..=runs + 44 {
        agent.live.send(hole * 2, &rows).await;
    }
    let refused = format!("diarwatch_frames_refused_total{{node=\"{NODE}\"}}");
    until_so("the surplus is counted", async || site.metric(&refused).await == 44.0).await;
    let end = (runs + 44) * 2 + 1;
    for seq in 0..end {
        agent.live.send(seq, &rows).await;
    }
    agent.acked(end).await;
    assert_eq!(site.node(NODE).await["frames_stored"], end);
    assert_eq!(site.node(NODE).await["frames_duplicate"], runs);
}

#[tokio::test]
async fn a_stop_is_told_to_the_agents_and_ends_with_0() {
    let mut site = Site::running("").await;
    let agent = Agent::join(&site, NODE, 7).await;
    let stopped = tokio::task::spawn_blocking(move || site.stop());
    assert!(agent.ended().await.contains("stops"));
    assert_eq!(stopped.await.unwrap(), Some(0));
}

#[tokio::test]
async fn values_at_the_edges_arrive_bit_by_bit() {
    let site = Site::running("").await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    let rows: Vec<_> = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e300, f64::MIN_POSITIVE]
        .into_iter()
        .enumerate()
        .map(|(number, value)| (key("edge", &[("n", &number.to_string())]), Ok(value)))
        .collect();
    let _: Schema = schema_of(&rows);
    agent.live.send(0, &rows).await;
    agent.acked(1).await;
    let answer = site.query("edge").await;
    let values: Vec<&str> =
        answer.as_array().unwrap().iter().map(|row| row["value"][1].as_str().unwrap()).collect();
    assert_eq!(values[..5], ["0", "-0", "+Inf", "-Inf", "NaN"]);
    assert_eq!(values[5].parse::<f64>().unwrap(), 1e300);
}
