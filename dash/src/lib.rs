//! `penstock dash`: a live view, in the browser, of what the policies do in any number of Envoys. It is read-only.
//!
//! A thread for each source polls it once a second (`scrape`, `envoy`, `prometheus`), the results are summed for each
//! cluster (`fleet`, `series`), and a viewer gets what their workspace may see (`access`, `view`, `server`). Single
//! decisions come from access logs (`feed`).

pub mod access;
pub mod app;
mod assets;
pub mod config;
pub mod configuration;
pub mod connections;
mod deadline;
mod decisions_api;
pub mod envoy;
pub mod feed;
pub mod fleet;
pub mod history;
mod history_api;
pub mod log_source;
pub mod names;
pub mod prometheus;
pub mod prometheus_history;
mod ramps;
pub mod sample;
pub mod scrape;
pub mod series;
pub mod series_table;
pub mod server;
mod silent;
pub mod tls;
pub mod view;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use app::{DashState, Engine};
use config::{DashConfig, Tls};
use connections::{ConnectionLimit, LimitedListener};
use deadline::Deadlines;
use envoy::FindWarnings;
use feed::als::{self, AlsLimits, AlsReceiver};
use feed::tail::Tail;
use feed::{DecisionFeed, SharedFeed};
use fleet::Fleet;
use history::SharedHistory;
use log_source::LogSource;
use prometheus_history::PrometheusPast;
use scrape::ScrapeSource;
use tls::TlsListener;

/// The minimum polling interval: Envoy's main thread formats its statistics for each poll.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);

/// The options of the command line.
#[derive(Debug)]
pub struct DashOptions {
    /// The address to listen on; port 0 selects a free port.
    pub listen: SocketAddr,
    /// Sources in addition to those of `config`.
    pub sources: Vec<ScrapeSource>,
    /// The file of `--config`.
    pub config: DashConfig,
    /// The polling interval.
    pub interval: Duration,
    /// Finds settings in a configuration dump that break a guarantee of a policy.
    pub find_warnings: FindWarnings,
    /// Access logs in addition to those of `config`.
    pub logs: Vec<LogSource>,
    /// Functions of the engine for the page.
    pub engine: Engine,
    /// Prints a line for the user who started the dash.
    pub warn: fn(&str),
}

/// Serves until the process ends; `ready` gets the address of the page.
///
/// # Errors
/// Returns an error when there is no source, when data without access control would be visible to a whole network, or
/// when it cannot listen.
pub fn run(options: DashOptions, ready: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let DashOptions { listen, mut sources, config, interval, find_warnings, mut logs, engine, warn } = options;
    config.check_listen(listen)?;
    sources.extend(config.sources());
    logs.extend(config.logs());
    for log in &logs {
        config.check_log(log)?;
    }
    ensure!(
        !sources.is_empty() || !logs.is_empty(),
        "no proxy is given: set --envoy http://127.0.0.1:9901 (an Envoy's admin interface), --prometheus, or clusters in --config"
    );
    for source in &sources {
        let (ScrapeSource::Envoy { url, .. } | ScrapeSource::Prometheus { url, .. }) = source;
        let valid = url.parse::<ureq::http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        ensure!(valid, "{url:?} is not a URL such as http://127.0.0.1:9901");
    }
    ensure!(
        interval >= SHORTEST_INTERVAL,
        "--interval: {} seconds is too short, the shortest is {}",
        interval.as_secs_f64(),
        SHORTEST_INTERVAL.as_secs_f64()
    );

    let fleet = Arc::new(Mutex::new(Fleet::default()));
    let tls = config.tls.clone();
    let history = SharedHistory::default();
    let feed = Arc::new(Mutex::new(DecisionFeed::new(config.feed.privacy())));
    let connections = ConnectionLimit::new(server::CONNECTIONS);
    let app = server::router(DashState {
        config,
        fleet: Arc::clone(&fleet),
        feed: Arc::clone(&feed),
        interval,
        engine,
        history: Arc::clone(&history),
        prometheus: pasts(&sources),
        connections: Arc::clone(&connections),
        explaining: tokio::sync::Semaphore::new(decisions_api::EXPLAINING),
        asking: tokio::sync::Semaphore::new(history_api::ASKING),
    });
    // One thread serves the pages; the sources have their own threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let busy = || format!("cannot listen on {listen}: choose another address with --listen");
        let listener = tokio::net::TcpListener::bind(listen).await.with_context(busy)?;
        let address = listener.local_addr()?;
        let listener = LimitedListener::by_answers(listener, connections);
        scrape::start(&sources, interval, find_warnings, &fleet)?;
        history::start(&fleet, &history, interval)?;
        for log in logs {
            start_log(log, tls.as_ref(), &fleet, &feed, engine).await?;
        }
        silent::start(&fleet, &feed, warn)?;
        match tls {
            None => {
                ready(&format!("http://{address}/"))?;
                server::serve(Deadlines(listener), app).await;
            }
            Some(tls) => {
                let listener = TlsListener::new(listener, &tls)?;
                ready(&format!("https://{address}/"))?;
                server::serve(Deadlines(listener), app).await;
            }
        }
        Ok(())
    })
}

/// How long a Prometheus may take for a long range.
const PATIENCE: Duration = Duration::from_secs(20);

/// The Prometheus of each cluster that has one.
fn pasts(sources: &[ScrapeSource]) -> BTreeMap<String, PrometheusPast> {
    let one = |source: &ScrapeSource| match source {
        ScrapeSource::Prometheus { cluster, url } => {
            Some((cluster.clone(), PrometheusPast::new(url, envoy::agent(PATIENCE))))
        }
        ScrapeSource::Envoy { .. } => None,
    };
    sources.iter().filter_map(one).collect()
}

/// Starts to receive an access log. Must be called inside a runtime.
async fn start_log(
    log: LogSource,
    tls: Option<&Tls>,
    fleet: &scrape::Shared,
    feed: &SharedFeed,
    engine: Engine,
) -> Result<()> {
    let (LogSource::Grpc { cluster, .. } | LogSource::File { cluster, .. }) = &log;
    scrape::lock(fleet).add_cluster(cluster);
    match log {
        LogSource::File { cluster, path } => {
            let at = match path.as_os_str() == "-" {
                true => "on standard input".to_owned(),
                false => path.display().to_string(),
            };
            let source = feed::lock(feed).add_source(&cluster, "access log", &at);
            Tail { cluster, path, feed: Arc::clone(feed), source, read_line: engine.read_line }.start()
        }
        LogSource::Grpc { cluster, listen } => {
            let busy = || format!("cannot listen on {listen}: choose another address with --als");
            let listener = tokio::net::TcpListener::bind(listen).await.with_context(busy)?;
            let at = format!("at {}", listener.local_addr()?);
            let source = feed::lock(feed).add_source(&cluster, "gRPC access logs", &at);
            let (feed, fleet) = (Arc::clone(feed), Arc::clone(fleet));
            let limit = ConnectionLimit::counting(als::CONNECTIONS, Arc::clone(&source.closed_connections));
            let listener = LimitedListener::by_touch(listener, limit);
            let receiver =
                AlsReceiver { cluster, feed, fleet, source, buffered: Arc::default(), limits: AlsLimits::default() };
            match tls {
                None => tokio::spawn(receiver.serve(listener)),
                Some(tls) => tokio::spawn(receiver.serve(TlsListener::new(listener, tls)?)),
            };
            Ok(())
        }
    }
}
