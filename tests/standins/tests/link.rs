//! The cable over real sockets: it carries both ways, it can be cut, and clients do not mix.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by them")]

mod common;

use std::net::SocketAddr;

use common::{client, ephemeral, until};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::net::UdpSocket;

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// A cable to an echo; gives the address to send to and the control address.
async fn cable_to_an_echo() -> (SocketAddr, String) {
    let echo = socket().await;
    let to = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        loop {
            let (length, from) = echo.recv_from(&mut buffer).await.unwrap();
            echo.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    cable_to(to).await
}

async fn cable_to(to: SocketAddr) -> (SocketAddr, String) {
    let front = socket().await;
    let from = front.local_addr().unwrap();
    let (control, base) = ephemeral().await;
    tokio::spawn(diarwatch_standins::link::serve(front, to, control));
    (from, base)
}

async fn echoed(client: &UdpSocket, cable: SocketAddr, text: &str) -> String {
    client.send_to(text.as_bytes(), cable).await.unwrap();
    let mut buffer = [0; 2_048];
    let (length, from) = client.recv_from(&mut buffer).await.unwrap();
    assert_eq!(from, cable);
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

async fn counts(base: &str) -> Value {
    client().get(base).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn each_client_gets_its_own_answers() {
    let (cable, base) = cable_to_an_echo().await;
    let (one, two) = (socket().await, socket().await);
    assert_eq!(echoed(&one, cable, "one").await, "one");
    assert_eq!(echoed(&two, cable, "two").await, "two");
    assert_eq!(echoed(&one, cable, "again").await, "again");
    assert_eq!(counts(&base).await["forwarded"], 6);
}

#[tokio::test]
async fn a_cut_cable_drops_and_a_restored_one_carries_again() {
    let (cable, base) = cable_to_an_echo().await;
    let socket = socket().await;
    assert_eq!(echoed(&socket, cable, "before").await, "before");
    client().post(format!("{base}/cut")).send().await.unwrap();
    socket.send_to(b"lost", cable).await.unwrap();
    until(|| async { counts(&base).await["dropped"] == 1 }).await;
    assert_eq!(counts(&base).await["cut"], true);
    client().post(format!("{base}/restore")).send().await.unwrap();
    assert_eq!(echoed(&socket, cable, "after").await, "after");
}

#[tokio::test]
async fn a_cable_that_loses_everything_says_so() {
    let (cable, base) = cable_to_an_echo().await;
    let lossy =
        client().post(format!("{base}/loss")).body(r#"{"ratio": 1.0, "seed": 1}"#).send().await.unwrap();
    assert_eq!(lossy.status(), StatusCode::OK);
    socket().await.send_to(b"lost", cable).await.unwrap();
    until(|| async { counts(&base).await["dropped"] == 1 }).await;
    let wrong = client().post(format!("{base}/loss")).body(r#"{"ratio": 2}"#).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn more_clients_than_the_table_holds_push_out_the_most_silent() {
    let (cable, base) = cable_to_an_echo().await;
    let mut clients = Vec::new();
    for number in 0..65 {
        let client = socket().await;
        assert_eq!(echoed(&client, cable, &number.to_string()).await, number.to_string());
        clients.push(client);
    }
    assert_eq!(counts(&base).await["clients_evicted"], 1);
    assert_eq!(echoed(&clients[0], cable, "back").await, "back");
}

#[tokio::test]
async fn a_cable_outlives_an_aggregator_that_is_not_there() {
    let gone = socket().await;
    let to = gone.local_addr().unwrap();
    drop(gone);
    let (cable, base) = cable_to(to).await;
    let agent = socket().await;
    for _ in 0..5 {
        agent.send_to(b"anyone?", cable).await.unwrap();
    }
    until(|| async {
        let counts = counts(&base).await;
        counts["forwarded"].as_u64().unwrap() + counts["dropped"].as_u64().unwrap() == 5
    })
    .await;
    let back = UdpSocket::bind(to).await.unwrap();
    until(|| async {
        agent.send_to(b"there?", cable).await.unwrap();
        back.try_recv_from(&mut [0; 64]).is_ok()
    })
    .await;
}
