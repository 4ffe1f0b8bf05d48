//! FlashAttention's backward pass, Algorithm 4: `P` is recomputed tile by tile from `Q`, `K` and LSE.
//!
//! Line numbers in comments are those of Algorithm 4. `l` and `m` come as `LSE = m + ln l`, and a gradient of LSE enters
//! through `D`: `∂LSE_i/∂s_ij = P_ij`, so `dS = P ∘ (dP − (D − dLSE))`.

use crate::flash::{Flash, KeyTile, key_tiles, query_tiles};
use crate::io::{Head, Io, axpy, constant, dot};
use crate::tensors::broadcast_index;
use crate::tiling::{Coverage, Tiles};
use crate::{Accum, AttentionBackward, AttentionError, AttentionSpec, Gradients, Inputs, Keys, Saved};
use alloc::vec::Vec;
use core::ops::Range;
use ndarray::{Array1, Array2, Array4, Zip};
use tilewright_scalar::{Element, Real};

impl Flash {
    /// Writes every element of `gradients`, and says how many elements moved between slow and fast memory.
    ///
    /// Over `N` queries and `S` keys, all visible, with `T_c = ⌈S/B_c⌉`, a head (its own key/value head) costs
    /// ```text
    /// reads   T_c·N·(2d + 2d_v + 1) + S·(d + d_v)            writes   (T_c + 1)·N·d + 2S·(d + d_v)
    /// ```
    /// which for `S = N`, `d_v = d` is `20 N²d²/M · (1 + 1/5d)` and terms linear in `N` (Theorem 5). Tiles have the
    /// forward's sizes, as in the paper, so fast memory holds twice as many of them.
    ///
    /// # Errors
    /// As [`AttentionBackward::backward`]; also if the fast memory is too small for tiles of one row.
    pub fn backward_counted<T: Element>(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        saved: &Saved<'_, T>,
        gradients: Gradients<'_, T>,
    ) -> Result<Io, AttentionError> {
        inputs.check(spec)?;
        saved.check(spec)?;
        gradients.check(spec, inputs)?;
        let sizes = Tiles::from_memory(self.memory, spec.head_dim, spec.value_dim)?; // line 2
        let mut io = Io::default();
        let mut slow = SlowGradients::new(spec, &gradients, &mut io);
        for (b, hk, keys) in key_tiles(spec, sizes) {
            let mut tile: Option<GradientTile<T::Accum>> = None;
            for (h, rows, coverage) in query_tiles(spec, sizes, b, hk, &keys) {
                let head = Head::new(spec, inputs, b, h);
                let tile = tile.get_or_insert_with(|| GradientTile::load(&head, keys.clone(), &mut io));
                visit(&head, saved, tile, &rows, coverage, &mut slow, &mut io);
            }
            if let Some(tile) = tile {
                tile.store(&Head::new(spec, inputs, b, hk * (spec.q_heads / spec.kv_heads)), &mut slow, &mut io);
            }
        }
        slow.add_sink_gradients(spec, inputs, saved, &mut io);
        slow.finish(gradients);
        Ok(io)
    }
}

impl<T: Element> AttentionBackward<T> for Flash {
    fn backward(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        saved: &Saved<'_, T>,
        gradients: Gradients<'_, T>,
    ) -> Result<(), AttentionError> {
        self.backward_counted(spec, inputs, saved, gradients).map(|_| ())
    }
}

/// `K_j`, `V_j` and the gradients that gather for them, in fast memory.
struct GradientTile<A> {
    kv: KeyTile<A>,
    d_k: Array2<A>,
    d_v: Array2<A>,
}

impl<A: Accum> GradientTile<A> {
    /// Lines 7 and 8.
    fn load<T: Element<Accum = A>>(head: &Head<'_, '_, T>, keys: Range<usize>, io: &mut Io) -> Self {
        let kv = KeyTile::load(head, keys, io);
        let (d_k, d_v) = (Array2::from_elem(kv.k.dim(), constant(0.0)), Array2::from_elem(kv.v.dim(), constant(0.0)));
        Self { kv, d_k, d_v }
    }

    /// Line 24. Rows of pages are added to: another sequence, or another place of this one, may use them too.
    fn store<T: Element<Accum = A>>(&self, head: &Head<'_, '_, T>, slow: &mut SlowGradients<A>, io: &mut Io) {
        for (tile, tensor) in [(&self.d_k, &mut slow.k), (&self.d_v, &mut slow.v)] {
            let slots = head.key_slots(&self.kv.keys);
            if matches!(head.spec.keys, Keys::Paged { .. }) {
                io.add(tile.view(), tensor.view_mut(), slots);
            } else {
                io.store(tile.view(), tensor.view_mut(), slots);
            }
        }
    }
}

/// Gradients in slow memory, in the accumulator's precision.
struct SlowGradients<A> {
    q: Array4<A>,
    k: Array4<A>,
    v: Array4<A>,
    bias: Option<Array4<A>>,
    sink: Option<Array1<A>>,
}

impl<A: Accum> SlowGradients<A> {
    /// Line 5.
    fn new<T: Element<Accum = A>>(spec: &AttentionSpec, gradients: &Gradients<'_, T>, io: &mut Io) -> Self {
        let zero = constant(0.0);
        let slow = Self {
            q: Array4::from_elem(spec.q_shape(), zero),
            k: Array4::from_elem(spec.k_shape(), zero),
            v: Array4::from_elem(spec.v_shape(), zero),
            bias: gradients.d_bias.as_ref().map(|d_bias| Array4::from_elem(d_bias.dim(), zero)),
            sink: gradients.d_sink.as_ref().map(|d_sink| Array1::from_elem(d_sink.len(), zero)),
        };
        io.write(slow.q.len() + slow.k.len() + slow.v.len() + slow.bias.as_ref().map_or(0, Array4::len));
        slow
    }

