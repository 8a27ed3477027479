//! The device and what is on it: buffers and the recorded plan, kept from round to round; two batches in flight.

use super::Program;
use crate::{
    cuda::{
        Device, Error, MAX_ROWS, MAX_SEQ_LEN,
        device::Places,
        plan::{Batch, Buffer, Part, Plan},
        weights::{Digest, Put},
    },
    householder,
    scheme::{self, Artifact, Feed, Round},
    seed,
};
use half::bf16;
use std::collections::VecDeque;

/// Batches in a row that may be not finite before the engine must be replaced (`docs/poc-v2.md`, section 5).
pub const NOT_FINITE_IN_A_ROW: u32 = 3;
/// Batches on the device at a time: one that runs, one that waits.
const IN_FLIGHT: usize = 2;

/// The device and what is on it.
pub(in crate::cuda) struct Engine {
    pub(in crate::cuda) device: Box<dyn Device>,
    program: Box<dyn Program>,
    nonces: usize,
    places: Places,
    /// The round whose vectors are on the device, with its batches' form.
    begun: Option<(Round, Batch)>,
    not_finite: u32,
    pub(in crate::cuda) weights_digest: String,
}

impl Engine {
    pub(in crate::cuda) fn load(
        device: Box<dyn Device>,
        program: Box<dyn Program>,
        fill: &dyn Fn(&mut Put<'_>) -> Result<(), Error>,
        nonces: usize,
        seq_len: usize,
    ) -> Result<Self, Error> {
        let mut engine = Self {
            device,
            program,
            nonces: nonces.max(1),
            places: Places::default(),
            begun: None,
            not_finite: 0,
            weights_digest: String::new(),
        };
        // The usual artifact and the generator with more seeds: what a round needs beyond it is a few words.
        let batch = engine.batch(seq_len.clamp(1, MAX_SEQ_LEN), 12, 8);
        let Plan { steps, sizes } = engine.program.plan(batch)?;
        let wanted: Vec<_> = std::iter::once((Buffer::Weights, engine.program.weight_bytes()))
            .chain(sizes)
            .collect();
        engine.make_room(&wanted)?;
        let weights = engine.places.address(Buffer::Weights.start());
        let mut digest = Digest::default();
        fill(&mut |name, offset, bytes| {
            digest.add(name, bytes);
            engine.device.upload(weights + offset, bytes)
        })?;
        engine.weights_digest = digest.finish();
        // Algorithms of products are chosen now, and not when an exam begins.
        engine.device.record(&steps, &engine.places)?;
        Ok(engine)
    }

    fn batch(&self, seq_len: usize, k_dim: usize, segments: usize) -> Batch {
        Batch {
            nonces: self.nonces.min(MAX_ROWS / seq_len.max(1)).max(1),
            seq_len,
            k_dim,
            segments,
        }
    }

    pub(in crate::cuda) fn batch_of(&self, round: &Round) -> Batch {
        self.batch(round.seq_len, round.k_dim, if round.stronger_rng { 8 } else { 1 })
    }

    /// Allocates what is not there or too small: all of it, or nothing.
    fn make_room(&mut self, wanted: &[(Buffer, u64)]) -> Result<(), Error> {
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(buffer, bytes)| !self.places.holds(*buffer, *bytes))
            .copied()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        for (buffer, _) in &missing {
            self.give_back(*buffer)?;
        }
        let needed = missing.iter().map(|(_, bytes)| bytes).sum();
        let free = self.device.free_bytes()?;
        if needed > free {
            return Err(Error::Memory { needed, free });
        }
        for (buffer, bytes) in missing {
            let address = self.device.allocate(bytes).map_err(|error| match error {
                Error::Memory { .. } => Error::Memory { needed, free },
                other => other,
            })?;
            self.places.put(buffer, address, bytes);
        }
        Ok(())
    }

    fn give_back(&mut self, buffer: Buffer) -> Result<(), Error> {
        self.places
            .take(buffer)
            .map_or(Ok(()), |address| self.device.free(address))
    }

    /// Puts a round's vectors on the device and records its plan, unless they are there.
    pub(in crate::cuda) fn begin(&mut self, round: &Round) -> Result<(), Error> {
        if self.begun.as_ref().is_some_and(|(begun, _)| begun == round) {
            return Ok(());
        }
        self.begun = None;
        let batch = self.batch_of(round);
        let Plan { steps, sizes } = self.program.plan(batch)?;
        self.make_room(&sizes)?;
        let reflections: Vec<u8> = (0..self.program.layers())
            .flat_map(|layer| householder::reflection_vector(&round.block_hash, layer, self.program.hidden()))
            .flat_map(|x| bf16::from_f32(x).to_le_bytes())
            .collect();
        let rope: Vec<u8> = self
            .program
            .angles(round.seq_len)
            .into_iter()
            .flat_map(|(cos, sin)| [cos.to_le_bytes(), sin.to_le_bytes()])
            .flatten()
            .collect();
        self.device
            .upload(self.places.address(Buffer::Reflections.start()), &reflections)?;
        self.device.upload(self.places.address(Buffer::Rope.start()), &rope)?;
        self.device.record(&steps, &self.places)?;
        self.begun = Some((round.clone(), batch));
        Ok(())
    }

