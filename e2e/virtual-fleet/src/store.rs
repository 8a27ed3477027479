//! The API server in memory: objects as JSON, versions, server-side apply, preconditions, and what a list was at an older
//! version. No clock and no chance of its own: both come in.

mod apply;
mod evict;
mod kind;

pub use apply::{merge, without_nulls};
pub use kind::{Id, Kind};

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use operator::change::{Change, Deletion, Object};
use serde_json::{Value, json};
use thiserror::Error;

/// Versions of one object that are remembered for old lists.
const REMEMBERED: usize = 6;

/// Why a request was refused.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// There is no such object.
    #[error("{0} is not there")]
    NotFound(Id),
    /// It is another object by now, or changed meanwhile.
    #[error("{0} is not the one that was meant")]
    Conflict(Id),
    /// A policy keeps it.
    #[error("{0} carries a slot: nobody but the operator deletes it")]
    Denied(Id),
    /// A budget keeps it.
    #[error("{0} may not be evicted now")]
    Budget(Id),
    /// A decision named a kind that this fleet does not have.
    #[error("kind {0} is not served here")]
    UnknownKind(String),
}

/// One object and what is remembered of it.
#[derive(Clone, Debug)]
struct Stored {
    value: Arc<Value>,
    /// What each manager applied last, by manager and part.
    applied: BTreeMap<(String, bool), Value>,
}

/// A change as watchers hear of it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which object.
    pub id: Id,
    /// Its new state; absent when it was removed.
    pub value: Option<Arc<Value>>,
    /// Version of the change.
    pub version: u64,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Actor {
    /// The operator.
    Operator,
    /// Kubelets, scheduler, node controller: they end what they started.
    Cluster,
    /// Anybody else.
    Person,
}

type Past = Vec<(u64, Option<Arc<Value>>)>;

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: BTreeMap<Id, Stored>,
    past: BTreeMap<Id, Past>,
    version: u64,
    changed: BTreeMap<Kind, u64>,
    made: u64,
    addresses: u32,
    news: Vec<Event>,
}

/// RFC 3339, whole seconds, as the API server writes times.
pub fn time(now_ms: i64) -> String {
    Timestamp::from_second(now_ms.div_euclid(1000)).map_or_else(|_| String::new(), |time| time.to_string())
}

fn kind_of(object: &Object) -> Result<Kind, Refusal> {
    object
        .resource
        .kind
        .parse()
        .map_err(|_| Refusal::UnknownKind(object.resource.kind.clone()))
}

fn uid(value: &Value) -> Option<&str> {
    value["metadata"]["uid"].as_str()
}

impl Store {
    /// Newest version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Version of the newest change of an object of these kinds.
    pub fn changed(&self, kinds: &[Kind]) -> u64 {
        let changes = kinds.iter().filter_map(|kind| self.changed.get(kind));
        changes.max().copied().unwrap_or_default()
    }

    /// An object.
    pub fn get(&self, id: &Id) -> Option<&Arc<Value>> {
        self.objects.get(id).map(|stored| &stored.value)
    }

