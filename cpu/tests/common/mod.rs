//! Random problems with every feature, tensors of every layout, and a judge.
// Each test binary uses its part; a case is its switches.
#![allow(dead_code, clippy::unwrap_used, clippy::struct_excessive_bools)]

pub(crate) mod placed;

use ndarray::{Array, Array1, Array3, Array4, ArrayView, Axis, Dimension};
use proptest::prelude::*;
use tilewright_attention::bound::{self, Limit};
use tilewright_attention::reference::{self, ReferenceForward, ReferenceGradients};
use tilewright_attention::{
    AttentionBackward, AttentionForward, AttentionSpec, BlockMask, CausalAlign, Contract, Dropout, Gradients, Inputs,
    Keys, Outputs, Queries, Saved, Window,
};
use tilewright_cpu::{Bf16Products, CpuAttention, Isa, SplitKv};
use tilewright_scalar::{Accum, Element, Real};

/// A failure is shrunk and printed; no file keeps it.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A problem in small integers, for proptest to shrink.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) batch: usize,
    pub(crate) kv_heads: usize,
    pub(crate) group: usize,
    pub(crate) dims: (usize, usize),
    pub(crate) lens: (usize, usize),
    pub(crate) packed_queries: bool,
    /// 0 padded, 1 padded with lengths, 2 packed, 3 paged.
    pub(crate) keys: usize,
    pub(crate) page_size: usize,
    pub(crate) causal: bool,
    pub(crate) top_left: bool,
    pub(crate) window: (Option<usize>, Option<usize>),
    pub(crate) softcap: bool,
    pub(crate) alibi: bool,
    pub(crate) dropout: bool,
    pub(crate) block_mask: Option<(usize, usize)>,
    /// Bits: which axes are full.
    pub(crate) bias: Option<usize>,
    pub(crate) sink: bool,
    pub(crate) d_lse: bool,
    pub(crate) tiles: (usize, usize),
    pub(crate) seed: u64,
}

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let size = (0usize..4, 1usize..3, 1usize..4, (1usize..20, 1usize..20), (0usize..40, 0usize..50));
    let storage = (any::<bool>(), 0usize..4, 1usize..9);
    let band = (any::<bool>(), any::<bool>(), (proptest::option::of(0usize..20), proptest::option::of(0usize..20)));
    let rare = || proptest::bool::weighted(0.3);
    let block_mask = proptest::option::weighted(0.3, (1usize..12, 1usize..12));
    let extras = (rare(), rare(), rare(), block_mask, proptest::option::of(0usize..16), any::<bool>(), any::<bool>());
    let method = ((1usize..20, 1usize..20), any::<u64>());
    (size, storage, band, extras, method).prop_map(|(size, storage, band, extras, (tiles, seed))| {
        let (batch, kv_heads, group, dims, lens) = size;
        let (packed_queries, keys, page_size) = storage;
        let (causal, top_left, window) = band;
        let (softcap, alibi, dropout, block_mask, bias, sink, d_lse) = extras;
        Case {
            batch,
            kv_heads,
            group,
            dims,
            lens,
            packed_queries,
            keys,
            page_size,
            causal,
            top_left,
            window,
            softcap,
            alibi,
            dropout,
            block_mask,
            bias,
            sink,
            d_lse,
            tiles,
            seed,
        }
    })
}

