//! Logs: JSON in containers, text for people, to standard error so that commands can print data.

use tracing_subscriber::EnvFilter;

use super::args::LogFormat;

/// Sets up logging; called once.
pub fn init(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.init(),
    }
}
