//! The attention family on trial.

pub mod case;
pub mod decoy;
pub mod expected;
pub mod file;
pub mod generate;
pub mod in_process;
pub mod judge;
pub mod kill;
pub mod laws;
pub mod oracle;
pub mod process;
pub mod report;
pub mod subject;
pub mod suite;
pub mod trial;
mod typed;
pub mod wire;

pub use subject::{Feature, Layout, Profile, Request, Subject};
