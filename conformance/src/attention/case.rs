//! Cases: what a trial asks. A case is its printable id, and the id determines every bit of the inputs.
//!
//! ```text
//! attention/f32/b1h4k2/n17s23d8v8/causal+window=3,*+bias=11qk/normal/7f3a
//!           │   │      │          │                         │      └ seed, hexadecimal
//!           │   │      │          │                         └ distribution of the data
//!           │   │      │          └ options, or `plain`
//!           │   │      └ queries, keys (the longest, where sequences differ), dims of queries and values
//!           │   └ sequences, query heads, key/value heads
//!           └ storage format
//! ```

use crate::attention::{Feature, Layout};
use crate::suite::Visit;
use std::fmt;
use std::str::FromStr;
use tilewright_attention::CausalAlign;
use tilewright_scalar::Format;

/// What the data are like, and so which bugs they can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Distribution {
    /// Independent, roughly normal.
    Normal,
    /// Scores of standard deviation 4: a few keys take nearly everything.
    Peaky,
    /// Scores grow with the key index, so every tile raises the running maximum.
    Ascending,
    /// Scores fall with the key index: the first tile holds the maximum.
    Descending,
    /// One key takes all, exactly: `O` is a copy of a row of `V`.
    OneHot,
    /// All scores equal, `V` of small integers.
    Equal,
    /// `V` far from 0: a lost or doubled key shows in the sum of weights.
    Offset,
    /// Scores around −150, where a maximum initialised to 0 underflows everything.
    Low,
    /// Scores around +150, where missing the maximum overflows.
    High,
    /// Scores of ±10⁴.
    Vast,
    /// `V` and `dO` in the subnormal range.
    Subnormal,
    /// Uniform in [0, 1): nothing has a sign.
    Uniform,
    /// Keys that no query sees hold ±10³⁰ (±6·10⁴ in f16).
    HugeMasked,
    /// Activations recorded from a language model, where the shape allows (`dim` ≤ 32).
    Recorded,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Normal,
        Self::Peaky,
        Self::Ascending,
        Self::Descending,
        Self::OneHot,
        Self::Equal,
        Self::Offset,
        Self::Low,
        Self::High,
        Self::Vast,
        Self::Subnormal,
        Self::Uniform,
        Self::HugeMasked,
        Self::Recorded,
    ];

    /// The name in case ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Peaky => "peaky",
            Self::Ascending => "ascending",
            Self::Descending => "descending",
            Self::OneHot => "one-hot",
            Self::Equal => "equal",
            Self::Offset => "offset",
            Self::Low => "low",
            Self::High => "high",
            Self::Vast => "vast",
            Self::Subnormal => "subnormal",
            Self::Uniform => "uniform",
            Self::HugeMasked => "huge-masked",
            Self::Recorded => "recorded",
        }
    }

    /// Whether values are distinct enough for rounding errors to be independent, as the statistical tiers need.
    pub fn general_position(self) -> bool {
        matches!(self, Self::Normal | Self::Peaky | Self::Offset | Self::Uniform | Self::Recorded | Self::HugeMasked)
    }
}

/// How sequences are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Every sequence as long as the tensors.
    #[default]
    Padded,
    /// Padded keys with a length for each sequence.
    Lengths,
    /// Queries and keys packed.
    Packed,
    /// Keys by page table, this many rows a page.
    Paged(usize),
}

