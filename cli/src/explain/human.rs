//! The human-readable report.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use super::report::{
    CanariesReport, Choice, Considered, EgressReport, Explanation, LimitReport, LimitsReport, PlacedExplanation,
    RulesReport,
};
use penstock_policy::document::visible;
use penstock_policy::wire::WireDecision;

use crate::output::style::{BAD, DIM, GOOD, HEAD, NAME, WARN};
use crate::place::Place;
use crate::words;

/// The whole report, with styles.
pub fn views(views: &[PlacedExplanation]) -> String {
    let mut text = String::new();
    for (i, view) in views.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = write_view(view, i, &mut text);
    }
    text
}

fn write_view(view: &PlacedExplanation, number: usize, out: &mut String) -> std::fmt::Result {
    let report = &view.report;
    if number == 0 {
        writeln!(out, "{HEAD}{}{HEAD:#} {DIM}at {}{DIM:#}", visible(&report.request), report.time)?;
    }
    let place = view.at.map(Place::words);
    let heading: Vec<&str> = view.policy.as_deref().into_iter().chain(place).collect();
    if !heading.is_empty() {
        writeln!(out, "\n{HEAD}{}:{HEAD:#}", heading.join(", "))?;
    }
    write_report(report, out)
}

fn write_report(report: &Explanation, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{}", verdict(report))?;
    let mut not_reached = Vec::new();
    if let Some(egress) = &report.egress {
        write_egress(egress, out)?;
    }
    match &report.rate_limits {
        Some(limits) if limits.outcome == "notReached" => not_reached.push("rateLimits"),
        Some(limits) => write_limits(limits, out)?,
        None => {}
    }
    match &report.routes {
        Some(routes) if routes.outcome == "notReached" => not_reached.push("routes"),
        Some(routes) => write_routes(routes, report, out)?,
        None => {}
    }
    match &report.canaries {
        Some(canaries) if canaries.outcome == "notReached" => not_reached.push("canaries"),
        Some(canaries) => write_canaries(canaries, out)?,
        None => {}
    }
    if !not_reached.is_empty() {
        writeln!(out, "\n{DIM}not reached: {}{DIM:#}", not_reached.join(", "))?;
    }
    write_changes(report, out)
}

/// Where a redirect leads.
fn location(decision: &WireDecision) -> Cow<'_, str> {
    let location = decision.response_headers.iter().find(|(name, _)| name == "location");
    location.map_or(Cow::Borrowed(""), |(_, value)| visible(value))
}

/// The decision in one line.
fn verdict(report: &Explanation) -> String {
    let decision = &report.decision;
    let by = match (decision.section, &decision.rule) {
        (None, _) if report.routes.as_ref().is_some_and(|routes| routes.outcome == "default") => {
            " (routes.default)".to_owned()
        }
        (Some(section), Some(rule)) => {
            let kind = match section {
                "canaries" => "canary",
                "rateLimits" => "limit",
                _ => "rule",
            };
            format!(" ({kind} {NAME}{section}/{rule}{NAME:#})")
        }
        (Some(section), None) => format!(" ({section})"),
        _ => String::new(),
    };
    let why = decision.reason.map(|reason| format!(": {reason}, {}", words::reason(reason))).unwrap_or_default();
    let to = decision.route.as_ref().map(|route| format!("`{NAME}{route}{NAME:#}`"));
    match (decision.action, decision.status, decision.would_respond) {
        (Some("respond"), Some(status @ 300..400), _) => {
            format!("{WARN}→ redirected with {status}{WARN:#} to {NAME}{}{NAME:#}{by}{why}", location(decision))
        }
        (Some("respond"), Some(status), _) => format!("{BAD}✗ refused with {status}{BAD:#}{by}{why}"),
        (_, _, Some(status)) => {
            let route = to.map(|to| format!("; routed to {to}")).unwrap_or_default();
            format!("{WARN}! passes, would be refused with {status}{WARN:#}{by}{why}{route}")
        }
        _ => match to {
            Some(to) => format!("{GOOD}✓ routed to{GOOD:#} {to}{by}{why}"),
            None => format!("{GOOD}✓ passes{GOOD:#}{by}{why}"),
        },
    }
}

