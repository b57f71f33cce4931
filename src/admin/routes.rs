//! The endpoints.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::nearby::{self, Peer};
use super::problem::Problem;
use super::readiness::Readiness;
use super::status::{self, DoorStatus, Leader, Status};
use super::{Command, Control, page, scrape};
use crate::clock::Clock;
use crate::fence::{Epoch, Resource};
use crate::metrics::{self, Metrics};

/// How long the control thread and the workers have to answer somebody who looks.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// How long they have to carry out a command: a step-down waits for writes in flight.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// The page shows text only, and refreshes itself without a script.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Clone)]
struct Admin {
    control: Arc<dyn Control>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

/// Every endpoint. Requests are to carry a [`Peer`] as extension.
pub(super) fn router(control: Arc<dyn Control>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Router {
    let changing = Router::new()
        .route("/step-down", post(step_down))
        .route("/gate/open", post(open_gate))
        .route("/doors/forget", post(forget_door))
        .route("/rebase", post(rebase))
        .route("/log-level", post(log_level))
        .route("/reload", post(reload))
        .route_layer(axum::middleware::from_fn(only_nearby));
    let api = Router::new().route("/status", get(status)).route("/doors", get(doors)).merge(changing);
    Router::new()
        .route("/", get(people))
        .route("/metrics", get(scraped))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/leader", get(leader))
        .nest("/api/v1", api)
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Admin { control, metrics, clock })
        .layer(axum::middleware::map_response(harden))
}

/// What changes something is for this host: see [`nearby`].
async fn only_nearby(Extension(peer): Extension<Peer>, request: Request, next: Next) -> Result<Response, Problem> {
    nearby::check(peer, request.uri(), request.headers())?;
    Ok(next.run(request).await)
}

/// Every answer is of the moment, and none is to be taken for something else.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn unknown(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}; see / for what there is", uri.path()))
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "what changes something is a POST, everything else a GET; the `Allow` field says which",
    )
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Admin {
    async fn look(&self) -> Result<Arc<Status>, Problem> {
        tokio::time::timeout(LOOK_LIMIT, self.control.status()).await.map_err(|_| Problem::no_answer())
    }

    async fn carry_out(&self, command: Command) -> Result<Response, Problem> {
        tracing::info!(?command, "an operator asked");
        let answer = tokio::time::timeout(COMMAND_LIMIT, self.control.command(command)).await;
        let answer = answer.map_err(|_| Problem::no_answer())??;
        Ok(json(StatusCode::OK, &answer))
    }
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::bad_request(error.body_text()))
}

async fn livez() -> &'static str {
    "ok\n"
}

/// `?verbose` names every check.
async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let readiness = match admin.look().await {
        Ok(status) => Readiness::of(&status),
        Err(problem) => return problem.into_response(),
    };
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    let text = match (verbose, readiness.ready) {
        (true, _) => readiness.to_string(),
        (false, true) => "ready\n".to_owned(),
        (false, false) => "not ready\n".to_owned(),
    };
    (code, text).into_response()
}

async fn scraped(State(admin): State<Admin>) -> Result<Response, Problem> {
    // A worker that lags costs its newest counts, not the scrape.
    let flushed = tokio::time::timeout(LOOK_LIMIT, admin.control.flush_meters());
    let (status, flushed) = tokio::join!(admin.look(), flushed);
    match (&status, flushed) {
        (Ok(_), Ok(())) => {}
        _ => tracing::warn!("a scrape got old numbers: control or a worker did not answer in time"),
    }
    if let Ok(status) = status {
        scrape::set_gauges(&admin.metrics, &status, admin.clock.wall());
    }
    let text = admin.metrics.text();
    let text = text.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, metrics::TEXT_TYPE)], text).into_response())
}

async fn status(State(admin): State<Admin>) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &*admin.look().await?))
}

async fn people(State(admin): State<Admin>) -> Result<Response, Problem> {
    let page = Html(page::of(&*admin.look().await?));
    Ok(([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], page).into_response())
}

#[derive(Deserialize)]
struct OfResource {
    resource: Resource,
}

