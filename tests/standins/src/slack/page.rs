//! The channel as a page: takes the kept messages, gives HTML that needs no script, newest first, and
//! loads itself again every two seconds. Pure.

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::texts::{Lang, Text};
use serde_json::Value;

use super::channel::Message;
use super::mrkdwn::{escape, html};
use super::{limits, list, text};

/// Messages on the page; older ones are at `/messages`.
const SHOWN_MAX: usize = 50;
/// The bar of an attachment without a colour of its own.
const PLAIN: &str = "#dddddd";

const STYLE: &str = "
body { font: 15px/1.45 sans-serif; margin: 0; color: #1d1c1d; background: #fff }
header { padding: 10px 20px; border-bottom: 1px solid #ddd; font-weight: bold }
article { padding: 8px 20px; border-bottom: 1px solid #f0f0f0; overflow-wrap: anywhere }
time, .channel { color: #616061; font-size: 12px }
.text, .field, .context { white-space: pre-wrap }
.context { color: #616061; font-size: 13px }
.attachment { border-left: 4px solid; padding: 2px 12px; margin: 4px 0 }
.fields { display: grid; grid-template-columns: 1fr 1fr; gap: 2px 16px }
h2 { font-size: 17px; margin: 4px 0 }
@media (prefers-color-scheme: dark) { body { color: #d1d2d3; background: #1a1d21 } }
";

/// The page of the channel.
pub(super) fn page<'a>(messages: impl DoubleEndedIterator<Item = &'a Message>) -> String {
    let title = Text::SlackStandin.in_lang(Lang::Ja);
    let zone = Zone::named("Asia/Tokyo").ok();
    let shown: String =
        messages.rev().take(SHOWN_MAX).map(|message| article(message, zone.as_ref())).collect();
    let shown = match shown.as_str() {
        "" => format!("<article>{}</article>", Text::NoMessages.in_lang(Lang::Ja)),
        _ => shown,
    };
    format!(
        "<!doctype html><html lang=\"ja\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"2\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><header>{title}</header><main>{shown}</main></body></html>"
    )
}

fn article(message: &Message, zone: Option<&Zone>) -> String {
    let micros = u64::try_from(message.at_ms).unwrap_or_default().saturating_mul(1_000);
    let at = zone.map(|zone| zone.date_time(UnixMicros(micros))).unwrap_or_default();
    let attachments: String = list(&message.payload, "attachments").map(attachment).collect();
    format!(
        "<article><time>{at}</time> <span class=\"channel\">{}</span>{}{attachments}</article>",
        escape(&message.channel),
        body(&message.payload)
    )
}

/// Blocks where there are some: Slack shows the text then only as a notification.
fn body(part: &Value) -> String {
    let blocks: String = list(part, "blocks").map(block).collect();
    if !blocks.is_empty() {
        return blocks;
    }
    text(part, "text").map(|text| format!("<div class=\"text\">{}</div>", html(text))).unwrap_or_default()
}

fn block(block: &Value) -> String {
    let texts = || limits::texts_of(block);
    match text(block, "type") {
        Some("header") => texts().map(|text| format!("<h2>{}</h2>", escape(text))).collect(),
        Some("divider") => "<hr>".to_owned(),
        Some("section") => {
            let own = block.get("text").and_then(|own| text(own, "text"));
            let fields: String = list(block, "fields")
                .filter_map(|field| text(field, "text"))
                .map(|field| format!("<div class=\"field\">{}</div>", html(field)))
                .collect();
            let own = own.map(|own| format!("<div class=\"text\">{}</div>", html(own))).unwrap_or_default();
            if fields.is_empty() { own } else { format!("{own}<div class=\"fields\">{fields}</div>") }
        }
        _ => texts().map(|text| format!("<div class=\"context\">{}</div>", html(text))).collect(),
    }
}

fn attachment(attachment: &Value) -> String {
    let title = text(attachment, "title").map(|title| format!("<h2>{}</h2>", html(title)));
    let fields: String = list(attachment, "fields")
        .map(|field| {
            let part = |key| text(field, key).map(html).unwrap_or_default();
            format!("<div class=\"field\"><b>{}</b>\n{}</div>", part("title"), part("value"))
        })
        .collect();
    format!(
        "<div class=\"attachment\" style=\"border-color:{}\">{}{}<div class=\"fields\">{fields}</div></div>",
        colour(text(attachment, "color").unwrap_or_default()),
        title.unwrap_or_default(),
        body(attachment)
    )
}

/// Slack's three words, or a colour in hexadecimal digits; anything else is plain.
fn colour(text: &str) -> &str {
    match text {
        "good" => "#2eb886",
        "warning" => "#daa038",
        "danger" => "#a30200",
        _ => {
            let digits = text.strip_prefix('#').unwrap_or_default();
            let is_colour = matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if is_colour { text } else { PLAIN }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::{Channel, Post};
    use super::*;
    use std::time::Duration;

    fn shown(payloads: &[Value]) -> String {
        let mut channel = Channel::default();
        for (second, payload) in (1_764_826_335..).zip(payloads) {
            let body = payload.to_string();
            let (now, at) = (Duration::from_secs(second), UnixMicros(second * 1_000_000));
            let post = Post { channel: "/services/T/B/X", is_json: true, body: body.as_bytes(), now, at };
            assert_eq!(channel.post(&post).status, 200);
        }
        page(channel.messages())
    }

    #[test]
    fn the_newest_message_is_on_top_with_its_time_in_tokyo() {
        let page = shown(&[serde_json::json!({ "text": "発生" }), serde_json::json!({ "text": "復旧" })]);
        assert!(page.find("復旧").unwrap() < page.find("発生").unwrap());
        assert!(page.contains("2025-12-04 14:32:15 JST") && page.contains("lang=\"ja\""));
    }

    #[test]
    fn an_attachment_has_its_colour_and_nothing_else_in_the_style() {
        let page = shown(&[serde_json::json!({ "attachments": [
            { "color": "danger", "text": "異常" },
            { "color": "#36a64f", "text": "復旧" },
            { "color": "red;background:url(x)", "text": "?" },
        ] })]);
        for part in ["border-color:#a30200\"", "border-color:#36a64f\"", "border-color:#dddddd\""] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("url(x)"));
    }

    #[test]
    fn blocks_are_shown_in_place_of_the_text_and_nothing_of_them_is_markup() {
        let page = shown(&[serde_json::json!({
            "text": "notification",
            "blocks": [
                { "type": "header", "text": { "type": "plain_text", "text": "<script>" } },
                { "type": "section", "fields": [{ "type": "mrkdwn", "text": "*対象*\nnode-1 &lt;&gt;" }] },
                { "type": "context", "elements": [{ "type": "mrkdwn", "text": "SIMULATED" }] },
                { "type": "divider" },
            ],
        })]);
        assert!(!page.contains("notification") && !page.contains("<script"));
        for part in ["<h2>&lt;script&gt;</h2>", "<b>対象</b>\nnode-1 &lt;&gt;", ">SIMULATED</div>", "<hr>"]
        {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn an_empty_channel_says_so() {
        assert!(page(std::iter::empty()).contains("メッセージはありません"));
    }
}
