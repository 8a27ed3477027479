//! The network as its APIs show it: pure functions from state to JSON, one module per door. Shapes are those recorded
//! from version 0.2.14 (`tests/recorded/`): the chain's REST has whole numbers as strings and zeros present, DAPI has
//! numbers and leaves zeros out.

pub mod admin;
pub mod control;
pub mod dapi;
pub mod rest_cosmos;
pub mod rest_epoch;
pub mod rest_exam;
pub mod rest_host;
pub mod rpc;
pub mod setup;

use crate::{
    blocks::Block,
    faults::{Port, PortFault},
    identity,
    network::{Confirmation, Network},
    stages::Stages,
    time,
};

/// One endpoint's view of the chain: it may lag behind, have other blocks, or a wrong clock.
#[derive(Debug)]
pub struct View<'a> {
    pub net: &'a Network,
    pub endpoint: usize,
    pub fault: PortFault,
}

impl<'a> View<'a> {
    pub fn new(net: &'a Network, port: Port) -> Self {
        Self {
            net,
            endpoint: port.endpoint().unwrap_or_default(),
            fault: net.faults.port(port),
        }
    }

    /// Newest height this endpoint has.
    pub fn height(&self) -> i64 {
        let seen = self.net.height().min(self.fault.halt_at.unwrap_or(i64::MAX));
        if seen == 0 {
            0
        } else {
            (seen + self.fault.off_by).max(1)
        }
    }

    pub fn block(&self, height: i64) -> Option<Block> {
        if height > self.height() {
            return None;
        }
        let mut block = match self.net.block(height) {
            Some(block) => block.clone(),
            None => self.invented(height)?,
        };
        block.unix_ms = block.unix_ms.saturating_add_signed(self.fault.skew_ms);
        if self.fault.forked_after.is_some_and(|last| height > last) {
            let endpoint = self.endpoint.to_string();
            block.hash = identity::upper_hash(&["fork", &endpoint, &block.hash]);
        }
        Some(block)
    }

    /// A block that nobody made, of an endpoint that is ahead of everybody.
    fn invented(&self, height: i64) -> Option<Block> {
        let newest = self
            .net
            .block(self.net.height())
            .filter(|newest| newest.height < height)?;
        Some(Block {
            height,
            unix_ms: newest.unix_ms,
            hash: identity::upper_hash(&["jump", &self.endpoint.to_string(), &height.to_string()]),
        })
    }

    /// The chain's name as this endpoint has it.
    pub fn chain_id(&self) -> &str {
        self.fault
            .chain_id
            .as_deref()
            .unwrap_or(&self.net.scenario.network.chain_id)
    }

    /// Server time in Unix seconds, as a REST header shows it.
    pub fn unix_seconds(&self) -> u64 {
        self.net.now_ms.saturating_add_signed(self.fault.skew_ms) / 1000
    }

    pub fn latest_epoch(&self) -> u64 {
        self.net.lengths().latest_epoch(self.height())
    }

    pub fn effective_epoch(&self) -> u64 {
        self.net.lengths().effective_epoch(self.height())
    }

    pub fn stages(&self) -> Stages {
        self.net.lengths().stages(self.latest_epoch())
    }

    /// The announced confirmation, as far as this endpoint has come.
    pub fn confirmation(&self) -> Option<&'a Confirmation> {
        self.net.confirmation_at(self.height())
    }
}

/// Phase of a confirmation at a height: number and name.
pub fn confirmation_phase(event: &Confirmation, height: i64) -> (u8, &'static str) {
    let window = event.window;
    if height < window.start {
        (1, "CONFIRMATION_POC_GRACE_PERIOD")
    } else if height < window.validation_start {
        (2, "CONFIRMATION_POC_GENERATION")
    } else if height < window.validation_end {
        (3, "CONFIRMATION_POC_VALIDATION")
    } else {
        (4, "CONFIRMATION_POC_COMPLETED")
    }
}

/// The seed as the chain shows it: empty until generation starts.
pub fn shown_seed(event: &Confirmation, height: i64) -> &str {
    if height < event.window.start { "" } else { &event.seed }
}

/// When expiring grants of the test network expire: a year after its start.
pub fn expiry(net: &Network) -> String {
    const YEAR_MS: u64 = 365 * 86_400_000;
    time::rfc3339(net.started_ms + YEAR_MS)
}

/// A validator's consensus key in base64 and its address in upper-case hex.
pub fn consensus_key(net: &Network, host: usize) -> (String, String) {
    let key = identity::digest(&["consensus key", &net.hosts[host].address]);
    let address = identity::upper_hash(&["consensus address", &net.hosts[host].address]);
    (kernels::artifact::to_base64(&key), address[..40].to_owned())
}
