//! What failure domains draw when a Sprint begins: every GPU with a slot goes to its limit in the same moment. Pure.

use std::collections::BTreeMap;

use crds::model_deployment::PowerDomain;

use super::objects;
use super::world::World;
use crate::change::Change;
use crate::model_deployment::observed::Machine;

/// Domains that the status has room for.
const MAX_DOMAINS: usize = 16;

/// Domains that may draw more than their feed bears, the worst first; none while no limit is given. A machine of which no limit is
/// known counts with what it draws beside its GPUs: what is not known is not reported as too much.
pub fn above(world: &World<'_>) -> Vec<PowerDomain> {
    let placement = &world.seen.deployment.spec.placement;
    let Some(limit_watts) = placement.domain_watts.map(i64::from) else {
        return Vec::new();
    };
    let mut domains: BTreeMap<&str, PowerDomain> = BTreeMap::new();
    for machine in with_slots(world).values() {
        let domain = domains.entry(&machine.domain).or_insert_with(|| PowerDomain {
            domain: machine.domain.clone(),
            limit_watts,
            ..PowerDomain::default()
        });
        domain.machines += 1;
        domain.watts += machine.watts.unwrap_or_default() + i64::from(placement.machine_watts);
    }
    let mut above: Vec<PowerDomain> = domains
        .into_values()
        .filter(|domain| domain.watts > limit_watts)
        .collect();
    above.sort_by(|one, other| other.watts.cmp(&one.watts).then_with(|| one.domain.cmp(&other.domain)));
    above.truncate(MAX_DOMAINS);
    above
}

/// Machines with a slot, by name.
fn with_slots<'a>(world: &World<'a>) -> BTreeMap<&'a str, &'a Machine> {
    let holders = world.slots.values().filter_map(|slot| slot.holder.as_ref());
    holders
        .filter_map(|holder| {
            let (name, machine) = world.seen.machines.get_key_value(&world.pod_of(holder)?.node_name)?;
            Some((name.as_str(), machine))
        })
        .collect()
}

/// An Event about each domain that was not too much before.
pub fn notices(world: &World<'_>) -> Vec<Change> {
    let before = world.seen.deployment.status.iter().flat_map(|status| &status.power);
    let known: Vec<&str> = before.map(|domain| domain.domain.as_str()).collect();
    above(world)
        .into_iter()
        .filter(|domain| !known.contains(&domain.domain.as_str()))
        .map(|domain| {
            let note = format!(
                "machines with slots in {}: {} may draw {} W in a Sprint, {} W are planned; lower their GPUs' power limits, spread \
                 slots over more domains, or raise spec.placement.domainWatts",
                domain.domain, domain.machines, domain.watts, domain.limit_watts
            );
            objects::notice(world.seen, true, "PowerAbovePlan", note)
        })
        .collect()
}
