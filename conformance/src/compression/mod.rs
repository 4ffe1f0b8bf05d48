//! The gradient compression family on trial.

pub mod case;
mod chance;
pub mod decoy;
pub mod file;
pub mod generate;
mod hearing;
pub mod in_process;
pub mod judge;
pub mod kill;
mod laws;
pub mod moment;
pub mod oracle;
mod parse;
pub mod process;
pub mod report;
mod shrink;
pub mod subject;
pub mod suite;
pub mod trial;
pub mod wire;

pub use subject::{Column, Compress, Decompress, Feature, Profile, Reply, Subject};
