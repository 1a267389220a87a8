//! `penstock dash`: a live view of running Envoys in the browser.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use penstock_dash::DashOptions;
use penstock_dash::config::DashConfig;
use penstock_dash::scrape::ScrapeSource;

use crate::output::Output;
use crate::source::{display, read_text};
use crate::words::shortened;
use crate::yaml::Located;
use crate::yaml_text;

/// Show live, in the browser, what the policies do in running Envoys.
///
/// Reads the Envoys' admin interfaces, or a Prometheus that scrapes them, once a second, and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock dash --envoy http://127.0.0.1:9901\n  \
    penstock dash --envoy east=http://10.0.0.7:9901 --envoy west=http://10.1.0.7:9901\n  \
    penstock dash --config dash.yaml --listen 0.0.0.0:9911\n\n\
    Without workspaces in --config it listens on loopback addresses only.")]
pub struct Args {
    /// The admin interface of an Envoy, with the name of its cluster before it; may be repeated
    #[arg(long = "envoy", value_name = "[CLUSTER=]URL", value_parser = named)]
    envoys: Vec<(String, String)>,

    /// A Prometheus that scrapes Envoys, with the name of their cluster before it; may be repeated
    #[arg(long = "prometheus", value_name = "[CLUSTER=]URL", value_parser = named)]
    prometheus: Vec<(String, String)>,

    /// A file with clusters, workspaces (who may see what) and certificates
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9911")]
    listen: SocketAddr,

    /// Polling interval in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
}

/// The cluster of sources that name none.
const DEFAULT_CLUSTER: &str = "default";

/// `east=http://…`; an `=` further on belongs to the URL.
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

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "this is not a number of seconds, such as 1 or 0.5".to_owned())
}

impl Args {
    /// Serves until the process ends.
    ///
    /// # Errors
    /// Usage, a configuration that is not valid, and when it cannot listen.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let config = self.config.as_deref().map_or_else(|| Ok(DashConfig::default()), read)?;
        let envoys = self.envoys.iter().cloned().map(|(cluster, url)| ScrapeSource::Envoy { cluster, url });
        let prometheus =
            self.prometheus.iter().cloned().map(|(cluster, url)| ScrapeSource::Prometheus { cluster, url });
        let sources = envoys.chain(prometheus).collect();
        let find_warnings = |dump: &str| crate::status::warnings(dump.into());
        let options = DashOptions { listen: self.listen, sources, config, interval: self.interval, find_warnings };
        penstock_dash::run(options, |url| {
            writeln!(out, "Dashboard: {url} (read-only; Ctrl-C stops it)")?;
            Ok(out.flush()?)
        })?;
        Ok(true)
    }
}

/// Reads the file; paths in it begin at its folder.
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
    if let (Some(tls), Some(folder)) = (&mut config.tls, path.parent()) {
        for file in [&mut tls.certificate, &mut tls.key].into_iter().chain(&mut tls.client_ca) {
            *file = folder.join(&*file);
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

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
