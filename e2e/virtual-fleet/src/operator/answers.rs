//! What DAPI and the chain say of our host, as values: no JSON is made only to be parsed again. Builds with debug assertions, all tests
//! among them, hold each value against what the operator's parsers make of the JSON that a socket would have carried.

use std::collections::BTreeMap;
use std::fmt::Debug;

use network_simulator::dapi::Node;
use network_simulator::network::Network;
use network_simulator::views::{View, admin, rest_epoch, rest_host};
use operator::chain::shapes;
use operator::dapi::answers;
use operator::dapi::{Hardware, ModelArgs, NodeSpec, NodeState, Registered};
use operator::gonka_host::observed::{Settlement, Summary};
use operator::gonka_host::{group, settlement as parsed_settlement, summary as parsed_summary};
use serde_json::json;

/// A value, and in checked builds the proof that it is the one that is parsed.
fn checked<T: Debug + PartialEq>(value: T, parsed: impl FnOnce() -> T) -> T {
    debug_assert_eq!(value, parsed(), "a value and its JSON say different things");
    value
}

/// `GET /admin/v1/nodes`, sorted by id.
pub(super) fn nodes(view: &View<'_>) -> Vec<Registered> {
    let mut nodes: Vec<Registered> = view
        .net
        .dapi
        .nodes
        .iter()
        .map(|node| registered(view.net, node))
        .collect();
    nodes.sort_by(|one, other| one.node.id.cmp(&other.node.id));
    checked(nodes, || answers::nodes(&admin::nodes(view, 0)).unwrap_or_default())
}

fn registered(net: &Network, node: &Node) -> Registered {
    let spec = &node.spec;
    let preserved = net.dapi.preserved.contains(&spec.id);
    Registered {
        node: NodeSpec {
            id: spec.id.clone(),
            host: spec.host.clone(),
            inference_segment: spec.inference_segment.clone(),
            inference_port: i64::from(spec.inference_port),
            poc_segment: spec.poc_segment.clone(),
            poc_port: i64::from(spec.poc_port),
            max_concurrent: i64::from(spec.max_concurrent),
            models: spec
                .models
                .iter()
                .map(|(id, model)| {
                    let args = model.args.clone();
                    (id.clone(), ModelArgs { args })
                })
                .collect(),
            hardware: spec
                .hardware
                .iter()
                .map(|device| Hardware {
                    kind: device.kind.clone(),
                    count: i64::from(device.count),
                })
                .collect(),
            other: BTreeMap::new(),
        },
        node_num: i32::try_from(node.node_num).unwrap_or_default(),
        state: Some(NodeState {
            current_status: node.current.0.to_string(),
            intended_status: node.intended.0.to_string(),
            poc_current_status: node.current.1.to_string(),
            failure_reason: node.failure_reason.clone(),
            enabled: node.admin.enabled,
            preserved_models: node.model().filter(|_| preserved).into_iter().cloned().collect(),
        }),
    }
}

/// Our weight in the ruling epoch's group and the scales of its models; nothing before there is a group.
pub(super) fn standing(view: &View<'_>) -> Option<(i64, BTreeMap<String, String>)> {
    let net = view.net;
    let index = view.effective_epoch();
    let exists = index > 0 && index <= view.latest_epoch();
    let formed = exists && view.height() >= net.lengths().stages(index).set_new_validators;
    let seat = net.epoch(index).and_then(|epoch| epoch.seats.get(&net.ours));
    let weight = seat.filter(|_| formed).map_or(0, |seat| seat.weight.cast_signed());
    let models = if formed { net.scenario.models.as_slice() } else { &[] };
    let scales = models.iter().filter_map(|model| {
        let scale = net.scale(index, &model.id).unwrap_or(model.weight_scale_factor);
        let decimal = shapes::decimal(&json!({"scale": scale.rest()}), "scale");
        Some((model.id.clone(), decimal.ok().flatten()?))
    });
    checked(exists.then(|| (weight, scales.collect())), || {
        let answer = rest_epoch::current_epoch_group_data(view)?;
        let group = group(&answer, &net.hosts.get(net.ours)?.address).ok()?;
        Some((group.member.map_or(0, |member| member.weight), group.scales))
    })
}

/// Our reward that waits to be claimed.
pub(super) fn settlement(view: &View<'_>) -> Option<Settlement> {
    let ours = view.net.ours;
    let open = rest_host::claimable(view).and_then(|(epoch, settlement)| {
        let reward = settlement.rewards.get(&ours)?;
        (reward.claimed_height == 0).then(|| Settlement {
            epoch: epoch.cast_signed(),
            amount: reward.ngonka,
        })
    });
    checked(open, || {
        let answer = rest_host::settle_amount(view, ours)?;
        parsed_settlement(&answer).ok().flatten()
    })
}

/// What an epoch brought us.
pub(super) fn summary(view: &View<'_>, epoch: i64) -> Option<Summary> {
    let (ours, epoch) = (view.net.ours, epoch.unsigned_abs());
    let settled = view.net.epoch(epoch).and_then(|epoch| epoch.settlement.as_ref());
    let reward = settled.and_then(|settlement| settlement.rewards.get(&ours));
    let found = reward.map(|reward| {
        let claimed = reward.claimed_height > 0 && reward.claimed_height <= view.height();
        Summary {
            amount: if claimed { reward.ngonka } else { 0 },
            claimed,
        }
    });
    checked(found, || {
        let answer = rest_host::epoch_performance_summary(view, epoch, ours)?;
        parsed_summary(&answer).ok().flatten()
    })
}
