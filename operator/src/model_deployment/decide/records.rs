//! Pod templates on record: ControllerRevisions of the revision that is asked for and of the one before it, so that there is
//! a way back. Pure.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::ApiResource;
use serde_json::Value;

use super::rollout::Stage;
use super::world::World;
use super::{objects, revision};
use crate::change::{Change, Deletion, Object};
use crate::model_deployment::observed::{Observed, TemplateSeen};

/// Name of a record.
fn name(seen: &Observed, revision: &str) -> String {
    format!("{}-{revision}", seen.name())
}

/// Template of a revision: made from the spec, or off the record when that is what it says.
pub fn template(world: &World<'_>, revision: &str) -> Option<Value> {
    if revision == world.rollout.wanted {
        return Some(revision::template(world.seen));
    }
    let known = &world.seen.templates.get(revision)?.template;
    (revision::hash(known) == revision).then(|| known.clone())
}

/// Revisions and templates of so many pods that are to be made.
pub fn of_new_pods(world: &World<'_>, count: usize) -> Vec<(String, Value)> {
    let progress = &world.rollout;
    let target = world.revision.clone();
    let before = progress
        .baseline
        .as_ref()
        .filter(|_| matches!(progress.stage, Stage::Canary | Stage::Held))
        .filter(|baseline| **baseline != target)
        .and_then(|baseline| Some((baseline.clone(), template(world, baseline)?)));
    (0..count)
        .filter_map(|made| {
            let more = !progress.is_held() && progress.has_room(progress.updated_pods + made);
            match &before {
                Some(before) if !more => Some(before.clone()),
                Some(_) | None => Some((target.clone(), template(world, &target)?)),
            }
        })
        .collect()
}

/// Records that are missing, and those that nobody needs any more.
pub fn changes(world: &World<'_>) -> Vec<Change> {
    let (seen, progress) = (world.seen, &world.rollout);
    let mut changes = Vec::new();
    if !seen.templates.contains_key(&progress.wanted) {
        let last = seen.templates.values().map(|known| known.number).max();
        changes.push(Change::Apply(record(world, last.unwrap_or_default() + 1)));
    }
    let needed = |revision: &String| *revision == progress.wanted || Some(revision) == progress.baseline.as_ref();
    let old = seen.templates.iter().filter(|(revision, _)| !needed(revision));
    changes.extend(old.map(|(revision, known)| deletion(seen, revision, known)));
    changes
}

fn record(world: &World<'_>, number: i64) -> Object {
    let (seen, wanted) = (world.seen, &world.rollout.wanted);
    let mut labels = objects::labels_of(seen, crds::labels::ROLE_SLOT_POD);
    labels.insert(crds::labels::REVISION.to_owned(), wanted.clone());
    Object::of(&ControllerRevision {
        metadata: objects::metadata(seen, &name(seen, wanted), labels),
        data: Some(RawExtension(revision::template(seen))),
        revision: number,
    })
}

/// Every record, for a deployment that goes.
pub fn all(seen: &Observed) -> impl Iterator<Item = Change> {
    let known = seen.templates.iter();
    known.map(|(revision, known)| deletion(seen, revision, known))
}

fn deletion(seen: &Observed, revision: &str, known: &TemplateSeen) -> Change {
    Change::Delete(Deletion {
        resource: ApiResource::erase::<ControllerRevision>(&()),
        namespace: Some(seen.namespace().to_owned()),
        name: name(seen, revision),
        uid: known.uid.clone(),
        grace_seconds: None,
    })
}
