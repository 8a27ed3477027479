//! Every reason for which a spec is not acted upon, one by one and together; what runs is left alone.

use crds::model_deployment::{
    Device, Dtype, EngineKind, EnvVar, ExposureKind, ModelDeploymentSpec, OverlayMount, OverlayVolume, PodOverlay,
    VolumeKind,
};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use operator::change::Change;
use operator::model_deployment::decide;
use rstest::rstest;

use crate::fleet::Fleet;

fn overlay(spec: &mut ModelDeploymentSpec) -> &mut PodOverlay {
    spec.pod_overlay.get_or_insert_default()
}

fn quantities(entries: &[(&str, &str)]) -> std::collections::BTreeMap<String, Quantity> {
    let quantity = |(name, value): &(&str, &str)| ((*name).to_owned(), Quantity((*value).to_owned()));
    entries.iter().map(quantity).collect()
}

type Spoil = fn(&mut ModelDeploymentSpec);

const SPOILS: [(Spoil, &str); 17] = [
    (
        |spec| spec.engine.kind = EngineKind::Vllm,
        "spec.engine.type: VLLM comes later",
    ),
    (
        |spec| spec.engine.kind = EngineKind::MlNode,
        "spec.engine.type: MLNode comes later",
    ),
    (
        |spec| spec.engine.kind = EngineKind::External,
        "spec.engine.type: External comes later",
    ),
    (|spec| spec.engine.native = None, "spec.engine.native: must be set"),
    (
        |spec| "decode_v3".clone_into(&mut spec.engine.native.as_mut().expect("it is native").scheme),
        "spec.engine.native.scheme: decode_v3 is not known",
    ),
    (
        |spec| {
            let native = spec.engine.native.as_mut().expect("it is native");
            (native.device, native.dtype) = (Device::Cuda, Dtype::Bf16);
            spec.gpus_per_replica = 0;
        },
        "spec.gpusPerReplica: device CUDA needs 1 for each replica",
    ),
    (
        |spec| spec.model.repository = Some("org/weights".to_owned()),
        "spec.model: a Native engine downloads nothing",
    ),
    (
        |spec| spec.exposure.kind = ExposureKind::HostPort,
        "spec.exposure.type: HostPort comes later",
    ),
    (
        |spec| spec.adopt_nodes = vec!["a".to_owned(), "a".to_owned()],
        "spec.adoptNodes: \"a\" is empty or there twice",
    ),
    (
        |spec| {
            overlay(spec)
                .labels
                .insert("fleet.gonka.ai/slot".to_owned(), "0".to_owned());
        },
        "spec.podOverlay.labels: fleet.gonka.ai/slot is the operator's own",
    ),
    (
        |spec| {
            overlay(spec)
                .annotations
                .insert("fleet.gonka.ai/break-glass".to_owned(), "x".to_owned());
        },
        "spec.podOverlay.annotations: fleet.gonka.ai/break-glass is the operator's own",
    ),
    (
        |spec| {
            overlay(spec).resources = Some(ResourceRequirements {
                requests: Some(quantities(&[("cpu", "1")])),
                limits: Some(quantities(&[("cpu", "2")])),
                claims: None,
            });
        },
        "spec.podOverlay.resources: limits.cpu (2) must equal requests.cpu (1)",
    ),
    (
        |spec| {
            overlay(spec).resources = Some(ResourceRequirements {
                limits: Some(quantities(&[("nvidia.com/gpu", "8")])),
                ..ResourceRequirements::default()
            });
        },
        "spec.podOverlay.resources: nvidia.com/gpu cannot be set here",
    ),
    (
        |spec| {
            overlay(spec).env.push(EnvVar {
                name: "POD_UID".to_owned(),
                value: "x".to_owned(),
            });
        },
        "spec.podOverlay.env: POD_UID is the operator's own",
    ),
    (
        |spec| {
            overlay(spec).volumes.push(OverlayVolume {
                name: "run".to_owned(),
                kind: VolumeKind::EmptyDir,
                ..OverlayVolume::default()
            });
        },
        "spec.podOverlay.volumes: run is the operator's own",
    ),
    (
        |spec| {
            overlay(spec).volume_mounts.push(OverlayMount {
                name: "none".to_owned(),
                mount_path: "/var/lib/gonka/journal".to_owned(),
            });
        },
        "spec.podOverlay.volumeMounts: there is no volume none",
    ),
    (
        |spec| {
            let native = spec.engine.native.as_mut().expect("it is native");
            (native.device, native.dtype) = (Device::Cuda, Dtype::F32);
            spec.gpus_per_replica = 1;
        },
        "spec.engine.native.dtype: device CUDA computes in BF16",
    ),
];

