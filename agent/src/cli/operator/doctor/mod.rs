//! `diarwatch doctor`: looks for what is wrong on this node and says how to mend it.

use clap::Args;
use diarwatch_shared::exit::Exit;

use super::common::Common;

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Options {}

/// Runs the checks.
pub(super) fn run(_options: &Options, _common: &Common) -> Exit {
    Exit::Ok
}
