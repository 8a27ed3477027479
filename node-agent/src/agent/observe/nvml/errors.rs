//! Box 2, NVML: errors as data. Names are NVML's own, so that its documentation can be searched for them.

use std::collections::BTreeMap;

use nvml_wrapper::error::NvmlError;

use crate::agent::observe::gpu::{CallErrors, MAX_CALL_ERRORS};

/// NVML's name of an error.
pub(super) fn error_name(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::Uninitialized => "UNINITIALIZED",
        NvmlError::InvalidArg => "INVALID_ARGUMENT",
        NvmlError::NotSupported => "NOT_SUPPORTED",
        NvmlError::NoPermission => "NO_PERMISSION",
        NvmlError::NotFound => "NOT_FOUND",
        NvmlError::InsufficientSize(_) => "INSUFFICIENT_SIZE",
        NvmlError::InsufficientPower => "INSUFFICIENT_POWER",
        NvmlError::DriverNotLoaded => "DRIVER_NOT_LOADED",
        NvmlError::Timeout => "TIMEOUT",
        NvmlError::IrqIssue => "IRQ_ISSUE",
        NvmlError::LibraryNotFound => "LIBRARY_NOT_FOUND",
        NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => "FUNCTION_NOT_FOUND",
        NvmlError::CorruptedInfoROM => "CORRUPTED_INFOROM",
        NvmlError::GpuLost => "GPU_IS_LOST",
        NvmlError::ResetRequired => "RESET_REQUIRED",
        NvmlError::OperatingSystem => "OPERATING_SYSTEM",
        NvmlError::LibRmVersionMismatch => "LIB_RM_VERSION_MISMATCH",
        NvmlError::InUse => "IN_USE",
        NvmlError::InsufficientMemory => "MEMORY",
        NvmlError::NoData => "NO_DATA",
        NvmlError::Unknown => "UNKNOWN",
        NvmlError::UnexpectedVariant(_) | NvmlError::IncorrectBits(_) => "UNEXPECTED_VALUE",
        NvmlError::Utf8Error(_) | NvmlError::NulError(_) | NvmlError::StringTooLong { .. } => "MALFORMED_TEXT",
        _ => "OTHER",
    }
}

/// How often each call failed in each way since the agent started.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<(&'static str, &'static str), u64>);

impl Counts {
    pub(super) fn add(&mut self, call: &'static str, error: &'static str) {
        if self.0.len() < MAX_CALL_ERRORS || self.0.contains_key(&(call, error)) {
            *self.0.entry((call, error)).or_default() += 1;
        }
    }

    pub(super) fn list(&self) -> Vec<CallErrors> {
        self.0
            .iter()
            .map(|((call, error), count)| CallErrors {
                call: (*call).to_owned(),
                error: (*error).to_owned(),
                count: *count,
            })
            .collect()
    }
}
