//! Logs: JSON in a cluster, for people elsewhere; always on standard error.

use std::{env, io};

use tracing_subscriber::EnvFilter;

/// The environment variable that chooses what is logged, for example `debug`.
pub const LOG_VARIABLE: &str = "DATJOB_LOG";

/// Starts logging; `level` is what is logged where [`LOG_VARIABLE`] does not say.
pub fn start(level: &str) {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        builder.json().flatten_event(true).with_current_span(false).init();
    } else {
        builder.with_target(false).init();
    }
}
