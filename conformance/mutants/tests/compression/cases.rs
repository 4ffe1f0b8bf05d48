//! Problems with their gradients: what the kernels are put to.

use proptest::prelude::*;
use proptest::sample::select;
use tilewright_compression::message::word;
use tilewright_compression::{
    CompressionSpec, Count, Feedback, IndexCoding, NonFinite, Placement, Policy, Reduction, Refinement, Sampling,
    Selector, Slots, ValueFormat, Wire,
};
use tilewright_scalar::philox4x32_10;

/// What gradients look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Data {
    Normal,
    /// Whole numbers from −3 to 3: ties, zeros of both signs.
    Whole,
    /// One magnitude, both signs.
    Equal,
    /// Nine of ten are zeros of either sign.
    Sparse,
    /// Magnitudes that differ in their last bits only.
    Close,
    /// A few entries far above the others.
    Peaky,
    /// The greatest ones in the last places.
    Ascending,
    /// Halfway between two numbers of bfloat16 or half precision.
    Halfway,
    /// Subnormal numbers and smaller halves.
    Tiny,
    /// Near the end of what f32 and f16 can hold.
    Huge,
    /// Normal with NaN and infinities.
    NonFinite,
}

/// A sequence of steps of one bucket.
#[derive(Clone, Debug)]
pub struct Case {
    pub spec: CompressionSpec,
    pub data: Data,
    /// Number of the first step.
    pub first_step: u64,
    pub steps: u64,
    pub scale: f32,
    pub seed: u64,
}

fn words(seed: u64, step: u64, i: usize) -> [u32; 4] {
    philox4x32_10([i as u32, step as u32, 0, 1], [seed as u32, (seed >> 32) as u32])
}

fn normal(words: [u32; 4]) -> f32 {
    let sum: f64 = words.iter().map(|word| f64::from(*word) / 4_294_967_296.0).sum();
    ((sum - 2.0) * 3f64.sqrt()) as f32
}

impl Data {
    fn number(self, seed: u64, step: u64, i: usize, len: usize) -> f32 {
        let random = words(seed, step, i);
        let (x, [a, b, ..]) = (normal(random), random);
        let sign = if a % 2 == 0 { 1.0 } else { -1.0 };
        match self {
            Self::Normal => x,
            Self::Whole => sign * (b % 4) as f32,
            Self::Equal => sign * 1.5,
            Self::Sparse => {
                if b % 10 == 0 {
                    x
                } else {
                    sign * 0.0
                }
            }
            Self::Close => sign * (1.0 + (b % 64) as f32 * f32::EPSILON),
            Self::Peaky => {
                if b % 50 == 0 {
                    1000.0 * x
                } else {
                    x
                }
            }
            Self::Ascending => sign * (i + 1) as f32 / len as f32,
            Self::Halfway => {
                let unit = if a % 4 < 2 { 256.0 } else { 2048.0 };
                sign * (1.0 + (b % 128) as f32 / unit)
            }
            Self::Tiny => match b % 3 {
                0 => sign * f32::from_bits(a % 5000),
                1 => x * 1e-6,
                _ => x * 1e-38,
            },
            Self::Huge => match b % 5 {
                0 => x * 1e5,
                1 => sign * f32::MAX,
                2 => sign * 3e38,
                _ => x * 1e30,
            },
            Self::NonFinite => match b % 12 {
                0 => f32::from_bits(0x7fc0_0000 | a & 0x803f_ffff),
                1 => sign * f32::INFINITY,
                _ => x,
            },
        }
    }
}

impl Case {
    /// The gradient of the `n`-th step from the first.
    pub fn gradient(&self, n: u64) -> Vec<f32> {
        (0..self.spec.len).map(|i| self.data.number(self.seed, n, i, self.spec.len)).collect()
    }
}

fn counts() -> impl Strategy<Value = Count> {
    prop_oneof![
        select(vec![0.001, 0.01, 0.03, 0.125, 0.35, 1.0]).prop_map(Count::Density),
        select(vec![0, 1, 2, 3, 5, 10, 30, 100]).prop_map(Count::Entries),
    ]
}

fn samplings() -> impl Strategy<Value = Sampling> {
    let refinements = (select(vec![0.8f32, 0.5, 0.95]), select(vec![1.0f32, 1.3, 3.0]), select(vec![0u32, 1, 3, 10]))
        .prop_map(|(lower, upper, iterations)| Refinement { lower, upper, iterations });
    (select(vec![0.01, 0.05, 0.3, 1.0]), prop::option::of(refinements))
        .prop_map(|(ratio, refine)| Sampling { ratio, refine })
}

fn selectors() -> impl Strategy<Value = Selector> {
    prop_oneof![
        3 => counts().prop_map(Selector::ExactTopK),
        4 => (counts(), samplings()).prop_map(|(count, sampling)| Selector::SampledThreshold(count, sampling)),
        2 => select(vec![0.0, 0.5, 1.0, 1.5, 2.0, 1e-40]).prop_map(Selector::FixedThreshold),
        2 => counts().prop_map(Selector::RandomK),
    ]
}

fn placements(policies: Vec<Policy>) -> impl Strategy<Value = Placement> {
    let slots = prop_oneof![
        select(vec![0.3, 1.0, 1.7, 4.0]).prop_map(Slots::PerEntry),
        select(vec![1, 2, 7, 16, 61, 1000]).prop_map(Slots::Exactly),
    ];
    prop_oneof![
        2 => Just(Placement::Compact),
        3 => (slots, select(policies)).prop_map(|(slots, policy)| Placement::HashTable { slots, policy }),
    ]
}

