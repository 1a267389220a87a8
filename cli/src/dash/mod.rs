//! `penstock dash`: a live view of running Envoys in the browser.

mod engine;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use penstock_dash::DashOptions;
use penstock_dash::config::DashConfig;
use penstock_dash::log_source::LogSource;
use penstock_dash::scrape::ScrapeSource;

use crate::numbers::listen_address;
use crate::output::{Output, without_numbers};
use crate::source::{display, read_text};
use crate::words::shortened;
use crate::yaml::Located;
use crate::yaml_text;

/// Show in the browser what the policies do in running Envoys.
///
/// Reads the admin interfaces of Envoys, or a Prometheus that scrapes them, once a second. It changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock dash --envoy http://127.0.0.1:9901\n  \
    penstock dash --envoy east=http://10.0.0.7:9901 --envoy west=http://10.1.0.7:9901\n  \
    penstock dash --config dash.yaml --listen 0.0.0.0:9911\n  \
    penstock dash --envoy http://127.0.0.1:9901 --als 127.0.0.1:9912\n  \
    kubectl logs -f deploy/gateway | penstock dash --envoy http://127.0.0.1:9901 --tail -\n\n\
    Without workspaces in --config, the dash only listens on loopback addresses.")]
pub struct Args {
    /// The admin interface of an Envoy, optionally with the name of its cluster; may be repeated
    #[arg(long = "envoy", value_name = "[CLUSTER=]URL", value_parser = named)]
    envoys: Vec<(String, String)>,

    /// A Prometheus that scrapes Envoys, optionally with the name of their cluster; may be repeated
    #[arg(long = "prometheus", value_name = "[CLUSTER=]URL", value_parser = named)]
    prometheus: Vec<(String, String)>,

    /// Receive gRPC access logs of Envoys at this address, and show their decisions live; may be repeated
    #[arg(long = "als", value_name = "[CLUSTER=]ADDRESS:PORT", value_parser = receiver)]
    receivers: Vec<LogSource>,

    /// Follow a JSON access log, and show its decisions live; `-` is standard input; may be repeated
    #[arg(long = "tail", value_name = "[CLUSTER=]FILE", value_parser = log_file)]
    files: Vec<LogSource>,

    /// Store whole client addresses of decisions instead of their /24 or /48 networks
    #[arg(long)]
    full_addresses: bool,

    /// Store this request header of decisions, if the access log contains it, so that explanations can use it; may be
    /// repeated
    #[arg(long = "keep-header", value_name = "NAME")]
    keep_headers: Vec<String>,

    /// A file with clusters, workspaces (who may see what) and certificates
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9911", value_parser = listen_address)]
    listen: SocketAddr,

    /// Polling interval in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
}

/// The cluster of sources without a name.
const DEFAULT_CLUSTER: &str = "default";

/// Parses `east=http://…`; a later `=` belongs to the URL.
fn named(text: &str) -> Result<(String, String), String> {
    let (cluster, url) = match text.split_once('=') {
        Some((name, url)) if !name.contains([':', '/']) && !name.is_empty() => (name, url),
        _ => (DEFAULT_CLUSTER, text),
    };
    let has_port = |address: &str| {
        let (host, port) = address.split('/').next().unwrap_or_default().rsplit_once(':').unwrap_or_default();
        !host.is_empty() && port.parse::<u16>().is_ok()
    };
    match url.contains("://") {
        true => Ok((cluster.to_owned(), url.to_owned())),
        false if has_port(url) => Ok((cluster.to_owned(), format!("http://{url}"))),
        false => {
            Err("this is not [CLUSTER=]URL, such as http://127.0.0.1:9901 or east=http://127.0.0.1:9901".to_owned())
        }
    }
}

/// Parses `east=127.0.0.1:9912`.
fn receiver(text: &str) -> Result<LogSource, String> {
    let (cluster, address) = text.split_once('=').unwrap_or((DEFAULT_CLUSTER, text));
    let form = "this is not [CLUSTER=]ADDRESS:PORT, such as 127.0.0.1:9912 or east=127.0.0.1:9912";
    let listen = address.parse().ok().filter(|_| !cluster.is_empty()).ok_or(form)?;
    Ok(LogSource::Grpc { cluster: cluster.to_owned(), listen })
}

