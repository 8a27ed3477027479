//! A device plugin that registers simulated GPUs as `nvidia.com/gpu` with a real kubelet.
//!
//! Observe, decide, apply: [`source`] reads the GPU file (and brings it from a ConfigMap to the node), [`decide`] says
//! what the kubelet is told, [`service`] and [`registration`] tell it. [`inventory`] reads the same files as the library in
//! `simulated-nvml`, from the same table of keys; the tests hold both parsers to the same samples and the same refusals.

pub mod args;
pub mod decide;
pub mod inventory;
pub mod registration;
pub mod run;
pub mod scan;
pub mod service;
pub mod source;
pub mod values;
pub mod vocabulary;

/// The kubelet's device plugin API, generated from `proto/deviceplugin/v1beta1/api.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated code"
)]
pub mod v1beta1 {
    include!("gen/v1beta1.rs");
}
