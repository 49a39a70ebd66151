//! What becomes of the jobs of a worker that ended, and what is told of its end.

use serde_json::json;

use super::same;
use crate::lab::Lab;
use crate::site::Site;
use crate::worker::{Worker, post};

/// Jobs are known by the unit's journal; what is done with them is written where the agent may write.
const TABLES: &str = r#"[worker.jobs]
resubmit = { command = ["/bin/sh", "-c", "echo again $1 >>/var/lib/diarwatch-agent/jobs", "x", "{job}"] }
set_aside = { command = ["/bin/sh", "-c", "echo aside $1 >>/var/lib/diarwatch-agent/jobs", "x", "{job}"] }
[[queue]]
name = "diarization"
interval = "200ms"
[queue.log]
journal = "w.service"
accepted = 'job (?<id>\S+) accepted'
started = 'job (?<id>\S+) started'
finished = 'job (?<id>\S+) done'
failed = 'job (?<id>\S+) failed'
"#;
/// What a worker must not tell.
const SECRET: &str = "hf_abcdefghijklmnopqrstuvwxyz0123456789";
/// Bytes of a bundle of evidence.
const BUNDLE_BYTES_MAX: usize = 64 * 1024;

pub(super) fn a_job_that_ended_two_workers_is_set_aside_and_each_end_has_its_evidence(
    lab: &Lab,
) -> Result<(), String> {
    let worker = Worker {
        keys: "queue = \"diarization\"\n".to_owned(),
        tables: TABLES.to_owned(),
        service: format!("ExecStartPre=/bin/echo loading with {SECRET}\n"),
        ..Worker::new("w", 8001)
    };
    Site::with(lab, "poison", &[worker], |site| {
        let done = |text: &str| {
            let jobs = || site.node.sh("cat /var/lib/diarwatch-agent/jobs || true").unwrap_or_default();
            site.agent.wait("w", &format!("hooks: {text:?}"), |_| jobs() == text)
        };
        for hooks in ["again j-7", "again j-7\naside j-7"] {
            let before = site.agent.phase("w", "ready")?;
            // Long enough that its lines are read before it kills the worker in its middle.
            let job = json!({ "id": "j-7", "audio_seconds": 400, "poison": true });
            let answer = post(site.node.address.into(), 8001, "/diarize", &job)?;
            same(&format!("it is accepted: {answer}"), &answer.starts_with("HTTP/1.1 202"), &true)?;
            site.agent.another("w", before)?;
            done(hooks)?;
        }
        let lost = site.agent.nth("w", "worker_jobs_lost", 2)?;
        let told = (&lost["jobs"], &lost["count"], &lost["resubmitted"]);
        same("the second loss", &told, &(&json!(["j-7"]), &json!(1), &json!(0)))?;
        let aside = site.agent.nth("w", "worker_job_set_aside", 1)?;
        let told = (&aside["job"], &aside["kills"], &aside["outcome"]);
        same("what became of it", &told, &(&json!("j-7"), &json!(2), &json!("set aside")))?;
        site.agent.nth("w", "worker_evidence", 2)?;
        for evidence in site.agent.events("w", "worker_evidence") {
            let bundle = &evidence["bundle"];
            same("how it ended", &bundle["exit"]["signal"], &json!(9))?;
            let text = bundle.to_string();
            let holds = [text.contains("j-7"), text.contains("loading with"), text.contains(SECRET)];
            same(&format!("job, words, secret in {text}"), &holds, &[true, true, false])?;
            same("it fits", &(text.len() <= BUNDLE_BYTES_MAX), &true)?;
        }
        Ok(())
    })
}
