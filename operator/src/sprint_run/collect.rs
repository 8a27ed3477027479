//! Box 2: evidence of one exam from the chain and DAPI. What does not answer is said in its reading and asked again later.

use std::collections::{BTreeMap, BTreeSet};

use crds::GonkaHost;
use crds::references::ExamKind;
use serde_json::Value;

use super::answers::{self, Commit};
use super::examined::{Examined, Phase};
use super::observed::Evidence;
use crate::chain::Queries;
use crate::chain::shapes::ShapeError;
use crate::context::Context;
use crate::dapi::{Client, Endpoint};
use crate::gonka_host::observed::Reading;
use crate::gonka_host::{group, settlement, summary};

/// One exam and where to ask about it.
#[derive(Debug)]
pub struct Inquiry<'a> {
    /// The exam.
    pub exam: &'a Examined,
    /// How far it is.
    pub phase: Phase,
    /// The host; absent when it was deleted.
    pub host: Option<&'a GonkaHost>,
    /// Its account.
    pub address: &'a str,
    /// Models its deployments prove.
    pub models: BTreeSet<String>,
    /// The chain's present epoch.
    pub epoch: i64,
}

async fn ask<T>(queries: &Queries, path: String, parse: impl FnOnce(&Value) -> Result<T, ShapeError>) -> Reading<T> {
    match queries.inference(&path).await {
        Ok(answer) => Reading::of(parse(&answer)),
        Err(error) => Reading::of(Err(error)),
    }
}

/// A query whose subject may not be there.
async fn ask_maybe<T>(
    queries: &Queries,
    path: &str,
    parse: impl FnOnce(&Value) -> Result<Option<T>, ShapeError>,
) -> Result<Option<T>, String> {
    let said = |error: &dyn std::error::Error| crate::gonka_host::observed::in_words(error);
    match queries.inference(path).await {
        Ok(answer) => parse(&answer).map_err(|error| said(&error)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(said(&error)),
    }
}

/// Commits by account as they stand now, all models; absent when nobody answers.
pub async fn photo(queries: &Queries, exam: &Examined) -> Option<BTreeMap<String, i64>> {
    let answer = queries
        .inference(&format!("all_poc_v2_store_commits/{}", exam.trigger_height))
        .await
        .ok()?;
    let mut counts = BTreeMap::new();
    for commit in answers::commits(&answer).ok()? {
        *counts.entry(commit.address).or_insert(0) += commit.count;
    }
    Some(counts)
}

/// Everything this phase can tell.
pub async fn evidence(context: &Context, queries: &Queries, inquiry: &Inquiry<'_>) -> Evidence {
    let Inquiry {
        exam, phase, address, ..
    } = inquiry;
    let height = exam.trigger_height;
    let (commits, distribution, powers) = tokio::join!(
        ask(queries, format!("all_poc_v2_store_commits/{height}"), answers::commits),
        ask(queries, format!("all_mlnode_weight_distributions/{height}"), |answer| {
            answers::distribution(answer, address)
        }),
        ask(queries, format!("poc_validation_snapshot/{height}"), answers::powers),
    );
    let mut evidence = Evidence {
        commits,
        distribution,
        powers,
        ..Evidence::default()
    };
    evidence.accepted = accepted(context, inquiry, evidence.commits.value.as_deref().unwrap_or_default()).await;
    if *phase >= Phase::Voted {
        let path = format!("poc_v2_validations_for_stage/{height}");
        evidence.ballot = ask(queries, path, |answer| answers::ballot(answer, address)).await;
        evidence.weight = weight(queries, inquiry).await;
    }
    if *phase >= Phase::Weighed && exam.kind == ExamKind::Confirmation && inquiry.epoch == exam.epoch {
        let path = format!("participant/{address}");
        evidence.confirmation_ratio = ask(queries, path, answers::confirmation_ratio).await;
    }
    if *phase >= Phase::Settled {
        evidence.reward = reward(queries, exam.epoch, address).await;
    }
    evidence
}

async fn weight(queries: &Queries, inquiry: &Inquiry<'_>) -> Reading<Option<i64>> {
    let confirmation = inquiry.exam.kind != ExamKind::Sprint;
    ask(queries, format!("epoch_group_data/{}", inquiry.exam.epoch), |answer| {
        let group = group(answer, inquiry.address)?;
        // Before weights are formed the group has no members; afterwards a host that is not in it has none.
        Ok((group.members > 0).then(|| {
            group.member.map_or(0, |member| {
                if confirmation {
                    member.confirmation_weight
                } else {
                    member.weight
                }
            })
        }))
    })
    .await
}

/// What DAPI accepted, over all models of the host.
async fn accepted(context: &Context, inquiry: &Inquiry<'_>, commits: &[Commit]) -> Reading<Option<i64>> {
    let Some(external) = inquiry.host.and_then(|host| host.spec.network_node.external.as_ref()) else {
        return Reading::known(None);
    };
    let endpoint = Endpoint {
        admin_url: external.admin_url.clone(),
        public_url: external.public_url.clone(),
        token: None,
        ca_bundle: external.ca_bundle.clone(),
    };
    let client = match Client::new(endpoint, context.metrics.clone()) {
        Ok(client) => client,
        Err(error) => return Reading::of(Err(error)),
    };
    let committed = commits
        .iter()
        .filter(|commit| commit.address == inquiry.address)
        .map(|commit| commit.model.clone());
    let models: BTreeSet<String> = inquiry.models.iter().cloned().chain(committed).collect();
    let mut sum = None;
    for model in &models {
        match client.artifact_state(inquiry.exam.trigger_height, model).await {
            Ok(None) => {}
            Ok(Some(state)) => *sum.get_or_insert(0) += state.count,
            Err(error) => return Reading::of(Err(error)),
        }
    }
    Reading::known(sum)
}

/// The reward of an epoch: settled and open, or claimed.
async fn reward(queries: &Queries, epoch: i64, address: &str) -> Reading<Option<u64>> {
    let open = ask_maybe(queries, &format!("settle_amount/{address}"), settlement).await;
    match open {
        Err(failure) => return Reading { value: None, failure },
        Ok(Some(open)) if open.epoch == epoch => return Reading::known(Some(open.amount)),
        Ok(_) => {}
    }
    match ask_maybe(
        queries,
        &format!("epoch_performance_summary/{epoch}/{address}"),
        summary,
    )
    .await
    {
        Err(failure) => Reading { value: None, failure },
        Ok(found) => Reading::known(found.filter(|summary| summary.claimed).map(|summary| summary.amount)),
    }
}
