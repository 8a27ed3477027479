//! Numbers of eight bits as the network's models store and multiply them: E4M3 codes with a single-precision scale for every 128
//! neighbours of a token, and for every block of 128 by 128 of the weights (`docs/fp8-moe.md`).

mod codes;
mod scaled;

pub use codes::{LARGEST, decode, encode};
pub use scaled::{Blocks, GROUP, Rows};
