//! The page: one server-rendered document, whole without JavaScript.
//!
//! Takes a [`View`]; gives HTML, and the style sheet beside it. A value that is not known reads "no
//! data". Nothing is fetched from elsewhere; the policy in the header forbids it.

use askama::Template;
use diarwatch_shared::texts::{Lang, Text};

use crate::view::{Gpu, Node, Presence, View, Worker};

/// The style sheet.
pub const STYLE: &str = include_str!("dashboard.css");
/// Only the page's own style sheet; no script, no frame, no form, nothing from elsewhere.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "index.html")]
struct Page<'a> {
    view: &'a View,
    lang: Lang,
}

/// The page in a language.
#[must_use]
pub fn render(view: &View, lang: Lang) -> String {
    Page { view, lang }.render().unwrap_or_else(|error| format!("page cannot be rendered: {error}"))
}

impl Page<'_> {
    fn t(&self, text: Text) -> &'static str {
        text.in_lang(self.lang)
    }

    fn other_lang(&self) -> Lang {
        match self.lang {
            Lang::Ja => Lang::En,
            Lang::En => Lang::Ja,
        }
    }

    fn simulated(&self) -> bool {
        self.view.nodes.iter().any(|node| node.simulated)
    }

    fn presence(&self, node: &Node) -> (&'static str, &'static str, &'static str) {
        match node.presence {
            Presence::Live => ("ok", "●", self.t(Text::Live)),
            Presence::Stale => ("critical", "■", self.t(Text::Stale)),
            Presence::NeverSeen => ("unknown", "○", self.t(Text::NeverSeen)),
        }
    }

    fn readiness(&self, node: &Node, worker: &Worker) -> (&'static str, &'static str, &'static str) {
        match worker.ready {
            Some(true) => ("ok", "●", self.t(Text::Ready)),
            Some(false) => ("critical", "■", self.t(Text::NotReady)),
            None if node.presence == Presence::Live => ("warning", "▲", self.t(Text::Loading)),
            None => ("unknown", "○", self.t(Text::NoData)),
        }
    }

    fn percent(&self, ratio: &Option<f64>) -> String {
        ratio.map_or_else(|| self.t(Text::NoData).to_owned(), |ratio| format!("{:.0}%", ratio * 100.0))
    }

    fn unit(&self, value: &Option<f64>, unit: &str) -> String {
        value.map_or_else(|| self.t(Text::NoData).to_owned(), |value| format!("{value:.0} {unit}"))
    }

    fn memory(&self, used: &Option<f64>, total: &Option<f64>) -> String {
        const GIB: f64 = 1_073_741_824.0;
        match (*used, *total) {
            (Some(used), Some(total)) if total > 0.0 => {
                format!("{:.1} / {:.1} GiB ({:.0}%)", used / GIB, total / GIB, used / total * 100.0)
            }
            _ => self.t(Text::NoData).to_owned(),
        }
    }

    fn gpu_memory(&self, gpu: &Gpu) -> String {
        self.memory(&gpu.memory_used_bytes, &gpu.memory_total_bytes)
    }

    fn count(&self, value: &Option<f64>) -> String {
        value.map_or_else(|| self.t(Text::NoData).to_owned(), |value| format!("{value:.0}"))
    }
}
