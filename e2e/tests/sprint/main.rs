//! The whole product around two Sprints, on one cluster, one install and one network: what must hold, in the order of a
//! fleet's life. The network's course is in `network-simulator/scenarios/sprint.yaml`.
//!
//! | module | what it asserts |
//! |---|---|
//! | [`observe`] | a host that is observed is written to by nobody; managed, its nodes stand in slot order and come back when DAPI lost them |
//! | [`bad_input`] | every reason against a spec is told and children are left alone; endpoints that fail are named |
//! | [`devices`] | real kubelets offer and hand out GPUs; a broken one is seen |
//! | [`rights`] | agents and slots may do what they must and nothing else |
//! | [`quiet`] | an unchanged world is not written |
//! | [`outage`] | a Sprint without API server, DNS and service routing counts in full and is recorded once |

mod bad_input;
mod devices;
mod observe;
mod outage;
mod quiet;
mod rights;
mod world;

use anyhow::Result;
use e2e::args::Environment;

use world::World;

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn a_fleet_holds_what_it_promises_around_two_sprints() -> Result<()> {
    world::with_world(&Environment::read(), async |world| Box::pin(story(world)).await).await
}

async fn story(world: &World<'_>) -> Result<()> {
    let (slots, offered, allowed) = tokio::join!(
        observe::nothing_is_written_while_observing(world),
        devices::kubelets_offer_and_hand_out_gpus(world),
        rights::nobody_may_more_than_it_must(world),
    );
    offered?;
    allowed?;
    slots?;
    observe::managed_nodes_are_registered_in_slot_order(world).await?;
    observe::nodes_come_back_after_the_database_was_lost(world).await?;
    let (spec, chain) = tokio::join!(
        bad_input::specs_are_refused_with_every_reason(world),
        bad_input::endpoints_that_fail_are_named(world),
    );
    spec?;
    chain?;
    observe::the_host_is_sprint_ready(world).await?;
    world.let_the_chain_run().await?;

    outage::a_sprint_goes_by(world, 1).await?;
    quiet::an_unchanged_world_is_not_written(world).await?;
    let mut disturbed = outage::a_sprint_without_the_control_plane(world, 2).await?;
    let record = outage::it_is_recorded(world, &disturbed).await?;
    let (counted, broken) = tokio::join!(
        outage::it_counts_in_full(world, &mut disturbed),
        devices::a_broken_gpu_is_seen(world),
    );
    counted?;
    broken?;
    outage::it_is_recorded_once(world, &disturbed, &record).await
}
