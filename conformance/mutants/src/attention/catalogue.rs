//! The planted bugs. Numbers below 200 follow the project's catalogue of faults; those from 201 were added since.

use crate::attention::Mutant;

/// The part of a kernel a bug lives in.
///
/// ```
/// use tilewright_mutants::attention::{Group, mutants};
/// assert!(mutants().iter().any(|mutant| mutant.group == Group::Backward));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Scores, online softmax, normalisation, LSE.
    Forward,
    /// Gradients.
    Backward,
    /// Split key ranges and their merge.
    Decode,
    /// Which scores enter the softmax: causality, windows, block masks, tile ranges, dropout.
    Mask,
    /// Where tensors are read and written: strides, heads, sequences, pages, scratch memory.
    Layout,
}

macro_rules! catalogue {
    ($($id:literal $fault:ident $name:literal $group:ident $about:literal $trigger:literal)*) => {
        /// A bug that [`Kernel::faulty`](crate::attention::Kernel::faulty) plants where it would live in a real kernel.
        ///
        /// ```
        /// use tilewright_mutants::attention::{Fault, Kernel};
        /// let kernel = Kernel::faulty(Fault::StrictDiagonal);
        /// assert_eq!(kernel.fault(), Some(Fault::StrictDiagonal));
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
    1 OutputNotRescaled "output-not-rescaled" Forward
        "The running output keeps its old scale when the running maximum grows" "scores that ascend across key tiles"
    2 DenominatorNotRescaled "denominator-not-rescaled" Forward
        "The running denominator keeps its old scale when the running maximum grows" "scores that ascend across key tiles"
    3 RescaleSignFlipped "rescale-sign-flipped" Forward
        "Rescaling multiplies by exp(new − old) instead of exp(old − new)" "scores that ascend across key tiles"
    4 RescaleAfterAdding "rescale-after-adding" Forward
        "Rescaling happens after the new tile is added, so the new tile is rescaled too" "scores that ascend across key tiles"
    5 MaximumStartsAtZero "maximum-starts-at-zero" Forward
        "The running maximum starts at 0 instead of −∞" "every score of a row below −110 (f32)"
    6 MaximumStartsFinite "maximum-starts-finite" Forward
        "The running maximum starts at −10000, which becomes the LSE of an empty row" "rows that see no key"
    7 MaximumOfTileOnly "maximum-of-tile-only" Forward
        "The running maximum is replaced by the tile's, even if that is smaller" "scores that fall by more than 90 from a key tile to the next"
    8 MaximumBeforeMask "maximum-before-mask" Forward
        "The maximum is taken before masking, so the visible scores underflow below a masked one" "a masked score more than 110 above the visible ones, in a tile on the diagonal"
    9 NoMaximum "no-maximum" Forward
        "Exponentials are taken without subtracting a maximum" "scores around ±150"
    10 TailKeyDropped "tail-key-dropped" Forward
        "The last key of a partial tile is left out" "a key count that is no multiple of the key tile (16)"
    11 TailPaddedWithZeroScore "tail-padded-with-zero-score" Forward
        "A partial tile is padded with scores of 0 instead of −∞" "a partial key tile, scores not far above 0"
    12 TailCountedInDenominator "tail-counted-in-denominator" Forward
        "Out-of-range lanes of a partial tile repeat the last key, masked in P·V but not in the denominator" "a partial key tile"
    13 SeamKeySkipped "seam-key-skipped" Forward
        "The last key before each tile seam is skipped" "more than one key tile"
    14 SeamKeyTwice "seam-key-twice" Forward
        "The key before each tile seam is counted on both sides" "more than one key tile"
    15 ExactLastTileSkipped "exact-last-tile-skipped" Forward
        "The last tile is skipped when the key count is an exact multiple of the tile" "a key count that is a multiple of 16"
    16 FirstTileTwice "first-tile-twice" Forward
        "The first key tile is processed twice" "any keys"
    17 CausalOtherCorner "causal-other-corner" Mask
        "The causal diagonal runs into the other corner" "causal with different numbers of queries and keys"
    18 StrictDiagonal "strict-diagonal" Mask
        "The causal diagonal itself is masked" "causal"
    19 CausalExitEarly "causal-exit-early" Mask
        "The key loop of a query tile ends at the diagonal of its first row" "causal with several rows in a query tile"
    20 CausalExitIgnoresOffset "causal-exit-ignores-offset" Mask
        "The end of the key loop assumes as many queries as keys" "causal, bottom-right, more keys than queries"
    21 WindowLeftOffByOne "window-left-off-by-one" Mask
        "The window's left side hides one key too many" "a window with a left side"
    22 EmptyRowNan "empty-row-nan" Forward
        "A row that sees no key divides zero by zero" "rows that see no key"
    23 EmptyRowMeanOfValues "empty-row-mean-of-values" Forward
        "Masked scores are a finite −1e9, so an empty row averages the values" "rows that see no key in a query tile that has other rows"
    24 EmptyRowFiniteLse "empty-row-finite-lse" Forward
        "A row that sees no key gets an LSE of 0" "rows that see no key"
    25 BiasInBaseTwoUnits "bias-in-base-two-units" Forward
        "The bias joins scores in base 2 without being converted" "a bias"
    26 ScaleByDimension "scale-by-dimension" Forward
        "Scores are scaled by 1/d" "head_dim above 1, or a scale of one's own"
    27 ScaleFromPaddedDimension "scale-from-padded-dimension" Forward
        "The scale is computed from the head dimension rounded up to a multiple of 8" "head_dim that is no multiple of 8"
    28 ScaleTwice "scale-twice" Forward
        "Queries are scaled, and so are scores" "any scale but 1"
    29 ScaleOnePercentOff "scale-one-percent-off" Forward
        "The scale is 1 % too large" "scores that differ"
    30 Exp2WithoutLog2E "exp2-without-log2e" Forward
        "Base-2 exponentials of natural scores" "scores that differ"
    31 LseBaseTwo "lse-base-two" Forward
        "LSE is a base-2 logarithm" "any row whose LSE is not 0"
    32 LseWithoutMaximum "lse-without-maximum" Forward
        "LSE is the logarithm of the denominator, without the maximum" "scores away from 0"
    33 LseSign "lse-sign" Forward
        "LSE has the wrong sign" "any row whose LSE is not 0"
    34 LseHeadStride "lse-head-stride" Layout
        "LSE of later heads is written as if rows were padded to the query tile" "more than one head, a query count that is no multiple of 16"
    35 SingleTileNotDivided "single-tile-not-divided" Forward
        "Rows with one key tile only are never divided by the denominator" "at most 16 keys"
    36 EpsilonInDenominator "epsilon-in-denominator" Forward
        "O is divided by the denominator plus 1e-3" "rows with one dominant key"
    37 MergeByMaximum "merge-by-maximum" Decode
        "Splits are weighted by their maxima instead of their LSEs" "splits with different numbers of effective keys"
    38 MergeEmptySplitNan "merge-empty-split-nan" Decode
        "A split without visible keys contributes 0/0 with weight 0" "a row that sees keys in some splits only: causal, or few keys"
    39 GqaInterleaved "gqa-interleaved" Layout
        "Query heads take key/value heads in turn instead of in blocks" "grouped queries with at least two key/value heads"
    40 ValueHeadStrideOfKeys "value-head-stride-of-keys" Layout
        "The head stride of V is computed with K's dimension" "value_dim other than head_dim, several key/value heads"
    41 QueryRowStrideAssumed "query-row-stride-assumed" Layout
        "Rows of Q are taken to follow each other" "Q whose rows are further apart than head_dim: a transposed or padded view"
    43 ProbabilitiesInFp8 "probabilities-in-fp8" Forward
        "P is rounded to an 8-bit format before P·V, undeclared" "probabilities that are no powers of two"
    44 OutputInStorage "output-in-storage" Forward
        "The running output is rounded to storage after each tile, undeclared" "16-bit storage, many key tiles"
    45 DenominatorInStorage "denominator-in-storage" Forward
        "The running denominator is rounded to storage after each tile" "16-bit storage, many key tiles"
    46 SoftcapAfterMask "softcap-after-mask" Forward
        "The softcap is applied after the mask and turns −∞ into −c" "softcap with a mask"
    47 DropoutNotScaled "dropout-not-scaled" Mask
        "Kept probabilities are not divided by 1 − p" "dropout"
    48 NoKeysUnwritten "no-keys-unwritten" Layout
        "A sequence without keys returns early and leaves the output's old memory" "a sequence of no keys, output memory that is not zero"
    49 StaleOutputScratch "stale-output-scratch" Layout
        "The running output starts from what the previous call left in scratch memory" "two calls on one kernel"
    50 OutputStagedOverQueries "output-staged-over-queries" Layout
        "The staging buffer of O overlaps the query tile while later key tiles still need it" "more than one key tile"

    51 RowDotOmitted "row-dot-omitted" Backward
        "dS = P∘dP, without D" "gradients of q or k"
    52 RowDotOfNeighbour "row-dot-of-neighbour" Backward
        "D of the next row" "more than one query"
    53 RowDotOfOtherHead "row-dot-of-other-head" Backward
        "D is computed with O of the next head" "more than one query head"
    54 QueryGradientNotScaled "query-gradient-not-scaled" Backward
        "dQ lacks the scale" "any scale but 1"
    55 KeyGradientNotScaled "key-gradient-not-scaled" Backward
        "dK lacks the scale" "any scale but 1"
    56 ValueGradientFromScores "value-gradient-from-scores" Backward
        "dV sums dS instead of P" "gradient of v"
    57 RowDotAdded "row-dot-added" Backward
        "dS = P∘(dP + D)" "gradients of q or k"
    58 BackwardReadsBaseTwoLse "backward-reads-base-two-lse" Backward
        "P is recomputed as if LSE were a base-2 logarithm" "rows whose LSE is not 0"
    59 ValueGradientUnmasked "value-gradient-unmasked" Backward
        "dV takes P of masked scores too" "causal or window"
    60 BackwardUnmasked "backward-unmasked" Backward
        "The backward pass applies no mask" "causal, window or block mask"
    61 LastQueryTileSkipped "last-query-tile-skipped" Backward
        "The partial last query tile never reaches dK and dV" "a query count that is no multiple of 16"
    62 QueryGradientNotZeroed "query-gradient-not-zeroed" Backward
        "dQ is added to whatever its memory held" "gradient memory that is not zero"
    63 QueryGradientUpdateLost "query-gradient-update-lost" Backward
        "One in eight additions of a tile to a row of dQ is lost, as in a race" "at least eight row updates"
    64 GroupGradientOverwritten "group-gradient-overwritten" Backward
        "dK and dV keep the last query head of a group instead of the sum" "grouped queries"
    65 BackwardDropoutShifted "backward-dropout-shifted" Backward
        "The backward pass regenerates the dropout mask one row further" "dropout"
    66 EmptyRowGradientNan "empty-row-gradient-nan" Backward
        "P of an empty row is exp(−∞ − −∞)" "rows that see no key in a query tile that has other rows"
    67 BackwardDiagonalTileDropped "backward-diagonal-tile-dropped" Backward
        "The backward key loop ends before the tile on the diagonal" "causal"
    68 ScoreGradientsInFp8 "score-gradients-in-fp8" Backward
        "dS is rounded to an 8-bit format" "gradients of q or k"
    69 KeyGradientInBf16 "key-gradient-in-bf16" Backward
        "dK is rounded to bf16 after each query tile" "f64, f32 or f16 storage; in bf16, several query tiles"
    70 SoftcapDerivativeMissing "softcap-derivative-missing" Backward
        "dS passes the softcap unchanged" "softcap with scores near it"
    71 ValueGradientDividedAgain "value-gradient-divided-again" Backward
        "dV is divided by the denominator a second time" "rows with more than one effective key"

    201 WindowRightOffByOne "window-right-off-by-one" Mask
        "The window's right side shows one key too many" "a window with a right side"
    202 SoftcapAfterBias "softcap-after-bias" Forward
        "The bias is added before the softcap" "softcap with a bias"
    203 DropoutInDenominator "dropout-in-denominator" Mask
        "The denominator sums dropped-out probabilities" "dropout"
    204 BiasIgnored "bias-ignored" Forward
        "The bias is never added" "a bias"
    205 BiasWrongAxis "bias-wrong-axis" Layout
        "A bias shared by all rows is indexed by the row" "a bias whose row axis has length 1"
    206 BiasOfFirstHead "bias-of-first-head" Layout
        "Every head reads the bias of head 0" "a bias with one slice a head"
    207 BiasOfFirstBatch "bias-of-first-batch" Layout
        "Every sequence reads the bias of sequence 0" "a bias with one slice a sequence"
    208 BiasGradientOverwritten "bias-gradient-overwritten" Backward
        "dBias keeps the last contribution along a broadcast axis instead of the sum" "the gradient of a broadcast bias"
    209 BiasGradientScaled "bias-gradient-scaled" Backward
        "dBias is multiplied by the scale" "the gradient of a bias, any scale but 1"
    210 SinkGradientSign "sink-gradient-sign" Backward
        "dSink has the wrong sign" "the gradient of a sink"
    211 SinkIgnored "sink-ignored" Forward
        "The sink never enters the denominator" "sinks"
    212 SinkInMaximumOnly "sink-in-maximum-only" Forward
        "The sink takes part in the maximum but not in the denominator" "sinks"
    213 SinkOncePerTile "sink-once-per-tile" Forward
        "The sink is added to the denominator once for every key tile" "sinks, more than one key tile"
    214 SinkOfOtherHead "sink-of-other-head" Layout
        "Sinks are indexed by the key/value head" "sinks with grouped queries"
    215 SinkInNumerator "sink-in-numerator" Forward
        "The sink carries the value of the first key" "sinks"
    216 LseWithoutSink "lse-without-sink" Forward
        "LSE leaves the sink out" "sinks"
    217 EmptyRowLosesSink "empty-row-loses-sink" Forward
        "LSE of an empty row is −∞ although there is a sink" "sinks, rows that see no key"
    218 AlibiSign "alibi-sign" Forward
        "ALiBi rewards distance" "ALiBi"
    219 AlibiWithoutOffset "alibi-without-offset" Mask
        "ALiBi measures distance from i, not from i + offset" "ALiBi, bottom-right, non-causal, more keys than queries"
    220 AlibiOfOtherHead "alibi-of-other-head" Layout
        "ALiBi slopes are indexed by the key/value head" "ALiBi with grouped queries"
    221 AlibiSigned "alibi-signed" Forward
        "ALiBi uses the signed distance, so keys after the diagonal gain" "ALiBi without causality"
    222 AlibiScaled "alibi-scaled" Forward
        "ALiBi is multiplied by the scale" "ALiBi, any scale but 1"
    223 BiasScaled "bias-scaled" Forward
        "The bias is multiplied by the scale" "a bias, any scale but 1"
    224 WindowWithoutOffset "window-without-offset" Mask
        "The window follows the top-left diagonal" "window, bottom-right, different numbers of queries and keys"
    225 WindowByTile "window-by-tile" Mask
        "The window selects tiles but masks no entry within them" "window narrower than the keys, several rows in a query tile"
    226 WindowStartRoundedUp "window-start-rounded-up" Mask
        "The first key tile of a window is rounded up" "window with a left side, more keys than a tile"
    227 DropoutByTileCoordinates "dropout-by-tile-coordinates" Mask
        "The dropout mask is keyed by coordinates within the tile" "dropout, more than one tile"
    228 DropoutSameForHeads "dropout-same-for-heads" Mask
        "Every head uses the dropout mask of head 0" "dropout, more than one head"
    229 DropoutComplement "dropout-complement" Mask
        "Dropout keeps what it should drop" "dropout"
    230 LastPartialPage "last-partial-page" Layout
        "The last, partial page of a sequence is read from the page before it" "pages, a length that is no multiple of the page size"
    231 PageTableOfNeighbour "page-table-of-neighbour" Layout
        "Pages are looked up in the next sequence's row of the table" "pages, several sequences"
    232 SharedPageOverwritten "shared-page-overwritten" Backward
        "Gradients of a page shared by two sequences keep the last one's instead of the sum" "pages shared between sequences"
    233 LengthsIgnored "lengths-ignored" Layout
        "Key lengths are ignored, padding is attended to" "padded keys with lengths (NaN in the padding shows at once)"
    234 PageLengthRoundedUp "page-length-rounded-up" Layout
        "The last page of a sequence is read to its end" "pages, a length that is no multiple of the page size"
    235 QueryOffsetsOffByOne "query-offsets-off-by-one" Layout
        "Queries of packed sequences start one row early" "packed queries, more than one sequence"
    236 KeyOffsetsOffByOne "key-offsets-off-by-one" Layout
        "Keys of packed sequences start one row early" "packed keys, more than one sequence"
    237 PackedLseRow "packed-lse-row" Layout
        "LSE of packed sequences is written as if each had the longest's rows" "packed queries of different lengths"
    238 KeysOfFirstBatch "keys-of-first-batch" Layout
        "Every sequence reads the keys of sequence 0" "padded keys, more than one sequence"
    239 BlockMaskTransposed "block-mask-transposed" Mask
        "Rows and columns of the block mask are swapped" "an asymmetric block mask"
    240 BlockMaskOfFirstBatch "block-mask-of-first-batch" Mask
        "Every sequence uses the block mask of sequence 0" "a block mask with one slice a sequence"
    241 BlockMaskOfFirstHead "block-mask-of-first-head" Mask
        "Every head uses the block mask of head 0" "a block mask with one slice a head"
    242 BlockMaskSizesSwapped "block-mask-sizes-swapped" Mask
        "Block indices are computed with the two block sizes swapped" "a block mask with block_q other than block_k"
    243 LseGradientIgnored "lse-gradient-ignored" Backward
        "dLSE never enters dS" "a gradient into LSE"
    244 LseGradientSign "lse-gradient-sign" Backward
        "dLSE enters dS with the wrong sign" "a gradient into LSE"
    245 GroupLastHeadDropped "group-last-head-dropped" Backward
        "The last query head of a group does not reach dK" "grouped queries"
    246 Log2EInF16 "log2e-in-f16" Forward
        "log2 e is rounded to f16" "scores spread over several units"
    247 ExpRipple "exp-ripple" Forward
        "exp is off by up to 0.1 %, periodically" "scores that differ"
    248 ProbabilitiesTruncated "probabilities-truncated" Forward
        "P is truncated to storage instead of rounded" "16-bit storage, many keys of equal weight; a bias test sees it best"
    249 LseInBf16 "lse-in-bf16" Forward
        "LSE is rounded to bf16" "any row whose LSE needs more than 8 bits"
    250 RowDotMissesColumn "row-dot-misses-column" Backward
        "D leaves out the last column" "gradients of q or k"
    251 RowDotOfFirstBatch "row-dot-of-first-batch" Backward
        "D is computed with O of sequence 0" "more than one padded sequence"
    252 DotTailDropped "dot-tail-dropped" Layout
        "q·k leaves out the columns after the last multiple of 8" "head_dim that is no multiple of 8"
    253 ValueTailUnwritten "value-tail-unwritten" Layout
        "Columns of O after the last multiple of 8 are never written" "value_dim that is no multiple of 8, output memory that is not zero"
    254 NotDeterministic "not-deterministic" Forward
        "Key tiles are summed in an order that depends on how often the kernel ran" "two calls compared bit by bit, more than one key tile"
    255 LastRowUnwritten "last-row-unwritten" Layout
        "The last row of O is never written" "output memory that is not zero"
    256 LseTailUnwritten "lse-tail-unwritten" Layout
        "LSE of a partial query tile is never written" "a query count that is no multiple of 16, output memory that is not zero"
    257 KeysAssumedContiguous "keys-assumed-contiguous" Layout
        "K is read as if it were in standard layout" "K that is a transposed view, several heads"
    258 KeyGradientScaledTwice "key-gradient-scaled-twice" Backward
        "dK sums scaled queries and is scaled again" "any scale but 1"
    259 DropoutMissingInBackward "dropout-missing-in-backward" Backward
        "dP is not multiplied by the dropout mask" "dropout"
    260 ValueGradientWithoutDropout "value-gradient-without-dropout" Backward
        "dV sums P instead of Z∘P" "dropout"
    261 SinkGradientOverwritten "sink-gradient-overwritten" Backward
        "dSink keeps the last row instead of the sum" "the gradient of a sink, more than one query"
    262 BackwardGqaInterleaved "backward-gqa-interleaved" Backward
        "The backward pass alone takes key/value heads in turn" "grouped queries with at least two key/value heads"
    263 BackwardOtherCorner "backward-other-corner" Backward
        "The backward pass alone uses the other causal corner" "causal with different numbers of queries and keys"
    264 PaddingGradientUnwritten "padding-gradient-unwritten" Backward
        "Rows of dK and dV beyond a sequence's length are never written" "padded keys with lengths, gradient memory that is not zero"
    265 MergeEqualWeights "merge-equal-weights" Decode
        "Splits are averaged" "splits of unequal weight"
    266 MergeLseMaximum "merge-lse-maximum" Decode
        "The merged LSE is the largest of the splits'" "more than one split with visible keys"
    267 MergeLastSplitDropped "merge-last-split-dropped" Decode
        "The last split never reaches the merge" "more than one split"
    268 MergeSinkPerSplit "merge-sink-per-split" Decode
        "Every split adds the sink" "sinks, more than one split"
    269 SplitBoundaryTwice "split-boundary-twice" Decode
        "The key before a split boundary belongs to both splits" "more than one split"
    270 DecodeTopLeft "decode-top-left" Decode
        "A single query is taken to stand at position 0" "causal, bottom-right, one query, several keys"
    271 MergeWeightsNotShifted "merge-weights-not-shifted" Decode
        "Merge weights are exp(LSE) without subtracting the largest" "scores around ±150"
    272 SplitEndRoundedDown "split-end-rounded-down" Decode
        "Splits hold ⌊keys / splits⌋ keys and the remainder is lost" "a key count that is no multiple of the splits"
    274 PaddingValueTimesZero "padding-value-times-zero" Layout
        "Values beyond the length take part in P·V of a partial tile with weight 0" "padded keys with lengths, NaN in the padding"
    275 OffsetFromPaddedLength "offset-from-padded-length" Mask
        "The diagonal of a sequence is computed from the longest lengths" "bottom-right causal or window, sequences of different lengths"
    276 OffsetUnsigned "offset-unsigned" Mask
        "A negative offset is clamped to 0" "bottom-right causal or window, fewer keys than queries"
    277 SoftcapNotDivided "softcap-not-divided" Forward
        "The softcap is c · tanh(s)" "softcap other than 1"
    278 ScaleAfterSoftcap "scale-after-softcap" Forward
        "Scores are capped before they are scaled" "softcap with scores near it, any scale but 1"
}
