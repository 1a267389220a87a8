//! `/api/v1/clusters/<cluster>/history`: rates over a longer time, and the times of changes.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::app::{DashState, problem, scope_of_cluster};
use crate::history::{self, HistoryMark, HistoryRates, POLLS};
use crate::prometheus_history::{HistoryRange, MOST_POINTS, PrometheusHistory};
use crate::ramps;
use crate::scrape::{lock, now};

/// The maximum number of concurrent queries to a Prometheus.
pub const ASKING: usize = 4;

/// The routes of this API.
pub fn routes() -> Router<Arc<DashState>> {
    Router::new().route("/api/v1/clusters/{cluster}/history", get(answer))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    /// The length of the range, which ends now.
    seconds: f64,
}

/// The minimum and maximum length of a range in seconds.
const RANGES: std::ops::RangeInclusive<f64> = 60.0..=31.0 * 86_400.0;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HistoryAnswer {
    /// The source: `dash` or `prometheus`.
    source: &'static str,
    /// Why Prometheus gave no result.
    error: Option<String>,
    from: f64,
    to: f64,
    /// Seconds between two points.
    step: f64,
    /// The time of the first point.
    since: Option<f64>,
    points: Vec<HistoryPoint>,
    marks: Vec<HistoryMark>,
    /// How many changes are not among the marks because newer ones replaced them.
    replaced_marks: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct HistoryPoint {
    at: f64,
    #[serde(flatten)]
    rates: HistoryRates,
}

async fn answer(
    State(app): State<Arc<DashState>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    wanted: Result<Query<HistoryQuery>, QueryRejection>,
) -> Response {
    let to = now();
    let (mut answer, ramps, asks, from) = {
        let scope = match scope_of_cluster(&app, &headers, &name) {
            Ok(scope) => scope,
            Err(response) => return *response,
        };
        let seconds = match wanted {
            Ok(Query(wanted)) if RANGES.contains(&wanted.seconds) => wanted.seconds,
            Ok(_) => return problem(StatusCode::BAD_REQUEST, "seconds: give a number from 60 to 2678400 (31 days)"),
            Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
        };
        let from = to - seconds;
        let fleet = lock(&app.fleet);
        let Some(cluster) = fleet.cluster(&name) else {
            return problem(StatusCode::NOT_FOUND, "there is no such cluster");
        };
        let (points, marks, replaced_marks) = {
            let history = history::lock(&app.history);
            let (points, marks) = history.since(&name, scope, from);
            (points, marks, history.replaced_marks(&name))
        };
        let points: Vec<HistoryPoint> = points.into_iter().map(|(at, rates)| HistoryPoint { at, rates }).collect();
        let answer = HistoryAnswer {
            source: "dash",
            error: None,
            from,
            to,
            step: app.interval.as_secs_f64() * f64::from(POLLS),
            since: points.first().map(|point| point.at),
            points,
            marks,
            replaced_marks,
        };
        // Its series have no namespace, so restricted viewers cannot use it.
        let asks = app.prometheus.get(&name).filter(|_| scope.namespace(None)).cloned();
        (answer, ramps::steps(cluster, scope, from, to), asks, from)
    };
    if let Some(prometheus) = asks {
        let Ok(_permit) = app.asking.acquire().await else {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "the dash is ending");
        };
        let range = HistoryRange { from, to };
        match tokio::task::spawn_blocking(move || prometheus.history(range)).await {
            Ok(Ok(PrometheusHistory { step, points, marks })) => {
                answer.source = "prometheus";
                answer.step = step;
                answer.points = points.into_iter().map(|(at, rates)| HistoryPoint { at, rates }).collect();
                answer.since = answer.points.first().map(|point| point.at);
                answer.marks = marks;
                answer.replaced_marks = 0;
            }
            Ok(Err(error)) => answer.error = Some(format!("{error:#}")),
            Err(_) => answer.error = Some("its answer could not be read".to_owned()),
        }
    }
    thin(&mut answer);
    answer.marks.extend(ramps);
    answer.marks.sort_by(|a, b| a.at.total_cmp(&b.at));
    Json(answer).into_response()
}

/// Reduces the points to what a chart can show, by averaging neighbours.
fn thin(answer: &mut HistoryAnswer) {
    let each = answer.points.len().div_ceil(MOST_POINTS);
    if each < 2 {
        return;
    }
    let mean = |points: &[HistoryPoint]| {
        let count = points.len() as f32;
        let sum = points.iter().fold(HistoryRates::default(), |sum, point| sum + point.rates);
        let rates =
            HistoryRates { requests: sum.requests / count, refused: sum.refused / count, errors: sum.errors / count };
        points.last().map(|last| HistoryPoint { at: last.at, rates })
    };
    answer.points = answer.points.chunks(each).filter_map(mean).collect();
    answer.step *= each as f64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_points_become_as_many_as_a_chart_can_show() {
        let point = |at: usize| HistoryPoint {
            at: at as f64,
            rates: HistoryRates { requests: at as f32, ..HistoryRates::default() },
        };
        let points: Vec<HistoryPoint> = (0..3 * MOST_POINTS).map(point).collect();
        let mut answer = HistoryAnswer {
            source: "dash",
            error: None,
            from: 0.0,
            to: 1.0,
            step: 10.0,
            since: None,
            points,
            marks: vec![],
            replaced_marks: 0,
        };
        thin(&mut answer);
        assert_eq!((answer.points.len(), answer.step), (MOST_POINTS, 30.0));
        assert_eq!(answer.points.first().map(|point| (point.at, point.rates.requests)), Some((2.0, 1.0)));
    }
}