fn head(section: &str, outcome: &str, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n{HEAD}{section}{HEAD:#}: {outcome}")
}

fn write_egress(egress: &EgressReport, out: &mut String) -> std::fmt::Result {
    let outcome = match (egress.outcome, egress.reason) {
        ("allow", _) => "allowed".to_owned(),
        ("audit", Some(reason)) => format!("not allowed ({reason}), but the mode is Audit"),
        (_, reason) => format!("refused ({})", reason.unwrap_or_default()),
    };
    head("egress", &outcome, out)?;
    match (&egress.host, egress.port) {
        (Some(host), Some(port)) => {
            let from = match egress.port_from {
                Some("authority") | None => String::new(),
                Some("defaultPort") => " (`defaultPort`)".to_owned(),
                Some(from) => format!(" (from the {from})"),
            };
            writeln!(out, "  destination  {NAME}{host}{NAME:#} port {port}{from}")?;
        }
        (Some(host), None) => writeln!(out, "  destination  {NAME}{host}{NAME:#}, port unknown")?,
        (None, _) => writeln!(out, "  destination  none: the request is ambiguous, so no rule was evaluated")?,
    }
    if let Some(path) = &egress.canonical_path {
        writeln!(out, "  path         {path} (canonical; a rule with `paths` was selected)")?;
    } else if egress.path_scoped {
        writeln!(out, "  path         has no canonical form, and a rule with `paths` was selected")?;
    }
    if let Some(caller) = &egress.caller {
        writeln!(out, "  caller       {caller}")?;
    }
    if !egress.denied_by.is_empty() {
        writeln!(out, "  {BAD}✗{BAD:#} `deny` lists {}", egress.denied_by.join(" and "))?;
    }
    for rule in &egress.rules {
        let mark = if rule.stopped.is_none() { format!("{GOOD}✓{GOOD:#}") } else { format!("{BAD}✗{BAD:#}") };
        let whose: Vec<&str> = rule.owner.iter().chain(&rule.purpose).map(String::as_str).collect();
        let whose = if whose.is_empty() { String::new() } else { format!(" {DIM}({}){DIM:#}", whose.join(": ")) };
        match (rule.stopped, &rule.wants) {
            (Some(stopped), Some(wants)) => {
                writeln!(out, "  {mark} rule {NAME}{}{NAME:#}{whose} {stopped}: {wants}", rule.name)?;
            }
            _ => writeln!(out, "  {mark} rule {NAME}{}{NAME:#}{whose} allows it", rule.name)?,
        }
    }
    if egress.more > 0 {
        writeln!(out, "    {DIM}and {} more evaluated{DIM:#}", egress.more)?;
    }
    if !egress.similar_hosts.is_empty() {
        writeln!(out, "  similar hosts that rules list: {}", egress.similar_hosts.join(", "))?;
    }
    Ok(())
}

fn write_limits(limits: &LimitsReport, out: &mut String) -> std::fmt::Result {
    let outcome = match (limits.outcome, limits.limits.is_empty()) {
        ("limited", _) => "refused",
        (_, true) => "none applies",
        _ => "passed",
    };
    head("rateLimits", outcome, out)?;
    for limit in &limits.limits {
        write_limit(limit, out)?;
    }
    write_misses("nearest limits that do not apply", &limits.nearest_misses, out)
}

/// How the final cost is determined when a cost is only reserved.
fn reserved(limit: &LimitReport) -> String {
    let settled = limit.settled_by.as_ref();
    settled.map_or(String::new(), |header| format!(" (reserved until the response contains {header})"))
}

fn write_limit(limit: &LimitReport, out: &mut String) -> std::fmt::Result {
    let mark = match (limit.outcome, limit.shadow) {
        ("passed", _) => format!("{GOOD}✓{GOOD:#}"),
        ("skipped", _) => format!("{DIM}-{DIM:#}"),
        (_, true) => format!("{WARN}!{WARN:#}"),
        _ => format!("{BAD}✗{BAD:#}"),
    };
    write!(out, "  {mark} limit {NAME}{}{NAME:#}", limit.name)?;
    if limit.shadow {
        write!(out, " (Shadow)")?;
    }
    match limit.outcome {
        "skipped" => write!(out, " skipped")?,
        "missingKey" => write!(out, " refuses")?,
        _ => {}
    }
    let key: Vec<String> =
        limit.key.iter().map(|(part, value)| format!("{part} {:?}", words::shortened(value, 100))).collect();
    match &limit.missing {
        Some(missing) if limit.before.is_some() || limit.service.is_some() => {
            write!(out, ", no {missing}: counted in the bucket of all requests without it (onMissingKey: Share)")?
        }
        Some(missing) => write!(out, ": the request has no {missing}")?,
        None if key.is_empty() => write!(out, ", one bucket for all")?,
        None => write!(out, ", key: {}", key.join(", "))?,
    }
    writeln!(out)?;
    if let (Some(service), Some(cost)) = (&limit.service, limit.cost) {
        let answer = if limit.outcome == "limited" { "refused" } else { "let pass" };
        return writeln!(
            out,
            "      cost {cost}{}, decided by the rate-limit service in cluster {service}; assumed here: {answer}",
            reserved(limit)
        );
    }
    let (Some(before), Some(after), Some(burst), Some(cost)) = (&limit.before, &limit.after, limit.burst, limit.cost)
    else {
        return Ok(());
    };
    let bad = match limit.bad_cost {
        true => " (the cost header is not a number: the default applies)".to_owned(),
        false => reserved(limit),
    };
    write!(out, "      cost {cost}{bad}, bucket {} of {burst} left", before.remaining)?;
    let seconds = |seconds: f64| words::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    match limit.wait_seconds {
        Some(wait) => writeln!(out, ", would pass in {}", seconds(wait))?,
        None if after.debt_seconds > 0.0
            && (after.remaining, after.debt_seconds) != (before.remaining, before.debt_seconds) =>
        {
            writeln!(out, ", {} after, full again in {}", after.remaining, seconds(after.debt_seconds))?;
        }
        None if cost > burst => writeln!(out, ", never passes: it costs more than the burst")?,
        None => writeln!(out, ", nothing taken")?,
    }
    if limit.overflow {
        writeln!(out, "      {WARN}shares its bucket: the table is full of busy keys{WARN:#}")?;
    }
    Ok(())
}

fn write_routes(routes: &RulesReport, report: &Explanation, out: &mut String) -> std::fmt::Result {
    let route = report.decision.route.as_deref().unwrap_or_default();
    let outcome = match routes.outcome {
        "rule" => format!("route {NAME}{route}{NAME:#}"),
        "redirect" => format!("redirected to {NAME}{}{NAME:#}", location(&report.decision)),
        "failedOver" => format!("failed over to {NAME}{route}{NAME:#}"),
        "default" => format!("no rule matches: the default, {NAME}{route}{NAME:#}"),
        _ => "no rule matches".to_owned(),
    };
    head("routes", &outcome, out)?;
    if let Some(winner) = &routes.winner {
        writeln!(out, "  {GOOD}✓{GOOD:#} rule {NAME}{}{NAME:#}", winner.name)?;
        write_conditions(winner, out)?;
    }
    if !routes.also_match.is_empty() {
        writeln!(out, "  also match, with lower precedence: {}", routes.also_match.join(", "))?;
    }
    write_misses("nearest misses", &routes.nearest_misses, out)
}

fn write_canaries(canaries: &CanariesReport, out: &mut String) -> std::fmt::Result {
    let outcome = match (&canaries.choice, canaries.outcome) {
        (Some(choice), _) => {
            let chosen = choice.variants.iter().find(|variant| variant.chosen);
            format!("variant {NAME}{}{NAME:#}", chosen.map_or("", |variant| &variant.name))
        }
        (None, "routeDecided") => "skipped (a route rule matched)".to_owned(),
        _ => "none matches".to_owned(),
    };
    head("canaries", &outcome, out)?;
    if let Some(choice) = &canaries.choice {
        write_choice(choice, canaries.asked_by.as_deref(), out)?;
    }
    write_misses("nearest misses", &canaries.nearest_misses, out)
}

fn write_choice(choice: &Choice, asked_by: Option<&str>, out: &mut String) -> std::fmt::Result {
    writeln!(out, "  {GOOD}✓{GOOD:#} canary {NAME}{}{NAME:#}", choice.canary.name)?;
    match asked_by {
        Some(rule) => writeln!(out, "      {DIM}named by the rule {rule}{DIM:#}")?,
        None => write_conditions(&choice.canary, out)?,
    }
    if let Some(over) = &choice.overridden_by {
        writeln!(out, "  override  {over}")?;
    }
    if let Some(key) = &choice.key {
        let value = words::shortened(&key.value, 100);
        match (key.random, key.new) {
            (true, _) => writeln!(
                out,
                "  key       {value} (random: {})",
                match key.from.as_str() {
                    "random, for each request" => "no stickiness".to_owned(),
                    from => format!("the request has no {from}"),
                }
            )?,
            (_, true) => writeln!(out, "  key       {value:?} (a new {}, set on the response)", key.from)?,
            _ => writeln!(out, "  key       {value:?} ({})", key.from)?,
        }
    }
    if let Some(ramp) = &choice.ramp {
        writeln!(out, "  ramp      {ramp}")?;
    }
    let width = choice.variants.iter().map(|variant| variant.name.chars().count()).max().unwrap_or(0).max(7);
    writeln!(out, "  {DIM}{:width$}  {:>8}  {:>8}  {:>10}{DIM:#}", "variant", "share", "u", "score")?;
    for variant in &choice.variants {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.6}"));
        let mark = if variant.chosen { format!("  {GOOD}← chosen{GOOD:#}") } else { String::new() };
        let (share, u, score) = (words::percent(variant.share), number(variant.u), number(variant.score));
        writeln!(out, "  {:width$}  {share:>8}  {u:>8}  {score:>10}{mark}", variant.name)?;
    }
    if let Some(variant) = &choice.rolled_back {
        writeln!(out, "  {WARN}`{variant}` is rolled back{WARN:#}")?;
    }
    Ok(())
}

