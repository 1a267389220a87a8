//! The environment of a section's walk: sends requests and policies, and prints the results.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};

use anyhow::{Result, bail};

use super::json;
use super::screen::{Screen, TextStyle, Widths, width};
use crate::discovery::Reload;
use crate::http::{self, HttpRequest, HttpResponse, Protocol};
use crate::{Envoy, RateLimitService, workspace};

/// The running Envoy, the output, and the result so far.
pub(super) struct Stage {
    pub(super) envoy: Envoy,
    pub(super) screen: Screen,
    /// The rate-limit service for global limits, if `make setup` has installed it.
    pub(super) service: Option<RateLimitService>,
    pub(super) interrupted: Receiver<()>,
    section: &'static str,
    shown: usize,
    wrong: usize,
}

/// One row of a walk: a request, the expected response, and the reason.
pub(super) struct DemoStep {
    request: HttpRequest,
    protocol: Protocol,
    answer: &'static str,
    why: &'static str,
}

impl DemoStep {
    pub(super) fn new(request: HttpRequest, answer: &'static str, why: &'static str) -> Self {
        DemoStep { request, protocol: Protocol::Http1, answer, why }
    }

    /// Sends the request over HTTP/2.
    pub(super) fn http2(self) -> Self {
        DemoStep { protocol: Protocol::Http2, ..self }
    }

    /// Describes the request as `GET /path host:… header: value`, without headers that every request has.
    fn label(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut label = format!("{} {}", text(&self.request.method), text(&self.request.path));
        if self.request.authority != HttpRequest::get("/").authority {
            label =
                format!("{} {}{}", text(&self.request.method), text(&self.request.authority), text(&self.request.path));
        }
        for (name, value) in &self.request.headers {
            label += &format!("  {}: {}", text(name), text(value));
        }
        if self.protocol == Protocol::Http2 {
            label += "  (HTTP/2)";
        }
        label
    }
}

impl Stage {
    pub(super) fn new(envoy: Envoy, service: Option<RateLimitService>, interrupted: Receiver<()>) -> Self {
        Stage { envoy, screen: Screen::new(), service, interrupted, section: "", shown: 0, wrong: 0 }
    }

    /// Prints what is running.
    pub(super) fn introduce(&self) -> Result<()> {
        let version = self.envoy.admin().json("/server_info")?;
        let version = version.get("version").and_then(|text| text.as_str()).and_then(|text| text.split('/').nth(1));
        let size = std::fs::metadata(workspace::module("suite")?)?.len();
        self.screen.line(&format!(
            "Penstock in a stock Envoy {}: suite.wasm ({} KB), 2 workers, real requests on 127.0.0.1.",
            version.unwrap_or("of an unknown version"),
            size.div_ceil(1000),
        ));
        Ok(())
    }

    /// Starts the section `name`, whose policy is in `file`.
    pub(super) fn open(&mut self, number: usize, name: &'static str, title: &str, file: &Path) {
        self.section = name;
        self.screen.title(&format!("{number}. {title}"));
        self.screen.line(&self.screen.paint(TextStyle::Dim, &format!("   policy: {}", relative(file))));
    }

    /// Prints a paragraph within a section.
    pub(super) fn say(&self, text: &str) {
        self.screen.line("");
        self.screen.line(&format!("   {text}"));
    }

    /// The address of the section's listener.
    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.envoy.address(self.section)
    }

    /// Sends each request and prints it with its response, as formatted by `read`.
    pub(super) fn table(&mut self, read: impl Fn(&HttpResponse) -> String, steps: &[DemoStep]) -> Result<()> {
        let widths = Widths {
            request: steps.iter().map(|step| width(&step.label())).max().unwrap_or_default(),
            answer: steps.iter().map(|step| width(step.answer)).max().unwrap_or_default(),
        };
        self.screen.heads(widths);
        for step in steps {
            self.go_on()?;
            let answer = http::send(step.protocol, self.address()?, &step.request).map(|response| read(&response));
            let answer = answer.unwrap_or_else(|error| format!("{error:#}"));
            self.judge(widths, &step.label(), &answer, step.answer, step.why);
        }
        Ok(())
    }

    /// Prints one more row, and fails the walk unless `answer` equals `expected`.
    pub(super) fn judge(&mut self, widths: Widths, request: &str, answer: &str, expected: &str, why: &str) {
        let right = answer == expected;
        let wrong = format!("it should be: {expected}");
        self.screen.row(widths, right, request, answer, if right { why } else { &wrong });
        self.shown += 1;
        self.wrong += usize::from(!right);
    }

    /// Reloads the section with another policy, in YAML.
    pub(super) fn reload(&mut self, yaml: &str) -> Result<Reload> {
        self.go_on()?;
        self.envoy.reload(self.section, json::of_yaml(yaml)?)
    }

    /// Prints the summary; returns whether all responses were as expected.
    pub(super) fn conclude(&self) -> bool {
        self.screen.line("");
        if self.wrong == 0 {
            let all = format!("All {} answers were as they should be.", self.shown);
            self.screen.line(&self.screen.paint(TextStyle::Good, &all));
        } else {
            let some = format!("{} of {} answers were not what they should be.", self.wrong, self.shown);
            self.screen.line(&self.screen.paint(TextStyle::Bad, &some));
        }
        self.wrong == 0
    }

    /// Returns an error after Ctrl-C.
    fn go_on(&self) -> Result<()> {
        match self.interrupted.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            _ => bail!("interrupted"),
        }
    }
}

/// The path relative to the root of the workspace, where `make` runs.
pub(super) fn relative(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}
