//! The keys or the values of a chunk, read where they lie if they lie well.

use super::few;
use super::float::{Float, Stored, Widen};
use super::isa::Isa;
use super::kernels::{self, LANES, Left, Start};
use super::scores::Problem;
use super::tile::{self, Tile};
use ndarray::{ArrayView4, s};
use std::ops::Range;
use tilewright_attention::tiling::tiles;
use tilewright_attention::{AttentionSpec, Keys};

/// Rows of one key/value head: in their own format where they lie, or packed where they lie awkwardly.
#[derive(Debug)]
pub(super) enum Rows<'a, T: Stored> {
    Lying(Stretches<'a, T>),
    Packed(Stretches<'a, T::Accum>),
}

/// Stretches of consecutive rows, in order: one, or one a page.
#[derive(Debug)]
pub(super) struct Stretches<'a, B>(Vec<(Range<usize>, Left<'a, B>)>);

/// Calls the same of whichever stretches there are.
macro_rules! of_either {
    ($rows:expr, $stretches:ident => $call:expr) => {
        match $rows {
            Rows::Lying($stretches) => $call,
            Rows::Packed($stretches) => $call,
        }
    };
}

impl<'a, T: Stored> Rows<'a, T> {
    /// Rows `keys` of a tensor stored as keys are; `scratch` takes what cannot be read as it lies.
    pub(super) fn new(
        problem: &Problem<'_, '_, T>,
        tensor: ArrayView4<'a, T>,
        at: [usize; 2],
        keys: &Range<usize>,
        scratch: &'a mut Tile<T::Accum>,
    ) -> Self {
        if let Some(stretches) = Stretches::lying(problem.spec, tensor, at, keys) {
            return Self::Lying(stretches);
        }
        tile::keys(problem.spec, tensor, at, keys).pack(problem.isa, scratch);
        let rows = Left { data: scratch.rows_from(0), stride: scratch.stride() };
        Self::Packed(Stretches(vec![(keys.clone(), rows)]))
    }

    /// `S[r, j − keys.start] ← q_r · k_j`.
    pub(super) fn dots(&self, isa: Isa, q: &[&[T::Accum]], keys: &Range<usize>, s: &mut [T::Accum]) {
        of_either!(self, stretches => stretches.dots(isa, q, keys, s));
    }

    /// `O ← start + P·V` over these keys, at least one, for `rows` rows of weights.
    pub(super) fn weigh(
        &self,
        isa: Isa,
        (p, rows): (&[T::Accum], usize),
        keys: &Range<usize>,
        o: (&mut [T::Accum], usize),
        columns: usize,
        start: Start<T::Accum>,
    ) {
        of_either!(self, stretches => stretches.weigh(isa, (p, rows), keys, o, columns, start));
    }

    /// Whether every element is finite.
    pub(super) fn finite(&self, isa: Isa) -> bool {
        of_either!(self, stretches => stretches.finite(isa))
    }

    /// Row `j`.
    pub(super) fn value(&self, j: usize, out: &mut [T::Accum]) {
        of_either!(self, stretches => stretches.value(j, out));
    }
}

impl<'a, T: Stored> Stretches<'a, T> {
    /// The rows as they lie, if each is contiguous and, as kernels read them, of whole lanes.
    fn lying(
        spec: &AttentionSpec,
        tensor: ArrayView4<'a, T>,
        [b, hk]: [usize; 2],
        keys: &Range<usize>,
    ) -> Option<Self> {
        let columns = tensor.dim().3;
        let every = match &spec.keys {
            Keys::Paged { page_size, .. } => *page_size,
            Keys::Padded { .. } | Keys::Packed { .. } => usize::MAX,
        };
        let stretch = |keys: Range<usize>| {
            let (slot, row) = spec.key_slot(b, keys.start);
            let rows = tensor.slice_move(s![slot, hk, row..row + keys.len(), ..]);
            Some((keys, Left { data: rows.to_slice()?, stride: columns }))
        };
        let whole = columns.is_multiple_of(LANES);
        whole.then(|| tiles(keys.clone(), every).map(stretch).collect::<Option<_>>().map(Self)).flatten()
    }
}

impl<'a, B: Copy> Stretches<'a, B> {
    /// What there is of `keys`, stretch by stretch, each with its rows.
    fn of(&self, keys: &Range<usize>) -> impl Iterator<Item = (Range<usize>, Left<'a, B>)> {
        self.0.iter().filter_map(|(own, rows)| {
            let shared = own.start.max(keys.start)..own.end.min(keys.end);
            let rows = Left { data: rows.data.get((shared.start - own.start) * rows.stride..)?, stride: rows.stride };
            (!shared.is_empty()).then_some((shared, rows))
        })
    }

    fn dots<A: Float>(&self, isa: Isa, q: &[&[A]], keys: &Range<usize>, s: &mut [A])
    where
        B: Widen<A>,
    {
        for (own, k) in self.of(keys) {
            few::dots(isa, q, k, own.len(), &mut s[own.start - keys.start..]);
        }
    }

    fn weigh<A: Float>(
        &self,
        isa: Isa,
        (p, rows): (&[A], usize),
        keys: &Range<usize>,
        (o, stride): (&mut [A], usize),
        columns: usize,
        start: Start<A>,
    ) where
        B: Widen<A>,
    {
        let mut start = start;
        for (own, v) in self.of(keys) {
            few::weigh(isa, &p[own.start - keys.start..], rows, v, own.len(), o, stride, columns, start);
            start = Start::Sum;
        }
    }

    fn finite<A: Float>(&self, isa: Isa) -> bool
    where
        B: Widen<A>,
    {
        self.0.iter().all(|(own, rows)| kernels::all_finite::<A, B>(isa, &rows.data[..own.len() * rows.stride]))
    }

    fn value<A: Float>(&self, j: usize, out: &mut [A])
    where
        B: Widen<A>,
    {
        for (_, row) in self.of(&(j..j + 1)) {
            out.iter_mut().zip(row.data).for_each(|(to, x)| *to = x.widen());
        }
    }
}
