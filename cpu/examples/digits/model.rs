//! A multi-layer perceptron, 64–512–512–10, with ReLU and cross-entropy.

use crate::data::{CLASSES, Images, PIXELS, Purpose, random};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, Zip};

const WIDTHS: [usize; 4] = [PIXELS, 512, 512, CLASSES];
const LAYERS: usize = WIDTHS.len() - 1;

/// The parameters: matrix and bias of each layer, in turn. Gradients have the same shape.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) tensors: Vec<Vec<f32>>,
}

impl Model {
    pub(crate) fn zeros() -> Self {
        Self { tensors: lengths().iter().map(|len| vec![0.0; *len as usize]).collect() }
    }

    /// Normal weights of variance 2/inputs (He et al. 2015), no biases.
    pub(crate) fn new(seed: u64) -> Self {
        let mut model = Self::zeros();
        for layer in 0..LAYERS {
            let deviation = (2.0 / WIDTHS[layer] as f64).sqrt();
            for (i, weight) in model.tensors[2 * layer].iter_mut().enumerate() {
                let [a, b, ..] = random(seed, Purpose::Weights, i as u64, layer as u32);
                *weight = (deviation * normal(a, b)) as f32;
            }
        }
        model
    }

    fn matrix(&self, layer: usize) -> ArrayView2<'_, f32> {
        view(&self.tensors[2 * layer], layer)
    }

    fn bias(&self, layer: usize) -> ArrayView1<'_, f32> {
        ArrayView1::from(&self.tensors[2 * layer + 1])
    }

    /// The activations of each layer, the input first; the last ones are the logits.
    fn forward(&self, images: &Images) -> Vec<Array2<f32>> {
        let input = ArrayView2::from_shape((images.len(), PIXELS), &images.pixels).expect("64 pixels an image");
        let mut activations = vec![input.to_owned()];
        for layer in 0..LAYERS {
            let mut z = activations[layer].dot(&self.matrix(layer)) + self.bias(layer);
            if layer + 1 < LAYERS {
                z.mapv_inplace(|z| z.max(0.0));
            }
            activations.push(z);
        }
        activations
    }

    /// The mean loss over the images, and its gradient.
    pub(crate) fn loss_and_gradient(&self, images: &Images, gradient: &mut Self) -> f32 {
        let activations = self.forward(images);
        let mut delta = activations[LAYERS].clone();
        let loss = softmax_minus_truth(&mut delta, &images.labels);
        for layer in (0..LAYERS).rev() {
            let [matrix, bias] = &mut gradient.tensors[2 * layer..][..2] else {
                unreachable!("a layer has two tensors")
            };
            general_mat_mul(1.0, &activations[layer].t(), &delta, 0.0, &mut view_mut(matrix, layer));
            ArrayViewMut1::from(&mut bias[..]).assign(&delta.sum_axis(Axis(0)));
            if layer > 0 {
                delta = delta.dot(&self.matrix(layer).t());
                Zip::from(&mut delta).and(&activations[layer]).for_each(|d, a| *d = if *a > 0.0 { *d } else { 0.0 });
            }
        }
        loss
    }

    /// Share of the images that are recognised.
    pub(crate) fn accuracy(&self, images: &Images) -> f64 {
        let logits = &self.forward(images)[LAYERS];
        let best = |row: ArrayView1<f32>| (0..CLASSES).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        let right = logits.outer_iter().zip(&images.labels).filter(|(row, label)| best(*row) == Some(**label));
        right.count() as f64 / images.len() as f64
    }

    pub(crate) fn slices(&self) -> Vec<&[f32]> {
        self.tensors.iter().map(|tensor| &tensor[..]).collect()
    }

    pub(crate) fn slices_mut(&mut self) -> Vec<&mut [f32]> {
        self.tensors.iter_mut().map(|tensor| &mut tensor[..]).collect()
    }
}

/// The lengths of the tensors.
pub(crate) fn lengths() -> Vec<u64> {
    (0..LAYERS).flat_map(|layer| [WIDTHS[layer] * WIDTHS[layer + 1], WIDTHS[layer + 1]]).map(|len| len as u64).collect()
}

fn view(matrix: &[f32], layer: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((WIDTHS[layer], WIDTHS[layer + 1]), matrix).expect("the lengths are those of the widths")
}

fn view_mut(matrix: &mut [f32], layer: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((WIDTHS[layer], WIDTHS[layer + 1]), matrix).expect("the lengths are those of the widths")
}

/// A standard normal number from two uniform ones (Box and Muller 1958).
fn normal(a: u32, b: u32) -> f64 {
    let uniform = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    (-2.0 * uniform(a).ln()).sqrt() * (std::f64::consts::TAU * uniform(b)).cos()
}

/// Turns logits into the gradient of the mean cross-entropy, and returns that.
fn softmax_minus_truth(logits: &mut Array2<f32>, labels: &[usize]) -> f32 {
    let images = labels.len() as f32;
    let mut loss = 0.0;
    for (mut row, label) in logits.outer_iter_mut().zip(labels) {
        let max = row.fold(f32::NEG_INFINITY, |max, x| max.max(*x));
        let truth = row[*label];
        row.mapv_inplace(|x| (x - max).exp());
        let sum = row.sum();
        loss += sum.ln() + max - truth;
        row.mapv_inplace(|x| x / sum / images);
        row[*label] -= 1.0 / images;
    }
    loss / images
}
