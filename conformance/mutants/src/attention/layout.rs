//! Reading: which head, which sequence's rows, which page, at which address.

use crate::attention::Fault;
use crate::attention::arithmetic::Arithmetic;
use ndarray::ArrayView4;
use tilewright_attention::dropout::DropoutMask;
use tilewright_attention::tensors::row;
use tilewright_attention::{AttentionSpec, Inputs, Keys, Queries};
use tilewright_scalar::{Element, Real};

/// Which way the kernel is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    Backward,
}

/// A problem as the kernel at hand understands it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem<'a, 'i, T: Element> {
    pub(crate) spec: &'a AttentionSpec,
    pub(crate) inputs: Inputs<'i, T>,
    pub(crate) by: Arithmetic,
    pub(crate) pass: Pass,
    pub(crate) dropout: Option<DropoutMask>,
}

/// Q, K and V of one head of one sequence, in the accumulator, row by row.
#[derive(Clone, Debug)]
pub(crate) struct Head<A> {
    pub(crate) b: usize,
    pub(crate) h: usize,
    pub(crate) q_len: usize,
    pub(crate) kv_len: usize,
    pub(crate) d: usize,
    pub(crate) dv: usize,
    /// Queries as scores see them: scaled, if the variant scales queries.
    pub(crate) q: Vec<A>,
    /// Queries as gradients see them.
    pub(crate) q_raw: Vec<A>,
    pub(crate) k: Vec<A>,
    pub(crate) v: Vec<A>,
}

