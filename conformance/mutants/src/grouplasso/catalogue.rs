//! The planted bugs. Numbers below 200 follow the project's catalogue of faults; those from 501 were added since.

use crate::grouplasso::Mutant;

/// The part of the family a bug lives in.
///
/// ```
/// use tilewright_mutants::grouplasso::{Group, mutants};
/// assert!(mutants().iter().any(|mutant| mutant.group == Group::Certificate));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// The proximal operator of a block.
    Prox,
    /// Which rows belong together, what they weigh and pay.
    Groups,
    /// What is refused.
    Input,
    /// What is minimised: weights, targets, columns, intercept.
    Model,
    /// How it is minimised.
    Solver,
    /// Which groups are left out.
    Screening,
    /// What is proven.
    Certificate,
    /// When a solve stops, what it says, paths.
    Protocol,
    /// Scores and the features kept.
    Selection,
}

macro_rules! catalogue {
    ($($id:literal $fault:ident $name:literal $group:ident $about:literal $trigger:literal)*) => {
        /// A bug that [`Kernel::faulty`](crate::grouplasso::Kernel::faulty) plants where it would live in a real kernel.
        ///
        /// ```
        /// use tilewright_mutants::grouplasso::{Fault, Kernel};
        /// assert_eq!(Kernel::faulty(Fault::DualNotScaled).fault(), Some(Fault::DualNotScaled));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = concat!($about, ".")] $fault,)*
        }

        pub(crate) static MUTANTS: &[Mutant] = &[
            $(Mutant { id: $id, name: $name, group: Group::$group, fault: Fault::$fault, about: $about, trigger: $trigger },)*
        ];
    };
}

