//! Box 4: carries out a decision about a GonkaHost: DAPI in the given order, then status, then Events. Makes no choice but
//! to stop adding nodes once a write was refused, since a later slot would get the earlier one's number.

use crds::labels;
use kube::Resource as _;

use super::decide::{Desired, refusal, settle};
use super::observed::{Observed, in_words};
use super::plan::DapiWrite;
use super::{CONTROLLER, Error};
use crate::apply::apply as apply_changes;
use crate::change::{Change, Notice, Object};
use crate::context::Context;
use crate::dapi::Client;

/// Writes what was decided. A refusal of DAPI is first said in status and then returned.
pub async fn apply(
    context: &Context,
    dapi: Option<&Client>,
    observed: &Observed,
    desired: &Desired,
) -> Result<(), Error> {
    let refused = match dapi {
        Some(dapi) => write(dapi, &desired.writes).await,
        None => None,
    };
    let changes = changes(observed, desired, refused.as_deref());
    let manager = labels::field_manager(CONTROLLER);
    let applied = apply_changes(&context.client, &context.recorder(), &manager, &changes)
        .await
        .map_err(Error::Apply)?;
    context.metrics.wrote(CONTROLLER, applied.writes);
    refused.map_or(Ok(()), |refused| Err(Error::Refused(refused)))
}

/// What is written to the API server once DAPI was: status, then Events. Pure.
pub fn changes(observed: &Observed, desired: &Desired, refused: Option<&str>) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    if let Some(status) = settle(observed, desired, refused) {
        changes.push(Change::Status(Object::status_of(&observed.host, &status)));
    }
    let sayings = match refused {
        None => desired.notices.clone(),
        Some(failure) => refusal(observed, failure).into_iter().collect(),
    };
    let regarding = observed.host.object_ref(&());
    changes.extend(sayings.into_iter().map(|saying| {
        Change::Event(Notice {
            regarding: regarding.clone(),
            warning: saying.warning,
            reason: saying.reason,
            note: saying.note,
        })
    }));
    changes
}

/// Carries out the writes in order; says what was refused.
async fn write(dapi: &Client, writes: &[DapiWrite]) -> Option<String> {
    let mut refused: Vec<String> = Vec::new();
    for write in writes {
        let result = match write {
            DapiWrite::Put(node) => dapi.put_node(node).await,
            DapiWrite::Post(node) if refused.is_empty() => dapi.post_node(node).await,
            DapiWrite::Post(_) => continue,
        };
        match result {
            Ok(()) => tracing::info!(node = write.node().id, "wrote a node to DAPI"),
            Err(error) => refused.push(format!("node {}: {}", write.node().id, in_words(&error))),
        }
    }
    (!refused.is_empty()).then(|| super::status::bounded(&refused, 4000))
}
