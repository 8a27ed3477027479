//! Box 4, apply: writes what a decision asked for, in its order, and makes no choice.

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ApiResource;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Error as KubeError};

use crate::change::{Change, Deletion, Notice, Object};

/// What went wrong with one write.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The API server refused a write or did not answer.
    #[error("{verb} of {kind} {name} failed")]
    Write {
        /// apply, create, merge, delete or status.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// `namespace/name`.
        name: String,
        /// The client's error.
        #[source]
        source: Box<KubeError>,
    },
    /// A decision named an object that is not JSON of its kind.
    #[error("{kind} {name} cannot be written: it is not an object of its kind")]
    Shape {
        /// Kind of the object.
        kind: String,
        /// `namespace/name`.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// The object is not as it was read, or another one took its name.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Write { source, .. } => matches!(&**source, KubeError::Api(status) if status.code == 409),
            Self::Shape { .. } => false,
        }
    }

    /// Label of metrics and reason of Events.
    pub fn category(&self) -> &'static str {
        self.into()
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Applied {
    /// Writes of objects and statuses, Events aside.
    pub writes: usize,
}

/// Writes `changes` in order; stops at the first that fails. A deletion of what is gone is done.
pub async fn apply(client: &Client, recorder: &Recorder, manager: &str, changes: &[Change]) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    for change in changes {
        match change {
            Change::Apply(object) => server_side_apply(client, manager, object, false).await?,
            Change::Status(object) => server_side_apply(client, manager, object, true).await?,
            Change::Create(object) => create(client, manager, object).await?,
            Change::Merge(object) => merge(client, manager, object).await?,
            Change::Delete(deletion) => delete(client, deletion).await?,
            Change::Event(notice) => {
                publish(recorder, notice).await;
                continue;
            }
        }
        applied.writes += 1;
    }
    Ok(applied)
}

fn api(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

fn failed(
    verb: &'static str,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
) -> impl FnOnce(KubeError) -> Error {
    let (kind, name) = (resource.kind.clone(), full_name(namespace, name));
    move |source| Error::Write {
        verb,
        kind,
        name,
        source: Box::new(source),
    }
}

fn full_name(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

async fn server_side_apply(client: &Client, manager: &str, object: &Object, status: bool) -> Result<(), Error> {
    let api = api(client, &object.resource, object.namespace.as_deref());
    let parameters = PatchParams::apply(manager).force();
    let patch = Patch::Apply(&object.value);
    let (verb, result) = if status {
        ("status", api.patch_status(&object.name, &parameters, &patch).await)
    } else {
        ("apply", api.patch(&object.name, &parameters, &patch).await)
    };
    result.map_err(failed(
        verb,
        &object.resource,
        object.namespace.as_deref(),
        &object.name,
    ))?;
    Ok(())
}

async fn merge(client: &Client, manager: &str, object: &Object) -> Result<(), Error> {
    let parameters = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    api(client, &object.resource, object.namespace.as_deref())
        .patch(&object.name, &parameters, &Patch::Merge(&object.value))
        .await
        .map_err(failed(
            "merge",
            &object.resource,
            object.namespace.as_deref(),
            &object.name,
        ))?;
    Ok(())
}

async fn create(client: &Client, manager: &str, object: &Object) -> Result<(), Error> {
    let value: DynamicObject = serde_json::from_value(object.value.clone()).map_err(|source| Error::Shape {
        kind: object.resource.kind.clone(),
        name: full_name(object.namespace.as_deref(), &object.name),
        source,
    })?;
    let parameters = PostParams {
        field_manager: Some(manager.to_owned()),
        ..PostParams::default()
    };
    api(client, &object.resource, object.namespace.as_deref())
        .create(&parameters, &value)
        .await
        .map_err(failed(
            "create",
            &object.resource,
            object.namespace.as_deref(),
            &object.name,
        ))?;
    Ok(())
}

async fn delete(client: &Client, deletion: &Deletion) -> Result<(), Error> {
    let parameters = DeleteParams {
        grace_period_seconds: deletion.grace_seconds,
        preconditions: Some(Preconditions {
            uid: Some(deletion.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let result = api(client, &deletion.resource, deletion.namespace.as_deref())
        .delete(&deletion.name, &parameters)
        .await;
    match result {
        Ok(_) => Ok(()),
        // Gone, or another object took the name: either way ours is deleted.
        Err(KubeError::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(failed(
            "delete",
            &deletion.resource,
            deletion.namespace.as_deref(),
            &deletion.name,
        )(error)),
    }
}

async fn publish(recorder: &Recorder, notice: &Notice) {
    let event = Event {
        type_: if notice.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: notice.reason.clone(),
        note: Some(notice.note.clone()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &notice.regarding).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            reason = notice.reason,
            "event was not written"
        );
    }
}
