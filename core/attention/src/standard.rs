//! Standard attention, the paper's Algorithm 0: `S` and `P` are written to slow memory and read back.

use crate::io::{Head, Io, axpy};
use crate::online_softmax::RowState;
use crate::tiling::Coverage;
use crate::{AttentionError, AttentionForward, AttentionSpec, Inputs, Outputs};
use core::iter::once;
use ndarray::{Array2, Array4};
use tilewright_scalar::{Element, Real};

/// Attention that materialises its `N × S` matrices.
///
/// Each operand of each of its three steps is read once, as if fast memory were large enough for that: a head costs
/// ```text
/// reads   N·d + S·d + S·d_v + 2NS         writes   2NS + N·d_v + N
/// ```
/// `4N² + 4Nd + N` for `S = N`, `d_v = d`: the `Θ(Nd + N²)` of Theorem 2, with the smallest constants it can have. Masks
/// save it nothing.
///
/// ```
/// use ndarray::{Array3, Array4};
/// use tilewright_attention::{AttentionSpec, Inputs, Outputs, standard::Standard};
/// let spec = AttentionSpec::dense(1, 1, 8, 8, 2);
/// let x = Array4::<f32>::zeros(spec.q_shape());
/// let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
/// let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
/// let io = Standard.forward_counted(&spec, &Inputs::new(x.view(), x.view(), x.view()), out)?;
/// assert_eq!(io.total(), 4 * 8 * 8 + 4 * 8 * 2 + 8);
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Standard;

impl Standard {
    /// Writes every element of `out`, and says how many elements moved between slow and fast memory.
    ///
    /// # Errors
    /// As [`AttentionForward::forward`].
    pub fn forward_counted<T: Element>(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        mut out: Outputs<'_, T>,
    ) -> Result<Io, AttentionError> {
        inputs.check(spec)?;
        out.check(spec)?;
        let mut io = Io::default();
        for (b, h) in (0..spec.batch).flat_map(|b| (0..spec.q_heads).map(move |h| (b, h))) {
            let head = Head::new(spec, inputs, b, h);
            let s = scores(&head, &mut io);
            let p = softmax(&head, &s, &mut out, &mut io);
            weigh(&head, &p, &mut out, &mut io);
        }
        Ok(io)
    }
}

impl<T: Element> AttentionForward<T> for Standard {
    fn forward(&self, spec: &AttentionSpec, inputs: &Inputs<'_, T>, out: Outputs<'_, T>) -> Result<(), AttentionError> {
        self.forward_counted(spec, inputs, out).map(|_| ())
    }
}

/// A matrix in slow memory, of this head's queries by its keys.
fn matrix<T: Element>(head: &Head<'_, '_, T>) -> Array4<T::Accum> {
    let shape = [1, 1, head.spec.q_len(head.b), head.spec.kv_len(head.b)];
    Array4::from_elem(shape, <T::Accum as Real>::neg_infinity())
}

/// Line 1: `S = τ Q Kᵀ`, masked.
fn scores<T: Element>(head: &Head<'_, '_, T>, io: &mut Io) -> Array4<T::Accum> {
    let mut s = matrix(head);
    let (rows, keys) = (0..head.spec.q_len(head.b), 0..head.spec.kv_len(head.b));
    let k = io.load(head.inputs.k, head.key_slots(&keys));
    for i in rows {
        let q = io.load(head.inputs.q, head.query_slots(&(i..i + 1)));
        let mut s_row = Array2::from_elem((1, keys.len()), <T::Accum as Real>::neg_infinity());
        for j in keys.clone().filter(|&j| head.sees(Coverage::Partial, i, j)) {
            s_row[[0, j]] = head.score(io, (i, j), q.row(0), k.row(j)).0;
        }
        io.store(s_row.view(), s.view_mut(), once([0, 0, i]));
    }
    s
}

/// Line 2: `P = softmax(S)`, and LSE on the way.
fn softmax<T: Element>(
    head: &Head<'_, '_, T>,
    s: &Array4<T::Accum>,
    out: &mut Outputs<'_, T>,
    io: &mut Io,
) -> Array4<T::Accum> {
    let mut p = matrix(head);
    let sink = head.inputs.sink.map(|sink| sink[head.h]);
    io.read(usize::from(sink.is_some()));
    for (i, slot) in head.query_slots(&(0..head.spec.q_len(head.b))).enumerate() {
        let mut row = io.load(s.view(), once([0, 0, i]));
        let mut state = sink.map_or(RowState::new(), RowState::with_sink);
        if let Some(row) = row.as_slice_mut() {
            state.absorb(row);
        }
        let (inverse, lse) = state.finish();
        row.mapv_inplace(|weight| weight * inverse);
        io.store(row.view(), p.view_mut(), once([0, 0, i]));
        out.lse[slot] = lse;
        io.write(1);
    }
    p
}

/// Line 3: `O = (Z ∘ P) V`.
fn weigh<T: Element>(head: &Head<'_, '_, T>, p: &Array4<T::Accum>, out: &mut Outputs<'_, T>, io: &mut Io) {
    let keys = 0..head.spec.kv_len(head.b);
    let v = io.load(head.inputs.v, head.key_slots(&keys));
    for i in 0..head.spec.q_len(head.b) {
        let p_row = io.load(p.view(), once([0, 0, i]));
        let mut o = Array2::from_elem((1, head.spec.value_dim), crate::io::constant(0.0));
        for j in keys.clone().filter(|&j| head.sees(Coverage::Partial, i, j)) {
            axpy(head.dropout_factor(i, j) * p_row[[0, j]], v.row(j), o.row_mut(0));
        }
        io.store(o.view(), out.o.view_mut(), head.query_slots(&(i..i + 1)));
    }
}
