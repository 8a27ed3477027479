//! Apply: a real GPU through the driver. One stream: what is submitted runs in order, copies included, and nothing waits in between.

mod find;
mod gemm;
mod host;
pub mod peer;
mod times;

pub use self::find::uuid_of;
use self::{
    find::{driver_version, find},
    gemm::{Gemms, Number},
    host::Pinned,
    times::{Times, Watched},
};
use super::{
    Device, Error,
    device::{Places, Span},
    plan::{Arg, Buffer, Kernel, Launch, Place, Step},
};
use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaStream, DriverError, result, sys};
use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{CString, c_void},
    path::PathBuf,
    sync::Arc,
};

/// One file of kernels: machine code of Hopper, and what the driver compiles for other architectures.
struct Module {
    cubin: &'static [u8],
    ptx: &'static [u8],
    kernels: &'static [Kernel],
}

macro_rules! module {
    ($name:literal, [$($kernel:ident),+]) => {
        module!($name, "compute_80", [$($kernel),+])
    };
    ($name:literal, $least:literal, [$($kernel:ident),+]) => {
        Module {
            cubin: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/cubin/", $name, ".sm_90a.cubin")),
            ptx: concat!(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/cubin/", $name, ".", $least, ".ptx")), "\0").as_bytes(),
            kernels: &[$(Kernel::$kernel),+],
        }
    };
}

// After the macro, which it uses.
mod fp8;

/// Kernels that every GPU runs, by file.
const MODULES: [Module; 10] = [
    module!("inputs", [FillInputs]),
    module!("rows", [Norm, AddNorm, ReflectAddNorm, GatherLast]),
    module!("swiglu", [Swiglu]),
    module!("heads", [HeadNormRope]),
    module!(
        "attention",
        [Attention16, Attention32, Attention64, Attention128, AttentionLast]
    ),
    module!("project", [Project]),
    module!("whole_norm", [WholeNormRope]),
    module!("route", [Router, Route, CountRoutes, PlaceRoutes, Combine]),
    module!("memory", [FillWords, CheckWords, Multiprocessors]),
    module!("v1", [V1Norm, V1Rope, V1Attention, V1Swiglu, V1Add]),
];

/// Most shared memory of a launch, bytes: attention with heads of 128, products in eight bits.
const SHARED: i32 = 96 << 10;

/// How names of GPUs begin that the simulated driver shows; the last two digits count them.
const SIMULATED: &str = "GPU-00010203-0405-0607-0809-0a0b0c0d0e";

/// Which of the GPUs that this process sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// By place, from 0.
    Ordinal(usize),
    /// `GPU-…` as the driver names it.
    Uuid(String),
}

impl Default for Wanted {
    fn default() -> Self {
        Self::Ordinal(0)
    }
}

/// Which GPU, and where choices of algorithms are remembered.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which GPU.
    pub gpu: Wanted,
    /// File of the fastest algorithm by device, driver and shape; measured anew at every start without.
    pub algorithms: Option<PathBuf>,
}

/// What a GPU says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// As the driver names it.
    pub uuid: String,
    /// Product.
    pub name: String,
    /// Multiprocessors that are not masked.
    pub multiprocessors: u32,
    /// Memory in all.
    pub total_bytes: u64,
}

/// A GPU of one's own.
pub struct Gpu {
    // Dropped in this order: what needs the context before it.
    recorded: Option<CudaGraph>,
    flying: VecDeque<Flying>,
    landed: Vec<Flying>,
    watched: Option<Watched>,
    gemms: Gemms,
    functions: BTreeMap<Kernel, sys::CUfunction>,
    modules: Vec<sys::CUmodule>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    uuid: String,
}

/// A batch on its way: pinned memory for what goes in and what comes out, and the event of its end.
struct Flying {
    input: Pinned,
    output: Pinned,
    length: usize,
    done: CudaEvent,
    times: Option<Times>,
}

// SAFETY: functions, modules and the graph are handles of the context, which every call here binds to its thread first; `&mut self` keeps calls apart.
#[expect(unsafe_code, reason = "handles of the driver are raw pointers")]
unsafe impl Send for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("uuid", &self.uuid).finish_non_exhaustive()
    }
}