fn accepted(fleet: &Fleet) -> (String, String, String) {
    let status = fleet.deployment.status.clone().expect("there is a status");
    let condition = status.conditions.iter().find(|condition| condition.type_ == "Accepted");
    let condition = condition.expect("Accepted is always there");
    (
        condition.status.clone(),
        condition.reason.clone(),
        condition.message.clone(),
    )
}

#[test]
fn each_invalid_spec_is_refused_with_its_reason() {
    for (spoil, reason) in SPOILS {
        let mut fleet = Fleet::new(1, 0, 2);
        spoil(&mut fleet.deployment.spec);
        fleet.settle(20).expect("it rests");
        let (status, kind, message) = accepted(&fleet);
        assert_eq!((status.as_str(), kind.as_str()), ("False", "InvalidSpec"), "{reason}");
        assert!(message.contains(reason), "{message:?} lacks {reason:?}");
        assert!(fleet.pods.is_empty(), "nothing is made from an invalid spec");
    }
}

#[rstest]
#[case::engine_types(&[0, 7, 9])]
#[case::overlay(&[9, 10, 11, 13, 14, 15])]
fn every_reason_is_listed_at_once(#[case] indices: &[usize]) {
    let mut fleet = Fleet::new(1, 0, 2);
    for index in indices {
        (SPOILS[*index].0)(&mut fleet.deployment.spec);
    }
    fleet.settle(20).expect("it rests");
    let (_, _, message) = accepted(&fleet);
    for index in indices {
        assert!(
            message.contains(SPOILS[*index].1),
            "{message:?} lacks {:?}",
            SPOILS[*index].1
        );
    }
}

#[test]
fn a_mount_over_our_own_folder_is_refused() {
    let mut fleet = Fleet::new(1, 0, 2);
    let overlay = overlay(&mut fleet.deployment.spec);
    overlay.volumes.push(OverlayVolume {
        name: "mine".to_owned(),
        kind: VolumeKind::EmptyDir,
        ..OverlayVolume::default()
    });
    overlay.volume_mounts.push(OverlayMount {
        name: "mine".to_owned(),
        mount_path: "/etc/gonka/trust".to_owned(),
    });
    fleet.settle(20).expect("it rests");
    assert!(accepted(&fleet).2.contains("/etc/gonka/trust lies in /etc/gonka"));
}

#[test]
fn a_name_too_long_for_a_service_is_refused() {
    let mut fleet = Fleet::new(1, 0, 2);
    fleet.deployment.metadata.name = Some("a".repeat(60));
    fleet.settle(20).expect("it rests");
    assert!(accepted(&fleet).2.contains("metadata.name"));
}

#[test]
fn a_missing_host_is_named_and_running_children_are_left_alone() {
    let mut fleet = Fleet::new(2, 1, 3);
    fleet.settle(60).expect("it comes to rest");
    let (pods, objects) = (fleet.pods.clone(), fleet.objects.clone());
    fleet.host = None;
    fleet.deployment.spec.slots = 0;
    fleet.deployment.spec.exposure.kind = ExposureKind::NodePort;
    fleet.fail_pod("tiny-0001");
    fleet.settle(60).expect("it comes to rest");
    let (status, reason, message) = accepted(&fleet);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidSpec"));
    assert!(
        message.contains("there is no GonkaHost ours") && message.contains("NodePort"),
        "{message}"
    );
    assert_eq!(fleet.objects, objects);
    assert_eq!(fleet.pods.keys().collect::<Vec<_>>(), pods.keys().collect::<Vec<_>>());
}

#[test]
fn an_invalid_edit_changes_nothing_but_the_status() {
    let mut fleet = Fleet::new(2, 1, 3);
    fleet.settle(60).expect("it comes to rest");
    fleet.deployment.spec.exposure.kind = ExposureKind::NodePort;
    let desired = decide::decide(&fleet.observe());
    assert!(desired.slots.is_empty() && desired.rehearsals.is_empty());
    assert!(
        desired
            .changes
            .iter()
            .all(|change| matches!(change, Change::Status(_) | Change::Event(_)))
    );
}
