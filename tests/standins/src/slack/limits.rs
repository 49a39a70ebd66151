//! What Slack accepts: takes the payload of a message, gives leave or the word that Slack refuses
//! it with. Pure. The numbers are Slack's documented limits; lengths count characters.

use serde_json::Value;

/// Characters of `text`.
const TEXT_CHARS_MAX: usize = 40_000;
/// Blocks of a message, and of an attachment.
const BLOCKS_MAX: usize = 50;
/// Characters of a header's text.
const HEADER_CHARS_MAX: usize = 150;
/// Characters of a section's text.
const SECTION_CHARS_MAX: usize = 3_000;
/// Fields of a section.
const FIELDS_MAX: usize = 10;
/// Characters of one of them.
const FIELD_CHARS_MAX: usize = 2_000;
/// Characters of all blocks together: not documented, but seen.
const BLOCKS_CHARS_MAX: usize = 13_200;
/// Attachments of a message.
const ATTACHMENTS_MAX: usize = 20;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Not JSON, or not an object of it, or a part has the wrong type.
    InvalidPayload,
    /// Nothing to show.
    NoText,
    /// The text is too long.
    MsgTooLong,
    /// Too many blocks, or one of them is out of bounds.
    InvalidBlocks,
    /// The blocks are too long together.
    MsgBlocksTooLong,
    /// Too many attachments.
    TooManyAttachments,
    /// More webhooks than this stand-in knows.
    NoService,
    /// Too many messages in too short a time.
    RateLimited,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 8] = [
        Self::InvalidPayload,
        Self::NoText,
        Self::MsgTooLong,
        Self::InvalidBlocks,
        Self::MsgBlocksTooLong,
        Self::TooManyAttachments,
        Self::NoService,
        Self::RateLimited,
    ];

    /// Slack's word, the body of its answer.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::InvalidPayload => "invalid_payload",
            Self::NoText => "no_text",
            Self::MsgTooLong => "msg_too_long",
            Self::InvalidBlocks => "invalid_blocks",
            Self::MsgBlocksTooLong => "msg_blocks_too_long",
            Self::TooManyAttachments => "too_many_attachments",
            Self::NoService => "no_service",
            Self::RateLimited => "rate_limited",
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoService => 404,
            Self::RateLimited => 429,
            _ => 400,
        }
    }
}

/// Reads a payload and holds it against the limits.
///
/// # Errors
/// What Slack says to it.
pub fn accepted(body: &[u8]) -> Result<Value, Refusal> {
    let payload: Value = serde_json::from_slice(body).map_err(|_| Refusal::InvalidPayload)?;
    check(&payload)?;
    Ok(payload)
}

fn check(payload: &Value) -> Result<(), Refusal> {
    if !payload.is_object() {
        return Err(Refusal::InvalidPayload);
    }
    let text = optional_text(payload.get("text")).map_err(|()| Refusal::InvalidPayload)?;
    let blocks = optional_list(payload.get("blocks")).map_err(|()| Refusal::InvalidBlocks)?;
    let attachments = optional_list(payload.get("attachments")).map_err(|()| Refusal::InvalidPayload)?;
    if text.is_empty() && blocks.is_empty() && attachments.is_empty() {
        return Err(Refusal::NoText);
    }
    if longer(text, TEXT_CHARS_MAX) {
        return Err(Refusal::MsgTooLong);
    }
    if attachments.len() > ATTACHMENTS_MAX {
        return Err(Refusal::TooManyAttachments);
    }
    check_blocks(blocks)?;
    attachments.iter().try_for_each(check_attachment)
}

fn check_attachment(attachment: &Value) -> Result<(), Refusal> {
    if !attachment.is_object() {
        return Err(Refusal::InvalidPayload);
    }
    check_blocks(optional_list(attachment.get("blocks")).map_err(|()| Refusal::InvalidBlocks)?)
}

fn check_blocks(blocks: &[Value]) -> Result<(), Refusal> {
    if blocks.len() > BLOCKS_MAX || !blocks.iter().all(is_block) {
        return Err(Refusal::InvalidBlocks);
    }
    let chars: usize = blocks.iter().flat_map(texts_of).map(|text| text.chars().count()).sum();
    if chars > BLOCKS_CHARS_MAX { Err(Refusal::MsgBlocksTooLong) } else { Ok(()) }
}

fn is_block(block: &Value) -> bool {
    let within =
        |text: &Value, limit| text_of(text).is_some_and(|text| !text.is_empty() && !longer(text, limit));
    match block.get("type").and_then(Value::as_str) {
        Some("header") => block.get("text").is_some_and(|text| {
            text.get("type").and_then(Value::as_str) == Some("plain_text") && within(text, HEADER_CHARS_MAX)
        }),
        Some("section") => {
            let Ok(fields) = optional_list(block.get("fields")) else { return false };
            let text = block.get("text");
            (text.is_some() || !fields.is_empty())
                && text.is_none_or(|text| within(text, SECTION_CHARS_MAX))
                && fields.len() <= FIELDS_MAX
                && fields.iter().all(|field| within(field, FIELD_CHARS_MAX))
        }
        Some(_) => true,
        None => false,
    }
}

