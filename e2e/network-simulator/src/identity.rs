//! Names that the network derives: hashes, addresses, signatures. All of them follow from the scenario's seed, so two
//! runs of one scenario show the same world.

use sha2::{Digest, Sha256};

/// Where the digest that stands for a tree of counted artifacts begins.
pub const COUNTED_ROOT: &[u8] = b"counted artifacts\0";

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// SHA-256 of the parts, each followed by a separator that none of them contains.
pub fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().into()
}

/// Upper-case hex of [`digest`]: the look of every hash on CometBFT's RPC.
pub fn upper_hash(parts: &[&str]) -> String {
    hex::encode_upper(digest(parts))
}

/// A number below `bound` that follows from the parts; 0 when there is nothing to choose from.
pub fn number_below(bound: u64, parts: &[&str]) -> u64 {
    let hash = digest(parts);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(bytes).checked_rem(bound).unwrap_or_default()
}

/// A permutation of `items` that follows from the parts.
pub fn shuffle<T>(items: &mut [T], parts: &[&str]) {
    for index in (1..items.len()).rev() {
        let place = index.to_string();
        let all: Vec<&str> = parts.iter().copied().chain([place.as_str()]).collect();
        let other = number_below(index as u64 + 1, &all) as usize;
        items.swap(index, other);
    }
}

/// The bech32 address of 20 bytes that follow from a text.
pub fn address(prefix: &str, of: &str) -> String {
    bech32(prefix, &digest(&["address", of])[..20])
}

/// 64 bytes of hex, as DAPI shows a seed's signature.
pub fn signature(parts: &[&str]) -> String {
    let first = digest(parts);
    format!(
        "{}{}",
        hex::encode(first),
        hex::encode(digest(&["signature", &hex::encode(first)]))
    )
}

/// A compressed public key that follows from a name. Nobody has its private key; the proof of compute only hashes it.
pub fn public_key(of: &str) -> String {
    format!("02{}", hex::encode(digest(&["public key", of])))
}

fn bech32(prefix: &str, bytes: &[u8]) -> String {
    let mut values = five_bit_groups(bytes);
    let mut checked: Vec<u8> = prefix.bytes().map(|byte| byte >> 5).collect();
    checked.push(0);
    checked.extend(prefix.bytes().map(|byte| byte & 31));
    checked.extend(&values);
    checked.extend([0; 6]);
    let check = polymod(&checked) ^ 1;
    values.extend((0..6).map(|place| (check >> (5 * (5 - place)) & 31) as u8));
    let data: String = values
        .iter()
        .map(|value| char::from(CHARSET[usize::from(*value)]))
        .collect();
    format!("{prefix}1{data}")
}

fn five_bit_groups(bytes: &[u8]) -> Vec<u8> {
    let (mut buffer, mut held, mut groups) = (0_u32, 0, Vec::new());
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            groups.push((buffer >> held & 31) as u8);
        }
    }
    if held > 0 {
        groups.push((buffer << (5 - held) & 31) as u8);
    }
    groups
}

fn polymod(values: &[u8]) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.iter().fold(1, |check, value| {
        let top = check >> 25;
        let next = (check & 0x01ff_ffff) << 5 ^ u32::from(*value);
        (0..5)
            .filter(|bit| top >> bit & 1 == 1)
            .fold(next, |sum, bit| sum ^ GENERATOR[bit])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_the_public_bech32_example() {
        let program = hex::decode("751e76e8199196d454941c45d1b3a323f1433bd6").expect("hex");
        // The 20 bytes of BIP-173's first example, without its witness version.
        assert_eq!(bech32("bc", &program).len(), "bc".len() + 1 + 32 + 6);
        assert_eq!(bech32("a", &[]), "a12uel5l");
    }

    #[test]
    fn a_shuffle_is_a_permutation_that_its_parts_decide() {
        let (mut one, mut two, mut other) = ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]);
        shuffle(&mut one, &["a"]);
        shuffle(&mut two, &["a"]);
        shuffle(&mut other, &["b"]);
        assert_eq!(one, two);
        assert_ne!(one, other);
        one.sort_unstable();
        assert_eq!(one, [1, 2, 3, 4, 5, 6]);
    }
}
