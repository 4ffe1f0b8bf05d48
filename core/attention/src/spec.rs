//! The problem, as plain data, and every convention it follows.
//!
//! # Conventions
//!
//! * `offset = kv_len − q_len` of the *sequence at hand* (its own lengths, not the padded ones) for
//!   [`CausalAlign::BottomRight`], 0 for [`CausalAlign::TopLeft`]. Causality, windows and ALiBi share it.
//! * The score of query `i` and key `j` is built in this order: `s = scale · q·k`; `s = softcap · tanh(s / softcap)`;
//!   `s += bias`; `s += −slope · |i + offset − j|`; then the mask, which *selects* (a masked score never enters any sum).
//! * Key `j` is visible to query `i` iff all of these hold: `j < kv_len`; not `causal` or `j ≤ i + offset`;
//!   `j ≥ i + offset − left` if the window has a left side; `j ≤ i + offset + right` if it has a right side; the block
//!   mask's entry for `(i / block_q, j / block_k)` is set.
//! * A row that sees no key: `O = 0`, `LSE = −∞`, all its gradients 0. With a sink: `O = 0`, `LSE = sink`.
//! * LSE is the natural logarithm of the sum of exponentials (the sink's included), in the accumulator's type.
//! * A sink adds `exp(sink_h)` to the denominator and nothing to the numerator.
//! * Dropout acts on the normalised probabilities: `O = Σ_j Z_ij P_ij v_j` with `Z = 1/(1−p)` or 0. LSE does not see it.
//! * Query head `h` reads key/value head `h / (q_heads / kv_heads)`.
//! * Keys and queries beyond a sequence's length are never read, whatever bits they hold. Rows of `O` and of the
//!   gradients that belong to no sequence are zero; such rows of LSE are −∞.

use crate::AttentionError;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use ndarray::Array4;
use tilewright_scalar::real::sqrt;

/// Which corner of the score matrix the causal diagonal runs into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CausalAlign {
    /// Query 0 sees key 0: PyTorch's `is_causal`.
    TopLeft,
    /// The last query sees the last key: FlashAttention since 2.1, and what decoding with a cache needs.
    #[default]
    BottomRight,
}

/// A band around the (aligned) diagonal; `None` means unbounded on that side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Window {
    /// How many keys before the diagonal are visible.
    pub left: Option<usize>,
    /// How many keys after the diagonal are visible.
    pub right: Option<usize>,
}

/// How query rows (and with them `O`, LSE and their gradients) are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queries {
    /// `[batch, q_heads, len, head_dim]`: every sequence has `len` queries.
    Padded {
        /// Queries in each sequence.
        len: usize,
    },
    /// `[1, q_heads, total, head_dim]`: sequence `b` owns rows `cu_seqlens[b] .. cu_seqlens[b + 1]`.
    Packed {
        /// `batch + 1` row offsets, from 0, never decreasing; the last is the total.
        cu_seqlens: Vec<usize>,
    },
}

/// How key and value rows are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// `[batch, kv_heads, len, dim]`; sequence `b` uses the first `lengths[b]` rows, or all of them.
    Padded {
        /// Rows stored for each sequence.
        len: usize,
        /// Rows in use, one entry a sequence.
        lengths: Option<Vec<usize>>,
    },
    /// `[1, kv_heads, total, dim]`: sequence `b` owns rows `cu_seqlens[b] .. cu_seqlens[b + 1]`.
    Packed {
        /// `batch + 1` row offsets, from 0, never decreasing; the last is the total.
        cu_seqlens: Vec<usize>,
    },
    /// `[pages, kv_heads, page_size, dim]`: key `j` of sequence `b` is row `j % page_size` of page
    /// `table[b][j / page_size]`. Sequences may share pages (a common prefix); their gradients then add up.
    Paged {
        /// Pages in the pool.
        pages: usize,
        /// Rows a page.
        page_size: usize,
        /// Page numbers, one list a sequence, in order; entries beyond the sequence's length are not looked at.
        table: Vec<Vec<usize>>,
        /// Keys in each sequence.
        lengths: Vec<usize>,
    },
}

