//! The compiled policy and its one entry point, [`Policy::decide`].

use std::borrow::Cow;
use std::marker::PhantomData;

use crate::asked::AskedNames;
use crate::breaker::Breakers;
use crate::canaries::{Canaries, CanaryDocument, CanaryOutcome};
use crate::client::Clients;
use crate::decision::{Action, Decision, HeaderOp, HeldBack};
use crate::document::{At, Context, Decode, Fields, Named, Node, Problem, Problems};
use crate::egress::{Egress, EgressDocument, check_later_sections};
use crate::environment::Environment;
use crate::facts::FactPlace;
use crate::identity::IdentitySource;
use crate::matching::Answers;
use crate::metrics::{Metric, Metrics};
use crate::module::{self, Module, Runs, Suite};
use crate::policy_document::PolicyDocument;
use crate::rate_limits::{LimitDocument, Pending, RateLimits, Reservation, RlsRequest};
use crate::redirection::METHOD_OVERRIDES;
use crate::references;
use crate::request::Request;
use crate::routes::{Routes, RoutesDocument, RuleTo};
use crate::section::Section;
use crate::settings::{MatchedPath, Settings};
use crate::state::{Table, Tables, Unavailable};
use crate::upgrade;

/// Memory for all regular expressions of one policy, in bytes.
const REGEX_BUDGET: usize = 64 << 20;

/// A compiled policy for the module `M`. It never changes: a new document makes a new one, and any number of threads
/// can decide with it.
#[derive(Debug)]
pub struct Policy<M: Runs = Suite> {
    module: PhantomData<M>,
    settings: Settings,
    clients: Clients,
    metrics: Metrics,
    tables: Box<[Table]>,
    egress: Option<Egress>,
    rate_limits: Option<RateLimits>,
    breakers: Breakers,
    routes: Option<Routes>,
    canaries: Option<Canaries>,
    /// The cookies and query parameters that any section asks for.
    names: AskedNames,
    /// Counts requests with a value that is too long for an expression that was evaluated on it.
    long_values: Option<Metric>,
}

