//! Slow and fast memory, and the count of what moves between them.
//!
//! The paper's model of a GPU: tensors live in a slow memory (HBM), arithmetic happens in a fast one (SRAM) of `M`
//! elements. Here both are ordinary memory, but a tile reaches the arithmetic only through [`Io`], which counts its
//! elements as it copies them; the count is that of the program, not of a formula. Not counted: the block mask (one bit
//! a tile), dropout (regenerated from a counter), and the last rounding to a storage format narrower than the
//! accumulator.

use crate::dropout::DropoutMask;
use crate::tensors::{row, row_mut};
use crate::tiling::Coverage;
use crate::{AttentionSpec, Inputs};
use core::ops::{AddAssign, Range};
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayView4, ArrayViewMut4};
use tilewright_scalar::{Element, Real};

/// Elements moved between slow and fast memory.
///
/// ```
/// use ndarray::Array4;
/// use tilewright_attention::{AttentionSpec, Inputs, Outputs, flash::Flash};
/// let spec = AttentionSpec::dense(1, 1, 8, 8, 2);
/// let zeros = Array4::<f32>::zeros(spec.q_shape());
/// let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), ndarray::Array3::zeros(spec.lse_shape()));
/// let inputs = Inputs::new(zeros.view(), zeros.view(), zeros.view());
/// // 32 elements of fast memory hold 4 rows of Q, K, V and O: two tiles of keys, Q and O are read twice.
/// let io = Flash { memory: 32 }.forward_counted(&spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view_mut() })?;
/// assert_eq!(io.reads, 2 * 8 * (2 + 2 + 2) + 8 * (2 + 2) + 2 * 8);
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Io {
    /// Elements loaded from slow memory.
    pub reads: u64,
    /// Elements stored to slow memory.
    pub writes: u64,
}

impl Io {
    /// Reads and writes.
    pub fn total(self) -> u64 {
        self.reads + self.writes
    }

    /// Counts `elements` loaded.
    pub(crate) fn read(&mut self, elements: usize) {
        self.reads += elements as u64;
    }

    /// Counts `elements` stored.
    pub(crate) fn write(&mut self, elements: usize) {
        self.writes += elements as u64;
    }

    /// Loads rows of a tensor as a tile.
    pub(crate) fn load<T: Element>(
        &mut self,
        tensor: ArrayView4<'_, T>,
        slots: impl ExactSizeIterator<Item = [usize; 3]>,
    ) -> Array2<T::Accum> {
        let mut tile = Array2::from_elem((slots.len(), tensor.dim().3), constant(0.0));
        self.read(tile.len());
        for (mut to, slot) in tile.rows_mut().into_iter().zip(slots) {
            to.zip_mut_with(&row(tensor, slot), |to, from| *to = from.to_accum());
        }
        tile
    }

    /// Stores a tile over rows of a tensor.
    pub(crate) fn store<T: Element>(
        &mut self,
        tile: ArrayView2<'_, T::Accum>,
        mut tensor: ArrayViewMut4<'_, T>,
        slots: impl ExactSizeIterator<Item = [usize; 3]>,
    ) {
        self.write(tile.len());
        for (from, slot) in tile.rows().into_iter().zip(slots) {
            row_mut(tensor.view_mut(), slot).zip_mut_with(&from, |to, from| *to = T::from_accum(*from));
        }
    }

    /// Adds a tile to rows of a tensor: each row is loaded and stored.
    pub(crate) fn add<T: Element>(
        &mut self,
        tile: ArrayView2<'_, T::Accum>,
        mut tensor: ArrayViewMut4<'_, T>,
        slots: impl ExactSizeIterator<Item = [usize; 3]>,
    ) {
        self.read(tile.len());
        self.write(tile.len());
        for (from, slot) in tile.rows().into_iter().zip(slots) {
            let add = |to: &mut T, from: &T::Accum| *to = T::from_accum(to.to_accum() + *from);
            row_mut(tensor.view_mut(), slot).zip_mut_with(&from, add);
        }
    }
}

