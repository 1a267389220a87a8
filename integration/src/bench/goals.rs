//! The performance goals, and whether each is reached.

use std::fmt::Write as _;

use super::costs::Costs;
use super::scale::WorkerScale;
use super::scenario::{BROWSER_OLD, FLOOR, NATIVE_AGAIN, NATIVE_SUITE, OLD, SUITE, SUITE_AGAIN};

/// One goal: the ratio of two filter costs.
pub(super) struct Goal {
    what: &'static str,
    measured: f64,
    /// The highest ratio that reaches the goal. `None`: the ratio is only reported.
    most: Option<f64>,
}

/// The goals whose scenarios have been measured.
pub(super) fn all(costs: &Costs, workers: Option<&WorkerScale>) -> Vec<Goal> {
    let rows = [
        ("`suite.wasm` to the one before (`OLD`)", SUITE, OLD, Some(0.75)),
        ("the same with 3 KB of cookies, ports, a limit by address", "browser-suite", BROWSER_OLD, Some(0.6)),
        ("`suite.wasm` to Lua, which does three of its four jobs", SUITE, "lua", Some(2.0)),
        ("`suite.wasm` to three SDK filters chained", SUITE, "peers", None),
        ("`suite.wasm` to its host calls alone", SUITE, FLOOR, None),
        ("`libpenstock.so` to Lua", NATIVE_SUITE, "lua", Some(0.75)),
        ("`libpenstock.so` to Envoy's own filters", NATIVE_SUITE, "native", Some(1.2)),
        ("`libpenstock.so` to `suite.wasm`", NATIVE_SUITE, SUITE, Some(0.35)),
        ("`suite.wasm` with 10,000 rules to 10", "suite-10000", "suite-10", Some(1.05)),
        ("`libpenstock.so` with 10,000 rules to 10", "so-suite-10000", "so-suite-10", Some(1.05)),
        ("`suite.wasm` measured twice, one to the other: the error of all of this", SUITE_AGAIN, SUITE, None),
        ("`libpenstock.so` measured twice, one to the other", NATIVE_AGAIN, NATIVE_SUITE, None),
    ];
    let rows = rows
        .into_iter()
        .filter_map(|(what, name, other, most)| Some(Goal { what, measured: costs.ratio(name, other)?, most }));
    let workers = workers.into_iter().flat_map(|workers| {
        let ratio = |what, column, most| Some(Goal { what, measured: workers.ratio(4, column)?, most });
        let shared = |what, column| Some(Goal { what, measured: workers.shared_ratio(4, column)?, most: None });
        [
            ratio("`suite.wasm`, 4 workers on one bucket to 1", SUITE, Some(1.1)),
            ratio("`libpenstock.so`, 4 workers on one bucket to 1", NATIVE_SUITE, Some(1.3)),
            ratio("the `suite.wasm` before (`OLD`), 4 workers to 1", OLD, None),
            shared("`suite.wasm`, 4 workers on one bucket to 4 on many", SUITE),
            shared("`libpenstock.so`, 4 workers on one bucket to 4 on many", NATIVE_SUITE),
        ]
    });
    rows.chain(workers.flatten()).collect()
}

/// Formats the goals as a section of the page; empty when there are none.
pub(super) fn table(goals: &[Goal]) -> String {
    let mut page = String::new();
    if goals.is_empty() {
        return page;
    }
    page.push_str(
        "\n## Goals\n\nOver no filter, the least of all rounds:\n\n| | measured | goal | |\n|---|---|---|---|\n",
    );
    for Goal { what, measured, most } in goals {
        let (goal, reached) = match most {
            Some(most) => (format!("at most {most}"), if measured <= most { "reached" } else { "**missed**" }),
            None => ("–".to_owned(), ""),
        };
        let _ = writeln!(page, "| {what} | {measured:.2} | {goal} | {reached} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::super::costs::Figures;
    use super::super::scenario::{BenchScenario, NONE};
    use super::*;

    fn figures(name: &str, cpu: &[f64]) -> Figures {
        Figures { scenario: BenchScenario::new(name, name), cpu: cpu.to_vec(), rate: Vec::new(), latency: None }
    }

    #[test]
    fn a_goal_is_judged_by_the_cheapest_round_minus_the_one_without_a_filter() {
        let costs = Costs::new(vec![
            figures(NONE, &[50.0, 40.0]),
            figures("lua", &[60.0, 50.0]),
            figures(SUITE, &[59.0, 90.0]),
            figures(NATIVE_SUITE, &[49.0, 48.0]),
        ]);
        let page = table(&all(&costs, None));
        assert!(
            page.contains("| `suite.wasm` to Lua, which does three of its four jobs | 1.90 | at most 2 | reached |"),
            "{page}"
        );
        assert!(page.contains("| `libpenstock.so` to Lua | 0.80 | at most 0.75 | **missed** |"), "{page}");
        // A scenario that was not measured is not judged.
        assert!(!page.contains("OLD"), "{page}");
        assert_eq!(table(&all(&Costs::new(Vec::new()), None)), "");
    }
}
