//! The scheme over a device: weights resident, buffers and the recorded plan kept from round to round, two batches in flight.

use super::{
    Device, Error, Layout, MAX_K_DIM, MAX_ROWS, MAX_SEQ_LEN, Shape,
    device::{Places, Span},
    ledger::Ledger,
    plan::{Batch, Buffer, Part, Plan, plan},
    weights::{Digest, Put, Source},
};
use crate::{
    decoder, householder,
    prefill_v2::NAME,
    scheme::{self, Artifact, Feed, Prepared, Round, Scheme, StatTest, Verdict, compare, received_nonces},
    seed,
};
use half::bf16;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Batches in a row that may be not finite before the engine must be replaced (`docs/poc-v2.md`, section 5).
pub const NOT_FINITE_IN_A_ROW: u32 = 3;
/// Batches on the device at a time: one that runs, one that waits.
const IN_FLIGHT: usize = 2;

/// What an engine runs: a model's plans, and what a round needs beside seeds.
pub(super) trait Program: Send {
    /// Width of the hidden state.
    fn hidden(&self) -> usize;
    /// Decoder layers.
    fn layers(&self) -> usize;
    /// Bytes of the weights.
    fn weight_bytes(&self) -> u64;
    /// What a batch runs, or why none can.
    fn plan(&self, batch: Batch) -> Result<Plan, Error>;
    /// Cosines and sines of the rotary embedding by position.
    fn angles(&self, positions: usize) -> Vec<(f32, f32)>;
}

struct Dense {
    shape: Shape,
    layout: Layout,
}

impl Program for Dense {
    fn hidden(&self) -> usize {
        self.shape.hidden
    }

    fn layers(&self) -> usize {
        self.shape.layers
    }

    fn weight_bytes(&self) -> u64 {
        self.layout.bytes
    }

    fn plan(&self, batch: Batch) -> Result<Plan, Error> {
        plan(&self.shape, &self.layout, batch)
    }

    fn angles(&self, positions: usize) -> Vec<(f32, f32)> {
        decoder::angles(self.shape.head_dim, self.shape.theta, positions)
    }
}

/// A model on a device.
#[derive(Clone)]
pub(super) struct Resident {
    hidden: usize,
    engine: Arc<Mutex<Engine>>,
}

impl Resident {
    /// Makes room for weights and for batches of `nonces` of `seq_len` tokens, then has `fill` bring the weights.
    pub(super) fn load(
        device: Box<dyn Device>,
        program: Box<dyn Program>,
        fill: &dyn Fn(&mut Put<'_>) -> Result<(), Error>,
        nonces: usize,
        seq_len: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            hidden: program.hidden(),
            engine: Arc::new(Mutex::new(Engine::load(device, program, fill, nonces, seq_len)?)),
        })
    }

    pub(super) fn free_bytes(&self) -> Result<u64, Error> {
        lock(&self.engine).device.free_bytes()
    }

    pub(super) fn weights_digest(&self) -> String {
        lock(&self.engine).weights_digest.clone()
    }

    /// Preparing only looks at the request: the device may be at another round, which ends when this one begins.
    pub(super) fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, scheme::Error> {
        scheme::check(round, self.hidden)?;
        if round.seq_len > MAX_SEQ_LEN || round.k_dim > MAX_K_DIM {
            return Err(scheme::Error::Device(Error::Round {
                seq_len: round.seq_len,
                k_dim: round.k_dim,
            }));
        }
        Ok(Box::new(CudaRound {
            round: round.clone(),
            engine: Arc::clone(&self.engine),
        }))
    }
}

/// A dense model on a device.
#[derive(Clone)]
pub struct CudaPrefillV2 {
    shape: Shape,
    resident: Resident,
}

