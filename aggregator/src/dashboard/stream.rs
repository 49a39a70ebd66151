//! What a browser asks for: pages, assets and the one stream. Everything is built before its first
//! byte leaves; a stream ends when its reader goes or is too slow.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use diarwatch_shared::texts::{Lang, Text};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_core::Stream;
use serde::Deserialize;

use super::live::{Pages, Reading, Shown};
use super::{Page, assets};

/// Between comments on a stream on which nothing is said.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Before a browser comes back to a stream that ended.
const RETRY: Duration = Duration::from_secs(2);
/// Before a browser that found no place may ask again, in seconds.
const RETRY_AFTER_S: &str = "10";
const HTML: &str = "text/html; charset=utf-8";

/// What a page asks with.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    /// The language, before the browser's own.
    pub lang: Option<String>,
    page: Option<String>,
    views: Option<String>,
}

impl Asked {
    /// The language that was asked for, that the browser prefers, or the configured one.
    #[must_use]
    pub fn lang(&self, headers: &HeaderMap, default: Lang) -> Lang {
        let asked = self.lang.as_deref().and_then(Lang::of);
        let accepted = || Lang::accepted(headers.get(header::ACCEPT_LANGUAGE)?.to_str().ok()?);
        asked.or_else(accepted).unwrap_or(default)
    }

    /// The pages of a stream: `views=ja/fleet,en/node/gpu-01`, or one by `lang` and `page`.
    fn pages(&self, headers: &HeaderMap, default: Lang) -> Option<BTreeSet<Shown>> {
        if let Some(views) = &self.views {
            return views.split(',').map(Shown::of).collect();
        }
        let page = Page::of(self.page.as_deref().unwrap_or_default().trim_start_matches('/'))?;
        Some(BTreeSet::from([Shown::new(self.lang(headers, default), page)]))
    }
}

/// The pages, their assets and their stream.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(fleet))
        .route("/node/{name}", get(node))
        .route("/assets/{name}", get(asset))
        .route("/api/v1/stream", get(stream))
        .with_state(Site { pages })
}

#[derive(Clone)]
struct Site {
    pages: Pages,
}

async fn fleet(State(site): State<Site>, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    site.page(Page::Fleet, &asked, &headers).await
}

async fn node(
    State(site): State<Site>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    match Page::of(&format!("node/{name}")) {
        Some(page) => site.page(page, &asked, &headers).await,
        None => no_such_node(asked.lang(&headers, site.lang())),
    }
}

impl Site {
    /// For who asks for none and whose browser prefers none of ours.
    fn lang(&self) -> Lang {
        self.pages.effect().config.display.lang
    }

    async fn page(&self, page: Page, asked: &Asked, headers: &HeaderMap) -> Response {
        let lang = asked.lang(headers, self.lang());
        match self.pages.html(&Shown::new(lang, page)).await {
            Some(html) => packed(html, headers),
            None => no_such_node(lang),
        }
    }
}

fn no_such_node(lang: Lang) -> Response {
    let text = format!("{}\n", Text::UnknownNode.in_lang(lang));
    (StatusCode::NOT_FOUND, text).into_response()
}

/// HTML, packed for a browser that unpacks it.
fn packed(html: String, headers: &HeaderMap) -> Response {
    let vary = (header::VARY, HeaderValue::from_static("accept-encoding, accept-language"));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    if !takes_gzip(headers) {
        return ([kind, vary], html).into_response();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    // Writing to memory cannot fail; were it to, the page goes as it is.
    match encoder.write_all(html.as_bytes()).and_then(|()| encoder.finish()) {
        Ok(bytes) => {
            let encoding = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            ([kind, vary, encoding], bytes).into_response()
        }
        Err(_) => ([kind, vary], html).into_response(),
    }
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let path = format!("/assets/{name}");
    let Some(asset) = assets::ALL.iter().find(|asset| asset.path == path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let fixed = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        // The name changes with the content.
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
    ];
    if takes_gzip(&headers) {
        let encoding = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
        return (fixed, encoding, asset.gzip).into_response();
    }
    (fixed, asset.plain).into_response()
}

/// Whether a browser unpacks gzip: it is named, or everything is, and not with weight 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let weight = |part: &str| {
        let mut words = part.split(';').map(str::trim);
        let coding = words.next().unwrap_or_default().to_ascii_lowercase();
        let weight = words.find_map(|word| word.strip_prefix("q=")?.parse::<f32>().ok());
        (coding, weight.unwrap_or(1.0))
    };
    let weights: Vec<(String, f32)> = all.flat_map(|value| value.split(',').map(weight)).collect();
    let of = |name: &str| weights.iter().find(|(coding, _)| coding == name).map(|(_, weight)| *weight);
    of("gzip").or_else(|| of("*")).is_some_and(|weight| weight > 0.0)
}

