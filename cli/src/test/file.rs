//! Test files, as YAML or as the contract's JSON lines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use penstock_policy::Timestamp;
use penstock_policy::document::{
    At, Context, Decode, Fields, GatewayDuration, Kind, Node, NonEmpty, PositiveDuration, Whole, suggestion, wrong_kind,
};
use penstock_policy::wire::{ServiceAnswer, WireRequest, WireResponse};
use serde_json::Value;

use crate::diagnostics::{Finding, Findings};
use crate::text::SourceText;
use crate::yaml::Located;
use crate::yaml_text;

/// A file of tests.
#[derive(Debug)]
pub struct TestFile {
    /// The tests in order.
    pub tests: Vec<Test>,
}

/// One test.
#[derive(Debug)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// The policy that it tests.
    pub policy: PolicySource,
    /// The time of requests without one; absent means the same current time for the whole run.
    pub time: Option<Timestamp>,
    /// The seed of random choices.
    pub seed: u64,
    /// The requests; if there are none, only the policy's validity is tested.
    pub steps: Vec<TestStep>,
    /// The expectation about the policy itself.
    pub load: Vec<Expected>,
    /// The line, starting at 1.
    pub line: usize,
}

/// The source of a policy.
#[derive(Clone, Debug)]
pub enum PolicySource {
    /// A file, relative to the test file.
    File(String),
    /// The test file itself.
    Inline(Rc<Node>),
}

/// Requests with the same expected decision.
#[derive(Debug)]
pub struct TestStep {
    /// The time since the previous step.
    pub after: Duration,
    /// How often the request is repeated.
    pub times: u32,
    /// The request.
    pub request: WireRequest,
    /// The expected keys of the decision.
    pub expect: Vec<Expected>,
}

/// An expected key of a decision.
#[derive(Debug)]
pub struct Expected {
    /// A key of the decision.
    pub key: String,
    /// The expected value; `null` when the decision must not have the key.
    pub value: Value,
    /// Line and column of the value, starting at 1.
    pub place: (usize, usize),
}

/// The keys of a decision, in the order in which `penstock replay` prints them.
const DECISION: [&str; 13] = [
    "action",
    "status",
    "section",
    "rule",
    "reason",
    "route",
    "variant",
    "headers",
    "responseHeaders",
    "responseChanges",
    "body",
    "wouldRespond",
    "policyError",
];

impl TestFile {
    /// Parses YAML.
    ///
    /// # Errors
    /// Returns all problems of the text.
    pub fn read_yaml(text: &SourceText) -> Result<TestFile, Findings> {
        let located = Located::read(text).map_err(|error| Findings::one(Finding::syntax(&error, text)))?;
        let mut cx = Context::new(String::new(), usize::MAX);
        let document = TestDocument::decode(&located.node, &At::Root, &mut cx);
        match (document, cx.finish()) {
            (Some(document), None) => Ok(document.into_file(&located, text)),
            (_, Some(problems)) => Err(Findings::of(&problems, |problem| Finding::of(problem, &located, text))),
            // Unreachable: a decoder without a value records a problem.
            (None, None) => Err(Findings::default()),
        }
    }

    /// Parses the contract's format: one test a line, each with its own policy.
    ///
    /// # Errors
    /// Returns all problems of the text.
    pub fn read_lines(text: &SourceText) -> Result<TestFile, Findings> {
        let (mut tests, mut findings) = (Vec::new(), Findings::default());
        let mut at = 0;
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            let span = at..at + line.trim_end().len();
            at += line.len();
            if line.trim().is_empty() {
                continue;
            }
            let mut cx = Context::new(String::new(), usize::MAX);
            let case = match Node::from_json(line.as_bytes()) {
                Ok(node) => TestCase::decode(&node, &At::Root, &mut cx),
                Err(error) => {
                    findings.extend([error], |error| Finding::at(span.clone(), error.to_string(), None, text));
                    continue;
                }
            };
            match (case, cx.finish()) {
                (Some(case), None) => {
                    let defaults = Defaults { policy: case.policy.clone(), time: None, seed: 0 };
                    let name = format!("line {number}");
                    tests.extend(case.into_test(&defaults, &name, number, &|_| (number, 1)));
                }
                (_, problems) => {
                    findings.extend(problems.iter().flatten(), |problem| Finding {
                        path: problem.path.clone(),
                        value: problem.value.clone(),
                        ..Finding::at(span.clone(), problem.message.clone(), problem.help.clone(), text)
                    });
                    findings.more += problems.map_or(0, |problems| problems.more());
                }
            }
        }
        if findings.is_empty() { Ok(TestFile { tests }) } else { Err(findings) }
    }
}

