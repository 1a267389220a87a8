//! Writes the learned policy as text: a new policy, or an existing file whose comments and rules stay unchanged.

use anyhow::{Context as _, bail, ensure};
use penstock_policy::document::Node;

use super::observe::AskedForm;
use super::rules::LearnedRule;
use crate::yaml::Located;
use crate::yaml_text;

/// Options for writing rules.
#[derive(Clone, Debug)]
pub struct RuleStyle {
    /// The owner of rules whose callers have no namespace.
    pub unowned: String,
    /// When the rules expire.
    pub expires: Option<String>,
}

/// A new policy.
pub fn new_policy(rules: &[LearnedRule], style: &RuleStyle, default_port: Option<u16>, head: &str) -> String {
    let mut out: String = head.lines().map(|line| format!("# {line}\n")).collect();
    out += "egress:\n  mode: Enforce\n";
    if let Some(port) = default_port {
        out += &format!(
            "  # The log does not contain the port of names without one: this is the port that the proxy connects to.\n  defaultPort: {port}\n"
        );
    }
    match rules.is_empty() {
        true => out += "  rules: []\n",
        false => out += &format!("  rules:\n{}", items(rules, style, 2)),
    }
    out
}

/// The rules as items of a list.
fn items(rules: &[LearnedRule], style: &RuleStyle, indent: usize) -> String {
    let mut out = String::new();
    for rule in rules {
        for comment in comments(rule) {
            out += &format!("{}# {comment}\n", " ".repeat(indent));
        }
        let node = Node::List(vec![rule.node(&style.unowned, style.expires.as_deref())]);
        out += &yaml_text::block(&node, indent);
    }
    out
}

/// What users should review.
fn comments(rule: &LearnedRule) -> Vec<String> {
    let mut comments = Vec::new();
    if rule.from.is_none() {
        comments.push("For any caller: these requests had no identity.".to_owned());
    }
    if rule.to.iter().any(|to| to.is_star) {
        comments.push("A wildcard: it allows more names than the log contains.".to_owned());
    }
    match rule.shape.class.form {
        AskedForm::Request => {}
        AskedForm::Tunnel => comments.push("A tunnel: the filter does not see its content.".to_owned()),
        AskedForm::Connection => {
            comments.push("TLS connections that are not decrypted: every method and path of these hosts.".to_owned());
        }
    }
    comments
}

/// Adds the rules after those of the policy `text`; nothing else changes.
///
/// # Errors
/// Returns an error when the place for the rules cannot be determined.
pub fn merged(text: &str, rules: &[LearnedRule], style: &RuleStyle) -> anyhow::Result<String> {
    if rules.is_empty() {
        return Ok(text.to_owned());
    }
    let located = Located::read(text).map_err(|error| anyhow::anyhow!("{}", error.message))?;
    let new: Vec<Node> = rules.iter().map(|rule| rule.node(&style.unowned, style.expires.as_deref())).collect();
    let wanted = with_rules(&located.node, &new)?;
    let merged = match text.trim_start().starts_with('{') {
        true => yaml_text::json(&wanted) + "\n",
        false => insert(text, &located, rules, style)?,
    };
    let is_right = Located::read(&merged).is_ok_and(|read| yaml_text::value(&read.node) == yaml_text::value(&wanted));
    ensure!(
        is_right,
        "cannot tell where `egress.rules` ends: write it as a block, `rules:` with each rule behind a `- ` on lines of its own"
    );
    Ok(merged)
}

/// The document with additional rules.
fn with_rules(policy: &Node, new: &[Node]) -> anyhow::Result<Node> {
    let mut entries = match policy {
        Node::Map(entries) => entries.clone(),
        Node::Null => Vec::new(),
        _ => bail!("the policy is not an object"),
    };
    let mut egress = match entries.iter().find(|(name, _)| name == "egress") {
        Some((_, Node::Map(egress))) => egress.clone(),
        Some((_, Node::Null)) | None => Vec::new(),
        Some(_) => bail!("`egress` is not an object"),
    };
    // New fields of `egress` come first, as `insert` writes them; a new `egress` comes last.
    let place = |entries: &mut Vec<(String, Node)>, name: &str, value: Node, at: usize| match entries
        .iter_mut()
        .find(|(known, _)| known == name)
    {
        Some((_, old)) => *old = value,
        None => entries.insert(at, (name.to_owned(), value)),
    };
    let mut all = match egress.iter().find(|(name, _)| name == "rules") {
        Some((_, Node::List(rules))) => rules.clone(),
        _ => Vec::new(),
    };
    all.extend(new.iter().cloned());
    place(&mut egress, "rules", Node::List(all), 0);
    let last = entries.len();
    place(&mut entries, "egress", Node::Map(egress), last);
    Ok(Node::Map(entries))
}

