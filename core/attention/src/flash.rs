//! FlashAttention as its paper states it: Algorithms 1 and 2 (forward), 4 (backward) and 5 (block-sparse).
//!
//! The outer loop runs over tiles of keys and values, the inner one over tiles of queries; `O`, `l` and `m` live in slow
//! memory between visits and `O` is kept normalised. Masks, windows and block masks skip tiles nobody sees, which is
//! Algorithm 5 for any mask. Later work swaps the loops; this order is kept because the paper's theorems count it.
//!
//! Line numbers in comments are those of Algorithm 1 unless another is named.

use crate::io::{Head, Io, axpy, constant};
use crate::online_softmax::RowState;
use crate::tiling::{Coverage, Tiles, coverage, key_range, query_range, tiles};
use crate::{AttentionError, AttentionForward, AttentionSpec, Inputs, Outputs};
use alloc::vec::Vec;
use core::ops::Range;
use ndarray::{Array2, Array3, Array4, ArrayViewMut1, Zip};
use tilewright_scalar::{Element, Real};

/// FlashAttention with a fast memory of a given size, which sets the tile sizes and changes nothing else but rounding.
///
/// ```
/// use ndarray::{Array3, Array4, array};
/// use tilewright_attention::{AttentionForward, AttentionSpec, Inputs, Outputs, flash::Flash};
/// let spec = AttentionSpec::dense(1, 1, 1, 2, 1);
/// let (q, k, v) = (array![[[[1.0f32]]]], array![[[[0.0], [0.0]]]], array![[[[2.0], [4.0]]]]);
/// let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
/// let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
/// Flash { memory: 4 }.forward(&spec, &Inputs::new(q.view(), k.view(), v.view()), out)?;
/// assert_eq!(o[[0, 0, 0, 0]], 3.0);
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flash {
    /// `M`: elements of fast memory, at least `4 · max(head_dim, value_dim)`.
    pub memory: usize,
}

impl Flash {
    /// Writes every element of `out`, and says how many elements moved between slow and fast memory.
    ///
    /// Over `N` queries and `S` keys, all visible, with `T_c = ⌈S/B_c⌉`, a head costs
    /// ```text
    /// reads   T_c·N·(d + d_v + 2) + S·(d + d_v) + 2N         writes   (T_c + 1)·N·(d_v + 2) + N
    /// ```
    /// which for `S = N`, `d_v = d` is `12 N²d²/M · (1 + 4/3d)` and terms linear in `N` (Theorem 2).
    ///
    /// # Errors
    /// As [`AttentionForward::forward`]; also if the fast memory is too small for tiles of one row.
    pub fn forward_counted<T: Element>(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        out: Outputs<'_, T>,
    ) -> Result<Io, AttentionError> {
        inputs.check(spec)?;
        out.check(spec)?;
        let sizes = Tiles::from_memory(self.memory, spec.head_dim, spec.value_dim)?; // line 1
        let mut io = Io::default();
        let mut slow = Slow::new(spec, inputs, &mut io);
        for (b, hk, keys) in key_tiles(spec, sizes) {
            let mut tile: Option<KeyTile<T::Accum>> = None;
            for (h, rows, coverage) in query_tiles(spec, sizes, b, hk, &keys) {
                let head = Head::new(spec, inputs, b, h);
                let tile = tile.get_or_insert_with(|| KeyTile::load(&head, keys.clone(), &mut io)); // line 6
                visit(&head, tile, &rows, coverage, &mut slow, &mut io);
            }
        }
        slow.finish(out, &mut io);
        Ok(io)
    }
}

impl<T: Element> AttentionForward<T> for Flash {
    fn forward(&self, spec: &AttentionSpec, inputs: &Inputs<'_, T>, out: Outputs<'_, T>) -> Result<(), AttentionError> {
        self.forward_counted(spec, inputs, out).map(|_| ())
    }
}

/// The outer loop (line 5): tiles of keys that any query sees, for every sequence and key/value head.
pub(crate) fn key_tiles(
    spec: &AttentionSpec,
    sizes: Tiles,
) -> impl Iterator<Item = (usize, usize, Range<usize>)> + use<'_> {
    let heads = (0..spec.batch).flat_map(|b| (0..spec.kv_heads).map(move |hk| (b, hk)));
    heads.flat_map(move |(b, hk)| tiles(key_range(spec, b, 0..spec.q_len(b)), sizes.k).map(move |keys| (b, hk, keys)))
}

