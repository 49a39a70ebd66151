//! Slack's text to HTML: takes text in which `&`, `<` and `>` are escaped as Slack wants them, gives
//! HTML in which everything is escaped anew, with links and bold. Pure; no text of a message can
//! open a tag of its own.

/// Escapes for HTML text and attribute values.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

/// The text as a reader of Slack sees it.
pub(super) fn html(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        html.push_str(&bold(before));
        // A `<` that is never closed is shown as it is.
        let Some((inside, tail)) = after.split_once('>') else {
            html.push_str(&escape(&unescape(&rest[before.len()..])));
            return html;
        };
        html.push_str(&link(inside));
        rest = tail;
    }
    html + &bold(rest)
}

/// What Slack unescapes: these three and no more.
fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// `<address|label>`; only addresses of the web become links.
fn link(inside: &str) -> String {
    let (address, label) = inside.split_once('|').unwrap_or((inside, inside));
    let (address, label) = (unescape(address), escape(&unescape(label)));
    if address.starts_with("https://") || address.starts_with("http://") {
        format!("<a href=\"{}\" rel=\"noreferrer noopener\">{label}</a>", escape(&address))
    } else {
        format!("<mark>{label}</mark>")
    }
}

/// `*bold*` within one line.
fn bold(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('*') {
        match after.split_once('*') {
            Some((inside, tail)) if is_bold(inside) => {
                html.push_str(&escape(&unescape(before)));
                html.push_str(&format!("<b>{}</b>", escape(&unescape(inside))));
                rest = tail;
            }
            _ => {
                html.push_str(&escape(&unescape(before)));
                html.push('*');
                rest = after;
            }
        }
    }
    html + &escape(&unescape(rest))
}

fn is_bold(inside: &str) -> bool {
    !inside.is_empty() && inside.trim() == inside && !inside.contains('\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escaped_signs_are_shown_as_the_signs_they_mean() {
        assert_eq!(html("GPU &gt; 90% &amp; &lt;異常&gt;"), "GPU &gt; 90% &amp; &lt;異常&gt;");
        assert_eq!(html("&amp;lt;"), "&amp;lt;");
    }

    #[test]
    fn links_of_the_web_are_links_and_others_are_not() {
        let shown = html("<http://127.0.0.1:8080/a?b=1&amp;c=\"2|画面>");
        assert!(shown.starts_with("<a href=\"http://127.0.0.1:8080/a?b=1&amp;c=&quot;2\""), "{shown}");
        assert!(shown.ends_with(">画面</a>"), "{shown}");
        assert_eq!(html("<javascript:alert(1)|x>"), "<mark>x</mark>");
        assert_eq!(html("<!channel>"), "<mark>!channel</mark>");
    }

    #[test]
    fn a_pair_of_stars_is_bold_and_a_single_one_is_a_star() {
        assert_eq!(html("*異常* 2 * 3"), "<b>異常</b> 2 * 3");
        assert_eq!(html("a <b"), "a &lt;b");
    }

    proptest! {
        #[test]
        fn a_message_opens_no_tag_of_its_own(text in "[<>&;*|a-z\"'/ :!\n]{0,60}") {
            let shown = html(&text);
            let mut tags = shown.clone();
            for own in ["<b>", "</b>", "<mark>", "</mark>", "</a>"] {
                tags = tags.replace(own, "");
            }
            while let Some(start) = tags.find("<a href=\"http") {
                let end = tags[start..].find('>').unwrap() + start;
                tags.replace_range(start..=end, "");
            }
            prop_assert!(!tags.contains('<') && !tags.contains('>'), "{shown}");
        }
    }
}
