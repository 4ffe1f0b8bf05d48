//! The planted bugs. Numbers below 200 follow the project's catalogue of faults; those from 301 were added since.

use crate::compression::Mutant;

/// The part of a compressor a bug lives in.
///
/// ```
/// use tilewright_mutants::compression::{Group, mutants};
/// assert!(mutants().iter().any(|mutant| mutant.group == Group::Decode));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// What is refused, and what is left untouched then.
    Refusal,
    /// How a gradient enters velocity and momentum, and what leaves them.
    Memory,
    /// Candidates: top-k, thresholds, samples, random choice.
    Selection,
    /// The hash table and its seeds.
    Table,
    /// The words of a message: order, indices, values.
    Message,
    /// Adding up messages.
    Decode,
}

macro_rules! catalogue {
    ($($id:literal $fault:ident $name:literal $group:ident $about:literal $trigger:literal)*) => {
        /// A bug that [`Kernel::faulty`](crate::compression::Kernel::faulty) plants where it would live in a real
        /// kernel.
        ///
        /// ```
        /// use tilewright_mutants::compression::{Fault, Kernel};
        /// assert_eq!(Kernel::faulty(Fault::LoserCleared).fault(), Some(Fault::LoserCleared));
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
    108 EmptySlotsSent "empty-slots-sent" Table
        "Empty slots are sent too, as index 0" "a hash table with an empty slot"
    109 IndexZeroEmpty "index-zero-empty" Table
        "A slot that holds index 0 passes for empty, so element 0 is never sent" "a hash table that element 0 wins a slot of"
    110 SecondRankTwice "second-rank-twice" Decode
        "What a second rank sends of an index is added twice" "two ranks that send the same index"
    111 LoserCleared "loser-cleared" Table
        "The loser of a collision is cleared from the memory although it was not sent" "a collision, with a memory"
    112 WinnerKept "winner-kept" Memory
        "What was sent stays in the residual" "a memory"
    113 ResidualDropped "residual-dropped" Memory
        "The residual of the step before is dropped: v holds this gradient only" "a second step with a residual"
    114 ResidualTwice "residual-twice" Memory
        "The residual is added before the selection and once more to what stays" "a second step with a residual that is not sent"
    115 StrictThreshold "strict-threshold" Selection
        "Magnitudes must exceed the threshold instead of reaching it" "an entry at the threshold, as the sample's own"
    116 SignedThreshold "signed-threshold" Selection
        "The threshold is compared with the value instead of its magnitude" "a negative entry above the threshold"
    117 NanBelowThreshold "nan-below-threshold" Selection
        "The comparison with the threshold is false for NaN, so NaN is never selected" "NaN and a threshold"
    118 HashOfValue "hash-of-value" Table
        "The value's bits are hashed instead of the index" "a hash table of several slots"
    119 SignedSlot "signed-slot" Table
        "The hash is signed: half of the slots are negative, and what belongs there is lost" "a hash table"
    120 MaskedSlot "masked-slot" Table
        "The slot is masked with the number of slots less 1, which need not be a power of two" "a number of slots that is no power of two"
    121 SameSeedEveryStep "same-seed-every-step" Table
        "The seeds do not depend on the step, so the same pairs collide for ever" "a step other than 0, with anything random"
    122 SeedOfRank "seed-of-rank" Table
        "Each rank has seeds of its own" "anything random"
    123 IndexTruncated "index-truncated" Message
        "Indices are sent in 16 bits" "an index above 65535"
    124 SampleOffsetWraps "sample-offset-wraps" Selection
        "Offsets in the sample are computed in 16 bits (as 32 would wrap in a tensor of four billion)" "a sampled threshold on more than 65536 entries"
    125 SampleRankOfWhole "sample-rank-of-whole" Selection
        "The cut of the sample is at the k of the whole" "a sample smaller than the bucket"
    126 OverflowLost "overflow-lost" Selection
        "What passes a sampled threshold beyond k entries is cut off, and cleared from the memory" "more than k entries above a sampled threshold"
    127 TopKStrict "top-k-strict" Selection
        "Top-k takes what exceeds the k-th magnitude: of equal magnitudes nothing" "top-k, above all of equal magnitudes"
    128 DecodeOntoOld "decode-onto-old" Decode
        "Messages are added to what the output held before" "an output that is not zero before"
    129 RoundingForgotten "rounding-forgotten" Memory
        "Values are rounded on the wire, but the residual is that of exact values: 0" "a 16-bit wire, with a memory"
    130 MeanTwice "mean-twice" Decode
        "The sum is divided by the number of ranks twice" "a mean of several ranks"
    131 SlotsOfCandidates "slots-of-candidates" Table
        "Slots are counted for each candidate found instead of each entry aimed at" "slots per entry, and a threshold that passes more or fewer than k"
    132 RaceUnderLargest "race-under-largest" Table
        "Anyone may win a collision although the greatest magnitude should" "collisions under the rule of the largest magnitude"
    301 SecondAccumulatorMissing "second-accumulator-missing" Memory
        "Momentum correction decays what waits: v ← m·v + g" "momentum, a second step"
    302 MomentumNotMasked "momentum-not-masked" Memory
        "Momentum is not cleared where an entry was sent" "momentum with masking"
    303 MomentumMaskedAnyway "momentum-masked-anyway" Memory
        "Momentum is cleared where an entry was sent although masking is off" "momentum without masking"
    304 MomentumFused "momentum-fused" Memory
        "m·u + g is rounded once" "momentum, a second step"
    305 NesterovIgnored "nesterov-ignored" Memory
        "Nesterov momentum is computed as the classical one" "Nesterov momentum"
    306 NesterovOrder "nesterov-order" Memory
        "Nesterov momentum multiplies before it adds: u ← m·u + g" "Nesterov momentum"
    307 NesterovGradientMissing "nesterov-gradient-missing" Memory
        "Nesterov's v lacks the gradient: v ← v + u" "Nesterov momentum"
    308 VelocityAddsGradient "velocity-adds-gradient" Memory
        "v gains the gradient instead of the momentum" "momentum, a second step"
    309 ScaleOnVelocity "scale-on-velocity" Memory
        "The clipping factor multiplies v instead of the gradient" "a clipping factor, a residual"
    310 ScaleOnMomentum "scale-on-momentum" Memory
        "The clipping factor multiplies the momentum on its way into v" "a clipping factor, momentum"
    311 ScaleIgnored "scale-ignored" Memory
        "The clipping factor is ignored" "a clipping factor"
    312 ScaleTwice "scale-twice" Memory
        "The clipping factor is applied twice" "a clipping factor"
    313 DampenedMomentum "dampened-momentum" Memory
        "Momentum is an average: u ← m·u + (1 − m)·g" "momentum"
    314 TailNotAccumulated "tail-not-accumulated" Memory
        "The gradient of the last, partial vector of 8 does not enter the memory" "a length that is no multiple of 8"
    315 SubnormalsFlushed "subnormals-flushed" Memory
        "Subnormal numbers become zero" "subnormal gradients"
    316 HiddenResidual "hidden-residual" Memory
        "Without feedback a residual is kept all the same" "no feedback, a second step"
    317 UnsentNotStored "unsent-not-stored" Memory
        "The accumulated value is stored only where there was a candidate" "a memory, entries below the threshold"
    318 InfinityLessItself "infinity-less-itself" Memory
        "What is left of an infinity or a NaN is their difference, NaN" "infinite gradients, with a memory"
    319 ClearedByProduct "cleared-by-product" Memory
        "A sent entry is cleared by multiplication with 0, which leaves −0 of negative ones" "negative entries sent, with a memory"
    320 RoundingNegated "rounding-negated" Memory
        "The rounding error enters the residual with the wrong sign" "a 16-bit wire, with a memory"
    321 ResidualRounded "residual-rounded" Memory
        "What is not sent is kept in the wire's format" "a 16-bit wire, with a memory"
    322 MomentumOfStaleVelocity "momentum-of-stale-velocity" Memory
        "v gains the momentum of the step before" "momentum"
    323 RoundingKeptUnmasked "rounding-kept-unmasked" Memory
        "Momentum is masked only where rounding left nothing over" "momentum with masking, a 16-bit wire"

    324 LosersMasked "losers-masked" Memory
        "Momentum is masked where a candidate lost its slot, too" "a collision, momentum with masking"

    330 SignedTopK "signed-top-k" Selection
        "Top-k takes the greatest values instead of the greatest magnitudes" "top-k with negative entries"
    331 TiesToHighestIndex "ties-to-highest-index" Selection
        "Of equal magnitudes the greatest index comes first" "equal magnitudes at the cut of a top-k"
    332 TiesToPositive "ties-to-positive" Selection
        "Of equal magnitudes positive ones come first" "equal magnitudes of both signs at the cut of a top-k"
    333 TiesAllTaken "ties-all-taken" Selection
        "Top-k takes all that reach the k-th magnitude, however many" "equal magnitudes at the cut of a top-k"
    334 NanComesLast "nan-comes-last" Selection
        "Top-k ranks NaN below everything" "NaN and a top-k"
    335 CountRoundedDown "count-rounded-down" Selection
        "k is the density times the length, rounded down" "a density with a fraction of an entry above one half"
    336 CountMayBeZero "count-may-be-zero" Selection
        "k may round to 0, and nothing is sent" "a density of less than half an entry"
    337 CountOfNonzeros "count-of-nonzeros" Selection
        "The density is one of the entries that are not zero" "a density, many zeros"
    338 OneEntryMore "one-entry-more" Selection
        "Top-k takes one entry more" "top-k with more than k entries"
    339 ZerosFillUp "zeros-fill-up" Selection
        "Top-k fills up with zeros" "top-k with fewer than k entries that are not zero"
    340 ThresholdZeroPassesZeros "threshold-zero-passes-zeros" Selection
        "Zeros pass a threshold of 0" "a threshold of 0, fixed or sampled, and zeros"
    341 NegativeZeroSent "negative-zero-sent" Selection
        "−0 counts as an entry" "top-k or random-k, −0"
    342 RandomZerosSent "random-zeros-sent" Selection
        "Random-k sends zeros" "random-k and zeros"
    343 FirstEntrySkipped "first-entry-skipped" Selection
        "The scan starts at 1: element 0 is never a candidate" "element 0 among those to be sent"
    344 LastEntrySkipped "last-entry-skipped" Selection
        "The scan ends one early: the last element is never a candidate" "the last element among those to be sent"
    345 TailNotScanned "tail-not-scanned" Selection
        "The last, partial block of 64 is not searched for candidates" "a length above 64 that is no multiple of 64"
    346 SeamTwice "seam-twice" Selection
        "The first element of each block of 64 belongs to the block before too, and is sent twice" "a candidate at a multiple of 64, no table"
    347 MagnitudeInBf16 "magnitude-in-bf16" Selection
        "Top-k compares the upper 16 bits of magnitudes" "a top-k among close magnitudes"
    348 WholeBinTaken "whole-bin-taken" Selection
        "Top-k takes the whole bin of the histogram of exponents that the cut lies in" "top-k"
    349 TopKOfBlocks "top-k-of-blocks" Selection
        "Top-k takes an equal share of each block of 256" "top-k of more than 256 entries, unevenly distributed"
    350 SelectedByGradient "selected-by-gradient" Selection
        "Entries are chosen by the gradient instead of what has accumulated" "a residual, a threshold or top-k"
    351 SampleFromZero "sample-from-zero" Selection
        "The sample starts at 0 instead of the step's start" "a sample smaller than the bucket"
    352 SampleStrideLonger "sample-stride-longer" Selection
        "The sample's stride is one too long" "a sample smaller than the bucket"
    353 SampleSigned "sample-signed" Selection
        "The sample ranks values instead of magnitudes" "a sampled threshold, negative entries"
    354 SampleRankRoundedDown "sample-rank-rounded-down" Selection
        "The cut of the sample is rounded down" "a sample smaller than the bucket"
    355 SampleTooSmall "sample-too-small" Selection
        "The sample is not enlarged for small k" "a sampled threshold with few entries wanted"
    356 SampleFromBelow "sample-from-below" Selection
        "The cut of the sample is counted from the least" "a sampled threshold"
    357 NeverLowered "never-lowered" Selection
        "A threshold that lets too few pass is not lowered" "a refined threshold above almost everything"
    358 LoweredOnce "lowered-once" Selection
        "A threshold that lets too few pass is lowered once" "a refined threshold that needs several steps"
    359 LoweredWithoutEnd "lowered-without-end" Selection
        "A threshold is lowered more often than the specification allows" "a refined threshold that needs more steps than it may take"
    360 LoweredByUpper "lowered-by-upper" Selection
        "A threshold is lowered by division by the upper bound" "a refined threshold above almost everything"
    361 LoweredBelowK "lowered-below-k" Selection
        "A threshold is lowered while fewer than k pass, instead of lower · k" "a refined threshold that lets almost k pass"
    362 ExcessNotCut "excess-not-cut" Selection
        "Too many that pass a refined threshold are all sent" "a refined threshold below more than upper · k"
    363 ExcessCutAtUpper "excess-cut-at-upper" Selection
        "Too many are cut to upper · k instead of k" "a refined threshold below more than upper · k"
    364 ExcessKeepsOneMore "excess-keeps-one-more" Selection
        "Too many are cut to k + 1" "a refined threshold below more than upper · k"
    365 FirstIndicesKept "first-indices-kept" Selection
        "If more than k pass a sampled threshold, the first k indices are kept" "more than k entries above a sampled threshold"
    366 RefinedOnSample "refined-on-sample" Selection
        "Whether too few or too many pass is estimated from the sample" "a refined threshold, a sample smaller than the bucket"
    367 RandomKeysSwapped "random-keys-swapped" Selection
        "The permutation's keys are swapped" "random-k"
    368 RandomOtherWords "random-other-words" Selection
        "The permutation's keys are the seeds of hash and sample" "random-k"
    369 RandomWithReplacement "random-with-replacement" Selection
        "Random-k draws with replacement" "random-k"
    370 RandomIsPrefix "random-is-prefix" Selection
        "Random-k takes the first k indices" "random-k of less than everything"
    371 StaleMagnitudes "stale-magnitudes" Selection
        "Entries are chosen by what the call before accumulated, if it was as long" "a second call of the same length"
    372 FixedThresholdScaled "fixed-threshold-scaled" Selection
        "The clipping factor multiplies a fixed threshold" "a fixed threshold and a clipping factor"
    373 LoweredAtBound "lowered-at-bound" Selection
        "A threshold that lets exactly lower · k pass is lowered" "a refined threshold that lets lower · k pass, a whole number"
    374 ExcessAtBound "excess-at-bound" Selection
        "Exactly upper · k passing are cut to k" "a refined threshold that lets upper · k pass, a whole number above k"
    375 BoundsInF32 "bounds-in-f32" Selection
        "lower · k and upper · k are rounded to f32" "lower 0.8, k a multiple of 5, exactly 0.8 k above the threshold"
    376 SampleStartByRemainder "sample-start-by-remainder" Selection
        "The sample starts at the seed's remainder by the stride instead of its share" "a sample smaller than the bucket"
    377 CountHalfToEven "count-half-to-even" Selection
        "Half an entry is rounded to an even k" "a density that makes an even number and a half"
    378 NanByPayload "nan-by-payload" Selection
        "Top-k ranks one NaN above another by their payloads" "top-k of fewer entries than there are NaNs, of different payloads"

    380 FirstWriterStays "first-writer-stays" Table
        "In a collision the first one stays" "collisions that a later, greater entry should win"
    381 LastWriterStays "last-writer-stays" Table
        "In a collision the last one stays" "collisions that an earlier, greater entry should win"
    382 SmallestStays "smallest-stays" Table
        "In a collision the least magnitude stays" "collisions"
    383 TableTiesToHighest "table-ties-to-highest" Table
        "In a collision of equal magnitudes the greatest index stays" "collisions of equal magnitudes"
    384 SignedWinner "signed-winner" Table
        "In a collision the greatest value stays" "collisions with negative entries"
    385 KeyInBf16 "key-in-bf16" Table
        "Collisions compare the upper 16 bits of magnitudes" "collisions of close magnitudes"
    386 LinearProbing "linear-probing" Table
        "The loser of a collision moves on to the next free slot" "collisions"
    387 CollisionEmptiesSlot "collision-empties-slot" Table
        "A collision leaves the slot empty" "collisions"
    388 SeedNotHashed "seed-not-hashed" Table
        "The hash has no seed" "a hash table"
    389 SlotByRemainder "slot-by-remainder" Table
        "The slot is the hash's remainder instead of its share" "a hash table of several slots"
    390 FirstSlotUnread "first-slot-unread" Table
        "Slot 0 is never read" "a winner in slot 0"
    391 LastSlotUnused "last-slot-unused" Table
        "The hash covers one slot less than there is" "a hash table of several slots"
    392 SlotsRoundedDown "slots-rounded-down" Table
        "The number of slots is rounded down" "a fraction of slots per entry"
    393 AlwaysFourSlots "always-four-slots" Table
        "There are four slots per entry whatever was specified" "slots per entry other than 4"
    394 SlotsOfBucket "slots-of-bucket" Table
        "Slots are counted for each entry of the bucket" "slots per entry"
    395 MergedWithoutComparing "merged-without-comparing" Table
        "Merging the tables of blocks of 8 candidates keeps the first one's entry" "collisions between more than 8 candidates"
    396 StaleTable "stale-table" Table
        "The table is not cleared if the call before left one of the same size" "a second call with as many slots"
    397 StepTruncated "step-truncated" Table
        "Seeds depend on the low 32 bits of the step" "a step above 2³², with anything random"
    398 SeedTruncated "seed-truncated" Table
        "Seeds depend on the low 32 bits of the specification's seed" "a seed above 2³², with anything random"
    399 SlotsReversed "slots-reversed" Table
        "Slots are sent last to first" "a hash table with several winners"
    400 TableSortedByIndex "table-sorted-by-index" Table
        "The table's message is in ascending order of index" "a hash table with several winners"
    401 LosersSentToo "losers-sent-too" Table
        "Losers of collisions are sent after the table" "collisions"
    402 NanLosesSlot "nan-loses-slot" Table
        "Collisions compare floating-point magnitudes, so NaN wins no slot that is taken" "NaN colliding with an earlier candidate"
    403 SlotsToPowerOfTwo "slots-to-power-of-two" Table
        "The number of slots is rounded up to a power of two" "a number of slots that is no power of two"

    410 MessageNotCleared "message-not-cleared" Message
        "The message is appended to what it held" "a message that is used again"
    411 DescendingMessage "descending-message" Message
        "The message is in descending order of index" "several entries, no table"
    412 MagnitudeOrder "magnitude-order" Message
        "The message is in descending order of magnitude" "several entries, no table"
    413 HashOrder "hash-order" Message
        "The message is in the order of hashes without there being a table" "several entries, no table"
    414 Bf16OnWire "bf16-on-wire" Message
        "Values are rounded to bfloat16 although the wire is f32" "an f32 wire"
    415 TruncatedOnWire "truncated-on-wire" Message
        "Values are rounded towards zero" "a 16-bit wire"
    416 OverflowToInfinity "overflow-to-infinity" Message
        "Values too large for the wire's format become infinite" "a 16-bit wire, values beyond its range"
    417 HalfSubnormalsFlushed "half-subnormals-flushed" Message
        "Values below the wire's normal range become zero" "a half-precision wire, values below 6e-5"
    418 EightBitValues "eight-bit-values" Message
        "Values are rounded to 8 bits; the residual accounts for it" "any values"
    419 SignLost "sign-lost" Message
        "Magnitudes are sent" "a negative entry"
    420 GradientSent "gradient-sent" Message
        "The gradient is sent instead of what has accumulated" "a residual"
    421 SentAfterClearing "sent-after-clearing" Message
        "Values are read after they were cleared" "a memory"
    422 LastEntryNotSent "last-entry-not-sent" Message
        "The last entry of the message is cut off, but cleared" "any entry"
    423 WireIgnored "wire-ignored" Message
        "Values are not rounded to the wire's format" "a 16-bit wire"
    424 MessagePadded "message-padded" Message
        "The message is padded to k entries with repetitions of its last" "fewer entries than k"
    425 ValueOfNeighbour "value-of-neighbour" Message
        "Values are shifted by one against their indices" "several entries"
    426 TiesAwayOnWire "ties-away-on-wire" Message
        "Values halfway between two of the wire's format are rounded away from zero" "a 16-bit wire, values halfway between two of its numbers"

    440 RejectIgnored "reject-ignored" Refusal
        "Gradients that are not finite are accepted where they should be refused" "refusal, NaN or infinity"
    441 RejectsNanOnly "rejects-nan-only" Refusal
        "Infinities are accepted where they should be refused" "refusal, infinity"
    442 RejectHalfway "reject-halfway" Refusal
        "A refused gradient has entered the memory up to the offending entry" "refusal, NaN or infinity after the first entry"
    443 RejectClearsMessage "reject-clears-message" Refusal
        "A refused step clears the message" "refusal, a message that is used again"
    444 RejectsAccumulated "rejects-accumulated" Refusal
        "What has accumulated is judged instead of the gradient" "refusal, a finite gradient whose sum overflows"
    445 NonFiniteZeroed "non-finite-zeroed" Refusal
        "NaN and infinities become zeros where they should be passed on" "NaN or infinity"
    446 RejectsLargest "rejects-largest" Refusal
        "The greatest finite number is refused as infinite" "refusal, the greatest finite number"
    447 EmptyBucketRefused "empty-bucket-refused" Refusal
        "A bucket of nothing is refused" "length 0"
    448 ScaleUnchecked "scale-unchecked" Refusal
        "A clipping factor that is not finite is accepted" "a clipping factor of NaN or infinity"

    460 DecodeOverwrites "decode-overwrites" Decode
        "A later rank's value overwrites an earlier one's" "two ranks that send the same index"
    461 MeanMissing "mean-missing" Decode
        "The sum is not divided" "a mean of several ranks"
    462 MeanOfSenders "mean-of-senders" Decode
        "The mean is over the ranks that sent the index" "a mean, an index that not all ranks send"
    463 MeanByReciprocal "mean-by-reciprocal" Decode
        "The sum is multiplied by the rounded reciprocal" "a mean of 3, 5, 6 or 7 ranks"
    464 MeanBeforeSum "mean-before-sum" Decode
        "Each value is divided before it is added" "a mean of several ranks, three of which send one index"
    465 EqualSplit "equal-split" Decode
        "Gathered messages are split into equal parts, and what remains is lost" "a number of entries that the ranks do not divide"
    466 LengthOfFirst "length-of-first" Decode
        "Every message is read as far as the first one is long" "a later message longer than the first"
    467 RanksReversed "ranks-reversed" Decode
        "Ranks are added last to first" "three ranks that send the same index"
    468 SumInF64 "sum-in-f64" Decode
        "Sums are kept in f64 and rounded at the end" "three ranks that send the same index"
    469 TreeSum "tree-sum" Decode
        "Ranks are added by halves" "four ranks that send the same index"
    470 LastRankMissing "last-rank-missing" Decode
        "The last rank's message is left out" "any messages"
    471 FirstRankTwice "first-rank-twice" Decode
        "The first rank's message is added twice" "any messages"
    472 OwnersRoundDown "owners-round-down" Decode
        "Three owners share the places, and those left over belong to nobody" "an index in the last places, a length that is no multiple of 3"
    473 UntouchedKeepsOld "untouched-keeps-old" Decode
        "Only places that a message names are overwritten" "an output that is not zero before"
    474 RanksInTurn "ranks-in-turn" Decode
        "Another rank is added first in each call, as atomics would" "several calls, three ranks that send the same index"
    475 DecodeErrorLate "decode-error-late" Decode
        "A bad index is found when part of the output is written" "an index beyond the output"
    476 BadIndexSkipped "bad-index-skipped" Decode
        "A bad index is left out without an error" "an index beyond the output"
    477 FirstPlaceSkipped "first-place-skipped" Decode
        "Index 0 is taken for padding" "a message that names index 0"
    478 EmptyRankNotCounted "empty-rank-not-counted" Decode
        "Ranks that send nothing do not count for the mean" "a mean, an empty message"
    479 EqualValuesMerged "equal-values-merged" Decode
        "The same word from two ranks is added once" "two ranks that send the same value of an index"
}
