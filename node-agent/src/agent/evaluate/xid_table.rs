//! XID errors as data: what each number means, whose fault it usually is, what to do.
//!
//! Provenance: NVIDIA, "XID Errors" (GPU deployment and management documentation, catalogue for drivers R550 to R580), read
//! 2026-11. Numbers that are not here are unknown to this table and are treated as an application's.

/// How an XID error is treated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Usually a program's fault; the GPU goes on.
    Application,
    /// The GPU cannot be trusted until it was reset or replaced.
    Hardware,
    /// About row remapping: the row remapper knows better.
    RowRemap,
    /// Announces a recovery action: the action knows better.
    Recovery,
}

/// One XID error.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its number.
    pub number: u32,
    /// How it is treated.
    pub class: Class,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub action: &'static str,
}

const RESTART: &str = "restart the program that used the GPU";
const RESET: &str = "stop its workloads and reset the GPU";
const REBOOT: &str = "drain the machine and power-cycle it";
const LOOK: &str = "look at the kernel log of the machine";

const fn entry(number: u32, class: Class, meaning: &'static str, action: &'static str) -> Entry {
    Entry {
        number,
        class,
        meaning,
        action,
    }
}

/// Sorted by number.
const TABLE: [Entry; 31] = [
    entry(13, Class::Application, "graphics engine exception", RESTART),
    entry(
        31,
        Class::Application,
        "memory page fault: usually wrong arguments of the engine",
        RESTART,
    ),
    entry(32, Class::Application, "invalid or corrupted push buffer", RESTART),
    entry(38, Class::Hardware, "driver firmware error", RESET),
    entry(
        43,
        Class::Application,
        "the program's channel was stopped after an error",
        RESTART,
    ),
    entry(45, Class::Application, "the program's channels were torn down", RESTART),
    entry(46, Class::Hardware, "the GPU stopped processing", RESET),
    entry(48, Class::Hardware, "uncorrectable memory error", RESET),
    entry(
        54,
        Class::Hardware,
        "auxiliary power is not connected",
        "check the power cables, then power-cycle the machine",
    ),
    entry(
        61,
        Class::Hardware,
        "breakpoint in the GPU's internal controller",
        RESET,
    ),
    entry(62, Class::Hardware, "the GPU's internal controller halted", RESET),
    entry(
        63,
        Class::RowRemap,
        "a row of memory was set aside to be replaced",
        RESET,
    ),
    entry(64, Class::RowRemap, "a bad row of memory could not be set aside", RESET),
    entry(68, Class::Application, "video engine exception", RESTART),
    entry(69, Class::Application, "graphics engine class error", RESTART),
    entry(
        74,
        Class::Hardware,
        "NVLink error",
        "stop its workloads, reset the GPU and look at its links",
    ),
    entry(79, Class::Hardware, "the GPU fell off the bus", REBOOT),
    entry(92, Class::Application, "many correctable memory errors", LOOK),
    entry(
        94,
        Class::Application,
        "uncorrectable memory error, contained to one program",
        RESTART,
    ),
    entry(
        95,
        Class::Hardware,
        "uncorrectable memory error that was not contained",
        RESET,
    ),
    entry(109, Class::Application, "context switch timed out", RESTART),
    entry(110, Class::Hardware, "security fault", REBOOT),
    entry(
        119,
        Class::Hardware,
        "the GPU's system processor does not answer",
        RESET,
    ),
    entry(120, Class::Hardware, "the GPU's system processor failed", RESET),
    entry(
        121,
        Class::Application,
        "link to the processor had a correctable error",
        LOOK,
    ),
    entry(
        122,
        Class::Hardware,
        "the GPU's firmware storage could not be read",
        REBOOT,
    ),
    entry(136, Class::Hardware, "link training failed", RESET),
    entry(
        140,
        Class::Hardware,
        "uncorrectable memory error that was not recovered",
        RESET,
    ),
    entry(143, Class::Hardware, "the GPU could not be initialised", REBOOT),
    entry(149, Class::Hardware, "fatal NVLink error", RESET),
    entry(
        154,
        Class::Recovery,
        "the driver changed the recovery action it asks for",
        RESET,
    ),
];

const UNKNOWN: Entry = entry(0, Class::Application, "an XID error this version does not know", LOOK);

/// The entry of a number.
pub fn lookup(number: u32) -> Entry {
    TABLE
        .binary_search_by_key(&number, |entry| entry.number)
        .map_or(UNKNOWN, |place| TABLE[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_entry_is_found() {
        for entry in TABLE {
            assert_eq!(lookup(entry.number).meaning, entry.meaning);
        }
        assert_eq!(lookup(7).number, 0);
    }
}
