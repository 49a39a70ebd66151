//! One tab. Takes addresses, keys, sizes and questions in JavaScript; gives their answers, pictures,
//! and what the tab saw: console, faults, requests. Waits by condition, at most [`crate::PATIENCE`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::pipe::{Chromium, Note, Pipe, attach};
use crate::until;

/// Functions that checks ask with; put into a tab before a question.
const PROBE: &str = include_str!("probe.js");

/// Tabs that share what a browser's user has: workers, storage, cookies.
#[derive(Clone)]
pub(crate) struct Profile {
    pipe: Arc<Pipe>,
    id: String,
}

impl Profile {
    /// A new one, empty.
    pub(crate) async fn new(chromium: &Chromium) -> Result<Self, String> {
        let pipe = Arc::clone(&chromium.pipe);
        let made = pipe.call("", "Target.createBrowserContext", json!({})).await?;
        Ok(Self { pipe, id: text(&made["browserContextId"]) })
    }

    /// Closes its tabs and workers.
    pub(crate) async fn close(self) {
        let _ =
            self.pipe.call("", "Target.disposeBrowserContext", json!({ "browserContextId": self.id })).await;
    }
}

/// A tab.
pub(crate) struct Tab {
    pipe: Arc<Pipe>,
    session: String,
    target: String,
}

/// A request of a tab.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) url: String,
    pub(crate) kind: String,
    pub(crate) status: u64,
    /// Of its answer, names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// Bytes on the wire, head included.
    pub(crate) bytes: f64,
    pub(crate) failed: Option<String>,
}

impl Tab {
    /// An empty tab that is listened to.
    pub(crate) async fn open(profile: &Profile) -> Result<Self, String> {
        let pipe = Arc::clone(&profile.pipe);
        let new = json!({ "url": "about:blank", "browserContextId": profile.id });
        let target = text(&pipe.call("", "Target.createTarget", new).await?["targetId"]);
        let attached =
            pipe.call("", "Target.attachToTarget", json!({ "targetId": target, "flatten": true })).await?;
        let tab = Self { session: text(&attached["sessionId"]), pipe, target };
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            tab.call(&format!("{domain}.enable"), json!({})).await?;
        }
        tab.call("Target.setAutoAttach", attach(&["worker"])).await?;
        tab.viewport(1280, 900).await?;
        Ok(tab)
    }

    /// A tab at an address.
    pub(crate) async fn at(profile: &Profile, url: &str) -> Result<Self, String> {
        let tab = Self::open(profile).await?;
        tab.go(url).await?;
        Ok(tab)
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        self.pipe.call(&self.session, method, params).await
    }

    /// Goes to an address and waits until the document is whole.
    pub(crate) async fn go(&self, url: &str) -> Result<(), String> {
        let went = self.call("Page.navigate", json!({ "url": url })).await?;
        if let Some(error) = went["errorText"].as_str() {
            return Err(format!("{url}: {error}"));
        }
        self.until(
            "the document is whole",
            "document.readyState === 'complete' && location.href !== 'about:blank'",
        )
        .await
    }

    /// What an expression gives; a promise is awaited.
    pub(crate) async fn eval<T: DeserializeOwned>(&self, expression: &str) -> Result<T, String> {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", asked).await?;
        let thrown = &answer["exceptionDetails"];
        if thrown.is_object() {
            let what = thrown["exception"]["description"].as_str().or(thrown["text"].as_str());
            return Err(format!("`{}` threw {}", short(expression), what.unwrap_or("something")));
        }
        let value = answer["result"]["value"].take();
        serde_json::from_value(value)
            .map_err(|error| format!("`{}` gave something else: {error}", short(expression)))
    }

    /// What a function of `probe.js` gives.
    pub(crate) async fn probe<T: DeserializeOwned>(&self, call: &str) -> Result<T, String> {
        self.eval(&format!("(() => {{ {PROBE}\nreturn {call}; }})()")).await
    }

    /// Waits until an expression is true; it may use the functions of `probe.js`.
    pub(crate) async fn until(&self, what: &str, expression: &str) -> Result<(), String> {
        let mut last = Ok(false);
        let waited = until(async || {
            // A document that is just being replaced answers with a fault; the next look tells.
            last = self.probe::<bool>(&format!("Boolean({expression})")).await;
            last == Ok(true)
        });
        let waited = waited.await;
        waited.map_err(|error| format!("{error} until {what} (`{}`: {last:?})", short(expression)))
    }

    /// Size of what is seen, in CSS pixels.
    pub(crate) async fn viewport(&self, width: u32, height: u32) -> Result<(), String> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await.map(drop)
    }

    /// What the user prefers: `("prefers-color-scheme", "dark")`.
    pub(crate) async fn prefers(&self, features: &[(&str, &str)]) -> Result<(), String> {
        let features: Vec<Value> =
            features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await.map(drop)
    }

    /// Languages that the browser asks for.
    pub(crate) async fn accept_language(&self, languages: &str) -> Result<(), String> {
        let agent: String = self.eval("navigator.userAgent").await?;
        let told = json!({ "userAgent": agent, "acceptLanguage": languages });
        self.call("Emulation.setUserAgentOverride", told).await.map(drop)
    }

    /// Documents from now on run no script.
    pub(crate) async fn without_scripts(&self) -> Result<(), String> {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await.map(drop)
    }

    /// Presses a key: its name, the number that browsers give it, and what it types.
    pub(crate) async fn press(&self, key: &str, code: u32, typed: &str) -> Result<(), String> {
        let down = if typed.is_empty() { "rawKeyDown" } else { "keyDown" };
        let event = |kind: &str| {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" {
                event["text"] = json!(typed);
            }
            event
        };
        self.call("Input.dispatchKeyEvent", event(down)).await?;
        self.call("Input.dispatchKeyEvent", event("keyUp")).await.map(drop)
    }

    /// A picture of the whole document.
    pub(crate) async fn picture(&self, path: &Path) -> Result<(), String> {
        let (width, height): (u32, u32) = self
            .eval("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
            .await?;
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let asked = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let shot = self.call("Page.captureScreenshot", asked).await?;
        let bytes = base64(shot["data"].as_str().unwrap_or_default());
        std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Closes it, as its user does.
    pub(crate) async fn close(self) -> Result<(), String> {
        self.pipe.call("", "Target.closeTarget", json!({ "targetId": self.target })).await.map(drop)
    }

    fn notes(&self) -> Vec<Note> {
        self.pipe.notes(|note| note.session == self.session)
    }

    /// Its requests, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        requests(&self.notes())
    }
}

