//! `penstock explain`: the decision on one request, and why.

mod build;
mod curl;
mod egress;
mod human;
mod report;
mod shell;

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use penstock_policy::Timestamp;
use penstock_policy::wire::{WireRequest, World};

use crate::documents::Documents;
use crate::output::Output;
use crate::policy_file::PolicyFile;
use crate::traffic::{har::Archive, url};
use crate::{replay, source, traffic};
use build::Decided;
pub use egress::destination_words;

/// Show the decision on one request, and why: which rules were considered, and what failed in those that nearly matched.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock explain policy.yaml --url https://shop.example.com/cart --header 'x-user-group: beta'\n  \
    penstock explain policy.yaml --curl \"curl -X POST https://api.stripe.com/v1/charges\" --peer spiffe://cluster.local/ns/a/sa/b\n  \
    penstock explain policy.yaml --har session.har --entry 3 --format json"
)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["url", "curl", "har", "request"]))]
pub struct Args {
    /// The policy, YAML or JSON; `-` is standard input.
    policy: PathBuf,
    /// The request's URL.
    #[arg(long)]
    url: Option<String>,
    /// The request as a curl command line, as browsers copy it.
    #[arg(long, value_name = "COMMAND")]
    curl: Option<String>,
    /// The request is an entry of this HTTP Archive.
    #[arg(long, value_name = "FILE")]
    har: Option<PathBuf>,
    /// Which entry of the archive, from 1.
    #[arg(long, value_name = "N", requires = "har", default_value_t = 1)]
    entry: usize,
    /// The request as `penstock replay` reads it: a JSON object, a file with one, or `-` for standard input.
    #[arg(long, value_name = "JSON|FILE|-")]
    request: Option<String>,
    /// The method.
    #[arg(long, short = 'X')]
    method: Option<String>,
    /// A header, `name: value`; several times for several.
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The time to decide at, RFC 3339; absent: the request's own, else now.
    #[arg(long, value_parser = instant, value_name = "TIME")]
    at: Option<Timestamp>,
    /// The address of the connection's peer.
    #[arg(long, value_name = "IP")]
    source_address: Option<IpAddr>,
    /// The server name of the connection's TLS handshake.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// The caller's verified identity, a SPIFFE ID in a mesh.
    #[arg(long, value_name = "ID")]
    peer: Option<String>,
    /// The port that the client connected to.
    #[arg(long, value_name = "PORT")]
    destination_port: Option<u16>,
    /// Requests to decide before, so that buckets and breakers are as these leave them; as `penstock replay` reads them.
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    #[command(flatten)]
    traffic: traffic::Options,
    /// How many near misses to show in each section.
    #[arg(long, value_name = "N", default_value_t = 3)]
    misses: usize,
    /// Gives the same random choices each time.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The form of the explanation.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// The forms of the explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// One JSON object.
    Json,
}

/// Reads an RFC 3339 time.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "write RFC 3339 with seconds and offset, such as 2026-01-31T09:30:00Z".to_owned())
}

impl Args {
    /// Explains the request.
    ///
    /// # Errors
    /// When a file cannot be read, the policy is invalid, or the request is none.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let stdins =
            [Some(&*self.policy), self.request.as_deref().map(Path::new), self.har.as_deref(), self.after.as_deref()];
        traffic::one_stdin(stdins.into_iter().flatten())?;
        let request = self.request()?;
        let file = PolicyFile::load(&self.policy)?;
        let mut world = World::new(replay::now(), self.seed.unwrap_or_else(replay::random));
        if let Some(after) = &self.after {
            traffic::each(after, &self.traffic, false, &mut |_, request| {
                request.decide(&file.policy, &mut world);
                Ok(())
            })?;
        }
        world.now = replay::now();
        let time = request.time.unwrap_or(world.now);
        let (decision, trace) = request.explain(&file.policy, &mut world);
        let documents = Documents::of(&file.node);
        let decided = Decided { documents: &documents, request: &request, time, decision, trace, misses: self.misses };
        let report = decided.report();
        match self.format {
            Format::Human => out.human(&human::render(&report))?,
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        }
        Ok(true)
    }

    /// The request that the options describe.
    fn request(&self) -> anyhow::Result<WireRequest> {
        let mut request = match (&self.url, &self.curl, &self.har, &self.request) {
            (Some(url), ..) => url::request(url)?,
            (_, Some(line), ..) => curl::request(line)?,
            (_, _, Some(har), _) => {
                let archive = Archive::read(&source::read_text(har)?).with_context(|| source::display(har))?;
                let mut requests = archive.requests();
                let count = requests.len();
                let entry = self.entry.checked_sub(1).and_then(|entry| requests.nth(entry));
                let place = || format!("{}, entry {}", source::display(har), self.entry);
                entry
                    .with_context(|| format!("{} has the entries 1 to {count}", source::display(har)))?
                    .with_context(place)?
            }
            (.., Some(json)) => {
                let text =
                    if json.trim_start().starts_with('{') { json.clone() } else { source::read_text(Path::new(json))? };
                serde_json::from_str(text.trim_start_matches('\u{feff}'))
                    .context("not a request as `penstock replay` reads it")?
            }
            _ => bail!("give the request: --url, --curl, --har or --request"),
        };
        if let Some(method) = &self.method {
            request.method.clone_from(method);
        }
        for header in &self.header {
            let (name, value) =
                header.split_once(':').with_context(|| format!("--header {header:?} is not `name: value`"))?;
            url::add_header(&mut request, name.trim(), value.trim());
        }
        request.time = self.at.or(request.time);
        request.source_address = self.source_address.or(request.source_address);
        request.sni = self.sni.clone().or(request.sni);
        request.peer = self.peer.clone().or(request.peer);
        request.destination_port = self.destination_port.or(request.destination_port);
        Ok(request)
    }
}