/// Adds the rules after the last one.
fn insert(text: &str, located: &Located, rules: &[LearnedRule], style: &RuleStyle) -> anyhow::Result<String> {
    let ended =
        |text: &str| if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    let egress = located.node.get("egress");
    if let Some(merged) = insert_in_flow(text, located, rules, style) {
        return Ok(merged);
    }
    let Some(Node::Map(section)) = egress else {
        let list = items(rules, style, 2);
        ensure!(egress.is_none(), "write `egress` with `rules` in it");
        return Ok(format!("{}egress:\n  rules:\n{list}", ended(text)));
    };
    let count = match egress.and_then(|egress| egress.get("rules")) {
        Some(Node::List(rules)) => rules.len(),
        _ => 0,
    };
    let line_start = |at: usize| text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line_end = |at: usize| text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |end| at + end + 1);
    if count > 0 {
        let last = located.span(&format!("egress.rules[{}]", count - 1), false);
        let before = text.get(line_start(last.start)..last.start).unwrap_or_default();
        let indent = before.len() - before.trim_start_matches(' ').len();
        ensure!(before.trim() == "-", "write `egress.rules` as a block, with each rule on lines of its own");
        // The span of a block may include comments after it, which belong to the next item.
        let body = text.get(..last.end).unwrap_or_default();
        let mut end = line_end(content_end(body).max(last.start));
        if end > text.len() {
            end = text.len();
        }
        let (head, tail) = text.split_at_checked(end).context("the policy is not text")?;
        return Ok(format!("{}{}{tail}", ended(head), items(rules, style, indent)));
    }
    // There is no rule yet: `rules` is empty or absent.
    let first =
        section.first().map(|(name, _)| located.span(&format!("egress.{name}"), true)).context("`egress` is empty")?;
    let indent = first.start - line_start(first.start);
    let list = format!("{}rules:\n{}", " ".repeat(indent), items(rules, style, indent));
    if egress.and_then(|egress| egress.get("rules")).is_some() {
        let key = located.span("egress.rules", true);
        let (head, rest) = text.split_at_checked(line_start(key.start)).context("the policy is not text")?;
        let tail = rest.find('\n').and_then(|end| rest.get(end + 1..)).unwrap_or_default();
        return Ok(format!("{head}{list}{tail}"));
    }
    let (head, tail) = text.split_at_checked(line_start(first.start)).context("the policy is not text")?;
    Ok(format!("{head}{list}{tail}"))
}

/// Puts the rules behind the last one where the list, or `egress` around it, is written in brackets; `None`: neither is.
fn insert_in_flow(text: &str, located: &Located, rules: &[LearnedRule], style: &RuleStyle) -> Option<String> {
    let egress = located.node.get("egress")?;
    let new: Vec<String> = rules
        .iter()
        .map(|rule| yaml_text::value(&rule.node(&style.unowned, style.expires.as_deref())).to_string())
        .collect();
    let put = |at: usize, what: &str| text.split_at_checked(at).map(|(head, tail)| format!("{head}{what}{tail}"));
    let count = match egress.get("rules") {
        Some(Node::List(rules)) => rules.len(),
        _ => 0,
    };
    if let Some(last) = count.checked_sub(1) {
        let span = located.span(&format!("egress.rules[{last}]"), false);
        let line = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
        let before = text.get(line..span.start)?;
        // In a block a dash stands before each item.
        if before.trim() == "-" {
            return None;
        }
        let separator = if before.trim().is_empty() { format!(",\n{before}") } else { ", ".to_owned() };
        let end = text.get(..span.end)?.trim_end().len();
        return put(end, &new.iter().map(|rule| format!("{separator}{rule}")).collect::<String>());
    }
    let list = format!("[{}]", new.join(", "));
    match egress.get("rules") {
        Some(_) => {
            let span = located.span("egress.rules", false);
            let is_flow = text.get(span.clone())?.starts_with('[');
            // A list of its own line is written as a block instead.
            let starts_line = |at: usize| {
                text.get(..at).is_some_and(|head| head.rsplit('\n').next().unwrap_or_default().trim().is_empty())
            };
            if !is_flow || starts_line(located.span("egress.rules", true).start) {
                return None;
            }
            Some(format!("{}{list}{}", text.get(..span.start)?, text.get(span.end..)?))
        }
        None => {
            let span = located.span("egress", false);
            let inside = text.get(span.clone())?.strip_prefix('{')?;
            let comma = if inside.trim_start().starts_with('}') { "" } else { ", " };
            put(span.start + 1, &format!("rules: {list}{comma}"))
        }
    }
}

/// The end of the last line that is not only a comment.
fn content_end(text: &str) -> usize {
    let mut end = text.len();
    for line in text.split_inclusive('\n').rev() {
        let content = line.trim();
        if !content.is_empty() && !content.starts_with('#') {
            return end - line.len() + line.trim_end_matches(['\n', '\r']).len();
        }
        end -= line.len();
    }
    end
}