/// The texts that a block shows: its own, those of its fields and of its elements.
pub(super) fn texts_of(block: &Value) -> impl Iterator<Item = &str> {
    let listed = |key| block.get(key).and_then(Value::as_array).into_iter().flatten();
    block.get("text").into_iter().chain(listed("fields")).chain(listed("elements")).filter_map(text_of)
}

/// The text of a text object (`{"type": "mrkdwn", "text": "…"}`).
fn text_of(object: &Value) -> Option<&str> {
    object.get("text").and_then(Value::as_str)
}

fn optional_text(value: Option<&Value>) -> Result<&str, ()> {
    match value {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().ok_or(()),
    }
}

fn optional_list(value: Option<&Value>) -> Result<&[Value], ()> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(value) => value.as_array().map(Vec::as_slice).ok_or(()),
    }
}

fn longer(text: &str, limit: usize) -> bool {
    text.chars().count() > limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn section(chars: usize) -> Value {
        json!({ "type": "section", "text": { "type": "mrkdwn", "text": "あ".repeat(chars) } })
    }

    fn header(chars: usize) -> Value {
        json!({ "type": "header", "text": { "type": "plain_text", "text": "あ".repeat(chars) } })
    }

    fn fields(count: usize, chars: usize) -> Value {
        let field = json!({ "type": "mrkdwn", "text": "x".repeat(chars) });
        json!({ "type": "section", "fields": vec![field; count] })
    }

    #[test]
    fn each_limit_holds_at_its_edge_and_refuses_one_more() {
        use Refusal::*;
        let divider = json!({ "type": "divider" });
        let cases = [
            (json!({ "text": "あ".repeat(40_000) }), json!({ "text": "あ".repeat(40_001) }), MsgTooLong),
            (json!({ "blocks": vec![&divider; 50] }), json!({ "blocks": vec![&divider; 51] }), InvalidBlocks),
            (json!({ "blocks": [header(150)] }), json!({ "blocks": [header(151)] }), InvalidBlocks),
            (json!({ "blocks": [section(3_000)] }), json!({ "blocks": [section(3_001)] }), InvalidBlocks),
            (json!({ "blocks": [fields(10, 9)] }), json!({ "blocks": [fields(11, 9)] }), InvalidBlocks),
            (json!({ "blocks": [fields(1, 2_000)] }), json!({ "blocks": [fields(1, 2_001)] }), InvalidBlocks),
            (
                json!({ "blocks": [section(3_000), section(3_000), section(3_000), section(3_000), section(1_200)] }),
                json!({ "blocks": [section(3_000), section(3_000), section(3_000), section(3_000), section(1_201)] }),
                MsgBlocksTooLong,
            ),
            (
                json!({ "attachments": vec![json!({}); 20] }),
                json!({ "attachments": vec![json!({}); 21] }),
                TooManyAttachments,
            ),
        ];
        for (at_the_edge, beyond, refusal) in cases {
            assert_eq!(check(&at_the_edge), Ok(()), "{refusal:?}");
            assert_eq!(check(&beyond), Err(refusal));
        }
    }

    #[test]
    fn the_blocks_inside_an_attachment_are_checked_too() {
        let payload = json!({ "attachments": [{ "color": "#d00", "blocks": [header(151)] }] });
        assert_eq!(check(&payload), Err(Refusal::InvalidBlocks));
    }

    #[test]
    fn a_message_with_nothing_to_show_has_no_text() {
        for payload in [json!({}), json!({ "text": "" }), json!({ "text": null, "blocks": [] })] {
            assert_eq!(check(&payload), Err(Refusal::NoText), "{payload}");
        }
    }

    #[test]
    fn what_is_not_an_object_is_an_invalid_payload() {
        for body in ["", "[]", "\"text\"", "{", "{\"text\": 5}", "payload=%7B%7D"] {
            assert_eq!(accepted(body.as_bytes()), Err(Refusal::InvalidPayload), "{body}");
        }
        assert_eq!(accepted("[".repeat(100_000).as_bytes()), Err(Refusal::InvalidPayload));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            Just("type"),
            Just("text"),
            Just("fields"),
            Just("blocks"),
            Just("attachments"),
            Just("section"),
            Just("header"),
            Just("elements"),
            Just("x"),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((word.clone(), inner), 0..6).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_payload_makes_the_check_panic(payload in any_json(), bytes: Vec<u8>) {
            let _ = check(&payload);
            let _ = accepted(&bytes);
        }
    }
}
