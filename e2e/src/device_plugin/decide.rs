//! What the kubelet is told about an inventory, and what a container gets. Pure.

use std::{collections::HashMap, fmt, path::PathBuf};

use super::{
    inventory::{Inventory, State},
    v1beta1::{
        AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationResponse, Device,
        Mount, NumaNode, PreferredAllocationRequest, PreferredAllocationResponse, TopologyInfo,
    },
};

/// Name of the GPU file in its folder.
pub const FILE_NAME: &str = "gpus.yaml";
/// Name by which programs load the library.
pub const LIBRARY_NAME: &str = "libnvidia-ml.so.1";

/// Where the GPU file and the library are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// On the node, and at the same place in the plugin's own container.
    pub on_node: PathBuf,
    /// In a container that was given GPUs.
    pub in_container: PathBuf,
}

/// Why a container does not get the GPUs that the kubelet picked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    Unknown(String),
    Unhealthy(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => write!(
                f,
                "no GPU {id} on this node: its file was changed, the kubelet asks again"
            ),
            Self::Unhealthy(id) => write!(
                f,
                "GPU {id} is lost: repair it in the node's GPU file or pick another node"
            ),
        }
    }
}

impl std::error::Error for Refused {}

/// In the order of the file. An absent GPU is none.
pub fn devices(inventory: &Inventory) -> Vec<Device> {
    let topology = |numa: i64| TopologyInfo {
        nodes: vec![NumaNode { id: numa }],
    };
    let health = |state: State| if state == State::Ok { "Healthy" } else { "Unhealthy" };
    inventory
        .gpus
        .iter()
        .filter(|gpu| gpu.state != State::Absent)
        .map(|gpu| Device {
            id: gpu.uuid.clone(),
            health: health(gpu.state).into(),
            topology: gpu.numa.map(topology),
        })
        .collect()
}

/// Each container sees its GPUs and no other: the library honours `NVIDIA_VISIBLE_DEVICES` as NVIDIA's runtime does.
pub fn allocate(devices: &[Device], layout: &Layout, request: &AllocateRequest) -> Result<AllocateResponse, Refused> {
    let container_responses = request.container_requests.iter().map(|container| {
        for id in &container.devices_ids {
            let device = devices
                .iter()
                .find(|device| device.id == *id)
                .ok_or_else(|| Refused::Unknown(id.clone()))?;
            if device.health != "Healthy" {
                return Err(Refused::Unhealthy(id.clone()));
            }
        }
        let text = |path: PathBuf| path.display().to_string();
        let inside = &layout.in_container;
        Ok(ContainerAllocateResponse {
            envs: HashMap::from([
                ("NVIDIA_VISIBLE_DEVICES".into(), container.devices_ids.join(",")),
                ("SIMULATED_NVML_FILE".into(), text(inside.join(FILE_NAME))),
                ("LD_LIBRARY_PATH".into(), text(inside.clone())),
            ]),
            mounts: vec![Mount {
                container_path: text(inside.clone()),
                host_path: text(layout.on_node.clone()),
                read_only: true,
            }],
            ..Default::default()
        })
    });
    Ok(AllocateResponse {
        container_responses: container_responses.collect::<Result<_, _>>()?,
    })
}

/// The first GPUs in the order of the file: neighbours on one board.
pub fn prefer(devices: &[Device], request: &PreferredAllocationRequest) -> PreferredAllocationResponse {
    let place = |id: &String| devices.iter().position(|device| device.id == *id).unwrap_or(usize::MAX);
    let container_responses = request.container_requests.iter().map(|container| {
        let mut ids = container.must_include_device_i_ds.clone();
        let mut others = container.available_device_i_ds.clone();
        others.retain(|id| !ids.contains(id));
        others.sort_by_key(place);
        let wanted = usize::try_from(container.allocation_size).unwrap_or(0);
        ids.extend(others.into_iter().take(wanted.saturating_sub(ids.len())));
        ContainerPreferredAllocationResponse { device_i_ds: ids }
    });
    PreferredAllocationResponse {
        container_responses: container_responses.collect(),
    }
}

/// The text as it goes to the node: with the node's name in it, so that every reader derives the same identities. The name
/// comes last, so that line numbers stay those of the ConfigMap.
pub fn for_node(text: &str, node: &str) -> String {
    let names_itself = text.lines().any(|line| line.starts_with("node:"));
    let gap = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    if names_itself {
        text.to_owned()
    } else {
        format!("{text}{gap}node: \"{node}\"\n")
    }
}

