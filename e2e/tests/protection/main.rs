//! Nobody takes weight away when the network is looking, and maintenance gets done all the same: every actor that may delete,
//! evict, preempt or collect, against a fleet on real kubelets.
//!
//! | module | what it asserts |
//! |---|---|
//! | [`drain`] | a drain during a Sprint waits, goes on after it, and costs nothing; foreign switches are as they were |
//! | [`medik8s`] | its NodeHealthCheck is paused while a machine is held, beside what others asked for |
//! | [`rollout`] | a change of the template goes through an exam and costs none; a bad one goes back; a spare just before a Sprint |
//! | [`actors`] | who is denied what, and that nothing of strangers is disturbed |
//! | [`glass`] | who may break the glass, that it is told of, and that it is mended |
//! | [`absence`] | without the operator, and without its chart, slots run on protected |
//! | [`again`] | a deployment made again keeps its pods; a fleet is taken away, and machines are as they were |

mod absence;
mod actors;
mod again;
mod drain;
mod glass;
mod medik8s;
mod rollout;
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
    let mut exams = vec![drain::a_drain_in_a_sprint_waits_and_goes_on(world).await?];
    exams.extend(rollout::a_rollout_goes_through_an_epoch(world).await?);
    rollout::a_revision_that_is_slower_goes_back(world).await?;
    exams.push(rollout::a_spare_takes_over_just_before_a_sprint(world).await?);
    let lives = world.lives().await?;
    actors::deletions_are_denied(world).await?;
    actors::strangers_are_not_disturbed(world).await?;
    actors::taints_and_preemption_move_nothing(world).await?;
    world.lived_on(&lives).await?;
    tokio::try_join!(
        world.nothing_was_lost(&exams),
        glass::a_glass_is_broken_by_those_who_may_and_mended(world),
        actors::a_node_object_that_is_gone_takes_no_pod_with_it(world),
    )?;
    glass::a_policy_that_is_removed_is_an_alarm(world).await?;
    world.lived_on(&lives).await?;
    absence::a_dead_operator_leaves_everything_protected(world).await?;
    absence::an_uninstalled_chart_leaves_slots_running(world).await?;
    world.lived_on(&lives).await?;
    again::a_deployment_made_again_keeps_its_pods(world).await?;
    world.lived_on(&lives).await?;
    again::a_fleet_is_taken_away(world).await
}
