//! Any implementation of the typed traits as a [`Subject`], with the hygiene that a process boundary cannot give:
//! poisoned outputs, guard bands around them, inputs laid out as the case says and compared afterwards.

use crate::attention::typed::{self, with_element};
use crate::attention::{Layout, Profile, Request, Subject};
use crate::subject::{Explain, nothing};
use crate::tensor::{Stored, Tensor};
use crate::{SubjectError, Tensors};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMut, ArrayViewMutD, Dimension, Ix1, Ix3, Ix4, IxDyn, Slice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tilewright_attention::{AttentionBackward, AttentionError, AttentionForward, Gradients, Inputs, Outputs, Saved};
use tilewright_scalar::{bf16, f16};

/// An implementation that takes all four storage formats.
pub trait AnyFormat:
    AttentionForward<f64>
    + AttentionForward<f32>
    + AttentionForward<f16>
    + AttentionForward<bf16>
    + AttentionBackward<f64>
    + AttentionBackward<f32>
    + AttentionBackward<f16>
    + AttentionBackward<bf16>
{
}

impl<B> AnyFormat for B where
    B: AttentionForward<f64>
        + AttentionForward<f32>
        + AttentionForward<f16>
        + AttentionForward<bf16>
        + AttentionBackward<f64>
        + AttentionBackward<f32>
        + AttentionBackward<f16>
        + AttentionBackward<bf16>
{
}

/// A backend in this process, on trial.
#[derive(Debug)]
pub struct InProcess<B> {
    backend: B,
    profile: Profile,
    explain: Explain,
}

impl<B: AnyFormat> InProcess<B> {
    /// Puts a backend on trial under a profile.
    pub fn new(backend: B, profile: Profile) -> Self {
        Self { backend, profile, explain: nothing }
    }

    /// Asks `explain` whenever the backend reports an error, and adds what it says: a device may know more of a fault than
    /// its error code tells.
    #[must_use]
    pub fn explained_by(self, explain: Explain) -> Self {
        Self { explain, ..self }
    }
}

impl<B: AnyFormat> Subject for InProcess<B> {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn run(&mut self, request: &Request<'_>) -> Result<Tensors, SubjectError> {
        let format = request.inputs.get("q").map(Tensor::format);
        let format = format.ok_or_else(|| SubjectError::Misbehaved("tensor q: missing".into()))?;
        let backend = AssertUnwindSafe(&self.backend);
        let outcome = catch_unwind(move || {
            let backend = backend; // the wrapper as a whole
            with_element!(format, T => run_typed::<T, B>(backend.0, request))
        });
        outcome
            .unwrap_or_else(|panic| Err(SubjectError::from_panic(panic)))
            .map_err(|error| error.explained(self.explain))
    }
}

/// What an output holds before it is written, and what lies between the elements of a gapped input.
fn poison<T: Stored>() -> T {
    T::from_f64(f64::NAN)
}

const GUARD: usize = 64;
const GUARD_VALUE: f64 = -1536.0;

/// An output, poisoned, in memory of the layout a case asks for, with guards around it and in every gap.
struct Guarded<T> {
    memory: Vec<T>,
    /// Shape of the memory between the guard bands.
    outer: Vec<usize>,
    layout: Layout,
}

impl<T: Stored> Guarded<T> {
    fn new(shape: &[usize], layout: Layout) -> Result<Self, SubjectError> {
        let outer: Vec<usize> = match layout {
            Layout::Contiguous => shape.to_vec(),
            Layout::HeadsInner => swapped(shape.len()).iter().map(|axis| shape[*axis]).collect(),
            Layout::Gapped => shape.iter().map(|axis| 2 * axis + 1).collect(),
        };
        let len: usize = outer.iter().product();
        let memory = vec![T::from_f64(GUARD_VALUE); len + 2 * GUARD];
        let mut guarded = Self { memory, outer, layout };
        guarded.all()?.fill(poison());
        Ok(guarded)
    }

