//! Records scrapes of real Envoys as series for `promtool`, one sample a minute.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use penstock_integration::Envoy;

/// The interval between two samples in the test for `promtool`, in seconds.
const MINUTE: f64 = 60.0;

/// The sample of each series at each scrape; `None` where the scrape had no such series.
#[derive(Debug, Default)]
pub struct ScrapeRecording {
    /// The time of each scrape, as a Unix timestamp in seconds.
    times: Vec<f64>,
    series: BTreeMap<String, Vec<Option<f64>>>,
}

impl ScrapeRecording {
    /// Scrapes the proxies of one job, each by its instance. A proxy that is `None` is down.
    pub fn scrape(&mut self, job: &str, proxies: &[(&str, Option<&Envoy>)]) -> Result<()> {
        let step = self.times.len();
        self.times.push(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64());
        for (instance, envoy) in proxies {
            let target = format!("instance=\"{instance}\",job=\"{job}\"");
            // Prometheus adds the series `up` itself.
            self.note(step, format!("up{{{target}}}"), if envoy.is_some() { 1.0 } else { 0.0 });
            let Some(envoy) = envoy else { continue };
            let page = envoy.admin().get("/stats/prometheus")?;
            for line in page.lines().filter(|line| is_recorded(line)) {
                let (series, value) = line.rsplit_once(' ').with_context(|| format!("no value: {line}"))?;
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let labels = labels.strip_suffix('}').context("no end of labels")?;
                let comma = if labels.is_empty() { "" } else { "," };
                self.note(step, format!("{name}{{{labels}{comma}{target}}}"), value.parse()?);
            }
        }
        Ok(())
    }

    fn note(&mut self, step: usize, series: String, value: f64) {
        let values = self.series.entry(series).or_default();
        values.resize(step, None);
        values.push(Some(value));
    }

    /// The minute of the next scrape.
    pub fn minute(&self) -> usize {
        self.times.len()
    }

    /// The value of a series at each minute.
    pub fn values(&self, series: &str) -> Result<&[Option<f64>]> {
        self.series.get(series).map(Vec::as_slice).with_context(|| format!("no {series} in {:#?}", self.series.keys()))
    }

    /// Formats the series as lines of a test. After the last scrape, values stay constant until `minutes`.
    pub fn lines(&self, minutes: usize) -> Result<Vec<(String, String)>> {
        ensure!(minutes >= self.times.len(), "{} scrapes in {minutes} minutes", self.times.len());
        let line = |(series, values): (&String, &Vec<Option<f64>>)| {
            let mut values: Vec<Option<f64>> =
                values.iter().map(|value| value.map(|value| self.value(series, value))).collect();
            values.resize(self.times.len(), None);
            values.resize(minutes, values.last().copied().flatten());
            (series.clone(), words(&values).join(" "))
        };
        Ok(self.series.iter().map(line).collect())
    }

    /// Converts timestamps, because time in a `promtool` test starts at 0. A time in the past becomes the minute of the
    /// first scrape that saw it; a time in the future stays as far away as it was, in whole hours.
    fn value(&self, series: &str, value: f64) -> f64 {
        let is_time = series.split('{').next().is_some_and(|name| name.ends_with("_timestamp_seconds"));
        if !is_time || value == 0.0 {
            return value;
        }
        let first = self.times.first().copied().unwrap_or_default();
        match self.times.iter().position(|time| *time >= value.floor()) {
            Some(step) => step as f64 * MINUTE,
            None => ((value - first) / 3_600.0).round() * 3_600.0,
        }
    }
}

/// The series that the rules use. No alert uses buckets of histograms.
fn is_recorded(line: &str) -> bool {
    let discovered = line.starts_with("envoy_extension_config_discovery_http_filter_");
    (line.starts_with("penstock_") && !line.contains("_duration_"))
        || line.starts_with("envoy_server_live")
        || (discovered && (line.contains("_update_rejected{") || line.contains("_update_success{")))
}

/// Values in the notation of `promtool`: `_` and `stale` for gaps, and `1x3` for repeated values.
fn words(values: &[Option<f64>]) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = values;
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|value| *value == first).count();
        match first {
            Some(value) if run > 1 => words.push(format!("{value}x{}", run - 1)),
            Some(value) => words.push(value.to_string()),
            None => {
                let was_there = !words.is_empty() && rest.len() < values.len();
                if was_there {
                    words.push("stale".to_owned());
                }
                match run - usize::from(was_there) {
                    0 => {}
                    1 => words.push("_".to_owned()),
                    missing => words.push(format!("_x{missing}")),
                }
            }
        }
        rest = rest.get(run..).unwrap_or_default();
    }
    words
}

#[test]
fn a_series_that_ends_is_stale_and_repeated_values_are_shortened() {
    let values = [None, None, Some(1.0), None, None, Some(2.0), Some(2.0), Some(2.5)];
    assert_eq!(words(&values), ["_x2", "1", "stale", "_", "2x1", "2.5"]);
}
