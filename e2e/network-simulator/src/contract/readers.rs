//! Which recorded answer our clients read, and with what. Everything recorded is in one of these two lists.

use operator::{
    chain::{answers as chain, parameters, shapes::ShapeError},
    dapi::answers as dapi,
    gonka_host::account,
    sprint_run::{self, answers as exam},
};
use serde_json::{Value, json};
use std::fmt::Debug;

/// Reads an answer about an account and shows the value it became.
pub type Reader = fn(&Value, &str) -> Result<String, String>;

fn shown<T: Debug>(read: Result<T, ShapeError>) -> Result<String, String> {
    read.map(|value| format!("{value:?}"))
        .map_err(|error| error.to_string())
}

/// What DAPI and the chain's clock have to say in the same answer.
fn epochs_latest(body: &Value, _: &str) -> Result<String, String> {
    Ok(format!("{} {}", shown(dapi::latest(body))?, shown(chain::clock(body))?))
}

/// An answer to a registration has the node alone.
fn node_spec(body: &Value, _: &str) -> Result<String, String> {
    shown(dapi::nodes(&json!([{ "node": body }])))
}

const READERS: &[(&str, Reader)] = &[
    ("rest-epoch_info", |body, _| shown(chain::clock(body))),
    ("rest-params", |body, _| shown(parameters::parse(body, 162))),
    ("rest-active_confirmation_poc_event", |body, _| {
        shown(chain::event(body))
    }),
    ("rest-preserved_nodes_snapshot", |body, _| shown(chain::preserved(body))),
    ("rest-cosmos_upgrade_current_plan", |body, _| {
        shown(chain::upgrade_plan(body))
    }),
    ("rest-cosmos_gov_v1_proposals_proposal_status_2", |body, _| {
        shown(chain::upgrade_votes(body))
    }),
    ("rest-last_upgrade_height", |body, _| shown(chain::last_upgrade(body))),
    ("rest-current_epoch_group_data", |body, host| {
        shown(account::group(body, host))
    }),
    ("rest-epoch_group_data_2", |body, host| {
        shown(account::group(body, host))
    }),
    ("rest-epoch_group_data_2_model_id_MODEL", |body, host| {
        shown(account::group(body, host))
    }),
    ("rest-settle_amount_COLD", |body, _| shown(account::settlement(body))),
    ("rest-epoch_performance_summary_1_COLD", |body, _| {
        shown(account::summary(body))
    }),
    ("rest-all_poc_v2_store_commits_145", |body, _| {
        shown(exam::commits(body))
    }),
    ("rest-all_poc_v2_store_commits_180", |body, _| {
        shown(exam::commits(body))
    }),
    ("rest-all_mlnode_weight_distributions_145", |body, host| {
        shown(exam::distribution(body, host))
    }),
    ("rest-all_mlnode_weight_distributions_180", |body, host| {
        shown(exam::distribution(body, host))
    }),
    ("rest-poc_v2_validations_for_stage_145", |body, host| {
        shown(exam::ballot(body, host))
    }),
    ("rest-poc_v2_validations_for_stage_180", |body, host| {
        shown(exam::ballot(body, host))
    }),
    ("rest-poc_validation_snapshot_145", |body, _| shown(exam::powers(body))),
    ("rest-poc_validation_snapshot_180", |body, _| shown(exam::powers(body))),
    ("rest-participant_COLD", |body, _| shown(exam::confirmation_ratio(body))),
    ("rest-confirmation_poc_events_2", |body, _| {
        shown(sprint_run::confirmations(body))
    }),
    ("rest-cosmos_base_tendermint_blocks_latest", |body, _| {
        shown(exam::block(body))
    }),
    ("rpc-status", |body, _| shown(chain::status(body))),
    ("rpc-block", |body, _| shown(chain::block(body))),
    ("ws-newblock", |body, _| {
        chain::new_block(body)
            .map(|block| format!("{block:?}"))
            .ok_or_else(|| "no block".to_owned())
    }),
    ("dapi-epochs-latest", epochs_latest),
    ("dapi-identity", |body, _| shown(dapi::identity(body))),
    ("dapi-poc-artifacts-state", |body, _| shown(dapi::artifact_state(body))),
];

const ADMIN_READERS: &[(&str, Reader)] = &[
    ("admin-nodes", |body, _| shown(dapi::nodes(body))),
    ("admin-setup_report", |body, _| shown(dapi::setup_report(body))),
    ("admin-post-node", node_spec),
];

