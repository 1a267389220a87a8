//! `penstock explain`: the decision on one request, and why.

mod build;
mod curl;
mod egress;
mod human;
mod paths;
mod report;
mod shell;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use penstock_dash::feed::explain::Explained;
use penstock_policy::document::Node;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};

use crate::documents::Documents;
use crate::inputs::{self, RunningInputs};
use crate::numbers::{MANY, whole};
use crate::output::Output;
use crate::place::Place;
use crate::policy_file::{PolicyFile, load_all, one};
use crate::traffic::{har::Archive, url};
use crate::{replay, source, traffic};
use build::Decided;
pub use egress::destination_words;

/// Show how a policy decides one request, and why: which rules match, and why others do not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock explain policy.yaml --url https://shop.example.com/cart --header 'x-user-group: beta'\n  \
    penstock explain policy.yaml --curl \"curl -X POST https://api.stripe.com/v1/charges\" --peer spiffe://cluster.local/ns/a/sa/b\n  \
    penstock explain policy.yaml --har session.har --entry 3 --output json\n  \
    penstock explain wasm-plugin.yaml --at ingress --url https://shop.example.com/cart --exit-code\n  \
    penstock explain --from-envoy http://127.0.0.1:9901 --url https://shop.example.com/cart\n\n\
    Exit status: 1 if the policy is invalid, or if the request is refused and --exit-code is set."
)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["url", "curl", "har", "request"]))]
pub struct Args {
    /// A policy, a manifest, an Envoy configuration or a folder; `-` is standard input [default: policy.yaml].
    #[arg(value_parser = no_url)]
    policy: Option<PathBuf>,
    #[command(flatten)]
    running: RunningInputs,
    /// Only use the plugin whose object has this name.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Only explain the sections that run at `ingress` (rateLimits, routes, canaries) or at `egress`. Default: explain
    /// both separately. A time here is the same as --time.
    #[arg(long, value_parser = at, value_name = "PLACE")]
    at: Vec<AtArgument>,
    /// The request's URL.
    #[arg(long)]
    url: Option<String>,
    /// The request as a curl command, for example copied from a browser.
    #[arg(long, value_name = "COMMAND")]
    curl: Option<String>,
    /// Read the request from this HTTP Archive.
    #[arg(long, value_name = "FILE")]
    har: Option<PathBuf>,
    /// The number of the entry in the archive, starting at 1.
    #[arg(long, value_name = "N", requires = "har", default_value_t = 1, allow_negative_numbers = true, value_parser = whole::<usize>(1, MANY))]
    entry: usize,
    /// The request in the format of `penstock replay`: a JSON object, a file that contains one, or `-` for standard
    /// input.
    #[arg(long, value_name = "JSON|FILE|-")]
    request: Option<String>,
    /// The method.
    #[arg(long, short = 'X')]
    method: Option<String>,
    /// A header, `name: value`; may be repeated.
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The time of the decision, RFC 3339 [default: the time of the request, or now].
    #[arg(long, value_parser = instant, value_name = "TIME")]
    time: Option<Timestamp>,
    /// The address of the connection's peer.
    #[arg(long, value_parser = address, value_name = "IP")]
    source_address: Option<IpAddr>,
    /// The server name of the TLS handshake (SNI).
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// The caller's verified identity, a SPIFFE ID in a mesh.
    #[arg(long, value_name = "ID")]
    peer: Option<String>,
    /// The claims of the token that an earlier filter has verified, as JSON: '{"sub": "u-1", "tier": "pro"}'.
    #[arg(long, value_parser = object, value_name = "JSON")]
    claims: Option<Object>,
    /// The dynamic metadata that earlier filters have stored, by namespace, as JSON.
    #[arg(long, value_parser = objects, value_name = "JSON")]
    metadata: Option<Objects>,
    /// Decide the requests of this file first, so that limits and breakers have their state after these requests. All
    /// formats of `penstock replay`.
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    #[command(flatten)]
    traffic: traffic::ReadOptions,
    /// How many rules that nearly match to show in each section.
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = whole::<usize>(0, MANY))]
    misses: usize,
    /// The seed of random choices, to make them repeatable.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = whole::<u64>(0, u64::MAX))]
    seed: Option<u64>,
    /// Exit with status 1 if the request is refused.
    #[arg(long)]
    exit_code: bool,
    /// The format of the explanation.
    #[arg(long, short, visible_alias = "format", value_enum, default_value = "human")]
    output: ExplainFormat,
}

