//! Slack by incoming webhook: a message as Slack's JSON, and what its answer means.
//!
//! Takes a message; gives an [`Outcome`]. A 429 waits as long as Slack says; a webhook that is gone
//! is tried again, slowly, since a person has to mend the address; a message that Slack calls
//! invalid is given up. Text from labels is escaped and cut on character boundaries.

use std::time::Duration;

use diarwatch_shared::clock::Zone;
use diarwatch_shared::identity::provider;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::{Value, json};

use super::Outcome;
use super::message::{self, Level};
use crate::alerts::Alert;

/// For Slack to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of the text that a phone shows.
const TEXT_CHARS_MAX: usize = 3_000;
/// Characters of one field (Slack takes 2,000).
const FIELD_CHARS_MAX: usize = 1_900;
/// Between tries of a webhook that is refused as a whole.
const GONE_RETRY: Duration = Duration::from_secs(60);

/// A Slack channel behind a webhook.
#[derive(Debug)]
pub struct Slack {
    client: reqwest::Client,
    webhook_url: String,
}

impl Slack {
    /// A channel; the address is a secret and is never said.
    ///
    /// # Errors
    /// When no HTTP client can be made or the address is none.
    pub fn new(webhook_url: &str) -> Result<Self, String> {
        let url: reqwest::Url =
            webhook_url.trim().parse().map_err(|_| String::from("it holds no web address"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(String::from("its address begins with neither https:// nor http://"));
        }
        let client = client(url.scheme() == "https")?;
        Ok(Self { client, webhook_url: url.to_string() })
    }

    /// Posts a message.
    pub async fn send(&self, payload: &Value) -> Outcome {
        let mut answer = match self.client.post(&self.webhook_url).json(payload).send().await {
            Ok(answer) => answer,
            Err(error) => {
                // Only a connection that never stood is known to have carried nothing.
                let never_there = error.is_connect() || error.is_builder();
                let reason = format!("Slack: {}", error.without_url());
                return if never_there {
                    Outcome::Later { after: None, reason }
                } else {
                    Outcome::Unknown { reason }
                };
            }
        };
        let status = answer.status().as_u16();
        let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        // Slack says a word; of whatever else answers, the first piece is enough.
        let body = answer.chunk().await.ok().flatten().unwrap_or_default();
        verdict(status, after, &String::from_utf8_lossy(&body))
    }
}

/// Plain HTTP (a stand-in, a proxy on this host) needs no roots; HTTPS takes the system's.
fn client(https: bool) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
    if https {
        // Taken by reqwest for whatever is not preconfigured; a second call changes nothing.
        drop((*provider()).clone().install_default());
        let hint = "are CA certificates installed (package ca-certificates)?";
        return builder
            .https_only(true)
            .build()
            .map_err(|error| format!("HTTPS cannot be used: {error}; {hint}"));
    }
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    builder.tls_backend_preconfigured(tls).build().map_err(|error| error.to_string())
}

/// What an answer of Slack means.
#[must_use]
pub fn verdict(status: u16, retry_after_s: Option<u64>, body: &str) -> Outcome {
    let word: String = body.chars().filter(|c| !c.is_control()).take(80).collect();
    let reason = format!("Slack: HTTP {status} {word}");
    match status {
        200..=299 => Outcome::Accepted,
        // The webhook as a whole: forbidden, deleted, channel archived. The message is still good.
        401 | 403 | 404 | 410 => Outcome::Later {
            after: Some(GONE_RETRY),
            reason: format!("{reason}; check the webhook's address"),
        },
        400 | 413 | 422 => Outcome::Never { reason },
        _ => Outcome::Later { after: retry_after_s.map(Duration::from_secs), reason },
    }
}

/// What stands before a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// Its GPU values come from a fake NVML.
    pub simulated: bool,
    /// It may have come before.
    pub repeated: bool,
}

impl Marks {
    fn text(self, lang: Lang) -> String {
        let simulated = self.simulated.then(|| String::from("[SIMULATED] "));
        let repeated = self.repeated.then(|| format!("[{}] ", Text::SentAgain.in_lang(lang)));
        [simulated, repeated].into_iter().flatten().collect()
    }
}

/// The JSON of a message.
#[must_use]
pub fn payload(alert: &Alert, action: Option<&str>, marks: Marks, zone: &Zone, lang: Lang) -> Value {
    let action_mark = action.map(|action| format!(" ({action})")).unwrap_or_default();
    let headline = format!("{}{}{action_mark}", marks.text(lang), message::headline(alert, lang));
    let field = |(name, value): (&'static str, String)| json!({ "type": "mrkdwn", "text": format!("*{}*\n{}", escape(name), fit(&value, FIELD_CHARS_MAX)) });
    let fields: Vec<Value> = message::fields(alert, action, zone, lang).into_iter().map(field).collect();
    let mut blocks = vec![json!({ "type": "section", "fields": fields })];
    if let Some(description) = alert.description(lang) {
        let text = fit(description, FIELD_CHARS_MAX);
        blocks.insert(0, json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } }));
    }
    let color = match Level::of(alert) {
        Level::Critical => "#d32f2f",
        Level::Warning => "#f9a825",
        Level::Ok => "#2e7d32",
    };
    json!({
        "text": fit(&headline, TEXT_CHARS_MAX),
        "attachments": [{ "color": color, "blocks": blocks }],
    })
}