    /// The logical view of the output.
    fn all(&mut self) -> Result<ArrayViewMutD<'_, T>, SubjectError> {
        let end = self.memory.len() - GUARD;
        let memory = ArrayViewMutD::from_shape(IxDyn(&self.outer), &mut self.memory[GUARD..end])
            .map_err(|error| SubjectError::Misbehaved(error.to_string()))?;
        Ok(match self.layout {
            Layout::Contiguous => memory,
            Layout::HeadsInner => memory.permuted_axes(IxDyn(&swapped(self.outer.len()))),
            Layout::Gapped => gaps_left_out(memory),
        })
    }

    fn view<D: Dimension>(&mut self) -> Result<ArrayViewMut<'_, T, D>, SubjectError> {
        self.all()?.into_dimensionality().map_err(|error| SubjectError::Misbehaved(error.to_string()))
    }

    /// The output, after a look at everything around it.
    fn finish(mut self, name: &str) -> Result<(String, Tensor), SubjectError> {
        let mut output = self.all()?;
        let array = output.as_standard_layout().into_owned();
        output.fill(T::from_f64(GUARD_VALUE));
        let guard = T::from_f64(GUARD_VALUE).to_bits64();
        if self.memory.iter().any(|x| x.to_bits64() != guard) {
            return Err(SubjectError::Misbehaved(format!("wrote outside of {name}")));
        }
        Ok((name.into(), T::wrap(array)))
    }
}

/// Axes with the second and third exchanged: `[batch, heads, length, …]` to `[batch, length, heads, …]` and back.
fn swapped(rank: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    if rank >= 3 {
        axes.swap(1, 2);
    }
    axes
}

/// Every second element along every axis.
fn gaps_left_out<T>(mut memory: ArrayViewMutD<'_, T>) -> ArrayViewMutD<'_, T> {
    memory.slice_each_axis_inplace(|_| Slice::new(1, None, 2));
    memory
}

/// A copy of a rank-4 tensor in the memory layout a case asks for.
struct Laid<T> {
    memory: ArrayD<T>,
    layout: Layout,
}

impl<T: Stored> Laid<T> {
    fn new(tensor: ArrayViewD<'_, T>, layout: Layout) -> Self {
        let memory = match layout {
            Layout::Contiguous => tensor.as_standard_layout().into_owned(),
            Layout::HeadsInner => {
                let swapped = tensor.permuted_axes(IxDyn(&swapped(4)));
                swapped.as_standard_layout().into_owned()
            }
            Layout::Gapped => {
                let shape: Vec<usize> = tensor.shape().iter().map(|axis| 2 * axis + 1).collect();
                let mut memory = ArrayD::from_elem(IxDyn(&shape), poison());
                memory.slice_each_axis_mut(|_| Slice::new(1, None, 2)).assign(&tensor);
                memory
            }
        };
        Self { memory, layout }
    }

    fn view(&self) -> ArrayViewD<'_, T> {
        match self.layout {
            Layout::Contiguous => self.memory.view(),
            Layout::HeadsInner => self.memory.view().permuted_axes(IxDyn(&swapped(4))),
            Layout::Gapped => self.memory.slice_each_axis(|_| Slice::new(1, None, 2)),
        }
    }

    fn rank4(&self) -> Result<ndarray::ArrayView4<'_, T>, SubjectError> {
        self.view().into_dimensionality::<Ix4>().map_err(|error| SubjectError::Misbehaved(error.to_string()))
    }

    fn bits(&self) -> Vec<u64> {
        self.memory.iter().map(|x| x.to_bits64()).collect()
    }
}

fn answer(error: AttentionError) -> SubjectError {
    match error {
        AttentionError::Unsupported { what } => SubjectError::Unsupported(what.into()),
        other => SubjectError::Failed(other.to_string()),
    }
}

