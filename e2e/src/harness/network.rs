//! The cluster's network: one bridge, one cable per machine, static routes to the pods of every node.
//!
//! Rendering is pure: lines for `ip -batch`. Service addresses need no route, since every machine runs a kube-proxy of
//! its own that translates them before routing; so no single node carries them.

use anyhow::{Context, Result, ensure};

use super::{
    plan::{ClusterId, Machine},
    process::Cmd,
};

/// Lines for the host: bridge, namespaces, cables, routes to pods.
pub fn host_lines(id: ClusterId, nodes: u8) -> Vec<String> {
    let bridge = id.prefix();
    let mut lines = vec![
        format!("link add {bridge} type bridge"),
        format!("addr add {}/24 dev {bridge}", id.gateway()),
        format!("link set {bridge} up"),
    ];
    for machine in Machine::all(nodes) {
        let netns = id.netns(machine);
        lines.push(format!("netns add {netns}"));
        lines.push(format!("link add {netns} type veth peer name eth0 netns {netns}"));
        lines.push(format!("link set {netns} master {bridge} up"));
    }
    lines.extend(pod_routes(id, nodes, None));
    lines
}

/// Lines inside one machine's namespace.
pub fn machine_lines(id: ClusterId, nodes: u8, machine: Machine) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".into(),
        format!("addr add {}/24 dev eth0", id.address(machine)),
        "link set eth0 up".into(),
        format!("route add default via {}", id.gateway()),
    ];
    lines.extend(pod_routes(id, nodes, Some(machine)));
    lines
}

fn pod_routes(id: ClusterId, nodes: u8, except: Option<Machine>) -> impl Iterator<Item = String> {
    let others = (1..=nodes).filter(move |n| Some(Machine::Node(*n)) != except);
    others.map(move |n| format!("route add {} via {}", id.pods(n), id.address(Machine::Node(n))))
}

async fn batch(netns: Option<&str>, lines: &[String]) -> Result<()> {
    let mut ip = Cmd::new("ip");
    if let Some(netns) = netns {
        ip = ip.args(["-n", netns]);
    }
    ip.args(["-batch", "-"])
        .stdin_bytes(lines.join("\n") + "\n")
        .text()
        .await
        .map(drop)
}

/// Refuses when this machine already uses the addresses for something else.
pub async fn check_free(id: ClusterId) -> Result<()> {
    let routes = Cmd::new("ip")
        .args(["route", "show", "table", "all", "root", &id.network()])
        .text()
        .await?;
    ensure!(
        routes.trim().is_empty(),
        "addresses of cluster {id} ({}) are in use on this machine:\n{}\nchoose another cluster id, or run `harness down --cluster {id}` if they are leftovers",
        id.network(),
        routes.trim()
    );
    Ok(())
}

pub async fn make(id: ClusterId, nodes: u8) -> Result<()> {
    batch(None, &host_lines(id, nodes))
        .await
        .context("cannot make the cluster's bridge and namespaces")?;
    for machine in Machine::all(nodes) {
        batch(Some(&id.netns(machine)), &machine_lines(id, nodes, machine)).await?;
    }
    Ok(())
}

/// Names of this cluster's network namespaces that exist now.
pub async fn existing(id: ClusterId) -> Result<Vec<String>> {
    let list = Cmd::new("ip").args(["netns", "list"]).text().await?;
    let own = format!("{}-", id.prefix());
    let names = list
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .filter(|n| n.starts_with(&own));
    Ok(names.map(Into::into).collect())
}

/// Processes that use a namespace, as `ip netns pids` sees them.
pub async fn processes_in(netns: &str) -> Result<Vec<i32>> {
    let list = Cmd::new("ip").args(["netns", "pids", netns]).text().await?;
    Ok(list.split_whitespace().filter_map(|p| p.parse().ok()).collect())
}

