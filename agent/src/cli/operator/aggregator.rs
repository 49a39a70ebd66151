//! Questions to the aggregator for `--fleet`, and what an operator wants of a worker through it: one HTTP
//! request, bounded in time and bytes. The runtime and the client are made for this alone, so that what asks
//! this node's agent does not pay for them. The only file of the command that knows the HTTP client.

use std::error::Error;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::identity::provider;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde_json::Value;

use super::common::Common;
use crate::cli::ask::Trouble;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of a token's file.
const TOKEN_BYTES_MAX: u64 = 1_024;
/// Between two looks at an intent's outcome.
const LOOK: Duration = Duration::from_millis(200);

/// What an operator wants of a worker, as the aggregator takes it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct IntentWish {
    /// Of which node.
    pub(super) node: String,
    /// Which worker.
    pub(super) worker: String,
    /// `restart`, `drain`, `resume`, `hold` or `release`.
    pub(super) verb: String,
    /// Give up the jobs under way (only for a restart).
    pub(super) now: bool,
    /// Why, for the audit.
    pub(super) reason: Option<String>,
    /// For how long it is good, in seconds; at most 300.
    pub(super) ttl_seconds: u64,
}

/// Asks for a document below the aggregator's address.
pub(super) fn get(common: &Common, path: &str) -> Result<Value, Trouble> {
    let (url, status, body) = exchange(common, path, |client, url| client.get(url))?;
    let hint = format!("curl -sS {url}   (is that an aggregator of this version?)");
    if !status.is_success() {
        return Err(Trouble::new(Exit::BadData, format!("{url} answered with status {status}"), hint));
    }
    serde_json::from_slice(&body).map_err(|error| {
        Trouble::new(Exit::BadData, format!("{url} answered something else than JSON: {error}"), hint)
    })
}

/// Hands the aggregator what is wanted, with the token in that file; gives the intent's id. The intent is on
/// its way then, and [`wait_intent`] tells what became of it.
pub(super) fn post_intent(common: &Common, token_file: &Path, wish: &IntentWish) -> Result<String, Trouble> {
    let base = common.aggregator.trim_end_matches('/');
    if !keeps_secrets(base) {
        let problem = format!("the token would cross the network to {base} for everybody to read");
        return Err(Trouble::new(Exit::Refused, problem, "name an https:// address, or go through ssh"));
    }
    let token = token(token_file)?;
    let (url, status, body) =
        exchange(common, "/api/v1/intents", |client, url| client.post(url).bearer_auth(&token).json(wish))?;
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| document.get(key).and_then(Value::as_str);
    match text("id").filter(|_| status == StatusCode::ACCEPTED) {
        Some(id) => Ok(id.to_owned()),
        None => Err(declined(&url, status, text("error"), token_file)),
    }
}

/// Looks until an intent has an outcome, for at most so long; gives its entry of `/api/v1/intents` when it
/// is done, and the agent's reason when it is not.
pub(super) fn wait_intent(common: &Common, id: &str, patience: Duration) -> Result<Value, Trouble> {
    let end = clock::uptime().saturating_add(patience);
    let hint = format!("curl -sS {}/api/v1/intents", common.aggregator.trim_end_matches('/'));
    loop {
        let list = get(common, "/api/v1/intents")?;
        let entries = list.get("intents").and_then(Value::as_array);
        let entry = entries.and_then(|all| all.iter().find(|entry| text_of(entry, "id") == Some(id)));
        let outcome = entry.and_then(|entry| text_of(entry, "outcome")).unwrap_or("forgotten");
        let detail = entry.and_then(|entry| text_of(entry, "detail")).unwrap_or("no reason is given");
        match (outcome, entry) {
            ("done", Some(entry)) => return Ok(entry.clone()),
            ("refused", _) => {
                return Err(Trouble {
                    problem: format!("refused: {detail}"),
                    hint: None,
                    exit: Exit::Refused,
                });
            }
            ("sent", _) if clock::uptime() < end => std::thread::sleep(LOOK),
            ("sent", _) => {
                let problem = format!("the agent has not answered within {patience:?}; it may still do it");
                return Err(Trouble::new(Exit::Temporary, problem, hint));
            }
            ("unanswered", _) => {
                let problem = "the agent did not answer; nobody knows whether it was done";
                return Err(Trouble::new(Exit::Temporary, problem, "diarwatch nodes; is the agent older?"));
            }
            _ => {
                let problem =
                    "the aggregator does not know the intent any more; it may have been started again";
                return Err(Trouble::new(Exit::Temporary, problem, hint));
            }
        }
    }
}

fn text_of<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry.get(key).and_then(Value::as_str)
}