/// The value of `--at`: a place, or (as in earlier versions) a time.
#[derive(Clone, Copy, Debug)]
enum AtArgument {
    Place(Place),
    Time(Timestamp),
}

fn at(text: &str) -> Result<AtArgument, String> {
    match text {
        "ingress" => Ok(AtArgument::Place(Place::Ingress)),
        "egress" => Ok(AtArgument::Place(Place::Egress)),
        _ => instant(text)
            .map(AtArgument::Time)
            .map_err(|_| "write ingress or egress; write a time as --time".to_owned()),
    }
}

/// The forms of the explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ExplainFormat {
    /// Text.
    Human,
    /// One JSON object.
    Json,
}

/// A policy, or the part of it that runs in one place.
struct PlacedPolicy {
    at: Option<Place>,
    name: Option<String>,
    policy: Policy,
    node: Node,
}

/// Explains one request with one policy, with full buckets and closed breakers.
///
/// # Errors
/// Returns an error when the policy is invalid.
pub fn one_request(node: &Node, request: &WireRequest) -> anyhow::Result<Explained> {
    let policy = Policy::from_node(node).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let mut world = World::new(replay::now(), replay::random());
    let time = request.time.unwrap_or(world.now);
    let (decision, trace) = request.explain(&policy, &mut world);
    let documents = Documents::of(node);
    let report = Decided { policy: &policy, documents: &documents, request, time, decision, trace, misses: 3 }.report();
    Ok(Explained {
        refused: report.decision.action == Some("respond"),
        decision: serde_json::to_value(&report)?,
        text: anstream::adapter::strip_str(&human::views(&[report::PlacedExplanation {
            at: None,
            policy: None,
            report,
        }]))
        .to_string(),
    })
}

type Object = serde_json::Map<String, serde_json::Value>;
type Objects = std::collections::BTreeMap<String, Object>;

fn object(text: &str) -> Result<Object, String> {
    json(text, "write a JSON object such as {\"sub\": \"u-1\"}")
}

fn objects(text: &str) -> Result<Objects, String> {
    let form = "write a JSON object of objects such as {\"envoy.filters.http.ext_authz\": {\"team\": \"search\"}}";
    json(text, form)
}

/// Parses the JSON of an option; for valid JSON of another type, the error only gives the expected form.
fn json<T: serde::de::DeserializeOwned>(text: &str, form: &str) -> Result<T, String> {
    serde_json::from_str(text)
        .map_err(|error| if error.is_data() { form.to_owned() } else { format!("{form}: {error}") })
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "write an IPv4 or IPv6 address without a port, such as 203.0.113.7".to_owned())
}

/// Parses an RFC 3339 time.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "write RFC 3339 with seconds and offset, such as 2026-01-31T09:30:00Z".to_owned())
}

/// A path; refuses the URL of a request.
fn no_url(text: &str) -> Result<PathBuf, String> {
    match text.contains("://") {
        true => Err(format!("a policy is expected here; give the request as `--url {text}`")),
        false => Ok(PathBuf::from(text)),
    }
}

