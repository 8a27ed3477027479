//! `node-agent engine`: the engine of a slot with the driver of its GPU. The rest of it is `slot engine`'s.

use anyhow::Context as _;
use kernels::cuda::{
    self, CudaPrefillV2, MAX_SEQ_LEN, Shape,
    driver::{Gpu, Options, Wanted, uuid_of},
    weights::{Grown, Published, Source as Weights},
};
use nix::fcntl::{Flock, FlockArg};
use proto::v1::PrepareRequest;
use std::{
    fs::{File, read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::slot::{
    args::EngineArgs,
    engine::{
        self,
        model::{Error, Loaded},
        weights::Source,
    },
};

/// Sequence length that buffers are made and algorithms chosen for when a published model is loaded: that of every model the network has
/// had. A round with another one does both when it is prepared, which takes seconds.
const SEQ_LEN: usize = 1024;

/// Serves until SIGTERM.
pub async fn run(args: EngineArgs) -> anyhow::Result<()> {
    let folder = args.socket.parent().unwrap_or_else(|| Path::new(".")).to_owned();
    let gpu = Wanted::Ordinal(args.gpu);
    let load = move |request| load(request, &gpu, &folder);
    engine::run(args, Some(Arc::new(load))).await.context("engine")
}

fn load(request: PrepareRequest, gpu: &Wanted, folder: &Path) -> Result<Loaded, Error> {
    if !request.dtype.eq_ignore_ascii_case("bf16") {
        return Err(Error::DtypeOnGpu(request.dtype));
    }
    let model = weights(&request.weights_path)?;
    let uuid = uuid_of(gpu).map_err(Error::Gpu)?;
    let lock = lock(folder, &uuid)?;
    let options = Options {
        gpu: gpu.clone(),
        algorithms: Some(folder.join("cublaslt-algorithms.json")),
    };
    let nonces = model.shape.batch(model.seq_len);
    let hidden_size = model.shape.hidden as u32;
    let scheme = Gpu::open(&options)
        .and_then(|device| {
            CudaPrefillV2::load(
                Box::new(device),
                model.shape,
                model.weights.as_ref(),
                nonces,
                model.seq_len,
            )
        })
        .map_err(Error::Gpu)?;
    Ok(Loaded {
        request,
        weights_digest: model
            .digest
            .unwrap_or_else(|| format!("sha256:{}", scheme.weights_digest())),
        scheme: Arc::new(scheme),
        hidden_size,
        max_seq_len: MAX_SEQ_LEN as u32,
        held: Some(Arc::new(lock)),
    })
}

struct Model {
    shape: Shape,
    seq_len: usize,
    weights: Box<dyn Weights>,
    /// Where it is not that of the weights on the device.
    digest: Option<String>,
}

/// A model's shape and weights: the files of a folder with `config.json`, or a recipe. A recipe's digest is that of every other engine.
fn weights(path: &str) -> Result<Model, Error> {
    let config = Path::new(path).join("config.json");
    if config.is_file() {
        let text = read(&config).map_err(|error| {
            Error::Gpu(cuda::Error::Weights(format!(
                "{} cannot be read: {error}",
                config.display()
            )))
        })?;
        let shape = Shape::from_published(&text).map_err(Error::Gpu)?;
        let files = Published::open(Path::new(path)).map_err(Error::Gpu)?;
        return Ok(Model {
            shape,
            seq_len: SEQ_LEN,
            weights: Box::new(files),
            digest: None,
        });
    }
    let source = Source::read(path).map_err(Error::Weights)?;
    let config = source.recipe.config();
    let shape = Shape::try_from(&config).map_err(Error::Gpu)?;
    let digest = source.digest();
    let grown = Grown {
        tag: source.tag,
        model: source.recipe.name().to_owned(),
    };
    Ok(Model {
        shape,
        seq_len: config.seq_len,
        weights: Box::new(grown),
        digest: Some(digest),
    })
}

/// Keeps a GPU from a second engine of the pod, and from a burn-in beside it. The kernel gives it back when this process ends, however it ends.
pub(super) fn lock(folder: &Path, uuid: &str) -> Result<Flock<File>, Error> {
    let path: PathBuf = folder.join(format!("{uuid}.lock"));
    let unlockable = |source| Error::Lock {
        path: path.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(unlockable)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EAGAIN => Error::Gpu(cuda::Error::Shared {
            uuid: uuid.to_owned(),
            how: "taken by another engine of this pod",
            remedy: "give every replica a GPU of its own (spec.gpusPerReplica)",
        }),
        errno => unlockable(errno.into()),
    })
}
