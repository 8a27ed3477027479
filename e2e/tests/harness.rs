//! The harness against the kernel and real Kubernetes: one cluster for each behaviour that needs its own.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    args::Environment,
    harness::{
        Cluster, ClusterId, How, Machine, Options,
        cluster::Target,
        config::control_plane::Timing,
        doctor, network,
        process::{Cmd, until},
    },
};

fn options(id: u8, nodes: u8) -> Options {
    let timing = Timing {
        evict_seconds: 5,
        grace_seconds: 8,
    };
    Options {
        nodes,
        timing,
        ..Options::new(ClusterId::try_from(id).expect("the tests name ids of the plan"))
    }
}

/// Everything on this machine that carries the name of a cluster.
async fn traces(id: ClusterId) -> Result<Vec<String>> {
    let links = Cmd::new("ip").args(["-o", "link", "show"]).text().await?;
    let mut found = network::own_links(&links, id);
    found.extend(network::existing(id).await?);
    let routes = Cmd::new("ip")
        .args(["route", "show", "root", &id.network()])
        .text()
        .await?;
    found.extend(routes.lines().map(str::to_owned));
    for entry in std::fs::read_dir("/sys/fs/cgroup")
        .context("no control groups")?
        .flatten()
    {
        found.extend(
            entry
                .path()
                .join(id.prefix())
                .exists()
                .then(|| entry.path().display().to_string()),
        );
    }
    let run = Environment::read().state().join(format!("c{id}"));
    found.extend(run.exists().then(|| run.display().to_string()));
    Ok(found)
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn doctor_finds_nothing_wrong_and_down_leaves_nothing() -> Result<()> {
    let options = options(7, 2);
    Cluster::with_cluster(&Environment::read(), options, async |cluster| {
        let checks = doctor::examine(cluster).await?;
        ensure!(checks.iter().all(|c| c.outcome.is_ok()), "{}", doctor::table(&checks));
        let again = Cluster::up(&Environment::read(), options, |_| {}).await;
        let refusal = format!("{:#}", again.err().context("a cluster came up twice")?);
        ensure!(refusal.contains("already up"), "{refusal}");
        Ok(())
    })
    .await?;
    assert_eq!(traces(options.id).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn a_node_that_loses_power_is_noticed_and_comes_back_with_its_disk() -> Result<()> {
    Cluster::with_cluster(&Environment::read(), options(6, 2), async |cluster| {
        let write = |folder: &str| Cmd::new("sh").args(["-c", &format!("echo kept >{folder}/mark")]);
        for folder in ["/var/lib", "/run"] {
            cluster.inside(Machine::Node(2), write(folder))?.text().await?;
        }
        cluster.cut_node(2).await?;
        cluster.wait_node(2, false).await?;
        cluster.start_node(2).await?;
        cluster.wait_node(2, true).await?;
        let read = |path: &str| cluster.inside(Machine::Node(2), Cmd::new("cat").args([path]));
        ensure!(
            read("/var/lib/mark")?.text().await?.trim() == "kept",
            "the disk lost a file"
        );
        ensure!(read("/run/mark")?.text().await.is_err(), "/run outlived a power cut");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn components_stop_and_resume_one_by_one() -> Result<()> {
    Cluster::with_cluster(&Environment::read(), options(5, 1), async |cluster| {
        let api = Target::Component("kube-apiserver".into());
        for how in [How::Kill, How::Freeze] {
            cluster.stop_component(&api, None, how).await?;
            let ask = cluster
                .kubectl_command()
                .args(["get", "--raw", "/readyz", "--request-timeout=2s"]);
            ensure!(
                ask.text().await.is_err(),
                "the API server answers although stopped ({how:?})"
            );
            cluster.resume_component(&api, None).await?;
            let answers = until(Duration::from_secs(30), async || {
                cluster
                    .kubectl(&["get", "--raw", "/readyz"])
                    .await
                    .is_ok_and(|t| t == "ok")
            });
            ensure!(answers.await, "the API server does not answer after resume ({how:?})");
        }
        service_routing_stops_on_one_machine_only(cluster).await
    })
    .await
}

async fn service_routing_stops_on_one_machine_only(cluster: &Cluster) -> Result<()> {
    let url = format!("https://{}/version", cluster.options()?.id.kubernetes_service());
    // curl is not needed: the probe speaks HTTP, and a TLS port answers it with an error page, so any answer will do.
    let reach = async |machine| {
        let probe = Cmd::new(cluster.programs().join("probe"))
            .args(["get", &url.replace("https", "http").replace("/version", ":443/")]);
        let said = cluster.inside(machine, probe)?.finish().await?;
        Ok::<bool, anyhow::Error>(said.stderr.contains("400 Bad Request"))
    };
    ensure!(
        reach(Machine::Network).await?,
        "the service network is not reachable to begin with"
    );
    cluster
        .stop_component(&Target::ServiceRouting, Some(Machine::Network), How::Kill)
        .await?;
    ensure!(
        !reach(Machine::Network).await?,
        "services answer although their routing is stopped"
    );
    ensure!(reach(Machine::Node(1)).await?, "another machine lost its services too");
    cluster
        .resume_component(&Target::ServiceRouting, Some(Machine::Network))
        .await?;
    let back = until(Duration::from_secs(60), async || {
        reach(Machine::Network).await.unwrap_or(false)
    });
    ensure!(back.await, "services do not come back");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn two_clusters_run_side_by_side_and_settings_go_back_with_the_last() -> Result<()> {
    let setting = || std::fs::read_to_string("/proc/sys/kernel/panic_on_oops");
    let before = setting()?;
    let environment = Environment::read();
    let (one, two) = (
        Options {
            dns: false,
            ..options(3, 1)
        },
        Options {
            dns: false,
            ..options(4, 1)
        },
    );
    Cluster::with_cluster(&environment, one, async |first| {
        Cluster::with_cluster(&environment, two, async |second| {
            for cluster in [first, second] {
                let address = cluster
                    .kubectl(&["get", "node", "n1", "-o", "jsonpath={.status.addresses[0].address}"])
                    .await?;
                ensure!(
                    address == cluster.options()?.id.address(Machine::Node(1)).to_string(),
                    "{address}"
                );
            }
            Ok(())
        })
        .await?;
        ensure!(
            first.kubectl(&["get", "--raw", "/readyz"]).await? == "ok",
            "the first cluster went with the second"
        );
        Ok(())
    })
    .await?;
    assert_eq!(setting()?, before);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn what_a_crashed_run_left_is_cleared_by_the_next_up() -> Result<()> {
    let environment = Environment::read();
    let options = Options {
        dns: false,
        ..options(8, 1)
    };
    let first = Cluster::up(&environment, options, |_| {}).await?;
    // As after a crash: the processes are gone, everything else is still there.
    for machine in Machine::all(1) {
        let spec = environment
            .state()
            .join(format!("c{}/machines/{machine}/spec.json", options.id));
        let spec: e2e::harness::machine::Spec = e2e::harness::process::read_json(Path::new(&spec))?;
        spec.cut().await?;
    }
    drop(first);
    Cluster::with_cluster(&environment, options, async |cluster| {
        ensure!(cluster.kubectl(&["get", "--raw", "/readyz"]).await? == "ok");
        Ok(())
    })
    .await?;
    assert_eq!(traces(options.id).await?, Vec::<String>::new());
    Ok(())
}
