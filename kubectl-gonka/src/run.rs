//! The commands, each as: fetch, render, print.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result};

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;

use crds::gpu_node::{Maintenance, MaintenanceState, PreferredHours};

use crate::args::{Args, Command};
use crate::clock::Clock;
use crate::{fetch, maintain, plan, runs, sprint, window};

/// Runs one command, writing to `out`.
pub(crate) async fn run(args: Args, out: &mut impl Write) -> Result<()> {
    let Args {
        context,
        system_namespace,
        command,
    } = args;
    let client = fetch::client(context).await?;
    match command {
        Command::Sprint { watch, json } => loop {
            let text = sprint_text(&client, &system_namespace, json).await?;
            if watch.is_some() {
                out.write_all(b"\x1b[2J\x1b[H").context("the terminal is gone")?;
            }
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .context("the terminal is gone")?;
            let Some(seconds) = watch else { return Ok(()) };
            tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
        },
        Command::Window { history, days, utc } => {
            let (schedules, hosts) = (fetch::schedules(&client).await?, fetch::hosts(&client).await?);
            show(out, &window::render(&schedules, &hosts, days, &clock(utc)))?;
            if !history {
                return Ok(());
            }
            let answers = fetch::gate(&client, &system_namespace).await?;
            show(out, &window::history(&answers, &clock(utc)))
        }
        Command::Plan { utc } => {
            let (machines, deployments) = (fetch::machines(&client).await?, fetch::deployments(&client).await?);
            show(out, &plan::render(&machines, &deployments, &clock(utc)))
        }
        Command::Maintain {
            machine,
            reason,
            minutes,
            preferred,
            zone,
            done,
            utc,
        } => {
            let wish = if done {
                Maintenance::default()
            } else {
                Maintenance {
                    state: MaintenanceState::Requested,
                    reason,
                    expected_minutes: minutes,
                    preferred: preferred.map(|(from, until)| PreferredHours {
                        from,
                        until,
                        time_zone: zone,
                    }),
                    not_after_time: None,
                }
            };
            maintain::wish(&client, &machine, &wish).await?;
            let answered = maintain::answered(&client, &machine, !done).await?;
            show(out, &maintain::render(&answered, &clock(utc)))
        }
        Command::Runs {
            host,
            namespace,
            limit,
            slots,
        } => {
            let mut found = fetch::runs(&client, namespace.as_deref()).await?;
            found.retain(|run| host.as_deref().is_none_or(|host| run.spec.host_ref.name == host));
            found.truncate(limit);
            show(out, &runs::render(&found, slots))
        }
    }
}

fn show(out: &mut impl Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes()).context("the terminal is gone")
}

fn clock(utc: bool) -> Clock {
    Clock {
        now: Timestamp::now(),
        zone: if utc { TimeZone::UTC } else { TimeZone::system() },
    }
}

async fn sprint_text(client: &kube::Client, system_namespace: &str, json: bool) -> Result<String> {
    let hosts = fetch::hosts(client).await?;
    match fetch::view(client, system_namespace).await {
        Ok(view) if json => Ok(serde_json::to_string_pretty(&view).context("a view is JSON")? + "\n"),
        Ok(view) => Ok(sprint::render(&view, &hosts)),
        Err(error) if json => Err(error),
        Err(error) => Ok(sprint::render_fallback(
            &fetch::schedules(client).await?,
            &hosts,
            &format!("{error:#}"),
        )),
    }
}
