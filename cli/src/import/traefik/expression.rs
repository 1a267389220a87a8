//! Rules of Traefik's routers: ``Host(`a`) && (PathPrefix(`/x`) || !Header(`k`, `v`))``.

use crate::import::matching::{Match, PathSet, condition, inverted};
use crate::import::paths;
use crate::import::table::RuleHost;

/// An alternative: its hosts (none means all), and its other conditions.
pub type Alternative = (Option<Vec<RuleHost>>, Match);

enum Expression {
    Any(Vec<Expression>),
    All(Vec<Expression>),
    Not(Box<Expression>),
    Matcher(String, Vec<String>),
}

/// The alternatives of a rule. Returns an error for a condition that a policy cannot express.
pub fn alternatives(rule: &str) -> Result<Vec<Alternative>, String> {
    let mut rest = rule.trim();
    if rest.is_empty() {
        return Err("it has no rule".to_owned());
    }
    let parsed = any(&mut rest, 0)?;
    if !rest.is_empty() {
        return Err(format!("{rule}: cannot be parsed at {rest:?}"));
    }
    of(&parsed, false)
}

fn any(rest: &mut &str, depth: usize) -> Result<Expression, String> {
    let mut list = vec![all(rest, depth)?];
    while let Some(after) = rest.strip_prefix("||") {
        *rest = after.trim_start();
        list.push(all(rest, depth)?);
    }
    Ok(Expression::Any(list))
}

fn all(rest: &mut &str, depth: usize) -> Result<Expression, String> {
    let mut list = vec![one(rest, depth)?];
    while let Some(after) = rest.strip_prefix("&&") {
        *rest = after.trim_start();
        list.push(one(rest, depth)?);
    }
    Ok(Expression::All(list))
}