impl<M: Runs> Policy<M> {
    /// Reads and compiles a JSON document.
    ///
    /// ```
    /// use penstock_policy::Policy;
    ///
    /// let problems = <Policy>::from_json(br#"{"routes": {"default": "a b"}}"#).unwrap_err();
    /// assert!(problems.to_string().starts_with("routes.default: \"a b\": "));
    /// ```
    ///
    /// # Errors
    /// Every problem of the document.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Problems> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            let help = "give the policy as the plugin's configuration; {} is the policy that does nothing";
            return Err(Problems::whole("the configuration is empty", Some(help.to_owned())));
        }
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(node) = Node::skim(text)
        {
            let mut cx = Context::new(String::new(), REGEX_BUDGET);
            cx.source = text;
            let policy = Policy::compile(&node, &mut cx);
            if !cx.is_unreadable {
                return Policy::or_problems(policy, cx);
            }
        }
        // Parsed once more, to report where it is not JSON.
        let node = Node::from_json(bytes).map_err(|error| Problems::whole(error.to_string(), None))?;
        Policy::from_node(&node)
    }

    /// Compiles a document that has already been parsed, from JSON or YAML.
    ///
    /// # Errors
    /// Every problem of the document.
    pub fn from_node(node: &Node) -> Result<Self, Problems> {
        let mut cx = Context::new(String::new(), REGEX_BUDGET);
        let policy = Policy::compile(node, &mut cx);
        Policy::or_problems(policy, cx)
    }

    fn or_problems(policy: Option<Self>, cx: Context) -> Result<Self, Problems> {
        match (cx.finish(), policy) {
            (None, Some(policy)) => Ok(policy),
            (Some(problems), _) => Err(problems),
            // Unreachable: a decoder without a value has recorded a problem.
            (None, None) => Err(Problems::whole("the document could not be read", None)),
        }
    }

    #[inline(never)]
    fn compile(node: &Node, cx: &mut Context) -> Option<Self> {
        let module = M::MODULE;
        let fields = Fields::open::<PolicyDocument>(node, &At::Root, cx)?;
        let settings = Settings::of_document(node, cx);
        if let Some(settings) = &settings {
            cx.route_header = settings.route_header.0.to_string();
        }
        let mut foreign = false;
        for section in Section::ALL.into_iter().filter(|section| fields.has(section.field()) && !module.runs(*section))
        {
            let right = Module::of(section).name();
            let message = format!("is not run by the {} module", module.name());
            let help = format!("move it to the policy of the {right} module, or load the suite");
            cx.problem_at(&At::Root.field(section.field()), message, help);
            foreign = true;
        }
        if let Some(only) = module.only().filter(|only| !fields.has(only.field())) {
            let message = format!("is required: it is the only section that the {} module runs", module.name());
            cx.problem_at(&At::Root.field(only.field()), message, None);
            foreign = true;
        }
        let egress = section::<M, EgressDocument>(Section::Egress, &fields, cx);
        let routes = section::<M, RoutesDocument>(Section::Routes, &fields, cx);
        let rate_limits = section::<M, Named<LimitDocument>>(Section::RateLimits, &fields, cx);
        let canaries = section::<M, Named<CanaryDocument>>(Section::Canaries, &fields, cx);
        let rate_limits = rate_limits.filter(|limits| limits.as_ref().is_none_or(|limits| RateLimits::fit(limits, cx)));
        let undoes = M::MODULE.runs(Section::Egress)
            && fields.has(Section::Egress.field())
            && settings
                .as_ref()
                .is_some_and(|settings| !check_later_sections(settings, routes.as_ref().and_then(Option::as_ref), cx));
        let (Some(mut settings), Some(egress), Some(routes), Some(rate_limits), Some(canaries), false) =
            (settings, egress, routes, rate_limits, canaries, foreign || undoes)
        else {
            return None;
        };
        let older = egress.as_ref().and_then(|egress: &EgressDocument| egress.identity.as_ref());
        if !settings.adopt_identity(older, cx) {
            return None;
        }
        let canary_list = canaries.as_ref().map_or(&[][..], |canaries| &canaries.0);
        if !references::check(M::MODULE, routes.as_ref(), canary_list, cx) {
            return None;
        }
        let has_expressions = !cx.expressions.is_empty();
        let too_many = cx.expressions.share();
        let is_too_much = !too_many.is_empty();
        for (path, help) in too_many {
            cx.problem_at(&At::Root.field(&path), "is a regular expression beyond the limit", help);
        }
        if is_too_much {
            return None;
        }
        let named = references::named_by_rules(routes.as_ref());
        let numbers = references::canaries(canary_list);
        // The sections add their counters here while they compile.
        let mut metrics = Metrics::default();
        let mut names = AskedNames::default();
        if egress.is_some() {
            // The names that the rules read which could allow a request with such a header.
            METHOD_OVERRIDES.iter().chain(&["upgrade"]).for_each(|name| names.headers.add(name.as_bytes()));
        }
        let clients = settings.clients();
        let egress = egress.map(|egress| Egress::new(egress, clients.source(), &mut metrics));
        let mut tables = Tables::default();
        let rate_limits =
            rate_limits.map(|limits| RateLimits::new(limits, &settings, &mut metrics, &mut names, &mut tables));
        let mut breakers = Breakers::default();
        let routes =
            routes.map(|routes| Routes::new(routes, |name| numbers.get(name), &mut breakers, &mut metrics, &mut names));
        let is_named = |name: &str| named.get(name).is_some();
        let canaries =
            canaries.map(|canaries| Canaries::new(canaries.0, is_named, &mut breakers, &mut metrics, &mut names));
        breakers.place(&mut tables);
        names.place_facts(&settings.claims);
        let long_values = has_expressions.then(|| metrics.add_plain("long_values_total", &[], &[]));
        Some(Policy {
            module: PhantomData,
            settings,
            clients,
            metrics,
            tables: tables.finish(),
            egress,
            rate_limits,
            breakers,
            routes,
            canaries,
            names,
            long_values,
        })
    }

    /// Prepares the state for decisions: call it once, before the first decision. A policy that was not started assumes
    /// that no other policy uses the state.
    ///
    /// # Errors
    /// When the state cannot be read or written.
    pub fn start(&mut self, environment: &mut impl Environment) -> Result<(), Unavailable> {
        match &mut self.rate_limits {
            Some(limits) if M::MODULE.runs(Section::RateLimits) => limits.start(environment),
            _ => Ok(()),
        }
    }

    /// The tables of its limits and breakers: a store reserves memory for them, or finds those of the previous policy.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Whether workers may take from the buckets of its limits in advance: only then a
    /// [`WorkerMemory`](crate::WorkerMemory) needs room for leases.
    pub fn may_lease(&self) -> bool {
        M::MODULE.runs(Section::RateLimits) && self.rate_limits.as_ref().is_some_and(RateLimits::may_lease)
    }

    /// Call this once a second and when the worker ends: it returns the requests that the worker has taken from limits in advance. Only a worker whose
    /// [`WorkerMemory`](crate::WorkerMemory) has leases has anything to give back.
    pub fn return_leases(&self, environment: &mut impl Environment) {
        if let Some(limits) = &self.rate_limits
            && M::MODULE.runs(Section::RateLimits)
        {
            limits.return_leases(environment);
        }
    }

    /// Decides one request. Sections run in the order egress, rate limits, routes, canaries; the first that responds
    /// ends the decision. All sections match the request as it was received, whatever an earlier section changes,
    /// except for the canonical path that egress writes back. Of several refusals that Audit or Shadow do not enforce,
    /// the decision names the first.
    ///
    /// ```
    /// use penstock_policy::{Action, FixedEnvironment, Policy, Reason, Request, Scratch};
    ///
    /// let policy = <Policy>::from_json(
    ///     br#"{"egress": {"rules": [{"name": "pay", "to": [{"host": "api.pay.example", "ports": [443]}]}]}}"#,
    /// )?;
    /// let mut environment = FixedEnvironment { has_tls: Some(true), ..FixedEnvironment::default() };
    /// let scratch = Scratch::default();
    /// let headers: [(&[u8], &[u8]); 3] = [(b":method", b"GET"), (b":authority", b"evil.example"), (b":path", b"/")];
    /// let request = Request::new(&headers).with_scratch(&scratch);
    /// let decision = policy.decide(&request, &mut environment).expect("no service to ask");
    /// assert_eq!(decision.reason, Some(Reason::HostNotAllowed));
    /// let Action::Respond(response) = &decision.action else { panic!("it must be refused") };
    /// assert_eq!(response.status, 403);
    /// # Ok::<(), penstock_policy::Problems>(())
    /// ```
    ///
    /// # Errors
    /// There is no decision yet when a rate-limit service must be asked first: pass the reply to each
    /// [`Policy::rls_request`] to [`Pending::on_reply`], then call [`Policy::resume`].
    pub fn decide<'a>(
        &'a self,
        request: &Request<'a>,
        environment: &mut impl Environment,
    ) -> Result<Decision<'a>, Box<Pending>> {
        self.run(&request.asked_for(&self.names), None, environment)
    }

    /// The next request to a rate-limit service; `None`: there is none, resume.
    pub fn rls_request(&self, pending: &Pending) -> Option<RlsRequest<'_>> {
        if M::MODULE.runs(Section::RateLimits) { self.rate_limits.as_ref()?.rls_request(pending) } else { None }
    }

    /// Decides a request after the rate-limit services have replied, as if no time had passed in between. `request` is
    /// the one that was decided before, with a new scratch.
    ///
    /// ```
    /// use penstock_policy::rate_limits::RlsReply;
    /// use penstock_policy::{Action, FixedEnvironment, Policy, Request};
    ///
    /// let policy = <Policy>::from_json(
    ///     br#"{"rateLimits": [{"name": "all", "key": [], "limit": {"requests": 5, "per": "1m"},
    ///         "scope": {"global": {"cluster": "ratelimit", "domain": "shop", "onFailure": "Deny"}}}]}"#,
    /// )?;
    /// let mut environment = FixedEnvironment::default();
    /// let headers: [(&[u8], &[u8]); 2] = [(b":method", b"GET"), (b":path", b"/")];
    /// let request = Request::new(&headers);
    /// let mut pending = policy.decide(&request, &mut environment).expect_err("a service is asked");
    /// while let Some(call) = policy.rls_request(&pending) {
    ///     assert_eq!(call.cluster, "ratelimit");
    ///     // Send `call.message` to it. This is the reply OVER_LIMIT.
    ///     pending.on_reply(RlsReply::read(&[0x08, 2]));
    /// }
    /// let decision = policy.resume(&request, &pending, &mut environment);
    /// assert!(matches!(decision.action, Action::Respond(response) if response.status == 429));
    /// # Ok::<(), penstock_policy::Problems>(())
    /// ```
    pub fn resume<'a>(
        &'a self,
        request: &Request<'a>,
        pending: &'a Pending,
        environment: &mut impl Environment,
    ) -> Decision<'a> {
        // A second `Pending` cannot occur: all services have replied.
        self.run(&request.asked_for(&self.names), Some(pending), environment).unwrap_or_default()
    }

    /// The request as the sections see it, with its facts: for evaluating single conditions.
    #[cfg(feature = "wire")]
    #[must_use]
    pub fn inspected<'a>(&'a self, request: &Request<'a>, environment: &mut impl Environment) -> Request<'a> {
        let request = request.asked_for(&self.names);
        request.load_facts(environment);
        request
    }

    /// Whether any rule, key or canary uses claims or other metadata.
    pub fn needs_facts(&self) -> bool {
        !self.names.fact_places.is_empty()
    }

    /// Where the claims and other metadata are that any rule, key or canary uses.
    pub fn fact_places(&self) -> &[FactPlace] {
        &self.names.fact_places
    }

    /// Whether the caller is the proxy's own workload, which the node's metadata name.
    pub fn needs_workload(&self) -> bool {
        matches!(self.settings.identity, Some(IdentitySource::Workload { .. }))
    }

    /// Whether requests are refused by the server name of their connection.
    pub fn needs_server_name(&self) -> bool {
        self.egress().is_some_and(Egress::verifies_sni)
    }

    /// The header of the response that says what a request has cost.
    pub fn cost_header(&self, reservation: &Reservation) -> Option<&str> {
        if M::MODULE.runs(Section::RateLimits) { self.rate_limits.as_ref()?.cost_header(reservation) } else { None }
    }

    /// Settles costs when the response's headers have arrived; `value` is that of [`Policy::cost_header`]. Takes the
    /// rest of the request's cost, or returns what was reserved in excess. Send the result to the rate-limit service,
    /// and ignore its reply.
    ///
    /// # Errors
    /// The value is not a cost, which the metric counts: the reserved cost stays.
    pub fn settle(
        &self,
        reservation: &Reservation,
        value: &[u8],
        environment: &mut impl Environment,
    ) -> Result<Option<RlsRequest<'_>>, Option<Metric>> {
        match &self.rate_limits {
            Some(limits) if M::MODULE.runs(Section::RateLimits) => limits.settle(reservation, value, environment),
            _ => Ok(None),
        }
    }

    /// Counts a request with a value that was too long for an expression evaluated on it.
    fn count_long_values(&self, request: &Request<'_>, decision: &mut Decision<'_>) {
        if let Some(metric) = self.long_values
            && request.answers().is_some_and(Answers::has_long_value)
        {
            decision.counts.push(metric);
        }
    }

    /// Runs the sections in order and combines their outcomes into one decision.
    #[inline(never)]
    fn run<'a>(
        &'a self,
        request: &Request<'a>,
        replied: Option<&'a Pending>,
        environment: &mut impl Environment,
    ) -> Result<Decision<'a>, Box<Pending>> {
        let mut decision = Decision::default();
        let mut request = *request;
        if M::MODULE.runs(Section::Egress)
            && let Some(egress) = &self.egress
        {
            let egressed = egress.decide(&request, environment);
            let (rule, reason) = (egressed.outcome.rule, egressed.outcome.reason);
            decision.egress = Some(egressed.outcome);
            decision.counts.extend(egressed.counts.into_iter().flatten());
            match (reason, egressed.response) {
                (None, _) => decision.decided_by(Section::Egress, rule, None),
                (Some(reason), None) => {
                    decision.hold_back(HeldBack { section: Section::Egress, rule, reason, status: egressed.status });
                }
                (Some(reason), Some(response)) => {
                    decision.respond(Section::Egress, rule, Some(reason), response);
                    self.count_long_values(&request, &mut decision);
                    return Ok(decision);
                }
            }
            // The other sections see, and the proxy forwards, exactly what egress allowed.
            if let Some(target) = egressed.target {
                decision.headers.push(HeaderOp::Set(":path", Cow::Borrowed(target)));
                request = request.with_target(target);
            }
        }
        if self.settings.path == MatchedPath::Canonical {
            request = request.with_canonical_path();
        }
        let request = &request;
        if M::MODULE.runs(Section::RateLimits)
            && let Some(limits) = &self.rate_limits
        {
            let limited = match replied {
                // The sections before this point decide again, and so they count again.
                None => limits.decide(request, environment, &mut decision.effects())?,
                Some(pending) => limits.conclude(pending, environment, &mut decision.effects()),
            };
            decision.reservations = limited.reservations;
            limited.held_back.into_iter().for_each(|refusal| decision.hold_back(refusal));
            if let Some((limit, reason, response)) = limited.refusal {
                decision.respond(Section::RateLimits, Some(limit), Some(reason), response);
                self.count_long_values(request, &mut decision);
                return Ok(decision);
            }
        }
        self.route(request, environment, &mut decision);
        self.count_long_values(request, &mut decision);
        if matches!(decision.action, Action::Respond(_)) {
            return Ok(decision);
        }
        if M::MODULE.owns_route_header() {
            self.write_route_header(request, &mut decision);
        }
        if request.has_connection() {
            upgrade::keep_what_is_set(request, &mut decision.headers);
        }
        Ok(decision)
    }

    /// Where the request goes: to a rule's route, otherwise to a canary's variant, otherwise to the default.
    fn route<'a>(&'a self, request: &Request<'a>, environment: &mut impl Environment, decision: &mut Decision<'a>) {
        let (clients, breakers) = (&self.clients, &self.breakers);
        let routes = self.routes.as_ref().filter(|_| M::MODULE.runs(Section::Routes));
        let ruled = routes.and_then(|routes| routes.decide(request, breakers, environment, &mut decision.effects()));
        if let Some(ruled) = ruled {
            decision.watch = ruled.watch;
            let mut reason = ruled.reason;
            match ruled.to {
                RuleTo::Redirect(response) => {
                    return decision.respond(Section::Routes, Some(ruled.rule), None, response);
                }
                RuleTo::Route(route) => decision.route = Some(route),
                RuleTo::Canary(number) => {
                    let canaries = self.canaries.as_ref().filter(|_| M::MODULE.runs(Section::Canaries));
                    let chosen = canaries.and_then(|c| c.choose(number, request, clients, breakers, environment));
                    reason = chosen.as_ref().and_then(|chosen| chosen.reason);
                    chosen.into_iter().for_each(|chosen| take_variant(chosen, decision));
                }
            }
            decision.response_changes = ruled.response;
            decision.decided_by(Section::Routes, Some(ruled.rule), reason);
            return;
        }
        // In a chain of modules a rule of the previous module counts like a rule of this one, and its default like this
        // one's default.
        let chained = match M::MODULE {
            Module::Canary => self.earlier_route(request, environment),
            _ => None,
        };
        let canaries = self.canaries.as_ref().filter(|_| M::MODULE.runs(Section::Canaries));
        let canaries = canaries.filter(|_| chained != Some(EarlierWriter::Rule));
        if let Some(chosen) = canaries.and_then(|c| c.decide(request, clients, breakers, environment)) {
            decision.decided_by(Section::Canaries, Some(chosen.canary), chosen.reason);
            take_variant(chosen, decision);
            return;
        }
        decision.keeps_route = chained.is_some();
        if let Some(routes) = routes {
            let (route, count) = routes.default();
            decision.route = route;
            decision.counts.push(count);
        }
    }

    /// Reads what the header-routing module of an earlier filter has recorded about the route header. A header that it did not write
    /// came from a client. Without such a header nothing is read.
    fn earlier_route(&self, request: &Request<'_>, environment: &mut impl Environment) -> Option<EarlierWriter> {
        let route = request.value(self.settings.route_header.0.as_bytes())?;
        let earlier = environment.earlier_route()?;
        let (by, name) = earlier.split_at_checked(earlier.iter().position(|&b| b == b' ')?)?;
        if name.get(1..)? != route {
            return None;
        }
        match by {
            b"rule" => Some(EarlierWriter::Rule),
            b"default" => Some(EarlierWriter::Default),
            _ => None,
        }
    }

    /// Sets the route header, or removes one that a client sent: a client never chooses the route.
    fn write_route_header<'a>(&'a self, request: &Request<'a>, decision: &mut Decision<'a>) {
        let name = &*self.settings.route_header.0;
        match decision.route {
            None if decision.keeps_route => {}
            Some(route) => decision.headers.push(HeaderOp::Set(name, Cow::Borrowed(route.as_bytes()))),
            None if request.value(name.as_bytes()).is_some() => decision.headers.push(HeaderOp::Remove(name)),
            None => {}
        }
    }

    /// Problems that are allowed but probably not intended.
    pub fn warnings(&self) -> Vec<Problem> {
        let routes = self.routes.iter().flat_map(Routes::warnings);
        routes.chain(self.canaries.iter().flat_map(Canaries::warnings)).collect()
    }

    /// The section `canaries`.
    pub fn canaries(&self) -> Option<&Canaries> {
        self.canaries.as_ref()
    }

    /// The section `rateLimits`.
    pub(crate) fn rate_limits(&self) -> Option<&RateLimits> {
        self.rate_limits.as_ref()
    }

    /// The breakers of all sections. The platform reports to them how the requests end that [`Decision::watch`] names.
    pub fn breakers(&self) -> &Breakers {
        &self.breakers
    }

    /// The egress section, when the document has one.
    pub fn egress(&self) -> Option<&Egress> {
        self.egress.as_ref()
    }

    /// The counters of decisions.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The settings that all sections share.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Records the variant that a canary chose, whether a rule or the canaries section evaluated it.