/// Defaults for tests.
struct Defaults {
    policy: Option<PolicySource>,
    time: Option<Timestamp>,
    seed: u64,
}

/// A YAML file.
struct TestDocument {
    defaults: Defaults,
    tests: Vec<TestCase>,
}

impl Decode for TestDocument {
    const KIND: Kind = Kind::Object(&["policy", "time", "seed", "tests"]);
    const EXPECTED: &'static str = "an object with `policy` and `tests`";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let policy = fields.get::<Option<PolicySource>>("policy", at, cx);
        let time = fields.get::<Option<Timestamp>>("time", at, cx);
        let seed = fields.get_or("seed", Seed(0), at, cx);
        let tests = fields.get::<NonEmpty<TestCase>>("tests", at, cx);
        let defaults = Defaults { policy: policy?, time: time?, seed: seed?.0 };
        let tests = tests?.0;
        if defaults.policy.is_none() && tests.iter().any(|case| case.policy.is_none()) {
            let help = "name a file, relative to this one: `policy: policy.yaml`, or write the policy here";
            cx.problem_at(&at.field("policy"), "is required", help.to_owned());
            return None;
        }
        Some(TestDocument { defaults, tests })
    }
}

impl TestDocument {
    fn into_file(self, located: &Located, text: &SourceText) -> TestFile {
        let place = |path: &str| text.position(located.span(path, false).start);
        let tests = self.tests.into_iter().enumerate().filter_map(|(i, case)| {
            let line = place(&format!("tests[{i}]")).0;
            case.into_test(&self.defaults, &format!("tests[{i}]"), line, &place)
        });
        TestFile { tests: tests.collect() }
    }
}

/// One test as written.
struct TestCase {
    name: Option<String>,
    policy: Option<PolicySource>,
    time: Option<Timestamp>,
    seed: Option<u64>,
    steps: Vec<SentStep>,
    load: Vec<Wanted>,
}

/// A step as written.
struct SentStep {
    after: Duration,
    times: u32,
    request: WireRequest,
    expect: Vec<Wanted>,
}

/// A key of `expect` as written, with its path.
struct Wanted {
    key: String,
    value: Value,
    path: String,
}

impl Decode for TestCase {
    const KIND: Kind = Kind::Object(&["name", "policy", "time", "seed", "request", "expect", "steps", "times", "why"]);
    const EXPECTED: &'static str = "an object with `request` and `expect`, or with `steps`";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let name = fields.get::<Option<String>>("name", at, cx);
        let policy = fields.get::<Option<PolicySource>>("policy", at, cx);
        let time = fields.get::<Option<Timestamp>>("time", at, cx);
        let seed = fields.get::<Option<Seed>>("seed", at, cx);
        let why = fields.get::<Option<String>>("why", at, cx);
        let mut load = Vec::new();
        let steps = match (fields.has("request"), fields.has("steps")) {
            (true, true) => {
                cx.problem_at(
                    &at.field("steps"),
                    "cannot be combined with `request`",
                    "write each request as a step".to_owned(),
                );
                None
            }
            (false, false) if fields.has("expect") && fields.has("policy") => {
                load = expected::<OfPolicy>(node.get("expect")?, &at.field("expect"), cx)?;
                Some(Vec::new())
            }
            (_, false) => SentStep::read(&fields, node, at, cx).map(|step| vec![step]),
            (false, true) => {
                for field in ["expect", "times"].into_iter().filter(|field| fields.has(field)) {
                    cx.problem_at(&at.field(field), "cannot be combined with `steps`", "give it in a step".to_owned());
                }
                fields.get::<NonEmpty<SentStep>>("steps", at, cx).map(|steps| steps.0)
            }
        };
        why?;
        // Names are printed, so control characters are refused.
        let name = name?.map(|name| name.replace(char::is_control, "\u{fffd}"));
        Some(TestCase { name, policy: policy?, time: time?, seed: seed?.map(|seed| seed.0), steps: steps?, load })
    }
}

