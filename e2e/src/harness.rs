//! A real Kubernetes cluster on one Linux machine, made of pinned binaries and kernel namespaces, without a container
//! engine and without a registry.
//!
//! ```text
//!   host ── bridge gfC ─┬─ gfC-cp   etcd, kube-apiserver, controller-manager, scheduler, kube-proxy
//!                       ├─ gfC-net  kube-proxy and whatever a test runs there (the simulated network)
//!                       └─ gfC-n1…  containerd, kubelet, kube-proxy and the pods of that node
//! ```
//!
//! [`plan`], [`config`], [`network`] and [`image`] are pure; [`process`] is the only file that starts programs;
//! [`init`] is process 1 of each machine; [`cluster`] ties them together.

pub mod build;
pub mod cgroup;
pub mod cluster;
pub mod config;
pub mod doctor;
pub mod image;
pub mod init;
pub mod machine;
pub mod network;
pub mod paths;
pub mod pki;
pub mod plan;
pub mod process;
pub mod registry;

pub use cluster::{Cluster, Options};
pub use machine::How;
pub use plan::{ClusterId, Machine};
