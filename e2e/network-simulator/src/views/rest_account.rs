//! The chain's REST on what hosts own and owe: collateral, vesting, signatures.

use super::View;
use crate::{economy::signing, time};
use serde_json::{Value, json};

fn coins(ngonka: u64) -> Vec<Value> {
    (ngonka > 0)
        .then(|| json!({"denom": "ngonka", "amount": ngonka.to_string()}))
        .into_iter()
        .collect()
}

/// Nothing when nothing was deposited.
pub fn collateral(view: &View, host: usize) -> Option<Value> {
    let amount = coins(view.net.hosts[host].account.deposit.0?).pop()?;
    Some(json!({"amount": amount}))
}

pub fn collateral_params() -> Value {
    json!({"params": {"unbonding_period_epochs": "1"}})
}

pub fn vesting_params() -> Value {
    json!({"params": {"reward_vesting_period": "180"}})
}

pub fn total_vesting(view: &View, host: usize) -> Value {
    json!({"total_amount": coins(view.net.hosts[host].account.vesting.total())})
}

pub fn vesting_schedule(view: &View, host: usize) -> Value {
    let host = &view.net.hosts[host];
    let amounts: Vec<Value> = host
        .account
        .vesting
        .parts()
        .map(|part| json!({"coins": coins(part)}))
        .collect();
    json!({"vesting_schedule": {"participant_address": host.address, "epoch_amounts": amounts}})
}

pub fn slashing_params() -> Value {
    json!({"params": {
        "signed_blocks_window": signing::WINDOW.to_string(),
        "min_signed_per_window": "0.500000000000000000",
        "downtime_jail_duration": format!("{}s", signing::JAIL_MS / 1000),
        "slash_fraction_double_sign": "0.050000000000000000",
        "slash_fraction_downtime": format!("0.{:03}000000000000000", signing::SLASH_PERMILLE),
    }})
}

pub fn signing_infos(view: &View) -> Value {
    let row = |host: usize| {
        let signing = &view.net.hosts[host].account.signing;
        let (_, address) = super::consensus_key(view.net, host);
        json!({
            "address": crate::identity::address("gonkavalcons", &address),
            "start_height": "0",
            "index_offset": (view.height() - 1).max(0).to_string(),
            "jailed_until": time::rfc3339(signing.jailed_until_ms).replace(".000Z", "Z"),
            "tombstoned": false,
            "missed_blocks_counter": signing.missed().to_string(),
        })
    };
    let rows: Vec<Value> = (0..view.net.hosts.len()).map(row).collect();
    json!({"pagination": {"next_key": null, "total": rows.len().to_string()}, "info": rows})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{economy::deposit::Deposit, faults::Port, testing};

    #[test]
    fn what_is_owned_and_owed_is_shown_and_nothing_is_nothing() {
        let mut net = testing::network();
        net.hosts[1].account.deposit = Deposit(Some(3360));
        net.hosts[1].account.vesting.add(100, 3);
        net.hosts[1].account.signing.jailed_until_ms = 1_795_345_065_000;
        let view = View::new(&net, Port::Rest(0));
        assert_eq!(collateral(&view, 0), None);
        assert_eq!(
            collateral(&view, 1),
            Some(json!({"amount": {"denom": "ngonka", "amount": "3360"}}))
        );
        assert_eq!(total_vesting(&view, 0), json!({"total_amount": []}));
        assert_eq!(total_vesting(&view, 1)["total_amount"][0]["amount"], "100");
        let schedule = vesting_schedule(&view, 1);
        assert_eq!(
            schedule["vesting_schedule"]["epoch_amounts"][0]["coins"][0]["amount"],
            "34"
        );
        assert_eq!(signing_infos(&view)["info"][1]["jailed_until"], "2026-11-22T10:57:45Z");
    }
}
