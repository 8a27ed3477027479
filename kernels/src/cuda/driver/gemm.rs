//! Apply: products by cuBLASLt. Which of its algorithms is fastest for a shape is measured once and remembered by device, driver and library.

use crate::cuda::{Error, device::Places, plan::Gemm};
use cudarc::{
    cublaslt::{
        result::{self, CublasError},
        sys::{self, cublasLtMatmulDescAttributes_t as Attribute},
    },
    driver::{self, CudaContext, CudaStream, sys::CUevent_flags},
};
use std::{collections::BTreeMap, ffi::c_void, fs, path::PathBuf, sync::Arc};

/// Memory an algorithm may use for itself: what the library's authors advise for Hopper.
const WORKSPACE: usize = 32 << 20;
/// Algorithms that are tried.
const CANDIDATES: usize = 16;
/// Runs before one is timed, and those that are timed.
const RUNS: (u32, u32) = (2, 8);

/// `CUBLAS_OP_T`.
static TRANSPOSED: i32 = 1;

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Number {
    Bf16,
    Half,
}

/// How a form of halves begins where it is remembered.
const HALF: &str = "half ";

/// Rows, inner, outer, stride of the result: what an algorithm is chosen for.
type Sizes = (u32, u32, u32, u32);
/// The same with what is multiplied.
type Form = (Number, Sizes);
/// An algorithm as the library writes it.
type Algorithm = [u64; 8];

/// The library, its memory, and what was chosen.
pub(super) struct Gemms {
    handle: sys::cublasLtHandle_t,
    workspace: Option<u64>,
    chosen: BTreeMap<Form, Algorithm>,
    /// Device, driver and library that the choices are of.
    machine: String,
    file: Option<PathBuf>,
    fresh: bool,
}

fn failed(call: &'static str) -> impl Fn(CublasError) -> Error {
    move |error| Error::Call {
        call,
        cause: format!("{:?}", error.0),
    }
}

const fn form(gemm: &Gemm, number: Number) -> Form {
    (number, (gemm.rows, gemm.inner, gemm.outer, gemm.out_stride))
}

