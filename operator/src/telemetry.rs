//! Logs.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::cli::LogFormat;

/// Starts logging; what is logged is said by `DATJOB_LOG`.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_env_var("DATJOB_LOG")
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let json = match format {
        LogFormat::Auto => in_cluster,
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        builder.init();
    }
}
