//! What is broken at the moment: per port of the network, and on the chain as a whole. Decided by [`crate::verbs`], read
//! by the servers at every request.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Number of chain endpoints.
pub const ENDPOINTS: usize = 3;

/// A listening socket of the simulated network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Port {
    /// CometBFT RPC of an endpoint, from 0.
    Rpc(usize),
    /// REST of an endpoint, from 0.
    Rest(usize),
    DapiPublic,
    DapiMl,
    DapiAdmin,
}

impl Port {
    pub const DAPI: [Self; 3] = [Self::DapiPublic, Self::DapiMl, Self::DapiAdmin];

    /// Every port but the control API's, which nothing breaks.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ENDPOINTS)
            .flat_map(|index| [Self::Rpc(index), Self::Rest(index)])
            .chain(Self::DAPI)
    }

    /// The endpoint whose view of the chain this port serves.
    pub fn endpoint(self) -> Option<usize> {
        match self {
            Self::Rpc(index) | Self::Rest(index) => Some(index),
            Self::DapiPublic | Self::DapiMl | Self::DapiAdmin => None,
        }
    }
}

/// What a verb is aimed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Ports(Vec<Port>),
    Chain,
    /// One of our ML nodes, by its id.
    Node(String),
}

impl Target {
    /// `rpc/2`, `rest/2`, `endpoint/2`, `dapi`, `dapi/admin`, `chain`, `node/ID`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        let endpoint = || {
            rest.parse::<usize>()
                .ok()
                .and_then(|number| number.checked_sub(1))
                .filter(|index| *index < ENDPOINTS)
        };
        let ports = match (kind, rest) {
            ("chain", "") => return Some(Self::Chain),
            ("node", id) if !id.is_empty() => return Some(Self::Node(id.to_owned())),
            ("dapi", "") => Port::DAPI.to_vec(),
            ("dapi", "public") => vec![Port::DapiPublic],
            ("dapi", "ml") => vec![Port::DapiMl],
            ("dapi", "admin") => vec![Port::DapiAdmin],
            ("rpc", _) => vec![Port::Rpc(endpoint()?)],
            ("rest", _) => vec![Port::Rest(endpoint()?)],
            ("endpoint", _) => vec![Port::Rpc(endpoint()?), Port::Rest(endpoint()?)],
            _ => return None,
        };
        Some(Self::Ports(ports))
    }
}

/// What is wrong with one port.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PortFault {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Blocks after this height differ from everybody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_after: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halt_at: Option<i64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lies: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub skew_ms: i64,
    /// Heights are shown so many blocks too high, or too low.
    #[serde(skip_serializing_if = "is_zero")]
    pub off_by: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<String>,
    /// Requests lost, of a hundred.
    #[serde(skip_serializing_if = "is_none_lost")]
    pub lost_percent: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_lost(percent: &u32) -> bool {
    *percent == 0
}

/// Everything that is broken.
#[derive(Debug, Clone)]
pub struct Faults {
    ports: BTreeMap<Port, PortFault>,
    /// The chain makes no block above this height.
    pub chain_halts_at: Option<i64>,
    /// Share of voting power that votes against a host (its index) in its next exam.
    pub vote_invalid: BTreeMap<usize, f64>,
    /// Prices and the emission, against those of the parameters.
    pub price_percent: u32,
    /// Share of a host's nodes (its index), in percent, that starts in its next exam.
    pub partial_starts: BTreeMap<usize, u32>,
    /// Chances taken so far, so that each is another.
    pub drawn: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            ports: BTreeMap::new(),
            chain_halts_at: None,
            vote_invalid: BTreeMap::new(),
            price_percent: 100,
            partial_starts: BTreeMap::new(),
            drawn: 0,
        }
    }
}

impl Faults {
    pub fn port(&self, port: Port) -> PortFault {
        self.ports.get(&port).cloned().unwrap_or_default()
    }

    /// What is wrong with a port, where something is.
    pub fn known(&self, port: Port) -> Option<&PortFault> {
        self.ports.get(&port)
    }

    pub fn port_mut(&mut self, port: Port) -> &mut PortFault {
        self.ports.entry(port).or_default()
    }

    pub fn clear(&mut self, port: Port) {
        self.ports.remove(&port);
    }

    /// Ports with something wrong, for people.
    pub fn shown(&self) -> BTreeMap<String, &PortFault> {
        self.ports
            .iter()
            .filter(|(_, fault)| **fault != PortFault::default())
            .map(|(port, fault)| (port.name(), fault))
            .collect()
    }
}

impl Port {
    /// As targets are written.
    pub fn name(self) -> String {
        match self {
            Self::Rpc(index) => format!("rpc/{}", index + 1),
            Self::Rest(index) => format!("rest/{}", index + 1),
            Self::DapiPublic => "dapi/public".to_owned(),
            Self::DapiMl => "dapi/ml".to_owned(),
            Self::DapiAdmin => "dapi/admin".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_found_under_its_name() {
        for port in Port::all() {
            assert_eq!(Target::parse(&port.name()), Some(Target::Ports(vec![port])));
        }
        assert_eq!(
            Target::parse("endpoint/3"),
            Some(Target::Ports(vec![Port::Rpc(2), Port::Rest(2)]))
        );
        assert_eq!(Target::parse("chain"), Some(Target::Chain));
        assert_eq!(Target::parse("node/a/b"), Some(Target::Node("a/b".to_owned())));
        for nothing in ["rpc/0", "rpc/4", "rpc", "dapi/x", "", "chain/1", "node", "node/"] {
            assert_eq!(Target::parse(nothing), None, "{nothing}");
        }
    }
}
