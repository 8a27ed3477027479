//! Listening sockets: bound together at the start, closed and opened again by verbs.

use crate::faults::{ENDPOINTS, Port};
use serde::Serialize;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
};
use thiserror::Error;
use tokio::net::TcpListener;

const RPC: u16 = 26657;
const REST: u16 = 1317;
const CONTROL: u16 = 9999;
/// From one chain endpoint to the next.
const STEP: u16 = 10;

/// Why a port cannot be served.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: is another simulator running, or the address not on this machine?")]
pub struct Error {
    address: SocketAddr,
    source: io::Error,
}

/// How port numbers are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The well-known ones plus an offset.
    Offset(u16),
    /// Whatever is free.
    Ephemeral,
}

/// The numbers of all ports, printed at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Numbers {
    pub rpc: Vec<u16>,
    pub rest: Vec<u16>,
    pub dapi: DapiNumbers,
    pub control: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DapiNumbers {
    pub public: u16,
    pub ml: u16,
    pub admin: u16,
}

impl Numbers {
    pub fn of(&self, port: Port) -> u16 {
        match port {
            Port::Rpc(index) => self.rpc[index],
            Port::Rest(index) => self.rest[index],
            Port::DapiPublic => self.dapi.public,
            Port::DapiMl => self.dapi.ml,
            Port::DapiAdmin => self.dapi.admin,
        }
    }
}

fn well_known(port: Port) -> u16 {
    match port {
        Port::Rpc(index) => RPC + STEP * index as u16,
        Port::Rest(index) => REST + STEP * index as u16,
        Port::DapiPublic => 9000,
        Port::DapiMl => 9100,
        Port::DapiAdmin => 9200,
    }
}

/// All sockets of the network, bound.
#[derive(Debug)]
pub struct Sockets {
    pub listeners: HashMap<Port, TcpListener>,
    pub control: TcpListener,
    pub numbers: Numbers,
}

/// Binds everything, or says what could not be.
pub async fn bind(ip: IpAddr, choice: Choice) -> Result<Sockets, Error> {
    let number = |well_known: u16| match choice {
        Choice::Offset(offset) => well_known.wrapping_add(offset),
        Choice::Ephemeral => 0,
    };
    let mut listeners = HashMap::new();
    for port in Port::all() {
        listeners.insert(port, listen(SocketAddr::new(ip, number(well_known(port)))).await?);
    }
    let control = listen(SocketAddr::new(ip, number(CONTROL))).await?;
    let of = |port: Port| listeners.get(&port).and_then(bound).unwrap_or_default();
    let numbers = Numbers {
        rpc: (0..ENDPOINTS).map(|index| of(Port::Rpc(index))).collect(),
        rest: (0..ENDPOINTS).map(|index| of(Port::Rest(index))).collect(),
        dapi: DapiNumbers {
            public: of(Port::DapiPublic),
            ml: of(Port::DapiMl),
            admin: of(Port::DapiAdmin),
        },
        control: bound(&control).unwrap_or_default(),
    };
    Ok(Sockets {
        listeners,
        control,
        numbers,
    })
}

fn bound(listener: &TcpListener) -> Option<u16> {
    listener.local_addr().ok().map(|address| address.port())
}

/// Binds one socket; `SO_REUSEADDR` is tokio's default, so a port that was closed a moment ago opens again.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error { address, source })
}