impl TestCase {
    /// Converts the test; `place` finds the line, column and bytes of a path.
    fn into_test(
        self,
        defaults: &Defaults,
        name: &str,
        line: usize,
        place: &dyn Fn(&str) -> (usize, usize),
    ) -> Option<Test> {
        let expected = |wanted: Vec<Wanted>| {
            let expected = wanted.into_iter().map(|wanted| Expected {
                place: place(&wanted.path),
                key: wanted.key,
                value: wanted.value,
            });
            expected.collect::<Vec<_>>()
        };
        Some(Test {
            name: self.name.unwrap_or_else(|| name.to_owned()),
            policy: self.policy.or_else(|| defaults.policy.clone())?,
            time: self.time.or(defaults.time),
            seed: self.seed.unwrap_or(defaults.seed),
            load: expected(self.load),
            steps: self
                .steps
                .into_iter()
                .map(|sent| TestStep {
                    after: sent.after,
                    times: sent.times,
                    request: sent.request,
                    expect: expected(sent.expect),
                })
                .collect(),
            line,
        })
    }
}

impl Decode for SentStep {
    const KIND: Kind = Kind::Object(&["after", "times", "request", "expect", "why"]);
    const EXPECTED: &'static str = "an object with `request` and `expect`";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        SentStep::read(&fields, node, at, cx)
    }
}

impl SentStep {
    fn read(fields: &Fields<'_>, node: &Node, at: &At<'_>, cx: &mut Context) -> Option<SentStep> {
        let after = fields.get::<Option<PositiveDuration>>("after", at, cx);
        let times = fields.get_or("times", Whole::<1, 1_000_000>(1), at, cx);
        let request = fields.get::<Sendable>("request", at, cx);
        let here = at.field("expect");
        let expect = match node.get("expect") {
            Some(expect) => expected::<OfDecision>(expect, &here, cx),
            None => {
                let help = "write what the decision must contain, such as {action: continue}".to_owned();
                cx.problem_at(&here, "is required", help);
                None
            }
        };
        Some(SentStep {
            after: after?.map_or(Duration::ZERO, |after| after.0),
            times: times?.0,
            request: request?.0,
            expect: expect?,
        })
    }
}

/// Reads `expect` of a decision.
struct OfDecision;

impl Decode for OfDecision {
    const KIND: Kind = Kind::Object(&DECISION);
    const EXPECTED: &'static str = "an object with keys of a decision";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        Fields::open::<Self>(node, at, cx).map(|_| OfDecision)
    }
}

/// Reads `expect` of a policy.
struct OfPolicy;

impl Decode for OfPolicy {
    const KIND: Kind = Kind::Object(&["valid", "warns"]);

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        Fields::open::<Self>(node, at, cx).map(|_| OfPolicy)
    }
}

