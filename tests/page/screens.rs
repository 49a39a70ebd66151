//! `make page-screens`: the pictures of the docs. Takes a fed fleet with its last minutes; gives
//! `page-ja.png` (1280 wide), `page-en.png` (dark) and `page-360.png`. The GPU values are made up,
//! and the pictures say so as the page does.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::checks::LIVE;
use crate::fleet::{self, Voice};
use crate::pipe::Chromium;
use crate::tab::{Profile, Tab};

/// File, language, width, colours.
const PICTURES: [(&str, &str, u32, &str); 3] = [
    ("page-ja.png", "ja", 1280, "light"),
    ("page-en.png", "en", 1280, "dark"),
    ("page-360.png", "ja", 360, "light"),
];

const TOKYO: &str = "Asia/Tokyo";

/// Takes them.
pub(crate) async fn take(chromium: &Arc<Chromium>, directory: &Path) -> Result<(), String> {
    let (address, slack) = slack().await.map_err(|error| error.to_string())?;
    let webhook = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    std::fs::write(webhook.path(), format!("http://{address}/services/T0/B0/x\n"))
        .map_err(|error| error.to_string())?;
    let more = format!("[slack]\nwebhook_url_file = {}\n", json!(webhook.path()));
    let (site, voices) = fleet::standing(TOKYO, &more).await?;
    let profile = Profile::new(chromium).await?;
    let tab = Tab::at(&profile, &format!("{}/?lang=ja", site.url())).await?;
    tab.until("the page is live", LIVE).await?;
    night(&voices, &tab).await?;
    for (file, lang, width, scheme) in PICTURES {
        tab.viewport(width, 900).await?;
        tab.prefers(&[("prefers-color-scheme", scheme)]).await?;
        tab.go(&format!("{}/?lang={lang}", site.url())).await?;
        tab.until("the page is live", LIVE).await?;
        tab.until("its curves are drawn", "document.querySelectorAll('.uplot canvas').length >= 2").await?;
        tab.until("it says SIMULATED", "document.body.textContent.includes('SIMULATED')").await?;
        tab.picture(&directory.join(file)).await?;
        println!("{}", directory.join(file).display());
    }
    profile.close().await;
    slack.abort();
    Ok(())
}

/// What a night brings: a worker is lost and comes back, a GPU is busy.
async fn night(voices: &[Voice], tab: &Tab) -> Result<(), String> {
    let says = |words: &str| {
        format!("document.querySelector('[data-panel=alerts]').textContent.includes({words:?})")
    };
    voices[0].probe("Storage", true);
    voices[0].probe("OpenAI API", true);
    voices[1].happened(fleet::exited("pyannote-2")).await;
    voices[1].set("worker_ready", 0.0);
    tab.until("the alert is told", &says("自動再起動")).await?;
    voices[1].happened(fleet::back("pyannote-2")).await;
    voices[1].set("worker_ready", 1.0);
    tab.until("the recovery is told", &says("復旧")).await?;
    voices[2].set("gpu_utilization_ratio", 0.92);
    tab.until("a GPU is busy", "tile('pyannote #3').state === 'warning'").await
}

/// A Slack that takes everything, so that the pictures show no trouble with it.
async fn slack() -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                .await;
            let _ = stream.shutdown().await;
        }
    });
    Ok((address, serving))
}