/// Dropout of probabilities, keyed by coordinates alone: see [`crate::dropout`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an entry is dropped, in `[0, 1)`.
    pub p: f64,
    /// Key of the counter-based generator.
    pub seed: u64,
}

/// A mask at tile granularity (FlashAttention, Algorithm 5): entry `[b, h, i / block_q, j / block_k]` says whether
/// that block of scores is computed at all. The first two axes may have length 1 and are then shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMask {
    /// Query rows a block.
    pub block_q: usize,
    /// Keys a block.
    pub block_k: usize,
    /// `[batch | 1, q_heads | 1, ⌈max q_len / block_q⌉, ⌈max kv_len / block_k⌉]`.
    pub blocks: Array4<bool>,
}

/// An attention problem. The tensors it speaks of are in [`Inputs`](crate::Inputs).
///
/// Plain data: fill in what you need and call [`validate`](Self::validate), as every implementation does first.
///
/// ```
/// use tilewright_attention::{AttentionSpec, CausalAlign};
/// let spec = AttentionSpec {
///     kv_heads: 2, // grouped queries: 8 query heads share 2 key/value heads
///     causal: true,
///     align: CausalAlign::BottomRight,
///     ..AttentionSpec::dense(1, 8, 128, 512, 64)
/// };
/// spec.validate()?;
/// assert_eq!(spec.offset(0), 384);
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Number of sequences.
    pub batch: usize,
    /// Query heads.
    pub q_heads: usize,
    /// Key/value heads; divides `q_heads`.
    pub kv_heads: usize,
    /// Length of a query and of a key.
    pub head_dim: usize,
    /// Length of a value and of an output row.
    pub value_dim: usize,
    /// Storage of query rows.
    pub queries: Queries,
    /// Storage of key and value rows.
    pub keys: Keys,
    /// Factor on `q·k`, finite; usually `1/√head_dim`.
    pub scale: f64,
    /// `c` in `c · tanh(s / c)`, finite and positive.
    pub softcap: Option<f64>,
    /// Whether keys after the diagonal are masked.
    pub causal: bool,
    /// Where the diagonal lies, for `causal`, `window` and `alibi` alike.
    pub align: CausalAlign,
    /// Sliding window.
    pub window: Window,
    /// ALiBi slopes, one a query head, finite.
    pub alibi: Option<Vec<f64>>,
    /// Dropout of probabilities.
    pub dropout: Option<Dropout>,
    /// Block-sparse mask.
    pub block_mask: Option<BlockMask>,
}

impl AttentionSpec {
    /// Plain attention over padded tensors: equal head counts and dims, `scale = 1/√head_dim`, no mask.
    pub fn dense(batch: usize, heads: usize, q_len: usize, kv_len: usize, head_dim: usize) -> Self {
        Self {
            batch,
            q_heads: heads,
            kv_heads: heads,
            head_dim,
            value_dim: head_dim,
            queries: Queries::Padded { len: q_len },
            keys: Keys::Padded { len: kv_len, lengths: None },
            scale: 1.0 / sqrt(head_dim.max(1) as f64),
            softcap: None,
            causal: false,
            align: CausalAlign::default(),
            window: Window::default(),
            alibi: None,
            dropout: None,
            block_mask: None,
        }
    }

    /// Number of queries of sequence `b`.
    pub fn q_len(&self, b: usize) -> usize {
        match &self.queries {
            Queries::Padded { len } => *len,
            Queries::Packed { cu_seqlens } => cu_seqlens[b + 1] - cu_seqlens[b],
        }
    }

    /// Number of keys of sequence `b`.
    pub fn kv_len(&self, b: usize) -> usize {
        match &self.keys {
            Keys::Padded { len, lengths } => lengths.as_ref().map_or(*len, |lengths| lengths[b]),
            Keys::Packed { cu_seqlens } => cu_seqlens[b + 1] - cu_seqlens[b],
            Keys::Paged { lengths, .. } => lengths[b],
        }
    }

