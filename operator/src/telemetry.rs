//! Logging.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Default log filter. kube's span around each reconciliation repeats fields of the operator.
const DEFAULT_FILTER: &str = "info,kube_runtime::controller=warn";

/// Initializes logging with the filter in `DATJOB_LOG`.
pub fn init(format: LogFormat) {
    let filter = std::env::var("DATJOB_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::builder().parse_lossy(filter.as_deref().unwrap_or(DEFAULT_FILTER));
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
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
}
