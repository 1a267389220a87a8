//! `penstock dash`: a live view, in the browser, of what the policies do in any number of Envoys. It only reads.
//!
//! A thread for each source looks at it once a second (`scrape`, `envoy`, `prometheus`), what it saw is summed up by cluster
//! (`fleet`, `series`), and whoever asks gets what their workspace may see of it (`access`, `view`, `server`).

pub mod access;
mod assets;
pub mod config;
pub mod configuration;
mod deadline;
pub mod envoy;
pub mod fleet;
pub mod names;
pub mod prometheus;
pub mod sample;
pub mod scrape;
pub mod series;
pub mod server;
pub mod tls;
pub mod view;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use config::DashConfig;
use deadline::Deadlines;
use envoy::FindWarnings;
use fleet::Fleet;
use scrape::ScrapeSource;
use server::DashState;
use tls::TlsListener;

/// The shortest time between two looks: Envoy's main thread writes its statistics each time.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);

/// Everything that the command line says.
#[derive(Debug)]
pub struct DashOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What to look at, beside the sources of `config`.
    pub sources: Vec<ScrapeSource>,
    /// The file of `--config`.
    pub config: DashConfig,
    /// Between two looks.
    pub interval: Duration,
    /// Finds settings in a configuration dump that break a promise of a policy.
    pub find_warnings: FindWarnings,
}

/// Serves until the process ends; `ready` gets the address of the page.
///
/// # Errors
/// When there is nothing to look at, when what is open would be seen by a whole network, or when it cannot listen.
pub fn run(options: DashOptions, ready: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let DashOptions { listen, mut sources, config, interval, find_warnings } = options;
    config.check_listen(listen)?;
    sources.extend(config.sources());
    ensure!(
        !sources.is_empty(),
        "there is nothing to look at: give --envoy http://127.0.0.1:9901 (an Envoy's admin interface), --prometheus, or clusters in --config"
    );
    for source in &sources {
        let (ScrapeSource::Envoy { url, .. } | ScrapeSource::Prometheus { url, .. }) = source;
        let valid = url.parse::<ureq::http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        ensure!(valid, "{url:?} is not a URL such as http://127.0.0.1:9901");
    }
    ensure!(
        interval >= SHORTEST_INTERVAL,
        "--interval: {interval:?} is too short, the shortest is {SHORTEST_INTERVAL:?}"
    );

    let fleet = Arc::new(Mutex::new(Fleet::default()));
    let tls = config.tls.clone();
    let app = server::router(DashState { config, fleet: Arc::clone(&fleet), interval });
    // One thread serves the pages; the sources have their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let busy = || format!("cannot listen on {listen}: choose another address with --listen");
        let listener = tokio::net::TcpListener::bind(listen).await.with_context(busy)?;
        let address = listener.local_addr()?;
        scrape::start(&sources, interval, find_warnings, &fleet)?;
        match tls {
            None => {
                ready(&format!("http://{address}/"))?;
                axum::serve(Deadlines(listener), app).await?;
            }
            Some(tls) => {
                let listener = TlsListener::new(listener, &tls)?;
                ready(&format!("https://{address}/"))?;
                axum::serve(Deadlines(listener), app).await?;
            }
        }
        Ok(())
    })
}
