//! The static binary of a slot pod: `hold`, `serve`, `engine`, `install`, `status`.

use clap::Parser as _;
use node_agent::slot::{self, args::Args};

fn main() -> anyhow::Result<()> {
    slot::main(Args::parse())
}
