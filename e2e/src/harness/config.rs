//! Command lines and configuration files of the cluster's programs. Pure: a plan in, text out.

pub mod control_plane;
pub mod node;