/// Everything an id says.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "independent options, each on or off")]
pub struct Case {
    /// Storage format of the tensors.
    pub format: Format,
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub q_heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Queries of the longest sequence.
    pub q_len: usize,
    /// Keys of the longest sequence.
    pub kv_len: usize,
    /// Length of queries and keys.
    pub head_dim: usize,
    /// Length of values.
    pub value_dim: usize,
    /// Causal.
    pub causal: bool,
    /// Where the diagonal lies.
    pub align: CausalAlign,
    /// Window, left and right.
    pub window: [Option<usize>; 2],
    /// Softcap.
    pub softcap: Option<f64>,
    /// ALiBi with slopes `2^-(h+1)`.
    pub alibi: bool,
    /// Which axes of the bias are not broadcast: batch, head, query, key.
    pub bias: Option<[bool; 4]>,
    /// Sinks.
    pub sink: bool,
    /// Dropout probability.
    pub dropout: Option<f64>,
    /// Block mask granularity, queries and keys.
    pub blocks: Option<[usize; 2]>,
    /// Storage of sequences.
    pub storage: Storage,
    /// Whether a gradient flows into LSE.
    pub d_lse: bool,
    /// Memory layout.
    pub layout: Layout,
    /// Data.
    pub distribution: Distribution,
    /// Seed.
    pub seed: u32,
}

impl Case {
    /// A plain case of normal data.
    pub fn new(format: Format, [batch, q_heads, kv_heads]: [usize; 3], [n, s, d, v]: [usize; 4]) -> Self {
        Self {
            format,
            batch,
            q_heads,
            kv_heads,
            q_len: n,
            kv_len: s,
            head_dim: d,
            value_dim: v,
            causal: false,
            align: CausalAlign::BottomRight,
            window: [None, None],
            softcap: None,
            alibi: false,
            bias: None,
            sink: false,
            dropout: None,
            blocks: None,
            storage: Storage::Padded,
            d_lse: false,
            layout: Layout::Contiguous,
            distribution: Distribution::Normal,
            seed: 1,
        }
    }

    /// The features a subject needs to run this case.
    pub fn features(&self) -> Vec<Feature> {
        let has = |present: bool, feature: Feature| present.then_some(feature);
        let top_left = self.align == CausalAlign::TopLeft;
        [
            has(self.q_heads != self.kv_heads, Feature::Gqa),
            has(self.value_dim != self.head_dim, Feature::ValueDim),
            has(self.causal && top_left, Feature::CausalTopLeft),
            has(self.causal && !top_left, Feature::CausalBottomRight),
            has(self.window != [None, None], Feature::Window),
            has(self.softcap.is_some(), Feature::Softcap),
            has(self.alibi, Feature::Alibi),
            has(self.bias.is_some(), Feature::Bias),
            has(self.sink, Feature::Sink),
            has(self.dropout.is_some(), Feature::Dropout),
            has(self.storage == Storage::Lengths, Feature::Lengths),
            has(self.storage == Storage::Packed, Feature::Packed),
            has(matches!(self.storage, Storage::Paged(_)), Feature::Paged),
            has(self.blocks.is_some(), Feature::BlockMask),
            has(self.d_lse, Feature::LseGradient),
            has(self.q_len <= 4 && self.kv_len >= 64, Feature::Decode),
            has(self.layout != Layout::Contiguous, Feature::Strided),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Visit for Case {
    /// Multiply-adds of a forward pass that looks at everything: how long a case takes, about.
    fn work(&self) -> u64 {
        let lengths = [self.batch, self.q_heads, self.q_len, self.kv_len, self.head_dim + self.value_dim];
        lengths.into_iter().map(|length| length as u64).fold(1, u64::saturating_mul)
    }

    /// Features and distributions, by format.
    fn marks(&self) -> Vec<(&'static str, &'static str)> {
        let features = self.features().into_iter().map(|feature| (feature.name(), self.format.name));
        features.chain([(self.distribution.name(), self.format.name)]).collect()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attention/{}/b{}h{}k{}", self.format.name, self.batch, self.q_heads, self.kv_heads)?;
        write!(f, "/n{}s{}d{}v{}/", self.q_len, self.kv_len, self.head_dim, self.value_dim)?;
        let mut options = Vec::new();
        if self.causal {
            options.push("causal".into());
        }
        if self.align == CausalAlign::TopLeft {
            options.push("top-left".into());
        }
        if self.window != [None, None] {
            let side = |side: Option<usize>| side.map_or("*".into(), |side: usize| side.to_string());
            options.push(format!("window={},{}", side(self.window[0]), side(self.window[1])));
        }
        if let Some(cap) = self.softcap {
            options.push(format!("softcap={cap}"));
        }
        if self.alibi {
            options.push("alibi".into());
        }
        if let Some(axes) = self.bias {
            let letters: String = axes.iter().zip("bhqk".chars()).map(|(own, c)| if *own { c } else { '1' }).collect();
            options.push(format!("bias={letters}"));
        }
        if self.sink {
            options.push("sink".into());
        }
        if let Some(p) = self.dropout {
            options.push(format!("dropout={p}"));
        }
        if let Some([q, k]) = self.blocks {
            options.push(format!("blocks={q}x{k}"));
        }
        match self.storage {
            Storage::Padded => {}
            Storage::Lengths => options.push("lengths".into()),
            Storage::Packed => options.push("packed".into()),
            Storage::Paged(size) => options.push(format!("paged={size}")),
        }
        if self.d_lse {
            options.push("dlse".into());
        }
        match self.layout {
            Layout::Contiguous => {}
            Layout::HeadsInner => options.push("heads-inner".into()),
            Layout::Gapped => options.push("gapped".into()),
        }
        if options.is_empty() {
            options.push("plain".into());
        }
        write!(f, "{}/{}/{:x}", options.join("+"), self.distribution.name(), self.seed)
    }
}

/// What is wrong with a case id: one line that names the part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseError {
    part: &'static str,
    got: String,
    expected: &'static str,
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "case id, {}: got `{}`, expected {}", self.part, self.got, self.expected)
    }
}

