//! Coverage reports: human-readable, JSON, and LCOV for tools that show coverage line by line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use penstock_policy::document::Node;
use serde_json::{Value, json};

use super::items::CoverageItem;
use crate::output::style::{BAD, DIM, GOOD, HEAD, NAME};
use crate::text::SourceText;
use crate::words;
use crate::yaml::Located;

/// The coverage of a policy in a file.
#[derive(Debug)]
pub struct FileCoverage {
    /// The file.
    pub file: String,
    /// The parts.
    pub items: Vec<CoverageItem>,
    /// The line of each part, starting at 1; `None` when the policy is not a file of its own.
    pub lines: Vec<Option<usize>>,
}

impl FileCoverage {
    /// Coverage of the policy `text`.
    pub fn new(file: String, text: &str, items: &[CoverageItem]) -> FileCoverage {
        FileCoverage::below("", file, text, items)
    }

    /// Coverage of `policy`, which is written inline in the test file `text`.
    pub fn in_tests(file: String, text: &str, policy: &Node, items: &[CoverageItem]) -> FileCoverage {
        let located = Located::read(text.trim_start_matches('\u{feff}')).ok();
        let of = |node: &Node| node.get("policy") == Some(policy);
        let test = located.as_ref().and_then(|located| match located.node.get("tests") {
            Some(Node::List(tests)) => tests.iter().position(of),
            _ => None,
        });
        match (located.as_ref().is_some_and(|located| of(&located.node)), test) {
            (true, _) => FileCoverage::below("policy.", file, text, items),
            (_, Some(number)) => FileCoverage::below(&format!("tests[{number}].policy."), file, text, items),
            // For a line of JSON.
            _ => FileCoverage::below("", file, "", items),
        }
    }

    /// For a policy at the path `place`.
    fn below(place: &str, file: String, text: &str, items: &[CoverageItem]) -> FileCoverage {
        let items = items.to_vec();
        let text = SourceText::new(text.trim_start_matches('\u{feff}'));
        let located = Located::read(&text).ok();
        let line = |item: &CoverageItem| {
            let path = format!("{place}{}", item.path);
            let located = located.as_ref().filter(|located| located.has(&path))?;
            Some(text.position(located.span(&path, false).start).0)
        };
        let file = file.strip_prefix("./").map_or(file.clone(), str::to_owned);
        FileCoverage { lines: items.iter().map(line).collect(), items, file }
    }

    fn counts(&self) -> (usize, usize) {
        (self.items.iter().filter(|item| item.hits > 0).count(), self.items.len())
    }
}

/// The percentage of all parts that decided something; 100 when there are none.
pub fn total(files: &[FileCoverage]) -> f64 {
    let (covered, all) = files.iter().map(FileCoverage::counts).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    if all == 0 { 100.0 } else { covered as f64 / all as f64 * 100.0 }
}

/// The human-readable report, with styles; `nobody` is the text for a part that decided nothing.
pub fn human(files: &[FileCoverage], nobody: &str) -> String {
    let mut out = String::new();
    for file in files {
        let (covered, all) = file.counts();
        let style = if covered == all { GOOD } else { BAD };
        let share = words::percent(if all == 0 { 1.0 } else { covered as f64 / all as f64 });
        let _ =
            writeln!(out, "\n{HEAD}coverage of {}{HEAD:#}: {style}{covered} of {all}{style:#} ({share})", file.file);
        let missed = || file.items.iter().zip(&file.lines).filter(|(item, _)| item.hits == 0);
        if missed().next().is_some() {
            let _ = writeln!(out, "  {nobody}:");
        }
        let wholes: Vec<&str> =
            missed().filter(|(item, _)| item.is_whole).map(|(item, _)| item.path.as_str()).collect();
        for (item, line) in missed() {
            // The parts of an unused rule are not listed separately.
            let is_within =
                |whole: &&str| item.path.strip_prefix(*whole).is_some_and(|rest| rest.starts_with(['.', '[']));
            if !item.is_whole && wholes.iter().any(is_within) {
                continue;
            }
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            let _ = writeln!(out, "    {DIM}{line}{DIM:#}{NAME}{}{NAME:#} {DIM}{}{DIM:#}", item.what, item.path);
        }
    }
    out
}

/// The JSON report.
pub fn json(files: &[FileCoverage]) -> Value {
    let item = |(item, line): (&CoverageItem, &Option<usize>)| json!({"path": item.path, "what": item.what, "line": line, "hits": item.hits});
    let file = |file: &FileCoverage| {
        let (covered, all) = file.counts();
        let items: Vec<Value> = file.items.iter().zip(&file.lines).map(item).collect();
        json!({"policy": file.file, "covered": covered, "of": all, "items": items})
    };
    json!({"percent": total(files), "policies": files.iter().map(file).collect::<Vec<_>>()})
}

/// LCOV: a line with several parts has the smallest of their counts.
pub fn lcov(files: &[FileCoverage]) -> String {
    let mut out = String::new();
    for file in files {
        let mut lines: BTreeMap<usize, u64> = BTreeMap::new();
        for (item, line) in file.items.iter().zip(&file.lines) {
            if let Some(line) = line {
                lines.entry(*line).and_modify(|hits| *hits = item.hits.min(*hits)).or_insert(item.hits);
            }
        }
        // A policy in an object, or in a line of JSON, has no lines of its own.
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(out, "TN:penstock\nSF:{}", file.file);
        for (line, hits) in &lines {
            let _ = writeln!(out, "DA:{line},{hits}");
        }
        let hit = lines.values().filter(|hits| **hits > 0).count();
        let _ = writeln!(out, "LF:{}\nLH:{hit}\nend_of_record", lines.len());
    }
    out
}
