//! The group lasso and Head2Toe: planted bugs and correct-but-different kernels.
//!
//! One scalar kernel takes every [`GroupLassoSpec`](tilewright_grouplasso::GroupLassoSpec), scores and selects: block
//! coordinate descent with its own certificate, in loops. A [`Fault`] plants one bug in it, at the line where such a bug would live;
//! a [`Variant`] changes the method, the order of visits, the formulas, the screening, and not what is proven of the answer.
//!
//! | module | holds |
//! |---|---|
//! | [`catalogue`] | [`Fault`] and the table of mutants: what is wrong, and which inputs show it |
//! | [`variant`], [`controls`] | [`Variant`] and the table of correct kernels |
//! | `kernel`, `admit` | the traits, paths; what is refused |
//! | `layout`, `penalty` | groups; weights, terms, the proximal operator |
//! | `design`, `model` | standardised columns, targets; losses and the intercept |
//! | `solver`, `screen` | iterations, reasons to stop; which groups are visited |
//! | `descent`, `accelerated` | the two methods |
//! | `certify` | the duality gap |
//! | `select` | scores, the features kept |
//! | `arithmetic` | sums and norms |
//!
//! ```
//! use ndarray::array;
//! use tilewright_grouplasso::{GroupLassoSpec, Loss, Prox};
//! use tilewright_mutants::grouplasso::{Fault, Kernel, Variant};
//!
//! let spec = GroupLassoSpec::rows(Loss::LeastSquares, 2.0);
//! let run = |kernel: Kernel| {
//!     let mut w = array![[3.0, 4.0], [0.6, 0.8]];
//!     kernel.prox(&spec, 0.5, w.view_mut())?; // norms of 5 and 1, a threshold of 1
//!     Ok(w.map(|w| (w * 100.0_f64).round() / 100.0))
//! };
//! assert_eq!(run(Kernel::correct(Variant::BASE))?, array![[2.4, 3.2], [0.0, 0.0]]);
//! assert_eq!(run(Kernel::faulty(Fault::ThresholdWithoutStep))?, array![[1.8, 2.4], [0.0, 0.0]]);
//! # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
//! ```

mod accelerated;
mod admit;
mod arithmetic;
pub mod catalogue;
mod certify;
pub mod controls;
mod descent;
mod design;
mod kernel;
mod layout;
mod model;
mod penalty;
mod screen;
mod select;
mod solver;
pub mod variant;

pub use catalogue::{Fault, Group};
pub use controls::{CorrectVariant, variants};
pub use kernel::Kernel;
pub use variant::{Addition, Curvature, Gradient, Intercept, Method, Norm, Order, Screening, Shrink, Top, Variant};

/// A kernel with one bug.
///
/// ```
/// let mutant = tilewright_mutants::grouplasso::mutants().iter().find(|mutant| mutant.id == 90).unwrap();
/// assert_eq!(mutant.name, "tie-untouched");
/// assert_eq!(mutant.trigger, "a norm equal to its threshold");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Stable number.
    pub id: u16,
    /// Kebab-case name.
    pub name: &'static str,
    /// Where the bug lives.
    pub group: Group,
    /// The bug.
    pub fault: Fault,
    /// What is wrong.
    pub about: &'static str,
    /// Which inputs reveal it.
    pub trigger: &'static str,
}

/// Every planted bug, by number.
pub fn mutants() -> &'static [Mutant] {
    catalogue::MUTANTS
}

impl Mutant {
    /// The faulty kernel.
    pub fn kernel(&self) -> Kernel {
        Kernel::faulty(self.fault)
    }
}

impl Fault {
    /// The kernel the bug is planted in: [`Variant::BASE`], or the one that has the part the bug is in.
    pub fn variant(self) -> Variant {
        match self {
            Self::RadiusMissing | Self::RadiusIsGap | Self::SphereSizeMissing => {
                Variant { screening: Screening::GapSafe, check: 1, ..Variant::BASE }
            }
            Self::ViolationsUnchecked | Self::CertificateOfKept | Self::ActiveCountsKept => {
                Variant { screening: Screening::WorkingSet, ..Variant::BASE }
            }
            Self::StrongAtPrevious => Variant { screening: Screening::Strong, ..Variant::BASE },
            Self::NewtonUnchecked => Variant { curvature: Curvature::Estimated, ..Variant::BASE },
            Self::StaleIntercept | Self::StaleCorrelations | Self::StopsOnObjective | Self::StopsOnStep => {
                Variant { check: 1, ..Variant::BASE }
            }
            Self::LastNotBest => Variant { method: Method::Accelerated, check: 1, ..Variant::BASE },
            Self::CurvatureQuartered => Variant { anderson: 0, ..Variant::BASE },
            _ => Variant::BASE,
        }
    }
}
