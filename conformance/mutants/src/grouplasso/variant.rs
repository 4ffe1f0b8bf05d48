//! Legitimate differences between correct kernels: the minimum is the same, and so is what is proven of it.

/// How the objective goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Block coordinate descent: one group after the other.
    Descent,
    /// The accelerated proximal gradient method with restarts, all groups at once.
    Accelerated,
}

/// In which order a sweep of coordinate descent visits the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// First to last.
    Cyclic,
    /// Last to first.
    Reversed,
    /// There and back again in turns.
    Symmetric,
    /// Another random order after each extrapolation.
    Shuffled,
    /// The most violated optimality condition at the start of the sweep comes first.
    Greedy,
}

/// How a group learns its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gradient {
    /// From a residual that each group's change updates.
    Residual,
    /// From products of columns: each group's change updates all gradients.
    Gram,
}

/// The curvature of the quadratic that stands for the multinomial loss in a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curvature {
    /// The greatest one softmax has, ½: never too little.
    Greatest,
    /// An estimate from the present probabilities, given up where the objective then rises.
    Estimated,
}

/// How the intercept of the multinomial loss is minimised out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Intercept {
    /// Newton's method, with halved steps where it overshoots.
    Newton,
    /// Iterative scaling: the class shares' logarithms are corrected until they agree.
    Scaling,
}

/// Which groups a sweep visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Screening {
    /// All.
    None,
    /// Those that the gap-safe sphere rule does not prove zero.
    GapSafe,
    /// Along a path those that the sequential strong rule proposes, and whatever the certificate finds violated.
    Strong,
    /// Those that are not zero or whose optimality condition the last certificate found violated.
    WorkingSet,
}

/// The order of additions in sums over samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addition {
    /// First to last.
    Forward,
    /// Last to first.
    Backward,
    /// By halves.
    Pairwise,
    /// Compensated, after Kahan.
    Kahan,
}

/// How norms are kept from overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Norm {
    /// Entries are divided by a power of two near the greatest.
    Scaled,
    /// `hypot`, entry by entry.
    Hypot,
    /// As scaled, the squares and their sum being unevaluated pairs of numbers.
    Pairs,
}

/// Which of the equal formulas shrinks a block `v` by `t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shrink {
    /// `v · (‖v‖ − t) / ‖v‖`.
    Factor,
    /// `v − t · v/‖v‖`.
    Direction,
    /// Moreau's: `v` less its projection on the ball of radius `t`.
    Moreau,
}

/// How the features kept are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Top {
    /// All scores are sorted.
    Sort,
    /// A heap of the greatest so far.
    Heap,
    /// Quickselect.
    Quickselect,
}

/// How a correct kernel goes about its work.
///
/// ```
/// use tilewright_mutants::grouplasso::{Order, Variant};
/// let greedy = Variant { order: Order::Greedy, ..Variant::BASE };
/// assert_ne!(greedy, Variant::BASE);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The solver.
    pub method: Method,
    /// The order of a sweep.
    pub order: Order,
    /// Where gradients come from.
    pub gradient: Gradient,
    /// The model of the multinomial loss.
    pub curvature: Curvature,
    /// How the intercept is found.
    pub intercept: Intercept,
    /// Which groups are visited.
    pub screening: Screening,
    /// Iterates that Anderson's extrapolation combines; 0 for none.
    pub anderson: usize,
    /// Proximal steps a group takes on each visit, at least 1.
    pub steps: usize,
    /// Whether columns are centred inside of the solver where an intercept makes that free.
    pub centred: bool,
    /// Whether coefficients are rounded to the precision of f32 until the relative gap falls below 10⁻³.
    pub rough_first: bool,
    /// Whether each point of a path starts from the one before, or from zero.
    pub warm: bool,
    /// Sums over samples.
    pub addition: Addition,
    /// Norms.
    pub norm: Norm,
    /// The proximal operator's formula.
    pub shrink: Shrink,
    /// The selection.
    pub top: Top,
    /// Iterations between two certificates, at least 1.
    pub check: usize,
}

impl Variant {
    /// Cyclic descent on residuals with Anderson's extrapolation: what most of the faulty kernels are built on.
    pub const BASE: Self = Self {
        method: Method::Descent,
        order: Order::Cyclic,
        gradient: Gradient::Residual,
        curvature: Curvature::Greatest,
        intercept: Intercept::Newton,
        screening: Screening::None,
        anderson: 5,
        steps: 1,
        centred: true,
        rough_first: false,
        warm: true,
        addition: Addition::Forward,
        norm: Norm::Scaled,
        shrink: Shrink::Factor,
        top: Top::Sort,
        check: 5,
    };

    /// Whether the numbers of steps and of iterations are at least 1.
    pub(crate) fn is_sound(&self) -> bool {
        self.steps > 0 && self.check > 0
    }
}
