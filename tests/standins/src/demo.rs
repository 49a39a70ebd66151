//! `diarwatch-standins demo`: the whole of diarwatch on this machine, until Ctrl-C.
//!
//! Prints where the page and the channel are, which command kills a worker, and each message that
//! reaches the channel.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use diarwatch_shared::daemon;
use diarwatch_shared::quantity::parse_duration;
use tokio::signal::unix::{SignalKind, signal};

use crate::fleet::{Asker, Fleet};
use crate::say::say;

/// How often the fleet is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Arguments of the demo.
#[derive(Debug, Parser)]
pub struct Args {
    /// Where its files go; made anew.
    #[arg(long, default_value = "demo")]
    directory: PathBuf,
    /// The first of eight ports, the page's.
    #[arg(long, default_value_t = 9441)]
    port: u16,
    /// How long a worker loads its model.
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    load: Duration,
}

/// Runs the demo until a stop signal.
///
/// # Errors
/// When the fleet does not start or a process of it ends.
pub async fn run(args: Args) -> Result<u8, crate::StandinError> {
    let fail = |error: &dyn std::fmt::Display| std::io::Error::other(format!("demo: {error}"));
    let mut fleet =
        Fleet::start(&args.directory, Some(args.port), args.load).map_err(|error| fail(&error))?;
    introduce(&fleet);
    let asker = fleet.asker();
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        signal = daemon::stop_signal() => drop(signal?),
        // The terminal was closed.
        _ = hangup.recv() => {}
        () = report(&asker) => {}
        ended = watch(&mut fleet) => return Err(fail(&ended).into()),
    }
    say("demo stops");
    fleet.stop().await;
    Ok(0)
}

fn introduce(fleet: &Fleet) {
    let directory = fleet.directory.display();
    if fleet.simulated {
        say("SIMULATED: no NVIDIA driver is loaded here, a fake NVML is in its place");
    }
    say(&format!("page       http://{}/", fleet.ports.page));
    say(&format!("channel    http://{}/   (the Slack stand-in)", fleet.ports.slack));
    say(&format!("status     {} status --socket {directory}/agent.sock", fleet.command.display()));
    say(&format!("logs       {directory}/*.log"));
    say("Ctrl-C ends it; workers come in a few seconds");
}

async fn watch(fleet: &mut Fleet) -> String {
    loop {
        if let Some(ended) = fleet.ended() {
            return ended;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Says how to kill each new worker, and what reached the channel.
async fn report(asker: &Asker) {
    let (mut known, mut told) = (Vec::new(), 0);
    loop {
        for worker in asker.workers().await {
            if worker.ready && !known.contains(&worker) {
                say(&format!("{} is ready; kill it:  kill -9 {}", worker.service, worker.pid));
                known.push(worker);
            }
        }
        let messages = asker.slack().await;
        for (_, text) in messages.iter().skip(told) {
            say(&format!("slack      {text}"));
        }
        told = messages.len().max(told);
        tokio::time::sleep(LOOK).await;
    }
}
