//! Questions to the aggregator for `--fleet`: an HTTP GET, bounded in time and bytes. The runtime and the
//! client are made for this alone, so that what asks this node's agent does not pay for them. The only
//! file of the command that knows the HTTP client.

use std::error::Error;

use diarwatch_shared::exit::Exit;
use diarwatch_shared::identity::provider;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

use super::common::Common;
use crate::cli::ask::Trouble;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Asks for a document below the aggregator's address.
pub(super) fn get(common: &Common, path: &str) -> Result<Value, Trouble> {
    let base = common.aggregator.trim_end_matches('/');
    let url = format!("{base}{path}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Trouble::new(Exit::Temporary, format!("cannot ask {url}: {error}"), "the same again")
    })?;
    let client = client(base.starts_with("https:")).map_err(|error| unreachable(base, &error))?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(common.timeout, fetch(&client, &url))
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
    let hint = format!("curl -sS {url}   (is that an aggregator of this version?)");
    if !status.is_success() {
        return Err(Trouble::new(Exit::BadData, format!("{url} answered with status {status}"), hint));
    }
    serde_json::from_slice(&body).map_err(|error| {
        Trouble::new(Exit::BadData, format!("{url} answered something else than JSON: {error}"), hint)
    })
}

async fn fetch(client: &Client, url: &str) -> Result<(StatusCode, Vec<u8>), String> {
    let answer = client.get(url).send().await.map_err(|error| root_cause(&error))?;
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
