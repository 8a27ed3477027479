//! Decide: which GPUs multiply in eight bits.

use super::{Error, Kernel, Module};

/// Oldest architecture with conversions to E4M3 and products of it.
const OLDEST: (i32, i32) = (8, 9);

const MODULES: [Module; 2] = [
    module!("quantize", "compute_89", [Quantize, SwigluQuantize]),
    module!("grouped_gemm", "compute_89", [GroupedGemmFp8]),
];

/// What a GPU of this capability loads.
pub(super) fn modules(capability: (i32, i32)) -> &'static [Module] {
    if capability >= OLDEST { &MODULES } else { &[] }
}

/// Why a kernel is not there.
pub(super) fn missing(kernel: Kernel) -> Error {
    Error::Call {
        call: "cuModuleGetFunction",
        cause: format!(
            "{} needs a GPU of compute capability {}.{} or newer",
            kernel.name(),
            OLDEST.0,
            OLDEST.1
        ),
    }
}
