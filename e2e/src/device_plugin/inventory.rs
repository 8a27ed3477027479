//! What a GPU file says, as far as the kubelet is told of it. Pure: text in, value or reason out.

use std::collections::BTreeMap;

use super::{
    scan::{Assignment, MAX_GPUS, Refusal, Scanned, scan},
    values,
    vocabulary::{Scope, VOCABULARY},
};

/// The GPUs of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    pub node: String,
    pub gpus: Vec<Gpu>,
}

/// One GPU. Its identity is the one that the library shows for the same file on the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    pub index: usize,
    pub product: String,
    pub uuid: String,
    pub serial: String,
    pub pci_bus_id: String,
    /// Only when the file says so: a real machine under the simulation need not have that many.
    pub numa: Option<i64>,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ok,
    /// Fell off the bus while the machine ran.
    Lost,
    /// Not enumerated at the last boot.
    Absent,
}

/// Bus numbers of the eight GPUs of an HGX board; further boards are further PCI domains.
const HGX_BUSES: [u8; 8] = [0x19, 0x3B, 0x4C, 0x5D, 0x9B, 0xBB, 0xCB, 0xDB];

/// The last value of each key of one GPU.
type Values<'a> = BTreeMap<&'static str, &'a str>;

/// Reads a GPU file; `host` is the node's name where the file does not give one.
pub fn parse(text: &[u8], host: &str) -> Result<Inventory, Refusal> {
    let Scanned { assignments, sections } = scan(text)?;
    let whole = |reason: String| Refusal { line: 1, reason };
    let mut gpus: [Values<'_>; MAX_GPUS] = std::array::from_fn(|_| Values::new());
    apply_products(&assignments, &mut gpus)?;
    let file = apply_rest(&assignments, &mut gpus)?;
    if !file.contains_key("version") {
        return Err(whole("the file must say \"version: 1\"".into()));
    }
    if let Some(index) = sections.into_iter().flatten().find(|&index| gpus[index].is_empty()) {
        return Err(whole(format!("gpu {index} has no product")));
    }
    let node = file.get("node").copied().unwrap_or(host);
    let gpus: Vec<Gpu> = gpus
        .iter()
        .enumerate()
        .filter(|(_, values)| !values.is_empty())
        .map(|(index, values)| build(index, values, node))
        .collect();
    check_identities(&gpus).map_err(whole)?;
    Ok(Inventory {
        node: node.into(),
        gpus,
    })
}

/// Products first, so that the order of the lines in a section does not matter.
fn apply_products<'a>(assignments: &[Assignment<'a>], gpus: &mut [Values<'a>; MAX_GPUS]) -> Result<(), Refusal> {
    for Assignment {
        line,
        gpus: range,
        key,
        value,
    } in assignments
    {
        if key.scope == Scope::Gpu && key.text == "product" {
            values::check(key, value).map_err(|reason| Refusal { line: *line, reason })?;
            for index in range.clone() {
                gpus[index].insert(key.text, value);
            }
        }
    }
    Ok(())
}

fn apply_rest<'a>(assignments: &[Assignment<'a>], gpus: &mut [Values<'a>; MAX_GPUS]) -> Result<Values<'a>, Refusal> {
    let mut file = Values::new();
    for Assignment {
        line,
        gpus: range,
        key,
        value,
    } in assignments
    {
        let refused = |reason: String| Refusal { line: *line, reason };
        if key.scope == Scope::File {
            values::check(key, value).map_err(refused)?;
            file.insert(key.text, value);
        } else if key.text != "product" {
            for index in range.clone() {
                let Some(product) = gpus[index].get("product").and_then(|word| VOCABULARY.product(word)) else {
                    return Err(refused(format!("gpu {index} has no product")));
                };
                values::check(key, value).map_err(refused)?;
                let memory = product.memory_mib;
                if key.text == "memory-used-mib" && value.parse::<u64>().is_ok_and(|used| used > memory) {
                    return Err(refused(format!("gpu {index} has only {memory} MiB of memory")));
                }
                gpus[index].insert(key.text, value);
            }
        }
    }
    Ok(file)
}

fn build(index: usize, values: &Values<'_>, node: &str) -> Gpu {
    let given = |key: &str| values.get(key).map(|&value| value.to_owned());
    let lost = |errors: &str| values::items(errors).any(|item| item == "GPU_IS_LOST");
    let state = match values.get("state").copied() {
        Some("lost") => State::Lost,
        Some("absent") => State::Absent,
        _ if values.get("error").copied().is_some_and(lost) => State::Lost,
        _ => State::Ok,
    };
    Gpu {
        index,
        product: given("product").unwrap_or_default(),
        uuid: given("uuid").unwrap_or_else(|| default_uuid(node, index)),
        serial: given("serial")
            .unwrap_or_else(|| format!("165{:010}", identity_hash(node, index, 's') % 10_000_000_000)),
        pci_bus_id: given("pci-bus-id")
            .unwrap_or_else(|| format!("{:08X}:{:02X}:00.0", index / 8, HGX_BUSES[index % 8])),
        numa: values.get("numa").and_then(|value| value.parse().ok()),
        state,
    }
}

fn default_uuid(node: &str, index: usize) -> String {
    let (high, low) = (identity_hash(node, index, 'a'), identity_hash(node, index, 'b'));
    format!(
        "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// FNV-1a over "simulated-gpu/NODE/INDEX/SALT", then the 64-bit finaliser of MurmurHash3. The library computes the same.
fn identity_hash(node: &str, index: usize, salt: char) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in format!("simulated-gpu/{node}/{index}/{salt}").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn check_identities(gpus: &[Gpu]) -> Result<(), String> {
    for (at, gpu) in gpus.iter().enumerate() {
        for other in &gpus[..at] {
            let same = if gpu.uuid == other.uuid {
                "uuid"
            } else if gpu.pci_bus_id == other.pci_bus_id {
                "pci-bus-id"
            } else if gpu.serial == other.serial {
                "serial"
            } else {
                continue;
            };
            return Err(format!("gpu {} has the {same} of gpu {}", gpu.index, other.index));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