    /// The longest query sequence, or the padded length: the row extent of bias and block mask.
    pub fn max_q_len(&self) -> usize {
        match &self.queries {
            Queries::Padded { len } => *len,
            Queries::Packed { .. } => (0..self.batch).map(|b| self.q_len(b)).max().unwrap_or(0),
        }
    }

    /// The longest key sequence, or the padded length: the column extent of bias and block mask.
    pub fn max_kv_len(&self) -> usize {
        match &self.keys {
            Keys::Padded { len, .. } => *len,
            Keys::Packed { .. } | Keys::Paged { .. } => (0..self.batch).map(|b| self.kv_len(b)).max().unwrap_or(0),
        }
    }

    /// Where query `i` of sequence `b` is stored: index on the first axis and row.
    pub fn query_slot(&self, b: usize, i: usize) -> (usize, usize) {
        match &self.queries {
            Queries::Padded { .. } => (b, i),
            Queries::Packed { cu_seqlens } => (0, cu_seqlens[b] + i),
        }
    }

    /// Where key `j` of sequence `b` is stored: index on the first axis and row.
    pub fn key_slot(&self, b: usize, j: usize) -> (usize, usize) {
        match &self.keys {
            Keys::Padded { .. } => (b, j),
            Keys::Packed { cu_seqlens } => (0, cu_seqlens[b] + j),
            Keys::Paged { page_size, table, .. } => (table[b][j / page_size], j % page_size),
        }
    }

    /// Key/value head that query head `h` reads.
    pub fn kv_head(&self, h: usize) -> usize {
        h / (self.q_heads / self.kv_heads)
    }

    /// Position of the diagonal in sequence `b`: query `i` stands at key position `i + offset`.
    pub fn offset(&self, b: usize) -> isize {
        match self.align {
            CausalAlign::TopLeft => 0,
            CausalAlign::BottomRight => self.kv_len(b) as isize - self.q_len(b) as isize,
        }
    }

    /// Whether query `i` of sequence `b` sees key `j` in head `h`: the definition, entry by entry.
    pub fn visible(&self, b: usize, h: usize, i: usize, j: usize) -> bool {
        let (diagonal, j_signed) = (i as isize + self.offset(b), j as isize);
        j < self.kv_len(b)
            && (!self.causal || j_signed <= diagonal)
            && self.window.left.is_none_or(|left| j_signed >= diagonal.saturating_sub_unsigned(left))
            && self.window.right.is_none_or(|right| j_signed <= diagonal.saturating_add_unsigned(right))
            && self.block_mask.as_ref().is_none_or(|mask| mask.entry(b, h, i / mask.block_q, j / mask.block_k))
    }

    /// ALiBi's addition to the score, 0 without it.
    pub fn alibi(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let distance = (i as isize + self.offset(b) - j as isize).unsigned_abs();
        self.alibi.as_ref().map_or(0.0, |slopes| -slopes[h] * distance as f64)
    }

    /// Shape of `q` and of its gradient.
    pub fn q_shape(&self) -> [usize; 4] {
        let [batch, rows] = self.q_rows();
        [batch, self.q_heads, rows, self.head_dim]
    }

    /// Shape of `o` and of its gradient.
    pub fn o_shape(&self) -> [usize; 4] {
        let [batch, rows] = self.q_rows();
        [batch, self.q_heads, rows, self.value_dim]
    }

    /// Shape of the log-sum-exp and of its gradient.
    pub fn lse_shape(&self) -> [usize; 3] {
        let [batch, rows] = self.q_rows();
        [batch, self.q_heads, rows]
    }

    /// Shape of `k` and of its gradient.
    pub fn k_shape(&self) -> [usize; 4] {
        let [batch, rows] = self.kv_rows();
        [batch, self.kv_heads, rows, self.head_dim]
    }

    /// Shape of `v` and of its gradient.
    pub fn v_shape(&self) -> [usize; 4] {
        let [batch, rows] = self.kv_rows();
        [batch, self.kv_heads, rows, self.value_dim]
    }

    /// The bias's shape when nothing is broadcast; each axis may have length 1 instead.
    pub fn full_bias_shape(&self) -> [usize; 4] {
        [self.batch, self.q_heads, self.max_q_len(), self.max_kv_len()]
    }