/// Removes whatever of the cluster's network exists; nothing there is no error.
pub async fn remove(id: ClusterId) -> Result<()> {
    for netns in existing(id).await? {
        Cmd::new("ip").args(["netns", "del", &netns]).text().await?;
    }
    let links = Cmd::new("ip").args(["-o", "link", "show"]).text().await?;
    for link in own_links(&links, id) {
        // Deleting a namespace takes its cable along a moment later, so this one may be gone by now.
        Cmd::new("ip").args(["link", "del", &link]).finish().await?;
    }
    Ok(())
}

/// Host interfaces of this cluster in the output of `ip -o link`.
pub fn own_links(listing: &str, id: ClusterId) -> Vec<String> {
    let (bridge, own) = (id.prefix(), format!("{}-", id.prefix()));
    let names = listing
        .lines()
        .filter_map(|l| l.split(':').nth(1))
        .filter_map(|n| n.trim().split('@').next());
    names
        .filter(|n| *n == bridge || n.starts_with(&own))
        .map(Into::into)
        .collect()
}

/// A machine's network cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    Out,
    In,
}

/// Pulls or plugs the host's end; addresses and routes stay, as they do on a real machine.
pub async fn set_cable(id: ClusterId, machine: Machine, cable: Cable) -> Result<()> {
    let state = match cable {
        Cable::Out => "down",
        Cable::In => "up",
    };
    Cmd::new("ip")
        .args(["link", "set", "dev", &id.netns(machine), state])
        .text()
        .await
        .map(drop)
        .with_context(|| format!("the cable of {machine} was not set {state}"))
}

/// Packet rules and the pod bridge do not survive a reboot of a real machine, but a namespace keeps them.
pub async fn reset_as_after_boot(id: ClusterId, machine: Machine) -> Result<()> {
    let netns = id.netns(machine);
    in_netns(&netns, Cmd::new("nft").args(["flush", "ruleset"]))
        .text()
        .await?;
    Cmd::new("ip")
        .args(["-n", &netns, "link", "del", "cni0"])
        .finish()
        .await?;
    Ok(())
}

/// Takes away the service translation that kube-proxy left behind, IPv4 and IPv6.
pub async fn flush_service_rules(id: ClusterId, machine: Machine) -> Result<()> {
    let netns = id.netns(machine);
    for family in ["ip", "ip6"] {
        // `add` first makes the removal succeed whether or not the table is there.
        let script = format!("add table {family} kube-proxy\ndelete table {family} kube-proxy\n");
        in_netns(&netns, Cmd::new("nft").args(["-f", "-"]))
            .stdin_bytes(script)
            .text()
            .await?;
    }
    Ok(())
}

/// The same command line, run inside a named network namespace.
pub fn in_netns(netns: &str, command: Cmd) -> Cmd {
    command.inside(["nsenter", &format!("--net=/run/netns/{netns}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ClusterId {
        ClusterId::try_from(8).unwrap()
    }

    #[test]
    fn every_machine_reaches_the_pods_of_every_other_node_directly() {
        let routes = |m| {
            machine_lines(id(), 2, m)
                .into_iter()
                .filter(|l| l.contains("10.108.1"))
                .collect::<Vec<_>>()
        };
        let to_both = [
            "route add 10.108.11.0/24 via 10.108.0.11",
            "route add 10.108.12.0/24 via 10.108.0.12",
        ];
        assert_eq!(routes(Machine::ControlPlane), to_both);
        assert_eq!(routes(Machine::Network), to_both);
        assert_eq!(routes(Machine::Node(1)), to_both[1..]);
    }

    #[test]
    fn no_machine_has_a_route_for_services() {
        let all = Machine::all(3)
            .flat_map(|m| machine_lines(id(), 3, m))
            .chain(host_lines(id(), 3));
        assert!(all.into_iter().all(|l| !l.contains("10.118.")));
    }

    #[test]
    fn only_links_of_this_cluster_are_its_own() {
        let listing =
            "1: lo: <UP>\n5: gf8: <UP>\n6: gf8-n1@if2: <UP>\n7: gf80: <UP>\n8: gf9-n1@if2: <UP>\n9: xgf8-n1: <>\n";
        assert_eq!(own_links(listing, id()), ["gf8", "gf8-n1"]);
    }
}
