//! What a step costs: the α–β model.
//!
//! A message of `s` bytes takes `α + s/B` on a [`Link`]; a kernel takes its launch plus the bytes it touches divided by
//! the [`Device`]'s bandwidth. Nothing is fitted: what a method touches is counted ([`Footprint`]), and each count says
//! where it comes from. The model ignores imbalance between ranks, contention, and what a transport does to small
//! messages; against the paper it is right to within 30 % ([`Published`]).

use crate::spec::spec;
use crate::{CompressionError, LONGEST, Wire, codec};
use alloc::string::ToString;

/// Bytes of a gradient that is sent as it is.
const DENSE: f64 = 4.0;

/// From any rank to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// `α`: seconds a message takes whatever its length.
    pub latency: f64,
    /// `B`: bytes a second.
    pub bandwidth: f64,
}

impl Link {
    /// A network of so many gigabits a second, with 30 µs a message: the order of what NCCL and MPI reach over TCP.
    pub const fn gigabits(rate: f64) -> Self {
        Self { latency: 30e-6, bandwidth: rate / 8.0 * 1e9 }
    }
}

/// Where a rank compresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// `W`: bytes a second between its memory and its cores.
    pub bandwidth: f64,
    /// Seconds a kernel takes whatever its length.
    pub launch: f64,
}

impl Device {
    /// An NVIDIA V100: 800 of its nominal 900 GB/s, and 10 µs between kernels that a framework launches one by one.
    pub const V100: Self = Self { bandwidth: 800e9, launch: 10e-6 };
    /// An NVIDIA A100 with 40 GB: nominally 1555 GB/s.
    pub const A100: Self = Self { bandwidth: 1.5e12, launch: 10e-6 };
}

/// Equal ranks, equal links.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// Between neighbours.
    pub link: Link,
    /// In every rank.
    pub device: Device,
    /// `N`.
    pub workers: usize,
}

/// What a method touches in device memory on its way from a gradient to a message, and from the messages to an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footprint {
    /// Bytes a gradient to select.
    pub select: f64,
    /// Bytes a gradient to decode.
    pub decode: f64,
    /// Bytes a gradient and worker to decode.
    pub decode_each: f64,
    /// Kernels a tensor.
    pub kernels: f64,
    /// Kernels a tensor and worker.
    pub kernels_each: f64,
    /// How this was counted.
    pub source: &'static str,
}

impl Footprint {
    /// Exact top-k by radix selection.
    pub const TOP_K: Self = Self {
        select: 20.0,
        decode: 4.0,
        decode_each: 0.0,
        kernels: 15.0,
        kernels_each: 0.0,
        source: "an estimate: four passes of eight bits, a fifth to collect, three kernels each; one buffer zeroed",
    };
    /// DGC as DRAGONN's authors compare with it.
    pub const DGC: Self = Self {
        select: 45.0,
        decode: 0.0,
        decode_each: 16.0,
        kernels: 40.0,
        kernels_each: 4.0,
        source: "operations of the PyTorch code published with DRAGONN: about 15 bytes for magnitudes, mask and \
                 compaction, as many for each of two refinements of the threshold; for each worker a dense buffer \
                 zeroed (4) and added to the running sum (12)",
    };
    /// DRAGONN.
    pub const DRAGONN: Self = Self {
        select: 4.0,
        decode: 4.0,
        decode_each: 0.0,
        kernels: 15.0,
        kernels_each: 0.0,
        source: "operations of the code published with DRAGONN: each gradient read once; one dense buffer zeroed for \
                 all workers",
    };
    /// Momentum correction, selection and clearing in one pass.
    pub const FUSED: Self = Self {
        select: 24.0,
        decode: 4.0,
        decode_each: 0.0,
        kernels: 0.0,
        kernels_each: 0.0,
        source: "DGC's accumulators: g, u, v read, u, v written, u or v once more at the cut; one dense buffer zeroed; \
                 one kernel for a whole bucket, which is nothing beside its transfer",
    };
}

/// What is sent instead of a gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairs {
    /// Entries a gradient.
    pub density: f64,
    /// `b`: bytes an entry.
    pub bytes: f64,
}

impl Pairs {
    /// Four bytes of index and four of value.
    pub const fn plain(density: f64) -> Self {
        Self { density, bytes: 8.0 }
    }

    /// What the codec writes, if the indices are uniform ([`codec::expected_bits`]).
    ///
    /// ```
    /// use tilewright_compression::{IndexCoding, ValueFormat, Wire, cost::Pairs};
    /// let wire = Wire { value: ValueFormat::Bf16, index: IndexCoding::Rice };
    /// assert!((Pairs::encoded(wire, 0.001).bytes - 3.44).abs() < 0.005);
    /// ```
    pub fn encoded(wire: Wire, density: f64) -> Self {
        let count = ((density * f64::from(u32::MAX)) as u32).max(1);
        let index = match wire.index {
            crate::IndexCoding::Plain => 4.0,
            crate::IndexCoding::Rice => codec::expected_bits(u32::MAX, count) / 8.0,
        };
        Self { density, bytes: index + wire.value.bytes() as f64 }
    }
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// `n`.
    pub parameters: usize,
    /// Seconds of forward and backward pass.
    pub compute: f64,
    /// Tensors that are compressed, each with kernels of its own.
    pub tensors: usize,
}

