//! The API for single decisions: the feed, a rule, and the explanation of a decision.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::app::{DashState, problem, scope_of_cluster};
use crate::feed::explain::ExplainQuestion;
use crate::feed::query::DecisionFilter;
use crate::feed::{self, explain, query, rule};
use crate::scrape::{lock, now};

/// The maximum number of concurrent explanations; one with thousands of rules takes a moment.
pub const EXPLAINING: usize = 2;

/// The longest request to explain, in bytes of JSON.
const LONGEST_QUESTION: usize = 64 << 10;

/// The routes of this API.
pub fn routes() -> Router<Arc<DashState>> {
    Router::new()
        .route("/api/v1/clusters/{cluster}/decisions", get(decisions))
        .route("/api/v1/clusters/{cluster}/rules/{section}/{*rule}", get(one_rule))
        .route("/api/v1/clusters/{cluster}/explain", post(explained).layer(DefaultBodyLimit::max(LONGEST_QUESTION)))
}

const NO_CLUSTER: &str = "there is no such cluster";

async fn decisions(
    State(app): State<Arc<DashState>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    filter: Result<Query<DecisionFilter>, QueryRejection>,
) -> Response {
    let scope = match scope_of_cluster(&app, &headers, &name) {
        Ok(scope) => scope,
        Err(response) => return *response,
    };
    let filter = match filter {
        Ok(Query(filter)) => filter,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let fleet = lock(&app.fleet);
    let Some(cluster) = fleet.cluster(&name) else { return problem(StatusCode::NOT_FOUND, NO_CLUSTER) };
    let feed = feed::lock(&app.feed);
    Json(query::answer(&name, cluster, feed.cluster(&name), scope, &filter, now())).into_response()
}

async fn one_rule(
    State(app): State<Arc<DashState>>,
    Path((name, section, rule)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let scope = match scope_of_cluster(&app, &headers, &name) {
        Ok(scope) => scope,
        Err(response) => return *response,
    };
    let fleet = lock(&app.fleet);
    let Some(cluster) = fleet.cluster(&name) else { return problem(StatusCode::NOT_FOUND, NO_CLUSTER) };
    let feed = feed::lock(&app.feed);
    match rule::rule(cluster, feed.cluster(&name), scope, (&section, &rule), app.engine.to_yaml) {
        Some(rule) => Json(rule).into_response(),
        // A response that does not reveal whether the rule is absent or belongs to another owner.
        None => problem(StatusCode::NOT_FOUND, "no proxy that you may see has such a rule"),
    }
}

async fn explained(
    State(app): State<Arc<DashState>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    question: Result<Json<ExplainQuestion>, JsonRejection>,
) -> Response {
    let asked = {
        let scope = match scope_of_cluster(&app, &headers, &name) {
            Ok(scope) => scope,
            Err(response) => return *response,
        };
        if !scope.every_owner() {
            let why = "an explanation shows the rules of all owners, but your workspace only sees those of some";
            return problem(StatusCode::FORBIDDEN, why);
        }
        let question = match question {
            Ok(Json(question)) => question,
            Err(error) => return problem(error.status(), &error.body_text()),
        };
        let fleet = lock(&app.fleet);
        let Some(cluster) = fleet.cluster(&name) else { return problem(StatusCode::NOT_FOUND, NO_CLUSTER) };
        explain::find(cluster, scope, question)
    };
    let Ok(_permit) = app.explaining.acquire().await else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the dash is ending");
    };
    let engine = app.engine;
    match tokio::task::spawn_blocking(move || asked.answer(engine.explain)).await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be explained"),
    }
}
