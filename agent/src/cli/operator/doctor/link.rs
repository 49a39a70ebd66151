//! The way to the aggregator: what the agent's own link says of it, and with `--network` a try from
//! here: the name, a datagram that every QUIC server answers, and TLS where the agent has no link.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use diarwatch_shared::clock::uptime;
use diarwatch_shared::identity::Identity;
use diarwatch_shared::texts::Text;
use serde_json::Value;

use super::report::{Finding, word};
use super::{CHECK_TIMEOUT, Facts, begin};
use crate::config::Config;
use crate::uplink;

/// For an answer to one datagram.
const ANSWER_WAIT: Duration = Duration::from_millis(400);
/// A datagram may be lost on the way.
const TRIES: usize = 2;
/// For TLS, behind an answer over UDP.
const TLS_WAIT: Duration = Duration::from_millis(1_500);
/// For all endpoints, with something left to tell of it.
const ENDPOINTS_WAIT: Duration = CHECK_TIMEOUT.saturating_sub(Duration::from_millis(200));
/// The least that a server of QUIC answers.
const DATAGRAM_BYTES: usize = 1_200;
/// A version that none speaks: a server says which it does, and begins nothing (RFC 9000, 6.1).
const VERSION_OF_NOBODY: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];

/// Why there is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// The name has no address.
    Name(String),
    /// The other host says that nothing listens there.
    Closed,
    /// Nothing comes back.
    Silent,
    /// One end does not take the other's certificate.
    Tls(String),
    /// The aggregator said no in its own words.
    Refused(String),
    /// Something else.
    Other(String),
}

impl Cause {
    /// What the agent's link says, in words that `uplink.rs` and its crates choose.
    fn of(problem: &str) -> Self {
        let said = problem.to_owned();
        if problem.starts_with("cannot resolve") {
            Self::Name(said)
        } else if problem.starts_with("aggregator refused") {
            Self::Refused(said)
        } else if problem.contains("certificate") || problem.contains("cryptographic") {
            Self::Tls(said)
        } else if problem.contains("no answer in") || problem.contains("timed out") {
            Self::Silent
        } else {
            Self::Other(said)
        }
    }

    fn finding(&self, endpoint: &str, config: Option<&Config>) -> Finding {
        let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, "9440"));
        let host = word(host.trim_matches(['[', ']']));
        let certificate = config.map(|config| word(config.identity.certificate.display()));
        let certificate = certificate.unwrap_or_else(|| "/etc/diarwatch/node.pem".to_owned());
        match self {
            Self::Name(said) => Finding::fail(
                Text::DoctorLinkName,
                &[&endpoint, said],
                format!("getent ahosts {host}; cat /etc/resolv.conf"),
            ),
            Self::Closed => Finding::fail(
                Text::DoctorLinkClosed,
                &[&endpoint],
                format!(
                    "sudo systemctl status diarwatch-aggregator; sudo ss -lun 'sport = :{port}'   # on {host}"
                ),
            ),
            Self::Silent => Finding::fail(
                Text::DoctorLinkSilent,
                &[&endpoint],
                format!(
                    "ping -c 3 {host}; sudo diarwatch doctor --network --only link   # on {host}: sudo ufw allow {port}/udp"
                ),
            ),
            Self::Tls(said) => Finding::fail(
                Text::DoctorLinkTls,
                &[&endpoint, said],
                format!("openssl x509 -in {certificate} -noout -subject -issuer -enddate; timedatectl"),
            ),
            Self::Refused(said) => Finding::fail(
                Text::DoctorLinkRefused,
                &[&endpoint, said],
                "journalctl -u diarwatch-aggregator -n 50   # on the aggregator's host",
            ),
            Self::Other(said) => Finding::fail(
                Text::DoctorLinkOther,
                &[&endpoint, said],
                "sudo diarwatch doctor --network --only link",
            ),
        }
    }
}

/// `link.aggregator`
pub(super) fn aggregator(facts: &Facts) -> Finding {
    facts.status().map_or_else(|skip| skip, |status| judge(&status["link"], facts.config().ok()))
}

fn judge(link: &Value, config: Option<&Config>) -> Finding {
    let endpoint = link["endpoint"].as_str().unwrap_or("-");
    if link["connected"] == true {
        let round_trip = link["round_trip_ms"].as_f64();
        let round_trip = round_trip.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
        return Finding::pass(Text::DoctorLinkUp, &[&endpoint, &round_trip]);
    }
    match link["problem"].as_str() {
        Some(problem) => Cause::of(problem).finding(endpoint, config),
        None => Finding::skip(Text::DoctorLinkNotYet, &[&endpoint]),
    }
}

/// `link.network`
pub(super) fn network(facts: &Facts) -> Finding {
    if !facts.network {
        return Finding::skip(Text::DoctorNoNetwork, &[]).try_this("diarwatch doctor --network");
    }
    let config = match facts.config() {
        Ok(config) => config,
        Err(skip) => return skip,
    };
    let connected =
        facts.status().is_ok_and(|status| status.pointer("/link/connected") == Some(&Value::Bool(true)));
    // While the agent has its connection, the aggregator would take this one for a second agent.
    let identity = if connected { None } else { Some(config.identity.clone()) };
    let end = uptime() + ENDPOINTS_WAIT;
    let trying: Vec<_> = config
        .aggregator
        .endpoints
        .iter()
        .map(|endpoint| {
            let (name, identity) = (endpoint.clone(), identity.clone());
            let tried = begin(move || {
                reach(&name)?;
                identity.as_ref().map_or(Ok(()), |identity| handshake(&name, identity))
            });
            (endpoint, tried)
        })
        .collect();
    let outcomes: Vec<_> = trying
        .into_iter()
        .map(|(endpoint, tried)| {
            let outcome = tried.recv_timeout(end.saturating_sub(uptime()));
            (endpoint.as_str(), outcome.unwrap_or(Err(Cause::Silent)))
        })
        .collect();
    judge_network(&outcomes, config)
}