fn feedbacks() -> impl Strategy<Value = Feedback> {
    prop_oneof![
        1 => Just(Feedback::None),
        2 => Just(Feedback::Residual),
        3 => (select(vec![0.9f32, 0.5, 0.0]), any::<bool>(), any::<bool>())
            .prop_map(|(factor, nesterov, masking)| Feedback::Momentum { factor, nesterov, masking }),
    ]
}

fn specs(lengths: Vec<usize>, policies: Vec<Policy>) -> impl Strategy<Value = CompressionSpec> {
    let value = select(vec![ValueFormat::F32, ValueFormat::F32, ValueFormat::Bf16, ValueFormat::F16]);
    let index = select(vec![IndexCoding::Plain, IndexCoding::Rice]);
    let wire = (value, index).prop_map(|(value, index)| Wire { value, index });
    let non_finite = select(vec![NonFinite::Propagate, NonFinite::Propagate, NonFinite::Reject]);
    let seed = prop_oneof![0..3u64, any::<u64>()];
    (select(lengths), selectors(), placements(policies), feedbacks(), wire, non_finite, seed)
        .prop_map(|(len, selector, placement, feedback, wire, non_finite, seed)| CompressionSpec {
            len,
            selector,
            placement,
            feedback,
            wire,
            non_finite,
            seed,
        })
        .prop_filter("tables need a size", |spec| spec.validate().is_ok())
}

fn data() -> impl Strategy<Value = Data> {
    select(vec![
        Data::Normal,
        Data::Whole,
        Data::Equal,
        Data::Sparse,
        Data::Close,
        Data::Peaky,
        Data::Ascending,
        Data::Halfway,
        Data::Tiny,
        Data::Huge,
        Data::NonFinite,
    ])
}

/// Lengths about the edges of blocks.
pub const SHORT: &[usize] = &[0, 1, 2, 3, 8, 12, 63, 64, 65, 100, 200, 257, 300, 1000];
/// Lengths beyond 16 bits.
pub const LONG: &[usize] = &[66_000, 140_000];

/// Cases of these lengths and rules of collision.
pub fn cases(lengths: &[usize], policies: &[Policy]) -> impl Strategy<Value = Case> {
    let first_step = prop_oneof![0..3u64, any::<u64>()];
    let scale = select(vec![1.0, 1.0, 1.0, 0.5, 0.3, f32::INFINITY]);
    (specs(lengths.to_vec(), policies.to_vec()), data(), first_step, scale, any::<u64>())
        .prop_map(|(spec, data, first_step, scale, seed)| Case { spec, data, first_step, steps: 3, scale, seed })
}

/// Cases about the bounds of a refined threshold: a few entries wanted, whole numbers of them at the bounds.
pub fn refined_cases(lengths: &[usize]) -> impl Strategy<Value = Case> {
    let refinements = (select(vec![0.8f32, 0.5]), select(vec![1.0f32, 1.3, 1.5, 2.0]), select(vec![1u32, 10]))
        .prop_map(|(lower, upper, iterations)| Refinement { lower, upper, iterations });
    let selectors =
        (select(vec![2, 4, 5, 10, 20]), select(vec![0.01, 0.05]), refinements).prop_map(|(k, ratio, refine)| {
            Selector::SampledThreshold(Count::Entries(k), Sampling { ratio, refine: Some(refine) })
        });
    let data = select(vec![Data::Normal, Data::Peaky]);
    (select(lengths.to_vec()), selectors, feedbacks(), data, any::<u64>()).prop_map(
        |(len, selector, feedback, data, seed)| {
            let spec = CompressionSpec { selector, feedback, ..CompressionSpec::top_k(len, Count::Entries(1)) };
            Case { spec, data, first_step: seed % 5, steps: 3, scale: 1.0, seed }
        },
    )
}

/// Messages of several ranks.
#[derive(Clone, Debug)]
pub struct Gathered {
    pub len: usize,
    pub messages: Vec<Vec<u64>>,
    pub reduction: Reduction,
}

/// Messages with overlaps, empty ones among them; now and then an index that is out of bounds.
pub fn gathered() -> impl Strategy<Value = Gathered> {
    let reduction = select(vec![Reduction::Sum, Reduction::Mean]);
    let data = select(vec![Data::Normal, Data::Whole, Data::Peaky, Data::NonFinite]);
    let bad = prop::bool::weighted(0.2);
    (1..40usize, 1..9usize, 0..100u32, data, reduction, any::<u64>(), bad).prop_map(
        |(len, ranks, percent, data, reduction, seed, bad)| {
            let message = |rank: usize| {
                let share = if (seed >> rank).is_multiple_of(7) { 0 } else { percent };
                let sent = (0..len).filter(|i| words(seed ^ 1, rank as u64, *i)[0] % 100 < share);
                let mut list: Vec<u64> = sent.map(|i| word(i as u32, data.number(seed, rank as u64, i, len))).collect();
                if bad && rank == ranks / 2 {
                    list.push(word(len as u32, 1.0));
                }
                list
            };
            Gathered { len, messages: (0..ranks).map(message).collect(), reduction }
        },
    )
}
