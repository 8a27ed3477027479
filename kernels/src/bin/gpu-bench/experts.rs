//! Observe: a layer of experts, and its grouped products alone, timed by the device; torch computes the products over as many rows an expert.

use crate::{
    Failure,
    args::Measure,
    model::Experts,
    ours,
    replica::Replica,
    turns::{Contestant, Gathered},
};
use half::bf16;
use kernels::{
    cuda::{
        Device as _, Error,
        bench::samples::Series,
        device::{Places, Span},
        driver::Gpu,
        moe::{
            Layout,
            bench::{Bench, grouped_products, layer},
        },
        plan::{Buffer, Step},
    },
    moe::{Grown, Repeated, Shape},
};
use std::{cell::RefCell, rc::Rc};

/// Who runs: ours, then torch's.
pub(crate) const NAMES: [&str; 4] = ["layer", "grouped", "torch-bf16", "torch-fp8"];
/// Experts that are grown and stand for all: which bits a weight has costs no time.
const GROWN: usize = 2;
/// Batches on the device at a time, as in a round.
const IN_FLIGHT: usize = 2;
/// Rows of the experts' outputs that are looked at after a turn.
const LOOKED_AT: usize = 8;

/// The layer's weights and buffers on the GPU.
struct Machine {
    device: Gpu,
    places: Places,
}

/// One of the two measurements; both are of the same weights, in the same buffers.
pub(crate) struct Timed {
    machine: Rc<RefCell<Machine>>,
    bench: Bench,
    shape: Shape,
    nonces: usize,
}

/// Everybody who runs, in the order of [`NAMES`].
pub(crate) fn contestants(wanted: &Measure, of: &Experts, gpu: &str) -> Result<Vec<Gathered>, Failure> {
    let layout = Layout::new(&of.shape);
    let benches = [
        layer(&of.shape, &layout, of.batch),
        grouped_products(&of.shape, &layout, of.batch),
    ];
    let device = ours::open(wanted.simulated)?;
    let machine = Rc::new(RefCell::new(Machine::load(device, of, &layout, &benches[0])?));
    let [layer, grouped] = benches.map(|bench| Timed {
        machine: Rc::clone(&machine),
        bench,
        shape: of.shape.clone(),
        nonces: of.batch.nonces,
    });
    let counts = grouped.begin()?;
    let torch = |mode| {
        let series = Series {
            bytes: 0,
            ..grouped.series(Vec::new())
        };
        Replica::of_experts(wanted, (of.shape.hidden, of.shape.inner), &counts, (mode, series), gpu).into()
    };
    let theirs = [torch("bf16"), torch("fp8")];
    let ours = [Contestant::Experts(layer), Contestant::Experts(grouped)];
    Ok(NAMES
        .into_iter()
        .zip(ours.into_iter().chain(theirs))
        .map(|(name, contestant)| Gathered::new(name, contestant))
        .collect())
}

impl Machine {
    /// Makes room, then brings weights, angles, reflections and seeds.
    fn load(device: Gpu, of: &Experts, layout: &Layout, bench: &Bench) -> Result<Self, Failure> {
        of.shape.check()?;
        let mut machine = Self {
            device,
            places: Places::default(),
        };
        let sizes = bench.plan.sizes.iter().copied();
        for (buffer, bytes) in sizes.chain([(Buffer::Weights, layout.bytes)]) {
            let address = machine.device.allocate(bytes)?;
            machine.places.put(buffer, address, bytes);
        }
        let grown = Grown {
            tag: "bench".into(),
            model: of.name.into(),
        };
        let source = Repeated::new(grown, &of.shape, GROWN);
        let weights = machine.places.address(Buffer::Weights.start());
        layout.fill(&of.shape, &source, &mut |_, offset, bytes| {
            machine.device.upload(weights + offset, bytes)
        })?;
        for (to, bytes) in &bench.uploads {
            machine.device.upload(machine.places.address(to.start()), bytes)?;
        }
        Ok(machine)
    }

