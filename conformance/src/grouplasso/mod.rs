//! The group-lasso family on trial: proximal operators, Head2Toe's selection, and solvers with certificates.

pub mod case;
pub mod decoy;
pub mod file;
pub mod generate;
mod hearing;
pub mod in_process;
pub mod judge;
pub mod kill;
mod laws;
mod oddities;
pub mod oracle;
mod parse;
pub mod process;
pub mod report;
mod shrink;
mod spoil;
pub mod subject;
pub mod suite;
pub mod trial;
mod warped;
pub mod wire;

pub use subject::{Answer, Claim, Column, Feature, Instance, Profile, Subject, Target, Watched};
