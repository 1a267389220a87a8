//! Searches for a request that one rule of the team allows and the platform's policy refuses.
//!
//! Rules can only distinguish finitely many classes of requests: by host and port, caller, time, method, and for the
//! rules selected by these, by path. Both policies decide one request of each class. Methods in override headers, and
//! upgrades, must all be listed by one rule, so the request that names all of the team rule's is the hardest for the
//! platform to allow.

use penstock_policy::Timestamp;
use penstock_policy::egress::{EgressRuleDocument, Mode};
use penstock_policy::matching::PathMatch;

use super::callers;
use super::hosts::{Mentioned, Point};
use super::paths::{PathDifference, difference};
use super::side::{EgressSide, HostRules, RequestPort};
use crate::cover::{caller_covers, items, list_covers, path_covers};
use crate::within::witness::RequestDraft;

/// The maximum number of decisions; then the comparison reports that it is undecided.
const MOST_DECISIONS: usize = 4_000_000;

/// The result of the search for one rule.
#[derive(Debug)]
pub enum SearchEnd {
    /// The platform allows all that the rule allows.
    Nothing,
    /// A request that the platform does not allow.
    Request(Box<RequestDraft>),
    /// Undecided.
    Unknown(&'static str),
}

/// The two policies.
pub struct WitnessSearch<'s, 'd> {
    /// The policy that must be within the other one.
    pub team: &'s EgressSide<'d>,
    /// The other policy.
    pub platform: &'s EgressSide<'d>,
    /// The hosts of both.
    pub mentioned: &'s Mentioned,
    /// Whether both identify callers in the same way. If not, the platform may see any caller or none.
    pub same_identity: bool,
    /// Whether everything counts as refused by the platform, which finds any request that the team's policy allows.
    pub refuse_all: bool,
    /// Whether requests to addresses are skipped, because the team's policy refuses all that its rules allow: with
    /// `verifySni`, because an address is never a server name.
    pub skips_addresses: bool,
    /// The time of the decisions.
    pub now: Timestamp,
    /// The number of decisions so far.
    pub decisions: usize,
}

/// The part of a request that is fixed while path and headers vary.
struct FixedPart<'c, 'd> {
    point: &'c Point,
    port: RequestPort,
    caller: &'c Option<String>,
    time: Option<Timestamp>,
    method: &'c str,
    /// The selected rules of the platform.
    platform: Vec<&'d EgressRuleDocument>,
    /// Whether the platform refuses the request regardless of its rules.
    is_denied: bool,
    team_scoped: bool,
    platform_scoped: bool,
}

impl FixedPart<'_, '_> {
    fn is_tunnel(&self) -> bool {
        self.method == "CONNECT"
    }
}

impl<'d> WitnessSearch<'_, 'd> {
    /// Finds a request that `rule` allows and the platform does not. `check` confirms a candidate; if it does not, the
    /// search continues.
    pub fn rule(&mut self, rule: &EgressRuleDocument, check: &mut dyn FnMut(&RequestDraft) -> bool) -> SearchEnd {
        let mut result = SearchEnd::Nothing;
        for to in &rule.to.0 {
            for point in self.mentioned.cells(&to.target) {
                if self.skips_addresses && matches!(point, Point::Address(_)) {
                    continue;
                }
                for port in self.ports(&point) {
                    if !self.team.has_port(to, port) {
                        continue;
                    }
                    let team = self.team.at(&point, port);
                    let platform = self.platform.at(&point, port);
                    if team.is_denied && self.team.mode == Mode::Enforce || self.is_plainly_covered(rule, &platform) {
                        continue;
                    }
                    match self.place(rule, &point, port, &team, &platform, check) {
                        SearchEnd::Nothing => {}
                        found @ SearchEnd::Request(_) => return found,
                        unknown => result = unknown,
                    }
                    if self.decisions > MOST_DECISIONS {
                        return SearchEnd::Unknown("there are too many combinations to compare");
                    }
                }
            }
        }
        result
    }

