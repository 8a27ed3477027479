//! The kernels' library for the CPU: built once, loaded, launched by name on buffers whose end is guarded.

#![expect(
    unsafe_code,
    reason = "kernels take addresses, and a library of another language keeps its own promises"
)]
#![expect(clippy::disallowed_methods, reason = "a compiler is run once, before any test")]

use libloading::Library;
use sha2::{Digest, Sha256};
use std::{
    ffi::{CString, c_char, c_int, c_uint, c_void},
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
    slice,
    sync::{Mutex, OnceLock, PoisonError},
};

type Emulate = unsafe extern "C" fn(*const c_char, *const c_uint, *const c_uint, c_uint, *const *const c_void) -> c_int;

struct Emulator {
    emulate: Emulate,
    allocate: unsafe extern "C" fn(usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, usize),
    order: unsafe extern "C" fn(c_uint),
    conflicts: unsafe extern "C" fn() -> u64,
    _library: Library,
}

/// Whoever holds it decides the order in which threads run.
static MACHINE: Mutex<()> = Mutex::new(());

fn emulator() -> &'static Emulator {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| {
        let path = built();
        // SAFETY: the library was built from this repository; its initialisers fill a table.
        let library = unsafe { Library::new(path) }.expect("the library was built");
        // SAFETY: the types are those of `library.cpp`, and the library is kept beside what came out of it.
        unsafe {
            Emulator {
                emulate: *library.get(b"emulate\0").expect("exported"),
                allocate: *library.get(b"emulator_allocate\0").expect("exported"),
                free: *library.get(b"emulator_free\0").expect("exported"),
                order: *library.get(b"emulator_order\0").expect("exported"),
                conflicts: *library.get(b"emulator_conflicts\0").expect("exported"),
                _library: library,
            }
        }
    })
}

/// The library of the sources as they are now: named after them, so that it is built once and never by two into one file.
fn built() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let files = |directory: PathBuf| {
        fs::read_dir(directory)
            .expect("the sources")
            .map(|entry| entry.expect("a file").path())
    };
    let mut files: Vec<PathBuf> = files(sources.clone())
        .chain(files(sources.join("host")))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let digest = files.iter().fold(Sha256::new(), |digest, path| {
        digest
            .chain_update(path.as_os_str().as_encoded_bytes())
            .chain_update(fs::read(path).expect("a source"))
    });
    let name = format!("kernels-{}.so", &hex::encode(digest.finalize())[..16]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !path.exists() {
        let status = Command::new(sources.join("host/build-host.sh")).arg(&path).status();
        assert!(status.expect("the script is there").success(), "g++ built the kernels");
    }
    path
}

/// What a kernel may be given.
pub(crate) trait Argument {
    /// Where the argument's value lies.
    fn address(&self) -> *const c_void;
}

impl Argument for u32 {
    fn address(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }
}

impl Argument for f32 {
    fn address(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }
}

/// Numbers a kernel reads and writes. A page without access follows the last one.
pub(crate) struct Buffer<T: Copy> {
    memory: *mut c_void,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Copy> Buffer<T> {
    pub(crate) fn new(elements: &[T]) -> Self {
        // SAFETY: allocates; the size is that of the slice, which is written to it whole.
        unsafe {
            let memory = (emulator().allocate)(size_of_val(elements));
            std::ptr::copy_nonoverlapping(elements.as_ptr(), memory.cast(), elements.len());
            Self {
                memory,
                len: elements.len(),
                element: std::marker::PhantomData,
            }
        }
    }

    /// The place of an element, for as long as the buffer lives.
    pub(crate) fn at(&self, element: usize) -> Address {
        Address(self[element..].as_ptr().cast())
    }
}

impl<T: Copy> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: allocated with the same size, and nobody has it any more.
        unsafe { (emulator().free)(self.memory, self.len * size_of::<T>()) }
    }
}

impl<T: Copy> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as many elements as were written when it was made; kernels run only within `launch`.
        unsafe { slice::from_raw_parts(self.memory.cast(), self.len) }
    }
}

impl<T: Copy> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and borrowed alone.
        unsafe { slice::from_raw_parts_mut(self.memory.cast(), self.len) }
    }
}

impl<T: Copy> Argument for Buffer<T> {
    fn address(&self) -> *const c_void {
        (&raw const self.memory).cast()
    }
}

/// A place in a buffer, or none.
pub(crate) struct Address(*const c_void);

pub(crate) const NULL: Address = Address(std::ptr::null());

impl Argument for Address {
    fn address(&self) -> *const c_void {
        (&raw const self.0).cast()
    }
}

/// Grid, threads of a block, bytes of dynamic shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Shape(pub(crate) [u32; 3], pub(crate) u32, pub(crate) u32);

/// The status of a launch: 0 when the kernel ran.
pub(crate) fn try_launch(kernel: &str, Shape(grid, threads, shared): Shape, arguments: &[&dyn Argument]) -> i32 {
    let name = CString::new(kernel).expect("a name");
    let addresses: Vec<*const c_void> = arguments.iter().map(|argument| argument.address()).collect();
    // SAFETY: the caller gives what `kernels/cuda` says the kernel takes; reaching beyond a buffer ends the process.
    unsafe {
        (emulator().emulate)(
            name.as_ptr(),
            grid.as_ptr(),
            [threads, 1, 1].as_ptr(),
            shared,
            addresses.as_ptr(),
        )
    }
}

pub(crate) fn launch(kernel: &str, shape: Shape, arguments: &[&dyn Argument]) {
    assert_eq!(try_launch(kernel, shape, arguments), 0, "{kernel} is launched");
}

/// What `run` gives whatever the order in which a block's threads run.
pub(crate) fn in_every_order<R: PartialEq>(mut run: impl FnMut() -> R) -> R {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut results = [0, 1, 2].map(|order| {
        // SAFETY: sets a number.
        unsafe { (emulator().order)(order) };
        run()
    });
    assert!(
        results[0] == results[1] && results[0] == results[2],
        "the order of threads changes nothing"
    );
    // SAFETY: sets a number.
    unsafe { (emulator().order)(0) };
    results.swap(0, 2);
    let [_, _, first] = results;
    first
}

/// Passes over shared memory beyond one for each counted access of `run`.
pub(crate) fn bank_conflicts(run: impl FnOnce()) -> u64 {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: returns a number.
    unsafe { (emulator().conflicts)() };
    run();
    // SAFETY: returns a number.
    unsafe { (emulator().conflicts)() }
}
