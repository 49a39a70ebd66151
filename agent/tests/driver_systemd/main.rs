//! The driver `systemd` against a real systemd: to be run as root in a node whose first process it is.
//! Elsewhere each test says so and passes. Units are made under /run/systemd/system and taken away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of a test")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says why")]

mod access;
mod ends;
mod starts;
mod unit;
