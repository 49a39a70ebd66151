//! `diarwatch top`: GPUs, workers and queues live in a terminal.

use clap::Args;
use diarwatch_shared::exit::Exit;

use super::common::Common;

/// Flags of `top`.
#[derive(Debug, Args)]
pub(super) struct Options {}

/// Runs until `q`.
pub(super) fn run(_options: &Options, _common: &Common) -> Exit {
    Exit::Ok
}