/// Reads the keys of `expect`, which are those of `T`.
fn expected<T: Decode>(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Vec<Wanted>> {
    T::decode(node, at, cx)?;
    let Node::Map(entries) = node else { return None };
    if entries.is_empty() {
        let known = if let Kind::Object(known) = T::KIND { known } else { &[] };
        cx.problem(at, node, "expects nothing", suggestion("", known));
        return None;
    }
    let wanted = |(key, value): &(String, Node)| Wanted {
        key: key.clone(),
        value: yaml_text::value(value),
        path: at.field(key).to_string(),
    };
    Some(entries.iter().map(wanted).collect())
}

impl Decode for PolicySource {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a file's name, or a policy";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match node {
            Node::String(path) if !path.is_empty() => Some(PolicySource::File(path.clone())),
            Node::Map(_) => Some(PolicySource::Inline(Rc::new(node.clone()))),
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

/// A non-negative integer.
struct Seed(u64);

impl Decode for Seed {
    const KIND: Kind = Kind::Number;
    const EXPECTED: &'static str = "a whole number, 0 or more";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match node {
            Node::Integer(number) if *number >= 0 => Some(Seed(number.unsigned_abs())),
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

/// A request in the format of replay.
struct Sendable(WireRequest);

impl Decode for Sendable {
    const KIND: Kind = Kind::Object(&[
        "method",
        "scheme",
        "authority",
        "path",
        "headers",
        "protocol",
        "sourceAddress",
        "destinationPort",
        "sni",
        "peer",
        "claims",
        "metadata",
        "time",
        "response",
        "rateLimitService",
    ]);
    const EXPECTED: &'static str = "an object with method, authority and path";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let method = fields.get::<String>("method", at, cx);
        let scheme = fields.get::<Option<String>>("scheme", at, cx);
        let authority = fields.get::<String>("authority", at, cx);
        let path = fields.get::<String>("path", at, cx);
        let headers = fields.get_or("headers", Vec::<HeaderPair>::new(), at, cx);
        let protocol = fields.get::<Option<String>>("protocol", at, cx);
        let source_address = fields.get::<Option<Address>>("sourceAddress", at, cx);
        let destination_port = fields.get::<Option<Whole<0, 65535>>>("destinationPort", at, cx);
        let sni = fields.get::<Option<String>>("sni", at, cx);
        let peer = fields.get::<Option<String>>("peer", at, cx);
        let claims = fields.get::<Option<JsonObject>>("claims", at, cx);
        let metadata = fields.get::<Option<JsonObjects>>("metadata", at, cx);
        let time = fields.get::<Option<Timestamp>>("time", at, cx);
        let response = fields.get::<Option<UpstreamAnswer>>("response", at, cx);
        let service = fields.get::<Option<ServiceReply>>("rateLimitService", at, cx);
        Some(Sendable(WireRequest {
            method: method?,
            scheme: scheme?,
            authority: authority?,
            path: path?,
            headers: headers?.into_iter().map(|pair| pair.0).collect(),
            protocol: protocol?,
            source_address: source_address?.map(|address| address.0),
            destination_port: destination_port?.and_then(|port| u16::try_from(port.0).ok()),
            sni: sni?,
            peer: peer?,
            claims: claims?.map(|claims| claims.0),
            metadata: metadata?.map(|metadata| metadata.0).unwrap_or_default(),
            time: time?,
            response: response?.map(|answer| answer.0),
            rate_limit_service: service?.map(|service| service.0).unwrap_or_default(),
        }))
    }
}

/// An object with any JSON values.
struct JsonObject(serde_json::Map<String, serde_json::Value>);

impl Decode for JsonObject {
    const KIND: Kind = Kind::Object(&[]);
    const EXPECTED: &'static str = "an object, such as {sub: u-1}";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match yaml_text::value(node) {
            serde_json::Value::Object(fields) => Some(JsonObject(fields)),
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

/// An object of objects: the metadata of earlier filters, by namespace.
struct JsonObjects(BTreeMap<String, serde_json::Map<String, serde_json::Value>>);

impl Decode for JsonObjects {
    const KIND: Kind = Kind::Object(&[]);
    const EXPECTED: &'static str = "an object of objects, such as {envoy.filters.http.ext_authz: {team: search}}";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::Map(entries) = node else { return wrong_kind::<Self>(node, at, cx) };
        let read =
            |(name, node): &(String, Node)| Some((name.clone(), JsonObject::decode(node, &at.field(name), cx)?.0));
        entries.iter().map(read).collect::<Option<_>>().map(JsonObjects)
    }
}

struct HeaderPair((String, String));

impl Decode for HeaderPair {
    const KIND: Kind = Kind::List;
    const EXPECTED: &'static str = "a pair, [name, value]";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match node {
            Node::List(pair) if pair.len() == 2 => {
                let texts = Vec::<String>::decode(node, at, cx)?;
                let [name, value] = <[String; 2]>::try_from(texts).ok()?;
                Some(HeaderPair((name, value)))
            }
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

struct Address(IpAddr);

impl Decode for Address {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: an IP address";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let address = text.parse().ok().map(Address);
        if address.is_none() {
            cx.problem(at, node, "is not an IP address", "write it like 203.0.113.7 or 2001:db8::1".to_owned());
        }
        address
    }
}

struct ServiceReply(ServiceAnswer);

impl Decode for ServiceReply {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: ok, overLimit, error or timeout";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let answer = match text.as_str() {
            "ok" => ServiceAnswer::Ok,
            "overLimit" => ServiceAnswer::OverLimit,
            "error" => ServiceAnswer::Error,
            "timeout" => ServiceAnswer::Timeout,
            _ => {
                cx.problem(
                    at,
                    node,
                    "is not an answer of a rate-limit service",
                    "ok, overLimit, error or timeout".to_owned(),
                );
                return None;
            }
        };
        Some(ServiceReply(answer))
    }
}

struct UpstreamAnswer(WireResponse);

impl Decode for UpstreamAnswer {
    const KIND: Kind = Kind::Object(&["status", "grpcStatus", "latency", "headers"]);
    const EXPECTED: &'static str = "an object with `status`";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let status = fields.get::<Whole<100, 599>>("status", at, cx);
        let grpc_status = fields.get::<Option<Whole<0, 16>>>("grpcStatus", at, cx);
        let latency = fields.get::<Option<GatewayDuration>>("latency", at, cx);
        let headers = fields.get_or("headers", Vec::<HeaderPair>::new(), at, cx);
        let status = u16::try_from(status?.0).ok()?;
        let grpc_status = grpc_status?.map(|status| status.0);
        let latency = latency?.map_or(Duration::ZERO, |latency| latency.0);
        Some(UpstreamAnswer(WireResponse {
            status,
            grpc_status,
            latency,
            headers: headers?.into_iter().map(|pair| pair.0).collect(),
        }))
    }
}
