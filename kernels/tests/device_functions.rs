//! The CUDA kernels of the proof, each thread of each block run on the CPU, against the crate's reference and its published vectors
//! (`kernels/cuda/README.md`). The source files are the device's own, compiled with g++ when the test starts.

#[path = "device_functions/attention.rs"]
mod attention;
#[path = "device_functions/elements.rs"]
mod elements;
#[path = "device_functions/emulator.rs"]
mod emulator;
#[path = "device_functions/forward.rs"]
mod forward;
#[path = "device_functions/fp8.rs"]
mod fp8;
#[path = "device_functions/grouped.rs"]
mod grouped;
#[path = "device_functions/inputs.rs"]
mod inputs;
#[path = "device_functions/memory.rs"]
mod memory;
#[path = "device_functions/misuse.rs"]
mod misuse;
#[path = "device_functions/numbers.rs"]
mod numbers;
#[path = "device_functions/project.rs"]
mod project;
#[path = "device_functions/routes.rs"]
mod routes;
#[path = "device_functions/rows.rs"]
mod rows;
#[path = "device_functions/stack.rs"]
mod stack;
