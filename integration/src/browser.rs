//! A real headless Chromium, driven over the DevTools protocol.
//!
//! Commands are those of the protocol (<https://chromedevtools.github.io/devtools-protocol/>): JSON over a WebSocket,
//! one connection for each page. What a page reports (errors, requests) is kept for the test to check.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::http::{self, HttpRequest, Protocol};
use crate::wait::PATIENCE;
use crate::workspace;

/// The longest message of the protocol in bytes; screenshots of long pages are large.
const LONGEST: usize = 256 << 20;

/// A running browser with an empty profile. Dropping it stops the browser.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    devtools: SocketAddr,
    _folder: TempDir,
}

/// A page of the browser.
#[derive(Debug)]
pub struct Page {
    socket: WebSocket<TcpStream>,
    last: u64,
    events: Vec<Value>,
}

/// Finds a program that `scripts/setup/chromium.sh` installs under this name. Returns `None` and prints a line when it
/// is not installed, or an error when `CI` is set.
pub fn browser_tool(name: &str) -> Result<Option<PathBuf>> {
    let tool = workspace::root().join(".tools/bin").join(name);
    if tool.is_file() {
        return Ok(Some(tool));
    }
    ensure!(std::env::var_os("CI").is_none(), "there is no {}: run scripts/setup/chromium.sh", tool.display());
    eprintln!("SKIPPED: there is no {}: run scripts/setup/chromium.sh", tool.display());
    Ok(None)
}

impl Browser {
    /// Starts a browser, or returns `None` where Chromium is not installed.
    pub fn start() -> Result<Option<Self>> {
        let Some(binary) = browser_tool("chromium")? else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("penstock-").tempdir()?;
        let log = folder.path().join("log");
        let mut child = Command::new(binary)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb", "--lang=en"])
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(fs::File::create(&log)?))
            .spawn()
            .context("cannot start chromium")?;
        // The first line of this file is the port that the browser listens on.
        let file = folder.path().join("profile/DevToolsActivePort");
        let started = Instant::now();
        loop {
            let port = fs::read_to_string(&file).ok();
            let port = port.as_deref().and_then(|text| text.split_once('\n')).and_then(|(port, _)| port.parse().ok());
            if let Some(port) = port {
                let devtools = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                return Ok(Some(Browser { child, devtools, _folder: folder }));
            }
            let ended = child.try_wait()?;
            if ended.is_some() || started.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                bail!("Chromium did not start ({ended:?}): {}", fs::read_to_string(&log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Opens an empty page of this size in CSS pixels.
    pub fn page(&self, width: u32, height: u32) -> Result<Page> {
        let request = HttpRequest::new("PUT", &self.devtools.to_string(), "/json/new?about:blank");
        let answer = http::send(Protocol::Http1, self.devtools, &request)?.json();
        let url = answer.get("webSocketDebuggerUrl").and_then(Value::as_str).with_context(|| format!("{answer}"))?;
        let stream = TcpStream::connect(self.devtools)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let limits = tungstenite::protocol::WebSocketConfig::default()
            .max_message_size(Some(LONGEST))
            .max_frame_size(Some(LONGEST));
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(limits))
            .map_err(|error| anyhow::anyhow!("{url}: {error}"))?;
        let mut page = Page { socket, last: 0, events: Vec::new() };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), &json!({}))?;
        }
        page.size(width, height)?;
        Ok(page)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // An error means that the process has ended already. Its child processes end when they lose their parent.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Page {
    /// Sends a command and waits for its result. Events that arrive meanwhile are kept.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last += 1;
        let command = json!({"id": self.last, "method": method, "params": parameters});
        self.socket.send(Message::text(command.to_string()))?;
        loop {
            let message = self.socket.read().with_context(|| format!("no answer to {method}"))?;
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text)?;
            if answer.get("id").is_none() {
                self.events.push(answer);
            } else if answer.get("id").and_then(Value::as_u64) == Some(self.last) {
                let error = answer.get("error").map(Value::to_string);
                ensure!(error.is_none(), "{method}: {}", error.unwrap_or_default());
                return Ok(answer.get("result").cloned().unwrap_or_default());
            }
        }
    }

    /// Navigates to a URL and waits until the document is loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", &json!({"url": url}))?;
        ensure!(answer.get("errorText").is_none(), "{url}: {answer}");
        self.wait("document.readyState === 'complete' && location.protocol !== 'about:'")?;
        Ok(())
    }

    /// Evaluates an expression; if it is a promise, returns its result.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", &parameters)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer.pointer("/result/value").cloned().unwrap_or_default())
    }

    /// Waits until an expression is truthy (not null, false, 0 or an empty string) and returns its value.
    pub fn wait(&mut self, expression: &str) -> Result<Value> {
        let started = Instant::now();
        loop {
            let value = self.evaluate(expression).unwrap_or_default();
            let is_there = match &value {
                Value::Null => false,
                Value::Bool(value) => *value,
                Value::Number(number) => number.as_f64() != Some(0.0),
                Value::String(text) => !text.is_empty(),
                Value::Array(_) | Value::Object(_) => true,
            };
            if is_there {
                return Ok(value);
            }
            if started.elapsed() > PATIENCE {
                let shown = self.evaluate("document.body.innerText")?;
                bail!("never: {expression}\nthe page: {}\nit said: {:#?}", shown.as_str().unwrap_or(""), self.errors());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses a key (`Tab`, `Enter`, …), optionally with Shift.
    pub fn press(&mut self, key: &str, shift: bool) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            "Escape" => (27, None),
            " " => (32, Some(" ")),
            _ => bail!("{key} is not a key that is known here"),
        };
        for kind in [if text.is_some() { "keyDown" } else { "rawKeyDown" }, "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code,
                "code": if key == " " { "Space" } else { key }, "modifiers": if shift { 8 } else { 0 }});
            if let (Some(text), Some(event)) = (text, event.as_object_mut()) {
                event.insert("text".to_owned(), text.into());
            }
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Types text into the focused element.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({"text": text})).map(|_| ())
    }

    /// Resizes the window, in CSS pixels.
    pub fn size(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size).map(|_| ())
    }

    /// Sets the preferred colour scheme, `light` or `dark`. Also asks for reduced motion, so that screenshots of one
    /// state are equal.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features})).map(|_| ())
    }

    /// Saves a screenshot as PNG.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png", "optimizeForSpeed": false}))?;
        let data = answer.get("data").and_then(Value::as_str).context("no picture")?;
        let folder = file.parent().context("no folder")?;
        fs::create_dir_all(folder)?;
        Ok(fs::write(file, STANDARD.decode(data)?)?)
    }

    /// All problems that the page has reported: exceptions, errors and warnings in the console, violations of the
    /// content security policy.
    pub fn errors(&self) -> Vec<String> {
        let bad = |event: &&Value| match event.get("method").and_then(Value::as_str) {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => ["error", "warning", "assert"]
                .map(Some)
                .contains(&event.pointer("/params/type").and_then(Value::as_str)),
            Some("Log.entryAdded") => {
                ["error", "warning"].map(Some).contains(&event.pointer("/params/entry/level").and_then(Value::as_str))
            }
            _ => false,
        };
        self.events.iter().filter(bad).map(Value::to_string).collect()
    }

    /// Every URL that the page has requested.
    pub fn requests(&self) -> Vec<String> {
        let sent = self
            .events
            .iter()
            .filter(|event| event.get("method").and_then(Value::as_str) == Some("Network.requestWillBeSent"));
        sent.filter_map(|event| Some(event.pointer("/params/request/url")?.as_str()?.to_owned())).collect()
    }
}
