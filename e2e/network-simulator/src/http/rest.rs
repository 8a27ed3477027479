//! The chain's REST. A path is decoded once and then split, as the gateway does: a model id with a slash is no segment
//! (501), and one encoded twice names no model (200, not found).

use super::{Content, Inbound, Outbound, percent_decode};
use crate::{
    driver::Shared,
    faults::Port,
    views::{
        View, rest_account as account, rest_cosmos as cosmos, rest_epoch as epoch, rest_exam as exam,
        rest_host as host, rest_maintenance as maintenance,
    },
};
use serde_json::{Value, json};

const MODULE: [&str; 3] = ["productscience", "inference", "inference"];

/// What a route gives.
enum Found {
    Body(Value),
    Missing(String),
    BadRequest(String),
    NoRoute,
}

impl From<Option<Value>> for Found {
    fn from(body: Option<Value>) -> Self {
        body.map_or_else(|| Self::Missing("not found".to_owned()), Self::Body)
    }
}

pub fn answer(shared: &Shared, port: Port, inbound: &Inbound) -> Outbound {
    let path = percent_decode(&inbound.path);
    if path.contains("//") {
        let cleaned: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let location = format!("/{}", cleaned.join("/"));
        return Outbound {
            status: 301,
            headers: Vec::new(),
            content: Content::Empty,
        }
        .with("location", &location);
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    shared.view(port, |view| {
        let found = if inbound.method == "GET" {
            route(view, &segments, inbound)
        } else {
            Found::NoRoute
        };
        let problem = |status: u16, code: u32, message: &str| {
            Outbound::json(status, json!({"code": code, "message": message, "details": []}))
        };
        let outbound = match found {
            Found::Body(body) => {
                let height = view.height().to_string();
                Outbound::json(200, body)
                    .with("grpc-metadata-content-type", "application/grpc+cosmos-sdk-grpc-codec")
                    .with("grpc-metadata-x-cosmos-block-height", &height)
                    .with("x-cosmos-block-height", &height)
            }
            Found::Missing(message) => problem(404, 5, &message),
            Found::BadRequest(message) => problem(400, 3, &message),
            Found::NoRoute => problem(501, 12, "Not Implemented"),
        };
        outbound.with("x-server-time", &view.unix_seconds().to_string())
    })
}

fn route(view: &View, segments: &[&str], inbound: &Inbound) -> Found {
    match segments {
        [a, b, c, rest @ ..] if [*a, *b, *c] == MODULE => match rest {
            [name] => plain(view, name),
            [name, argument] => with_argument(view, name, argument, inbound),
            [name, height, address, model] => of_model(view, name, height, (address, model)),
            [name, height, address] => with_two(view, name, height, address),
            _ => Found::NoRoute,
        },
        [
            "productscience",
            "inference",
            module @ ("collateral" | "streamvesting"),
            rest @ ..,
        ] => of_account(view, module, rest),
        ["cosmos", rest @ ..] => of_sdk(view, rest, inbound),
        _ => Found::NoRoute,
    }
}

fn plain(view: &View, name: &str) -> Found {
    let body = match name {
        "params" => epoch::params(view),
        "epoch_info" => epoch::epoch_info(view),
        "get_current_epoch" => epoch::get_current_epoch(view),
        "active_confirmation_poc_event" => epoch::active_confirmation_poc_event(view),
        "models_all" => epoch::models_all(view),
        "current_epoch_group_data" => return epoch::current_epoch_group_data(view).into(),
        "preserved_nodes_snapshot" => exam::preserved_nodes_snapshot(view),
        "participant" => host::participants(view),
        "hardware_nodes_all" => host::hardware_nodes_all(view),
        "settle_amount" => host::settle_amounts(view),
        "mlnode_version" => json!({"mlnode_version": {"current_version": crate::dapi::job::NODE_VERSION}}),
        "last_upgrade_height" => view.net.upgrades.last_height(view.height()),
        "partial_upgrade" => json!({"partialUpgrade": [], "pagination": {"next_key": null, "total": "0"}}),
        "maintenance_active" => maintenance::active(view),
        "all_model_capacities" => json!({"model_capacities": []}),
        "tokenomics_data" => json!({"tokenomics_data":
            {"total_fees": "0", "total_subsidies": "0", "total_refunded": "0", "total_burned": "0"}}),
        _ => return Found::NoRoute,
    };
    Found::Body(body)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, Found> {
    text.parse()
        .map_err(|_| Found::BadRequest(format!("type mismatch, parameter: {text} is not a number")))
}

fn with_argument(view: &View, name: &str, argument: &str, inbound: &Inbound) -> Found {
    let by_epoch = |look: &dyn Fn(u64) -> Found| number(argument).map_or_else(|wrong| wrong, look);
    let by_height =
        |look: &dyn Fn(i64) -> Value| number(argument).map_or_else(|wrong| wrong, |height| Found::Body(look(height)));
    let by_host = |look: &dyn Fn(usize) -> Found| match view.net.host_index(argument) {
        Some(index) => look(index),
        None => Found::Missing("not found".to_owned()),
    };
    match name {
        "participants" if argument == "count" => Found::Body(json!({"total": view.net.hosts.len().to_string()})),
        "epoch_group_data" => by_epoch(&|index| {
            let model = inbound.query("model_id").filter(|id| !id.is_empty());
            epoch::epoch_group_data(view, index, model).into()
        }),
        "confirmation_poc_events" => by_epoch(&|index| Found::Body(epoch::confirmation_poc_events(view, index))),
        "random_seeds" => by_epoch(&|index| Found::Body(epoch::random_seeds(view, index))),
        "excluded_participants" => by_epoch(&|index| Found::Body(epoch::excluded_participants(view, index))),
        "all_poc_v2_store_commits" => by_height(&|height| exam::all_poc_v2_store_commits(view, height)),
        "all_mlnode_weight_distributions" => by_height(&|height| exam::all_mlnode_weight_distributions(view, height)),
        "poc_v2_validations_for_stage" => by_height(&|height| exam::poc_v2_validations_for_stage(view, height)),
        "poc_validation_snapshot" => by_height(&|height| exam::poc_validation_snapshot(view, height)),
        "maintenance_concurrency" => by_height(&|height| maintenance::concurrency(view, height)),
        "maintenance_credit" => by_host(&|index| Found::Body(maintenance::credit(view, index))),
        "maintenance_scheduled" => by_host(&|index| Found::Body(maintenance::scheduled(view, index))),
        "maintenance_status" => by_host(&|index| Found::Body(maintenance::status(view, index))),
        "participant" => by_host(&|index| Found::Body(host::participant(view, index))),
        "hardware_nodes" => by_host(&|index| Found::Body(host::hardware_nodes(view, index))),
        "settle_amount" => by_host(&|index| host::settle_amount(view, index).into()),
        "get_participant_current_stats" => by_host(&|index| Found::Body(host::current_stats(view, index))),
        "list_claim_recipients" => Found::Body(json!({"entries": []})),
        "poc_delegation" => Found::Body(json!({"delegations": [], "refusals": [], "intents": []})),
        "devshard_escrow" => Found::Body(json!({"escrow": null, "found": false})),
        "epoch_performance_summary" => Found::Body(json!({"epochPerformanceSummary": []})),
        _ => Found::NoRoute,
    }
}

fn with_two(view: &View, name: &str, first: &str, address: &str) -> Found {
    match name {
        "epoch_performance_summary" => match (number(first), view.net.host_index(address)) {
            (Ok(index), Some(host)) => self::host::epoch_performance_summary(view, index, host).into(),
            (Ok(_), None) => Found::Missing("not found".to_owned()),
            (Err(wrong), _) => wrong,
        },
        "devshard_host_epoch_stats" => Found::Body(json!({"stats": null, "found": false})),
        _ => Found::NoRoute,
    }
}

fn of_model(view: &View, name: &str, height: &str, (address, model): (&str, &str)) -> Found {
    if name == "maintenance_schedulability" {
        return schedulability(view, height, address, model);
    }
    let look = match name {
        "poc_v2_store_commit" => exam::poc_v2_store_commit,
        "mlnode_weight_distribution" => exam::mlnode_weight_distribution,
        _ => return Found::NoRoute,
    };
    match number(height) {
        Ok(height) => Found::Body(look(view, height, address, model)),
        Err(wrong) => wrong,
    }
}

fn schedulability(view: &View, address: &str, start: &str, blocks: &str) -> Found {
    let Some(host) = view.net.host_index(address) else {
        return Found::Body(json!({"schedulable": false, "rejection_reason": "participant not found"}));
    };
    match (number(start), number(blocks)) {
        (Ok(start), Ok(blocks)) => Found::Body(maintenance::schedulability(view, host, start, blocks)),
        (Err(wrong), _) | (_, Err(wrong)) => wrong,
    }
}

fn of_account(view: &View, module: &str, segments: &[&str]) -> Found {
    let by_host = |address: &str, look: &dyn Fn(usize) -> Found| match view.net.host_index(address) {
        Some(index) => look(index),
        None => Found::Missing("not found".to_owned()),
    };
    match (module, segments) {
        ("collateral", ["params"]) => Found::Body(account::collateral_params()),
        ("collateral", ["collateral", address]) => by_host(address, &|host| match account::collateral(view, host) {
            Some(body) => Found::Body(body),
            None => Found::Missing(format!("collateral not found for participant {address}")),
        }),
        ("collateral", ["unbonding", _]) => Found::Body(json!({"unbondings": []})),
        ("streamvesting", ["params"]) => Found::Body(account::vesting_params()),
        ("streamvesting", ["total_vesting", address]) => {
            by_host(address, &|host| Found::Body(account::total_vesting(view, host)))
        }
        ("streamvesting", ["vesting_schedule", address]) => {
            by_host(address, &|host| Found::Body(account::vesting_schedule(view, host)))
        }
        _ => Found::NoRoute,
    }
}

fn of_sdk(view: &View, segments: &[&str], inbound: &Inbound) -> Found {
    match segments {
        ["upgrade", "v1beta1", "current_plan"] => Found::Body(cosmos::current_plan(view)),
        ["base", "tendermint", "v1beta1", "syncing"] => Found::Body(cosmos::syncing()),
        ["base", "tendermint", "v1beta1", "node_info"] => Found::Body(cosmos::node_info(view)),
        ["base", "tendermint", "v1beta1", "blocks", "latest"] => cosmos::block(view, view.height()).into(),
        ["base", "tendermint", "v1beta1", "blocks", height] => match number(height) {
            Ok(height) => cosmos::block(view, height).into(),
            Err(wrong) => wrong,
        },
        ["bank", "v1beta1", "spendable_balances" | "balances", address] => Found::Body(cosmos::balances(view, address)),
        ["feegrant", "v1beta1", "allowance", cold, warm] => match cosmos::allowance(view, cold, warm) {
            Some(body) => Found::Body(body),
            None => Found::Missing("fee-grant not found".to_owned()),
        },
        ["feegrant", "v1beta1", "issued", granter] => Found::Body(cosmos::allowances_issued(view, granter)),
        ["authz", "v1beta1", "grants", "granter", granter] => Found::Body(cosmos::authz_grants(view, granter)),
        ["slashing", "v1beta1", "params"] => Found::Body(account::slashing_params()),
        ["slashing", "v1beta1", "signing_infos"] => Found::Body(account::signing_infos(view)),
        ["gov", "v1", "proposals"] => Found::Body(
            view.net
                .upgrades
                .proposals(view.height(), inbound.query("proposal_status")),
        ),
        _ => Found::NoRoute,
    }
}