/// How much of a dense all-reduce the backward pass hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing: it starts when the last gradient is there.
    None,
    /// All it can: the longer of the two counts.
    Full,
}

/// The model with all of its parameters in range.
///
/// ```
/// use tilewright_compression::cost::{Cluster, Cost, Device, Footprint, Link, Pairs};
/// let cluster = Cluster { link: Link::gigabits(25.0), device: Device::V100, workers: 16 };
/// let cost = Cost::new(cluster, Footprint::DGC, Pairs::plain(0.001))?;
/// assert!(!cost.worth_compressing(100_000) && cost.worth_compressing(1_000_000));
/// assert_eq!(cost.largest_worker_count(), 999);
/// # Ok::<(), tilewright_compression::CompressionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    cluster: Cluster,
    footprint: Footprint,
    pairs: Pairs,
}

impl Cost {
    /// Puts the model together.
    ///
    /// # Errors
    /// [`CompressionError::Spec`], naming the first number that is out of its range.
    pub fn new(cluster: Cluster, footprint: Footprint, pairs: Pairs) -> Result<Self, CompressionError> {
        let Cluster { link, device, workers } = cluster;
        not_negative("link latency", link.latency)?;
        positive("link bandwidth", link.bandwidth)?;
        positive("device bandwidth", device.bandwidth)?;
        not_negative("kernel launch", device.launch)?;
        if workers == 0 {
            return Err(spec("workers", "0".into(), "at least 1"));
        }
        not_negative("bytes to select", footprint.select)?;
        not_negative("bytes to decode", footprint.decode)?;
        not_negative("bytes to decode per worker", footprint.decode_each)?;
        not_negative("kernels", footprint.kernels)?;
        not_negative("kernels per worker", footprint.kernels_each)?;
        positive("bytes of a pair", pairs.bytes)?;
        if !(pairs.density > 0.0 && pairs.density <= 1.0) {
            return Err(spec("density", pairs.density.to_string(), "more than 0 and at most 1"));
        }
        Ok(Self { cluster, footprint, pairs })
    }

    fn workers(&self) -> f64 {
        self.cluster.workers as f64
    }

    /// A ring all-reduce, the reduce-scatter and the all-gather: `2(N − 1)α + 2(N − 1)/N · 4n/B`.
    pub fn dense_ring(&self, elements: usize) -> f64 {
        let (n, link) = (self.workers(), self.cluster.link);
        2.0 * (n - 1.0) * link.latency + 2.0 * (n - 1.0) / n * elements as f64 * DENSE / link.bandwidth
    }

    /// A ring all-gather of pairs: `(N − 1)α + (N − 1) · bk/B`, with `k = density · n`.
    pub fn sparse_all_gather(&self, elements: usize) -> f64 {
        let (hops, link) = (self.workers() - 1.0, self.cluster.link);
        hops * link.latency + hops * elements as f64 * self.pairs.density * self.pairs.bytes / link.bandwidth
    }

    /// Selecting and decoding: bytes touched over the device's bandwidth, and a launch a kernel.
    pub fn compress(&self, elements: usize, tensors: usize) -> f64 {
        let (f, device) = (self.footprint, self.cluster.device);
        let bytes = f.select + f.decode + f.decode_each * self.workers();
        let kernels = f.kernels + f.kernels_each * self.workers();
        elements as f64 * bytes / device.bandwidth + tensors as f64 * kernels * device.launch
    }

    /// A step with a dense all-reduce.
    ///
    /// # Errors
    /// [`CompressionError::Spec`] if the time for computing is no time.
    pub fn dense_step(&self, model: &Model, overlap: Overlap) -> Result<f64, CompressionError> {
        not_negative("compute", model.compute)?;
        let reduce = self.dense_ring(model.parameters);
        Ok(match overlap {
            Overlap::None => model.compute + reduce,
            Overlap::Full => model.compute.max(reduce),
        })
    }

    /// A step with compression: computing, selecting and decoding, all-gather, one after the other.
    ///
    /// # Errors
    /// [`CompressionError::Spec`] if the time for computing is no time.
    pub fn sparse_step(&self, model: &Model) -> Result<f64, CompressionError> {
        not_negative("compute", model.compute)?;
        let n = model.parameters;
        Ok(model.compute + self.compress(n, model.tensors) + self.sparse_all_gather(n))
    }

    /// How many times as fast as the dense step the compressed one is; less than 1 where compression loses.
    ///
    /// # Errors
    /// [`CompressionError::Spec`] if the time for computing is no time.
    pub fn speedup(&self, model: &Model, overlap: Overlap) -> Result<f64, CompressionError> {
        Ok(self.dense_step(model, overlap)? / self.sparse_step(model)?)
    }

    /// DRAGONN's efficiency-aware tensor selection: whether `T_compress(d) + T_sparse(d) < T_full(d)`.
    pub fn worth_compressing(&self, elements: usize) -> bool {
        self.compress(elements, 1) + self.sparse_all_gather(elements) < self.dense_ring(elements)
    }