fn one(rest: &mut &str, depth: usize) -> Result<Expression, String> {
    const DEEPEST: usize = 32;
    let cannot = |rest: &str| match rest {
        "" => "the rule ends too early: a matcher, a quote or a bracket is missing".to_owned(),
        rest => format!("cannot parse the rule at {rest:?}"),
    };
    if depth > DEEPEST {
        return Err("the rule is nested too deeply".to_owned());
    }
    if let Some(after) = rest.strip_prefix('!') {
        *rest = after.trim_start();
        return Ok(Expression::Not(Box::new(one(rest, depth + 1)?)));
    }
    if let Some(after) = rest.strip_prefix('(') {
        *rest = after.trim_start();
        let inner = any(rest, depth + 1)?;
        *rest = rest.strip_prefix(')').ok_or_else(|| cannot(rest))?.trim_start();
        return Ok(inner);
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let (name, after) = rest.split_at_checked(end).unwrap_or_default();
    let mut after =
        after.trim_start().strip_prefix('(').filter(|_| !name.is_empty()).ok_or_else(|| cannot(rest))?.trim_start();
    let mut values = Vec::new();
    loop {
        let quote = after.chars().next().filter(|c| "`\"".contains(*c)).ok_or_else(|| cannot(after))?;
        let inside = after.get(1..).unwrap_or_default();
        let (value, next) = inside.split_once(quote).ok_or_else(|| cannot(after))?;
        values.push(value.to_owned());
        after = next.trim_start();
        match after.strip_prefix(',') {
            Some(next) => after = next.trim_start(),
            None => break,
        }
    }
    let matcher = Expression::Matcher(spelled(name).to_owned(), values);
    *rest = after.strip_prefix(')').ok_or_else(|| cannot(after))?.trim_start();
    Ok(matcher)
}

/// The name of a matcher as it is documented. Traefik knows each in small letters, in capitals, and in small letters after
/// one capital, too.
fn spelled(name: &str) -> &str {
    const NAMES: [&str; 14] = [
        "ClientIP",
        "Header",
        "HeaderRegexp",
        "Headers",
        "HeadersRegexp",
        "Host",
        "HostHeader",
        "HostRegexp",
        "Method",
        "Path",
        "PathPrefix",
        "PathRegexp",
        "Query",
        "QueryRegexp",
    ];
    let is_it = |known: &&&str| {
        let (lower, rest) = (known.to_lowercase(), known.get(1..).unwrap_or_default().to_lowercase());
        let title = known.chars().take(1).chain(rest.chars()).collect::<String>();
        [lower, known.to_uppercase(), title].iter().any(|other| other == name)
    };
    NAMES.iter().find(is_it).copied().unwrap_or(name)
}

fn of(expression: &Expression, negated: bool) -> Result<Vec<Alternative>, String> {
    const MOST: usize = 64;
    match (expression, negated) {
        (Expression::Not(inner), _) => of(inner, !negated),
        (Expression::Any(list), false) | (Expression::All(list), true) => {
            let mut found = Vec::new();
            for inner in list {
                found.extend(of(inner, negated)?);
            }
            Ok(found)
        }
        (Expression::All(list), false) | (Expression::Any(list), true) => {
            let mut found: Vec<Alternative> = vec![(None, Match::default())];
            for inner in list {
                let more = of(inner, negated)?;
                let mut next = Vec::new();
                for one in &found {
                    for other in &more {
                        next.extend(both(one, other)?);
                    }
                }
                found = next;
                if found.len() > MOST {
                    return Err("the rule has too many alternatives".to_owned());
                }
            }
            Ok(found)
        }
        (Expression::Matcher(name, values), negated) => matcher(name, values, negated),
    }
}

/// The conjunction; empty when the conditions contradict each other.
fn both(one: &Alternative, other: &Alternative) -> Result<Option<Alternative>, String> {
    let hosts = match (&one.0, &other.0) {
        (None, hosts) | (hosts, None) => hosts.clone(),
        (Some(a), Some(b)) => {
            let common: Vec<RuleHost> = a.iter().flat_map(|a| b.iter().filter_map(|b| a.intersection(b))).collect();
            if common.is_empty() {
                return Ok(None);
            }
            Some(common)
        }
    };
    let (a, b) = (&one.1, &other.1);
    let method = match (&a.method, &b.method) {
        (Some(a), Some(b)) if a != b => return Ok(None),
        (a, b) => a.clone().or_else(|| b.clone()),
    };
    let path = match () {
        () if paths::covers(&a.path, &b.path) => b.path.clone(),
        () if paths::covers(&b.path, &a.path) => a.path.clone(),
        () if paths::are_disjoint(&a.path, &b.path) => return Ok(None),
        () => return Err("two conditions on the path: a policy has one".to_owned()),
    };
    let headers = a.headers.iter().chain(&b.headers).cloned().collect();
    let query = a.query.iter().chain(&b.query).cloned().collect();
    Ok(Some((hosts, Match { method, path, headers, query, ..Match::default() })))
}

/// Converts a Go expression, which matches anywhere in the value, to one that matches the whole value.
fn anywhere(expression: &str) -> String {
    format!(".*(?:{expression}).*")
}

fn matcher(name: &str, values: &[String], negated: bool) -> Result<Vec<Alternative>, String> {
    let written = || format!("{}{name}({})", if negated { "!" } else { "" }, values.join(", "));
    let cannot = || Err(format!("{}: a policy has no such condition", written()));
    let of_path = |path: PathSet| (None, Match::path(path));
    let turned = |node| if negated { inverted(&node) } else { node };
    let header = |node| (None, Match { headers: vec![turned(node)], ..Match::default() });
    let query = |node| (None, Match { query: vec![turned(node)], ..Match::default() });
    // Templates of the old syntax.
    let has_template = values.iter().any(|value| value.contains('{'));
    Ok(match (name, values, negated) {
        ("Header" | "Headers", [key, value], _) => vec![header(condition(key, "Exact", value))],
        ("HeaderRegexp" | "HeadersRegexp", [key, value], _) => {
            vec![header(condition(key, "RegularExpression", &anywhere(value)))]
        }
        ("Query", [key], _) if !key.contains('=') => vec![query(condition(key, "Present", ""))],
        ("Query", [key, value], _) if !key.contains('=') => vec![query(condition(key, "Exact", value))],
        ("QueryRegexp", [key, value], _) => vec![query(condition(key, "RegularExpression", &anywhere(value)))],
        // The old syntax: a list of name=value, all of which must match.
        ("Query", pairs, false) if pairs.iter().all(|pair| pair.contains('=')) => {
            let of = |pair: &String| pair.split_once('=').map(|(key, value)| condition(key, "Exact", value));
            vec![(None, Match { query: pairs.iter().filter_map(of).collect(), ..Match::default() })]
        }
        (_, _, true) => return cannot(),
        ("Host" | "HostHeader", hosts, _) => {
            let hosts: Option<Vec<RuleHost>> =
                hosts.iter().map(|host| RuleHost::parse(host).filter(|host| *host != RuleHost::Any)).collect();
            let Some(hosts) = hosts else { return cannot() };
            vec![(Some(hosts), Match::default())]
        }
        ("HostRegexp", [expression], _) => {
            // A wildcard expresses this form.
            let inner = expression.strip_prefix('^').and_then(|inner| inner.strip_suffix('$'));
            let name = inner.and_then(|inner| inner.strip_prefix(".+\\.")).map(|name| name.replace("\\.", "."));
            match name.and_then(|name| RuleHost::parse(&format!("*.{name}"))) {
                Some(host) => vec![(Some(vec![host]), Match::default())],
                None => return cannot(),
            }
        }
        ("Path" | "PathPrefix", _, _) if has_template => return cannot(),
        ("Path", paths, _) => paths.iter().map(|path| of_path(PathSet::Exact(path.clone()))).collect(),
        ("PathPrefix", paths, _) => paths.iter().map(|path| of_path(PathSet::letters(path))).collect(),
        ("PathRegexp", [expression], _) => vec![of_path(PathSet::Regex(anywhere(expression)))],
        ("Method", methods, _) => methods
            .iter()
            .map(|method| (None, Match { method: Some(method.to_uppercase()), ..Match::default() }))
            .collect(),
        _ => return cannot(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_list_of_alternatives() {
        let read = |rule: &str| match alternatives(rule) {
            Ok(list) => list
                .iter()
                .map(|(hosts, matches)| {
                    let hosts: Vec<String> = hosts.iter().flatten().filter_map(RuleHost::pattern).collect();
                    matches.node(&hosts).map(|node| crate::yaml_text::value(&node).to_string()).unwrap_or_default()
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(why) => format!("error: {why}"),
        };
        for (rule, expected) in [
            ("Host(`a.test`)", r#"{"hostnames":["a.test"]}"#),
            (
                "Host(`a.test`, `b.test`) && Path(`/x`)",
                r#"{"hostnames":["a.test","b.test"],"path":{"type":"Exact","value":"/x"}}"#,
            ),
            ("Method(`GET`) || Method(`POST`)", r#"{"method":"GET"} {"method":"POST"}"#),
            ("!Header(`k`, `v`)", r#"{"headers":[{"invert":true,"name":"k","value":"v"}]}"#),
            (
                "!(Header(`k`, `v`) || Query(`q`))",
                r#"{"headers":[{"invert":true,"name":"k","value":"v"}],"queryParams":[{"invert":true,"name":"q","type":"Present"}]}"#,
            ),
            ("HostRegexp(`^.+\\.a\\.test$`)", r#"{"hostnames":["*.a.test"]}"#),
            ("Host(`a.test`) && Host(`b.test`)", ""),
            ("ClientIP(`10.0.0.0/8`)", "error: ClientIP(10.0.0.0/8): a policy has no such condition"),
            ("!Path(`/x`)", "error: !Path(/x): a policy has no such condition"),
            (
                "HostRegexp(`^[^.]+\\.a\\.test$`)",
                "error: HostRegexp(^[^.]+\\.a\\.test$): a policy has no such condition",
            ),
            ("Host(`a`", "error: the rule ends too early: a matcher, a quote or a bracket is missing"),
            ("", "error: it has no rule"),
            (
                "host(`a.test`) && METHOD(`get`) && Pathprefix(`/x`) && hostheader(`a.test`)",
                r#"{"hostnames":["a.test"],"method":"GET","path":{"type":"RegularExpression","value":"/x.*"}}"#,
            ),
            ("hOst(`a.test`)", "error: hOst(a.test): a policy has no such condition"),
        ] {
            assert_eq!(read(rule), expected, "{rule}");
        }
    }
}