impl std::error::Error for CaseError {}

/// Largest size an id may name: a case is a test, not a benchmark, and a typo should not ask for all of memory.
const LARGEST: usize = 1 << 16;
const LARGEST_TENSOR: usize = 1 << 26;

impl FromStr for Case {
    type Err = CaseError;

    fn from_str(id: &str) -> Result<Self, CaseError> {
        let error = |part, got: &str, expected| CaseError { part, got: got.into(), expected };
        let parts: Vec<&str> = id.trim().split('/').collect();
        let ["attention", format, heads, sizes, options, distribution, seed] = parts[..] else {
            return Err(error("form", id, "attention/FORMAT/bBhHkK/nNsSdDvV/OPTIONS/DISTRIBUTION/SEED"));
        };
        let format = format_from_name(format).ok_or_else(|| error("format", format, "f64, f32, f16 or bf16"))?;
        let heads = letters(heads, "bhk").ok_or_else(|| error("heads", heads, "bBhHkK, each at most 65536"))?;
        let sizes = letters(sizes, "nsdv").ok_or_else(|| error("sizes", sizes, "nNsSdDvV, each at most 65536"))?;
        let mut case = Self::new(format, [heads[0], heads[1], heads[2]], [sizes[0], sizes[1], sizes[2], sizes[3]]);
        for option in options.split('+').filter(|option| *option != "plain") {
            case.set_option(option).ok_or_else(|| error("option", option, "an option the documentation lists"))?;
        }
        case.distribution = Distribution::ALL
            .into_iter()
            .find(|known| known.name() == distribution)
            .ok_or_else(|| error("distribution", distribution, "a distribution the documentation lists"))?;
        case.seed = u32::from_str_radix(seed, 16).map_err(|_| error("seed", seed, "up to eight hexadecimal digits"))?;
        case.check().map_or(Ok(case), |(part, expected)| Err(error(part, id, expected)))
    }
}

