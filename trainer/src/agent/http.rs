//! What an agent serves: the report, health, metrics, and on pod 0 the rendezvous.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use datjob_api::{contract::REPORT_PATH, report::Report};

use super::{Board, metrics};
use crate::rendezvous::{Heartbeat, Refused, message, token};

/// Most bytes of a heartbeat.
const HEARTBEAT_MAX_BYTES: usize = 64 * 1024;

/// The routes of an agent.
pub fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route(REPORT_PATH, get(report))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics_text))
        .route(message::PATH, post(rendezvous))
        .layer(DefaultBodyLimit::max(HEARTBEAT_MAX_BYTES))
        .with_state(board)
}

async fn report(State(board): State<Arc<Board>>) -> Json<Report> {
    Json(board.report())
}

async fn metrics_text(State(board): State<Arc<Board>>) -> Response {
    match metrics::encode(&board.report(), board.rendezvous().is_some()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n"))
            .into_response(),
    }
}

/// Nothing of a request is parsed before it is authenticated.
async fn rendezvous(State(board): State<Arc<Board>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(host) = board.rendezvous() else {
        return (StatusCode::NOT_FOUND, "the rendezvous is not open on this pod; pod 0 hosts it\n")
            .into_response();
    };
    if let Err(refused) = host.authenticate(&body, headers.get(token::HEADER).map(HeaderValue::as_bytes)) {
        return refusal(&refused);
    }
    let heartbeat: Heartbeat = match serde_json::from_slice(&body) {
        Ok(heartbeat) => heartbeat,
        Err(error) => {
            return (StatusCode::BAD_REQUEST, format!("invalid heartbeat: {error}\n")).into_response();
        }
    };
    match host.exchange(&heartbeat).await {
        Ok(reply) => Json(reply).into_response(),
        Err(refused) => refusal(&refused),
    }
}

fn refusal(refused: &Refused) -> Response {
    let status = match refused {
        Refused::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        _ => StatusCode::CONFLICT,
    };
    (status, Json(refused)).into_response()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
