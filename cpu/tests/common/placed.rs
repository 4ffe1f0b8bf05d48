//! Tensors inside larger allocations: awkwardly strided, or framed by margins. What lies beside them is NaN and must stay so.

use super::{Results, Tensors, hash, nan};
use ndarray::{
    Array1, Array3, Array4, ArrayView1, ArrayView3, ArrayView4, ArrayViewMut1, ArrayViewMut3, ArrayViewMut4, Axis,
    AxisDescription, Slice,
};
use tilewright_attention::{AttentionBackward, AttentionForward, Gradients, Inputs, Outputs, Saved};
use tilewright_scalar::Element;

/// Where the elements of a tensor lie in the allocation that holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Axes permuted, every axis strided by ±2 or ±1.
    Strided,
    /// In standard order, with margins on both sides of every axis; of the last one in every other tensor only, so that
    /// rows lie densely in the others.
    Framed,
}

/// A tensor placed in a larger allocation.
#[derive(Clone, Debug)]
struct Placed<T> {
    store: Array4<T>,
    place: Place,
}

/// Which elements of the allocation are the tensor's.
#[derive(Clone, Copy, Debug)]
struct Place {
    permutation: [usize; 4],
    steps: [isize; 4],
    /// Elements before and behind, axis by axis.
    margins: [[usize; 2]; 4],
}

impl Place {
    fn inverse(&self) -> [usize; 4] {
        let mut inverse = [0; 4];
        for (axis, &from) in self.permutation.iter().enumerate() {
            inverse[from] = axis;
        }
        inverse
    }

    fn slice(&self, axis: AxisDescription) -> Slice {
        let [before, behind] = self.margins[axis.axis.index()];
        Slice::new(before as isize, Some((axis.len - behind) as isize), self.steps[axis.axis.index()])
    }
}

impl<T: Element> Placed<T> {
    fn of(tensor: ArrayView4<'_, T>, how: Placement, seed: u64) -> Self {
        let (mut permutation, mut steps, mut margins) = ([0, 1, 2, 3], [1; 4], [[0; 2]; 4]);
        match how {
            Placement::Strided => {
                for axis in 0..3 {
                    permutation.swap(axis, axis + hash(seed, &[axis]) as usize % (4 - axis));
                }
                steps = std::array::from_fn(|axis| [1, -1, 2, -2][hash(seed, &[9, axis]) as usize % 4]);
            }
            Placement::Framed => {
                let dense = seed.is_multiple_of(2);
                let margin = |axis: usize, side: usize| hash(seed, &[8, axis, side]) as usize % 4;
                margins = std::array::from_fn(|axis| {
                    if dense && axis == 3 { [0; 2] } else { [0, 1].map(|side| margin(axis, side)) }
                });
            }
        }
        let shape: [usize; 4] = std::array::from_fn(|axis| {
            let from = permutation[axis];
            tensor.shape()[from] * isize::unsigned_abs(steps[from]) + margins[from][0] + margins[from][1]
        });
        let place = Place { permutation, steps, margins };
        let mut placed = Self { store: Array4::from_elem(shape, nan()), place };
        placed.view_mut().assign(&tensor);
        placed
    }

    fn view(&self) -> ArrayView4<'_, T> {
        let mut view = self.store.view().permuted_axes(self.place.inverse());
        view.slice_each_axis_inplace(|axis| self.place.slice(axis));
        view
    }

    fn view_mut(&mut self) -> ArrayViewMut4<'_, T> {
        let mut view = self.store.view_mut().permuted_axes(self.place.inverse());
        view.slice_each_axis_inplace(|axis| self.place.slice(axis));
        view
    }

    fn view3(&self) -> ArrayView3<'_, T> {
        self.view().index_axis_move(Axis(3), 0)
    }

    fn view3_mut(&mut self) -> ArrayViewMut3<'_, T> {
        self.view_mut().index_axis_move(Axis(3), 0)
    }

    fn view1(&self) -> ArrayView1<'_, T> {
        self.view3().index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0)
    }

    fn view1_mut(&mut self) -> ArrayViewMut1<'_, T> {
        self.view3_mut().index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0)
    }

    /// Whether nothing beside the tensor has changed.
    fn is_intact(&self) -> bool {
        let mut rest = self.clone();
        rest.view_mut().fill(nan());
        rest.store.iter().all(|x| x.to_bits64() == nan::<T>().to_bits64())
    }
}

