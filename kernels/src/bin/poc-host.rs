//! `poc-host`: one node's share of a round, computed as a host would. Reads an order as JSON from standard input, writes what
//! the host delivers and commits to as JSON: artifacts, root, and the proof of each artifact. Exit status 1 when the order
//! cannot be carried out.

use kernels::{
    artifact,
    commitment::{Proof, SumTree},
    decoder::{Dtype, Model, Recipe},
    nonces::Enumeration,
    prefill_v2::PrefillV2,
    scheme::{Round, Scheme as _},
};
use serde::{Deserialize, Serialize};
use std::{
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

/// What is to be computed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Name of a tiny model's recipe.
    recipe: String,
    /// Tag in the seed strings of its weights.
    tag: String,
    dtype: Dtype,
    round: Round,
    /// Which nonces: the first so many of this node's share.
    share: Enumeration,
    count: u64,
}

/// What a host has to show for it.
#[derive(Debug, Serialize)]
struct Delivery {
    artifacts: Vec<Delivered>,
    /// Hex of the sum tree's root over all of them.
    root: String,
}

#[derive(Debug, Serialize)]
struct Delivered {
    nonce: i32,
    vector_b64: String,
    /// Siblings from the root down, hex of hash and count.
    proof: Vec<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            eprintln!("poc-host: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let order: Order = serde_json::from_reader(io::stdin().lock())?;
    let delivery = deliver(&order)?;
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &delivery)?;
    writeln!(out)?;
    Ok(())
}

fn deliver(order: &Order) -> Result<Delivery, Box<dyn Error>> {
    let recipe: Recipe = order.recipe.parse()?;
    let model = Model::from_recipe(&recipe, &order.tag);
    let mut prepared = PrefillV2::new(Arc::new(model), order.dtype).prepare(&order.round)?;
    let nonces: Vec<i64> = (0..order.count).map_while(|index| order.share.nonce(index)).collect();
    let batch = prepared.generate(&nonces)?;
    let mut tree = SumTree::new();
    let mut leaves = Vec::with_capacity(batch.artifacts.len());
    for made in batch.artifacts {
        let nonce = i32::try_from(made.nonce)?;
        tree.insert(nonce, &made.vector);
        leaves.push((nonce, made.vector));
    }
    let artifacts = leaves
        .into_iter()
        .map(|(nonce, vector)| Delivered {
            nonce,
            vector_b64: artifact::to_base64(&vector),
            proof: tree
                .prove(nonce)
                .iter()
                .flat_map(Proof::to_elements)
                .map(hex::encode)
                .collect(),
        })
        .collect();
    Ok(Delivery {
        artifacts,
        root: hex::encode(tree.root()),
    })
}