/// The GPU file of a node that no one gave GPUs.
pub fn no_gpus(node: &str) -> String {
    for_node("version: 1\n", node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_plugin::{
        inventory::parse,
        v1beta1::{ContainerAllocateRequest, ContainerPreferredAllocationRequest},
    };

    const FILE: &str = "version: 1\ngpu 0-3: H200\ngpu 1:\n  state: lost\ngpu 2:\n  numa: 1\ngpu 3:\n  state: absent\n";

    fn listed() -> Vec<Device> {
        devices(&parse(FILE.as_bytes(), "n1").unwrap())
    }

    fn layout() -> Layout {
        Layout {
            on_node: "/var/lib/simulated-nvml".into(),
            in_container: "/usr/lib/gonka-simulated".into(),
        }
    }

    fn request(ids: &[&str]) -> AllocateRequest {
        let devices_ids = ids.iter().map(|&id| id.to_owned()).collect();
        AllocateRequest {
            container_requests: vec![ContainerAllocateRequest { devices_ids }],
        }
    }

    #[test]
    fn lost_gpus_are_unhealthy_and_absent_ones_are_not_listed() {
        let health: Vec<_> = listed()
            .into_iter()
            .map(|device| (device.health, device.topology.is_some()))
            .collect();
        assert_eq!(
            health,
            [
                ("Healthy".into(), false),
                ("Unhealthy".into(), false),
                ("Healthy".into(), true)
            ]
        );
    }

    #[test]
    fn a_container_gets_its_gpus_the_file_and_the_library() {
        let devices = listed();
        let response = allocate(&devices, &layout(), &request(&[&devices[2].id, &devices[0].id])).unwrap();
        let container = &response.container_responses[0];
        assert_eq!(
            container.envs["NVIDIA_VISIBLE_DEVICES"],
            format!("{},{}", devices[2].id, devices[0].id)
        );
        assert_eq!(
            container.envs["SIMULATED_NVML_FILE"],
            "/usr/lib/gonka-simulated/gpus.yaml"
        );
        assert_eq!(container.envs["LD_LIBRARY_PATH"], "/usr/lib/gonka-simulated");
        let mount = &container.mounts[0];
        assert_eq!(
            (mount.host_path.as_str(), mount.read_only),
            ("/var/lib/simulated-nvml", true)
        );
    }

    #[test]
    fn lost_and_unknown_gpus_are_not_allocated() {
        let devices = listed();
        let lost = allocate(&devices, &layout(), &request(&[&devices[1].id]));
        assert_eq!(lost, Err(Refused::Unhealthy(devices[1].id.clone())));
        assert_eq!(
            allocate(&devices, &layout(), &request(&["GPU-x"])),
            Err(Refused::Unknown("GPU-x".into()))
        );
    }

    #[test]
    fn the_first_gpus_are_preferred_after_those_that_must_be() {
        let devices: Vec<Device> = devices(&parse(b"version: 1\ngpu 0-3: H200\n", "n1").unwrap());
        let ids: Vec<String> = devices.iter().map(|device| device.id.clone()).collect();
        let container = ContainerPreferredAllocationRequest {
            available_device_i_ds: vec![ids[3].clone(), ids[2].clone(), ids[0].clone(), ids[1].clone()],
            must_include_device_i_ds: vec![ids[2].clone()],
            allocation_size: 3,
        };
        let response = prefer(
            &devices,
            &PreferredAllocationRequest {
                container_requests: vec![container],
            },
        );
        assert_eq!(
            response.container_responses[0].device_i_ds,
            [ids[2].clone(), ids[0].clone(), ids[1].clone()]
        );
    }

    #[test]
    fn a_file_gets_its_node_s_name_unless_it_has_one() {
        let named = for_node("# c\nversion: 1\ngpu 0:\n  product: H200", "n2");
        assert_eq!(parse(named.as_bytes(), "elsewhere").unwrap().node, "n2");
        assert_eq!(for_node("version: 1\nnode: own\n", "n2"), "version: 1\nnode: own\n");
        assert_eq!(
            parse(no_gpus("n3").as_bytes(), "").unwrap(),
            Inventory {
                node: "n3".into(),
                gpus: vec![]
            }
        );
    }
}