    /// First axis and row count of the query storage.
    fn q_rows(&self) -> [usize; 2] {
        match &self.queries {
            Queries::Padded { len } => [self.batch, *len],
            Queries::Packed { cu_seqlens } => [1, cu_seqlens.last().copied().unwrap_or(0)],
        }
    }

    /// First axis and row count of the key storage.
    fn kv_rows(&self) -> [usize; 2] {
        match &self.keys {
            Keys::Padded { len, .. } => [self.batch, *len],
            Keys::Packed { cu_seqlens } => [1, cu_seqlens.last().copied().unwrap_or(0)],
            Keys::Paged { pages, page_size, .. } => [*pages, *page_size],
        }
    }

    /// Checks the problem for consistency.
    ///
    /// # Errors
    /// [`AttentionError::Spec`] names the field, its value and what was expected; [`AttentionError::Overflow`] a
    /// tensor whose element count does not fit.
    pub fn validate(&self) -> Result<(), AttentionError> {
        self.validate_heads()?;
        self.validate_queries()?;
        self.validate_keys()?;
        self.validate_numbers()?;
        self.validate_sizes()?;
        self.block_mask.as_ref().map_or(Ok(()), |mask| mask.validate(self))
    }

    fn validate_heads(&self) -> Result<(), AttentionError> {
        at_least_one("q_heads", self.q_heads)?;
        at_least_one("kv_heads", self.kv_heads)?;
        at_least_one("head_dim", self.head_dim)?;
        at_least_one("value_dim", self.value_dim)?;
        if !self.q_heads.is_multiple_of(self.kv_heads) {
            return Err(spec_error("kv_heads", self.kv_heads, format!("a divisor of q_heads = {}", self.q_heads)));
        }
        Ok(())
    }

    fn validate_queries(&self) -> Result<(), AttentionError> {
        match &self.queries {
            Queries::Padded { .. } => Ok(()),
            Queries::Packed { cu_seqlens } => offsets_are_sound("queries.cu_seqlens", cu_seqlens, self.batch),
        }
    }

    fn validate_keys(&self) -> Result<(), AttentionError> {
        match &self.keys {
            Keys::Packed { cu_seqlens } => offsets_are_sound("keys.cu_seqlens", cu_seqlens, self.batch),
            Keys::Padded { lengths: None, .. } => Ok(()),
            Keys::Padded { len, lengths: Some(lengths) } => {
                one_each("keys.lengths", lengths.len(), self.batch)?;
                match lengths.iter().find(|&&length| length > *len) {
                    Some(length) => Err(spec_error("keys.lengths", length, format!("at most kv_len = {len}"))),
                    None => Ok(()),
                }
            }
            Keys::Paged { pages, page_size, table, lengths } => {
                at_least_one("keys.page_size", *page_size)?;
                one_each("keys.table", table.len(), self.batch)?;
                one_each("keys.lengths", lengths.len(), self.batch)?;
                for (row, &length) in table.iter().zip(lengths) {
                    let used = length.div_ceil(*page_size);
                    let Some(row) = row.get(..used) else {
                        let expected = format!("{used} pages for {length} keys");
                        return Err(spec_error("keys.table", format!("{} pages", row.len()), expected));
                    };
                    if let Some(page) = row.iter().find(|&page| page >= pages) {
                        return Err(spec_error("keys.table", format!("page {page}"), format!("less than {pages}")));
                    }
                }
                Ok(())
            }
        }
    }

