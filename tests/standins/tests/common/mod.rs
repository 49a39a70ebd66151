//! What the tests of the stand-ins share: a port of their own and an HTTP client.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(dead_code, reason = "each test file is a program of its own and uses its part")]

pub(crate) mod process;

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;

/// Looks, 5 ms apart, before a test gives up on what it waits for.
const LOOKS_MAX: u32 = 4_000;

/// A listener on a free port of loopback, and its address for a client.
pub(crate) async fn ephemeral() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    (listener, base)
}

/// A client; reqwest is built without a provider of TLS and panics when none is installed.
pub(crate) fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Looks until what was asked for is there.
pub(crate) async fn until<F: Future<Output = bool>>(mut reached: impl FnMut() -> F) {
    for _ in 0..LOOKS_MAX {
        if reached().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    unreachable!("it was not reached");
}
