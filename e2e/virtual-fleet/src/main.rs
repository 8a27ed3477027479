//! `virtual-fleet run`: a plan, or a seed, to its end; prints what it came to, and the smallest story when something broke.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use strum::VariantArray as _;
use virtual_fleet::check::machines::Machines;
use virtual_fleet::fleet::{Outcome, TOLERANCE_PERMILLE, run};
use virtual_fleet::lives::{digest, run_all};
use virtual_fleet::minimise::minimise;
use virtual_fleet::operator::Controller;
use virtual_fleet::plan::Plan;
use virtual_fleet::story::{Weather, draw};
use virtual_fleet::table::{self, Row};

/// Objects are made and dropped by the million: a fifth of a run was the C library's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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
    /// Cuts the epochs into so many independent runs, of this seed and those after it.
    #[arg(long, default_value_t = 1)]
    lives: u64,
    /// Lives side by side; as many as there are cores otherwise.
    #[arg(long)]
    cores: Option<usize>,
    /// Blocks of generation of an exam in a drawn plan; the main network has 35.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(8..=200))]
    exam_blocks: u64,
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
    let plans = plans(&args)?;
    if args.plan_only {
        for plan in &plans {
            println!("{}", plan.write()?);
        }
        return Ok(());
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let at_once = args.cores.unwrap_or(cores).clamp(1, plans.len());
    let begun = Instant::now();
    let outcomes = run_all(&plans, args.strict, at_once).context("the plan cannot be run")?;
    figures(&outcomes, begun.elapsed().as_secs_f64(), at_once);
    if args.history {
        let lines = outcomes.iter().flat_map(|outcome| &outcome.newest);
        lines.for_each(|line| println!("{line}"));
    }
    let exams: Vec<Row> = outcomes.iter().flat_map(|outcome| &outcome.exams).cloned().collect();
    println!("{}", table::shown(&exams, args.rows));
    println!("{}", table::by_cause(&exams));
    println!("{}", table::below(&exams, TOLERANCE_PERMILLE));
    let mut broken = 0;
    for (plan, outcome) in plans.iter().zip(&outcomes) {
        if !outcome.violations.is_empty() {
            broken += outcome.violations.len();
            explain(plan, args.strict, outcome)?;
        }
    }
    if broken > 0 {
        bail!("{broken} violations");
    }
    Ok(())
}

/// What the runs came to and what they took.
fn figures(outcomes: &[Outcome], seconds: f64, at_once: usize) {
    let sum = |part: fn(&Outcome) -> u64| outcomes.iter().map(part).sum::<u64>();
    let epochs = sum(|outcome| outcome.epochs);
    let rate = epochs as f64 / seconds;
    println!(
        "{epochs} epochs in {} lives, {} blocks, {} exams in {seconds:.1} s: {rate:.0} epochs/s, {:.0} on each of {at_once} cores",
        outcomes.len(),
        outcomes.iter().map(|outcome| outcome.blocks).sum::<i64>(),
        sum(|outcome| outcome.exams.len() as u64),
        rate / at_once as f64,
    );
    let per_epoch = |count: u64| count as f64 / epochs.max(1) as f64;
    let passes: Vec<String> = Controller::VARIANTS
        .iter()
        .map(|controller| {
            let count = outcomes
                .iter()
                .filter_map(|outcome| outcome.passes.get(controller))
                .sum();
            format!("{controller} {:.1}", per_epoch(count))
        })
        .collect();
    println!(
        "in an epoch: {:.1} writes; passes: {}",
        per_epoch(sum(|outcome| outcome.writes)),
        passes.join(", ")
    );
    println!(
        "looks at rest {}, deletions by the gate's leave {}, records {}, evictions refused {}",
        sum(|outcome| outcome.looks[0]),
        sum(|outcome| outcome.looks[1]),
        sum(|outcome| outcome.looks[2]),
        sum(|outcome| outcome.looks[3]),
    );
    let machines = |part: fn(&Machines) -> u64| outcomes.iter().map(|outcome| part(&outcome.machines)).sum::<u64>();
    println!(
        "machines: released {}, given back {}, evictions granted {}, reboots {}, switches set by strangers {}, looks at all switches {}; set aside {}, mended {}",
        machines(|done| done.released),
        machines(|done| done.given_back),
        machines(|done| done.evicted),
        machines(|done| done.rebooted),
        machines(|done| done.flipped),
        machines(|done| done.looks),
        machines(|done| done.set_aside),
        machines(|done| done.mended),
    );
    println!("history: {} lines, {}", sum(|outcome| outcome.lines), digest(outcomes));
}

/// The plan of a file, or one for each life.
fn plans(args: &Run) -> Result<Vec<Plan>> {
    if let Some(path) = &args.plan {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let plan = Plan::read(&text).with_context(|| format!("{} is no plan", path.display()))?;
        return Ok(vec![plan]);
    }
    let lives = args.lives.clamp(1, args.epochs.max(1));
    let seeds = (0..lives).map(|life| args.seed + life);
    seeds
        .map(|seed| {
            let plan = if args.month {
                Plan::month(seed)
            } else {
                Plan::devnet(seed, args.epochs.div_ceil(lives)).with_exams_of(args.exam_blocks)
            };
            // Every other story is of a host with two models.
            let two = args.moments > 0 && !args.month && !seed.is_multiple_of(2);
            let plan = if two { plan.with_two_deployments() } else { plan };
            with_story(plan, args.moments)
        })
        .collect()
}

/// A plan with a story drawn from its seed.
fn with_story(mut plan: Plan, moments: u64) -> Result<Plan> {
    let scenario = plan.scenario()?;
    let network = &scenario.network;
    let blocks = scenario.parameters.lengths.epoch_length * i64::try_from(network.epochs)?;
    let millis = blocks * i64::try_from(network.block_millis)?;
    let moments = usize::try_from(moments * network.epochs / 100)?;
    if moments > 0 {
        let from_ms = 120_000.min(millis / 4);
        plan.story = draw(plan.seed, &Weather::over(&plan.fleet, from_ms, millis, moments));
    }
    Ok(plan)
}

/// Says what broke, and in which smallest story it still does.
fn explain(plan: &Plan, strict: bool, outcome: &Outcome) -> Result<()> {
    println!("# seed {}", plan.seed);
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
