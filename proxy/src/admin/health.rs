//! Health: for the process' supervisor, for whoever sends traffic, for the cloud balancer and its switch.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

use super::{AdminParts, Switch};

type Answer = (StatusCode, String);

/// `/livez` and `/readyz`.
pub(super) fn status(parts: AdminParts) -> Router {
    Router::new().route("/livez", get(async || "ok\n")).route("/readyz", get(readyz)).with_state(parts)
}

async fn readyz(State(parts): State<AdminParts>) -> Answer {
    match parts.not_ready() {
        None => {
            // It serves on by what it knows: a node out of traffic would help nobody.
            let stale = parts.stale_policy().map(|stale| format!("policy is stale: {stale}\n"));
            (StatusCode::OK, format!("ready\n{}", stale.unwrap_or_default()))
        }
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

/// `/haproxy_health`: what balancers ask of the HAProxy that is replaced; 200 when this node serves.
pub(super) fn haproxy_health(parts: AdminParts) -> Router {
    Router::new().route("/haproxy_health", get(readyz)).with_state(parts)
}

/// `/balancer`: 200 when this node serves and operators have not switched it off; `PUT` with `up` or `down` switches.
pub(super) fn balancer(parts: AdminParts, switch: Arc<watch::Sender<Switch>>) -> Router {
    Router::new().route("/balancer", get(balanced).put(turn)).with_state((parts, switch))
}

type Balanced = (AdminParts, Arc<watch::Sender<Switch>>);

async fn balanced(State((parts, switch)): State<Balanced>) -> Answer {
    let switch = *switch.borrow();
    match (switch, parts.not_ready()) {
        (Switch::Up, None) => (StatusCode::OK, "up\n".to_owned()),
        (Switch::Up, Some(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("down: {reason}\n")),
        (Switch::Down, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, "down: switched off by an operator\n".to_owned())
        }
    }
}

async fn turn(State((_, switch)): State<Balanced>, body: String) -> Answer {
    let wanted = match body.trim() {
        "up" => Switch::Up,
        "down" => Switch::Down,
        other => {
            let shown: String = other.chars().take(32).collect();
            return (StatusCode::BAD_REQUEST, format!("body is {shown:?}, expected up or down\n"));
        }
    };
    let before = switch.send_replace(wanted);
    if before != wanted {
        tracing::info!(from = ?before, to = ?wanted, "balancer switch turned");
    }
    (StatusCode::OK, format!("{}\n", body.trim()))
}
