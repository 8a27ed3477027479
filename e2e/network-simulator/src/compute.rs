//! Proof of compute for simulated hosts and honest validators, on one thread of its own: everybody else on the machine
//! needs the processors too. Work comes in, events go out.

use crate::{
    event::{Event, Work},
    identity,
    scenario::Model,
};
use kernels::{
    artifact, decoder,
    prefill_v2::PrefillV2,
    scheme::{Artifact, Prepared, Round, Scheme},
};
use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    thread,
};

/// Rounds kept prepared: one per host and model of a running exam.
const MAX_PREPARED: usize = 64;

/// Starts the thread. It ends when the sender is dropped.
pub fn start(models: Vec<Model>, report: impl Fn(Event) + Send + 'static) -> std::io::Result<mpsc::Sender<Work>> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("compute".to_owned()).spawn(move || {
        let mut computer = Computer {
            schemes: HashMap::new(),
            models,
            prepared: HashMap::new(),
        };
        for work in receiver {
            if let Some(event) = computer.run(work) {
                report(event);
            }
        }
    })?;
    Ok(sender)
}

struct Computer {
    models: Vec<Model>,
    schemes: HashMap<String, Arc<PrefillV2>>,
    prepared: HashMap<(String, String, String), Box<dyn Prepared>>,
}

impl Computer {
    fn run(&mut self, work: Work) -> Option<Event> {
        match work {
            Work::Generate {
                exam,
                host,
                node,
                model,
                round,
                enumeration,
                places,
                random,
            } => {
                let nonces: Vec<i64> = places.filter_map(|place| enumeration.nonce(place)).collect();
                let artifacts = if random {
                    nonces.into_iter().map(random_artifact).collect()
                } else {
                    self.generate(&model, &round, &nonces)?
                };
                Some(Event::Produced {
                    exam,
                    host,
                    node,
                    artifacts,
                })
            }
            Work::Judge {
                exam,
                host,
                model,
                round,
                sample,
                test,
            } => {
                let total = sample.len() as u32;
                let verdict = self.prepare(&model, &round)?.validate(&sample, &test);
                let fraud = match verdict {
                    Ok(verdict) => verdict.fraud,
                    Err(error) => {
                        tracing::warn!(%error, model, "a sample cannot be valid");
                        true
                    }
                };
                Some(Event::Judged {
                    exam,
                    host,
                    model,
                    total,
                    fraud,
                })
            }
            Work::Count {
                exam,
                host,
                model,
                total,
                fraud,
            } => Some(Event::Judged {
                exam,
                host,
                model,
                total,
                fraud,
            }),
        }
    }

    fn generate(&mut self, model: &str, round: &Round, nonces: &[i64]) -> Option<Vec<Artifact>> {
        match self.prepare(model, round)?.generate(nonces) {
            Ok(batch) => Some(batch.artifacts),
            Err(error) => {
                tracing::error!(%error, model, "artifacts could not be computed");
                None
            }
        }
    }

    fn prepare(&mut self, model: &str, round: &Round) -> Option<&mut Box<dyn Prepared>> {
        let key = (model.to_owned(), round.block_hash.clone(), round.public_key.clone());
        if !self.prepared.contains_key(&key) {
            let scheme = self.scheme(model)?;
            let prepared = scheme
                .prepare(round)
                .map_err(|error| tracing::error!(%error, model, "round"))
                .ok()?;
            if self.prepared.len() >= MAX_PREPARED {
                self.prepared.clear();
            }
            self.prepared.insert(key.clone(), prepared);
        }
        self.prepared.get_mut(&key)
    }

    fn scheme(&mut self, id: &str) -> Option<Arc<PrefillV2>> {
        if let Some(scheme) = self.schemes.get(id) {
            return Some(Arc::clone(scheme));
        }
        let model = self.models.iter().find(|model| model.id == id)?;
        let weights = decoder::Model::from_recipe(&model.recipe, &model.tag);
        let scheme = Arc::new(PrefillV2::new(Arc::new(weights), model.dtype));
        self.schemes.insert(id.to_owned(), Arc::clone(&scheme));
        Some(scheme)
    }
}

/// A unit vector that no model made.
fn random_artifact(nonce: i64) -> Artifact {
    let hash = identity::digest(&["random artifact", &nonce.to_string()]);
    let values: Vec<f32> = hash[..12].iter().map(|byte| f32::from(*byte) - 127.5).collect();
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let unit: Vec<f32> = values.iter().map(|value| value / norm).collect();
    Artifact {
        nonce,
        vector: artifact::encode(&unit),
    }
}