impl<'a, 'i, T: Element> Problem<'a, 'i, T> {
    pub(crate) fn new(spec: &'a AttentionSpec, inputs: &Inputs<'i, T>, by: &Arithmetic, pass: Pass) -> Self {
        Self { spec, inputs: *inputs, by: *by, pass, dropout: spec.dropout.map(DropoutMask::new) }
    }

    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.by.is(fault)
    }

    pub(crate) fn kv_head(&self, h: usize) -> usize {
        let interleaved =
            self.is(Fault::GqaInterleaved) || (self.is(Fault::BackwardGqaInterleaved) && self.pass == Pass::Backward);
        if interleaved { h % self.spec.kv_heads } else { self.spec.kv_head(h) }
    }

    /// Keys the kernel takes sequence `b` to have.
    pub(crate) fn kv_len(&self, b: usize) -> usize {
        match &self.spec.keys {
            Keys::Padded { len, .. } if self.is(Fault::LengthsIgnored) => *len,
            Keys::Paged { page_size, .. } if self.is(Fault::PageLengthRoundedUp) => {
                self.spec.kv_len(b).next_multiple_of(*page_size)
            }
            _ => self.spec.kv_len(b),
        }
    }

    /// Where the kernel reads query `i` of sequence `b`.
    fn query_slot(&self, b: usize, i: usize) -> (usize, usize) {
        let (qb, qi) = self.spec.query_slot(b, i);
        match self.spec.queries {
            Queries::Packed { .. } if self.is(Fault::QueryOffsetsOffByOne) => (qb, qi - usize::from(b > 0 && qi > 0)),
            _ => (qb, qi),
        }
    }

    /// Where the kernel reads key `j` of sequence `b`.
    fn key_slot(&self, b: usize, j: usize) -> (usize, usize) {
        let (kb, kj) = self.spec.key_slot(b, j);
        match &self.spec.keys {
            Keys::Padded { .. } if self.is(Fault::KeysOfFirstBatch) => (0, kj),
            Keys::Packed { .. } if self.is(Fault::KeyOffsetsOffByOne) => (kb, kj - usize::from(b > 0 && kj > 0)),
            Keys::Paged { page_size, table, .. } if self.is(Fault::PageTableOfNeighbour) => {
                let neighbour = &table[(b + 1) % table.len()];
                (neighbour.get(j / page_size).copied().unwrap_or(kb), kj)
            }
            Keys::Paged { page_size, table, lengths, .. } if self.is(Fault::LastPartialPage) => {
                let page = j / page_size;
                let partial = (page + 1) * page_size > lengths[b];
                (if partial && page > 0 { table[b][page - 1] } else { kb }, kj)
            }
            _ => (kb, kj),
        }
    }

    /// One head of one sequence.
    pub(crate) fn load_head<A: Real>(&self, b: usize, h: usize) -> Head<A> {
        let (d, dv, hk) = (self.spec.head_dim, self.spec.value_dim, self.kv_head(h));
        let (q_len, kv_len) = (self.spec.q_len(b), self.kv_len(b));
        let (mut q, mut k, mut v) =
            (Vec::with_capacity(q_len * d), Vec::with_capacity(kv_len * d), Vec::with_capacity(kv_len * dv));
        for i in 0..q_len {
            let (qb, qi) = self.query_slot(b, i);
            q.extend((0..d).map(|c| load::<T, A>(self.read_q(qb, h, qi, c))));
        }
        for j in 0..kv_len {
            let (kb, kj) = self.key_slot(b, j);
            k.extend((0..d).map(|c| load::<T, A>(self.read_k(kb, hk, kj, c))));
            v.extend((0..dv).map(|c| load::<T, A>(self.read_v(kb, hk, kj, c))));
        }
        let scale = A::from_f64(self.scale());
        let scaled = self.by.variant.scales_queries.then(|| q.iter().map(|&q| q * scale).collect());
        Head { b, h, q_len, kv_len, d, dv, q: scaled.unwrap_or_else(|| q.clone()), q_raw: q, k, v }
    }

    fn read_q(&self, b: usize, h: usize, i: usize, c: usize) -> T {
        let q = self.inputs.q;
        if self.is(Fault::QueryRowStrideAssumed) {
            let strides = [q.strides()[0], q.strides()[1], q.shape()[3] as isize, 1];
            return at_address(q, q.strides(), address(&strides, [b, h, i, c]));
        }
        q[[b, h, i, c]]
    }

    fn read_k(&self, b: usize, h: usize, j: usize, c: usize) -> T {
        let k = self.inputs.k;
        if self.is(Fault::KeysAssumedContiguous) {
            return at_address(k, k.strides(), address(&standard_strides(k.shape()), [b, h, j, c]));
        }
        k[[b, h, j, c]]
    }

    fn read_v(&self, b: usize, h: usize, j: usize, c: usize) -> T {
        let v = self.inputs.v;
        if self.is(Fault::ValueHeadStrideOfKeys) {
            let strides = standard_strides(v.shape());
            let head_stride = (v.shape()[2] * self.spec.head_dim) as isize;
            return at_address(v, &strides, address(&[strides[0], head_stride, strides[2], 1], [b, h, j, c]));
        }
        v[[b, h, j, c]]
    }

    /// The value row a partial tile would load past the end of sequence `b`, if the storage has one.
    pub(crate) fn padding_value<A: Real>(&self, head: &Head<A>, j: usize) -> Option<Vec<A>> {
        match &self.spec.keys {
            Keys::Padded { len, .. } if j < *len => {
                let values = row(self.inputs.v, [head.b, self.kv_head(head.h), j]);
                Some(values.iter().map(|&v| load(v)).collect())
            }
            _ => None,
        }
    }

    /// The factor on `q·k`.
    pub(crate) fn scale(&self) -> f64 {
        let d = self.spec.head_dim as f64;
        match self.by.fault {
            Some(Fault::ScaleByDimension) => 1.0 / d,
            Some(Fault::ScaleFromPaddedDimension) => {
                self.spec.scale * (d / self.spec.head_dim.next_multiple_of(8) as f64).sqrt()
            }
            Some(Fault::ScaleOnePercentOff) => self.spec.scale * 1.01,
            _ => self.spec.scale,
        }
    }
}

/// An element in the accumulator, exactly.
pub(crate) fn load<T: Element, A: Real>(x: T) -> A {
    A::from_f64(x.to_f64())
}

fn address(strides: &[isize], index: [usize; 4]) -> isize {
    strides.iter().zip(index).map(|(stride, index)| stride * index as isize).sum()
}

fn standard_strides(shape: &[usize]) -> [isize; 4] {
    let [_, heads, rows, columns] = [shape[0], shape[1], shape[2], shape[3]];
    [heads * rows * columns, rows * columns, columns, 1].map(|stride| stride as isize)
}

/// What lies at an address of memory laid out by `strides`; 0 in gaps and beyond the end, where a real kernel would
/// read whatever is there.
fn at_address<T: Element>(view: ArrayView4<'_, T>, strides: &[isize], mut address: isize) -> T {
    let mut index = [0; 4];
    let mut axes = [0, 1, 2, 3];
    axes.sort_by_key(|&axis: &usize| -strides[axis]);
    for axis in axes {
        if view.shape()[axis] > 1 && strides[axis] > 0 && address >= 0 {
            index[axis] = (address / strides[axis]) as usize;
            address %= strides[axis];
        }
    }
    if address == 0 { view.get(index).copied().unwrap_or_default() } else { T::default() }
}