    /// `dSink_h = Σ_i exp(sink_h − LSE_i) (dLSE_i − D_i)`: the sink is a key whose value is 0, so its `dP` is 0.
    fn add_sink_gradients<T: Element<Accum = A>>(
        &mut self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        saved: &Saved<'_, T>,
        io: &mut Io,
    ) {
        let (Some(d_sink), Some(sink)) = (&mut self.sink, inputs.sink) else { return };
        for (b, h) in (0..spec.batch).flat_map(|b| (0..spec.q_heads).map(move |h| (b, h))) {
            let head = Head::new(spec, inputs, b, h);
            io.read(1);
            for i in 0..spec.q_len(b) {
                let row = SavedRows::load(&head, saved, &(i..i + 1), io);
                // A row that saw no key has `O = 0` and passes nothing through it, whatever its `dO` holds.
                let blind = row.o.iter().all(|o| *o == constant(0.0));
                let d = if blind { constant(0.0) } else { row.d(0) };
                d_sink[h] += exp_below(sink[h], row.lse[0]) * (row.d_lse[0] - d);
            }
        }
        io.write(d_sink.len());
    }

    /// Line 26.
    fn finish<T: Element<Accum = A>>(&self, gradients: Gradients<'_, T>) {
        let Gradients { mut d_q, mut d_k, mut d_v, d_bias, d_sink } = gradients;
        for (to, from) in [(&mut d_q, &self.q), (&mut d_k, &self.k), (&mut d_v, &self.v)] {
            Zip::from(to).and(from).for_each(|to, from| *to = T::from_accum(*from));
        }
        if let (Some(mut to), Some(from)) = (d_bias, &self.bias) {
            Zip::from(&mut to).and(from).for_each(|to, from| *to = T::from_accum(*from));
        }
        if let (Some(mut to), Some(from)) = (d_sink, &self.sink) {
            to.assign(from);
        }
    }
}

/// Rows of what the forward pass left and of the gradients that flow in, in fast memory.
struct SavedRows<A> {
    o: Array2<A>,
    d_o: Array2<A>,
    lse: Vec<A>,
    d_lse: Vec<A>,
}

impl<A: Accum> SavedRows<A> {
    /// Line 10.
    fn load<T: Element<Accum = A>>(
        head: &Head<'_, '_, T>,
        saved: &Saved<'_, T>,
        rows: &Range<usize>,
        io: &mut Io,
    ) -> Self {
        let (o, d_o) = (io.load(saved.o, head.query_slots(rows)), io.load(saved.d_o, head.query_slots(rows)));
        let lse: Vec<A> = head.query_slots(rows).map(|slot| saved.lse[slot]).collect();
        io.read(lse.len() * if saved.d_lse.is_some() { 2 } else { 1 });
        let d_lse = |slot: [usize; 3]| saved.d_lse.map_or(constant(0.0), |d_lse| d_lse[slot]);
        Self { o, d_o, lse, d_lse: head.query_slots(rows).map(d_lse).collect() }
    }

    /// Line 19: `D_i = rowsum(dO ∘ O)`.
    fn d(&self, r: usize) -> A {
        dot(self.d_o.row(r), self.o.row(r))
    }
}

/// Lines 10–22: one tile of queries meets one tile of keys.
fn visit<T: Element>(
    head: &Head<'_, '_, T>,
    saved: &Saved<'_, T>,
    tile: &mut GradientTile<T::Accum>,
    rows: &Range<usize>,
    coverage: Coverage,
    slow: &mut SlowGradients<T::Accum>,
    io: &mut Io,
) {
    let q = io.load(head.inputs.q, head.query_slots(rows)); // line 10
    let from_forward = SavedRows::load(head, saved, rows, io);
    let mut d_q = Array2::from_elem(q.dim(), constant(0.0));
    for (r, i) in rows.clone().enumerate() {
        let d_o = from_forward.d_o.row(r);
        let d = from_forward.d(r) - from_forward.d_lse[r]; // line 19
        for (c, j) in tile.kv.keys.clone().enumerate() {
            if !head.sees(coverage, i, j) {
                continue; // line 12
            }
            let (s, slope) = head.score(io, (i, j), q.row(r), tile.kv.k.row(c)); // line 11
            let p = exp_below(s, from_forward.lse[r]); // line 13
            let z = head.dropout_factor(i, j); // line 14
            axpy(z * p, d_o, tile.d_v.row_mut(c)); // lines 15, 16
            let d_p = z * dot(d_o, tile.kv.v.row(c)); // lines 17, 18
            let d_s = p * (d_p - d); // line 20
            if let Some(d_bias) = &mut slow.bias {
                let index = broadcast_index(d_bias.dim(), head.b, head.h, i, j);
                d_bias[index] += d_s;
                io.read(1);
                io.write(1);
            }
            let d_product = head.scale() * slope * d_s;
            axpy(d_product, tile.kv.k.row(c), d_q.row_mut(r)); // line 21
            axpy(d_product, q.row(r), tile.d_k.row_mut(c)); // line 22
        }
    }
    io.add(d_q.view(), slow.q.view_mut(), head.query_slots(rows)); // line 21
}

/// `exp(s − LSE)`; 0 where the row saw nothing, for `−∞ − −∞` is not a number.
fn exp_below<A: Real>(s: A, lse: A) -> A {
    if lse == A::neg_infinity() { A::zero() } else { (s - lse).exp() }
}
