//! A UDP cable between agent and aggregator: takes datagrams at one address, passes them on to
//! another and the answers back, each client by a socket of its own. It can be cut, and can lose
//! datagrams by chance from a seed. It keeps nothing: what cannot go on at once is dropped and counted.

mod cable;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

use crate::command::{StandinError, bind, listen, until_stopped};
use crate::http;
use cable::{Cable, Loss};

/// Clients at once; the one that was silent longest makes room for a new one.
const CLIENTS_MAX: usize = 64;
/// Bytes of the largest datagram that UDP has.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Bytes of a control message.
const CONTROL_BYTES_MAX: usize = 16 * 1024;
/// Wait after an error of a socket (nobody at the other end), so that it is no busy loop.
const ERROR_PAUSE: Duration = Duration::from_millis(5);

/// The command line of the cable.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// UDP address that the agent sends to
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// UDP address of the aggregator
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// HTTP address for cut, restore, loss and counts
    #[arg(long, value_name = "ADDRESS:PORT")]
    control: SocketAddr,
}

type Shared = Arc<Mutex<Cable>>;

/// Runs the cable until a stop signal; gives the exit number.
///
/// # Errors
/// When an address is taken.
pub async fn run(args: Args) -> Result<u8, StandinError> {
    let front = bind(args.listen, "--listen").await?;
    let control = listen(args.control, "--control").await?;
    let (from, told) = (front.local_addr()?, control.local_addr()?);
    let line = format!("link from {from} to {}, control on {told}", args.to);
    until_stopped(&line, async { serve(front, args.to, control).await.map(|()| 0) }).await
}

/// Passes datagrams and serves the control address until it is dropped.
///
/// # Errors
/// When the control listener fails.
pub async fn serve(front: UdpSocket, to: SocketAddr, control: TcpListener) -> std::io::Result<()> {
    let shared = Shared::default();
    let routes = Router::new()
        .route("/", get(counts))
        .route("/cut", post(cut))
        .route("/restore", post(restore))
        .route("/loss", post(loss))
        .with_state(Arc::clone(&shared));
    let front = Ends { front: Arc::new(front), to, cable: shared };
    tokio::select! {
        ended = http::serve(control, routes, CONTROL_BYTES_MAX, std::future::pending()) => ended,
        () = forward(&front) => Ok(()),
    }
}

/// Both ends of the cable.
#[derive(Clone)]
struct Ends {
    front: Arc<UdpSocket>,
    to: SocketAddr,
    cable: Shared,
}

/// One client, with the socket that speaks for it to the other end.
struct Client {
    socket: Arc<UdpSocket>,
    answers: AbortHandle,
    last_seen: u64,
}

/// Passes what clients send; their answers come back in tasks that end with this one.
async fn forward(ends: &Ends) {
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut received: u64 = 0;
    // Not writable now is not an end: answers are counted as dropped until it is.
    drop(ends.front.writable().await);
    loop {
        let Ok((length, from)) = ends.front.recv_from(&mut buffer).await else {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        received += 1;
        let known = clients.contains_key(&from);
        if !known && !add(&mut clients, &mut tasks, ends, from).await {
            lock(&ends.cable).lose();
            continue;
        }
        let (Some(client), Some(datagram)) = (clients.get_mut(&from), buffer.get(..length)) else { continue };
        client.last_seen = received;
        pass(&ends.cable, || client.socket.try_send(datagram));
    }
}

async fn add(
    clients: &mut HashMap<SocketAddr, Client>,
    tasks: &mut JoinSet<()>,
    ends: &Ends,
    from: SocketAddr,
) -> bool {
    let Ok(socket) = connected(ends.to).await else { return false };
    if clients.len() >= CLIENTS_MAX {
        let oldest = clients.iter().min_by_key(|(_, client)| client.last_seen).map(|(address, _)| *address);
        if let Some(client) = oldest.and_then(|address| clients.remove(&address)) {
            client.answers.abort();
            lock(&ends.cable).evict();
        }
    }
    let socket = Arc::new(socket);
    let answers = tasks.spawn(answer(ends.clone(), Arc::clone(&socket), from));
    clients.insert(from, Client { socket, answers, last_seen: 0 });
    true
}

/// Passes what comes back for one client.
async fn answer(ends: Ends, socket: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = socket.recv(&mut buffer).await else {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        if let Some(datagram) = buffer.get(..length) {
            pass(&ends.cable, || ends.front.try_send_to(datagram, client));
        }
    }
}

/// One datagram over the cable, or not.
fn pass(cable: &Shared, send: impl FnOnce() -> std::io::Result<usize>) {
    let mut cable = lock(cable);
    if !cable.lets_pass() {
        return;
    }
    match send() {
        Ok(_) => cable.arrive(),
        Err(_) => cable.lose(),
    }
}

async fn connected(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    // A socket that was never asked whether it is writable refuses the first datagram.
    socket.writable().await?;
    Ok(socket)
}

async fn counts(State(shared): State<Shared>) -> Response {
    Json(lock(&shared).counts()).into_response()
}

async fn cut(State(shared): State<Shared>) -> Response {
    lock(&shared).cut();
    counts(State(shared)).await
}

async fn restore(State(shared): State<Shared>) -> Response {
    lock(&shared).restore();
    counts(State(shared)).await
}

async fn loss(State(shared): State<Shared>, body: Bytes) -> Response {
    http::told(&body, |loss: Loss| match lock(&shared).lossy(loss) {
        Ok(counts) => Json(counts).into_response(),
        Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
    })
}

fn lock(shared: &Shared) -> MutexGuard<'_, Cable> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