/// Served here for whoever asks; nothing of ours reads them.
const UNREAD: &[&str] = &[
    "admin-config", // Holds secrets: never read.
    "admin-epoch-fee-budget",
    "admin-nodes_upgrade-status",
    "admin-unit-of-compute-price-proposal",
    "dapi-epochs-current",
    "dapi-epochs-current-participants",
    "dapi-mlnodes-metrics",
    "dapi-poc-artifacts-state2", // A refusal.
    "dapi-status",
    "dapi-v1_bridge_status",
    "dapi-v1_chat_completions",
    "dapi-v1_epochs_2",
    "dapi-v1_governance_models",
    "dapi-v1_models",
    "dapi-v1_nosuch",
    "dapi-v1_participants",
    "dapi-v1_participants_COLD",
    "dapi-v1_poc-batches_2",
    "dapi-v1_pricing",
    "dapi-v1_restrictions_status",
    "dapi-v2_accounts_COLD",
    "dapi-versions",
    "dapiml-sd_devshardd",
    "dapiml-versions",
    "rest-all_model_capacities",
    "rest-collateral_collateral_COLD", // A refusal.
    "rest-collateral_params",
    "rest-collateral_unbonding_COLD",
    "rest-cosmos_authz_grants_granter_COLD",
    "rest-cosmos_bank_balances_COLD",
    "rest-cosmos_bank_spendable_balances_COLD",
    "rest-cosmos_base_tendermint_node_info",
    "rest-cosmos_base_tendermint_syncing",
    "rest-cosmos_feegrant_allowance_COLD_WARM",
    "rest-cosmos_feegrant_issued_COLD",
    "rest-cosmos_slashing_params",
    "rest-cosmos_slashing_signing_infos",
    "rest-devshard_escrow_1",
    "rest-devshard_host_epoch_stats_2_COLD",
    "rest-dynamic_coefficients_2",
    "rest-excluded_participants_2",
    "rest-get_current_epoch",
    "rest-get_participant_current_stats_COLD",
    "rest-grantees_by_message_type_COLD__2Finference.inference.MsgPoCV2StoreCommit",
    "rest-hardware_nodes_COLD",
    "rest-hardware_nodes_all",
    "rest-list_claim_recipients_COLD",
    "rest-maintenance_active",
    "rest-maintenance_concurrency_182",
    "rest-maintenance_credit_COLD",
    "rest-maintenance_schedulability_COLD_182_10",
    "rest-maintenance_scheduled_COLD",
    "rest-maintenance_status_COLD",
    "rest-mlnode_version",
    "rest-mlnode_weight_distribution_145_COLD_MODEL",
    "rest-mlnode_weight_distribution_180_COLD_MODEL",
    "rest-model_capacity_MODEL",
    "rest-model_per_token_price_MODEL",
    "rest-models_all",
    "rest-partial_upgrade",
    "rest-epoch_performance_summary_1", // The list of all; ours is asked for alone.
    "rest-settle_amount",               // The list of all; ours is asked for alone.
    "rest-participant",
    "rest-participants_count",
    "rest-poc_delegation_COLD",
    "rest-poc_v2_store_commit_145_COLD_MODEL",
    "rest-poc_v2_store_commit_180_COLD_MODEL",
    "rest-random_seeds_2",
    "rest-streamvesting_params",
    "rest-streamvesting_total_vesting_COLD",
    "rest-streamvesting_vesting_schedule_COLD",
    "rest-tokenomics_data",
    "rpc-abci_info",
    "rpc-block_results",
    "rpc-block_search",
    "rpc-health",
    "rpc-net_info",
    "rpc-validators",
];

/// What reads an endpoint's answers; absent when nothing of ours does.
///
/// # Panics
/// When an endpoint is in neither list or in both: somebody has to say whether it is read.
pub fn of(endpoint: &str) -> Option<Reader> {
    let mut all = READERS.iter().chain(ADMIN_READERS);
    let reader = all.find(|(name, _)| *name == endpoint).map(|(_, reader)| *reader);
    assert_ne!(
        reader.is_some(),
        UNREAD.contains(&endpoint),
        "{endpoint} is read or it is not"
    );
    reader
}

/// Names in the lists, to find those that nothing was recorded of.
pub fn names() -> Vec<&'static str> {
    let read = READERS.iter().chain(ADMIN_READERS).map(|(name, _)| *name);
    read.chain(UNREAD.iter().copied()).collect()
}