fn failed(call: &'static str) -> impl Fn(DriverError) -> Error {
    move |error| Error::Call {
        call,
        cause: error.to_string(),
    }
}

impl Gpu {
    /// Opens a GPU: driver, version, device and kernels, each with its own error.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let (ordinal, uuid) = find(&options.gpu)?;
        let context = CudaContext::new(ordinal).map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let (major, minor) = context.compute_capability().map_err(failed("cuDeviceGetAttribute"))?;
        let hopper = match (major, minor) {
            (9, 0) => true,
            (8.., _) => false,
            _ => return Err(Error::Capability { major, minor }),
        };
        let stream = context.new_stream().map_err(failed("cuStreamCreate"))?;
        let name = context.name().map_err(failed("cuDeviceGetName"))?;
        let mut gpu = Self {
            recorded: None,
            flying: VecDeque::new(),
            landed: Vec::new(),
            watched: None,
            gemms: Gemms::new(&name, driver_version()?, options.algorithms.clone())?,
            functions: BTreeMap::new(),
            modules: Vec::new(),
            stream,
            context,
            uuid,
        };
        for module in MODULES.iter().chain(fp8::modules((major, minor))) {
            gpu.load(module, hopper)?;
        }
        Ok(gpu)
    }

    /// As the driver names it.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The product.
    pub fn name(&self) -> Result<String, Error> {
        self.context.name().map_err(failed("cuDeviceGetName"))
    }

    /// Whether this is the driver of `kernels/cuda/host`, whose times are those of a CPU.
    pub fn is_simulated(&self) -> bool {
        self.uuid.starts_with(SIMULATED)
    }

    /// An event that notes when it passes.
    fn timed_event(&self) -> Result<CudaEvent, Error> {
        self.context
            .new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))
            .map_err(failed("cuEventCreate"))
    }

    /// Events of the next batch, the first of them recorded, where somebody watches.
    fn begin(&self) -> Result<Option<Times>, Error> {
        if self.watched.is_none() {
            return Ok(None);
        }
        let times = Times {
            begun: self.timed_event()?,
            ended: self.timed_event()?,
        };
        times.begun.record(&self.stream).map_err(failed("cuEventRecord"))?;
        Ok(Some(times))
    }

    /// What the device says of itself.
    pub fn facts(&self) -> Result<Facts, Error> {
        let (_, total) = self.context.mem_get_info().map_err(failed("cuMemGetInfo"))?;
        let multiprocessors = self
            .context
            .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(failed("cuDeviceGetAttribute"))?;
        Ok(Facts {
            uuid: self.uuid.clone(),
            name: self.context.name().map_err(failed("cuDeviceGetName"))?,
            multiprocessors: u32::try_from(multiprocessors).unwrap_or_default(),
            total_bytes: total as u64,
        })
    }

    #[expect(unsafe_code, reason = "the driver's interface")]
    fn load(&mut self, module: &Module, hopper: bool) -> Result<(), Error> {
        let image = if hopper { module.cubin } else { module.ptx };
        // SAFETY: an image of ours: a whole cubin, or PTX that ends with a zero byte.
        let loaded = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(failed("cuModuleLoadData"))?;
        self.modules.push(loaded);
        for kernel in module.kernels {
            let name = CString::new(kernel.name()).unwrap_or_default();
            // SAFETY: the module stays loaded as long as `self`.
            let function =
                unsafe { result::module::get_function(loaded, name) }.map_err(failed("cuModuleGetFunction"))?;
            // More than 48 KiB of shared memory has to be asked for by name.
            if kernel.name().starts_with("attention_") || matches!(kernel, Kernel::GroupedGemmFp8 | Kernel::Router) {
                let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                // SAFETY: a function that is loaded.
                unsafe { result::function::set_function_attribute(function, attribute, SHARED) }
                    .map_err(failed("cuFuncSetAttribute"))?;
            }
            self.functions.insert(*kernel, function);
        }
        Ok(())
    }

    /// Puts a kernel on the stream.
    #[expect(unsafe_code, reason = "the driver's interface")]
    fn launch(&self, launch: &Launch, places: &Places) -> Result<(), Error> {
        // The driver reads the first four or eight bytes of each.
        let mut words: Vec<u64> = launch
            .args
            .iter()
            .map(|arg| match arg {
                Arg::At(place) => places.address(*place),
                Arg::Nothing => 0,
                Arg::Size(size) => u64::from(*size),
                Arg::Number(number) => u64::from(number.to_bits()),
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let function = self.functions.get(&launch.kernel);
        let function = function.ok_or_else(|| fp8::missing(launch.kernel))?;
        let [x, y, z] = launch.grid;
        // SAFETY: arguments are in the kernel's order and size (little-endian words), and the plan keeps to its buffers' sizes.
        unsafe {
            result::launch_kernel(
                *function,
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared,
                self.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(failed("cuLaunchKernel"))
    }

    /// Normals where a product reads, so that algorithms are compared on what they will see and not on zeros.
    fn randomise(&mut self, place: Place, elements: u64, places: &Places) -> Result<(), Error> {
        const PIECE: u64 = 1 << 24;
        for first in (0..elements).step_by(PIECE as usize) {
            let count = PIECE.min(elements - first) as u32;
            let to = Place {
                offset: place.offset + 2 * first,
                ..place
            };
            let launch = Launch {
                kernel: Kernel::FillInputs,
                grid: [count.div_ceil(2).div_ceil(2048), 1, 1],
                block: 256,
                shared: 0,
                args: vec![
                    Arg::At(to),
                    Arg::At(Buffer::Seeds.start()),
                    Arg::Size(1),
                    Arg::Size(count),
                    Arg::Size(count),
                ],
                bytes: (0, 0),
            };
            self.launch(&launch, places)?;
        }
        Ok(())
    }

    /// Chooses an algorithm for every product whose shape is new.
    fn choose(&mut self, steps: &[Step], places: &Places) -> Result<(), Error> {
        for step in steps {
            let (gemm, number) = match step {
                Step::Gemm(gemm) => (gemm, Number::Bf16),
                Step::HalfGemm(gemm) => (gemm, Number::Half),
                Step::Launch(_) => continue,
            };
            if self.gemms.knows(gemm, number) {
                continue;
            }
            self.randomise(gemm.x, u64::from(gemm.rows) * u64::from(gemm.inner), places)?;
            self.gemms.choose((gemm, number), places, &self.context, &self.stream)?;
        }
        self.gemms.remember();
        Ok(())
    }

    /// A batch's memory, of those that have landed where one is large enough.
    fn hangar(&mut self, input: usize, output: usize) -> Result<Flying, Error> {
        let fits = |flying: &Flying| flying.input.len() >= input && flying.output.len() >= output;
        if let Some(at) = self.landed.iter().position(fits) {
            return Ok(self.landed.swap_remove(at));
        }
        Ok(Flying {
            input: Pinned::new(&self.context, input)?,
            output: Pinned::new(&self.context, output)?,
            length: 0,
            done: self
                .context
                .new_event(Some(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC))
                .map_err(failed("cuEventCreate"))?,
            times: None,
        })
    }
}

impl Device for Gpu {
    fn free_bytes(&mut self) -> Result<u64, Error> {
        self.context
            .mem_get_info()
            .map(|(free, _)| free as u64)
            .map_err(failed("cuMemGetInfo"))
    }

    #[expect(unsafe_code, reason = "the driver's interface")]
    fn allocate(&mut self, bytes: u64) -> Result<u64, Error> {
        self.context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))?;
        // SAFETY: nothing reads what was not written: every buffer is filled by an earlier step or an upload.
        unsafe { result::malloc_sync(bytes as usize) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::Memory { needed: bytes, free: 0 },
            _ => failed("cuMemAlloc")(error),
        })
    }

    #[expect(unsafe_code, reason = "the driver's interface")]
    fn free(&mut self, address: u64) -> Result<(), Error> {
        self.stream.synchronize().map_err(failed("cuStreamSynchronize"))?;
        self.recorded = None;
        // SAFETY: given by `allocate`, given back once; nothing runs, and the graph that knew it is gone.
        unsafe { result::free_sync(address) }.map_err(failed("cuMemFree"))
    }

    #[expect(unsafe_code, reason = "the driver's interface")]
    fn upload(&mut self, to: u64, bytes: &[u8]) -> Result<(), Error> {
        self.stream.synchronize().map_err(failed("cuStreamSynchronize"))?;
        // SAFETY: the buffer is at least as long; the copy is over when this returns.
        unsafe { result::memcpy_htod_sync(to, bytes) }.map_err(failed("cuMemcpyHtoD"))
    }

    fn record(&mut self, steps: &[Step], places: &Places) -> Result<(), Error> {
        self.stream.synchronize().map_err(failed("cuStreamSynchronize"))?;
        self.recorded = None;
        self.choose(steps, places)?;
        self.stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(failed("cuStreamBeginCapture"))?;
        let put = steps.iter().try_for_each(|step| match step {
            Step::Launch(launch) => self.launch(launch, places),
            Step::Gemm(gemm) => self.gemms.launch((gemm, Number::Bf16), places, &self.stream),
            Step::HalfGemm(gemm) => self.gemms.launch((gemm, Number::Half), places, &self.stream),
        });
        // The capture ends also where a step failed: a stream that captures for ever is lost.
        let graph = self
            .stream
            .end_capture(sys::CUgraphInstantiate_flags(0))
            .map_err(failed("cuGraphInstantiate"));
        put?;
        let graph = graph?.ok_or_else(|| Error::Call {
            call: "cuStreamEndCapture",
            cause: "nothing was captured".into(),
        })?;
        graph.upload().map_err(failed("cuGraphUpload"))?;
        self.recorded = Some(graph);
        Ok(())
    }

    #[expect(unsafe_code, reason = "the driver's interface")]
    fn submit(&mut self, input: &[u8], to: u64, from: u64, length: usize) -> Result<(), Error> {
        let mut flying = self.hangar(input.len(), length)?;
        flying.length = length;
        flying.input.as_mut_slice()[..input.len()].copy_from_slice(input);
        self.context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))?;
        flying.times = self.begin()?;
        let stream = self.stream.cu_stream();
        // SAFETY: pinned memory that stays where it is until the batch has landed.
        unsafe { result::memcpy_htod_async(to, &flying.input.as_mut_slice()[..input.len()], stream) }
            .map_err(failed("cuMemcpyHtoDAsync"))?;
        if let Some(graph) = &self.recorded {
            graph.launch().map_err(failed("cuGraphLaunch"))?;
        }
        // SAFETY: as above.
        unsafe { result::memcpy_dtoh_async(&mut flying.output.as_mut_slice()[..length], from, stream) }
            .map_err(failed("cuMemcpyDtoHAsync"))?;
        if let Some(times) = &flying.times {
            times.ended.record(&self.stream).map_err(failed("cuEventRecord"))?;
        }
        flying.done.record(&self.stream).map_err(failed("cuEventRecord"))?;
        self.flying.push_back(flying);
        Ok(())
    }

    fn collect(&mut self) -> Result<Vec<u8>, Error> {
        let Some(mut flying) = self.flying.pop_front() else {
            return Ok(Vec::new());
        };
        flying.done.synchronize().map_err(failed("cuEventSynchronize"))?;
        let bytes = flying.output.as_mut_slice()[..flying.length].to_vec();
        if let (Some(times), Some(watched)) = (flying.times.take(), &mut self.watched) {
            watched.note(times)?;
        }
        self.landed.push(flying);
        Ok(bytes)
    }

    fn watch(&mut self, on: bool) {
        self.watched = on.then(Watched::default);
    }

    fn spans(&mut self) -> Vec<Span> {
        self.watched
            .as_mut()
            .map(|watched| std::mem::take(&mut watched.spans))
            .unwrap_or_default()
    }
}

impl Drop for Gpu {
    #[expect(unsafe_code, reason = "the driver's interface")]
    fn drop(&mut self) {
        // Nothing may run in what is about to be unloaded; errors have nobody left to tell.
        _ = self.stream.synchronize();
        self.recorded = None;
        for module in self.modules.drain(..) {
            // SAFETY: loaded by `load`, and nothing runs.
            _ = unsafe { result::module::unload(module) };
        }
    }
}