impl Case {
    fn set_option(&mut self, option: &str) -> Option<()> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let size = |text: &str| text.parse().ok().filter(|size: &usize| (1..=LARGEST).contains(size));
        match (name, value) {
            ("causal", "") => self.causal = true,
            ("top-left", "") => self.align = CausalAlign::TopLeft,
            ("window", sides) => {
                let (left, right) = sides.split_once(',')?;
                let side = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
                self.window = [side(left)?, side(right)?];
            }
            ("softcap", cap) => {
                self.softcap = Some(cap.parse().ok().filter(|cap: &f64| cap.is_finite() && *cap > 0.0)?);
            }
            ("alibi", "") => self.alibi = true,
            ("bias", axes) => {
                let axes: Vec<char> = axes.chars().collect();
                let own = |n: usize, c: char| match *axes.get(n)? {
                    '1' => Some(false),
                    letter => (letter == c).then_some(true),
                };
                self.bias = Some([own(0, 'b')?, own(1, 'h')?, own(2, 'q')?, own(3, 'k')?]).filter(|_| axes.len() == 4);
                self.bias?;
            }
            ("sink", "") => self.sink = true,
            ("dropout", p) => self.dropout = Some(p.parse().ok().filter(|p| (0.0..1.0).contains(p))?),
            ("blocks", sizes) => {
                let (q, k) = sizes.split_once('x')?;
                self.blocks = Some([size(q)?, size(k)?]);
            }
            ("lengths", "") => self.storage = Storage::Lengths,
            ("packed", "") => self.storage = Storage::Packed,
            ("paged", rows) => self.storage = Storage::Paged(size(rows)?),
            ("dlse", "") => self.d_lse = true,
            ("heads-inner", "") => self.layout = Layout::HeadsInner,
            ("gapped", "") => self.layout = Layout::Gapped,
            _ => return None,
        }
        Some(())
    }

    /// The first inconsistency, if there is one.
    fn check(&self) -> Option<(&'static str, &'static str)> {
        let elements = [self.batch, self.q_heads, self.q_len.max(self.kv_len), self.head_dim.max(self.value_dim)];
        let total = elements.iter().try_fold(1usize, |product, &n| product.checked_mul(n.max(1)));
        if self.kv_heads == 0 || self.q_heads == 0 || !self.q_heads.is_multiple_of(self.kv_heads) {
            Some(("heads", "h and k of at least 1, k to divide h"))
        } else if self.head_dim == 0 || self.value_dim == 0 {
            Some(("sizes", "d and v of at least 1"))
        } else if total.is_none_or(|total| total > LARGEST_TENSOR) || self.pool() > LARGEST_TENSOR {
            Some(("sizes", "tensors of at most 2^26 elements"))
        } else if self.scores() > LARGEST_TENSOR {
            Some(("sizes", "at most 2^26 scores"))
        } else {
            None
        }
    }
}

impl Case {
    /// Number of scores: also what a bias, a block mask and the time that a reference takes grow with.
    fn scores(&self) -> usize {
        [self.batch, self.q_heads, self.q_len, self.kv_len]
            .into_iter()
            .fold(1, |product: usize, n| product.saturating_mul(n))
    }

    /// At least as many elements as the page pool of keys or values has.
    fn pool(&self) -> usize {
        let Storage::Paged(page_size) = self.storage else { return 0 };
        let pages = self.batch.saturating_mul(self.kv_len.div_ceil(page_size.max(1))).saturating_add(2);
        [page_size, self.kv_heads, self.head_dim.max(self.value_dim)].into_iter().fold(pages, usize::saturating_mul)
    }
}

/// The storage format of a name.
pub fn format_from_name(name: &str) -> Option<Format> {
    [Format::F64, Format::F32, Format::F16, Format::BF16].into_iter().find(|format| format.name == name)
}

/// `b1h4k2` with the letters `bhk` gives `[1, 4, 2]`.
fn letters(text: &str, expected: &str) -> Option<Vec<usize>> {
    let mut rest = text;
    let mut numbers = Vec::new();
    for letter in expected.chars() {
        rest = rest.strip_prefix(letter)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        numbers.push(rest[..end].parse().ok().filter(|n| *n <= LARGEST)?);
        rest = &rest[end..];
    }
    rest.is_empty().then_some(numbers)
}