impl<T: Element> Tensors<T> {
    /// What [`run`](Self::run) returns, from tensors placed so; checks that nothing beside them has changed.
    pub(crate) fn run_placed(
        &self,
        method: &(impl AttentionForward<T> + AttentionBackward<T>),
        how: Placement,
        seed: u64,
    ) -> Results<T> {
        let four = |tensor: &Array4<T>, salt| Placed::of(tensor.view(), how, seed ^ salt);
        let three = |tensor: &Array3<T::Accum>, salt| Placed::of(tensor.view().insert_axis(Axis(3)), how, seed ^ salt);
        let one = |tensor: &Array1<T::Accum>, salt| {
            let tensor = tensor.view().insert_axis(Axis(0)).insert_axis(Axis(0)).insert_axis(Axis(3));
            Placed::of(tensor, how, seed ^ salt)
        };
        let (q, k, v, d_o) = (four(&self.q, 1), four(&self.k, 2), four(&self.v, 3), four(&self.d_o, 7));
        let (bias, sink) = (self.bias.as_ref().map(|x| four(x, 4)), self.sink.as_ref().map(|x| one(x, 13)));
        let d_lse = self.d_lse.as_ref().map(|x| three(x, 8));
        let mut results = self.results_to_fill();
        let (mut o, mut lse) = (four(&results.o, 5), three(&results.lse, 6));
        let (mut d_q, mut d_k, mut d_v) = (four(&results.d_q, 9), four(&results.d_k, 10), four(&results.d_v, 11));
        let mut d_bias = results.d_bias.as_ref().map(|x| four(x, 12));
        let mut d_sink = results.d_sink.as_ref().map(|x| one(x, 14));

        let (bias_view, sink_view) = (bias.as_ref().map(Placed::view), sink.as_ref().map(Placed::view1));
        let inputs = Inputs { bias: bias_view, sink: sink_view, ..Inputs::new(q.view(), k.view(), v.view()) };
        method.forward(&self.spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view3_mut() }).unwrap();
        let saved = Saved { o: o.view(), lse: lse.view3(), d_o: d_o.view(), d_lse: d_lse.as_ref().map(Placed::view3) };
        let gradients = Gradients {
            d_q: d_q.view_mut(),
            d_k: d_k.view_mut(),
            d_v: d_v.view_mut(),
            d_bias: d_bias.as_mut().map(Placed::view_mut),
            d_sink: d_sink.as_mut().map(Placed::view1_mut),
        };
        method.backward(&self.spec, &inputs, &saved, gradients).unwrap();

        let mut all = [&q, &k, &v, &d_o, &o, &d_q, &d_k, &d_v].into_iter().chain(&bias).chain(&d_bias);
        assert!(all.all(Placed::is_intact), "something beside a tensor was written");
        let mut all = [&lse].into_iter().chain(&d_lse).chain(&sink).chain(&d_sink);
        assert!(all.all(Placed::is_intact), "something beside a vector was written");
        let pairs =
            [(&mut results.o, &o), (&mut results.d_q, &d_q), (&mut results.d_k, &d_k), (&mut results.d_v, &d_v)];
        for (into, from) in pairs.into_iter().chain(results.d_bias.as_mut().zip(d_bias.as_ref())) {
            into.assign(&from.view());
        }
        results.lse.assign(&lse.view3());
        if let (Some(into), Some(from)) = (&mut results.d_sink, &d_sink) {
            into.assign(&from.view1());
        }
        results
    }
}
