//! The node's certificate and key: who may read them, and for how long they are good.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::identity::{Identity, IdentityError, NodeCertificate, Term, node_certificate};
use diarwatch_shared::texts::Text;

use super::Facts;
use super::host::{self, Guard, READ, Who};
use super::report::{Finding, word};

/// A certificate that ends within this is worth a look.
const SOON: Duration = Duration::from_secs(30 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);
const OTHERS: u32 = 0o007;
const GROUP_READS: u32 = 0o040;
const GROUP_WRITES: u32 = 0o020;

/// `identity.files`
pub(super) fn files(facts: &Facts) -> Finding {
    let config = match facts.config() {
        Ok(config) => config,
        Err(skip) => return skip,
    };
    let who = facts.agent_user();
    let paths = [&config.identity.ca, &config.identity.certificate, &config.identity.key];
    let found = paths.into_iter().find_map(|path| unreadable(facts, path, &config.identity.key, &who));
    found.unwrap_or_else(|| Finding::pass(Text::DoctorIdentityReadable, &[&who.name]))
}

/// What keeps the agent from a file, if anything does.
fn unreadable(facts: &Facts, path: &Path, key: &Path, who: &Who) -> Option<Finding> {
    match host::obstacle(path, who, READ) {
        Ok(None) => None,
        Ok(Some(obstacle)) => {
            let shown = format!("{} ({})", obstacle.path.display(), facts.host.shown(&obstacle));
            let mend = grant(&obstacle, path, path == key, who);
            Some(Finding::fail(Text::DoctorMayNotRead, &[&who.name, &path.display(), &shown], mend))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Some(
            Finding::skip(Text::DoctorNotAllowed, &[&facts.host.me.name, &path.display()])
                .try_this("sudo diarwatch doctor"),
        ),
        Err(error) => Some(Finding::fail(
            Text::DoctorIdentityMissing,
            &[&path.display(), &error],
            "diarwatch-aggregator pki node --directory DIR NODE   # where the CA is",
        )),
    }
}

/// How to let the agent through what stands in its way.
fn grant(obstacle: &Guard, wanted: &Path, is_key: bool, who: &Who) -> String {
    let (path, name) = (word(obstacle.path.display()), &who.name);
    if obstacle.path != wanted {
        format!("sudo chmod o+x {path}")
    } else if is_key {
        format!("sudo chown {name} {path}; sudo chmod u+r,go-rwx {path}")
    } else {
        // No secret, and an aggregator on this host may read the same one.
        format!("sudo chmod a+r {path}")
    }
}

/// `identity.key`
pub(super) fn key(facts: &Facts) -> Finding {
    let config = match facts.config() {
        Ok(config) => config,
        Err(skip) => return skip,
    };
    let path = &config.identity.key;
    match host::guard(path) {
        Ok(guard) => judge_key(&guard, &facts.host.shown(&guard), &facts.agent_user()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::skip(Text::DoctorNotAllowed, &[&facts.host.me.name, &path.display()])
                .try_this("sudo diarwatch doctor")
        }
        Err(error) => Finding::skip(Text::DoctorIdentityMissing, &[&path.display(), &error]),
    }
}

/// The group may read where that is how the agent does.
fn judge_key(guard: &Guard, shown: &str, agent: &Who) -> Finding {
    let path = guard.path.display();
    let by_group = agent.uid != guard.uid && agent.gids.contains(&guard.gid);
    if guard.mode & (OTHERS | GROUP_WRITES) != 0 {
        let bits = if by_group { "g-w,o-rwx" } else { "go-rwx" };
        return Finding::fail(
            Text::DoctorKeyOpen,
            &[&path, &shown],
            format!("sudo chmod {bits} {}   # others may have it already: issue a new one", word(&path)),
        );
    }
    if guard.mode & GROUP_READS != 0 && !by_group {
        return Finding::warn(
            Text::DoctorKeyGroup,
            &[&path, &shown],
            format!("sudo chmod g-r {}", word(&path)),
        );
    }
    Finding::pass(Text::DoctorKeyClosed, &[&path, &shown])
}

/// `identity.certificate`
pub(super) fn certificate(facts: &Facts) -> Finding {
    let config = match facts.config() {
        Ok(config) => config,
        Err(skip) => return skip,
    };
    let identity = &config.identity;
    let (ca, certificate) = match (std::fs::read(&identity.ca), std::fs::read(&identity.certificate)) {
        (Ok(ca), Ok(certificate)) => (ca, certificate),
        // `identity.files` says what is to be done.
        (Err(error), _) => {
            return Finding::skip(Text::DoctorIdentityMissing, &[&identity.ca.display(), &error]);
        }
        (_, Err(error)) => {
            return Finding::skip(Text::DoctorIdentityMissing, &[&identity.certificate.display(), &error]);
        }
    };
    // Who asks may not be allowed to read the key; then it is taken to fit.
    let fits = std::fs::read(&identity.key).map_or(Ok(()), |key| {
        Identity::from_pem(&ca, &certificate, &key).and_then(Identity::client).map(drop)
    });
    let judged = fits.and_then(|()| node_certificate(&ca, &certificate, facts.now));
    judge_certificate(judged, &identity.certificate, facts.now, &facts.common.tz)
}

fn judge_certificate(
    judged: Result<NodeCertificate, IdentityError>,
    path: &Path,
    now: UnixMicros,
    zone: &Zone,
) -> Finding {
    let shown = path.display();
    let NodeCertificate { node, term } = match judged {
        Ok(certificate) => certificate,
        Err(error) => {
            let mend = format!(
                "openssl x509 -in {} -noout -subject -issuer -enddate -ext subjectAltName",
                word(&shown)
            );
            return Finding::fail(Text::DoctorCertificateUnfit, &[&shown, &error], mend);
        }
    };
    let renew = format!(
        "diarwatch-aggregator pki node --directory DIR {node}   # where the CA is, the old {node}.pem moved away"
    );
    match term {
        Term::Ended(ends) => {
            Finding::fail(Text::DoctorCertificateEnded, &[&shown, &node, &zone.date_time(ends)], renew)
        }
        Term::NotYet(from) => Finding::fail(
            Text::DoctorCertificateNotYet,
            &[&shown, &node, &zone.date_time(from), &zone.date_time(now)],
            "timedatectl   # is this host's clock right?",
        ),
        Term::Valid(Some(ends)) if ends.since(now) < SOON => {
            let days = ends.since(now).as_secs() / DAY.as_secs();
            Finding::warn(Text::DoctorCertificateSoon, &[&shown, &node, &zone.date_time(ends), &days], renew)
        }
        Term::Valid(Some(ends)) => {
            Finding::pass(Text::DoctorCertificateGood, &[&node, &zone.date_time(ends)])
        }
        Term::Valid(None) => Finding::pass(Text::DoctorCertificateGood, &[&node, &"9999"]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use diarwatch_shared::node::NodeId;

    fn key_of(mode: u32, agent: u32, gid: u32) -> Verdict {
        let guard = Guard { path: "/k".into(), uid: 0, gid: 7, mode };
        judge_key(&guard, "", &Who { name: "a".into(), uid: agent, gids: [gid].into() }).verdict
    }

    #[test]
    fn a_key_is_for_its_owner_or_for_the_group_that_the_agent_reads_it_by() {
        assert_eq!(key_of(0o600, 0, 0), Verdict::Pass);
        assert_eq!(key_of(0o640, 9, 7), Verdict::Pass);
        assert_eq!(key_of(0o640, 0, 7), Verdict::Warn);
        assert_eq!(key_of(0o644, 0, 0), Verdict::Fail);
        assert_eq!(key_of(0o604, 9, 7), Verdict::Fail);
        assert_eq!(key_of(0o660, 9, 7), Verdict::Fail);
    }

    #[test]
    fn a_certificate_warns_a_month_before_its_end_and_says_the_day() {
        let zone = Zone::named("Asia/Tokyo").unwrap();
        let now = UnixMicros(1_764_826_335_000_000);
        let judge = |term| {
            let certificate = NodeCertificate { node: NodeId::new("n").unwrap(), term };
            judge_certificate(Ok(certificate), Path::new("/c"), now, &zone)
        };
        let soon = judge(Term::Valid(Some(now.plus(DAY * 29))));
        assert_eq!(soon.verdict, Verdict::Warn);
        assert!(format!("{soon:?}").contains("2026-01-02"), "{soon:?}");
        assert_eq!(judge(Term::Valid(Some(now.plus(DAY * 31)))).verdict, Verdict::Pass);
        assert_eq!(judge(Term::Valid(None)).verdict, Verdict::Pass);
        assert_eq!(judge(Term::Ended(now.minus(DAY))).verdict, Verdict::Fail);
        assert_eq!(judge(Term::NotYet(now.plus(DAY))).verdict, Verdict::Fail);
    }
}
