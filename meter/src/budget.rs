//! The budget: what each scenario may cost.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::guest::Spent;

/// Costs by scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Budget(pub BTreeMap<String, ScenarioCost>);

/// The cost of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ScenarioCost {
    /// One request, from the creation of its context to its deletion.
    Request {
        /// Guest instructions, the mean over the requests.
        instructions: u64,
        /// Calls to the host, the mean, in hundredths of a call.
        host_calls: f64,
        /// Calls from the host, the mean.
        callbacks: f64,
    },
    /// Loading a policy.
    Configure {
        /// Guest instructions.
        instructions: u64,
        /// The guest's memory afterwards, in KiB.
        #[serde(rename = "memoryKiB")]
        memory_kib: u64,
    },
}

/// The tolerance: a number may grow by this many percent.
const TOLERANCE: f64 = 3.0;

impl ScenarioCost {
    /// The mean over `requests` requests.
    pub(crate) fn of(spent: &Spent, requests: u64) -> ScenarioCost {
        let hundredths = |count: u64| (count as f64 * 100.0 / requests as f64).round() / 100.0;
        ScenarioCost::Request {
            instructions: spent.instructions / requests,
            host_calls: hundredths(spent.host_calls),
            callbacks: hundredths(spent.callbacks),
        }
    }

    fn numbers(&self) -> Vec<(&'static str, f64)> {
        match self {
            ScenarioCost::Request { instructions, host_calls, callbacks } => {
                vec![("instructions", *instructions as f64), ("host calls", *host_calls), ("callbacks", *callbacks)]
            }
            ScenarioCost::Configure { instructions, memory_kib } => {
                vec![("instructions", *instructions as f64), ("KiB", *memory_kib as f64)]
            }
        }
    }
}

/// The result of comparing measured costs with the budget.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BudgetVerdict {
    /// Scenarios that cost too much, or that only one of the two contains.
    pub wrong: Vec<String>,
    /// Scenarios that cost less than the budget.
    pub better: Vec<String>,
}

impl Budget {
    /// Reads a budget file.
    ///
    /// # Errors
    /// Returns an error when it is not one.
    pub fn from_json(text: &str) -> Result<Budget> {
        serde_json::from_str(text).context("the budget is not what `make meter-update` writes")
    }

    /// Writes the budget file.
    ///
    /// # Errors
    /// A budget can always be serialized.
    pub fn to_json(&self) -> Result<String> {
        // One line for each scenario, so that changes are readable in a diff.
        let mut lines = Vec::new();
        for (name, cost) in &self.0 {
            lines.push(format!("  {}: {}", serde_json::to_string(name)?, serde_json::to_string(cost)?));
        }
        Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
    }

    /// Compares measured costs with the budget.
    pub fn judge(&self, measured: &Budget) -> BudgetVerdict {
        let mut verdict = BudgetVerdict::default();
        for (name, now) in &measured.0 {
            let Some(then) = self.0.get(name) else {
                verdict.wrong.push(format!("{name}: has no budget yet"));
                continue;
            };
            for ((what, now), (_, then)) in now.numbers().into_iter().zip(then.numbers()) {
                let grown = (now / then.max(f64::MIN_POSITIVE) - 1.0) * 100.0;
                let line = format!("{name}: {now} {what} instead of {then} ({grown:+.1} %)");
                if now > then * (1.0 + TOLERANCE / 100.0) {
                    verdict.wrong.push(line);
                } else if now < then * (1.0 - TOLERANCE / 100.0) {
                    verdict.better.push(line);
                }
            }
        }
        let gone = self.0.keys().filter(|name| !measured.0.contains_key(*name));
        verdict.wrong.extend(gone.map(|name| format!("{name}: has a budget and is not measured any more")));
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(instructions: u64) -> Budget {
        let request = ScenarioCost::Request { instructions, host_calls: 2.5, callbacks: 6.0 };
        let configure = ScenarioCost::Configure { instructions: 7, memory_kib: 64 };
        Budget([("a".to_owned(), request), ("b".to_owned(), configure)].into())
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let text = budget(1000).to_json().unwrap();
        assert_eq!(Budget::from_json(&text).unwrap(), budget(1000), "{text}");
    }

    #[test]
    fn three_percent_more_is_within_the_budget_and_four_are_not() {
        assert_eq!(budget(1000).judge(&budget(1030)), BudgetVerdict::default());
        let verdict = budget(1000).judge(&budget(1040));
        assert_eq!(verdict.wrong, ["a: 1040 instructions instead of 1000 (+4.0 %)"]);
        let verdict = budget(1000).judge(&budget(900));
        assert_eq!(verdict.better, ["a: 900 instructions instead of 1000 (-10.0 %)"]);
    }

    #[test]
    fn one_without_the_other_is_wrong() {
        let mut more = budget(1000);
        more.0.insert("c".to_owned(), ScenarioCost::Configure { instructions: 1, memory_kib: 1 });
        assert_eq!(budget(1000).judge(&more).wrong, ["c: has no budget yet"]);
        assert_eq!(more.judge(&budget(1000)).wrong, ["c: has a budget and is not measured any more"]);
    }
}