impl Gemms {
    #[expect(unsafe_code, reason = "the library's interface")]
    pub(super) fn new(device: &str, driver: i32, file: Option<PathBuf>) -> Result<Self, Error> {
        // SAFETY: loads a library, whose initialisers run; it is the vendor's.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::NoGemm);
        }
        let handle = result::create_handle().map_err(failed("cublasLtCreate"))?;
        // SAFETY: reads a number.
        let library = unsafe { sys::cublasLtGetVersion() };
        let machine = format!("{device}, driver {driver}, cuBLASLt {library}");
        let chosen = file
            .as_deref()
            .map(|file| remembered(file, &machine))
            .unwrap_or_default();
        Ok(Self {
            handle,
            workspace: None,
            chosen,
            machine,
            file,
            fresh: false,
        })
    }

    pub(super) fn knows(&self, gemm: &Gemm, number: Number) -> bool {
        self.chosen.contains_key(&form(gemm, number)) && self.workspace.is_some()
    }

    /// Measures what the library proposes for a product and keeps the fastest.
    pub(super) fn choose(
        &mut self,
        (gemm, number): (&Gemm, Number),
        places: &Places,
        context: &Arc<CudaContext>,
        stream: &Arc<CudaStream>,
    ) -> Result<(), Error> {
        self.make_workspace()?;
        if self.chosen.contains_key(&form(gemm, number)) {
            return Ok(());
        }
        let call = Call::new(gemm, number)?;
        let mut best: Option<(f32, Algorithm)> = None;
        for algorithm in call.candidates(self.handle)? {
            let Some(time) = self.time(&call, gemm, algorithm, (places, context, stream))? else {
                continue;
            };
            if best.is_none_or(|(fastest, _)| time < fastest) {
                best = Some((time, algorithm));
            }
        }
        let (_, algorithm) = best.ok_or_else(|| Error::Call {
            call: "cublasLtMatmul",
            cause: format!("no algorithm runs {} × {} × {}", gemm.rows, gemm.inner, gemm.outer),
        })?;
        self.chosen.insert(form(gemm, number), algorithm);
        self.fresh = true;
        Ok(())
    }

    #[expect(unsafe_code, reason = "the driver's interface")]
    fn make_workspace(&mut self) -> Result<(), Error> {
        if self.workspace.is_none() {
            // SAFETY: freed with the process' context; scratch of the library alone.
            let address = unsafe { driver::result::malloc_sync(WORKSPACE) }.map_err(super::failed("cuMemAlloc"))?;
            self.workspace = Some(address);
        }
        Ok(())
    }

    /// Milliseconds of one run; none where the algorithm does not run.
    fn time(
        &self,
        call: &Call,
        gemm: &Gemm,
        algorithm: Algorithm,
        (places, context, stream): (&Places, &Arc<CudaContext>, &Arc<CudaStream>),
    ) -> Result<Option<f32>, Error> {
        let event = || {
            context
                .new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
                .map_err(super::failed("cuEventCreate"))
        };
        let (begun, ended) = (event()?, event()?);
        for _ in 0..RUNS.0 {
            if self.run(call, gemm, algorithm, (places, stream)).is_err() {
                return Ok(None);
            }
        }
        begun.record(stream).map_err(super::failed("cuEventRecord"))?;
        for _ in 0..RUNS.1 {
            self.run(call, gemm, algorithm, (places, stream))?;
        }
        ended.record(stream).map_err(super::failed("cuEventRecord"))?;
        let time = begun.elapsed_ms(&ended).map_err(super::failed("cuEventElapsedTime"))?;
        Ok(Some(time / RUNS.1 as f32))
    }

    /// Puts a product on the stream, with the algorithm chosen for its form.
    pub(super) fn launch(
        &self,
        (gemm, number): (&Gemm, Number),
        places: &Places,
        stream: &Arc<CudaStream>,
    ) -> Result<(), Error> {
        let algorithm = self
            .chosen
            .get(&form(gemm, number))
            .copied()
            .ok_or_else(|| Error::Call {
                call: "cublasLtMatmul",
                cause: "no algorithm was chosen for it".into(),
            })?;
        self.run(&Call::new(gemm, number)?, gemm, algorithm, (places, stream))
    }

    #[expect(unsafe_code, reason = "the library's interface")]
    fn run(
        &self,
        call: &Call,
        gemm: &Gemm,
        algorithm: Algorithm,
        (places, stream): (&Places, &Arc<CudaStream>),
    ) -> Result<(), Error> {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let algorithm = sys::cublasLtMatmulAlgo_t { data: algorithm };
        let at = |place| places.address(place) as *const c_void;
        // SAFETY: descriptors live as long as `call`, scalars until the library has read them (before it returns), buffers as the plan says.
        unsafe {
            result::matmul(
                self.handle,
                call.description,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                at(gemm.weights),
                call.weights,
                at(gemm.x),
                call.x,
                at(gemm.out),
                call.out,
                at(gemm.out).cast_mut(),
                call.out,
                &raw const algorithm,
                self.workspace.unwrap_or_default() as *mut c_void,
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        }
        .map_err(failed("cublasLtMatmul"))
    }

    /// Writes what was chosen, for the next start. A file that cannot be written costs that start a second, and nothing else.
    pub(super) fn remember(&mut self) {
        let Some(file) = self.file.as_deref().filter(|_| self.fresh) else {
            return;
        };
        let mut all = read(file);
        let forms = self
            .chosen
            .iter()
            .map(|(form, algorithm)| (written(*form), *algorithm))
            .collect();
        all.insert(self.machine.clone(), forms);
        let beside = file.with_extension("new");
        let wrote = serde_json::to_vec_pretty(&all)
            .map_err(std::io::Error::from)
            .and_then(|text| fs::write(&beside, text))
            .and_then(|()| fs::rename(&beside, file));
        self.fresh = wrote.is_err();
    }
}

impl Drop for Gemms {
    #[expect(unsafe_code, reason = "the library's interface")]
    fn drop(&mut self) {
        // SAFETY: made in `new`, and nothing runs: the GPU waits for its stream before it drops this.
        unsafe {
            _ = result::destroy_handle(self.handle);
            if let Some(workspace) = self.workspace {
                _ = driver::result::free_sync(workspace);
            }
        }
    }
}

type Remembered = BTreeMap<String, BTreeMap<String, Algorithm>>;

fn written((number, (rows, inner, outer, stride)): Form) -> String {
    let prefix = match number {
        Number::Bf16 => "",
        Number::Half => HALF,
    };
    format!("{prefix}{rows} x {inner} x {outer} / {stride}")
}

fn parsed(text: &str) -> Option<Form> {
    let (number, sizes) = text
        .strip_prefix(HALF)
        .map_or((Number::Bf16, text), |sizes| (Number::Half, sizes));
    let mut numbers = sizes
        .split([' ', 'x', '/'])
        .filter(|word| !word.is_empty())
        .map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((number, (next()?, next()?, next()?, next()?)))
}

