//! Logs: JSON lines for machines, text for people; to stderr.

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Sets the process-wide subscriber. An unreadable filter is reported and `info` is used.
pub fn init(format: LogFormat, filter: &str) {
    let (filter, unreadable) = match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.init(),
    }
    if let Some(error) = unreadable {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "log filter cannot be read; using info"
        );
    }
}
