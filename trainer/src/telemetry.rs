//! Logs on standard error: JSON in a cluster, text elsewhere.

use std::{env, io};

use datjob_api::contract;
use tracing_subscriber::EnvFilter;

/// Starts logging at `level`, which [`contract::ENV_LOG`] overrides.
pub fn start(level: &str) {
    let filter = EnvFilter::try_from_env(contract::ENV_LOG).unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        builder.json().flatten_event(true).with_current_span(false).init();
    } else {
        builder.with_target(false).init();
    }
}