async fn stream(State(site): State<Site>, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    let Some(pages) = asked.pages(&headers, site.lang()) else {
        let text = "views is a list such as ja/fleet,en/node/gpu-01\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let Some(reading) = site.pages.subscribe(pages) else {
        let retry = [
            (header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S)),
            // Its place is for others.
            (header::CONNECTION, HeaderValue::from_static("close")),
        ];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "too many streams\n").into_response();
    };
    let fixed = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // A proxy that collects would hold every message back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("alive");
    let mut response = Sse::new(Events { reading, begun: false }).keep_alive(alive).into_response();
    response.headers_mut().extend(fixed);
    if takes_gzip(&headers) { packed_stream(response) } else { response }
}

/// The same stream, packed: its first message is the whole page, and every one repeats its words.
fn packed_stream(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(
        head,
        Body::from_stream(Packed { plain: body.into_data_stream(), packer: Packer::new() }),
    )
}

/// A stream's pieces, packed.
struct Packed {
    plain: BodyDataStream,
    packer: Packer,
}

impl Stream for Packed {
    type Item = Result<Vec<u8>, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(Pin::new(&mut self.plain).poll_next(context));
        let pack = |bytes: Bytes| self.packer.pack(&bytes).map_err(axum::Error::new);
        Poll::Ready(piece.map(|piece| piece.and_then(pack)))
    }
}

/// Packs piece by piece; each can be unpacked as soon as it is there.
struct Packer(GzEncoder<Vec<u8>>);

impl Packer {
    fn new() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::new(6)))
    }

    fn pack(&mut self, piece: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0.write_all(piece)?;
        self.0.flush()?;
        Ok(std::mem::take(self.0.get_mut()))
    }
}

/// A reader's messages as events.
struct Events {
    reading: Reading,
    begun: bool,
}

impl Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.begun {
            self.begun = true;
            return Poll::Ready(Some(Ok(Event::default().retry(RETRY).comment("diarwatch"))));
        }
        let event = |(number, text): (u64, std::sync::Arc<str>)| {
            Ok(Event::default().event("panels").id(number.to_string()).data(&*text))
        };
        self.reading.messages.poll_recv(context).map(|message| message.map(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &'static str) -> bool {
        takes_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
    }

    #[test]
    fn a_page_is_packed_for_who_unpacks_it() {
        assert!(accepts("gzip, deflate, br") && accepts("br;q=1.0, GZIP;q=0.5") && accepts("*"));
        assert!(!accepts("") && !accepts("br") && !accepts("gzip;q=0") && !accepts("gzip;q=0, *"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn each_piece_of_a_packed_stream_can_be_read_as_soon_as_it_is_there() {
        let (mut packer, mut unpacked) = (Packer::new(), flate2::write::GzDecoder::new(Vec::new()));
        let page = "<li data-state=\"ok\">● 正常</li>".repeat(200);
        for (number, piece) in [(1, "retry: 2000\n\n"), (2, page.as_str()), (3, page.as_str())] {
            let packed = packer.pack(piece.as_bytes()).unwrap();
            unpacked.write_all(&packed).unwrap();
            unpacked.flush().unwrap();
            assert!(unpacked.get_ref().ends_with(piece.as_bytes()), "piece {number}");
            assert!(packed.len() < 200, "piece {number}: {} bytes", packed.len());
        }
    }

    #[test]
    fn a_stream_names_its_pages() {
        let asked = |views: Option<&str>, page: Option<&str>| {
            let asked =
                Asked { lang: Some("en".into()), page: page.map(Into::into), views: views.map(Into::into) };
            let pages = asked.pages(&HeaderMap::new(), Lang::Ja)?;
            Some(pages.iter().map(Shown::name).collect::<Vec<_>>())
        };
        assert_eq!(asked(None, None).unwrap(), ["en/fleet"]);
        assert_eq!(asked(None, Some("/node/gpu-01")).unwrap(), ["en/node/gpu-01"]);
        let two = asked(Some("en/node/gpu-01,ja/fleet,ja/fleet"), None).unwrap();
        assert_eq!(two, ["ja/fleet", "en/node/gpu-01"]);
        for bad in ["", "ja", "fr/fleet", "ja/nothing", "ja/node/../x", "ja/fleet,"] {
            assert_eq!(asked(Some(bad), None), None, "{bad}");
        }
    }
}
