//! The page in two languages: by the browser's wish, by its own link, and the words of each panel in
//! English too.

use std::sync::Arc;

use super::{PANELS, Stage, panels};
use crate::tab::{Profile, Tab};

pub(super) async fn check(stage: Arc<Stage>) -> Result<(), String> {
    let report = &stage.report;
    let profile = Profile::new(&stage.chromium).await?;
    for (wish, lang) in [("ja-JP,ja;q=0.9", "ja"), ("en-GB,en;q=0.9", "en")] {
        let tab = Tab::open(&profile).await?;
        tab.accept_language(wish).await?;
        tab.go(&stage.site.url()).await?;
        let seen = langs(&tab).await?;
        report.same(
            format!("a browser that wants {wish} gets {lang}"),
            &seen,
            &[lang.to_owned(), lang.to_owned()],
        );
        tab.close().await?;
    }
    let tab = Tab::at(&profile, &format!("{}/?lang=ja", stage.site.url())).await?;
    report.same("the page is Japanese, lang and data-lang", &langs(&tab).await?, &["ja".into(), "ja".into()]);
    tab.eval::<()>("void document.querySelector('a[hreflang=en]').click()").await?;
    let switched = tab.until("the page is English", "document.documentElement.lang === 'en'").await;
    report.done("a link of the page switches the language", &switched);
    report.same("the page is English, lang and data-lang", &langs(&tab).await?, &["en".into(), "en".into()]);
    panels::numbers(report, &tab, false).await?;
    for panel in PANELS {
        let heading: String = tab
            .eval(&format!("document.querySelector('[data-panel={panel}] :is(h1,h2,h3)')?.textContent ?? ''"))
            .await?;
        report.check(
            format!("the heading of {panel} is English"),
            is_latin(&heading),
            "an English heading",
            &heading,
        );
    }
    // What people named themselves (rules, services) stays as they named it.
    let foreign: Vec<String> = tab
        .eval("[...document.querySelectorAll('section:not([data-panel=alerts]) :is(h2,h3,th,dt,label,p,span)')].filter((e) => e.checkVisibility() && !e.closest('[lang=ja]')).map((e) => e.textContent.trim()).filter((t) => /[\\u3040-\\u30ff\\u4e00-\\u9fff]/.test(t))")
        .await?;
    report.none("no Japanese is left on the English page", &foreign);
    profile.close().await;
    Ok(())
}

async fn langs(tab: &Tab) -> Result<[String; 2], String> {
    tab.eval("[document.documentElement.lang, document.body.dataset.lang ?? '']").await
}

fn is_latin(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().filter(|c| c.is_alphabetic()).all(|c| c.is_ascii())
}