/// Why the aggregator did not take what is wanted, with what to do.
fn declined(url: &str, status: StatusCode, said: Option<&str>, token_file: &Path) -> Trouble {
    let Some(said) = said else {
        let problem = format!("{url} answered with status {status}; this aggregator takes no orders");
        return Trouble::new(Exit::BadData, problem, "update the aggregator, or order it on the node itself");
    };
    let problem = format!("the aggregator says: {said}");
    match status {
        StatusCode::UNAUTHORIZED => {
            let hint = format!(
                "diarwatch-aggregator operator add NAME   (on its host; put the token into {})",
                token_file.display()
            );
            Trouble::new(Exit::NoPermission, problem, hint)
        }
        StatusCode::FORBIDDEN => Trouble { problem, hint: None, exit: Exit::NoPermission },
        StatusCode::NOT_FOUND => Trouble::new(Exit::Unknown, problem, "diarwatch nodes"),
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Trouble::new(Exit::Temporary, problem, "the same again")
        }
        _ => Trouble { problem, hint: None, exit: Exit::Usage },
    }
}

/// A token, from a file that nobody else may read.
fn token(path: &Path) -> Result<String, Trouble> {
    let unreadable = |error: &std::io::Error| {
        let exit = match error.kind() {
            ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::BadConfig,
        };
        let hint =
            "diarwatch-aggregator operator add NAME   (prints a token; keep it in a file of mode 0600)";
        Trouble::new(exit, format!("token {}: {error}", path.display()), hint)
    };
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    let mode = file.metadata().map_err(|error| unreadable(&error))?.permissions().mode();
    if mode & 0o077 != 0 {
        let problem = format!("token {}: others than its owner may read it", path.display());
        return Err(Trouble::new(Exit::NoPermission, problem, format!("chmod 600 {}", path.display())));
    }
    let mut text = String::new();
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    let token = text.trim();
    if token.is_empty() || token.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(unreadable(&std::io::Error::new(ErrorKind::InvalidData, "it holds no token")));
    }
    Ok(token.to_owned())
}

/// Whether nobody on the way reads what is sent there.
fn keeps_secrets(base: &str) -> bool {
    let Ok(url) = Url::parse(base) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    url.scheme() == "https" || host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// One request and its whole answer, with the address that was asked.
fn exchange(
    common: &Common,
    path: &str,
    request: impl FnOnce(&Client, &str) -> RequestBuilder,
) -> Result<(String, StatusCode, Vec<u8>), Trouble> {
    let base = common.aggregator.trim_end_matches('/');
    let url = format!("{base}{path}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Trouble::new(Exit::Temporary, format!("cannot ask {url}: {error}"), "the same again")
    })?;
    let client = client(base.starts_with("https:")).map_err(|error| unreachable(base, &error))?;
    let request = request(&client, &url);
    let answer = runtime.block_on(async {
        tokio::time::timeout(common.timeout, fetch(request))
            .await
            .map_err(|_| format!("no whole answer within {:?}", common.timeout))?
    });
    // A name that does not resolve must not hold the end up.
    runtime.shutdown_background();
    let (status, body) = answer.map_err(|error| unreachable(base, &error))?;
    if status == StatusCode::MISDIRECTED_REQUEST {
        let problem = format!("the aggregator at {base} does not serve this name");
        return Err(Trouble::new(
            Exit::NoPermission,
            problem,
            "add the name to [http] allowed_hosts of the aggregator",
        ));
    }
    Ok((url, status, body))
}

async fn fetch(request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), String> {
    let answer = request.send().await.map_err(|error| root_cause(&error))?;
    let status = answer.status();
    Ok((status, body(answer).await?))
}

async fn body(mut answer: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| root_cause(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"));
        }
    }
    Ok(body)
}

/// Plain HTTP needs no roots, and none are looked for; `https` takes the host's own list.
fn client(https: bool) -> Result<Client, String> {
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let builder = if https {
        // The client takes the process' provider; a second installation changes nothing.
        drop((*provider()).clone().install_default());
        builder
    } else {
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder.tls_backend_preconfigured(tls)
    };
    builder.build().map_err(|error| root_cause(&error))
}

fn unreachable(base: &str, error: &str) -> Trouble {
    let problem = format!("no aggregator answers at {base}: {error}");
    let hint =
        format!("curl -sS {base}/-/healthy; or name another with --aggregator URL (DIARWATCH_AGGREGATOR)");
    Trouble::new(Exit::Unreachable, problem, hint)
}