    /// Whether a direct comparison shows that one rule covers all of it.
    fn is_plainly_covered(&self, rule: &EgressRuleDocument, platform: &HostRules<'d>) -> bool {
        if platform.is_denied || self.refuse_all || !self.same_identity {
            return false;
        }
        let covers = |wide: &EgressRuleDocument| {
            self.asks_no_more(wide, rule)
                && list_covers(items(&wide.from), items(&rule.from), caller_covers)
                && list_covers(items(&wide.methods), items(&rule.methods), |a, b| a == b)
                && list_covers(items(&wide.paths), items(&rule.paths), |a, b| path_covers(&a.0, &b.0))
                && wide.not_before.is_none_or(|start| rule.not_before.is_some_and(|n| start <= n))
                && wide.expires.is_none_or(|end| rule.expires.is_some_and(|n| n <= end))
                && (wide.connect || !rule.connect)
                && rule.upgrades.iter().all(|upgrade| wide.upgrades.contains(upgrade))
        };
        // Ambiguous paths: a rule with `paths` never allows them, and they are only refused where a rule has `paths`.
        let is_safe = rule.paths.is_some() || platform.rules.iter().all(|wide| wide.paths.is_none());
        let same_name = platform.rules.iter().find(|wide| wide.name == rule.name);
        is_safe && same_name.into_iter().chain(&platform.rules).any(|wide| covers(wide))
    }

    /// Whether each condition of the platform's rule that is not understood here occurs identically in the team's.
    fn asks_no_more(&self, wide: &EgressRuleDocument, rule: &EgressRuleDocument) -> bool {
        let own = self.team.conditions(rule);
        self.platform.conditions(wide).iter().all(|condition| own.contains(condition))
    }

    /// The ports that the policies distinguish.
    fn ports(&self, point: &Point) -> Vec<RequestPort> {
        let mut listed = self.team.ports(point);
        listed.extend(self.platform.ports(point));
        let other = [443].into_iter().chain(8443..).find(|port| !listed.contains(port));
        listed.extend(other);
        listed.sort_unstable();
        listed.dedup();
        let mut ports: Vec<RequestPort> = listed.into_iter().map(RequestPort::Given).collect();
        let absent = [true, false].map(|tls| RequestPort::Absent { tls });
        let differ = |port: &RequestPort| self.team.port(*port) != self.platform.port(*port);
        if absent.iter().any(differ) || self.platform.denies_ports(point) {
            ports.extend(absent);
        }
        ports
    }

    fn place(
        &mut self,
        rule: &EgressRuleDocument,
        point: &Point,
        port: RequestPort,
        team: &HostRules<'d>,
        platform: &HostRules<'d>,
        check: &mut dyn FnMut(&RequestDraft) -> bool,
    ) -> SearchEnd {
        let all: Vec<&EgressRuleDocument> = team.rules.iter().chain(&platform.rules).copied().collect();
        let (callers, cut) = callers::representatives(items(&rule.from), &all);
        let mut result =
            if cut { SearchEnd::Unknown("there are too many callers to compare") } else { SearchEnd::Nothing };
        let times = self.times(rule, &all);
        let methods = methods(rule, &all);
        for caller in &callers {
            for &time in &times {
                let instant = time.unwrap_or(self.now);
                let holds = |rule: &EgressRuleDocument| {
                    rule.not_before.is_none_or(|start| start <= instant) && rule.expires.is_none_or(|end| instant < end)
                };
                let is_for = |rule: &EgressRuleDocument| {
                    items(&rule.from).is_none_or(|from| {
                        caller.as_ref().is_some_and(|caller| from.iter().any(|p| p.covers(caller.as_bytes())))
                    })
                };
                let of_team: Vec<_> = team.rules.iter().filter(|rule| holds(rule) && is_for(rule)).collect();
                let of_platform: Vec<_> =
                    platform.rules.iter().filter(|rule| holds(rule) && (!self.same_identity || is_for(rule))).collect();
                let refuses_allowed = self.team.verify_sni && matches!(point, Point::Address(_));
                for method in &methods {
                    self.decisions += 1 + of_team.len() + of_platform.len();
                    if self.decisions > MOST_DECISIONS {
                        return SearchEnd::Unknown("there are too many combinations to compare");
                    }
                    let selected: Vec<&EgressRuleDocument> =
                        of_platform.iter().filter(|rule| lists(rule, method)).map(|rule| **rule).collect();
                    let cell = FixedPart {
                        point,
                        port,
                        caller,
                        time,
                        method,
                        platform_scoped: selected.iter().any(|rule| rule.paths.is_some()),
                        team_scoped: of_team.iter().any(|other| {
                            // A rule whose conditions may be false does not reliably refuse an ambiguous path, unless
                            // the rule itself applies.
                            let is_sure = other.name == rule.name || self.team.conditions(other).is_empty();
                            is_sure && (other.paths.is_some() || refuses_allowed) && lists(other, method)
                        }),
                        platform: selected,
                        is_denied: platform.is_denied || self.refuse_all,
                    };
                    if cell.is_tunnel()
                        && (!rule.connect || rule.paths.is_some() || matches!(port, RequestPort::Absent { .. }))
                    {
                        continue;
                    }
                    for by_ambiguity in [true, false] {
                        let found = if by_ambiguity { self.ambiguous(&cell) } else { self.cell(rule, &cell, &all) };
                        match found {
                            SearchEnd::Request(draft) if check(&draft) => return SearchEnd::Request(draft),
                            SearchEnd::Request(_) => {
                                result = SearchEnd::Unknown("no request that shows it could be found");
                            }
                            SearchEnd::Unknown(why) => result = SearchEnd::Unknown(why),
                            SearchEnd::Nothing => {}
                        }
                    }
                }
            }
        }
        result
    }