/// Slack's three characters; a label can then neither link nor mention.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Escaped text of at most so many characters. It is cut after it is escaped: Slack counts what it
/// gets, and refuses the whole message for one field that is too long.
fn fit(text: &str, chars_max: usize) -> String {
    let mut fitted = String::new();
    let mut chars = 0;
    for c in text.chars() {
        let escaped = escape(c.encode_utf8(&mut [0; 4]));
        chars += escaped.chars().count();
        if chars > chars_max {
            fitted.push('…');
            break;
        }
        fitted.push_str(&escaped);
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::Phase;
    use diarwatch_shared::clock::UnixMicros;
    use proptest::prelude::*;

    fn alert(summary: &str) -> Alert {
        let labels = [
            ("alertname", "WorkerNotReady"),
            ("severity", "critical"),
            ("service", "pyannote #2"),
            ("node", "gpu-02"),
        ];
        Alert {
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            annotations: [("summary".to_owned(), summary.to_owned())].into(),
            value: 0.0,
            phase: Phase::Firing,
            active_since: UnixMicros(1_764_826_335_000_000),
            fired_at: Some(UnixMicros(1_764_826_335_000_000)),
            resolved_at: None,
            seen_at: UnixMicros(1_764_826_335_000_000),
            keep_firing_for_us: 0,
        }
    }

    fn payload_of(alert: &Alert) -> Value {
        let marks = Marks { simulated: true, repeated: false };
        payload(alert, Some("自動再起動 #1"), marks, &Zone::named("Asia/Tokyo").unwrap(), Lang::Ja)
    }

    #[test]
    fn the_phone_shows_what_where_and_what_was_done_in_japanese() {
        let text = payload_of(&alert("ヘルスチェック失敗: pyannote #2"))["text"].as_str().unwrap().to_owned();
        assert_eq!(text, "[SIMULATED] ■ 異常 発生: ヘルスチェック失敗: pyannote #2 [gpu-02] (自動再起動 #1)");
    }

    #[test]
    fn a_label_can_neither_mention_nor_link() {
        let text = payload_of(&alert("<!channel> & <https://x|y>")).to_string();
        assert!(!text.contains("<!channel>") && text.contains("&lt;!channel&gt; &amp; &lt;https"), "{text}");
    }

    #[test]
    fn a_limit_of_slack_is_waited_for_and_only_a_bad_message_is_given_up() {
        assert_eq!(verdict(200, None, "ok"), Outcome::Accepted);
        let Outcome::Later { after, .. } = verdict(429, Some(7), "rate_limited") else { panic!() };
        assert_eq!(after, Some(Duration::from_secs(7)));
        assert!(matches!(verdict(500, None, ""), Outcome::Later { after: None, .. }));
        assert!(matches!(verdict(404, None, "no_service"), Outcome::Later { after: Some(_), .. }));
        assert!(matches!(verdict(400, None, "invalid_blocks"), Outcome::Never { .. }));
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_saying_it() {
        assert!(Slack::new("https://hooks.example.com/services/T/B/X\n").is_ok());
        assert!(Slack::new("http://127.0.0.1:1/services/T/B/X").is_ok());
        for bad in ["", "hooks.example.com", "ftp://secret.example.com/x"] {
            assert!(!Slack::new(bad).unwrap_err().contains("example"), "{bad}");
        }
    }

    #[test]
    fn a_message_that_may_have_come_before_says_so() {
        let marks = Marks { simulated: false, repeated: true };
        let payload = payload(&alert("x"), None, marks, &Zone::named("Asia/Tokyo").unwrap(), Lang::Ja);
        assert_eq!(payload["text"], "[再送] ■ 異常 発生: x [gpu-02]");
    }

    proptest! {
        #[test]
        fn whatever_the_text_slack_gets_no_field_that_it_refuses(text in "[<&>aあ🔴]{0,9}", times in 0_usize..700) {
            let long = text.repeat(times);
            let mut alert = alert(&long);
            alert.labels.insert("service".to_owned(), long.clone());
            alert.annotations.insert("description".to_owned(), long.clone());
            let marks = Marks::default();
            let payload = payload(&alert, Some(&long), marks, &Zone::named("Asia/Tokyo").unwrap(), Lang::Ja);
            let within = |text: &Value, limit: usize| {
                let text = text.as_str().unwrap();
                // What is escaped is whole: each `&` begins one of three words.
                let words = ["&amp;", "&lt;", "&gt;"].map(|word| text.matches(word).count()).iter().sum::<usize>();
                text.chars().count() <= limit && words == text.matches('&').count()
            };
            prop_assert!(within(&payload["text"], 40_000));
            for block in payload["attachments"][0]["blocks"].as_array().unwrap() {
                prop_assert!(block.get("text").is_none_or(|text| within(&text["text"], 3_000)));
                let fields = block["fields"].as_array().into_iter().flatten();
                prop_assert!(fields.map(|field| &field["text"]).all(|text| within(text, 2_000)));
            }
        }
    }
}
