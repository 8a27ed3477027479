//! Box 3's output: what should be written, as values. A decision returns these; [`crate::apply`] writes them without choices.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::api::ApiResource;
use serde::Serialize;
use serde_json::Value;

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Server-side apply of a whole object under the controller's field manager.
    Apply(Object),
    /// Create with a generated name; `object.value.metadata.generateName` is set.
    Create(Object),
    /// Server-side apply of the status alone: `{apiVersion, kind, metadata, status}`.
    Status(Object),
    /// JSON merge patch of an object that is not ours, as it was read: `value.metadata` has its UID and resource version, so that
    /// nothing is changed that was not seen.
    Merge(Object),
    /// Delete exactly this object.
    Delete(Deletion),
    /// An Event for people; a failure to write it fails nothing.
    Event(Notice),
}

/// An object and how to address it.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Group, version, kind, plural.
    pub resource: ApiResource,
    /// Absent for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name; empty with [`Change::Create`].
    pub name: String,
    /// The object as JSON.
    pub value: Value,
}

/// What to delete, and the proof that it is still the same object.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    /// Group, version, kind, plural.
    pub resource: ApiResource,
    /// Absent for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// UID precondition.
    pub uid: String,
    /// 0 = at once; absent = the object's own.
    pub grace_seconds: Option<u32>,
}

/// An Event.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The object it is about.
    pub regarding: ObjectReference,
    /// True = Warning.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// One sentence for people.
    pub note: String,
}

impl Object {
    /// A typed object as a write. The type decides group, version and kind, the metadata name and namespace.
    ///
    /// # Panics
    /// Never for types of k8s-openapi and crds: they serialise to JSON objects.
    pub fn of<K>(object: &K) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let resource = ApiResource::erase::<K>(&());
        let mut value = serde_json::to_value(object).expect("an API type serialises to JSON");
        value["apiVersion"] = Value::String(resource.api_version.clone());
        value["kind"] = Value::String(resource.kind.clone());
        Self {
            namespace: object.meta().namespace.clone(),
            name: object.meta().name.clone().unwrap_or_default(),
            resource,
            value,
        }
    }

    /// The status of `object` alone. The UID makes the write fail when another object took the name.
    pub fn status_of<K, S>(object: &K, status: &S) -> Self
    where
        K: Resource<DynamicType = ()>,
        S: Serialize,
    {
        let resource = ApiResource::erase::<K>(&());
        let name = object.meta().name.clone().unwrap_or_default();
        let namespace = object.meta().namespace.clone();
        let mut metadata = serde_json::json!({ "name": name });
        if let Some(namespace) = &namespace {
            metadata["namespace"] = Value::String(namespace.clone());
        }
        if let Some(uid) = &object.meta().uid {
            metadata["uid"] = Value::String(uid.clone());
        }
        let value = serde_json::json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": metadata,
            "status": status,
        });
        Self {
            resource,
            namespace,
            name,
            value,
        }
    }
}

impl Deletion {
    /// Deletes `object` as observed: name and UID.
    pub fn of<K>(object: &K, grace_seconds: Option<u32>) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: object.meta().namespace.clone(),
            name: object.meta().name.clone().unwrap_or_default(),
            uid: object.meta().uid.clone().unwrap_or_default(),
            grace_seconds,
        }
    }
}
