//! The correct kernels: what a fair judge must not convict.

use crate::grouplasso::{
    Addition, Curvature, Gradient, Intercept, Kernel, Method, Norm, Order, Screening, Shrink, Top, Variant,
};

/// A correct kernel, different from its peers in how it works, not in what it finds.
///
/// ```
/// let names: Vec<_> = tilewright_mutants::grouplasso::variants().iter().map(|variant| variant.name).collect();
/// assert!(names.contains(&"accelerated"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrectVariant {
    /// Kebab-case name.
    pub name: &'static str,
    /// What it does differently.
    pub about: &'static str,
    /// How it works.
    pub variant: Variant,
}

impl CorrectVariant {
    /// The kernel.
    pub fn kernel(&self) -> Kernel {
        Kernel::correct(self.variant)
    }
}

/// Every correct kernel.
pub fn variants() -> Vec<CorrectVariant> {
    let mut list = vec![control("base", "cyclic descent on residuals, extrapolated", Variant::BASE)];
    list.extend(methods());
    list.extend(orders());
    list.extend(screenings());
    list.extend(arithmetics());
    list.extend(lookalikes());
    list
}

fn control(name: &'static str, about: &'static str, variant: Variant) -> CorrectVariant {
    CorrectVariant { name, about, variant }
}

fn methods() -> Vec<CorrectVariant> {
    let accelerated = Variant { method: Method::Accelerated, check: 10, ..Variant::BASE };
    vec![
        control("accelerated", "the accelerated proximal gradient method", accelerated),
        control("uncentred", "the same on columns with their means", Variant { centred: false, ..accelerated }),
        control("gram", "gradients from products of columns", Variant { gradient: Gradient::Gram, ..Variant::BASE }),
        control(
            "estimated-curvature",
            "an estimated curvature of the multinomial loss, checked",
            Variant { curvature: Curvature::Estimated, ..Variant::BASE },
        ),
        control(
            "scaled-intercept",
            "the intercept by iterative scaling",
            Variant { intercept: Intercept::Scaling, ..Variant::BASE },
        ),
        control("long-memory", "extrapolation of ten iterates", Variant { anderson: 10, ..Variant::BASE }),
        control("inner-steps", "five proximal steps a visit", Variant { steps: 5, ..Variant::BASE }),
        control(
            "rough-first",
            "single precision while the gap is wide",
            Variant { rough_first: true, ..Variant::BASE },
        ),
        control("cold-path", "each point of a path from zero", Variant { warm: false, ..Variant::BASE }),
        control("checks-often", "a certificate after each sweep", Variant { check: 1, ..Variant::BASE }),
        control("checks-seldom", "a certificate after fifty sweeps", Variant { check: 50, ..Variant::BASE }),
    ]
}

fn orders() -> Vec<CorrectVariant> {
    let order = |order| Variant { order, ..Variant::BASE };
    vec![
        control("reversed", "the last group first", order(Order::Reversed)),
        control("symmetric", "there and back again", order(Order::Symmetric)),
        control("shuffled", "a random order, another after each extrapolation", order(Order::Shuffled)),
        control("greedy", "the greatest violation first", order(Order::Greedy)),
    ]
}

fn screenings() -> Vec<CorrectVariant> {
    let screening = |screening| Variant { screening, ..Variant::BASE };
    vec![
        control("gap-safe", "groups proven zero are dropped", screening(Screening::GapSafe)),
        control("strong", "the sequential strong rule, checked", screening(Screening::Strong)),
        control("working-set", "only violated and active groups are visited", screening(Screening::WorkingSet)),
    ]
}

fn arithmetics() -> Vec<CorrectVariant> {
    let addition = |addition| Variant { addition, ..Variant::BASE };
    let norm = |norm| Variant { norm, ..Variant::BASE };
    let shrink = |shrink| Variant { shrink, ..Variant::BASE };
    let top = |top| Variant { top, ..Variant::BASE };
    vec![
        control("backward-sums", "sums from the last sample to the first", addition(Addition::Backward)),
        control("pairwise-sums", "sums by halves", addition(Addition::Pairwise)),
        control("kahan-sums", "compensated sums", addition(Addition::Kahan)),
        control("hypot-norms", "norms by hypot", norm(Norm::Hypot)),
        control("pair-norms", "norms in pairs of numbers", norm(Norm::Pairs)),
        control("direction-prox", "the block less a multiple of its direction", shrink(Shrink::Direction)),
        control("moreau-prox", "the block less its projection on a ball", shrink(Shrink::Moreau)),
        control("heap", "selection by a heap", top(Top::Heap)),
        control("quickselect", "selection by quickselect", top(Top::Quickselect)),
    ]
}

/// Combinations as existing packages have them.
fn lookalikes() -> Vec<CorrectVariant> {
    let working_sets = Variant {
        gradient: Gradient::Gram,
        screening: Screening::WorkingSet,
        order: Order::Cyclic,
        check: 10,
        norm: Norm::Hypot,
        ..Variant::BASE
    };
    let newton = Variant {
        curvature: Curvature::Estimated,
        screening: Screening::Strong,
        intercept: Intercept::Scaling,
        steps: 3,
        addition: Addition::Pairwise,
        shrink: Shrink::Direction,
        ..Variant::BASE
    };
    let gradient = Variant {
        method: Method::Accelerated,
        screening: Screening::GapSafe,
        rough_first: true,
        addition: Addition::Kahan,
        shrink: Shrink::Moreau,
        top: Top::Heap,
        check: 20,
        ..Variant::BASE
    };
    vec![
        control("working-set-package", "working sets, products of columns, extrapolation", working_sets),
        control("newton-package", "proximal Newton along strong sets", newton),
        control("gradient-package", "single precision first, proximal gradients, safe screening", gradient),
    ]
}