/// A file that is not there or not ours holds nothing.
fn read(file: &std::path::Path) -> Remembered {
    fs::read(file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn remembered(file: &std::path::Path, machine: &str) -> BTreeMap<Form, Algorithm> {
    let forms = read(file).remove(machine).unwrap_or_default();
    forms
        .into_iter()
        .filter_map(|(form, algorithm)| Some((parsed(&form)?, algorithm)))
        .collect()
}

/// The library's descriptions of one product. It counts columns first: our rows are its columns, and the weights are transposed.
struct Call {
    description: sys::cublasLtMatmulDesc_t,
    weights: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
}

impl Call {
    #[expect(unsafe_code, reason = "the library's interface")]
    fn new(gemm: &Gemm, number: Number) -> Result<Self, Error> {
        let number = match number {
            Number::Bf16 => sys::cudaDataType::CUDA_R_16BF,
            Number::Half => sys::cudaDataType::CUDA_R_16F,
        };
        let (rows, inner, outer) = (u64::from(gemm.rows), u64::from(gemm.inner), u64::from(gemm.outer));
        let matrix = |rows, columns, stride: u32| {
            result::create_matrix_layout(number, rows, columns, i64::from(stride))
                .map_err(failed("cublasLtMatrixLayoutCreate"))
        };
        let description = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )
        .map_err(failed("cublasLtMatmulDescCreate"))?;
        // SAFETY: an attribute of four bytes, copied before this returns.
        unsafe {
            result::set_matmul_desc_attribute(
                description,
                Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const TRANSPOSED).cast(),
                size_of_val(&TRANSPOSED),
            )
        }
        .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
        Ok(Self {
            description,
            weights: matrix(inner, outer, gemm.inner)?,
            x: matrix(inner, rows, gemm.inner)?,
            out: matrix(outer, rows, gemm.out_stride)?,
        })
    }

    /// What the library proposes, best guess first. All of its reductions are in a fixed order: results repeat to the bit.
    #[expect(unsafe_code, reason = "the library's interface")]
    fn candidates(&self, handle: sys::cublasLtHandle_t) -> Result<Vec<Algorithm>, Error> {
        let preference = result::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
        let (workspace, mut count) = (WORKSPACE, 0);
        let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(CANDIDATES);
        // SAFETY: the library writes at most `CANDIDATES` answers and says how many it wrote.
        let asked = unsafe {
            result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of_val(&workspace),
            )
            .and_then(|()| {
                sys::cublasLtMatmulAlgoGetHeuristic(
                    handle,
                    self.description,
                    self.weights,
                    self.x,
                    self.out,
                    self.out,
                    preference,
                    CANDIDATES as i32,
                    found.as_mut_ptr(),
                    &raw mut count,
                )
                .result()
            })
        };
        // SAFETY: made above; the answers were written.
        unsafe {
            _ = result::destroy_matmul_pref(preference);
            found.set_len(usize::try_from(count).unwrap_or_default().min(CANDIDATES));
        }
        asked.map_err(failed("cublasLtMatmulAlgoGetHeuristic"))?;
        let runs =
            |found: &&sys::cublasLtMatmulHeuristicResult_t| found.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS;
        Ok(found.iter().filter(runs).map(|found| found.algo.data).collect())
    }
}

impl Drop for Call {
    #[expect(unsafe_code, reason = "the library's interface")]
    fn drop(&mut self) {
        // SAFETY: made in `new`, each destroyed once; what was launched no longer needs them.
        unsafe {
            for layout in [self.weights, self.x, self.out] {
                _ = result::destroy_matrix_layout(layout);
            }
            _ = result::destroy_matmul_desc(self.description);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_back_for_the_machine_they_are_of() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("algorithms.json");
        assert!(remembered(&file, "a").is_empty());
        let forms = BTreeMap::from([
            (written((Number::Bf16, (16_384, 4096, 6144, 6144))), [7; 8]),
            (written((Number::Half, (16_384, 4096, 6144, 6144))), [6; 8]),
            ("nonsense".to_owned(), [1; 8]),
        ]);
        fs::write(&file, serde_json::to_vec(&BTreeMap::from([("a", forms)])).unwrap()).unwrap();
        assert_eq!(
            remembered(&file, "a"),
            BTreeMap::from([
                ((Number::Bf16, (16_384, 4096, 6144, 6144)), [7; 8]),
                ((Number::Half, (16_384, 4096, 6144, 6144)), [6; 8])
            ])
        );
        assert!(remembered(&file, "b").is_empty());
        fs::write(&file, "{").unwrap();
        assert!(remembered(&file, "a").is_empty());
    }
}
