//! Tests the alerts with the metrics of real Envoys: the series in `observability/rules-test.yaml` are scrapes that
//! this test records.
//!
//! `PENSTOCK_WRITE=1` records them again and writes the file. `make soak` records them, too, and lets `promtool` test
//! the rules with the new series.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod recording;
mod scenarios;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use penstock_integration::{prometheus_tool, workspace};

use recording::ScrapeRecording;

const RUNBOOKS: &str = "https://github.com/penstock-proxy/penstock/blob/main/docs/operations.md#";

/// The recorded series, and when which alerts fire.
struct AlertScenario {
    /// What happens in the scenario, in a sentence.
    name: &'static str,
    recording: ScrapeRecording,
    /// The duration of the test in minutes.
    minutes: usize,
    expected: Vec<ExpectedAlert>,
}

/// An expected alert at a minute.
struct ExpectedAlert {
    alert: &'static str,
    minute: usize,
    /// Its labels and its summary; `None` when it does not fire.
    fires: Option<(Vec<(&'static str, &'static str)>, String)>,
}

impl ExpectedAlert {
    fn silence(alert: &'static str, minute: usize) -> ExpectedAlert {
        ExpectedAlert { alert, minute, fires: None }
    }

    fn fires(
        alert: &'static str,
        minute: usize,
        labels: &[(&'static str, &'static str)],
        summary: &str,
    ) -> ExpectedAlert {
        ExpectedAlert { alert, minute, fires: Some((labels.to_vec(), summary.to_owned())) }
    }
}

/// Writes the tests in the format of `promtool`.
fn written(scenarios: &[AlertScenario]) -> Result<String> {
    let mut text = "# Recorded from real Envoys by `integration/tests/alerts`, a minute a scrape; `PENSTOCK_WRITE=1` records them anew.\n\
                    # promtool test rules rules-test.yaml\n\
                    rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n"
        .to_owned();
    for AlertScenario { name, recording, minutes, expected } in scenarios {
        write!(text, "- name: {name}\n  interval: 1m\n  input_series:\n")?;
        for (series, values) in recording.lines(*minutes)? {
            writeln!(text, "  - {{series: '{series}', values: '{values}'}}")?;
        }
        writeln!(text, "  alert_rule_test:")?;
        for at_once in expected.chunk_by(|one, next| (one.alert, one.minute) == (next.alert, next.minute)) {
            let Some(ExpectedAlert { alert, minute, .. }) = at_once.first() else { continue };
            let mut fires = at_once.iter().filter_map(|expected| expected.fires.as_ref()).peekable();
            let none = if fires.peek().is_none() { " []" } else { "" };
            writeln!(text, "  - alertname: {alert}\n    eval_time: {minute}m\n    exp_alerts:{none}")?;
            for (labels, summary) in fires {
                let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                let runbook = format!("{RUNBOOKS}{}", alert.to_lowercase());
                writeln!(text, "    - exp_labels: {{{}}}", labels.join(", "))?;
                writeln!(text, "      exp_annotations: {{summary: \"{summary}\", runbook_url: \"{runbook}\"}}")?;
            }
        }
    }
    Ok(text)
}

#[test]
fn each_alert_fires_and_ends_with_the_metrics_of_real_envoys() -> Result<()> {
    // `make` hands over variables that are not set as empty ones.
    let is_asked = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !is_asked("PENSTOCK_WRITE") && !is_asked("SOAK_MINUTES") {
        return Ok(());
    }
    let Some(promtool) = prometheus_tool("promtool")? else { return Ok(()) };
    let recorders: Vec<_> = scenarios::ALL.into_iter().map(thread::spawn).collect();
    let scenarios = recorders
        .into_iter()
        .map(|recorder| recorder.join().ok().context("a recorder panicked")?)
        .collect::<Result<Vec<_>>>()?;
    let text = written(&scenarios)?;
    let observability = workspace::root().join("observability");
    if is_asked("PENSTOCK_WRITE") {
        fs::write(observability.join("rules-test.yaml"), &text)?;
    }
    let folder = tempfile::tempdir()?;
    fs::copy(observability.join("rules.yaml"), folder.path().join("rules.yaml"))?;
    fs::write(folder.path().join("rules-test.yaml"), &text)?;
    let output =
        Command::new(promtool).args(["test", "rules", "rules-test.yaml"]).current_dir(folder.path()).output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&said));
    Ok(())
}
