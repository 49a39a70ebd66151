//! The agent itself: its configuration, whether it answers, and what its status says is wrong.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::config::ConfigError;
use diarwatch_shared::texts::Text;
use serde_json::{Value, json};

use super::Facts;
use super::host::{self, Who};
use super::report::{Finding, word};
use crate::cli::ask::ask;
use crate::config::{self, Config};

const LOGS: &str = "journalctl -u diarwatch-agent -n 50";
const RELOAD: &str = "sudo systemctl reload diarwatch-agent; diarwatch config show";
const RESTART: &str = "sudo systemctl restart diarwatch-agent";
/// The unit, where packages and administrators put it; the last one wins.
const UNITS: [&str; 3] = [
    "/lib/systemd/system/diarwatch-agent.service",
    "/usr/lib/systemd/system/diarwatch-agent.service",
    "/etc/systemd/system/diarwatch-agent.service",
];
/// An agent with fewer may run out of them while its spool is long.
const FILES_LEAST: u64 = 512;
/// A worker that is not ready yet may be loading for this long.
const LOADING_MAX: Duration = Duration::from_secs(300);

/// What became of reading the configuration.
pub(super) enum ReadConfig {
    /// It is there and good.
    Good(Box<Config>),
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is not good.
    Bad(Vec<ConfigError>),
}

impl ReadConfig {
    pub(super) fn of(path: &Path) -> Self {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return Self::Unreadable(error),
        };
        config::parse(path, &text).map_or_else(Self::Bad, |config| Self::Good(Box::new(config)))
    }
}

/// Who is at the other end of the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) pid: i32,
    uid: u32,
    gid: u32,
}

/// What became of asking the agent.
#[derive(Debug)]
pub(super) enum Agent {
    /// It answered.
    Answers { status: Value, peer: Option<Peer> },
    /// There is no way to it.
    Refused(io::Error),
    /// It took the question, and that was all.
    Mute(String),
}

impl Agent {
    pub(super) fn ask(socket: &Path, timeout: Duration) -> Self {
        let stream = match UnixStream::connect(socket) {
            Ok(stream) => stream,
            Err(error) => return Self::Refused(error),
        };
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok().map(|peer| Peer {
            pid: peer.pid.as_raw_pid(),
            uid: peer.uid.as_raw(),
            gid: peer.gid.as_raw(),
        });
        drop(stream);
        match ask(socket, &json!({ "ask": "status" }), timeout) {
            Ok(status) => Self::Answers { status, peer },
            Err(trouble) => Self::Mute(trouble.problem),
        }
    }
}

/// See [`Facts::agent_user`].
pub(super) fn user(facts: &Facts) -> Who {
    let named = |uid: u32, gid: u32| {
        let name = facts.host.user(uid);
        let mut who = facts.host.who(&name).unwrap_or_else(|| Who { name, uid, gids: [gid].into() });
        who.gids.insert(gid);
        who
    };
    if let Some(Agent::Answers { peer: Some(peer), .. }) = &facts.agent {
        let mut who = named(peer.uid, peer.gid);
        let text = host::read(Path::new(&format!("/proc/{}/status", peer.pid))).unwrap_or_default();
        let groups = text.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
        who.gids.extend(groups.split_whitespace().filter_map(|gid| gid.parse::<u32>().ok()));
        return who;
    }
    if let Ok(socket) = host::guard(&facts.socket) {
        return named(socket.uid, socket.gid);
    }
    let texts = UNITS.iter().filter_map(|unit| facts.host.read(unit).ok());
    let unit = texts.filter_map(|text| user_of_unit(&text)).next_back();
    unit.and_then(|name| facts.host.who(&name)).unwrap_or_else(|| facts.host.me.clone())
}

fn user_of_unit(unit: &str) -> Option<String> {
    let mut users = unit.lines().filter_map(|line| line.trim().strip_prefix("User="));
    users.next_back().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// `agent.config`
pub(super) fn config(facts: &Facts) -> Finding {
    let path = facts.config_path.display().to_string();
    match &facts.config {
        None => Finding::fail(Text::DoctorConfigHung, &[&path], format!("ls -l {}", word(&path))),
        Some(ReadConfig::Good(_)) => {
            let refused = facts.status().ok().and_then(|status| status["config_problem"].as_str());
            refused.map_or_else(
                || Finding::pass(Text::DoctorConfigGood, &[&path]),
                |problem| Finding::warn(Text::DoctorReloadRefused, &[&problem], RELOAD),
            )
        }
        Some(ReadConfig::Unreadable(error)) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::skip(Text::DoctorNotAllowed, &[&facts.host.me.name, &path])
                .try_this("sudo diarwatch doctor")
        }
        Some(ReadConfig::Unreadable(error)) => {
            Finding::fail(Text::DoctorConfigMissing, &[&path, error], "diarwatch doctor --config FILE")
        }
        Some(ReadConfig::Bad(faults)) => {
            let first = faults.first().map(ToString::to_string).unwrap_or_default();
            let mend = format!("diarwatch config check {}", word(&path));
            Finding::fail(Text::DoctorConfigBad, &[&first, &faults.len()], mend)
        }
    }
}