    /// Times that represent all times at which `rule` applies; `None` when the time does not matter.
    fn times(&self, rule: &EgressRuleDocument, all: &[&EgressRuleDocument]) -> Vec<Option<Timestamp>> {
        let mut bounds: Vec<Timestamp> =
            all.iter().flat_map(|rule| [rule.not_before, rule.expires]).flatten().collect();
        bounds.extend(rule.not_before);
        bounds.extend(rule.expires);
        if bounds.is_empty() {
            return vec![None];
        }
        bounds.sort_unstable();
        bounds.dedup();
        const SECOND: u64 = 1_000_000_000;
        let before = bounds
            .first()
            .and_then(|first| first.0.checked_sub(SECOND).or_else(|| first.0.checked_sub(1)).map(Timestamp));
        let holds = |time: &Timestamp| {
            rule.not_before.is_none_or(|start| start <= *time) && rule.expires.is_none_or(|end| *time < end)
        };
        let times = [self.now].into_iter().chain(bounds.iter().copied()).chain(before);
        times.filter(holds).map(Some).collect()
    }

    /// A request with an ambiguous path that only the platform refuses for it. Another rule of the team may give
    /// ambiguous paths 400, too.
    fn ambiguous(&self, cell: &FixedPart<'_, 'd>) -> SearchEnd {
        if !cell.platform_scoped || cell.team_scoped || self.refuse_all {
            return SearchEnd::Nothing;
        }
        let mut draft = self.draft(cell, if cell.is_tunnel() { "" } else { "/a%2fb" });
        if cell.is_tunnel() {
            draft.headers.push(("x-original-url".to_owned(), "/".to_owned()));
        }
        SearchEnd::Request(Box::new(draft))
    }

    /// A request that `rule` allows and no rule of the platform.
    fn cell(&self, rule: &EgressRuleDocument, cell: &FixedPart<'_, 'd>, all: &[&EgressRuleDocument]) -> SearchEnd {
        if self.platform.mode == Mode::Audit && !self.refuse_all {
            return SearchEnd::Nothing;
        }
        let mut overrides: Vec<String> = Vec::new();
        let mut upgrades: Vec<String> = Vec::new();
        let plain = self.path(rule, cell, &overrides, &upgrades);
        let path = match plain {
            PathDifference::Path(path) => path,
            PathDifference::Unknown => return SearchEnd::Unknown(UNKNOWN_PATHS),
            PathDifference::None => {
                overrides = methods_listed(rule, all).into_iter().filter(|other| other != cell.method).collect();
                upgrades = rule.upgrades.iter().map(|upgrade| upgrade.0.to_string()).collect();
                match self.path(rule, cell, &overrides, &upgrades) {
                    PathDifference::None => return SearchEnd::Nothing,
                    PathDifference::Unknown => return SearchEnd::Unknown(UNKNOWN_PATHS),
                    PathDifference::Path(mut path) => {
                        // Removes headers that are not needed to show it.
                        for list in [0, 1] {
                            let mut at = 0;
                            loop {
                                let (mut fewer, mut less) = (overrides.clone(), upgrades.clone());
                                let reduced = if list == 0 { &mut fewer } else { &mut less };
                                if at >= reduced.len() {
                                    break;
                                }
                                reduced.remove(at);
                                match self.path(rule, cell, &fewer, &less) {
                                    PathDifference::Path(found) => {
                                        path = found;
                                        (overrides, upgrades) = (fewer, less);
                                    }
                                    _ => at += 1,
                                }
                            }
                        }
                        path
                    }
                }
            }
        };
        let mut draft = self.draft(cell, &path);
        if !upgrades.is_empty() {
            draft.headers.push(("connection".to_owned(), "upgrade".to_owned()));
            // Envoy removes a lone `h2c` before a filter sees it, but not one in a longer list.
            if upgrades.len() == 1 && upgrades.iter().all(|upgrade| upgrade.eq_ignore_ascii_case("h2c")) {
                upgrades.push("h2c".to_owned());
            }
            draft.headers.push(("upgrade".to_owned(), upgrades.join(", ")));
        }
        draft.headers.extend(overrides.into_iter().map(|method| ("x-http-method-override".to_owned(), method)));
        SearchEnd::Request(Box::new(draft))
    }