/// Requests out of notes, in order.
pub(crate) fn requests(notes: &[Note]) -> Vec<Request> {
    let (mut order, mut found) = (Vec::new(), BTreeMap::<String, Request>::new());
    for note in notes {
        let key = format!("{} {}", note.session, text(&note.params["requestId"]));
        let params = &note.params;
        match note.method.as_str() {
            "Network.requestWillBeSent" => {
                let request = Request {
                    url: text(&params["request"]["url"]),
                    kind: text(&params["type"]),
                    ..Request::default()
                };
                found.insert(key.clone(), request);
                order.push(key);
            }
            "Network.webSocketCreated" => {
                let request =
                    Request { url: text(&params["url"]), kind: "WebSocket".into(), ..Request::default() };
                found.insert(key.clone(), request);
                order.push(key);
            }
            "Network.responseReceived" => {
                let Some(request) = found.get_mut(&key) else { continue };
                let response = &params["response"];
                request.status = response["status"].as_u64().unwrap_or_default();
                let headers = response["headers"].as_object().into_iter().flatten();
                request.headers = headers.map(|(name, value)| (name.to_lowercase(), text(value))).collect();
            }
            "Network.loadingFinished" => {
                let Some(request) = found.get_mut(&key) else { continue };
                request.bytes = params["encodedDataLength"].as_f64().unwrap_or_default();
            }
            "Network.loadingFailed" => {
                let Some(request) = found.get_mut(&key) else { continue };
                request.failed = Some(text(&params["errorText"]));
            }
            _ => {}
        }
    }
    order.iter().filter_map(|key| found.get(key).cloned()).collect()
}

/// Where a complaint comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The browser could not have what it asked for.
    Network,
    /// The content policy refused something.
    Policy,
    /// The page itself.
    Page,
    /// A request that leaves this machine, answered or not.
    Elsewhere,
}

/// Where a note's complaint comes from.
pub(crate) fn source(note: &Note) -> Source {
    match (note.method.as_str(), note.params["entry"]["source"].as_str()) {
        ("Log.entryAdded", Some("network")) => Source::Network,
        ("Log.entryAdded", Some("security")) | ("Audits.issueAdded", _) => Source::Policy,
        _ => Source::Page,
    }
}

/// What a note complains of: an error or warning of the console, a fault of a script, a breach of
/// the content policy, a crash.
pub(crate) fn complaint(note: &Note) -> Option<String> {
    let params = &note.params;
    match note.method.as_str() {
        "Runtime.consoleAPICalled" => {
            let kind = params["type"].as_str().unwrap_or_default();
            let said: Vec<String> = params["args"].as_array()?.iter().map(argument).collect();
            ["error", "warning", "assert"]
                .contains(&kind)
                .then(|| format!("console.{kind}: {}", said.join(" ")))
        }
        "Runtime.exceptionThrown" => {
            let details = &params["exceptionDetails"];
            let what = details["exception"]["description"].as_str().or(details["text"].as_str());
            Some(format!("exception: {}", what.unwrap_or_default()))
        }
        "Log.entryAdded" => {
            let entry = &params["entry"];
            let level = entry["level"].as_str().unwrap_or_default();
            ["error", "warning"].contains(&level).then(|| {
                format!(
                    "{level} of {}: {} ({})",
                    text(&entry["source"]),
                    text(&entry["text"]),
                    text(&entry["url"])
                )
            })
        }
        "Audits.issueAdded" => {
            let issue = &params["issue"];
            let code = issue["code"].as_str().unwrap_or_default();
            code.contains("ContentSecurityPolicy").then(|| format!("{code}: {}", issue["details"]))
        }
        "Inspector.targetCrashed" => Some(String::from("the tab crashed")),
        _ => None,
    }
}

fn argument(value: &Value) -> String {
    value["value"].as_str().or(value["description"].as_str()).map_or_else(|| value.to_string(), str::to_owned)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn short(text: &str) -> String {
    // The question stands behind the functions that it uses.
    let question = text.rsplit_once("\nreturn ").map_or(text, |(_, question)| question);
    question.chars().take(160).collect()
}

/// Bytes of a base64 text.
fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(u32::from(c - b'A')),
        b'a'..=b'z' => Some(u32::from(c - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(c - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for six in text.bytes().filter_map(value) {
        bits = (bits << 6) | six;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(((bits >> count) & 0xff) as u8);
        }
    }
    bytes
}
