//! `virtual-fleet run`: a plan, or a seed, to its end; prints what it came to, and the smallest story when something broke.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use virtual_fleet::fleet::{Outcome, run};
use virtual_fleet::minimise::minimise;
use virtual_fleet::plan::Plan;
use virtual_fleet::story::{Weather, draw};
use virtual_fleet::table;

#[derive(Parser)]
#[command(about = "A whole fleet in virtual time", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a plan, or one drawn from a seed.
    Run(Run),
}

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Run {
    /// A plan; without one a short network's is drawn.
    plan: Option<PathBuf>,
    /// Seed of a drawn plan.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Epochs of a drawn plan.
    #[arg(long, default_value_t = 20)]
    epochs: u64,
    /// A month of the main network instead.
    #[arg(long)]
    month: bool,
    /// Moments of a drawn story, in 100 epochs.
    #[arg(long, default_value_t = 0)]
    moments: u64,
    /// An exam that lost weight fails the run.
    #[arg(long)]
    strict: bool,
    /// Lines of the table.
    #[arg(long, default_value_t = 10)]
    rows: usize,
    /// Print the newest lines of the history too.
    #[arg(long)]
    history: bool,
    /// Print the plan and run nothing.
    #[arg(long)]
    plan_only: bool,
}

fn main() -> Result<()> {
    let Command::Run(args) = Args::parse().command;
    let plan = plan(&args)?;
    if args.plan_only {
        println!("{}", plan.write()?);
        return Ok(());
    }
    let begun = Instant::now();
    let outcome = run(&plan, args.strict).context("the plan cannot be run")?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} epochs, {} blocks, {} exams in {seconds:.1} s: {:.0} epochs/s; {} writes; at rest, deletions, records: {:?}",
        outcome.epochs,
        outcome.blocks,
        outcome.exams.len(),
        outcome.epochs as f64 / seconds,
        outcome.writes,
        outcome.looks,
    );
    println!("history: {} lines, {}", outcome.lines, outcome.digest);
    if args.history {
        outcome.newest.iter().for_each(|line| println!("{line}"));
    }
    println!("{}", table::shown(&outcome.exams, args.rows));
    println!("{}", table::by_cause(&outcome.exams));
    if outcome.violations.is_empty() {
        return Ok(());
    }
    explain(&plan, args.strict, &outcome)?;
    bail!("{} violations", outcome.violations.len());
}

fn plan(args: &Run) -> Result<Plan> {
    if let Some(path) = &args.plan {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        return Plan::read(&text).with_context(|| format!("{} is no plan", path.display()));
    }
    let mut plan = if args.month {
        Plan::month(args.seed)
    } else {
        Plan::devnet(args.seed, args.epochs)
    };
    let scenario = plan.scenario()?;
    let network = &scenario.network;
    let blocks = scenario.parameters.lengths.epoch_length * i64::try_from(network.epochs)?;
    let millis = blocks * i64::try_from(network.block_millis)?;
    let moments = usize::try_from(args.moments * network.epochs / 100)?;
    if moments > 0 {
        plan.story = draw(
            args.seed,
            &Weather {
                from_ms: 120_000.min(millis / 4),
                until_ms: millis,
                moments,
                machines: plan.fleet.machines,
                pods: u32::try_from(plan.fleet.slots + plan.fleet.spares)?,
            },
        );
    }
    Ok(plan)
}

/// Says what broke, and in which smallest story it still does.
fn explain(plan: &Plan, strict: bool, outcome: &Outcome) -> Result<()> {
    for violation in &outcome.violations {
        println!("{} at {} ms: {}", violation.rule, violation.at, violation.what);
    }
    let Some(first) = outcome.violations.first() else {
        return Ok(());
    };
    let rule = first.rule;
    let mut runs = 0;
    let story = minimise(&plan.story, |story| {
        runs += 1;
        let shorter = Plan {
            story: story.to_vec(),
            ..plan.clone()
        };
        run(&shorter, strict).is_ok_and(|outcome| outcome.violations.iter().any(|found| found.rule == rule))
    });
    println!(
        "\n# {rule} still breaks with {} of {} moments ({runs} runs):",
        story.len(),
        plan.story.len()
    );
    let smallest = Plan { story, ..plan.clone() };
    println!("{}", smallest.write()?);
    Ok(())
}