/// SplitMix64's finaliser over a seed and coordinates.
pub(crate) fn hash(seed: u64, index: &[usize]) -> u64 {
    index.iter().fold(seed, |state, &i| {
        let z = (state ^ i as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A number in [−2, 2).
pub(crate) fn noise(seed: u64, index: &[usize]) -> f64 {
    (hash(seed, index) >> 40) as f64 / f64::from(1u32 << 22) - 2.0
}

impl Case {
    /// The method under test, with this case's tiles and one of the ways to split.
    pub(crate) fn method(&self) -> CpuAttention {
        let split_kv = [SplitKv::Auto, SplitKv::Never, SplitKv::Every(7)][self.seed as usize % 3];
        let isas = Isa::available();
        let isa = isas[self.seed as usize / 3 % isas.len()];
        let products = [Bf16Products::Widened, Bf16Products::Paired][self.seed as usize / 36 % 2];
        let method = CpuAttention::with_tiles(self.tiles.0, self.tiles.1).with_split_kv(split_kv);
        method.with_isa(isa).with_bf16_products(products)
    }

    /// The same with longer sequences and larger tiles: several panels to a tile, several tiles to a sequence.
    pub(crate) fn longer(self) -> Self {
        let longer = |(x, y): (usize, usize), by: usize| (x * by, y * by);
        Self {
            lens: longer(self.lens, 6),
            tiles: longer(self.tiles, 10),
            dims: longer(self.dims, 4),
            window: (self.window.0.map(|side| side * 6), self.window.1.map(|side| side * 6)),
            block_mask: self.block_mask.map(|blocks| longer(blocks, 8)),
            batch: self.batch.min(1),
            ..self
        }
    }

    fn length(&self, salt: usize, b: usize, most: usize) -> usize {
        hash(self.seed, &[salt, b]) as usize % (most + 1)
    }

    fn offsets(&self, salt: usize, most: usize) -> Vec<usize> {
        let mut offsets = vec![0];
        for b in 0..self.batch {
            offsets.push(offsets[b] + self.length(salt, b, most));
        }
        offsets
    }

    pub(crate) fn spec(&self) -> AttentionSpec {
        let (q_len, kv_len) = self.lens;
        let lengths: Vec<usize> = (0..self.batch).map(|b| self.length(2, b, kv_len)).collect();
        let keys = match self.keys {
            0 => Keys::Padded { len: kv_len, lengths: None },
            1 => Keys::Padded { len: kv_len, lengths: Some(lengths) },
            2 => Keys::Packed { cu_seqlens: self.offsets(3, kv_len) },
            _ => {
                let pages = kv_len.div_ceil(self.page_size) + 2;
                let page = |b: usize, t: usize| hash(self.seed, &[4, b, t]) as usize % pages;
                let used = |length: &usize| length.div_ceil(self.page_size);
                let table = lengths.iter().enumerate().map(|(b, l)| (0..used(l)).map(|t| page(b, t)).collect());
                Keys::Paged { pages, page_size: self.page_size, table: table.collect(), lengths }
            }
        };
        let queries = if self.packed_queries {
            Queries::Packed { cu_seqlens: self.offsets(1, q_len) }
        } else {
            Queries::Padded { len: q_len }
        };
        let q_heads = self.kv_heads * self.group;
        let mut spec = AttentionSpec {
            q_heads,
            kv_heads: self.kv_heads,
            value_dim: self.dims.1,
            queries,
            keys,
            softcap: self.softcap.then_some(1.5),
            causal: self.causal,
            align: if self.top_left { CausalAlign::TopLeft } else { CausalAlign::BottomRight },
            window: Window { left: self.window.0, right: self.window.1 },
            alibi: self.alibi.then(|| (0..q_heads).map(|h| 0.25 / (h + 1) as f64).collect()),
            dropout: self.dropout.then_some(Dropout { p: 0.3, seed: self.seed }),
            ..AttentionSpec::dense(self.batch, q_heads, q_len, kv_len, self.dims.0)
        };
        spec.block_mask = self.block_mask.map(|(block_q, block_k)| {
            let shared = hash(self.seed, &[5]);
            let shape = [
                if shared.is_multiple_of(2) { 1 } else { spec.batch },
                if shared % 4 < 2 { 1 } else { q_heads },
                spec.max_q_len().div_ceil(block_q),
                spec.max_kv_len().div_ceil(block_k),
            ];
            let set = |(b, h, i, j)| !hash(self.seed, &[6, b, h, i, j]).is_multiple_of(3);
            BlockMask { block_q, block_k, blocks: Array4::from_shape_fn(shape, set) }
        });
        spec.validate().unwrap();
        spec
    }

    pub(crate) fn tensors<T: Element>(&self) -> Tensors<T> {
        let spec = self.spec();
        let random = |salt: usize, shape: [usize; 4]| {
            Array4::from_shape_fn(shape, |(a, b, c, d)| T::from_f64(noise(self.seed, &[salt, a, b, c, d])))
        };
        let bias = self.bias.map(|bits| {
            let full = spec.full_bias_shape();
            random(14, std::array::from_fn(|axis| if bits >> axis & 1 == 1 { full[axis] } else { 1 }))
        });
        let accum = |salt: usize, i: usize, j: usize, k: usize| constant(noise(self.seed, &[salt, i, j, k]));
        let mut tensors = Tensors {
            q: random(10, spec.q_shape()),
            k: random(11, spec.k_shape()),
            v: random(12, spec.v_shape()),
            d_o: random(13, spec.o_shape()),
            bias,
            sink: self.sink.then(|| Array1::from_shape_fn(spec.q_heads, |h| accum(15, h, 0, 0))),
            d_lse: self.d_lse.then(|| Array3::from_shape_fn(spec.lse_shape(), |(a, b, c)| accum(16, a, b, c))),
            spec,
        };
        tensors.poison_unused(self.seed.is_multiple_of(2));
        tensors
    }
}

pub(crate) fn constant<A: Accum>(x: f64) -> A {
    Real::from_f64(x)
}

pub(crate) fn nan<T: Element>() -> T {
    T::from_f64(f64::NAN)
}

/// A problem's tensors in standard layout.
#[derive(Clone, Debug)]
pub(crate) struct Tensors<T: Element> {
    pub(crate) spec: AttentionSpec,
    pub(crate) q: Array4<T>,
    pub(crate) k: Array4<T>,
    pub(crate) v: Array4<T>,
    pub(crate) d_o: Array4<T>,
    pub(crate) bias: Option<Array4<T>>,
    pub(crate) sink: Option<Array1<T::Accum>>,
    pub(crate) d_lse: Option<Array3<T::Accum>>,
}

/// Everything an implementation returns.
#[derive(Clone, Debug)]
pub(crate) struct Results<T: Element> {
    pub(crate) o: Array4<T>,
    pub(crate) lse: Array3<T::Accum>,
    pub(crate) d_q: Array4<T>,
    pub(crate) d_k: Array4<T>,
    pub(crate) d_v: Array4<T>,
    pub(crate) d_bias: Option<Array4<T>>,
    pub(crate) d_sink: Option<Array1<T::Accum>>,
}

impl<T: Element> Tensors<T> {
    pub(crate) fn inputs(&self) -> Inputs<'_, T> {
        let (bias, sink) = (self.bias.as_ref().map(|x| x.view()), self.sink.as_ref().map(|x| x.view()));
        Inputs { bias, sink, ..Inputs::new(self.q.view(), self.k.view(), self.v.view()) }
    }

    /// NaN in every stored key that no sequence owns; in every other case also in keys and queries that mask and window
    /// leave no partner to.
    fn poison_unused(&mut self, unseen_too: bool) {
        let spec = self.spec.clone();
        let mut blind = Array3::from_elem(spec.lse_shape(), unseen_too);
        let mut unused = Array3::from_elem([self.k.dim().0, spec.kv_heads, self.k.dim().2], true);
        for (b, h) in (0..spec.batch).flat_map(|b| (0..spec.q_heads).map(move |h| (b, h))) {
            for j in 0..spec.kv_len(b) {
                let (slot, row) = spec.key_slot(b, j);
                unused[[slot, spec.kv_head(h), row]] &= unseen_too;
                for i in (0..spec.q_len(b)).filter(|&i| spec.visible(b, h, i, j)) {
                    unused[[slot, spec.kv_head(h), row]] = false;
                    let (slot, row) = spec.query_slot(b, i);
                    blind[[slot, h, row]] = false;
                }
            }
        }
        let poison = |rows: &Array3<bool>, tensor: &mut Array4<T>| {
            for ((a, b, c), _) in rows.indexed_iter().filter(|(_, poisoned)| **poisoned) {
                tensor.index_axis_mut(Axis(0), a).index_axis_mut(Axis(0), b).row_mut(c).fill(nan());
            }
        };
        poison(&unused, &mut self.k);
        poison(&unused, &mut self.v);
        poison(&blind, &mut self.q);
        poison(&blind, &mut self.d_o);
    }

    pub(crate) fn results_to_fill(&self) -> Results<T> {
        Results {
            o: Array4::from_elem(self.spec.o_shape(), nan()),
            lse: Array3::from_elem(self.spec.lse_shape(), constant(f64::NAN)),
            d_q: self.q.mapv(|_| nan()),
            d_k: self.k.mapv(|_| nan()),
            d_v: self.v.mapv(|_| nan()),
            d_bias: self.bias.as_ref().map(|bias| bias.mapv(|_| nan())),
            d_sink: self.sink.as_ref().map(|sink| sink.mapv(|_| constant(f64::NAN))),
        }
    }

    /// Forward, and backward from its results, in a pool of its own.
    pub(crate) fn run_on(
        &self,
        threads: usize,
        method: &(impl AttentionForward<T> + AttentionBackward<T> + Sync),
    ) -> Results<T> {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| self.run(method))
    }

    /// Forward, and backward from its results.
    pub(crate) fn run(&self, method: &(impl AttentionForward<T> + AttentionBackward<T>)) -> Results<T> {
        let mut r = self.results_to_fill();
        method.forward(&self.spec, &self.inputs(), Outputs { o: r.o.view_mut(), lse: r.lse.view_mut() }).unwrap();
        let d_lse = self.d_lse.as_ref().map(|x| x.view());
        let saved = Saved { o: r.o.view(), lse: r.lse.view(), d_o: self.d_o.view(), d_lse };
        let gradients = Gradients {
            d_q: r.d_q.view_mut(),
            d_k: r.d_k.view_mut(),
            d_v: r.d_v.view_mut(),
            d_bias: r.d_bias.as_mut().map(|x| x.view_mut()),
            d_sink: r.d_sink.as_mut().map(|x| x.view_mut()),
        };
        method.backward(&self.spec, &self.inputs(), &saved, gradients).unwrap();
        r
    }

    /// Holds results to the certain bounds that follow from a contract.
    pub(crate) fn judge<A: Real>(&self, results: &Results<T>, contract: &Contract) -> Result<(), TestCaseError> {
        let (inputs, d_lse) = (self.inputs(), self.d_lse.as_ref().map(|x| x.view()));
        let truth: ReferenceForward<A> = reference::forward(&self.spec, &inputs).unwrap();
        let limits = bound::forward(&self.spec, &inputs, contract).unwrap();
        within("o", &results.o, &truth.o, &limits.o)?;
        within("lse", &results.lse, &truth.lse, &limits.lse)?;
        let truth: ReferenceGradients<A> = reference::backward(&self.spec, &inputs, self.d_o.view(), d_lse).unwrap();
        let limits = bound::backward(&self.spec, &inputs, self.d_o.view(), d_lse, contract).unwrap();
        within("d_q", &results.d_q, &truth.d_q, &limits.d_q)?;
        within("d_k", &results.d_k, &truth.d_k, &limits.d_k)?;
        within("d_v", &results.d_v, &truth.d_v, &limits.d_v)?;
        if let (Some(got), Some(truth), Some(limit)) = (&results.d_bias, &truth.d_bias, &limits.d_bias) {
            within("d_bias", got, truth, limit)?;
        }
        if let (Some(got), Some(truth), Some(limit)) = (&results.d_sink, &truth.d_sink, &limits.d_sink) {
            within("d_sink", got, truth, limit)?;
        }
        Ok(())
    }
}

fn within<E: Element, A: Real, D: Dimension>(
    name: &str,
    got: &Array<E, D>,
    truth: &Array<A, D>,
    limit: &Limit<D>,
) -> Result<(), TestCaseError> {
    // Certain bounds grow with every length; a second, blunter yardstick keeps them honest. It does not apply to sums
    // over whole score matrices, which cancel.
    let largest = truth.iter().map(|x| x.abs().to_f64()).filter(|x| x.is_finite()).fold(1.0, f64::max);
    let blunt = match E::FORMAT.precision {
        _ if matches!(name, "d_bias" | "d_sink") => f64::INFINITY,
        53 => 1e-13 * largest,
        24 => 4e-5 * largest,
        _ if matches!(name, "o" | "lse") => 2.0 * E::FORMAT.unit_roundoff() * largest,
        // The stored O is rounded, and D = rowsum(dO ∘ O) with it.
        _ => 64.0 * E::FORMAT.unit_roundoff() * largest,
    };
    for ((got, truth), limit) in got.iter().zip(truth).zip(&limit.worst) {
        let (got, truth) = (got.to_f64(), truth.to_f64());
        let fits = got == truth || (got - truth).abs() <= limit.min(blunt);
        prop_assert!(fits, "{}: got {}, expected {} ± {} and ± {}", name, got, truth, limit, blunt);
    }
    Ok(())
}

impl<T: Element> Results<T> {
    /// The bits of everything, in logical order.
    pub(crate) fn bits(&self) -> Vec<u64> {
        fn all<E: Element, D: Dimension>(tensor: ArrayView<'_, E, D>) -> Vec<u64> {
            tensor.iter().map(|x| x.to_bits64()).collect()
        }
        let mut bits = [all(self.o.view()), all(self.lse.view()), all(self.d_q.view()), all(self.d_k.view())].concat();
        bits.extend(all(self.d_v.view()));
        bits.extend(self.d_bias.iter().flat_map(|d_bias| all(d_bias.view())));
        bits.extend(self.d_sink.iter().flat_map(|d_sink| all(d_sink.view())));
        bits
    }
}
