//! Box 2, observe: the chain, over several endpoints at once.

mod queries;

pub use queries::{Queries, QueryError};
