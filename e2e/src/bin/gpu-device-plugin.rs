//! `gpu-device-plugin`: simulated GPUs for a real kubelet. Parses, starts, stops.

use anyhow::{Context, Result};
use clap::Parser;
use e2e::device_plugin::{
    args::{Args, LogFormat, Verb},
    run, source,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Args { log_format, verb } = Args::parse();
    let logs = tracing_subscriber::fmt().with_env_filter(
        EnvFilter::builder()
            .with_default_directive(tracing::Level::INFO.into())
            .from_env_lossy(),
    );
    match log_format {
        LogFormat::Json => logs.json().init(),
        LogFormat::Text => logs.init(),
    }
    match verb {
        Verb::Install { library, folder } => source::install(&library, &folder).await,
        Verb::Run(args) => {
            let client = match args.config_map {
                Some(_) => Some(connect().await?),
                None => None,
            };
            let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
            let stop = async move {
                tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
            };
            run::run(args, client, stop).await
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one client of this program is made here")]
async fn connect() -> Result<kube::Client> {
    kube::Client::try_default()
        .await
        .context("no credentials for the API server: run in a pod or set KUBECONFIG")
}
