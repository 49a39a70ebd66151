//! `diarwatch-standins smoke`: the demo without a person. Kills a worker, cuts the link, stops the
//! agent, and checks that nothing was lost; the last line has the figures.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use diarwatch_shared::clock;
use serde_json::Value;
use tokio::time::sleep;

use crate::fleet::{Asker, Fleet};
use crate::say::say;

/// How often an awaited state is asked for.
const LOOK: Duration = Duration::from_millis(20);
/// How long the link is cut.
const CUT: Duration = Duration::from_secs(5);
/// How long a worker loads.
const LOAD: Duration = Duration::from_secs(3);

/// Arguments of the smoke run.
#[derive(Debug, Parser)]
pub struct Args {
    /// Keep the run's files here instead of a directory that goes with it.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// What a run measured.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    seconds: u64,
    frames_emitted: u64,
    frames_stored: u64,
    restart_ms: u64,
    alert_ms: u64,
    resolved: u64,
    /// Frames that the agent gave up before they had a number.
    given_up: u64,
    /// Frames that were stored while the link was cut; one may have been on its way.
    through_the_cut: u64,
}

impl Figures {
    fn lost(&self) -> u64 {
        self.frames_emitted.saturating_sub(self.frames_stored) + self.given_up
    }

    fn line(&self) -> String {
        format!(
            "smoke seconds={} frames_emitted={} frames_stored={} restart_ms={} alert_ms={} resolved={} lost={}",
            self.seconds,
            self.frames_emitted,
            self.frames_stored,
            self.restart_ms,
            self.alert_ms,
            self.resolved,
            self.lost()
        )
    }

    /// What the run has to show; empty when it shows it.
    fn faults(&self) -> Vec<&'static str> {
        let mut faults = Vec::new();
        let mut check = |good: bool, fault| {
            if !good {
                faults.push(fault);
            }
        };
        check(self.frames_emitted > 0 && self.lost() == 0, "not every emitted frame is stored");
        check(self.frames_stored <= self.frames_emitted, "more frames are stored than were emitted");
        check(self.frames_emitted + 1 >= self.seconds, "fewer frames than one a second");
        check(self.restart_ms > 0, "the killed worker was not restarted");
        check(self.alert_ms > 0, "no alert reached the channel");
        check(self.resolved == 1, "no recovery reached the channel");
        check(self.through_the_cut <= 1, "frames were stored while the link was cut: it was not cut");
        faults
    }
}

/// Runs once; exit 1 when something it has to show did not happen.
///
/// # Errors
/// When the fleet does not start or does not end.
pub async fn run(args: Args) -> Result<u8, crate::StandinError> {
    let temporary = tempfile::tempdir()?;
    let directory = args.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    let fail = |error: &dyn std::fmt::Display| std::io::Error::other(format!("smoke: {error}"));
    let mut fleet = Fleet::start(&directory, None, LOAD).map_err(|error| fail(&error))?;
    let mut figures = Figures::default();
    let ended = scenario(&mut fleet, clock::uptime(), &mut figures).await;
    fleet.stop().await;
    let mut faults: Vec<String> = ended.err().into_iter().collect();
    faults.extend(figures.faults().into_iter().map(str::to_owned));
    faults.iter().for_each(|fault| say(&format!("smoke failed: {fault}")));
    if !faults.is_empty() {
        show_logs(&directory);
        say(&format!("files of this run: {}", directory.display()));
        drop(temporary.keep());
    }
    say(&figures.line());
    // The line leaves before the process does.
    sleep(LOOK).await;
    Ok(u8::from(!faults.is_empty()))
}