/// The innermost error says what happened; the outer ones say "error sending request".
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        common: Common,
    }

    fn common(aggregator: &str) -> Common {
        Only::parse_from(["diarwatch", "--timeout", "20s", "--aggregator", aggregator]).common
    }

    fn wish() -> IntentWish {
        let [node, worker, verb] = ["gpu-01", "w", "restart"].map(String::from);
        IntentWish { node, worker, verb, now: false, reason: None, ttl_seconds: 60 }
    }

    /// Gives these answers in turn; what was asked comes back when it is joined.
    fn aggregator(answers: Vec<(u16, Value)>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let serve = move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = Vec::new();
                let whole = |text: &str| match text.split_once("\r\n\r\n") {
                    Some((_, body)) => !text.starts_with("POST") || body.ends_with('}'),
                    None => false,
                };
                while !whole(&String::from_utf8_lossy(&bytes)) {
                    let mut piece = [0; 4_096];
                    let length = stream.read(&mut piece).unwrap();
                    bytes.extend(&piece[..length]);
                }
                asked.push(String::from_utf8(bytes).unwrap());
                let body = body.to_string();
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
            asked
        };
        (base, std::thread::spawn(serve))
    }

    fn token_file(mode: u32, text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn what_is_wanted_goes_with_the_token_and_its_outcome_is_waited_for() {
        let entry = |outcome: &str| json!({ "intents": [{ "id": "i1", "outcome": outcome, "detail": "held by bob" }] });
        let answers = vec![
            (202, json!({ "id": "i1" })),
            (200, entry("sent")),
            (200, entry("done")),
            (200, entry("refused")),
        ];
        let (base, asked) = aggregator(answers);
        let (common, file) = (common(&base), token_file(0o600, "diarwatch_abc\n"));
        assert_eq!(post_intent(&common, file.path(), &wish()).unwrap(), "i1");
        let patience = Duration::from_secs(60);
        assert_eq!(wait_intent(&common, "i1", patience).unwrap()["outcome"], "done");
        let refused = wait_intent(&common, "i1", patience).unwrap_err();
        assert_eq!((refused.exit, refused.problem.as_str()), (Exit::Refused, "refused: held by bob"));
        let asked = asked.join().unwrap();
        assert!(asked[0].to_lowercase().contains("authorization: bearer diarwatch_abc\r\n"), "{}", asked[0]);
        assert!(asked[0].contains(r#""verb":"restart""#) && asked[0].starts_with("POST /api/v1/intents "));
    }

    #[test]
    fn an_intent_without_an_outcome_is_told_as_that() {
        let entry = |outcome: &str| json!({ "intents": [{ "id": "i1", "outcome": outcome }] });
        let (base, _) = aggregator(vec![(200, entry("sent")), (200, entry("unanswered")), (200, json!({}))]);
        for said in ["it may still do it", "nobody knows", "does not know the intent"] {
            let trouble = wait_intent(&common(&base), "i1", Duration::ZERO).unwrap_err();
            assert!(trouble.problem.contains(said) && trouble.exit == Exit::Temporary, "{trouble:?}");
        }
    }

    #[test]
    fn what_the_aggregator_declines_is_told_in_its_words_with_an_exit_of_its_own() {
        let file = token_file(0o600, "t");
        let cases = [(401, Exit::NoPermission), (403, Exit::NoPermission), (404, Exit::Unknown)];
        let more =
            [(409, Exit::Temporary), (429, Exit::Temporary), (503, Exit::Temporary), (400, Exit::Usage)];
        for (status, exit) in cases.into_iter().chain(more) {
            let (base, _) = aggregator(vec![(status, json!({ "error": "so it is" }))]);
            let trouble = post_intent(&common(&base), file.path(), &wish()).unwrap_err();
            assert_eq!((trouble.exit, trouble.problem.as_str()), (exit, "the aggregator says: so it is"));
        }
        let (base, _) = aggregator(vec![(404, Value::Null)]);
        let trouble = post_intent(&common(&base), file.path(), &wish()).unwrap_err();
        assert!(trouble.problem.contains("takes no orders"), "an older one: {trouble:?}");
    }

    #[test]
    fn a_token_stays_with_its_owner() {
        let sent = |mode, text: &str, base: &str| {
            let file = token_file(mode, text);
            post_intent(&common(base), file.path(), &wish()).unwrap_err()
        };
        let here = "http://127.0.0.1:9";
        assert!(sent(0o640, "t", here).hint.unwrap().starts_with("chmod 600"));
        assert_eq!(sent(0o600, " \n", here).exit, Exit::BadConfig);
        assert_eq!(sent(0o600, "a b", here).exit, Exit::BadConfig);
        let missing = post_intent(&common(here), Path::new("/nowhere/token"), &wish()).unwrap_err();
        assert!(missing.hint.unwrap().contains("operator add"));
        let open = sent(0o600, "t", "http://aggregator.example.com:9441");
        assert!(open.exit == Exit::Refused && open.hint.unwrap().contains("https"));
        assert!(["https://a.example", "http://localhost:1", "http://[::1]:1"].into_iter().all(keeps_secrets));
        assert!(
            ["http://10.0.0.1", "http://127.0.0.1.example", "x"].into_iter().all(|base| !keeps_secrets(base))
        );
    }
}
