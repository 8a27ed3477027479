//! Real time. Standard output carries the ports and the expectations, and nothing else.

use crate::{judge, read_scenario, refuse, say};
use anyhow::Context as _;
use network_simulator::{
    args::Serve,
    driver::{
        ports::Choice,
        run::{self, Options},
    },
    ledger::Ledger,
    scenario::expect::Findings,
    unfit,
};
use tokio::signal::unix::{SignalKind, signal};

pub async fn serve(args: &Serve) -> anyhow::Result<bool> {
    let (scenario, _) = read_scenario(&args.scenario)?;
    refuse(unfit::in_real_time(&scenario), &args.scenario)?;
    let ports = if args.ephemeral_ports {
        Choice::Ephemeral
    } else {
        Choice::Offset(args.port_offset)
    };
    let options = Options {
        listen: args.listen,
        ports,
        ledger: args.ledger.clone(),
        keep_running: args.keep_running,
    };
    let running = run::start(scenario.clone(), options)
        .await
        .context("the network could not be started")?;
    say(&serde_json::to_string(running.numbers())?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ledger: Ledger = running.run(stop).await.context("the run ended early")?;
    judge(&scenario, &Findings::of(&scenario.expect, &ledger))
}
