//! HTTP server of the operator: `/metrics`, `/healthz`, `/readyz`.

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

/// Readiness of the operator: its role if it is ready, else what it waits for.
#[derive(Debug)]
pub struct Readiness(Mutex<Result<&'static str, String>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Mutex::new(Err("The operator is starting.".to_owned())))
    }
}

impl Readiness {
    /// Sets the operator ready, with its role.
    pub fn set_ready(&self, state: &'static str) {
        self.set(Ok(state));
    }

    /// Sets the operator not ready, with the reason.
    pub fn set_waiting(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    fn set(&self, value: Result<&'static str, String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn get(&self) -> Result<&'static str, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves until the process exits.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics_text).with_state(metrics))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/healthz", get(async || "The operator is running.\n"));
    axum::serve(listener, router).await
}

async fn metrics_text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.encode())
}

async fn readyz(State(readiness): State<Arc<Readiness>>) -> impl IntoResponse {
    match readiness.get() {
        Ok(state) => (StatusCode::OK, format!("{state}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readyz_reports_the_role_or_the_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::default());
        tokio::spawn(serve(listener, Arc::default(), Arc::clone(&readiness)));
        let client = crate::reports::client_builder().build().unwrap();
        let get_path = async |path: &str| {
            let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        readiness.set_waiting("The definition is not installed.");
        assert_eq!(get_path("/readyz").await, (503, "The definition is not installed.\n".to_owned()));
        readiness.set_ready("Leader.");
        assert_eq!(get_path("/readyz").await, (200, "Leader.\n".to_owned()));
        assert_eq!(get_path("/healthz").await.0, 200);
        assert!(get_path("/metrics").await.1.ends_with("# EOF\n"));
    }
}