    /// The least size from which on a tensor is worth compressing; none if the largest bucket is not.
    ///
    /// Both sides are affine in the size, so the sizes worth compressing are all those on one side of a point; if the
    /// largest is among them, bisection finds the least.
    ///
    /// ```
    /// use tilewright_compression::cost::{Cluster, Cost, Device, Footprint, Link, Pairs};
    /// let link = Link { latency: 0.0, ..Link::gigabits(25.0) };
    /// let cluster = Cluster { link, device: Device::V100, workers: 16 };
    /// let cost = Cost::new(cluster, Footprint::DRAGONN, Pairs::plain(0.001))?;
    /// let size = cost.break_even_size().unwrap();
    /// assert!(cost.worth_compressing(size) && !cost.worth_compressing(size - 1));
    /// assert_eq!(size / 1000, 63);
    /// # Ok::<(), tilewright_compression::CompressionError>(())
    /// ```
    pub fn break_even_size(&self) -> Option<usize> {
        let (mut below, mut least) = (0, LONGEST);
        if !self.worth_compressing(least) {
            return None;
        }
        while least - below > 1 {
            let middle = below + (least - below) / 2;
            if self.worth_compressing(middle) {
                least = middle;
            } else {
                below = middle;
            }
        }
        Some(least)
    }

    /// The most workers among which an all-gather of pairs still sends less than a dense ring: `N < 2 · 4/(b · density)`,
    /// with pairs of eight bytes `N < 1/density`. Beyond that, entries must go to owners that add them up. Less than 2
    /// means never. The link, the device and the number of workers at hand do not matter.
    pub fn largest_worker_count(&self) -> usize {
        let sent = |workers: usize| workers as f64 * self.pairs.bytes * self.pairs.density;
        // A quotient that rounding moves across a whole number is put right by what it stands for.
        let mut workers = libm::floor(2.0 * DENSE / (self.pairs.bytes * self.pairs.density)) as usize;
        while workers > 0 && sent(workers) >= 2.0 * DENSE * (1.0 - 4.0 * f64::EPSILON) {
            workers -= 1;
        }
        workers
    }
}

fn not_negative(field: &'static str, x: f64) -> Result<(), CompressionError> {
    if x.is_finite() && x >= 0.0 { Ok(()) } else { Err(spec(field, x.to_string(), "a finite number, at least 0")) }
}

fn positive(field: &'static str, x: f64) -> Result<(), CompressionError> {
    if x.is_finite() && x > 0.0 { Ok(()) } else { Err(spec(field, x.to_string(), "a positive finite number")) }
}

/// A row of what the DRAGONN paper reports (Wang et al. 2022): training throughput over DGC, at 0.1 % of the entries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// What was trained. Computing times and numbers of tensors are rough: the paper does not give them.
    pub model: Model,
    /// Tensors that DRAGONN's selection leaves to compress.
    pub selected: usize,
    /// How many times DGC's throughput.
    pub speedup: f64,
}

impl Published {
    /// The paper's cluster: 16 V100 in two machines, 25 gigabits a second between them.
    pub const CLUSTER: Cluster = Cluster { link: Link::gigabits(25.0), device: Device::V100, workers: 16 };
    /// The paper's density.
    pub const DENSITY: f64 = 0.001;
    /// The paper's models.
    pub const ROWS: [Self; 4] = [
        Self::row("ResNet-50", 25_600_000, 0.090, [54, 40], 1.42),
        Self::row("ViT-B/16", 86_000_000, 0.170, [84, 75], 2.15),
        Self::row("MLP-Mixer-B/16", 59_000_000, 0.120, [80, 50], 1.72),
        Self::row("XML Wiki10-31K", 544_000_000, 0.060, [2, 2], 3.52),
    ];

    const fn row(
        name: &'static str,
        parameters: usize,
        compute: f64,
        [tensors, selected]: [usize; 2],
        speedup: f64,
    ) -> Self {
        Self { model: Model { name, parameters, compute, tensors }, selected, speedup }
    }

    /// What the model predicts: DGC's step over DRAGONN's.
    ///
    /// # Errors
    /// None for [`Self::ROWS`]; otherwise those of [`Cost::new`] and [`Cost::sparse_step`].
    ///
    /// ```
    /// use tilewright_compression::cost::Published;
    /// for row in Published::ROWS {
    ///     println!("{}: {:.2}, the paper {}", row.model.name, row.predict()?, row.speedup);
    ///     assert!((row.predict()? / row.speedup - 1.0).abs() < 0.3);
    /// }
    /// # Ok::<(), tilewright_compression::CompressionError>(())
    /// ```
    pub fn predict(&self) -> Result<f64, CompressionError> {
        let pairs = Pairs::plain(Self::DENSITY);
        let dgc = Cost::new(Self::CLUSTER, Footprint::DGC, pairs)?;
        let dragonn = Cost::new(Self::CLUSTER, Footprint::DRAGONN, pairs)?;
        Ok(dgc.sparse_step(&self.model)? / dragonn.sparse_step(&Model { tensors: self.selected, ..self.model })?)
    }
}