fn write_conditions(rule: &Considered, out: &mut String) -> std::fmt::Result {
    if rule.conditions.is_empty() {
        writeln!(out, "      {DIM}matches every request{DIM:#}")?;
    }
    for condition in &rule.conditions {
        if condition.holds {
            writeln!(out, "      {GOOD}✓{GOOD:#} {}", condition.condition)?;
        } else {
            writeln!(
                out,
                "      {BAD}✗{BAD:#} {} {DIM}(the request: {}){DIM:#}",
                condition.condition, condition.actual
            )?;
        }
    }
    Ok(())
}

/// The first false condition of each near miss.
fn write_misses(title: &str, misses: &[Considered], out: &mut String) -> std::fmt::Result {
    if misses.is_empty() {
        return Ok(());
    }
    writeln!(out, "  {DIM}{title}{DIM:#}")?;
    for miss in misses {
        let Some(failed) = miss.conditions.iter().find(|condition| !condition.holds) else { continue };
        let (held, of) = (miss.held, miss.conditions.len());
        writeln!(
            out,
            "    {NAME}{}{NAME:#}: {held} of {of} conditions matched; failed: {} {DIM}(the request: {}){DIM:#}",
            miss.name, failed.condition, failed.actual
        )?;
    }
    Ok(())
}