    /// Keeps the device busy: while one batch computes the next one waits on it.
    pub(in crate::cuda) fn run(&mut self, feed: &mut dyn Feed) -> Result<(), Error> {
        let Some((round, batch)) = self.begun.clone() else {
            return Ok(());
        };
        let seeds = self.places.address(Buffer::Seeds.start());
        let results = self.places.address(Buffer::Results.start());
        let mut flying = VecDeque::new();
        let ended = (|| {
            loop {
                let next = if flying.len() < IN_FLIGHT {
                    feed.next(batch.nonces)
                } else {
                    None
                };
                if let Some(nonces) = next {
                    let words = seed_words(&round, batch, &nonces);
                    self.device.submit(&words, seeds, results, batch.result_bytes())?;
                    flying.push_back(nonces);
                } else if let Some(nonces) = flying.pop_front() {
                    let landed = self.land(&nonces, batch)?;
                    if !feed.done(landed) {
                        return Ok(());
                    }
                } else {
                    return Ok(());
                }
            }
        })();
        // What still flies is nobody's: the next batch must not take its results for its own.
        for _ in flying {
            drop(self.device.collect());
        }
        ended
    }

    /// As [`Engine::run`] keeps the device busy, with other steps and without artifacts.
    pub(in crate::cuda) fn run_part(&mut self, round: &Round, part: Part, batches: usize) -> Result<(), Error> {
        self.begin(round)?;
        let Some((round, batch)) = self.begun.take() else {
            return Ok(());
        };
        let steps = self.program.plan(batch)?.part(part);
        self.device.record(&steps, &self.places)?;
        let (mut words, mut results) = (Vec::new(), 0);
        if part == Part::Whole {
            words = seed_words(&round, batch, &[0]);
            results = batch.result_bytes();
        }
        let seeds = self.places.address(Buffer::Seeds.start());
        let from = self.places.address(Buffer::Results.start());
        for flying in 0..batches + IN_FLIGHT {
            if flying >= IN_FLIGHT {
                self.device.collect()?;
            }
            if flying < batches {
                self.device.submit(&words, seeds, from, results)?;
            }
        }
        Ok(())
    }

    pub(in crate::cuda) fn last_states(&mut self, nonces: &[i64]) -> Result<Vec<f32>, Error> {
        let Some((round, batch)) = self.begun.clone() else {
            return Ok(Vec::new());
        };
        let seeds = self.places.address(Buffer::Seeds.start());
        let states = self.places.address(Buffer::LastNormed.start());
        let mut all = Vec::new();
        for nonces in nonces.chunks(batch.nonces) {
            let words = seed_words(&round, batch, nonces);
            let bytes = 2 * nonces.len() * self.program.hidden();
            self.device.submit(&words, seeds, states, bytes)?;
            let bytes = self.device.collect()?;
            all.extend(
                bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|bits| bf16::from_le_bytes(*bits).to_f32()),
            );
        }
        Ok(all)
    }

    /// Takes the oldest batch in. One number that is not finite makes all of it suspect.
    fn land(&mut self, nonces: &[i64], batch: Batch) -> Result<scheme::Batch, Error> {
        let bytes = self.device.collect()?;
        let (artifacts, flags) = bytes.split_at(batch.artifact_bytes());
        if flags
            .as_chunks::<4>()
            .0
            .iter()
            .take(nonces.len())
            .any(|flag| *flag != [0; 4])
        {
            self.not_finite += 1;
            if self.not_finite >= NOT_FINITE_IN_A_ROW {
                return Err(Error::NotFinite(self.not_finite));
            }
            return Ok(scheme::Batch {
                artifacts: Vec::new(),
                rejected_non_finite: nonces.len() as u32,
            });
        }
        self.not_finite = 0;
        let artifact = |(&nonce, vector): (&i64, &[u8])| Artifact {
            nonce,
            vector: vector.to_vec(),
        };
        Ok(scheme::Batch {
            artifacts: nonces
                .iter()
                .zip(artifacts.chunks_exact(2 * batch.k_dim))
                .map(artifact)
                .collect(),
            rejected_non_finite: 0,
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for address in self.places.take_all() {
            // The device goes with the engine: what it does not free now it frees then.
            drop(self.device.free(address));
        }
    }
}

/// Seeds of a batch as the kernels read them; the last nonce stands in for those that are missing.
fn seed_words(round: &Round, batch: Batch, nonces: &[i64]) -> Vec<u8> {
    let all = || (0..batch.nonces).filter_map(|place| nonces.get(place.min(nonces.len().saturating_sub(1))).copied());
    let (hash, key, k_dim) = (&round.block_hash, &round.public_key, round.k_dim);
    let mut words = Vec::with_capacity(batch.seed_words());
    for nonce in all() {
        let text = seed::input(hash, key, nonce);
        if round.stronger_rng {
            words.extend(seed::seeds_from_string(&text));
        } else {
            words.push(seed::seed_from_string(&text));
        }
    }
    for nonce in all() {
        words.push(seed::seed_from_string(&seed::pick(hash, key, nonce, k_dim)));
        words.extend(
            (0..k_dim.saturating_sub(1))
                .map(|index| seed::seed_from_string(&seed::rotation(hash, key, nonce, k_dim, index))),
        );
    }
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}