fn take_variant<'a>(chosen: CanaryOutcome<'a>, decision: &mut Decision<'a>) {
    (decision.route, decision.variant) = (Some(chosen.route), Some(chosen.variant));
    decision.watch = chosen.watch;
    decision.response_headers.extend(chosen.set_cookie.map(|cookie| ("set-cookie", Cow::Owned(cookie))));
    decision.counts.push(chosen.count);
}

/// How an earlier filter chose the value of the route header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EarlierWriter {
    Rule,
    Default,
}

/// Reads one section when `M` runs it; in the others the branch is not compiled at all.
fn section<M: Runs, T: Decode>(section: Section, fields: &Fields<'_>, cx: &mut Context) -> Option<Option<T>> {
    if M::MODULE.runs(section) { fields.get(section.field(), &At::Root, cx) } else { Some(None) }
}

/// Compiles a document for a module that is only known at run time, and returns the warnings: problems that are allowed
/// but probably not intended.
///
/// # Errors
/// Every problem of the document.
pub fn check(node: &Node, module: Module) -> Result<Vec<Problem>, Problems> {
    match module {
        Module::Suite => Policy::<Suite>::from_node(node).map(|policy| policy.warnings()),
        Module::HeaderRouting => Policy::<module::HeaderRouting>::from_node(node).map(|policy| policy.warnings()),
        Module::Canary => Policy::<module::Canary>::from_node(node).map(|policy| policy.warnings()),
        Module::RateLimit => Policy::<module::RateLimit>::from_node(node).map(|policy| policy.warnings()),
        Module::EgressAllowlist => Policy::<module::EgressAllowlist>::from_node(node).map(|policy| policy.warnings()),
    }
}

#[cfg(test)]
mod tests;