/// Parses `east=access.log`; an `=` after a `/` belongs to the file's name.
fn log_file(text: &str) -> Result<LogSource, String> {
    let (cluster, path) = match text.split_once('=') {
        Some((cluster, path)) if !cluster.contains('/') => (cluster, path),
        _ => (DEFAULT_CLUSTER, text),
    };
    match cluster.is_empty() || path.is_empty() {
        true => Err("this is not [CLUSTER=]FILE, such as access.log or east=/var/log/envoy/access.log".to_owned()),
        false => Ok(LogSource::File { cluster: cluster.to_owned(), path: path.into() }),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "this is not a number of seconds, such as 1 or 0.5".to_owned())
}

impl Args {
    /// Serves until the process ends.
    ///
    /// # Errors
    /// Returns an error for wrong usage, for an invalid configuration, and when it cannot listen.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(DashConfig::default()), read)?;
        config.feed.full_addresses |= self.full_addresses;
        config.feed.headers.extend(self.keep_headers.iter().cloned());
        let envoys = self.envoys.iter().cloned().map(|(cluster, url)| ScrapeSource::Envoy { cluster, url });
        let prometheus =
            self.prometheus.iter().cloned().map(|(cluster, url)| ScrapeSource::Prometheus { cluster, url });
        let sources = envoys.chain(prometheus).collect();
        let find_warnings = |dump: &str| crate::status::warnings(dump.into());
        let options = DashOptions {
            listen: self.listen,
            sources,
            config,
            interval: self.interval,
            find_warnings,
            logs: self.receivers.iter().chain(&self.files).cloned().collect(),
            engine: engine::ENGINE,
            warn: |message| anstream::eprintln!("penstock: {}", without_numbers(message)),
        };
        penstock_dash::run(options, |url| {
            writeln!(out, "Dashboard: {url} (read-only; Ctrl-C stops it)")?;
            Ok(out.flush()?)
        })?;
        Ok(true)
    }
}

/// Reads the configuration file; paths in it are relative to its folder.
fn read(path: &Path) -> anyhow::Result<DashConfig> {
    let text = read_text(path)?;
    let located = Located::read(&text).map_err(|error| {
        let line = text.bytes().take(error.at).filter(|&byte| byte == b'\n').count() + 1;
        anyhow!("{}, line {line}, is not YAML: {error}", display(path))
    })?;
    let config = DashConfig::read(yaml_text::value(&located.node));
    let config =
        config.map_err(|error| anyhow!("{}", shortened(&error.to_string(), 600))).with_context(|| display(path))?;
    let mut config = config;
    if let Some(folder) = path.parent() {
        let certificates = config
            .tls
            .iter_mut()
            .flat_map(|tls| [&mut tls.certificate, &mut tls.key].into_iter().chain(&mut tls.client_ca));
        let logs = config.clusters.iter_mut().flat_map(|cluster| &mut cluster.logs);
        for file in certificates.chain(logs.filter(|file| file.as_os_str() != "-")) {
            *file = folder.join(&*file);
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_may_stand_before_a_log() {
        let grpc = |cluster: &str, listen: &str| {
            Ok(LogSource::Grpc { cluster: cluster.to_owned(), listen: listen.parse().unwrap() })
        };
        assert_eq!(receiver("127.0.0.1:9912"), grpc("default", "127.0.0.1:9912"));
        assert_eq!(receiver("east=[::1]:9912"), grpc("east", "[::1]:9912"));
        let file = |cluster: &str, path: &str| Ok(LogSource::File { cluster: cluster.to_owned(), path: path.into() });
        assert_eq!(log_file("-"), file("default", "-"));
        assert_eq!(log_file("east=a=b.log"), file("east", "a=b.log"));
        assert_eq!(log_file("/var/a=b.log"), file("default", "/var/a=b.log"));
        assert!(receiver("east=9912").is_err() && receiver("=127.0.0.1:1").is_err() && log_file("east=").is_err());
    }

    #[test]
    fn a_cluster_may_stand_before_a_url() {
        let pair = |cluster: &str, url: &str| Ok((cluster.to_owned(), url.to_owned()));
        assert_eq!(named("http://a:1"), pair("default", "http://a:1"));
        assert_eq!(named("east=http://a:1/?x=y"), pair("east", "http://a:1/?x=y"));
        assert_eq!(named("http://a:1/?x=y"), pair("default", "http://a:1/?x=y"));
        assert_eq!(named("127.0.0.1:9901"), pair("default", "http://127.0.0.1:9901"));
        assert_eq!(named("east=envoy.test:9901/x"), pair("east", "http://envoy.test:9901/x"));
        for wrong in ["east", "east=", "127.0.0.1", "a:b", ""] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