/// The changes that the module makes to request and response.
fn write_changes(report: &Explanation, out: &mut String) -> std::fmt::Result {
    let decision = &report.decision;
    let headers = &decision.headers;
    let lines = headers.set.iter().map(|(name, value)| format!("set {name}: {value}"));
    let lines = lines.chain(headers.add.iter().map(|(name, value)| format!("add {name}: {value}")));
    let lines = lines.chain(headers.remove.iter().map(|name| format!("remove {name}")));
    let lines = lines.chain(decision.response_headers.iter().map(|(name, value)| format!("response {name}: {value}")));
    let changes = &decision.response_changes;
    let lines = lines.chain(changes.set.iter().map(|(name, value)| format!("response set {name}: {value}")));
    let lines = lines.chain(changes.add.iter().map(|(name, value)| format!("response add {name}: {value}")));
    let lines = lines.chain(changes.remove.iter().map(|name| format!("response remove {name}")));
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        head("headers", "", out)?;
        // The heading ends with a colon because lines follow instead of an outcome.
        while out.ends_with([' ', '\n']) {
            out.pop();
        }
        writeln!(out)?;
    }
    // Keeps a value of a request on one line, whatever it contains.
    lines.iter().try_for_each(|line| writeln!(out, "  {}", visible(line)))
}
