//! A Gonka network in one process, for tests and demos: everything that a host's software talks to, shaped like
//! version 0.2.14 as recorded.
//!
//! | module | what |
//! |---|---|
//! | [`scenario`], [`parameters`], [`stages`] | what is given: the file, the chain's parameters, the heights that follow |
//! | [`network`], [`exam`], [`faults`] | the state: plain values |
//! | [`mod@step`], [`chain`], [`confirmation`], [`preserved`], [`tally`], [`upgrade`], [`challenge`], [`verbs`] | the decisions: state and event to state and effects |
//! | [`votes`], [`early`], [`settlement`], [`coefficients`], [`economy`], [`sample`] | the rules they apply, as functions of numbers |
//! | [`rivals`], [`dapi`] | simulated hosts, and the DAPI of the one that is not |
//! | [`views`] | the state as JSON, in the recorded shapes |
//! | [`release`] | what other releases have in another shape: one table |
//! | [`driver`], [`http`], [`compute`] | real time: sockets, timers, proof of compute |
//! | [`mod@virtual_time`] | virtual time: a queue, and whoever plays our machines; artifacts are counted |
//! | [`truth`], [`noise`] | what was physically there; how far rates stray |
//! | [`unfit`] | what of a scenario one of the drivers cannot do |
//! | [`ledger`] | what a run leaves behind |

#![forbid(unsafe_code)]

pub mod args;
pub mod blocks;
pub mod chain;
pub mod challenge;
pub mod coefficients;
pub mod compute;
pub mod confirmation;
pub mod dapi;
pub mod decimal;
pub mod driver;
pub mod early;
pub mod economy;
pub mod event;
pub mod exam;
pub mod exponential;
pub mod faults;
pub mod http;
pub mod identity;
pub mod ledger;
pub mod network;
pub mod noise;
pub mod parameters;
pub mod preserved;
pub mod release;
pub mod rivals;
pub mod sample;
pub mod scenario;
pub mod settlement;
pub mod stages;
pub mod step;
pub mod tally;
pub mod time;
pub mod truth;
pub mod unfit;
pub mod upgrade;
pub mod verbs;
pub mod views;
pub mod virtual_time;
pub mod votes;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod course;
#[cfg(test)]
mod testing;