async fn scenario(fleet: &mut Fleet, started: Duration, figures: &mut Figures) -> Result<(), String> {
    let asker = fleet.asker();
    let ready = until("both workers are ready", Duration::from_secs(30), async || {
        let workers = asker.workers().await;
        (workers.len() == 2 && workers.iter().all(|worker| worker.ready)).then_some(workers)
    });
    let victim = ready.await?.into_iter().next().ok_or("no worker")?;
    until("frames are stored", Duration::from_secs(15), async || {
        stored(&asker.fleet().await?).filter(|count| *count > 2)
    })
    .await?;
    let simulated = asker.status().await.and_then(|status| status.get("simulated")?.as_bool());
    say(&format!("smoke: workers are ready; SIMULATED={}", simulated == Some(true)));

    let killed_ms = clock::now().0 / 1_000;
    kill(victim.pid)?;
    let killed = clock::uptime();
    let back = until("the killed worker runs again", Duration::from_secs(15), async || {
        asker
            .workers()
            .await
            .into_iter()
            .find(|worker| worker.service == victim.service && worker.pid != victim.pid)
    });
    back.await?;
    figures.restart_ms = millis(clock::uptime().saturating_sub(killed));
    figures.alert_ms = message(&asker, "■", &victim.service).await?.saturating_sub(killed_ms);
    message(&asker, "●", &victim.service).await?;
    figures.resolved = 1;
    say("smoke: the worker is back; the link is cut");

    if !asker.cable(true).await {
        return Err("the link cannot be cut".into());
    }
    let before = stored(&asker.fleet().await.unwrap_or_default()).unwrap_or(0);
    sleep(CUT).await;
    figures.through_the_cut =
        stored(&asker.fleet().await.unwrap_or_default()).unwrap_or(u64::MAX).saturating_sub(before);
    if !asker.cable(false).await {
        return Err("the link cannot be restored".into());
    }
    until("the backlog is acknowledged", Duration::from_secs(20), async || {
        let status = asker.status().await?;
        let number = |pointer: &str| status.pointer(pointer)?.as_u64();
        (number("/spool/frames_acked")? + 1 >= number("/frames_emitted")?).then_some(())
    })
    .await?;
    let given_up = asker.status().await.and_then(|status| status.pointer("/spool/frames_lost")?.as_u64());
    figures.given_up = given_up.ok_or("the agent does not say how many frames it gave up")?;
    let log = fleet.stop_agent().await.map_err(|error| error.to_string())?;
    figures.seconds = clock::uptime().saturating_sub(started).as_secs();
    figures.frames_emitted = emitted(&log).ok_or("the agent did not say how many frames it emitted")?;
    let all = until("everything is stored", Duration::from_secs(5), async || {
        stored(&asker.fleet().await?).filter(|count| *count >= figures.frames_emitted)
    });
    // A shortfall is a figure, not an error: it is in the line.
    drop(all.await);
    figures.frames_stored = stored(&asker.fleet().await.unwrap_or_default()).unwrap_or(0);
    Ok(())
}

/// Asks until there is an answer.
async fn until<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T, String> {
    let end = clock::uptime() + limit;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if clock::uptime() > end {
            return Err(format!("waited {} s until {what}", limit.as_secs()));
        }
        sleep(LOOK).await;
    }
}

/// When a message of this shape about a service reached the channel.
async fn message(asker: &Asker, shape: &str, service: &str) -> Result<u64, String> {
    until(
        &format!("a message {shape} about {service} reaches the channel"),
        Duration::from_secs(20),
        async || {
            let found = asker
                .slack()
                .await
                .into_iter()
                .find(|(_, text)| text.contains(shape) && text.contains(service));
            found.map(|(at_ms, _)| at_ms)
        },
    )
    .await
}

/// Frames of the node's newest epoch that the aggregator has on disk.
fn stored(fleet: &Value) -> Option<u64> {
    fleet.pointer("/nodes/0/epoch_frames")?.as_u64()
}

/// `frames_emitted=N` of the agent's last words.
fn emitted(log: &str) -> Option<u64> {
    let (_, rest) = log.rsplit_once("frames_emitted=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn kill(pid: u32) -> Result<(), String> {
    let pid =
        i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or("the worker has no pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        .map_err(|error| format!("kill -9 {pid:?}: {error}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn show_logs(directory: &std::path::Path) {
    for name in ["aggregator", "agent"] {
        let text = std::fs::read_to_string(directory.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(15)).for_each(|line| say(&format!("{name}: {line}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            seconds: 30,
            frames_emitted: 40,
            frames_stored: 40,
            restart_ms: 900,
            alert_ms: 150,
            resolved: 1,
            ..Figures::default()
        }
    }

    #[test]
    fn each_thing_that_did_not_happen_fails_the_run() {
        assert_eq!(good().faults(), Vec::<&str>::new());
        let faulty = [
            Figures { frames_stored: 39, ..good() },
            Figures { frames_stored: 41, ..good() },
            Figures { seconds: 42, ..good() },
            Figures { restart_ms: 0, ..good() },
            Figures { alert_ms: 0, ..good() },
            Figures { resolved: 0, ..good() },
            Figures { given_up: 1, ..good() },
            Figures { through_the_cut: 2, ..good() },
            Figures { frames_emitted: 0, frames_stored: 0, seconds: 0, ..good() },
        ];
        for figures in faulty {
            assert!(!figures.faults().is_empty(), "{figures:?}");
        }
    }

    #[test]
    fn the_line_has_the_keys_that_others_read() {
        let line = "smoke seconds=30 frames_emitted=40 frames_stored=40 restart_ms=900 alert_ms=150 resolved=1 lost=0";
        assert_eq!(good().line(), line);
    }

    #[test]
    fn the_agents_last_words_are_read() {
        assert_eq!(
            emitted("x frames_emitted=3 y\nagent stopped frames_emitted=40 frames_acked=40\n"),
            Some(40)
        );
        assert_eq!(emitted("nothing"), None);
    }
}