    fn draft(&self, cell: &FixedPart<'_, '_>, path: &str) -> RequestDraft {
        let host = cell.point.authority();
        let (authority, scheme) = match cell.port {
            RequestPort::Given(port) => (format!("{host}:{port}"), "https"),
            RequestPort::Absent { tls: true } => (host, "https"),
            RequestPort::Absent { tls: false } => (host, "http"),
        };
        let sni = match cell.point {
            Point::Name(name) if self.team.verify_sni || self.platform.verify_sni => Some(name.clone()),
            _ => None,
        };
        RequestDraft {
            method: cell.method.to_owned(),
            scheme: Some(scheme),
            authority,
            path: path.to_owned(),
            peer: cell.caller.clone(),
            time: cell.time,
            sni,
            ..RequestDraft::default()
        }
    }

    /// A path with which a request of this class, with these headers, passes `rule` and not the platform.
    fn path(
        &self,
        rule: &EgressRuleDocument,
        cell: &FixedPart<'_, 'd>,
        overrides: &[String],
        upgrades: &[String],
    ) -> PathDifference {
        let is_tunnel = cell.is_tunnel();
        let lists_all = |wide: &EgressRuleDocument| {
            overrides.iter().all(|method| lists(wide, method))
                && upgrades.iter().all(|upgrade| wide.upgrades.iter().any(|listed| *listed.0 == **upgrade))
                && (!is_tunnel || (wide.connect && wide.paths.is_none()))
                && (self.same_identity || wide.from.is_none())
                && self.asks_no_more(wide, rule)
        };
        let covering: Vec<&EgressRuleDocument> = match cell.is_denied {
            true => Vec::new(),
            false => cell.platform.iter().filter(|wide| lists_all(wide)).copied().collect(),
        };
        if covering.iter().any(|wide| wide.paths.is_none()) {
            return PathDifference::None;
        }
        if is_tunnel {
            return PathDifference::Path(String::new());
        }
        if !cell.team_scoped && rule.paths.is_none() {
            return PathDifference::Path("/".to_owned());
        }
        let matches = |rule: &'_ EgressRuleDocument| -> Option<Vec<PathMatch>> {
            items(&rule.paths).map(|paths| paths.iter().map(|path| path.0.clone()).collect())
        };
        let team = matches(rule);
        let platform: Vec<PathMatch> = covering.iter().filter_map(|wide| matches(wide)).flatten().collect();
        let team: Option<Vec<&PathMatch>> = team.as_ref().map(|paths| paths.iter().collect());
        difference(team.as_deref(), &platform.iter().collect::<Vec<_>>(), cell.method == "OPTIONS")
    }
}

const UNKNOWN_PATHS: &str = "the expressions in `paths` are too large to compare";

fn lists(rule: &EgressRuleDocument, method: &str) -> bool {
    items(&rule.methods).is_none_or(|methods| methods.iter().any(|listed| *listed.0 == *method))
}

/// The methods that `rule` lists. If it lists none, all methods that are listed anywhere, and one that is not.
fn methods_listed(rule: &EgressRuleDocument, all: &[&EgressRuleDocument]) -> Vec<String> {
    let listed = |rule: &EgressRuleDocument| -> Vec<String> {
        items(&rule.methods).unwrap_or_default().iter().map(|method| method.0.to_string()).collect()
    };
    if rule.methods.is_some() {
        return listed(rule);
    }
    let mut methods = vec!["GET".to_owned()];
    methods.extend(all.iter().flat_map(|rule| listed(rule)));
    let fresh = (0..).map(|n| if n == 0 { "QUERY".to_owned() } else { format!("QUERY{n}") });
    methods.extend(fresh.take(methods.len() + 1).find(|method| !methods.contains(method)));
    let mut seen = std::collections::HashSet::new();
    methods.retain(|method| seen.insert(method.clone()));
    methods
}

/// The methods that requests of `rule` can have.
fn methods(rule: &EgressRuleDocument, all: &[&EgressRuleDocument]) -> Vec<String> {
    let mut methods = methods_listed(rule, all);
    if rule.methods.is_none() && rule.connect && !methods.iter().any(|method| method == "CONNECT") {
        methods.push("CONNECT".to_owned());
    }
    methods
}