impl Args {
    /// Explains the request.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read, the policy is invalid, or there is no request.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let policy = match (&self.policy, self.running.is_any()) {
            (Some(policy), _) => Some(policy.clone()),
            (None, false) => Some(inputs::default_policy()?),
            (None, true) => None,
        };
        let stdins =
            [policy.as_deref(), self.request.as_deref().map(Path::new), self.har.as_deref(), self.after.as_deref()];
        traffic::one_stdin(stdins.into_iter().flatten())?;
        let request = self.request()?;
        let paths: Vec<PathBuf> = policy.into_iter().collect();
        let mut sources = inputs::read(&paths)?;
        sources.extend(self.running.read()?);
        let policies = load_all(&sources)?;
        let whole = match policies.as_slice() {
            [one] => Some((
                Policy::from_node(&one.node).map_err(|problems| anyhow::anyhow!("{problems}"))?,
                one.node.clone(),
            )),
            _ => None,
        };
        let views = self.views(policies)?;
        let seed = self.seed.unwrap_or_else(replay::random);
        let mut reports = Vec::new();
        for view in &views {
            let report = self.report(&request, &view.policy, &view.node, seed)?;
            reports.push(report::PlacedExplanation { at: view.at, policy: view.name.clone(), report });
        }
        match (self.output, reports.as_slice()) {
            (ExplainFormat::Human, reports) => out.human(&human::views(reports))?,
            (ExplainFormat::Json, [one]) => out.json(&one.report)?,
            (ExplainFormat::Json, reports) => {
                // The decision of all sections in one plugin, as `replay` prints it, then of each place.
                let whole = whole.map(|(policy, node)| self.report(&request, &policy, &node, seed)).transpose()?;
                out.json(&report::ExplanationByPlace { whole, places: reports })?;
            }
        }
        let refused = reports.iter().any(|view| view.report.decision.action == Some("respond"));
        Ok(!(self.exit_code && refused))
    }

    /// The decision of one policy, after the requests of `--after`.
    fn report(
        &self,
        request: &WireRequest,
        policy: &Policy,
        node: &Node,
        seed: u64,
    ) -> anyhow::Result<report::Explanation> {
        let mut world = World::new(replay::now(), seed);
        if let Some(after) = &self.after {
            traffic::each(after, &self.traffic, false, &mut |_, request| {
                request.decide(policy, &mut world);
                Ok(())
            })?;
        }
        world.now = replay::now();
        let time = request.time.unwrap_or(world.now);
        let (decision, trace) = request.explain(policy, &mut world);
        let documents = Documents::of(node);
        Ok(Decided { policy, documents: &documents, request, time, decision, trace, misses: self.misses }.report())
    }

    /// What is explained separately: each plugin of manifests, and each place of a policy file.
    fn views(&self, policies: Vec<PolicyFile>) -> anyhow::Result<Vec<PlacedPolicy>> {
        let policies = match &self.plugin {
            Some(_) => vec![one(policies, self.plugin.as_deref())?],
            None => policies,
        };
        let wanted = self.at.iter().rev().find_map(|at| match at {
            AtArgument::Place(place) => Some(*place),
            AtArgument::Time(_) => None,
        });
        let several = policies.len() > 1;
        let mut views = Vec::new();
        for file in policies {
            let name = (several || file.resource.is_some()).then(|| file.name());
            let parts = [Place::Ingress, Place::Egress].map(|place| (place, place.part(&file.node)));
            let both = parts.iter().all(|(_, part)| part.is_some());
            if wanted.is_none() && (file.resource.is_some() || !both) {
                views.push(PlacedPolicy { at: None, name, policy: file.policy, node: file.node });
                continue;
            }
            for (place, part) in parts.into_iter().filter(|(place, _)| wanted.is_none_or(|wanted| wanted == *place)) {
                let Some(node) = part else { continue };
                let policy = Policy::from_node(&node).map_err(|problems| anyhow::anyhow!("{problems}"))?;
                views.push(PlacedPolicy { at: Some(place), name: name.clone(), policy, node });
            }
        }
        anyhow::ensure!(!views.is_empty(), "no section of the policy runs {}", wanted.map_or("anywhere", Place::words));
        Ok(views)
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
                let text = text.trim_start_matches('\u{feff}');
                traffic::request(text.as_bytes()).context("--request")?
            }
            _ => bail!("pass the request with --url, --curl, --har or --request"),
        };
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if let Some(method) = &self.method {
            anyhow::ensure!(
                !method.is_empty() && method.bytes().all(is_token),
                "--method {method:?} is not a method such as GET: it has letters, digits and !#$%&'*+-.^_`|~"
            );
            request.method.clone_from(method);
        }
        for header in &self.header {
            let (name, value) =
                header.split_once(':').with_context(|| format!("--header {header:?} is not `name: value`"))?;
            let name = name.trim();
            anyhow::ensure!(
                !name.is_empty() && name.bytes().all(is_token),
                "--header {header:?} has no header name before its first `:`; --url and --method set the other parts of a request"
            );
            url::add_header(&mut request, name, value.trim());
        }
        let at = self.at.iter().find_map(|at| match at {
            AtArgument::Time(time) => Some(*time),
            AtArgument::Place(_) => None,
        });
        request.time = self.time.or(at).or(request.time);
        request.source_address = self.source_address.or(request.source_address);
        request.sni = self.sni.clone().or(request.sni);
        request.peer = self.peer.clone().or(request.peer);
        request.claims = self.claims.clone().or(request.claims);
        if let Some(metadata) = &self.metadata {
            request.metadata.clone_from(metadata);
        }
        Ok(request)
    }
}