    /// All objects of a kind, by namespace and name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = (&Id, &Arc<Value>)> {
        self.objects
            .range(Id::new(kind, "", "")..)
            .take_while(move |(id, _)| id.kind == kind)
            .map(|(id, stored)| (id, &stored.value))
    }

    /// All objects of a kind as they were at a version, as far as it is remembered.
    pub fn list_at(&self, kind: Kind, version: u64) -> Vec<(Id, Arc<Value>)> {
        self.past
            .range(Id::new(kind, "", "")..)
            .take_while(|(id, _)| id.kind == kind)
            .filter_map(|(id, past)| {
                let known = past.iter().rev().find(|(at, _)| *at <= version);
                let (_, value) = known?;
                Some((id.clone(), value.clone()?))
            })
            .collect()
    }

    /// What changed since this was asked last.
    pub fn take_news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// Whether anything changed since news were taken.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Carries out one change of a decision; Events for people change nothing. The place of what was written.
    pub fn write(&mut self, manager: &str, change: Change, now_ms: i64) -> Result<Option<Id>, Refusal> {
        match change {
            Change::Apply(object) => self.apply(manager, object, false, now_ms).map(Some),
            Change::Status(object) => self.apply(manager, object, true, now_ms).map(Some),
            Change::Create(object) => self.create(&object, now_ms).map(Some),
            Change::Merge(object) => self.merge(&object).map(Some),
            Change::Delete(deletion) => self.delete_named(&deletion, now_ms).map(Some),
            Change::Event(_) => Ok(None),
        }
    }

    fn apply(&mut self, manager: &str, object: Object, status: bool, now_ms: i64) -> Result<Id, Refusal> {
        let kind = kind_of(&object)?;
        let id = Id::new(kind, object.namespace.as_deref().unwrap_or_default(), &object.name);
        let known = self.objects.get(&id);
        match (uid(&object.value), known) {
            (Some(meant), Some(known)) if uid(&known.value) != Some(meant) => return Err(Refusal::Conflict(id)),
            (Some(_), None) => return Err(Refusal::Conflict(id)),
            (None, None) if status => return Err(Refusal::NotFound(id)),
            _ => {}
        }
        let mut part = object.value;
        if let Value::Object(members) = &mut part {
            members.retain(|key, _| (key == "status") == status);
        }
        let fresh = known.is_none();
        let mut value = match known {
            Some(known) => Value::clone(&known.value),
            None => self.born(&id, now_ms),
        };
        let owner = (manager.to_owned(), status);
        let before = self.objects.get(&id).and_then(|known| known.applied.get(&owner));
        apply::apply(&mut value, before, &part);
        self.complete(&id, &mut value);
        self.put(id.clone(), value, fresh);
        if let Some(stored) = self.objects.get_mut(&id) {
            stored.applied.insert(owner, part);
        }
        Ok(id)
    }

    /// What every object has from its beginning.
    fn born(&mut self, id: &Id, now_ms: i64) -> Value {
        self.made += 1;
        let mut metadata = json!({
            "name": id.name,
            "uid": format!("00000000-0000-4000-8000-{:012x}", self.made),
            "generation": 1,
            "creationTimestamp": time(now_ms),
        });
        if !id.namespace.is_empty() {
            metadata["namespace"] = json!(id.namespace);
        }
        json!({"metadata": metadata})
    }

    /// What the API server fills in.
    fn complete(&mut self, id: &Id, value: &mut Value) {
        if id.kind == Kind::Service && value["spec"]["clusterIP"].is_null() {
            self.addresses += 1;
            let [_, _, high, low] = self.addresses.to_be_bytes();
            value["spec"]["clusterIP"] = json!(format!("10.96.{high}.{low}"));
        }
    }

    fn create(&mut self, object: &Object, now_ms: i64) -> Result<Id, Refusal> {
        let kind = kind_of(object)?;
        let mut wanted = without_nulls(&object.value);
        let prefix = wanted["metadata"]["generateName"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let name = format!("{prefix}{:05x}", self.made + 1);
        let id = Id::new(kind, object.namespace.as_deref().unwrap_or_default(), &name);
        let mut value = self.born(&id, now_ms);
        if let Some(metadata) = wanted["metadata"].as_object_mut() {
            metadata.remove("generateName");
        }
        apply::apply(&mut value, None, &wanted);
        if kind == Kind::Pod {
            value["status"] = json!({"phase": "Pending"});
        }
        self.complete(&id, &mut value);
        self.put(id.clone(), value, true);
        Ok(id)
    }

    /// A JSON merge patch, refused when the object is not the one that was seen.
    fn merge(&mut self, object: &Object) -> Result<Id, Refusal> {
        let kind = kind_of(object)?;
        let id = Id::new(kind, object.namespace.as_deref().unwrap_or_default(), &object.name);
        let known = self.objects.get(&id).ok_or_else(|| Refusal::NotFound(id.clone()))?;
        let metadata = &object.value["metadata"];
        let differs = |field: &str| !metadata[field].is_null() && metadata[field] != known.value["metadata"][field];
        if differs("uid") || differs("resourceVersion") {
            return Err(Refusal::Conflict(id));
        }
        let mut value = Value::clone(&known.value);
        apply::merge(&mut value, &object.value);
        self.put(id.clone(), value, false);
        Ok(id)
    }

    fn delete_named(&mut self, deletion: &Deletion, now_ms: i64) -> Result<Id, Refusal> {
        let kind: Kind = deletion
            .resource
            .kind
            .parse()
            .map_err(|_| Refusal::UnknownKind(deletion.resource.kind.clone()))?;
        let id = Id::new(kind, deletion.namespace.as_deref().unwrap_or_default(), &deletion.name);
        // Gone, or another object took the name: either way what was meant is deleted.
        match self.objects.get(&id) {
            Some(known) if uid(&known.value) == Some(deletion.uid.as_str()) => {}
            _ => return Ok(id),
        }
        self.delete(&id, Actor::Operator, deletion.grace_seconds, now_ms)?;
        Ok(id)
    }

    /// Deletes; a pod that runs ends first, unless it is deleted by force.
    pub fn delete(&mut self, id: &Id, actor: Actor, grace_seconds: Option<u32>, now_ms: i64) -> Result<(), Refusal> {
        let Some(known) = self.objects.get(id) else {
            return Err(Refusal::NotFound(id.clone()));
        };
        let metadata = &known.value["metadata"];
        let protected = metadata["labels"][crds::labels::PROTECTED] == json!("true");
        let leaving = !metadata["deletionTimestamp"].is_null();
        let broken_glass = !metadata["annotations"][crds::labels::BREAK_GLASS].is_null();
        if protected && !leaving && !broken_glass && actor == Actor::Person {
            return Err(Refusal::Denied(id.clone()));
        }
        let waits = id.kind == Kind::Pod && grace_seconds != Some(0) && !known.value["spec"]["nodeName"].is_null();
        if waits {
            if !leaving {
                let mut value = Value::clone(&known.value);
                value["metadata"]["deletionTimestamp"] = json!(time(now_ms));
                self.put(id.clone(), value, false);
            }
            return Ok(());
        }
        self.remove(id);
        Ok(())
    }

    /// Takes an object away, and what it owned and nothing protects.
    pub fn remove(&mut self, id: &Id) {
        let Some(gone) = self.objects.remove(id) else { return };
        self.version += 1;
        let version = self.version;
        self.remember(id, None);
        self.news.push(Event {
            id: id.clone(),
            value: None,
            version,
        });
        let owner = uid(&gone.value).unwrap_or_default().to_owned();
        let is_its = |value: &Value| {
            let references = value["metadata"]["ownerReferences"].as_array();
            references.is_some_and(|all| all.iter().any(|reference| reference["uid"] == json!(owner)))
        };
        let orphans: Vec<Id> = self
            .objects
            .iter()
            .filter(|(_, stored)| {
                is_its(&stored.value) && stored.value["metadata"]["labels"][crds::labels::PROTECTED] != json!("true")
            })
            .map(|(id, _)| id.clone())
            .collect();
        for orphan in orphans {
            self.remove(&orphan);
        }
    }

    /// Changes an object in place, as the cluster's own parts do.
    pub fn edit(&mut self, id: &Id, change: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
        let known = self.objects.get(id).ok_or_else(|| Refusal::NotFound(id.clone()))?;
        let mut value = Value::clone(&known.value);
        change(&mut value);
        self.put(id.clone(), value, false);
        Ok(())
    }

    /// Makes an object from outside the operator.
    pub fn make(&mut self, kind: Kind, namespace: &str, name: &str, body: Value, now_ms: i64) -> Id {
        let id = Id::new(kind, namespace, name);
        let mut value = body;
        apply::apply(&mut value, None, &self.born(&id, now_ms));
        self.complete(&id, &mut value);
        self.put(id.clone(), value, true);
        id
    }

    fn put(&mut self, id: Id, mut value: Value, fresh: bool) {
        let known = self.objects.get(&id);
        if let Some(known) = known.filter(|_| !fresh) {
            if *known.value == value {
                return;
            }
            if known.value["spec"] != value["spec"] {
                let generation = known.value["metadata"]["generation"].as_i64().unwrap_or_default();
                value["metadata"]["generation"] = json!(generation + 1);
            }
        }
        self.version += 1;
        let version = self.version;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        let value = Arc::new(value);
        let applied = self.objects.remove(&id).map(|known| known.applied).unwrap_or_default();
        self.objects.insert(
            id.clone(),
            Stored {
                value: value.clone(),
                applied,
            },
        );
        self.remember(&id, Some(value.clone()));
        self.news.push(Event {
            id,
            value: Some(value),
            version,
        });
    }

    fn remember(&mut self, id: &Id, value: Option<Arc<Value>>) {
        self.changed.insert(id.kind, self.version);
        let past = self.past.entry(id.clone()).or_default();
        past.push((self.version, value));
        if past.len() > REMEMBERED {
            past.remove(0);
        }
    }

    /// Forgets what was removed long ago: a soak makes and removes pods without end.
    pub fn forget_before(&mut self, version: u64) {
        self.past
            .retain(|_, past| past.last().is_none_or(|(at, value)| value.is_some() || *at >= version));
    }
}

#[cfg(test)]
mod tests;
