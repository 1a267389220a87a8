//! The human-readable report.

use std::fmt::Write;

use super::change::{ChangeClass, PolicyChange};
use super::report::DiffReport;
use super::traffic::{self, DifferenceKind, Users};
use crate::output::count;
use crate::output::style::{BAD, DIM, GOOD, HEAD, NAME, WARN};
use crate::within::Witness;
use crate::words;

/// The whole report, with styles.
pub fn render(report: &DiffReport) -> String {
    let mut out = String::new();
    for change in &report.changes {
        let object = change.object.as_ref().map(|object| format!("{DIM}{object}{DIM:#} ")).unwrap_or_default();
        let _ = writeln!(out, "{} {object}{NAME}{}{NAME:#}: {}", mark(change.class), change.path, change.message);
        if let Some(proof) = &change.proof {
            let _ = writeln!(
                out,
                "          {DIM}passes now:{DIM:#} {}{} {DIM}(before: {}){DIM:#}",
                position(&proof.passes),
                proof.words,
                proof.before
            );
        }
        if let Some(why) = change.no_proof {
            let _ = writeln!(out, "          {DIM}no example request: {why}{DIM:#}");
        }
    }
    if report.changes.is_empty() {
        out += "the policies are equivalent\n";
    } else {
        let (loosened, tightened, changed) = (report.loosened, report.tightened, report.changed);
        let _ = writeln!(out, "\n{HEAD}{loosened} loosened, {tightened} tightened, {changed} changed{HEAD:#}");
    }
    if let Some(traffic) = &report.traffic {
        // Writing to a string does not fail.
        let _ = write_traffic(traffic, &mut out);
    }
    out
}

/// One change on one line, without styles, with the request that shows it.
pub fn loosening(change: &PolicyChange) -> String {
    let mut line = format!("{}: {}", change.path, change.message);
    if let Some(proof) = &change.proof {
        let _ = write!(line, "; passes now: {}{} (before: {})", position(&proof.passes), proof.words, proof.before);
    }
    line
}

/// Which of the requests the words of a proof describe.
fn position(passes: &Witness) -> String {
    match passes {
        Witness::Request(_) => String::new(),
        Witness::Sequence(requests) => format!("the last of {}, ", count(requests.len(), "request")),
    }
}

fn mark(class: ChangeClass) -> String {
    match class {
        ChangeClass::Loosened => format!("{BAD}loosened {BAD:#}"),
        ChangeClass::Tightened => format!("{GOOD}tightened{GOOD:#}"),
        ChangeClass::Changed => format!("{WARN}changed  {WARN:#}"),
    }
}

fn write_traffic(traffic: &traffic::TrafficReport, out: &mut String) -> std::fmt::Result {
    let share = |n: u64| words::percent(n as f64 / traffic.requests.max(1) as f64);
    let (requests, differ) = (words::thousands(traffic.requests), words::thousands(traffic.differ));
    writeln!(out, "\n{HEAD}{requests} requests, {differ} differ ({}){HEAD:#}", share(traffic.differ))?;
    for DifferenceKind { class, from, to, count, examples } in &traffic.kinds {
        writeln!(out, "{} {} ({}) {from} {DIM}→{DIM:#} {to}", mark(*class), words::thousands(*count), share(*count))?;
        for example in examples {
            writeln!(out, "    {DIM}line {}:{DIM:#} {}", example.line, example.request)?;
        }
    }
    for Users { canary, users, at_least, moved, moves } in &traffic.users {
        let more = if *at_least { " of the first" } else { " of" };
        let total = words::thousands(*users as u64);
        let share = words::percent(*moved as f64 / (*users).max(1) as f64);
        writeln!(
            out,
            "{NAME}{canary}{NAME:#}: {}{more} {total} users move ({share})",
            words::thousands(*moved as u64)
        )?;
        for to in moves {
            let users = count(to.users, "user");
            writeln!(out, "    {} {DIM}→{DIM:#} {}: {users}, such as {}", to.from, to.to, to.examples.join(", "))?;
        }
    }
    Ok(())
}
