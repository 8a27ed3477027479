//! Rules `Xid<number>`: XID errors since boot, each with its own way to heal.
//!
//! * An application's error is not blocking and goes after a quiet time.
//! * A hardware error is blocking until the machine boots, or until the driver asks for no recovery and a longer quiet time
//!   has passed. A driver that cannot say what it asks for never heals it.
//! * Errors about row remapping yield to the row remapper, the announcement of a recovery action to the action itself: both
//!   are read, so they count only where they cannot be.

use super::xid_table::{Class, lookup};
use super::{Found, Subject};
use crate::agent::history::XidRecord;
use crate::agent::observe::gpu::RecoveryAction;
use crate::agent::observe::seconds_between;

/// Judges every kind of XID error the GPU had.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    for (number, record) in &subject.known.xids {
        found.extend(judge(subject, *number, record));
    }
}

fn judge(subject: &Subject<'_>, number: u32, record: &XidRecord) -> Option<Found> {
    let entry = lookup(number);
    let quiet = seconds_between(&record.last, subject.now);
    let class = match entry.class {
        Class::RowRemap if subject.slow().is_some_and(|slow| slow.row_remap.is_some()) => return None,
        Class::Recovery if subject.slow().is_some_and(|slow| slow.recovery_action.is_some()) => return None,
        Class::RowRemap | Class::Recovery => Class::Hardware,
        class => class,
    };
    let rule = format!("Xid{number}");
    if class == Class::Hardware {
        let settled = subject.slow().and_then(|slow| slow.recovery_action) == Some(RecoveryAction::None);
        let healed = settled && quiet >= f64::from(subject.policy.hardware_xid_seconds);
        return (!healed).then(|| Found::blocking(rule, format!("{}; {}", entry.meaning, entry.action)));
    }
    let over = quiet >= f64::from(subject.policy.application_xid_seconds);
    (!over).then(|| Found::degraded(rule, format!("{}; {}", entry.meaning, entry.action)))
}