/// The inner loop (line 7): tiles of queries that see any of these keys, for every query head of the group, and whether
/// they need a mask. What nobody sees is not visited (Algorithm 5, the test of `M_ij`).
pub(crate) fn query_tiles<'a>(
    spec: &'a AttentionSpec,
    sizes: Tiles,
    b: usize,
    hk: usize,
    keys: &'a Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>, Coverage)> + use<'a> {
    let group = spec.q_heads / spec.kv_heads;
    (hk * group..(hk + 1) * group).flat_map(move |h| {
        tiles(query_range(spec, b, keys.clone()), sizes.q).filter_map(move |rows| {
            let coverage = coverage(spec, b, h, rows.clone(), keys.clone());
            (coverage != Coverage::Empty).then_some((h, rows, coverage))
        })
    })
}

/// `K_j` and `V_j` in fast memory.
pub(crate) struct KeyTile<A> {
    pub(crate) keys: Range<usize>,
    pub(crate) k: Array2<A>,
    pub(crate) v: Array2<A>,
}

impl<A> KeyTile<A> {
    /// Line 6.
    pub(crate) fn load<T: Element<Accum = A>>(head: &Head<'_, '_, T>, keys: Range<usize>, io: &mut Io) -> Self {
        let k = io.load(head.inputs.k, head.key_slots(&keys));
        let v = io.load(head.inputs.v, head.key_slots(&keys));
        Self { keys, k, v }
    }
}

/// What the algorithm keeps in slow memory between visits, in the accumulator's precision.
struct Slow<A> {
    o: Array4<A>,
    /// `m` and `l`.
    states: Array3<RowState<A>>,
}

impl<A: crate::Accum> Slow<A> {
    /// Line 2.
    fn new<T: Element<Accum = A>>(spec: &AttentionSpec, inputs: &Inputs<'_, T>, io: &mut Io) -> Self {
        let o = Array4::from_elem(spec.o_shape(), constant(0.0));
        io.read(inputs.sink.map_or(0, |sink| sink.len()));
        let states = Array3::from_shape_fn(spec.lse_shape(), |(_, h, _)| {
            inputs.sink.map_or(RowState::new(), |sink| RowState::with_sink(sink[h]))
        });
        io.write(o.len() + 2 * states.len());
        Self { o, states }
    }

    /// Line 16, where `LSE = m + ln l` is all of `m` and `l` that the backward pass needs.
    fn finish<T: Element<Accum = A>>(&self, mut out: Outputs<'_, T>, io: &mut Io) {
        Zip::from(&mut out.o).and(&self.o).for_each(|to, from| *to = T::from_accum(*from));
        io.read(2 * self.states.len());
        Zip::from(&mut out.lse).and(&self.states).for_each(|lse, state| *lse = state.finish().1);
        io.write(self.states.len());
    }
}

/// Lines 8–13: one tile of queries meets one tile of keys.
fn visit<T: Element>(
    head: &Head<'_, '_, T>,
    tile: &KeyTile<T::Accum>,
    rows: &Range<usize>,
    coverage: Coverage,
    slow: &mut Slow<T::Accum>,
    io: &mut Io,
) {
    let q = io.load(head.inputs.q, head.query_slots(rows)); // line 8
    let mut o = io.load(slow.o.view(), head.query_slots(rows));
    let mut states: Vec<_> = head.query_slots(rows).map(|slot| slow.states[slot]).collect();
    io.read(2 * states.len());
    for (r, i) in rows.clone().enumerate() {
        let masked = <T::Accum as Real>::neg_infinity();
        let score =
            |(c, j)| if head.sees(coverage, i, j) { head.score(io, (i, j), q.row(r), tile.k.row(c)).0 } else { masked };
        let mut p: Vec<_> = tile.keys.clone().enumerate().map(score).collect(); // line 9
        let l_old = states[r].sum();
        let shrink = states[r].absorb(&mut p); // lines 10, 11
        let mut o_row = o.row_mut(r);
        rescale(&mut o_row, l_old * shrink);
        for (c, j) in tile.keys.clone().enumerate() {
            // A masked key's value may hold anything, and 0 · NaN is not 0.
            if head.sees(coverage, i, j) {
                let weight = head.dropout_factor(i, j) * p[c]; // Algorithm 2, line 14
                axpy(weight, tile.v.row(c), o_row.view_mut());
            }
        }
        rescale(&mut o_row, states[r].inverse_sum()); // line 12: `O = (l_old·e^{m_old − m_new}·O + P̃ V) / l_new`
    }
    io.store(o.view(), slow.o.view_mut(), head.query_slots(rows)); // line 12
    for (slot, state) in head.query_slots(rows).zip(&states) {
        slow.states[slot] = *state; // line 13
    }
    io.write(2 * states.len());
}

fn rescale<A: crate::Accum>(row: &mut ArrayViewMut1<'_, A>, factor: A) {
    row.mapv_inplace(|x| x * factor);
}
