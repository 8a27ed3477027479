//! `make demo`: the whole product from nothing, with visible progress. Leaves everything up; `make down` takes it away.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use crds::conditions::ConditionType;
use crds::sprint_run::Cause;
use crds::{GonkaHost, SprintRun};
use e2e::args::Environment;
use e2e::fleet::conditions::holds;
use e2e::fleet::product::{self, Programs};
use e2e::fleet::{control::Control, objects, report, until};
use e2e::harness::{Cluster, ClusterId, Machine, Options};
use kube::api::{Api, ListParams};
use serde_json::Value;
use tokio::time::Instant;

/// A cluster, the charts, a Gonka network, two Sprints, a confirmation, a claim.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    environment: Environment,
    /// Id of the cluster, 1 to 9.
    #[arg(long, default_value_t = 1)]
    cluster: u8,
    /// What happens on the network.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/network-simulator/scenarios/demo.yaml"))]
    scenario: PathBuf,
    /// Name of the ledger's folder in cargo's output folder.
    #[arg(long, default_value = "demo")]
    ledger: String,
    /// Longest wait for the end of the scenario, minutes.
    #[arg(long, default_value_t = 7)]
    limit_minutes: u64,
    /// Fail when an exam lost anything, as it may on a machine that does other work.
    #[arg(long)]
    strict: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let _installed = rustls::crypto::ring::default_provider().install_default();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}\nLook around with the lines of `harness env`, or clean up with `make down`.");
            ExitCode::FAILURE
        }
    }
}

struct Steps(Instant);

impl Steps {
    fn say(&self, text: &str) {
        eprintln!("{:6.1} s  {text}", self.0.elapsed().as_secs_f64());
    }
}

async fn run(args: Args) -> Result<()> {
    let steps = Steps(Instant::now());
    let target = args.environment.target();
    let programs = Programs::find(&args.environment, &args.ledger)?;

    let options = Options::new(ClusterId::try_from(args.cluster)?);
    let cluster = Cluster::up(&args.environment, options, |step| steps.say(step)).await?;
    let network = product::install(&cluster, &programs, &args.scenario, |step| steps.say(step)).await?;
    objects::apply(&cluster, &objects::example(&cluster)?).await?;
    let client = cluster.client().await?;
    let host: Api<GonkaHost> = Api::namespaced(client.clone(), "gonka");
    until(
        "GonkaHost ours to be SprintReady",
        Duration::from_secs(120),
        async || {
            let status = host.get("ours").await?.status.unwrap_or_default();
            Ok(holds(&status.conditions, ConditionType::SprintReady))
        },
    )
    .await?;
    steps.say("three slots and a spare, rehearsed: SprintReady");

    let sprint = target.join("debug/kubectl-gonka");
    let limit = Duration::from_secs(args.limit_minutes * 60);
    follow(&cluster, &network.control, &sprint, limit, &steps).await?;

    let runs: Api<SprintRun> = Api::namespaced(client, "gonka");
    let records = until(
        "two Sprints and a confirmation on record",
        Duration::from_secs(60),
        async || recorded(&runs).await,
    )
    .await?;
    steps.say("two Sprints and a confirmation on record");
    let verified = report::verify(&network.ledger).await?;
    println!("\n{}", verified.text);
    println!("{}", report::table(&records, &verified));
    println!("{}", farewell(&cluster, &target, args.cluster));
    ensure!(verified.passed, "the verifier found faults; its lines are above");
    let losses: Vec<String> = records.iter().filter_map(loss).collect();
    if !losses.is_empty() {
        println!("\nExams lost something: {}", losses.join("; "));
    }
    ensure!(losses.is_empty() || !args.strict, "exams lost something");
    Ok(())
}

/// Shows the live view at each turn of the network until its story is over.
async fn follow(
    cluster: &Cluster,
    control: &Control,
    kubectl_gonka: &Path,
    limit: Duration,
    steps: &Steps,
) -> Result<()> {
    let mut shown = String::new();
    until("the end of the scenario", limit, async || {
        let state = control.state().await?;
        let now = stage(&state);
        if now != shown {
            steps.say(&format!("height {}: {now}", state["height"]));
            let view = e2e::harness::process::Cmd::new(kubectl_gonka)
                .args(["sprint"])
                .env("KUBECONFIG", cluster.kubeconfig());
            match view.text().await {
                Ok(text) => eprintln!("{text}"),
                Err(error) => eprintln!("no live view: {error:#}"),
            }
            shown = now;
        }
        Ok(if state["finished"] == true {
            Ok(())
        } else {
            Err(format!("height {}", state["height"]))
        })
    })
    .await
}

/// The chain's phase, and the exam that runs in it.
fn stage(state: &Value) -> String {
    let phase = state["phase"].as_str().unwrap_or_default();
    match state["exam"]["kind"].as_str() {
        Some(kind) => format!("{phase}, {kind} from {}", state["exam"]["start"]),
        None => phase.to_owned(),
    }
}

/// Every exam has its votes; the first Sprint is settled, so its record is sealed.
async fn recorded(runs: &Api<SprintRun>) -> Result<std::result::Result<Vec<SprintRun>, String>> {
    let mut all = runs.list(&ListParams::default()).await?.items;
    all.sort_by_key(|run| run.spec.poc_start_height);
    let told = |run: &&SprintRun| run.status.as_ref().is_some_and(|status| status.votes.is_some());
    let sealed = |run: &SprintRun| run.status.as_ref().is_some_and(|status| status.sealed_time.is_some());
    let voted = all.iter().filter(told).count();
    Ok(if voted >= 3 && all.first().is_some_and(sealed) {
        Ok(all)
    } else {
        let first = if all.first().is_some_and(sealed) {
            "sealed"
        } else {
            "open"
        };
        Err(format!(
            "{voted} of {} records have votes, the first is {first}",
            all.len()
        ))
    })
}

/// What an exam lost, when it lost anything but the tail that the network itself cuts off.
fn loss(run: &SprintRun) -> Option<String> {
    let status = run.status.as_ref()?;
    let harmless = matches!(status.cause, Cause::None | Cause::Preserved | Cause::TailUncommitted);
    let evidence = status.evidence.as_deref().unwrap_or_default();
    (!harmless).then(|| {
        format!(
            "{} {}: {}: {evidence}",
            run.spec.kind, run.spec.poc_start_height, status.cause
        )
    })
}

fn farewell(cluster: &Cluster, target: &Path, id: u8) -> String {
    format!(
        "The cluster stays up. Look around:\n\n{}export PATH={}:$PATH\nkubectl get gonka -A\nkubectl gonka sprint\nkubectl gonka runs --slots\n\nStop: make down CLUSTER={id}\nThe network is at {}.",
        cluster.shell_exports(),
        target.join("debug").display(),
        cluster.options().map_or_else(
            |_| String::new(),
            |options| options.id.address(Machine::Network).to_string()
        ),
    )
}
