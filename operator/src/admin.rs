//! The operator's own HTTP server: `/metrics`, `/healthz`, `/readyz`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Whether the operator is ready, and what it waits for where it is not.
#[derive(Debug)]
pub struct Readiness(Mutex<Result<&'static str, String>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Mutex::new(Err("The operator is starting.".to_owned())))
    }
}

impl Readiness {
    /// The operator is ready; the sentence says as what.
    pub fn ready(&self, as_what: &'static str) {
        self.set(Ok(as_what));
    }

    /// The operator is not ready; the sentence says why.
    pub fn waiting(&self, why: impl Into<String>) {
        self.set(Err(why.into()));
    }

    fn set(&self, value: Result<&'static str, String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn get(&self) -> Result<&'static str, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves until the process ends.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(text).with_state(metrics))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/healthz", get(async || "The operator is running.\n"));
    axum::serve(listener, router).await
}

async fn text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text())
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> impl IntoResponse {
    match readiness.get() {
        Ok(as_what) => (StatusCode::OK, format!("{as_what}\n")),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_says_what_is_awaited() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::default());
        tokio::spawn(serve(listener, Arc::default(), Arc::clone(&readiness)));
        let client = crate::reports::client_builder().build().unwrap();
        let ask = async |path: &str| {
            let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        readiness.waiting("The definition is not installed.");
        assert_eq!(ask("/readyz").await, (503, "The definition is not installed.\n".to_owned()));
        readiness.ready("Leader.");
        assert_eq!(ask("/readyz").await, (200, "Leader.\n".to_owned()));
        assert_eq!(ask("/healthz").await.0, 200);
        assert!(ask("/metrics").await.1.ends_with("# EOF\n"));
    }
}
