//! This host's clock: against the aggregator's, and whether anything keeps it right.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use diarwatch_shared::clock::{self, http_date};
use diarwatch_shared::texts::Text;
use serde_json::Value;

use super::report::Finding;
use super::{Facts, PROGRAM_TIMEOUT, output_of};

/// Beyond this the times of a node's values do not fit those of others.
const OFFSET_WARN_MS: f64 = 1_000.0;
/// Beyond this a node that sends each second looks silent.
const OFFSET_FAIL_MS: f64 = 5_000.0;
/// A `Date` header has whole seconds.
const DATE_STEP_MS: f64 = 1_000.0;
/// For each step of an HTTP question.
const HTTP_WAIT: Duration = Duration::from_secs(1);
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 8_192;
const SET_CLOCK: &str =
    "timedatectl; sudo timedatectl set-ntp true; sudo systemctl restart systemd-timesyncd chrony 2>/dev/null";

/// How far the aggregator's clock is ahead, in milliseconds, and how much of that the way of looking may be.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Offset {
    ahead_ms: f64,
    uncertain_ms: f64,
}

/// `clock.offset`: from the link, or with `--network` from the aggregator's HTTP.
pub(super) fn offset(facts: &Facts) -> Finding {
    let told = facts.status().ok().and_then(|status| of_link(&status["link"]));
    let found = match told {
        Some(offset) => Ok(offset),
        None if facts.network => of_http(&facts.common.aggregator),
        None => {
            return Finding::skip(Text::DoctorClockNoLink, &[])
                .try_this("diarwatch doctor --network --aggregator URL");
        }
    };
    match found {
        Ok(offset) => judge(offset),
        Err(problem) => Finding::skip(Text::DoctorClockUnknown, &[&facts.common.aggregator, &problem]),
    }
}

fn of_link(link: &Value) -> Option<Offset> {
    let uncertain_ms = link["round_trip_ms"].as_f64().unwrap_or(0.0) / 2.0;
    link["clock_offset_ms"].as_f64().map(|ahead_ms| Offset { ahead_ms, uncertain_ms })
}

fn judge(offset: Offset) -> Finding {
    let Offset { ahead_ms, uncertain_ms } = offset;
    let shown = format!("{:.1}", ahead_ms.abs() / 1e3);
    let certain = (ahead_ms.abs() - uncertain_ms).max(0.0);
    let text = if ahead_ms > 0.0 { Text::DoctorClockBehind } else { Text::DoctorClockAhead };
    if certain > OFFSET_FAIL_MS {
        Finding::fail(text, &[&shown], SET_CLOCK)
    } else if certain > OFFSET_WARN_MS {
        Finding::warn(text, &[&shown], SET_CLOCK)
    } else {
        Finding::pass(Text::DoctorClockGood, &[&shown])
    }
}

/// The `Date` of `http://host:port`.
fn of_http(url: &str) -> Result<Offset, String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// is asked for its clock")?;
    let authority = rest.split('/').next().unwrap_or_default();
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let address =
        address.to_socket_addrs().map_err(|error| error.to_string())?.next().ok_or("it has no address")?;
    let head = head(address, authority).map_err(|error| error.to_string())?;
    let (head, heard) = head;
    let date = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| http_date(value)).flatten()
    });
    let theirs = date.ok_or("its answer has no Date")?;
    Ok(between(theirs.as_secs_f64(), heard))
}

/// The middle of the second that a `Date` stands for, against the time at which it was heard.
fn between(theirs_seconds: f64, heard_seconds: f64) -> Offset {
    let ahead_ms = (theirs_seconds - heard_seconds) * 1e3 + DATE_STEP_MS / 2.0;
    Offset { ahead_ms, uncertain_ms: DATE_STEP_MS / 2.0 }
}

/// Head of an answer and when it came.
fn head(address: std::net::SocketAddr, authority: &str) -> std::io::Result<(String, f64)> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_WAIT)?;
    stream.set_read_timeout(Some(HTTP_WAIT))?;
    stream.set_write_timeout(Some(HTTP_WAIT))?;
    // In one piece: a server may answer the first and hang up before it has read the next.
    let question = format!("HEAD / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let heard = clock::now().as_secs_f64();
    let mut bytes = first.to_vec();
    // What came before a server hung up is what there is to judge.
    drop(stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes));
    Ok((String::from_utf8_lossy(&bytes).into_owned(), heard))
}

/// `clock.synchronized`: what the kernel was told of its clock, by way of `timedatectl`.
pub(super) fn synchronized(_facts: &Facts) -> Finding {
    let mut command = Command::new("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]).env("LC_ALL", "C");
    match output_of(&mut command, PROGRAM_TIMEOUT) {
        Ok(output) if output.status.success() => judge_synchronized(&String::from_utf8_lossy(&output.stdout)),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Finding::skip(Text::DoctorNoTimedatectl, &[&said])
        }
        Err(error) => Finding::skip(Text::DoctorNoTimedatectl, &[&error]),
    }
}

fn judge_synchronized(said: &str) -> Finding {
    match said.trim() {
        "yes" => Finding::pass(Text::DoctorClockKept, &[]),
        "no" => Finding::warn(Text::DoctorClockFree, &[], SET_CLOCK),
        other => Finding::skip(Text::DoctorNoTimedatectl, &[&other]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn at(ahead_ms: f64, uncertain_ms: f64) -> Verdict {
        judge(Offset { ahead_ms, uncertain_ms }).verdict
    }

    #[test]
    fn a_clock_is_wrong_by_more_than_the_way_of_looking_may_be() {
        assert_eq!(at(900.0, 0.0), Verdict::Pass);
        assert_eq!(at(1_100.0, 200.0), Verdict::Pass);
        assert_eq!(at(-1_100.0, 0.0), Verdict::Warn);
        assert_eq!(at(9_000.0, 10.0), Verdict::Fail);
        assert_eq!(of_link(&json!({ "clock_offset_ms": null })), None);
    }

    #[test]
    fn what_systemd_says_of_the_clock_is_taken_and_nothing_is_made_of_silence() {
        assert_eq!(judge_synchronized("yes\n").verdict, Verdict::Pass);
        assert_eq!(judge_synchronized("no\n").verdict, Verdict::Warn);
        assert_eq!(judge_synchronized("").verdict, Verdict::Skip);
    }

    proptest! {
        #[test]
        fn a_date_that_was_cut_to_its_second_never_accuses_a_right_clock(heard in 1.7e9_f64..1.8e9) {
            let offset = between(heard.floor(), heard);
            prop_assert_eq!(judge(offset).verdict, Verdict::Pass);
        }
    }
}