#[derive(Serialize)]
struct LeaderAnswer<'a> {
    resource: &'a Resource,
    leads: bool,
    armed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stamp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<&'a Leader>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
}

async fn leader(
    State(admin): State<Admin>,
    asked: Result<Query<OfResource>, QueryRejection>,
) -> Result<Response, Problem> {
    let name = query(asked)?.resource;
    let status = admin.look().await?;
    let Some(resource) = status.resource(&name) else {
        let detail = format!("{name} is not among the resources of this configuration");
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let standing = resource.standing.as_ref().filter(|standing| standing.leads);
    let armed = resource.state == status::State::Armed;
    let serves = armed && standing.is_some();
    let answer = LeaderAnswer {
        resource: &resource.name,
        leads: standing.is_some(),
        armed,
        epoch: resource.epoch,
        stamp: standing.and_then(|standing| standing.stamp.as_deref()).filter(|_| serves),
        leader: resource.leader.as_ref(),
        deadline_ms: standing.and_then(|standing| standing.deadline_ms),
    };
    Ok(json(if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &answer))
}

/// A door with the resources that it serves.
#[derive(Serialize)]
struct Door<'a> {
    id: &'a str,
    target: &'a str,
    kind: &'a str,
    mode: &'a str,
    alive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    left: bool,
    resources: Vec<&'a Resource>,
}

impl<'a> Door<'a> {
    fn of(door: &'a DoorStatus) -> Door<'a> {
        Door {
            id: &door.id,
            target: &door.target,
            kind: &door.kind,
            mode: &door.mode,
            alive: door.alive,
            address: door.address.as_deref(),
            left: door.left,
            resources: Vec::new(),
        }
    }
}

async fn doors(State(admin): State<Admin>) -> Result<Response, Problem> {
    let status = admin.look().await?;
    let mut doors = std::collections::BTreeMap::new();
    for resource in &status.resources {
        for door in &resource.doors {
            let one = doors.entry((&*door.target, &*door.id)).or_insert_with(|| Door::of(door));
            one.resources.push(&resource.name);
        }
    }
    let doors: Vec<Door<'_>> = doors.into_values().collect();
    Ok(json(StatusCode::OK, &serde_json::json!({ "doors": doors })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDownQuery {
    resource: Resource,
    #[serde(default)]
    force: bool,
}

async fn step_down(
    State(admin): State<Admin>,
    asked: Result<Query<StepDownQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let StepDownQuery { resource, force } = query(asked)?;
    admin.carry_out(Command::StepDown { resource, force }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct OpenGateQuery {
    resource: Resource,
    target: Option<Arc<str>>,
    #[serde(default)]
    accept_reordering: bool,
}

async fn open_gate(
    State(admin): State<Admin>,
    asked: Result<Query<OpenGateQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let OpenGateQuery { resource, target, accept_reordering } = query(asked)?;
    if !accept_reordering {
        return Err(Problem::bad_request(
            "this opens the gate although writes of a lower epoch may still take effect, after newer ones: say that \
             you accept it with accept-reordering=true",
        ));
    }
    admin.carry_out(Command::OpenGate { resource, target }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgetDoorQuery {
    target: Arc<str>,
    id: Arc<str>,
}

async fn forget_door(
    State(admin): State<Admin>,
    asked: Result<Query<ForgetDoorQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let ForgetDoorQuery { target, id } = query(asked)?;
    admin.carry_out(Command::ForgetDoor { target, id }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RebaseQuery {
    resource: Resource,
    to: Epoch,
}

async fn rebase(
    State(admin): State<Admin>,
    asked: Result<Query<RebaseQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let RebaseQuery { resource, to } = query(asked)?;
    admin.carry_out(Command::Rebase { resource, to }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevelQuery {
    level: Level,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

async fn log_level(
    State(admin): State<Admin>,
    asked: Result<Query<LogLevelQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let level = match query(asked)?.level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    };
    admin.carry_out(Command::LogLevel { level }).await
}

async fn reload(State(admin): State<Admin>) -> Result<Response, Problem> {
    admin.carry_out(Command::Reload).await
}