/// The agent needs one of them; that a preferred one is not there is worth a look.
fn judge_network(outcomes: &[(&str, Result<(), Cause>)], config: &Config) -> Finding {
    let failed = outcomes.iter().find_map(|(endpoint, outcome)| Some((endpoint, outcome.as_ref().err()?)));
    let Some((endpoint, cause)) = failed else {
        let names: Vec<&str> = outcomes.iter().map(|(endpoint, _)| *endpoint).collect();
        return Finding::pass(Text::DoctorNetworkGood, &[&names.join(", ")]);
    };
    let finding = cause.finding(endpoint, Some(config));
    if outcomes.iter().any(|(_, outcome)| outcome.is_ok()) { finding.milder() } else { finding }
}

/// A name, its addresses, and whether one of them answers.
fn reach(endpoint: &str) -> Result<(), Cause> {
    let addresses = endpoint.to_socket_addrs().map_err(|error| Cause::Name(error.to_string()))?;
    let mut outcome = Err(Cause::Name("it has no address".to_owned()));
    for address in addresses {
        outcome = answers(address);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn answers(address: SocketAddr) -> Result<(), Cause> {
    let other = |error: std::io::Error| match error.kind() {
        ErrorKind::ConnectionRefused => Cause::Closed,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Cause::Silent,
        _ => Cause::Other(error.to_string()),
    };
    let local = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(local).map_err(other)?;
    // Connected, so that an "unreachable" of the other host comes back as an error.
    socket.connect(address).map_err(other)?;
    socket.set_read_timeout(Some(ANSWER_WAIT)).map_err(other)?;
    let mut outcome = Err(Cause::Silent);
    for _ in 0..TRIES {
        let mut answer = [0; DATAGRAM_BYTES];
        outcome = socket.send(&question()).and_then(|_| socket.recv(&mut answer)).map(drop).map_err(other);
        if outcome != Err(Cause::Silent) {
            break;
        }
    }
    outcome
}

/// The long header of a version that none speaks, filled up.
fn question() -> Vec<u8> {
    let mut datagram = vec![0xc0];
    datagram.extend(VERSION_OF_NOBODY);
    datagram.extend([8, 1, 2, 3, 4, 5, 6, 7, 8]);
    datagram.extend([8, 8, 7, 6, 5, 4, 3, 2, 1]);
    datagram.resize(DATAGRAM_BYTES, 0);
    datagram
}

/// TLS with the node's certificate. Whoever may not read the key has seen as much as he can.
fn handshake(endpoint: &str, identity: &crate::config::IdentityConfig) -> Result<(), Cause> {
    let read = |path| std::fs::read(path).ok();
    let (Some(ca), Some(certificate), Some(key)) =
        (read(&identity.ca), read(&identity.certificate), read(&identity.key))
    else {
        return Ok(());
    };
    let tls = Identity::from_pem(&ca, &certificate, &key).and_then(Identity::client);
    let tls = tls.map_err(|error| Cause::Tls(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Cause::Other(error.to_string()))?;
    let knocked =
        runtime.block_on(async { tokio::time::timeout(TLS_WAIT, uplink::knock(endpoint, &tls)).await });
    knocked
        .unwrap_or_else(|_| Err("no answer in time: TLS".to_owned()))
        .map_err(|problem| Cause::of(&problem))
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_cause_of_a_link_that_is_down_is_in_its_words() {
        let cases = [
            ("cannot resolve `a:1`: failed to lookup", Cause::Name(String::new())),
            ("cannot reach the aggregator at 1.2.3.4:5: no answer in 5 s", Cause::Silent),
            (
                "cannot reach the aggregator at 1.2.3.4:5: the cryptographic handshake failed: error 48: invalid peer certificate: UnknownIssuer",
                Cause::Tls(String::new()),
            ),
            ("aggregator refused: a node of this name is connected", Cause::Refused(String::new())),
            ("link lost: timed out", Cause::Silent),
            ("spool: x", Cause::Other(String::new())),
        ];
        for (problem, cause) in cases {
            let found = Cause::of(problem);
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&cause), "{problem}");
            assert_eq!(found.finding("a:1", None).verdict, Verdict::Fail);
        }
    }

    #[test]
    fn a_link_that_was_not_tried_yet_is_no_fault() {
        assert_eq!(judge(&json!({}), None).verdict, Verdict::Skip);
        assert_eq!(judge(&json!({ "connected": true, "endpoint": "a:1" }), None).verdict, Verdict::Pass);
    }

    #[test]
    fn one_endpoint_of_two_is_enough_and_still_told() {
        let text =
            "[identity]\nca = \"c\"\ncertificate = \"n\"\nkey = \"k\"\n[aggregator]\nendpoints = [\"a:1\"]\n";
        let config = crate::config::parse(std::path::Path::new("a.toml"), text).unwrap();
        let judge = |outcomes: &[(&str, Result<(), Cause>)]| judge_network(outcomes, &config).verdict;
        assert_eq!(judge(&[("a:1", Ok(()))]), Verdict::Pass);
        assert_eq!(judge(&[("a:1", Err(Cause::Closed)), ("b:1", Ok(()))]), Verdict::Warn);
        assert_eq!(judge(&[("a:1", Err(Cause::Closed)), ("b:1", Err(Cause::Silent))]), Verdict::Fail);
    }
}