impl AddAssign for Io {
    fn add_assign(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
    }
}

/// One query head of one sequence: where its rows lie and how its scores are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a, 'i, T: Element> {
    pub(crate) spec: &'a AttentionSpec,
    pub(crate) inputs: &'a Inputs<'i, T>,
    pub(crate) b: usize,
    pub(crate) h: usize,
    dropout: Option<DropoutMask>,
}

impl<'a, 'i, T: Element> Head<'a, 'i, T> {
    pub(crate) fn new(spec: &'a AttentionSpec, inputs: &'a Inputs<'i, T>, b: usize, h: usize) -> Self {
        Self { spec, inputs, b, h, dropout: spec.dropout.map(DropoutMask::new) }
    }

    /// Where the rows of these queries, and of `O`, `dO`, `dQ`, are stored.
    pub(crate) fn query_slots(&self, rows: &Range<usize>) -> impl ExactSizeIterator<Item = [usize; 3]> {
        let Self { spec, b, h, .. } = *self;
        rows.clone().map(move |i| {
            let (qb, qi) = spec.query_slot(b, i);
            [qb, h, qi]
        })
    }

    /// Where the rows of these keys and values, and of `dK`, `dV`, are stored.
    pub(crate) fn key_slots(&self, keys: &Range<usize>) -> impl ExactSizeIterator<Item = [usize; 3]> {
        let Self { spec, b, h, .. } = *self;
        keys.clone().map(move |j| {
            let (kb, kj) = spec.key_slot(b, j);
            [kb, spec.kv_head(h), kj]
        })
    }

    /// Whether query `i` sees key `j`, both in a tile of this coverage.
    pub(crate) fn sees(&self, coverage: Coverage, i: usize, j: usize) -> bool {
        coverage == Coverage::Full || self.spec.visible(self.b, self.h, i, j)
    }

    /// The score `s_ij` of a visible pair, and `∂s_ij / ∂(τ q_i·k_j)`.
    pub(crate) fn score(
        &self,
        io: &mut Io,
        (i, j): (usize, usize),
        q: ArrayView1<'_, T::Accum>,
        k: ArrayView1<'_, T::Accum>,
    ) -> (T::Accum, T::Accum) {
        let mut s = self.scale() * dot(q, k);
        let mut slope = constant(1.0);
        if let Some(cap) = self.spec.softcap.map(constant) {
            let t = (s / cap).tanh();
            s = cap * t;
            slope -= t * t;
        }
        if let Some(bias) = self.inputs.bias_at(self.b, self.h, i, j) {
            io.read(1);
            s += bias.to_accum();
        }
        if self.spec.alibi.is_some() {
            s += constant(self.spec.alibi(self.b, self.h, i, j));
        }
        (s, slope)
    }

    /// `τ`.
    pub(crate) fn scale(&self) -> T::Accum {
        constant(self.spec.scale)
    }

    /// `Z_ij`, 1 without dropout.
    pub(crate) fn dropout_factor(&self, i: usize, j: usize) -> T::Accum {
        constant(self.dropout.map_or(1.0, |mask| mask.factor(self.b, self.h, i, j)))
    }
}

/// The nearest accumulator to a number. (An accumulator is a [`Real`] and an [`Element`], and both have `from_f64`.)
pub(crate) fn constant<A: Real>(x: f64) -> A {
    A::from_f64(x)
}

/// Inner product, left to right.
pub(crate) fn dot<A: Real>(x: ArrayView1<'_, A>, y: ArrayView1<'_, A>) -> A {
    x.iter().zip(y).fold(A::zero(), |sum, (x, y)| sum + *x * *y)
}

/// `y += a·x`.
pub(crate) fn axpy<A: Real>(a: A, x: ArrayView1<'_, A>, mut y: ndarray::ArrayViewMut1<'_, A>) {
    y.zip_mut_with(&x, |y, x| *y += a * *x);
}
