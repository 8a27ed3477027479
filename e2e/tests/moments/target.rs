//! What can die or misbehave, whom it hurts, and what must count all the same. Pure.

use std::fmt;

use crate::grid::Moment;

/// What is struck.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    Operator,
    Serve,
    Hold,
    Engine,
    NodeAgent,
    Dapi,
    ApiServer,
    Etcd,
    CoreDns,
    KubeProxy,
    Kubelet,
    Containerd,
    RpcEndpoint,
    Node,
    /// Cut off both ways, later healed; everything on it runs on.
    IsolatedNode,
    /// No block for a while.
    BlockStall,
    /// Three blocks at once.
    BlockBurst,
    /// One endpoint serves other blocks than the rest.
    ForkedEndpoint,
    /// One endpoint's height goes back.
    HeightBack,
    /// Every endpoint's times are five seconds off the machines' clocks.
    Clocks,
    /// DAPI answers callbacks with 503.
    CallbacksRefused,
    /// DAPI answers callbacks with 400.
    CallbacksWrong,
    /// DAPI does not answer callbacks.
    CallbacksHang,
    /// DAPI forgets its nodes.
    Database,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator (leader)",
            Self::Serve => "serve",
            Self::Hold => "hold (container)",
            Self::Engine => "engine",
            Self::NodeAgent => "node-agent",
            Self::Dapi => "DAPI",
            Self::ApiServer => "kube-apiserver",
            Self::Etcd => "etcd",
            Self::CoreDns => "CoreDNS",
            Self::KubeProxy => "kube-proxy",
            Self::Kubelet => "kubelet",
            Self::Containerd => "containerd",
            Self::RpcEndpoint => "one RPC endpoint",
            Self::Node => "whole node",
            Self::IsolatedNode => "a node's network, both ways",
            Self::BlockStall => "block production",
            Self::BlockBurst => "three blocks at once",
            Self::ForkedEndpoint => "one endpoint's blocks differ",
            Self::HeightBack => "one endpoint's height goes back",
            Self::Clocks => "clocks, 5 s off",
            Self::CallbacksRefused => "callbacks answered 503",
            Self::CallbacksWrong => "callbacks answered 400",
            Self::CallbacksHang => "callbacks not answered",
            Self::Database => "DAPI's database",
        })
    }
}

/// Whose nonces a strike may cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Blast {
    /// The slot it hits.
    Slot,
    /// Nobody's: slots do not need it during an exam. Judged by every slot that nothing else hits.
    Nobody,
}

impl Target {
    /// Whose nonces it may cost.
    pub fn blast(self) -> Blast {
        match self {
            Self::Serve | Self::Hold | Self::Engine | Self::Node | Self::IsolatedNode => Blast::Slot,
            _ => Blast::Nobody,
        }
    }

    /// A machine goes with it, so its slot moves.
    pub fn takes_a_machine(self) -> bool {
        matches!(self, Self::Node | Self::IsolatedNode)
    }

    /// For how long it is away, milliseconds; absent where something else brings it back.
    pub fn away_millis(self) -> Option<u64> {
        match self {
            Self::Operator
            | Self::Serve
            | Self::Hold
            | Self::Engine
            | Self::NodeAgent
            | Self::BlockBurst
            | Self::Database => None,
            Self::Dapi => Some(2_000),
            Self::BlockStall | Self::CallbacksRefused | Self::CallbacksWrong | Self::CallbacksHang => Some(3_000),
            Self::RpcEndpoint | Self::ForkedEndpoint | Self::HeightBack | Self::Clocks => Some(10_000),
            Self::ApiServer
            | Self::Etcd
            | Self::CoreDns
            | Self::KubeProxy
            | Self::Kubelet
            | Self::Containerd
            | Self::Node => Some(5_000),
            Self::IsolatedNode => Some(30_000),
        }
    }

    /// What must count of what was possible, per mille. Where the machine that computes lives, only what was being computed
    /// or nobody had asked for may be missing.
    pub fn must_count(self, moment: Moment) -> u64 {
        match (self, moment) {
            // DAPI asks no node to start that it got to know in a Sprint, so what it lost at the start is lost.
            (Self::Database, Moment::Before | Moment::Start) => 0,
            // The slot moves: six seconds until silence is noticed, three until it is believed. Should the operator's leader
            // go with the machine, its lease of fifteen seconds runs out first: two machines' worth of bad luck, which
            // `grid::place` avoids where it can.
            (Self::Node | Self::IsolatedNode, Moment::Before | Moment::Start | Moment::Middle) => 650,
            // Nodes are made again within five seconds.
            (Self::Database, Moment::Middle) => 800,
            // Too late for a spare or a retry to make up for; nobody asks while DAPI is away at the start; kubelet makes a
            // new container and the model is loaded again.
            (
                Self::Node
                | Self::IsolatedNode
                | Self::CallbacksRefused
                | Self::CallbacksWrong
                | Self::CallbacksHang
                | Self::Database
                | Self::Dapi,
                Moment::Tail,
            )
            | (Self::Dapi, Moment::Before | Moment::Start)
            | (Self::Hold, _) => 850,
            (Self::Engine, _) => 920,
            (Self::Serve | Self::Dapi, _) => 930,
            _ => 950,
        }
    }
}
