//! Nobody takes weight away when the network is looking, and maintenance gets done all the same: every actor that may delete,
//! evict, preempt or collect, against a fleet on real kubelets.
//!
//! | module | what it asserts |
//! |---|---|
//! | [`drain`] | a drain during a Sprint waits, goes on after it, and costs nothing; foreign switches are as they were |
//! | [`actors`] | who is denied what, and that nothing of strangers is disturbed |
//! | [`glass`] | who may break the glass, that it is told of, and that it is mended |
//! | [`absence`] | without the operator, and without its chart, slots run on protected |

mod absence;
mod actors;
mod drain;
mod glass;
mod world;

use anyhow::Result;
use e2e::args::Environment;

use world::World;

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn nobody_takes_a_slot_away_and_maintenance_gets_done() -> Result<()> {
    world::with_world(&Environment::read(), async |world| Box::pin(story(world)).await).await
}

async fn story(world: &World<'_>) -> Result<()> {
    drain::a_drain_in_a_sprint_waits_and_goes_on(world).await?;
    let lives = world.lives().await?;
    actors::deletions_are_denied(world).await?;
    actors::strangers_are_not_disturbed(world).await?;
    actors::taints_and_preemption_move_nothing(world).await?;
    world.lived_on(&lives).await?;
    tokio::try_join!(
        glass::a_glass_is_broken_by_those_who_may_and_mended(world),
        actors::a_node_object_that_is_gone_takes_no_pod_with_it(world),
    )?;
    glass::a_policy_that_is_removed_is_an_alarm(world).await?;
    world.lived_on(&lives).await?;
    absence::a_dead_operator_leaves_everything_protected(world).await?;
    absence::an_uninstalled_chart_leaves_slots_running(world).await?;
    world.lived_on(&lives).await
}
