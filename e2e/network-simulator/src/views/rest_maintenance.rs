//! The chain's REST on maintenance: credit, windows, and whether one more fits.

use super::View;
use crate::economy::{self, maintenance::Reservation};
use serde_json::{Value, json};

fn row(view: &View, host: usize, window: &Reservation, status: &str) -> Value {
    let address = &view.net.hosts[host].address;
    json!({
        "reservation_id": window.id.to_string(),
        "participant": address,
        "start_height": window.start.to_string(),
        "duration_blocks": window.blocks.to_string(),
        "created_by": address,
        "status": format!("MAINTENANCE_RESERVATION_STATUS_{status}"),
    })
}

fn scheduled_row(view: &View, host: usize) -> Option<Value> {
    let window = view.net.hosts[host].account.maintenance.scheduled?;
    Some(row(view, host, &window, "SCHEDULED"))
}

fn active_row(view: &View, host: usize) -> Option<Value> {
    let window = view.net.hosts[host].account.maintenance.active?;
    Some(row(view, host, &window, "ACTIVE"))
}

pub fn active(view: &View) -> Value {
    let rows: Vec<Value> = (0..view.net.hosts.len())
        .filter_map(|host| active_row(view, host))
        .collect();
    json!({"reservations": rows})
}

pub fn credit(view: &View, host: usize) -> Value {
    let books = &view.net.hosts[host].account.maintenance;
    json!({"credit_blocks": books.credit_blocks.to_string(), "found": books.known})
}

pub fn scheduled(view: &View, host: usize) -> Value {
    let row = scheduled_row(view, host);
    json!({"found": row.is_some(), "reservation": row})
}

pub fn status(view: &View, host: usize) -> Value {
    let known = &view.net.hosts[host];
    let books = &known.account.maintenance;
    let id = |window: Option<Reservation>| window.map_or(0, |window| window.id).to_string();
    let state = books.known.then(|| {
        json!({
            "participant": known.address,
            "credit_blocks": books.credit_blocks.to_string(),
            "scheduled_reservation_id": id(books.scheduled),
            "active_reservation_id": id(books.active),
            "last_maintenance_epoch": books.epochs.0.to_string(),
            "last_maintenance_end_epoch": books.epochs.1.to_string(),
        })
    });
    json!({
        "found": state.is_some(),
        "state": state,
        "active_reservation": active_row(view, host),
        "scheduled_reservation": scheduled_row(view, host),
    })
}

/// Who is away at a height, 0 being the newest.
pub fn concurrency(view: &View, height: i64) -> Value {
    let height = if height == 0 { view.height() } else { height };
    let crowd = economy::crowd(view.net, &(height..=height), None);
    let bps = (u128::from(crowd.power) * 10_000).checked_div(u128::from(crowd.total_power));
    json!({"concurrent_count": crowd.count, "concurrent_power_bps": bps.unwrap_or_default().to_string()})
}

pub fn schedulability(view: &View, host: usize, start: i64, blocks: i64) -> Value {
    let wanted = Reservation { id: 0, start, blocks };
    let refusal = economy::maintenance_refusal(view.net, host, view.height(), &wanted);
    json!({"schedulable": refusal.is_none(), "rejection_reason": refusal.unwrap_or_default()})
}
