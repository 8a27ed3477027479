//! What the parts may do on a real API server: as their own tokens, and as the server judges their names.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use crds::GpuNode;
use e2e::fleet::until;
use e2e::harness::Cluster;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use serde_json::json;

use crate::world::World;

/// Groups in which everybody who is known may ask who he is and what he may.
const ASKING: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

/// All of it.
pub async fn nobody_may_more_than_it_must(world: &World<'_>) -> Result<()> {
    the_api_server_says_no(world).await?;
    the_agent_may_patch_one_status_and_nothing_else(world).await?;
    an_agent_writes_its_own_node_alone(world).await?;
    a_slot_may_do_nothing(world).await?;
    world.say("agents, slots and the operator may do what they must and nothing else");
    Ok(())
}

/// One question to the API server.
struct Question {
    who: &'static str,
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    namespace: &'static str,
}

const AGENT: &str = "system:serviceaccount:gonka-system:gonka-agent";
const OPERATOR: &str = "system:serviceaccount:gonka-system:gonka-operator";
const SLOT: &str = "system:serviceaccount:gonka:gonka-slot";

const fn ask(
    who: &'static str,
    verb: &'static str,
    (group, resource, subresource): (&'static str, &'static str, &'static str),
    namespace: &'static str,
) -> Question {
    Question {
        who,
        verb,
        group,
        resource,
        subresource,
        namespace,
    }
}

async fn the_api_server_says_no(world: &World<'_>) -> Result<()> {
    let secrets = ("", "secrets", "");
    let gpu_nodes = ("fleet.gonka.ai", "gpunodes", "");
    let gpu_status = ("fleet.gonka.ai", "gpunodes", "status");
    let no = [
        ask(AGENT, "get", secrets, "gonka"),
        ask(AGENT, "list", secrets, "gonka-system"),
        ask(AGENT, "get", gpu_nodes, ""),
        ask(AGENT, "patch", gpu_nodes, ""),
        ask(AGENT, "update", gpu_status, ""),
        ask(AGENT, "create", gpu_nodes, ""),
        ask(AGENT, "list", ("", "pods", ""), "gonka"),
        ask(OPERATOR, "get", secrets, "kube-system"),
        ask(OPERATOR, "list", secrets, "gonka"),
        // One Secret of its own namespace, by name, is all it may read and change there.
        ask(OPERATOR, "get", secrets, "gonka-system"),
        ask(OPERATOR, "list", secrets, "gonka-system"),
        ask(OPERATOR, "patch", secrets, "gonka-system"),
        ask(OPERATOR, "delete", secrets, "gonka-system"),
        ask(OPERATOR, "create", ("", "pods", ""), "kube-system"),
        ask(OPERATOR, "delete", gpu_nodes, ""),
        ask(OPERATOR, "create", ("", "pods", "exec"), "gonka"),
        ask(
            OPERATOR,
            "create",
            ("rbac.authorization.k8s.io", "rolebindings", ""),
            "gonka",
        ),
        ask(SLOT, "get", ("", "pods", ""), "gonka"),
        ask(SLOT, "get", secrets, "gonka"),
        ask(SLOT, "get", ("", "configmaps", ""), "gonka"),
    ];
    for question in &no {
        let Question { who, verb, .. } = question;
        ensure!(
            !allowed(&world.client, question).await?,
            "{who} may {verb} {}/{} in {:?}",
            question.resource,
            question.subresource,
            question.namespace
        );
    }
    // What they live on is allowed, or the answers above would mean nothing.
    for question in [
        ask(AGENT, "patch", gpu_status, ""),
        ask(OPERATOR, "create", ("", "pods", ""), "gonka"),
        ask(OPERATOR, "create", secrets, "gonka-system"),
    ] {
        ensure!(
            allowed(&world.client, &question).await?,
            "{} may not {} {}",
            question.who,
            question.verb,
            question.resource
        );
    }
    Ok(())
}

async fn allowed(client: &Client, question: &Question) -> Result<bool> {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: text(question.who),
            resource_attributes: Some(ResourceAttributes {
                verb: text(question.verb),
                group: text(question.group),
                resource: text(question.resource),
                subresource: text(question.subresource),
                namespace: text(question.namespace),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::all(client.clone())
        .create(&PostParams::default(), &review)
        .await
        .context("the API server does not judge access")?;
    Ok(answer
        .status
        .context("the API server did not answer a review of access")?
        .allowed)
}

/// A service account's token. Bound to a pod it carries the pod's node, as the one the kubelet mounts does.
async fn token(cluster: &Cluster, namespace: &str, account: &str, pod: Option<&str>) -> Result<String> {
    let mut arguments = vec![
        format!("--namespace={namespace}"),
        "create".to_owned(),
        "token".to_owned(),
        account.to_owned(),
    ];
    arguments.extend(pod.into_iter().flat_map(|pod| {
        [
            "--bound-object-kind=Pod".to_owned(),
            format!("--bound-object-name={pod}"),
        ]
    }));
    Ok(cluster.kubectl(&arguments).await?.trim().to_owned())
}

/// A client with a token and no other credential.
async fn client_with(cluster: &Cluster, token: &str) -> Result<Client> {
    let file = Kubeconfig::read_from(cluster.kubeconfig()).context("the kubeconfig cannot be read")?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .context("the kubeconfig names no usable cluster")?;
    config.auth_info = serde_json::from_value(json!({ "token": token })).context("a token is no credential")?;
    Client::try_from(config).context("no client with a token")
}

/// What a client may do in a namespace, beyond asking about itself.
async fn rules(client: Client, namespace: &str) -> Result<BTreeSet<(String, String, String)>> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.to_owned()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let answer = Api::<SelfSubjectRulesReview>::all(client)
        .create(&PostParams::default(), &review)
        .await
        .context("the API server does not tell rules")?;
    let status = answer.status.context("the API server told no rules")?;
    ensure!(!status.incomplete, "the API server knows only a part of the rules");
    Ok(status.resource_rules.iter().flat_map(triples).collect())
}

fn triples(rule: &ResourceRule) -> Vec<(String, String, String)> {
    let groups = rule.api_groups.iter().flatten();
    groups
        .filter(|group| !ASKING.contains(&group.as_str()))
        .flat_map(|group| {
            let resources = rule.resources.iter().flatten();
            resources.flat_map(move |resource| {
                let verbs = rule.verbs.iter();
                verbs.map(move |verb| (group.clone(), resource.clone(), verb.clone()))
            })
        })
        .collect()
}

async fn the_agent_may_patch_one_status_and_nothing_else(world: &World<'_>) -> Result<()> {
    let token = token(world.cluster, "gonka-system", "gonka-agent", None).await?;
    let found = rules(client_with(world.cluster, &token).await?, "gonka").await?;
    let only = ("fleet.gonka.ai", "gpunodes/status", "patch");
    let only = BTreeSet::from([(only.0.to_owned(), only.1.to_owned(), only.2.to_owned())]);
    ensure!(found == only, "gonka-agent may do {found:?}");
    Ok(())
}

async fn a_slot_may_do_nothing(world: &World<'_>) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "gonka");
    until("the slots' account", Duration::from_secs(60), async || {
        let found = accounts.get_opt("gonka-slot").await?;
        Ok(found.map(drop).ok_or_else(|| "the operator made none yet".to_owned()))
    })
    .await?;
    let token = token(world.cluster, "gonka", "gonka-slot", None).await?;
    for namespace in ["gonka", "gonka-system", "kube-system"] {
        let found = rules(client_with(world.cluster, &token).await?, namespace).await?;
        ensure!(found.is_empty(), "gonka-slot may do {found:?} in {namespace}");
    }
    Ok(())
}

/// The admission policy: RBAC cannot tell one agent from another.
async fn an_agent_writes_its_own_node_alone(world: &World<'_>) -> Result<()> {
    let agents: Api<Pod> = Api::namespaced(world.client.clone(), "gonka-system");
    let role = format!("{}={}", crds::labels::ROLE, crds::labels::ROLE_AGENT);
    let (pod, node) = until("agents with a node", Duration::from_secs(60), async || {
        let list = agents.list(&ListParams::default().labels(&role)).await?;
        let placed = list.iter().find_map(|pod| {
            let node = pod.spec.as_ref()?.node_name.clone()?;
            Some((pod.name_any(), node))
        });
        Ok(placed.ok_or_else(|| format!("{} agents, none on a node", list.items.len())))
    })
    .await?;
    let nodes: Api<GpuNode> = Api::all(world.client.clone());
    let other = nodes
        .list(&ListParams::default())
        .await?
        .iter()
        .map(kube::ResourceExt::name_any)
        .find(|name| *name != node)
        .context("there is no second GpuNode")?;
    let bound = token(world.cluster, "gonka-system", "gonka-agent", Some(&pod)).await?;
    let unbound = token(world.cluster, "gonka-system", "gonka-agent", None).await?;
    write_status(world, &bound, &node)
        .await?
        .map_err(anyhow::Error::msg)
        .context("an agent may not write its own node")?;
    refused(write_status(world, &bound, &other).await?, "may not write GpuNode")?;
    refused(write_status(world, &unbound, &node).await?, "may not write GpuNode")
}

fn refused(answer: std::result::Result<(), String>, why: &str) -> Result<()> {
    match answer {
        Err(said) if said.contains(why) => Ok(()),
        other => bail!("{other:?} instead of a refusal with {why:?}"),
    }
}

/// A write of a GpuNode's status that is judged and not carried out; the API server's words when it is refused.
async fn write_status(world: &World<'_>, token: &str, node: &str) -> Result<std::result::Result<(), String>> {
    let nodes: Api<GpuNode> = Api::all(client_with(world.cluster, token).await?);
    let parameters = PatchParams {
        dry_run: true,
        field_manager: Some("e2e".to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"status": {"product": "NVIDIA H200"}}));
    match nodes.patch_status(node, &parameters, &patch).await {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
        Err(error) => Err(error).with_context(|| format!("GpuNode {node} was not written, and nobody says why")),
    }
}
