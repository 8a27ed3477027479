//! Box 2, observe: the chain, over several endpoints at once.
//!
//! ```text
//!  endpoint ─► news ─┐
//!  endpoint ─► news ─┼─► view per endpoint ─► decide (pure: quorum, anchor, exam, window) ─► Facts
//!  endpoint ─► news ─┘                            ▲ memory, kept on disk
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`shapes`], [`parameters`], [`answers`] | foreign JSON of several releases to values |
//! | [`heights`], [`window`], [`pace`] | what heights mean |
//! | [`view`], [`decide`] | what endpoints say, and what is believed |
//! | [`client`], [`endpoint`], [`notice`] | the sockets |
//! | [`reader`], [`readers`], [`schedules`], [`cache`] | one reader per SprintSchedule, with or without the API server |

pub mod answers;
mod cache;
pub mod client;
pub mod decide;
mod endpoint;
pub mod heights;
mod notice;
pub mod pace;
pub mod parameters;
mod queries;
mod reader;
mod readers;
mod schedules;
pub mod shapes;
pub mod view;
pub mod window;

pub use queries::{Queries, QueryError};
pub use readers::{Readers, ReadersSettings};
pub use schedules::watch_schedules;

/// The wall clock, Unix milliseconds. Read where something is observed; decisions take it as a value.
pub fn now_ms() -> i64 {
    k8s_openapi::jiff::Timestamp::now().as_millisecond()
}
