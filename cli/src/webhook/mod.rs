//! `penstock webhook`: a validating admission webhook. It refuses an invalid policy when it is applied, with the
//! message of `penstock check`.
//!
//! `review` parses an AdmissionReview and writes its response, `object` finds and checks the policies of an object,
//! `update` determines what an update loosens, `ceilings` and `routes` provide what objects are checked against,
//! `certificate` and `server` implement HTTPS.

mod ceilings;
mod certificate;
mod log;
mod marks;
mod metrics;
mod object;
mod registry;
mod review;
mod routes;
mod server;
mod update;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::numbers::listen_address;
use crate::output::Output;
use ceilings::Ceilings;
use certificate::Certificate;
use object::{Loosening, ObjectJudge};
use routes::KnownRoutes;

/// Serve a validating admission webhook, which refuses invalid policies when they are applied to a Kubernetes cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock webhook --certificate /tls/tls.crt --key /tls/tls.key\n  \
    penstock webhook --certificate /tls/tls.crt --key /tls/tls.key --ceilings /ceilings --loosening require-annotation\n\n\
    The paths are /validate, /validate/ceilings/NAME, /healthz and /metrics. The chart deploy/helm/penstock installs the webhook.")]
pub struct Args {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9443", value_parser = listen_address)]
    listen: SocketAddr,
    /// The TLS certificate in PEM; read again when the file changes.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The key of the certificate in PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A folder with a file NAME.yaml for each ceiling; read again when it changes.
    #[arg(long, value_name = "FOLDER")]
    ceilings: Option<PathBuf>,
    /// How to handle an update that lets requests pass that were refused before.
    #[arg(long, value_enum, default_value = "allow", value_name = "WHAT")]
    loosening: Loosening,
    /// The URL of an API server, to warn of routes that no HTTPRoute, GRPCRoute or VirtualService matches [default:
    /// inside a cluster, its own].
    #[arg(long, value_name = "URL")]
    api_server: Option<String>,
    /// Do not read routes from an API server.
    #[arg(long, conflicts_with = "api_server")]
    no_api_server: bool,
    /// The folder with the token and the certificate for the API server.
    #[arg(long, value_name = "FOLDER", default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
    service_account: PathBuf,
    /// The address for /healthz and /metrics without TLS.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address)]
    metrics: Option<SocketAddr>,
}

/// The interval at which files and the API server's routes are read again.
const REFRESH: Duration = Duration::from_secs(5);
const REFRESH_ROUTES: Duration = Duration::from_secs(30);

impl Args {
    /// Serves until the process ends.
    ///
    /// # Errors
    /// Returns an error when a certificate or ceiling cannot be read, or when it cannot listen.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let certificate = Certificate::load(&self.certificate, &self.key)?;
        let ceilings = match &self.ceilings {
            Some(folder) => Ceilings::load(folder)?,
            None => Ceilings::default(),
        };
        let routes = KnownRoutes::new(self.api_server(), &self.service_account);
        let judge = ObjectJudge { ceilings, routes, loosening: self.loosening };
        let app = server::WebhookState::new(judge, certificate);
        app.refresh_in_background(REFRESH, REFRESH_ROUTES)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
            .build()?;
        runtime.block_on(async {
            let busy = |address: SocketAddr, option: &'static str| {
                move || format!("cannot listen on {address}: choose another address with {option}")
            };
            let listener =
                tokio::net::TcpListener::bind(self.listen).await.with_context(busy(self.listen, "--listen"))?;
            let plain = match self.metrics {
                Some(address) => {
                    Some(tokio::net::TcpListener::bind(address).await.with_context(busy(address, "--metrics"))?)
                }
                None => None,
            };
            writeln!(out, "The webhook is at https://{}/validate until it is stopped.", listener.local_addr()?)?;
            if let Some(plain) = &plain {
                writeln!(out, "Metrics are at http://{}/metrics.", plain.local_addr()?)?;
            }
            out.flush()?;
            app.serve(listener, plain).await
        })?;
        Ok(true)
    }

    /// The API server that is asked for routes.
    fn api_server(&self) -> Option<String> {
        if self.no_api_server {
            return None;
        }
        let inside = || {
            let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
            let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".to_owned());
            Some(if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") })
        };
        self.api_server.clone().or_else(inside)
    }
}
