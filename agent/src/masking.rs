//! What must not leave a worker's host in a line of its output: takes a text, gives it without tokens,
//! passwords, keys, addresses of people and of machines. Pure. It rather leaves out too much: a value
//! beside a word like `token` is gone, whatever it is. What is masked stays as it is when it is masked
//! again. Addresses that name no machine (127.0.0.1, 0.0.0.0, `::1`) stay.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use diarwatch_shared::settings::REDACTED;
use regex::{Captures, Regex, Replacer};

/// The text without what may be a secret or name a person or a machine.
#[must_use]
pub fn mask(text: &str) -> String {
    // Without the expressions nothing can be told apart, so nothing is passed on.
    let Some(rules) = RULES.as_ref() else { return String::from(REDACTED) };
    if !rules.any.is_match(text) {
        return text.to_owned();
    }
    let text = rules.url.replace_all(text, url);
    let text = rules.header.replace_all(&text, |found: &Captures<'_>| beside(found));
    let text = rules.pair.replace_all(&text, |found: &Captures<'_>| beside(found));
    let text = rules.token.replace_all(&text, REDACTED);
    let text = replace(&rules.email, &text, email);
    let text = replace(&rules.v4, &text, v4);
    replace(&rules.v6, &text, v6).into_owned()
}

struct Rules {
    /// What every line with something to mask has.
    any: Regex,
    url: Regex,
    header: Regex,
    pair: Regex,
    token: Regex,
    email: Regex,
    v4: Regex,
    v6: Regex,
}

/// Kinds of tokens that show what they are, also when the end of the line cut them.
const TOKEN: &str = r"(?x)
    hf_[A-Za-z0-9]{8,} | \bhf_[A-Za-z0-9]*$
    | \bsk-[A-Za-z0-9_-]{8,} | gh[pousr]_[A-Za-z0-9]{8,} | github_pat_\w{8,} | glpat-[\w-]{8,}
    | xox[a-z]-[\w-]{8,} | \bA[KS]IA[A-Z0-9]{12,} | AIza[\w-]{20,}
    | \beyJ[\w-]{8,}(?:\.[\w-]*){0,2}";
/// `password=...`, `"api_key": "..."`, `--token ...`.
const PAIR: &str = r#"(?xi)
    ( [\w-]* (?: passw(?:or)?d | passphrase | secret | token | api[_-]?key | access[_-]?key | private[_-]?key
        | credential | \bpwd ) (?: s | _\w+ )? ["']? (?: \s*[=:]\s* | \s+ (?:is\s+)? ["'] ) (?: [bru]? ["'] )? )
    ( [^\s"'&,;<>(){}\[\]]+ )"#;

/// How the names of units end.
const UNITS: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".timer", ".target"];

static RULES: LazyLock<Option<Rules>> = LazyLock::new(|| {
    let rule = |pattern: &str| Regex::new(pattern).ok();
    Some(Rules {
        any: rule(
            r"(?i)://|@|hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox|a[ks]ia|aiza|eyj|authorization|bearer|cookie|passw|passphrase|secret|token|key|credential|pwd|\d\.\d|:[0-9a-f]*:",
        )?,
        url: rule(r#"(?i)\b([a-z][a-z0-9+.-]*)://([^\s"'<>`|\\]+)"#)?,
        header: rule(
            r#"(?i)((?:authorization|cookie)["']?\s*[:=]\s*["']?|\bbearer\s+)((?:bearer|basic|token)\s+[^\s"',]+|[^\s"',]+)"#,
        )?,
        pair: rule(PAIR)?,
        token: rule(TOKEN)?,
        email: rule(r"(?i)[a-z0-9._%+-]+@(?:(?:[a-z0-9-]+\.)+[a-z]{2,}|[a-z][a-z0-9-]*$)")?,
        v4: rule(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")?,
        v6: rule(r"\w*:\w*:[\w:.]*")?,
    })
});

/// Leaves the first group and masks the second.
fn beside(found: &Captures<'_>) -> String {
    let group = |at: usize| found.get(at).map_or("", |group| group.as_str());
    if group(2).starts_with(REDACTED) {
        return found.get(0).map_or("", |whole| whole.as_str()).to_owned();
    }
    format!("{}{REDACTED}", group(1))
}

/// An address: no user, no values of its query, and of a webhook no path.
fn url(found: &Captures<'_>) -> String {
    let (scheme, rest) = (found.get(1).map_or("", |g| g.as_str()), found.get(2).map_or("", |g| g.as_str()));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{REDACTED}@{host}"),
        // The end of the line may have cut the `@`: what follows is no port then.
        None => match authority.split_once(':') {
            Some((_, after)) if !authority.starts_with('[') && !is_port(after) => String::from(REDACTED),
            _ => authority.to_owned(),
        },
    };
    let (path, tail) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let webhook = ["hooks.", "webhook", "/services/", "/webhooks/"].iter().any(|word| rest.contains(word));
    let path = if webhook && path.len() > 1 { Cow::Owned(format!("/{REDACTED}")) } else { path.into() };
    let tail =
        if tail.len() > 1 { format!("{}{REDACTED}", tail.get(..1).unwrap_or("?")) } else { tail.into() };
    format!("{scheme}://{host}{path}{tail}")
}

fn is_port(text: &str) -> bool {
    let digits = text.trim_end_matches([')', ']', '}', ',', '.', ';', ':']);
    digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `pyannote@1.service` is a unit and no address.
fn email(text: &str) -> bool {
    !UNITS.iter().any(|kind| text.ends_with(kind))
}

fn v4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
}

/// Whether it is an address, also behind a word and a colon; `at::cuda::stream` is none.
fn v6(text: &str) -> bool {
    let named = |text: &str| {
        let bare = text.trim_end_matches(['.', ':']);
        let parsed = text.parse::<Ipv6Addr>().or_else(|_| bare.parse());
        parsed.is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
    };
    let behind = text.match_indices(':').filter_map(|(at, _)| text.get(at + 1..));
    std::iter::once(text).chain(behind.take(16)).any(named)
}

/// Masks what the expression finds and the check confirms.
fn replace<'a>(rule: &Regex, text: &'a str, is: impl Fn(&str) -> bool) -> Cow<'a, str> {
    struct If<F>(F);
    impl<F: Fn(&str) -> bool> Replacer for If<F> {
        fn replace_append(&mut self, found: &Captures<'_>, into: &mut String) {
            let whole = found.get(0).map_or("", |whole| whole.as_str());
            into.push_str(if (self.0)(whole) { REDACTED } else { whole });
        }
    }
    rule.replace_all(text, If(is))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Secrets as workers write them: the text, and the part of it that must be gone.
    pub(crate) const SECRETS: [(&str, &str); 20] = [
        ("use_auth_token=hf_lNfukJyEIplTMwTTkzNgKBQfpNcO", "lNfukJyEIplTMw"),
        ("token='hf_abcdefghij0123456789'", "abcdefghij"),
        ("postgres://app:hunter2@db.internal/jobs", "hunter2"),
        ("https://bucket.s3.amazonaws.com/a.wav?X-Amz-Signature=0badc0de&x=1", "0badc0de"),
        ("https://hooks.slack.com/services/T0/B0/c0ffee", "c0ffee"),
        ("Authorization: Bearer s3cr3t-value", "s3cr3t"),
        ("'Authorization': 'Basic dXNlcjpwYXNz'", "dXNlcjpwYXNz"),
        ("bearer abc.def.ghi", "abc.def"),
        ("password = \"correct-horse\"", "correct-horse"),
        ("{\"api_key\": \"k-123456\"}", "k-123456"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI", "wJalrXUtnFEMI"),
        ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
        ("sk-proj-abcdefghijkl", "abcdefghijkl"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e42F292c"),
        ("xoxb-123456789012-abcdef", "123456789012"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "hbGciOiJIUzI1NiJ9"),
        ("taro.yamada@example.co.jp", "yamada"),
        ("203.0.113.77", "203.0.113.77"),
        ("peer:2001:db8::dead:beef.", "dead:beef"),
        ("Cookie: session=abcdef0123", "abcdef0123"),
    ];

    #[test]
    fn what_a_worker_must_not_tell_is_left_out() {
        for (text, secret) in SECRETS {
            let masked = mask(text);
            assert!(!masked.contains(secret) && masked.contains(REDACTED), "{text} -> {masked}");
        }
    }

    #[test]
    fn what_says_what_is_wrong_stays() {
        for plain in [
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 26.00 MiB. GPU 0 has a total capacity of 11.66 GiB",
            "[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
            "INFO:     127.0.0.1:53422 - \"GET /ready HTTP/1.1\" 200 OK",
            "2025-12-04 14:32:15,123 INFO job 議事録-17 done in 12.5 s",
            "  File \"/opt/app/worker.py\", line 12, in at::cuda::getCurrentCUDABlasHandle()",
            "Cannot access gated repo for url https://huggingface.co/pyannote/segmentation-3.0/resolve/main/config.yaml.",
            "visit https://hf.co/pyannote/speaker-diarization-3.1 to accept the user conditions.",
            "Uvicorn running on http://0.0.0.0:8001 (Press CTRL+C to quit)",
            "hf_hub_download hf_raise_for_status",
            "pyannote@1.service: Main process exited, code=killed, status=9/KILL",
            "Downloading pyannote/speaker-diarization@2.1 for https://huggingface.co/pyannote",
            "LocalTokenNotFoundError: Token is required",
            "basic information about https://hf.co/docs; tokenizer: wordpiece",
        ] {
            assert_eq!(mask(plain), plain);
        }
    }

    #[test]
    fn a_secret_that_the_end_of_the_line_cut_is_left_out_too() {
        for (text, secret) in [
            ("connect to postgres://app:hunter2", "hunter2"),
            ("login with hf_lNf", "lNf"),
            ("Authorization: Bearer s3c", "s3c"),
        ] {
            assert!(!mask(text).contains(secret), "{}", mask(text));
        }
    }

    proptest! {
        #[test]
        fn no_text_around_it_brings_a_secret_through(
            before in "[ -~話]{0,30}", at in 0..SECRETS.len(), after in "[ -~話]{0,30}", quote in "[ \t]",
        ) {
            let (text, secret) = SECRETS[at];
            let masked = mask(&format!("{before}{quote}{text}{quote}{after}"));
            // What stands around it may hold the same letters by chance.
            prop_assume!(!before.contains(secret) && !after.contains(secret));
            prop_assert!(!masked.contains(secret), "{}", masked);
        }

        #[test]
        fn masking_twice_is_masking_once(text in "\\PC{0,80}", at in 0..SECRETS.len()) {
            let once = mask(&format!("{text} {}", SECRETS[at].0));
            prop_assert_eq!(mask(&once), once);
        }
    }
}