catalogue! {
    86 ThresholdWithoutStep "threshold-without-step" Prox
        "A group's norm is compared with λ w instead of the step times that" "a step other than 1"
    87 WeightMissing "weight-missing" Groups
        "Groups weigh 1 instead of the square root of their size" "groups of several features with default weights"
    88 WeightIsSize "weight-is-size" Groups
        "Groups weigh their size instead of its square root" "groups of several features with default weights"
    89 SquaredNorm "squared-norm" Prox
        "The squared norm is compared with the threshold" "a norm below 1 between the threshold and its square root"
    90 TieUntouched "tie-untouched" Prox
        "A norm equal to the threshold leaves the block as it is" "a norm equal to its threshold"
    91 ZeroByZero "zero-by-zero" Prox
        "A zero block under a threshold of 0 is divided by its norm" "a zero block of a free group, or λ = 0"
    92 NotClamped "not-clamped" Prox
        "The factor of a norm below the threshold is negative instead of 0" "a block below its threshold, not zero"
    93 EachEntryItsGroup "each-entry-its-group" Prox
        "Each entry is shrunk by itself" "blocks of several entries"
    94 LastEntryUnshrunk "last-entry-unshrunk" Prox
        "The last entry of a block is not shrunk" "a block above its threshold"
    95 LastGroupFull "last-group-full" Groups
        "The last group is taken to be as long as the first, and reaches into its neighbour" "consecutive groups, the last shorter than the first"
    96 EqualSizes "equal-sizes" Groups
        "Boundaries are computed as if all groups were of one size" "consecutive groups of several sizes"
    97 NormNarrow "norm-narrow" Prox
        "Norms are accumulated in a format narrower than the data's" "a norm of several entries, looked at closely"
    98 NormUnscaled "norm-unscaled" Prox
        "Norms are sums of squares in the data's format, which overflow and vanish" "entries above the root of the greatest number, or below that of the least"
    99 NormAfterShrink "norm-after-shrink" Prox
        "The norm is taken anew from a block half of which is shrunk" "a block of several entries above its threshold"
    100 ProxTwice "prox-twice" Prox
        "The proximal operator is applied twice" "a block above its threshold"
    101 TailLeft "tail-left" Prox
        "A block that becomes zero keeps its last entry" "a block of several entries below its threshold"
    102 EntriesWithoutStep "entries-without-step" Prox
        "The entries' threshold and the ridge lack the step" "the sparse group or elastic net, a step other than 1"
    103 MaxNorm "max-norm" Prox
        "The greatest magnitude stands for the norm" "blocks of several entries"
    104 ColumnsAreGroups "columns-are-groups" Prox
        "Columns of the matrix are shrunk instead of rows" "rows as groups, several rows and outputs"
    105 CountRounded "count-rounded" Selection
        "The kept share is rounded to the nearest count instead of down" "a fraction times the features with a part of one half or more"
    106 TiesToLast "ties-to-last" Selection
        "Of equal scores the last index is kept" "equal scores at the cut"
    107 NanScoreFirst "nan-score-first" Selection
        "A score that is NaN is no error: it ranks first" "a score that is NaN"
    501 SumNorm "sum-norm" Prox
        "The sum of magnitudes stands for the norm" "blocks of several entries"
    502 EachOutputItsGroup "each-output-its-group" Prox
        "Each output of a group is shrunk by itself" "several outputs"
    503 SoftSignMissing "soft-sign-missing" Prox
        "Soft thresholding subtracts from negative entries too" "the sparse group, negative entries"
    504 GroupBeforeEntries "group-before-entries" Prox
        "The sparse group's block is shrunk before its entries" "the sparse group with both terms"
    505 RidgeFirst "ridge-first" Prox
        "The ridge divides before the threshold instead of after" "the elastic net with both terms"
    506 RidgeNotDivided "ridge-not-divided" Prox
        "The proximal operator forgets the ridge's division" "the elastic net with a ridge"
    507 NanIsZero "nan-is-zero" Prox
        "A block with a NaN becomes zero" "NaN in a block"
    508 StepUnchecked "step-unchecked" Prox
        "Steps that are negative, zero or NaN are taken" "a step that is no positive number"
    509 RefusedTooLate "refused-too-late" Prox
        "What is refused has been overwritten" "a refused proximal operator, w not zero"

    520 OnesAreRoots "ones-are-roots" Groups
        "Weights of 1 are replaced by the default" "groups of several features of weight 1"
    521 FreeGroupPays "free-group-pays" Groups
        "A given weight of 0 is taken for 1" "a group of weight 0"
    522 GivenWeightsByRoot "given-weights-by-root" Groups
        "Given weights are multiplied by the default ones" "given weights, groups of several features"
    523 GivenWeightsShifted "given-weights-shifted" Groups
        "Each group has its neighbour's weight" "given weights that differ"
    524 FreeGroupsSparse "free-groups-sparse" Groups
        "Entries of a free group pay the sparse term" "the sparse group with a group of weight 0"
    525 ListsConsecutive "lists-consecutive" Groups
        "Listed groups are laid out one after the other, whatever features they list" "listed groups that are not in order"
    526 ListsUntilLast "lists-until-last" Groups
        "A listed group holds all features between its first and last" "a listed group with a gap"
    527 BoundaryShared "boundary-shared" Groups
        "A group begins with the last feature of the one before" "consecutive groups"
    528 CopyIsFeature "copy-is-feature" Groups
        "A copy multiplies the feature of its own number" "overlapping groups"
    529 SecondCopyMissing "second-copy-missing" Groups
        "Only the first copy of a feature multiplies it" "overlapping groups"
    530 TauSwapped "tau-swapped" Groups
        "τ and 1 − τ are swapped" "the sparse group, τ other than one half"
    531 SparseTermMissing "sparse-term-missing" Groups
        "The sparse group's entries pay nothing" "the sparse group"
    532 SparseTermWeighted "sparse-term-weighted" Groups
        "The sparse term is multiplied by the group's weight" "the sparse group, weights other than 1"
    533 GroupTermUndivided "group-term-undivided" Groups
        "The sparse group's norm pays λ w instead of (1 − τ) of it" "the sparse group"
    534 AlphaSwapped "alpha-swapped" Groups
        "α and 1 − α are swapped" "the elastic net, α other than one half"
    535 RidgeMissing "ridge-missing" Groups
        "The elastic net has no ridge" "the elastic net"
    536 RidgeUnweighted "ridge-unweighted" Groups
        "The ridge is not multiplied by the group's weight" "the elastic net, weights other than 1"
    537 RidgeNotHalved "ridge-not-halved" Groups
        "The ridge pays the squared norm instead of half of it" "the elastic net"

    550 NanTaken "nan-taken" Input
        "Features are not looked at: NaN is taken" "NaN in X"
    551 InfinityTaken "infinity-taken" Input
        "Features are checked for NaN only" "an infinite feature"
    552 FirstSampleChecked "first-sample-checked" Input
        "Only the first sample's features are checked" "NaN in another sample than the first"
    553 NanTargetTaken "nan-target-taken" Input
        "Targets that are not finite are taken" "NaN among the targets"
    554 LabelOutOfRangeTaken "label-out-of-range-taken" Input
        "A label beyond the classes is taken for the last class" "a label out of range"
    555 NegativeSamplesTaken "negative-samples-taken" Input
        "Negative sample weights are taken" "a negative sample weight"
    556 NoWeightTaken "no-weight-taken" Input
        "Sample weights that are all zero are taken" "sample weights that are all zero"
    557 NegativeLambdaTaken "negative-lambda-taken" Input
        "λ is not checked" "a negative λ"
    558 MixtureUnchecked "mixture-unchecked" Input
        "τ and α are not checked" "τ or α above 1 or below 0"
    559 GroupWeightsUnchecked "group-weights-unchecked" Input
        "Negative weights of groups are taken" "a negative weight of a group"
    560 GroupsMayMiss "groups-may-miss" Input
        "A feature may be in no group" "listed groups that miss a feature"
    561 GroupsMayOverlap "groups-may-overlap" Input
        "A feature may be in two groups of a partition" "listed groups that overlap"
    562 GapUnchecked "gap-unchecked" Input
        "The gap asked for is not checked" "a gap of 0 or NaN"
    563 StartUnchecked "start-unchecked" Input
        "A start of the wrong shape, or with NaN, is taken" "a start that does not fit"

    570 SampleWeightsIgnored "sample-weights-ignored" Model
        "Sample weights are ignored" "sample weights that differ"
    571 SampleWeightsSquared "sample-weights-squared" Model
        "Sample weights are squared" "sample weights that differ"
    572 WeightsNotNormalised "weights-not-normalised" Model
        "Sample weights are divided by n instead of their sum" "sample weights that do not sum to n"
    573 ZeroWeightIsOne "zero-weight-is-one" Model
        "A sample weight of 0 is taken for 1" "a sample weight of 0"
    574 WeightSumOverflows "weight-sum-overflows" Model
        "The sum of huge sample weights overflows" "sample weights near the greatest number"
    575 LastSampleDropped "last-sample-dropped" Model
        "The last sample does not count" "any problem"
    576 LastFeatureMissing "last-feature-missing" Model
        "The last feature is not read" "a last feature that matters"
    577 OutputsSwapped "outputs-swapped" Model
        "The first and the last output's targets are swapped" "least squares, several outputs"
    578 TargetsByOutput "targets-by-output" Model
        "Targets of a row-major matrix are read as if column-major" "least squares, several outputs"
    579 LabelsFromOne "labels-from-one" Model
        "Labels are taken to begin at 1" "the multinomial loss"
    580 DuplicateIsOne "duplicate-is-one" Model
        "A column that repeats an earlier one is dropped" "a repeated column inside of a group"
    581 PenaltyDoubled "penalty-doubled" Model
        "λ counts twice, as where the loss is halved in the gradient only" "any penalty"
    582 LossNotHalved "loss-not-halved" Model
        "The loss is the squared distance instead of half of it" "any penalty"
    583 LossSummed "loss-summed" Model
        "The loss is a sum over the samples instead of a mean" "any penalty, several samples"
    584 LossPerOutput "loss-per-output" Model
        "The loss is divided by the number of outputs" "several outputs"
    585 LambdaZeroEmpty "lambda-zero-empty" Model
        "λ = 0 leaves the null model" "λ = 0"
    586 InterceptDropped "intercept-dropped" Model
        "There is never an intercept" "an intercept"
    587 InterceptAnyway "intercept-anyway" Model
        "There is always an intercept" "no intercept, targets that want one"
    588 InterceptPenalised "intercept-penalised" Model
        "The intercept is shrunk by λ" "an intercept other than 0"
    589 InterceptOfNull "intercept-of-null" Model
        "The intercept stays that of the null model" "the multinomial loss, or columns that are not centred"
    590 InterceptOfCentred "intercept-of-centred" Model
        "The intercept is that of centred columns" "an intercept, columns with means"
    591 AbsentFinite "absent-finite" Model
        "A class without samples has a finite intercept" "a class without samples, an intercept"
    592 AbsentNan "absent-nan" Model
        "A class without samples makes NaN" "a class without samples, an intercept"
    593 AbsentByCount "absent-by-count" Model
        "A class counts as present if all of its samples weigh 0" "a class whose samples all weigh 0"
    594 AbsentKeepsStart "absent-keeps-start" Model
        "The coefficients of a class without samples stay those of the start" "a start with coefficients of a class without samples"
    595 SoftmaxUnshifted "softmax-unshifted" Model
        "Softmax does not subtract the greatest logit" "logits above 88 in f32 or 709 in f64, as after a far start"
    596 MeanUnweighted "mean-unweighted" Model
        "Means of columns ignore the sample weights" "centring or scaling, sample weights that differ"
    597 DeviationUnweighted "deviation-unweighted" Model
        "Deviations of columns ignore the sample weights" "scaling, sample weights that differ"
    598 DeviationAroundZero "deviation-around-zero" Model
        "Columns are divided by their root mean square" "scaling, columns with means"
    599 DivisorLessOne "divisor-less-one" Model
        "The deviation's divisor is n − 1" "scaling"
    600 VarianceCancels "variance-cancels" Model
        "The variance is the mean square less the squared mean" "scaling, means far above deviations"
    601 ConstantDivided "constant-divided" Model
        "A constant column is divided by the rounding error of its deviation" "scaling, a constant column whose mean is rounded"
    602 SmallIsConstant "small-is-constant" Model
        "A deviation of less than a millionth counts as 0" "scaling, columns of tiny numbers"
    603 DividedByVariance "divided-by-variance" Model
        "Columns are divided by their variance" "scaling"
    604 ScaleCentres "scale-centres" Model
        "Scaling subtracts the mean too" "scaling without centring"
    605 ScalesNotReported "scales-not-reported" Model
        "The answer says that columns were not scaled" "scaling"
    606 RawCoefficients "raw-coefficients" Model
        "Coefficients are those of raw columns" "scaling"
    607 InterceptRaw "intercept-raw" Model
        "The intercept is that of raw columns" "centring, an intercept"

    620 CurvatureOfColumns "curvature-of-columns" Solver
        "A group's step follows from its longest column" "groups of several correlated columns"
    621 CurvatureMean "curvature-mean" Solver
        "A step is twice as long as the curvature allows" "any problem"
    622 CurvatureQuartered "curvature-quartered" Solver
        "The curvature of softmax is halved twice, as if of one of two classes in half of a squared distance" "the multinomial loss, two classes that are hard to tell apart"
    623 NewtonUnchecked "newton-unchecked" Solver
        "An estimated curvature is not checked: Newton's method without a safeguard" "the multinomial loss, a start far from the minimum"
    624 FirstRowNeverUpdated "first-row-never-updated" Solver
        "The first row of a group is never updated" "groups of several features"
    625 LastGroupNeverVisited "last-group-never-visited" Solver
        "The sweep ends one group early" "a last group that is active"
    626 ResidualGrows "residual-grows" Solver
        "The residual is updated with the wrong sign" "any problem with several active groups"
    627 ExtrapolationUnchecked "extrapolation-unchecked" Solver
        "Extrapolated coefficients are taken even if the objective rises" "a support that still changes"
    628 ExtrapolatedLogitsStale "extrapolated-logits-stale" Solver
        "After an extrapolation the model's values are those before it" "more than a few sweeps"
    629 StaleIntercept "stale-intercept" Solver
        "The intercept returned is not the one that was certified, but that of the sweep before" "an intercept, a loose gap"
    630 CoefficientsInF32 "coefficients-in-f32" Solver
        "Coefficients are returned in f32" "a gap near the precision of f32"
    631 TinyRowsCut "tiny-rows-cut" Solver
        "Coefficients below a thousandth are cut" "small coefficients"
    632 LastNotBest "last-not-best" Solver
        "The certificate is the best one's, the coefficients are the last ones" "a limit of iterations just after the gap has risen"
    633 StartIgnored "start-ignored" Solver
        "A start's coefficients are ignored" "a start, few iterations"
    634 StartInterceptIgnored "start-intercept-ignored" Solver
        "A start's intercept is ignored" "a start, no iterations"
    635 PathKeepsLogits "path-keeps-logits" Solver
        "The next λ starts at zero with the model's values of the last" "a path"

    650 RadiusMissing "radius-missing" Screening
        "Groups are dropped for good whose correlation is below the threshold so far" "groups that become active late"
    651 RadiusIsGap "radius-is-gap" Screening
        "The sphere's radius is the gap instead of its root" "groups that become active late"
    653 SphereSizeMissing "sphere-size-missing" Screening
        "The sphere's radius is not multiplied by the length of a group's columns" "long columns, groups that become active late"
    654 ViolationsUnchecked "violations-unchecked" Screening
        "The working set of the start is never enlarged" "groups that become active late"
    655 StrongAtPrevious "strong-at-previous" Screening
        "The strong rule compares with λ instead of 2λ − λ before, unchecked" "a path with groups that become active late"

    670 CertificateOfKept "certificate-of-kept" Certificate
        "Only groups of the working set are certified, and it never grows" "groups that become active late"
    671 StaleCorrelations "stale-correlations" Certificate
        "Correlations are those of the residual a certificate ago" "a loose gap"
    672 DualNotScaled "dual-not-scaled" Certificate
        "The residual is not scaled to a dual point" "a gap above rounding"
    673 DualScaleAboveOne "dual-scale-above-one" Certificate
        "The dual point is scaled up to the boundary whatever the loss" "λ above λ_max"
    674 BestScaleUnlimited "best-scale-unlimited" Certificate
        "The best multiple of the residual need not be feasible" "least squares, a loose gap"
    675 DualNormUnweighted "dual-norm-unweighted" Certificate
        "Feasibility ignores the groups' weights" "weights other than 1"
    676 DualNormOfEntries "dual-norm-of-entries" Certificate
        "The sparse group's dual norm is that of a ball" "the sparse group"
    677 DualNormOfActive "dual-norm-of-active" Certificate
        "Feasibility is asked of active groups only" "groups that become active late"
    678 DualNormLastGroup "dual-norm-last-group" Certificate
        "The greatest dual norm is that of the last group" "several groups"
    679 ConjugateMissing "conjugate-missing" Certificate
        "The dual lacks the conjugate of the elastic net" "the elastic net"
    680 FreeGroupsUncertified "free-groups-uncertified" Certificate
        "What free groups could still gain is not counted" "free groups, or λ = 0"
    681 LeftoverUncertified "leftover-uncertified" Certificate
        "What the intercept could still gain is not counted" "a start whose intercept is not optimal, no iterations"
    682 RidgeNotInObjective "ridge-not-in-objective" Certificate
        "The objective lacks the ridge" "the elastic net"
    683 ObjectiveIsLoss "objective-is-loss" Certificate
        "The objective lacks the penalty" "any active group"
    684 DualNotHalved "dual-not-halved" Certificate
        "The dual function of least squares subtracts a quarter of the squares" "least squares"
    685 EntropyInBits "entropy-in-bits" Certificate
        "The entropies of the multinomial dual are in bits" "the multinomial loss"
    686 CertificateInF32 "certificate-in-f32" Certificate
        "The certificate is computed in f32" "a gap near the precision of f32"
    687 UnitWithoutIntercept "unit-without-intercept" Certificate
        "The unit of the gap is the objective without an intercept" "targets with means, or unequal classes"
    688 UnitIsSum "unit-is-sum" Certificate
        "The unit of the gap is a sum over the samples" "any problem of several samples"
    689 ActiveCountsRows "active-counts-rows" Certificate
        "Rows are counted instead of groups" "active groups of several features"
    690 ActiveCountsKept "active-counts-kept" Certificate
        "Groups that are kept count as active" "groups that are zero"
    691 KktSign "kkt-sign" Certificate
        "The optimality conditions are checked with the wrong sign" "any active group"
    692 KktOfActive "kkt-of-active" Certificate
        "The optimality conditions of zero groups are not checked" "zero groups that should be active, no iterations"

    700 AbsoluteGap "absolute-gap" Protocol
        "The gap asked for is compared with the absolute one" "an objective far from 1"
    701 GapByRoot "gap-by-root" Protocol
        "The gap is compared with the root of the one asked for" "any problem"
    702 KktForGap "kkt-for-gap" Protocol
        "The optimality conditions stand for the gap" "targets or columns far from 1"
    703 StopsOnObjective "stops-on-objective" Protocol
        "A small change of the objective counts as convergence" "slow convergence"
    704 StopsOnStep "stops-on-step" Protocol
        "A short step counts as convergence" "slow convergence, small coefficients"
    705 IterationLimitIgnored "iteration-limit-ignored" Protocol
        "The limit of iterations is ignored" "a limit below what is needed"
    706 LimitIsSuccess "limit-is-success" Protocol
        "Used-up iterations count as success" "a limit below what is needed"
    707 StallIsSuccess "stall-is-success" Protocol
        "A stall counts as success" "a gap beyond rounding"
    708 InterruptionIgnored "interruption-ignored" Protocol
        "Whoever watches is not listened to" "an interruption"
    709 InterruptionIsSuccess "interruption-is-success" Protocol
        "An interruption counts as success" "an interruption"
    710 InterruptionLosesState "interruption-loses-state" Protocol
        "An interrupted solve returns its start" "an interruption after some certificates"
    711 IterationsAreChecks "iterations-are-checks" Protocol
        "Certificates are counted instead of iterations" "a limit of iterations that is used up"
    712 PathLambdaLate "path-lambda-late" Protocol
        "Each point of a path is solved at the λ before" "a path"
    713 PathUsesOwnLambda "path-uses-own-lambda" Protocol
        "Each point of a path is solved at the specification's λ" "a path"
    714 PathGoesOn "path-goes-on" Protocol
        "A path goes on after an interruption" "an interrupted path"
    715 InterruptedPointLost "interrupted-point-lost" Protocol
        "The unfinished point of an interrupted path is not returned" "an interrupted path"
    716 PointNotReported "point-not-reported" Protocol
        "Progress along a path is reported as that of its first point" "a path"

    730 CountCeiled "count-ceiled" Selection
        "The kept share is rounded up" "a fraction times the features that is not whole"
    731 CountInF32 "count-in-f32" Selection
        "The kept share is computed in f32" "a fraction times the features just below a whole number"
    732 CountMayBeZero "count-may-be-zero" Selection
        "A small share keeps nothing" "a fraction of less than one feature"
    733 CountOfNonzeros "count-of-nonzeros" Selection
        "The share is one of the scores that are not zero" "a fraction, scores of 0"
    734 OneMoreKept "one-more-kept" Selection
        "One feature more is kept" "fewer features kept than there are"
    735 FractionUnchecked "fraction-unchecked" Selection
        "A share that is 0, negative or NaN is taken" "a fraction out of its range"
    736 LeastKept "least-kept" Selection
        "The least scores are kept" "scores that differ"
    737 OrderOfScores "order-of-scores" Selection
        "Indices come in the order of scores" "scores that do not fall"
    738 ComparedInBf16 "compared-in-bf16" Selection
        "Scores are compared in bfloat16" "close scores"
    739 ScoresTruncated "scores-truncated" Selection
        "Scores are compared in millionths" "tiny scores"
    740 ScoresSquared "scores-squared" Selection
        "Scores are squared norms" "scores other than 0 and 1"
    741 ScoresOfMagnitudes "scores-of-magnitudes" Selection
        "Scores are sums of magnitudes" "rows with several entries"
    742 ScoresOfGreatest "scores-of-greatest" Selection
        "Scores are greatest magnitudes" "rows with several entries"
    743 ScoresSigned "scores-signed" Selection
        "Scores are sums of entries" "rows with negative entries"
    744 ScoresAveraged "scores-averaged" Selection
        "Scores are root mean squares" "several outputs"
    745 ScoresInBf16 "scores-in-bf16" Selection
        "Scores are rounded to bfloat16" "scores of more than 8 bits"
    746 ScoresLastOutputMissing "scores-last-output-missing" Selection
        "The last output does not enter the scores" "a last output that matters"
}
