//! What the first visit costs, counted on the wire; that everything is packed, kept by the browser,
//! and held in by a policy that is also enforced.

use std::sync::Arc;

use super::{LIVE, Stage};
use crate::relay::{Asked, Relay};
use crate::report::kib;
use crate::tab::{Profile, Source, Tab};

/// What the first visit may weigh, heads and the stream's first word included.
const FIRST_BYTES_MAX: usize = 64 * 1024;
/// Requests of the first visit, the stream included.
const FIRST_REQUESTS_MAX: usize = 5;
/// An answer that is longer is packed.
const PACKED_FROM_BYTES: f64 = 1_024.0;

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let relay = Relay::to(stage.site.page()).await.map_err(|error| error.to_string())?;
    let profile = Profile::new(&stage.chromium).await?;
    let tab = Tab::at(&profile, &format!("{}/?lang=ja", relay.url())).await?;
    report.done("the first visit becomes live", &tab.until("it is live", LIVE).await);
    let first = relay.asked();
    let bytes: usize = first.iter().map(|one| one.bytes).sum();
    report.figures(|figures| figures.gzip_bytes = bytes);
    let seen = format!("{:.1} KiB: {first:?}", kib(bytes));
    report.check("the first visit is at most 64 KiB on the wire", bytes <= FIRST_BYTES_MAX, "64 KiB", &seen);
    report.check("the first visit is at most 5 requests", first.len() <= FIRST_REQUESTS_MAX, "5", &seen);
    for request in tab.requests() {
        let packed =
            request.headers.get("content-encoding").is_some_and(|name| name == "gzip" || name == "br");
        if request.bytes > PACKED_FROM_BYTES {
            let seen = format!("{request:?}");
            report.check(
                format!("{} ({}) is packed", local(&request.url), request.kind),
                packed,
                "gzip",
                seen,
            );
        }
        let refused = request.status >= 400 || request.failed.is_some();
        report.check(format!("{} is answered", local(&request.url)), !refused, "2xx", format!("{request:?}"));
    }
    policy(&stage, &tab).await?;
    let second = Tab::at(&profile, &format!("{}/?lang=ja", relay.url())).await?;
    report.done("the second visit becomes live", &second.until("it is live", LIVE).await);
    let again: Vec<Asked> = relay.asked().into_iter().skip(first.len()).collect();
    let fetched: Vec<&str> =
        again.iter().map(|one| one.path.as_str()).filter(|path| is_asset(path)).collect();
    report.none("a second visit fetches no asset again", &fetched);
    profile.close().await;
    Ok(())
}

/// The policy forbids what is not the page's own, and an injected script does not run.
async fn policy(stage: &Stage, tab: &Tab) -> Result<(), String> {
    let report = &stage.report;
    let requests = tab.requests();
    let document = requests.iter().find(|request| request.kind == "Document").cloned().unwrap_or_default();
    let policy = document.headers.get("content-security-policy").cloned().unwrap_or_default();
    let strict = policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'");
    report.check(
        "the policy forbids what it does not name",
        strict,
        "default-src 'none' and no frame",
        &policy,
    );
    let loose: Vec<&str> = policy
        .split_whitespace()
        .filter(|word| word.contains("unsafe") || word.contains('*') || word.starts_with("http"))
        .collect();
    report.none("the policy has no hole", &loose);
    let mark = stage.chromium.pipe.mark();
    let ran: bool = tab
        .eval("(async () => { const s = document.createElement('script'); s.textContent = 'window.ranInjected = true'; document.body.append(s); const d = document.createElement('div'); d.innerHTML = '<img src=\"data:,x\" onerror=\"window.ranInjected = true\">'; document.body.append(d); await new Promise((done) => d.firstChild.addEventListener('error', done)); await new Promise((done) => setTimeout(done)); s.remove(); d.remove(); return window.ranInjected === true; })()")
        .await?;
    stage.excuse(mark, Source::Policy);
    report.check("an injected script does not run", !ran, "nothing runs", "it ran");
    Ok(())
}

fn is_asset(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    path.ends_with(".css") || path.ends_with(".js") || path.ends_with(".svg") || path.ends_with(".woff2")
}

fn local(url: &str) -> &str {
    let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)));
    path.unwrap_or(url)
}
