//! The vocabulary of diarwatch: what the agent and the aggregator say to each other and to a disk.
//!
//! The way of one sample: [`reading`] (a value, or why there is none) under the names of the
//! [`catalogue`], laid out by a [`schema`], packed in columns by [`frame`], sealed in the envelope
//! of [`wire`], kept in the append-only [`log`]. An [`event`] goes the same way. [`identity`] says
//! who is at the other end.
//!
//! Invariant: no file here does I/O but `log.rs`, `daemon/` and `clock.rs`; only `clock.rs` reads time.

pub mod backoff;
pub mod catalogue;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod event;
pub mod exit;
pub mod frame;
pub mod identity;
pub mod limits;
pub mod log;
pub mod node;
pub mod quantity;
pub mod reading;
pub mod schema;
pub mod settings;
pub mod texts;
pub mod wire;