/// `agent.socket`
pub(super) fn socket(facts: &Facts) -> Finding {
    let path = facts.socket.display().to_string();
    let start = format!("sudo systemctl start diarwatch-agent; {LOGS}");
    match &facts.agent {
        Some(Agent::Answers { status, .. }) => {
            let node = status["node"].as_str().unwrap_or("?");
            Finding::pass(Text::DoctorAgentAnswers, &[&node, &path])
        }
        Some(Agent::Refused(error)) if error.kind() == ErrorKind::PermissionDenied => refused(facts, &path),
        Some(Agent::Refused(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Finding::fail(Text::DoctorAgentDead, &[&path], start)
        }
        Some(Agent::Refused(error)) => Finding::fail(Text::DoctorAgentAbsent, &[&path, error], start),
        Some(Agent::Mute(problem)) => {
            Finding::fail(Text::DoctorAgentMute, &[problem], format!("{RESTART}; {LOGS}"))
        }
        None => Finding::fail(Text::DoctorAgentMute, &[&path], format!("{RESTART}; {LOGS}")),
    }
}

/// The socket is there and is not for the one who asks.
fn refused(facts: &Facts, path: &str) -> Finding {
    let me = &facts.host.me;
    let obstacle = host::obstacle(&facts.socket, me, host::READ | 2).ok().flatten();
    let Some(obstacle) = obstacle else {
        return Finding::fail(Text::DoctorSocketRefused, &[&me.name, &path, &"?"], "sudo diarwatch doctor");
    };
    let shown = format!("{} ({})", obstacle.path.display(), facts.host.shown(&obstacle));
    let group = facts.host.group(obstacle.gid);
    let mend = if obstacle.gid == 0 || obstacle.mode & 0o010 == 0 && obstacle.path != facts.socket {
        "sudo diarwatch doctor".to_owned()
    } else {
        format!("sudo usermod -aG {group} {}   # then log in again", me.name)
    };
    Finding::fail(Text::DoctorSocketRefused, &[&me.name, &path, &shown], mend)
}

/// `agent.version`
pub(super) fn version(facts: &Facts) -> Finding {
    facts.status().map_or_else(|skip| skip, |status| judge_version(status, env!("CARGO_PKG_VERSION")))
}

fn judge_version(status: &Value, mine: &str) -> Finding {
    match status["version"].as_str() {
        Some(theirs) if theirs == mine => Finding::pass(Text::DoctorVersionSame, &[&mine]),
        theirs => Finding::warn(Text::DoctorVersionDiffers, &[&mine, &theirs.unwrap_or("?")], RESTART),
    }
}

/// `agent.ticks`
pub(super) fn ticks(facts: &Facts) -> Finding {
    facts.status().map_or_else(|skip| skip, judge_ticks)
}

fn judge_ticks(status: &Value) -> Finding {
    match status["ticks_rejected"].as_u64() {
        Some(0) => Finding::pass(Text::DoctorTicksTaken, &[&status["frames_emitted"]]),
        Some(count) => Finding::warn(Text::DoctorTicksRejected, &[&count], LOGS),
        None => Finding::skip(Text::DoctorNotTold, &[&"ticks_rejected"]),
    }
}

/// `agent.files`
pub(super) fn files(facts: &Facts) -> Finding {
    let Some(Agent::Answers { peer: Some(peer), .. }) = &facts.agent else {
        return Finding::skip(Text::DoctorNoStatus, &[]);
    };
    let limits = host::read(Path::new(&format!("/proc/{}/limits", peer.pid))).unwrap_or_default();
    let open = std::fs::read_dir(format!("/proc/{}/fd", peer.pid)).ok().map(Iterator::count);
    judge_files(limit_of_files(&limits), open.and_then(|open| u64::try_from(open).ok()))
}

fn limit_of_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

fn judge_files(limit: Option<u64>, open: Option<u64>) -> Finding {
    let Some(limit) = limit else {
        return Finding::skip(Text::DoctorNotTold, &[&"/proc/PID/limits"]);
    };
    let shown = open.map_or_else(|| "?".to_owned(), |open| open.to_string());
    let mend = "sudo systemctl edit diarwatch-agent   # [Service] LimitNOFILE=65536";
    // Nine tenths: the next reconnect or generation of the spool would be the one that fails.
    if open.is_some_and(|open| open >= limit - limit / 10) {
        return Finding::fail(Text::DoctorFilesFull, &[&shown, &limit], mend);
    }
    if limit < FILES_LEAST {
        return Finding::warn(Text::DoctorFilesFew, &[&shown, &limit, &FILES_LEAST], mend);
    }
    Finding::pass(Text::DoctorFilesGood, &[&shown, &limit])
}

/// `workers.ready`
pub(super) fn workers(facts: &Facts) -> Finding {
    facts.status().map_or_else(|skip| skip, |status| judge_workers(status, facts.now.0))
}

fn judge_workers(status: &Value, now_us: u64) -> Finding {
    let workers = status["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if workers.is_empty() {
        return Finding::skip(Text::NothingConfigured, &[]);
    }
    let name = |worker: &Value| worker["worker"].as_str().unwrap_or("?").to_owned();
    let since = |worker: &Value| worker["since_us"].as_u64().or_else(|| worker["since"].as_u64());
    let apart = |worker: &Value| worker["phase"] == "left_alone" || worker["phase"] == "unknown";
    let late = |worker: &&Value| {
        let loading = since(worker).map_or(0, |since| now_us.saturating_sub(since));
        let starts = worker["ready"].is_null() && !apart(worker);
        starts && u128::from(loading) > LOADING_MAX.as_micros()
    };
    let reason = |worker: &Value| {
        if let Some(reason) = worker["reason"].as_str() {
            return reason.to_owned();
        }
        let exit = worker["last_exit"].as_str();
        let probe = worker.pointer("/last_probe/verdict").and_then(Value::as_str);
        let text = if worker["pid"].is_null() { exit.or(probe) } else { probe.or(exit) };
        text.unwrap_or("-").to_owned()
    };
    let logs = |worker: &Value| {
        let name = word(name(worker));
        format!("diarwatch why {name}; journalctl -u diarwatch-agent WORKER={name} -n 50")
    };
    if let Some(worker) = workers.iter().find(|worker| worker["ready"] == false && !apart(worker)) {
        return Finding::fail(Text::DoctorWorkerNotReady, &[&name(worker), &reason(worker)], logs(worker));
    }
    if let Some(worker) = workers.iter().find(|worker| worker["phase"] == "unknown") {
        let text = Text::DoctorWorkerUnknown;
        return Finding::fail(text, &[&name(worker), &reason(worker)], logs(worker));
    }
    if let Some(worker) = workers.iter().find(late) {
        let minutes = LOADING_MAX.as_secs() / 60;
        return Finding::warn(
            Text::DoctorWorkerLate,
            &[&name(worker), &minutes, &reason(worker)],
            logs(worker),
        );
    }
    if let Some(worker) = workers.iter().find(|worker| worker["phase"] == "left_alone") {
        let mend = format!("diarwatch worker restart {}", word(name(worker)));
        return Finding::warn(Text::DoctorWorkerLeftAlone, &[&name(worker), &reason(worker)], mend);
    }
    if let Some(worker) = workers.iter().find(|worker| worker["held_by"].is_string()) {
        let by = worker["held_by"].as_str().unwrap_or("?");
        let mend = format!("diarwatch worker release {}", word(name(worker)));
        return Finding::warn(Text::DoctorWorkerHeld, &[&name(worker), &by], mend);
    }
    let ready = workers.iter().filter(|worker| worker["ready"] == true).count();
    Finding::pass(Text::DoctorWorkersReady, &[&ready, &workers.len()])
}

/// `queues.sources`
pub(super) fn queues(facts: &Facts) -> Finding {
    facts.status().map_or_else(|skip| skip, judge_queues)
}

fn judge_queues(status: &Value) -> Finding {
    let queues = status["queues"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |queue: &Value| queue["queue"].as_str().unwrap_or("?").to_owned();
    if queues.is_empty() {
        return Finding::skip(Text::DoctorNoQueues, &[]);
    }
    if let Some(queue) = queues.iter().find(|queue| queue["problem"].is_string()) {
        let problem = queue["problem"].as_str().unwrap_or("-");
        return Finding::fail(Text::DoctorQueueProblem, &[&name(queue), &problem], LOGS);
    }
    match queues.iter().find(|queue| queue["growing"] == true) {
        Some(queue) => Finding::warn(Text::DoctorQueueGrows, &[&name(queue)], "diarwatch queue"),
        None => Finding::pass(Text::DoctorQueuesGood, &[&queues.len()]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn the_user_of_a_unit_is_its_last_word_on_it() {
        let unit = "[Service]\nUser=root\n#User=nobody\nUser=diarwatch\n";
        assert_eq!(user_of_unit(unit), Some("diarwatch".into()));
        assert_eq!(user_of_unit("[Service]\nUser=\n"), None);
    }

    #[test]
    fn an_agent_of_another_version_is_worth_a_look() {
        assert_eq!(judge_version(&json!({ "version": "1" }), "1").verdict, Verdict::Pass);
        assert_eq!(judge_version(&json!({ "version": "2" }), "1").verdict, Verdict::Warn);
        assert_eq!(judge_version(&json!({}), "1").verdict, Verdict::Warn);
    }

    #[test]
    fn an_agent_that_is_near_its_limit_of_files_is_broken_and_a_low_limit_is_a_warning() {
        let limits = "Limit    Soft Limit  Hard Limit  Units\nMax open files            1024                 524288 files\n";
        assert_eq!(limit_of_files(limits), Some(1024));
        assert_eq!(judge_files(Some(1024), Some(1000)).verdict, Verdict::Fail);
        assert_eq!(judge_files(Some(1024), Some(20)).verdict, Verdict::Pass);
        assert_eq!(judge_files(Some(1024), None).verdict, Verdict::Pass);
        assert_eq!(judge_files(Some(100), Some(20)).verdict, Verdict::Warn);
        assert_eq!(judge_files(None, Some(20)).verdict, Verdict::Skip);
    }

    #[test]
    fn a_worker_is_named_with_what_its_probe_or_its_end_said() {
        let judge = |worker: Value| judge_workers(&json!({ "workers": [worker] }), 600_000_000);
        let dead = json!({ "worker": "w", "ready": false, "pid": null, "last_exit": "signal 9" });
        assert_eq!(judge(dead.clone()).verdict, Verdict::Fail);
        assert!(format!("{:?}", judge(dead)).contains("signal 9"));
        let loads = |since: u64| json!({ "worker": "w", "ready": null, "pid": 1, "since_us": since });
        assert_eq!(judge(loads(590_000_000)).verdict, Verdict::Pass);
        assert_eq!(judge(loads(10_000_000)).verdict, Verdict::Warn);
        assert_eq!(judge_workers(&json!({}), 0).verdict, Verdict::Skip);
    }

    #[test]
    fn a_worker_that_a_person_stopped_or_holds_is_a_warning_with_the_way_back() {
        let judge = |worker: Value| judge_workers(&json!({ "workers": [worker] }), 600_000_000);
        let alone = judge(
            json!({ "worker": "w", "phase": "left_alone", "ready": false, "reason": "stopped by hand" }),
        );
        assert_eq!(
            (alone.verdict, alone.mend.as_deref()),
            (Verdict::Warn, Some("diarwatch worker restart w"))
        );
        assert!(format!("{alone:?}").contains("stopped by hand"));
        let held = judge(json!({ "worker": "w", "phase": "ready", "ready": true, "held_by": "alice" }));
        assert_eq!((held.verdict, held.mend.as_deref()), (Verdict::Warn, Some("diarwatch worker release w")));
        assert_eq!(judge(json!({ "worker": "w", "phase": "unknown", "ready": null })).verdict, Verdict::Fail);
    }

    #[test]
    fn a_queue_that_cannot_be_read_or_never_drains_is_named() {
        let judge = |queue: Value| judge_queues(&json!({ "queues": [queue] })).verdict;
        assert_eq!(judge(json!({ "queue": "q", "problem": "no" })), Verdict::Fail);
        assert_eq!(judge(json!({ "queue": "q", "problem": null, "growing": true })), Verdict::Warn);
        assert_eq!(judge(json!({ "queue": "q", "problem": null, "growing": false })), Verdict::Pass);
    }

    #[test]
    fn rejected_ticks_are_told_and_an_agent_that_does_not_count_them_is_no_fault() {
        assert_eq!(judge_ticks(&json!({ "ticks_rejected": 3 })).verdict, Verdict::Warn);
        assert_eq!(judge_ticks(&json!({ "ticks_rejected": 0 })).verdict, Verdict::Pass);
        assert_eq!(judge_ticks(&json!({})).verdict, Verdict::Skip);
    }
}
