//! Stand-ins for what diarwatch talks to: takes a command line, gives a `pyannote` worker of one of two
//! kinds, a `slack` webhook, a `link` (a cable between agent and aggregator) or the `app` around the
//! workers, each on real sockets of loopback.
//!
//! Each has a `serve` for tests in one process: it takes sockets that are bound already and ends
//! when it is dropped. What decides (limits, rate, loss, readiness) is pure and takes the time as an
//! argument. When a client is slow, only its own connection waits; connections, bodies and what is
//! kept are bounded, and what is dropped is counted.

pub mod app;
pub mod command;
pub mod demo;
pub mod fleet;
mod http;
pub mod link;
mod say;
pub mod slack;
pub mod smoke;
pub mod worker;

pub use command::StandinError;