    /// Runs steps once; so many bytes of a buffer.
    fn once(&mut self, steps: &[Step], from: Buffer, length: usize) -> Result<Vec<u8>, Error> {
        self.device.record(steps, &self.places)?;
        let from = self.places.address(from.start());
        self.device.submit(&[], from, from, length)?;
        self.device.collect()
    }

    /// Runs steps so many times, one waiting while another runs, as the device timed them.
    fn watched(&mut self, steps: &[Step], batches: usize) -> Result<Vec<Span>, Error> {
        self.device.record(steps, &self.places)?;
        self.device.watch(true);
        let anywhere = self.places.address(Buffer::Results.start());
        for flying in 0..batches + IN_FLIGHT {
            if flying >= IN_FLIGHT {
                self.device.collect()?;
            }
            if flying < batches {
                self.device.submit(&[], anywhere, anywhere, 0)?;
            }
        }
        let spans = self.device.spans();
        self.device.watch(false);
        Ok(spans)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for address in self.places.take_all() {
            // What the device does not free now it frees when it goes.
            drop(self.device.free(address));
        }
    }
}

impl Timed {
    /// Makes what is read as it was in the beginning; rows by expert where the router has chosen.
    fn begin(&self) -> Result<Vec<u32>, Error> {
        let mut machine = self.machine.borrow_mut();
        let starts = machine.once(&self.bench.before, Buffer::Starts, 4 * (self.shape.experts + 1))?;
        Ok(rows_by_expert(&starts))
    }

    /// What batches of it are, for its samples.
    pub(crate) const fn series(&self, turns: Vec<Vec<f64>>) -> Series {
        Series {
            nonces: self.nonces,
            operations: self.bench.operations,
            bytes: self.bench.bytes,
            turns,
        }
    }

    /// Batches in a row, as the device timed them; from the beginning each turn, for a layer changes what it reads.
    pub(crate) fn run(&self, batches: usize) -> Result<Vec<Span>, String> {
        let (spans, outputs) = self.turn(batches).map_err(|error| error.to_string())?;
        if spans.len() != batches {
            return Err(format!("the device timed {} batches of {batches}", spans.len()));
        }
        if are_numbers(&outputs) {
            Ok(spans)
        } else {
            Err(format!("{}: outputs are not finite, or all zero", self.bench.name))
        }
    }

    /// Times, and a few of the outputs of one more run.
    fn turn(&self, batches: usize) -> Result<(Vec<Span>, Vec<u8>), Error> {
        self.begin()?;
        let (mut machine, steps) = (self.machine.borrow_mut(), &self.bench.plan.steps);
        let spans = machine.watched(steps, batches)?;
        let outputs = machine.once(steps, Buffer::Routed, 2 * LOOKED_AT * self.shape.hidden)?;
        Ok((spans, outputs))
    }
}

/// Of where each expert's rows begin, and where the last one's end.
fn rows_by_expert(starts: &[u8]) -> Vec<u32> {
    let words = starts.as_chunks::<4>().0.iter().copied();
    let starts: Vec<u32> = words.map(u32::from_le_bytes).collect();
    starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}

fn are_numbers(halves: &[u8]) -> bool {
    let numbers = || halves.as_chunks::<2>().0.iter().map(|half| bf16::from_le_bytes(*half));
    numbers().all(bf16::is_finite) && numbers().any(|x| x != bf16::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experts_rows_end_where_the_next_ones_begin() {
        let starts = [0_u32, 3, 3, 10].map(u32::to_le_bytes).concat();
        assert_eq!(rows_by_expert(&starts), [3, 0, 7]);
    }

    #[test]
    fn zeros_and_what_is_not_finite_are_no_outputs() {
        let halves = |numbers: &[f32]| -> Vec<u8> {
            let half = |x: &f32| bf16::from_f32(*x).to_le_bytes();
            numbers.iter().flat_map(half).collect()
        };
        assert!(are_numbers(&halves(&[0.0, -1.5])));
        assert!(!are_numbers(&halves(&[0.0, 0.0])) && !are_numbers(&[]));
        assert!(!are_numbers(&halves(&[1.0, f32::NAN])) && !are_numbers(&halves(&[f32::INFINITY, 1.0])));
    }
}
