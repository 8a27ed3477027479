//! The real-time driver: the state machine behind a lock, its effects turned into timers, requests, files and
//! computation. Decides nothing.

pub mod clock;
pub mod node_client;
pub mod ports;
pub mod run;

use crate::{
    event::{Effect, Event},
    faults::Port,
    network::Network,
    step::step,
    views::View,
};
use clock::Clock;
use node_client::NodeClient;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// What servers, timers and workers share.
#[derive(Debug)]
pub struct Shared {
    net: Mutex<Network>,
    effects: mpsc::UnboundedSender<Effect>,
    heights: watch::Sender<i64>,
    pub clock: Clock,
    pub nodes: NodeClient,
    /// Ports as bound, for answers that name them and for the record of requests.
    pub ports: ports::Numbers,
}

impl Shared {
    pub fn new(net: Network, clock: Clock, ports: ports::Numbers) -> (Arc<Self>, mpsc::UnboundedReceiver<Effect>) {
        let (effects, receiver) = mpsc::unbounded_channel();
        let shared = Self {
            net: Mutex::new(net),
            effects,
            heights: watch::Sender::new(0),
            clock,
            nodes: NodeClient::default(),
            ports,
        };
        (Arc::new(shared), receiver)
    }

    /// Looks at the network.
    pub fn read<R>(&self, look: impl FnOnce(&Network) -> R) -> R {
        look(&self.net.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the chain as a port serves it.
    pub fn view<R>(&self, port: Port, look: impl FnOnce(&View) -> R) -> R {
        self.read(|net| look(&View::new(net, port)))
    }

    /// Newest height that a port serves.
    pub fn newest(&self, port: Port) -> i64 {
        self.read(|net| View::new(net, port).height())
    }

    /// Changes the network by a request from outside; its effects follow.
    pub fn change<R>(&self, change: impl FnOnce(&mut Network) -> (R, Vec<Effect>)) -> R {
        let mut net = self.net.lock().unwrap_or_else(PoisonError::into_inner);
        net.now_ms = net.now_ms.max(self.clock.unix_ms());
        let (result, effects) = change(&mut net);
        self.send(effects);
        result
    }

    /// Tells the state machine what happened.
    pub fn tell(&self, event: Event) {
        let mut net = self.net.lock().unwrap_or_else(PoisonError::into_inner);
        let before = net.height();
        let effects = step(&mut net, self.clock.unix_ms(), event);
        let height = net.height();
        self.send(effects);
        drop(net);
        if height > before {
            self.heights.send_replace(height);
        }
    }

    /// Changes with every block.
    pub fn heights(&self) -> watch::Receiver<i64> {
        self.heights.subscribe()
    }

    fn send(&self, effects: Vec<Effect>) {
        for effect in effects {
            // The receiver is gone only while the program ends.
            let _ = self.effects.send(effect);
        }
    }
}