fn run_typed<T: Stored, B>(backend: &B, request: &Request<'_>) -> Result<Tensors, SubjectError>
where
    T::Accum: Stored,
    B: AttentionForward<T> + AttentionBackward<T>,
{
    let tensors = request.inputs;
    let plain = typed::inputs::<T>(tensors).map_err(SubjectError::Misbehaved)?;
    let lay = |view: ndarray::ArrayView4<'_, T>| Laid::new(view.into_dyn(), request.layout);
    let (q, k, v) = (lay(plain.q), lay(plain.k), lay(plain.v));
    let bias = plain.bias.map(lay);
    let d_o = typed::view_if_present::<T, IxDyn>(tensors, "d_o").map_err(SubjectError::Misbehaved)?;
    let d_o = d_o.map(|d_o| Laid::new(d_o, request.layout));
    let bits = || -> Vec<Vec<u64>> {
        let laid = [Some(&q), Some(&k), Some(&v), bias.as_ref(), d_o.as_ref()].into_iter().flatten().map(Laid::bits);
        let plain = ["sink", "d_lse"].into_iter().filter_map(|name| tensors.get(name)).map(Tensor::bits);
        laid.chain(plain).collect()
    };
    let before = bits();
    let inputs = Inputs {
        q: q.rank4()?,
        k: k.rank4()?,
        v: v.rank4()?,
        bias: bias.as_ref().map(Laid::rank4).transpose()?,
        sink: plain.sink,
    };
    let outcome = passes(backend, request, &inputs, d_o.as_ref());
    if before != bits() {
        return Err(SubjectError::Misbehaved("changed its inputs".into()));
    }
    outcome
}

fn passes<T: Stored, B>(
    backend: &B,
    request: &Request<'_>,
    inputs: &Inputs<'_, T>,
    d_o: Option<&Laid<T>>,
) -> Result<Tensors, SubjectError>
where
    T::Accum: Stored,
    B: AttentionForward<T> + AttentionBackward<T>,
{
    let (spec, layout) = (request.spec, request.layout);
    let mut o = Guarded::<T>::new(&spec.o_shape(), layout)?;
    let mut lse = Guarded::<T::Accum>::new(&spec.lse_shape(), layout)?;
    backend.forward(spec, inputs, Outputs { o: o.view::<Ix4>()?, lse: lse.view::<Ix3>()? }).map_err(answer)?;
    let mut results = Tensors::from([o.finish("o")?, lse.finish("lse")?]);
    if request.want.iter().any(|name| name.starts_with("d_")) {
        let d_o = d_o.ok_or_else(|| SubjectError::Misbehaved("tensor d_o: missing".into()))?;
        let saved = Saved {
            o: typed::view(&results, "o").map_err(SubjectError::Misbehaved)?,
            lse: typed::view(&results, "lse").map_err(SubjectError::Misbehaved)?,
            d_o: d_o.rank4()?,
            d_lse: typed::view_if_present(request.inputs, "d_lse").map_err(SubjectError::Misbehaved)?,
        };
        let mut d_q = Guarded::<T>::new(&spec.q_shape(), layout)?;
        let mut d_k = Guarded::<T>::new(&spec.k_shape(), layout)?;
        let mut d_v = Guarded::<T>::new(&spec.v_shape(), layout)?;
        let mut d_bias = inputs.bias.map(|bias| Guarded::<T>::new(bias.shape(), layout)).transpose()?;
        let mut d_sink = inputs.sink.map(|sink| Guarded::<T::Accum>::new(sink.shape(), layout)).transpose()?;
        let gradients = Gradients {
            d_q: d_q.view()?,
            d_k: d_k.view()?,
            d_v: d_v.view()?,
            d_bias: d_bias.as_mut().map(Guarded::view::<Ix4>).transpose()?,
            d_sink: d_sink.as_mut().map(Guarded::view::<Ix1>).transpose()?,
        };
        backend.backward(spec, inputs, &saved, gradients).map_err(answer)?;
        results.extend([d_q.finish("d_q")?, d_k.finish("d_k")?, d_v.finish("d_v")?]);
        results.extend(d_bias.map(|guarded| guarded.finish("d_bias")).transpose()?);
        results.extend(d_sink.map(|guarded| guarded.finish("d_sink")).transpose()?);
    }
    results.retain(|name, _| request.want.contains(&name.as_str()));
    Ok(results)
}
