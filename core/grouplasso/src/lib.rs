//! Group lasso and Head2Toe, defined once: what is minimised, what an answer is worth, and how features are chosen with it.
//!
//! *Head2Toe* is Evci, Dumoulin, Larochelle and Mozer, "Head2Toe: utilizing intermediate representations for better transfer
//! learning" (ICML 2022). Conventions — how the objective is scaled, what is standardised, what a weight of 0 means — are those
//! of [`spec`], and of every implementation in this workspace.
//!
//! # From the papers to the functions
//!
//! | paper | here |
//! |---|---|
//! | the group lasso (Yuan and Lin 2006), sparse group lasso (Simon et al. 2013), overlapping groups (Jacob et al. 2009) | [`GroupLassoSpec`], [`Penalty`], [`Groups`] |
//! | proximal operators | [`prox`] |
//! | conjugates, dual norms (Ndiaye et al. 2016 for the sparse group), subdifferentials | [`penalty::Terms`] |
//! | losses and their dual functions | [`losses`] |
//! | the duality gap, for any answer | [`certificate`] |
//! | gap-safe rules (Ndiaye et al. 2017), sequential strong rules (Tibshirani et al. 2012) | [`screening`] |
//! | Head2Toe's pooling to a target size | [`pooling`] |
//! | Head2Toe's features: normalised layer by layer, side by side | [`features`] |
//! | Head2Toe's relevance scores and global top-k | [`select`] |
//! | the second head, linear probing and other baselines, by ridge regression | [`ridge`], [`Head`] |
//! | Head2Toe from features to a head | [`head2toe`], [`ranking`] |
//! | its cross-validation | [`grid`], [`sampling`] |
//! | what it costs beside fine-tuning | [`cost`] |
//! | error bounds of proximal operator and scores | [`bound`] |
//! | FISTA (Beck and Teboulle 2009), adaptive restart (O'Donoghue and Candès 2015) | [`reference::Reference`] |
//!
//! # A problem, solved and certified
//!
//! ```
//! use ndarray::Array2;
//! use std::ops::ControlFlow;
//! use tilewright_grouplasso::reference::Reference;
//! use tilewright_grouplasso::{Data, GroupLassoSolver, GroupLassoSpec, Loss, Problem, Stopping, Targets, certificate};
//!
//! let x = Array2::from_shape_fn((30, 8), |(i, j)| ((i * 37 + j * j * 101) % 23) as f64 / 11.0 - 1.0);
//! let y = Array2::from_shape_fn((30, 2), |(i, k)| x[[i, 3]] * (k as f64 - 0.4) + 0.01 * x[[i, k]] + 5.0);
//! let data = Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None };
//! let mut spec = GroupLassoSpec::rows(Loss::LeastSquares, 0.0);
//! spec.lambda = Problem::new(&spec, &data)?.lambda_max()? / 5.0;
//!
//! let answer = Reference.solve(&spec, &data, &Stopping::default(), None, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(answer.w.indices(), [3]); // the one feature that matters
//!
//! // Anybody's coefficients can be certified; these are at most 10⁻⁶ of P(0) above the minimum.
//! let problem = Problem::new(&spec, &data)?;
//! assert!(certificate::certify(&problem, &answer.w, &answer.b)?.relative_gap() <= 1e-6);
//! # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bound;
pub mod certificate;
pub mod cost;
pub mod data;
pub mod error;
pub mod features;
pub mod grid;
pub mod head;
pub mod head2toe;
pub mod layout;
pub mod losses;
pub mod penalty;
pub mod pooling;
pub mod problem;
pub mod prox;
pub mod ranking;
pub mod reference;
pub mod ridge;
pub mod sampling;
pub mod screening;
pub mod select;
pub mod solution;
pub mod spec;
pub mod traits;

pub use certificate::Certificate;
pub use data::{Columns, Data, Response, Targets};
pub use error::GroupLassoError;
pub use features::{Layers, Normalise};
pub use head::Head;
pub use head2toe::Head2Toe;
pub use layout::Layout;
pub use penalty::Terms;
pub use problem::Problem;
pub use select::Keep;
pub use solution::{Progress, Solution, SparseRows, Start, Stopped, Stopping};
pub use spec::{GroupLassoSpec, Groups, Loss, Penalty, Standardise, Weights};
pub use tilewright_scalar::{Element, Format, bf16, f16};
pub use traits::{GroupLassoSolver, Prox, Selection, geometric_path};