    fn validate_numbers(&self) -> Result<(), AttentionError> {
        if !self.scale.is_finite() {
            return Err(spec_error("scale", self.scale, "a finite number"));
        }
        if let Some(cap) = self.softcap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
            return Err(spec_error("softcap", cap, "a finite positive number"));
        }
        if let Some(p) = self.dropout.map(|dropout| dropout.p).filter(|p| !(0.0..1.0).contains(p)) {
            return Err(spec_error("dropout.p", p, "a probability in [0, 1)"));
        }
        if let Some(slopes) = &self.alibi {
            if slopes.len() != self.q_heads {
                let expected = format!("{}, one a query head", self.q_heads);
                return Err(spec_error("alibi", format!("{} slopes", slopes.len()), expected));
            }
            if let Some(slope) = slopes.iter().find(|slope| !slope.is_finite()) {
                return Err(spec_error("alibi", slope, "finite slopes"));
            }
        }
        Ok(())
    }

    fn validate_sizes(&self) -> Result<(), AttentionError> {
        // Coordinates key the dropout generator as 32-bit words, and a signed offset must hold their difference.
        for (field, count) in [("batch", self.batch), ("q_heads", self.q_heads)] {
            if u32::try_from(count.saturating_sub(1)).is_err() {
                return Err(spec_error(field, count, "at most 2^32"));
            }
        }
        for (field, length) in [("q_len", self.max_q_len()), ("kv_len", self.max_kv_len())] {
            if u32::try_from(length).is_err() {
                return Err(spec_error(field, length, "less than 2^32"));
            }
        }
        for (what, shape) in
            [("q", self.q_shape()), ("k", self.k_shape()), ("v", self.v_shape()), ("o", self.o_shape())]
        {
            // Bytes of the widest element must fit isize, as for any Rust allocation; a zero axis hides no overflow.
            let bytes = shape.iter().try_fold(8usize, |product, &axis| product.checked_mul(axis.max(1)));
            if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
                return Err(AttentionError::Overflow { what, got: format!("{shape:?}") });
            }
        }
        Ok(())
    }
}

impl BlockMask {
    /// The mask's entry for a block, broadcasting the first two axes.
    pub fn entry(&self, b: usize, h: usize, block_row: usize, block_column: usize) -> bool {
        let (batch, heads, ..) = self.blocks.dim();
        self.blocks[[if batch == 1 { 0 } else { b }, if heads == 1 { 0 } else { h }, block_row, block_column]]
    }

    fn validate(&self, spec: &AttentionSpec) -> Result<(), AttentionError> {
        at_least_one("block_mask.block_q", self.block_q)?;
        at_least_one("block_mask.block_k", self.block_k)?;
        let full = [
            spec.batch,
            spec.q_heads,
            spec.max_q_len().div_ceil(self.block_q),
            spec.max_kv_len().div_ceil(self.block_k),
        ];
        let got = self.blocks.shape();
        let fits = |axis: usize| got[axis] == full[axis] || (axis < 2 && got[axis] == 1);
        if (0..4).all(fits) {
            Ok(())
        } else {
            Err(spec_error("block_mask.blocks", format!("{got:?}"), format!("{full:?}, the first two may be 1")))
        }
    }
}

fn spec_error(field: &'static str, got: impl ToString, expected: impl ToString) -> AttentionError {
    AttentionError::Spec { field, got: got.to_string(), expected: expected.to_string() }
}

fn at_least_one(field: &'static str, value: usize) -> Result<(), AttentionError> {
    if value == 0 { Err(spec_error(field, 0, "at least 1")) } else { Ok(()) }
}

fn one_each(field: &'static str, got: usize, batch: usize) -> Result<(), AttentionError> {
    if got == batch {
        Ok(())
    } else {
        Err(spec_error(field, format!("{got} entries"), format!("{batch}, one a sequence")))
    }
}

/// `batch + 1` offsets from 0, never decreasing.
fn offsets_are_sound(field: &'static str, offsets: &[usize], batch: usize) -> Result<(), AttentionError> {
    // In 128 bits, for `batch` may be anything here.
    let expected = batch as u128 + 1;
    if offsets.len() as u128 != expected {
        return Err(spec_error(field, format!("{} entries", offsets.len()), format!("{expected}, batch + 1")));
    }
    if offsets[0] != 0 {
        return Err(spec_error(field, format!("a first entry of {}", offsets[0]), "0"));
    }
    match offsets.windows(2).find(|pair| pair[0] > pair[1]) {
        Some(pair) => Err(spec_error(field, format!("{} after {}", pair[1], pair[0]), "offsets that never decrease")),
        None => Ok(()),
    }
}
