//! The address plan: every name and address of a cluster, computed from its id. Pure; two ids never overlap.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use anyhow::{Error, ensure};
use serde::{Deserialize, Serialize};

/// Clusters that can run side by side.
pub const MAX_CLUSTER: u8 = 9;
/// Nodes per cluster; more addresses than one machine can carry nodes.
pub const MAX_NODES: u8 = 50;
pub const API_PORT: u16 = 6443;

/// Which cluster, 1 to 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct ClusterId(u8);

impl TryFrom<u8> for ClusterId {
    type Error = Error;

    fn try_from(id: u8) -> Result<Self, Error> {
        ensure!(
            (1..=MAX_CLUSTER).contains(&id),
            "cluster id {id} is not in 1..={MAX_CLUSTER}"
        );
        Ok(Self(id))
    }
}

impl From<ClusterId> for u8 {
    fn from(id: ClusterId) -> Self {
        id.0
    }
}

impl FromStr for ClusterId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let id: u8 = text
            .parse()
            .map_err(|_| Error::msg(format!("cluster id {text:?} is not a number")))?;
        Self::try_from(id)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl ClusterId {
    /// The beginning of every name this cluster gives to something on the host; also its bridge and its cgroup.
    pub fn prefix(self) -> String {
        format!("gf{}", self.0)
    }

    /// Everything of this cluster but its services.
    pub fn network(self) -> String {
        format!("10.{}.0.0/16", 100 + self.0)
    }

    fn host(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 100 + self.0, 0, last)
    }

    /// The host's own address on the bridge.
    pub fn gateway(self) -> Ipv4Addr {
        self.host(1)
    }

    pub fn address(self, machine: Machine) -> Ipv4Addr {
        match machine {
            Machine::ControlPlane => self.host(2),
            Machine::Network => self.host(3),
            Machine::Node(n) => self.host(10 + n),
        }
    }

    pub fn pods(self, node: u8) -> String {
        format!("10.{}.{}.0/24", 100 + self.0, 10 + node)
    }

    pub fn services(self) -> String {
        format!("10.{}.0.0/16", 110 + self.0)
    }

    /// First address of the service network: the API server as pods see it.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 110 + self.0, 0, 1)
    }

    pub fn dns_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 110 + self.0, 0, 10)
    }

    pub fn api_server(self) -> String {
        format!("{}:{API_PORT}", self.address(Machine::ControlPlane))
    }

    pub fn netns(self, machine: Machine) -> String {
        format!("{}-{machine}", self.prefix())
    }
}

/// One network namespace with a process 1 of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Machine {
    ControlPlane,
    Network,
    Node(u8),
}

impl Machine {
    /// All machines of a cluster, the control plane first.
    pub fn all(nodes: u8) -> impl Iterator<Item = Self> {
        [Self::ControlPlane, Self::Network]
            .into_iter()
            .chain((1..=nodes).map(Self::Node))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlPlane => f.write_str("cp"),
            Self::Network => f.write_str("net"),
            Self::Node(n) => write!(f, "n{n}"),
        }
    }
}

impl FromStr for Machine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "cp" => Ok(Self::ControlPlane),
            "net" => Ok(Self::Network),
            _ => match text.strip_prefix('n').and_then(|n| n.parse().ok()) {
                Some(n @ 1..=MAX_NODES) => Ok(Self::Node(n)),
                _ => Err(Error::msg(format!(
                    "machine {text:?} is none of cp, net, n1..n{MAX_NODES}"
                ))),
            },
        }
    }
}

impl TryFrom<String> for Machine {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Machine> for String {
    fn from(machine: Machine) -> Self {
        machine.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(n: u8) -> ClusterId {
        ClusterId::try_from(n).unwrap()
    }

    #[test]
    fn addresses_follow_the_published_plan() {
        let c = id(8);
        assert_eq!(c.gateway().to_string(), "10.108.0.1");
        assert_eq!(c.address(Machine::ControlPlane).to_string(), "10.108.0.2");
        assert_eq!(c.address(Machine::Network).to_string(), "10.108.0.3");
        assert_eq!(c.address(Machine::Node(1)).to_string(), "10.108.0.11");
        assert_eq!(c.pods(3), "10.108.13.0/24");
        assert_eq!(c.services(), "10.118.0.0/16");
        assert_eq!(c.dns_service().to_string(), "10.118.0.10");
        assert_eq!(c.api_server(), "10.108.0.2:6443");
        assert_eq!(c.netns(Machine::Node(2)), "gf8-n2");
    }

    #[test]
    fn no_two_clusters_share_a_network_or_a_name() {
        let mut seen = BTreeSet::new();
        for c in (1..=MAX_CLUSTER).map(id) {
            assert!(seen.insert(c.network()));
            assert!(seen.insert(c.services()));
            assert!(seen.insert(c.prefix()));
        }
    }

    #[test]
    fn interface_names_fit_the_kernel_and_last_node_fits_the_network() {
        let c = id(MAX_CLUSTER);
        assert!(Machine::all(MAX_NODES).all(|m| c.netns(m).len() < 16));
        assert_eq!(c.address(Machine::Node(MAX_NODES)).octets()[3], 60);
    }

    #[test]
    fn machine_names_round_trip_and_strangers_are_refused() {
        for m in Machine::all(3) {
            assert_eq!(m.to_string().parse::<Machine>().unwrap(), m);
        }
        for bad in ["", "n", "n0", "n51", "n1x", "node1", "CP"] {
            assert!(bad.parse::<Machine>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cluster_ids_outside_the_plan_are_refused() {
        for bad in ["0", "10", "-1", "x", ""] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad}");
        }
    }
}