impl std::fmt::Debug for CudaPrefillV2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaPrefillV2")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl CudaPrefillV2 {
    /// Loads weights, and makes buffers for batches of `nonces` of `seq_len` tokens. When memory does not suffice for both nothing stays allocated.
    pub fn load(
        device: Box<dyn Device>,
        shape: Shape,
        source: &dyn Source,
        nonces: usize,
        seq_len: usize,
    ) -> Result<Self, Error> {
        let layout = Layout::new(&shape);
        let parts = layout.parts.clone();
        let fill = |put: &mut Put<'_>| {
            parts
                .iter()
                .try_for_each(|part| put(&part.name, part.offset, &source.tensor(part)?))
        };
        let program = Box::new(Dense {
            shape: shape.clone(),
            layout,
        });
        let resident = Resident::load(device, program, &fill, nonces, seq_len)?;
        Ok(Self { shape, resident })
    }

    /// Bytes of the device that nothing uses.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.resident.free_bytes()
    }

    /// Digest of the weights on the device: [`super::weights::digest`].
    pub fn weights_digest(&self) -> String {
        self.resident.weights_digest()
    }

    /// What a round's batches are made of, and what one costs.
    pub fn cost(&self, round: &Round) -> Result<(Batch, Ledger), Error> {
        let batch = lock(&self.resident.engine).batch_of(round);
        let plan = plan(&self.shape, &Layout::new(&self.shape), batch)?;
        Ok((batch, Ledger::new(&self.shape, batch, &plan)))
    }

    /// From now on notes of every batch when it begins and ends on the device, or no more.
    pub fn watch(&self, on: bool) {
        lock(&self.resident.engine).device.watch(on);
    }

    /// What was noted of the batches computed since.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.resident.engine).device.spans()
    }

    /// Runs a part of a round's batches. For its time: of artifacts there are none. A whole batch must have been computed before, or the part begins on
    /// numbers that nobody wrote.
    pub fn run_part(&self, round: &Round, part: Part, batches: usize) -> Result<(), Error> {
        lock(&self.resident.engine).run_part(round, part, batches)
    }

    /// States of the last token after the final norm, of as many nonces as are given, one after the other: what artifacts are made of.
    pub fn last_states(&self, round: &Round, nonces: &[i64]) -> Result<Vec<f32>, Error> {
        let mut engine = lock(&self.resident.engine);
        engine.begin(round)?;
        engine.last_states(nonces)
    }

    /// Shape of the model.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }
}

impl Scheme for CudaPrefillV2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, scheme::Error> {
        self.resident.prepare(round)
    }
}

/// A panic while the lock was held leaves device memory as it was: the next batch overwrites it.
fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

struct CudaRound {
    round: Round,
    engine: Arc<Mutex<Engine>>,
}

impl Prepared for CudaRound {
    fn generate(&mut self, nonces: &[i64]) -> Result<scheme::Batch, scheme::Error> {
        let mut listed = Listed {
            nonces,
            done: scheme::Batch::default(),
        };
        self.run(&mut listed)?;
        Ok(listed.done)
    }

    fn run(&mut self, feed: &mut dyn Feed) -> Result<(), scheme::Error> {
        let mut engine = lock(&self.engine);
        engine.begin(&self.round).map_err(scheme::Error::Device)?;
        engine.run(feed).map_err(scheme::Error::Device)
    }

    fn validate(&mut self, received: &[Artifact], test: &StatTest) -> Result<Verdict, scheme::Error> {
        let nonces = received_nonces(received, test)?;
        let computed = self.generate(&nonces)?.artifacts;
        Ok(compare(computed, received, test))
    }
}

/// The device and what is on it.
struct Engine {
    device: Box<dyn Device>,
    program: Box<dyn Program>,
    nonces: usize,
    places: Places,
    /// The round whose vectors are on the device, with its batches' form.
    begun: Option<(Round, Batch)>,
    not_finite: u32,
    weights_digest: String,
}

impl Engine {
    fn load(
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

    fn batch_of(&self, round: &Round) -> Batch {
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
    fn begin(&mut self, round: &Round) -> Result<(), Error> {
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
    fn run(&mut self, feed: &mut dyn Feed) -> Result<(), Error> {
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
    fn run_part(&mut self, round: &Round, part: Part, batches: usize) -> Result<(), Error> {
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

    fn last_states(&mut self, nonces: &[i64]) -> Result<Vec<f32>, Error> {
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

/// Given nonces, and what became of them.
struct Listed<'a> {
    nonces: &'a [i64],
    done: scheme::Batch,
}

impl Feed for Listed<'_> {
    fn next(&mut self, most: usize) -> Option<Vec<i64>> {
        let (next, rest) = self.nonces.split_at(most.min(self.nonces.len()));
        self.nonces = rest;
        (!next.is_empty()).then(|| next.to_vec())
    }

    fn done(&mut self, batch: scheme::Batch) -> bool {
        self.done.artifacts.extend(batch.artifacts);
        self.done.rejected_non_finite += batch.rejected_non_finite;
        true
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
