//! Proximal operators, scores and selection for data that are on the device already. Nothing here waits.

use super::kernels::{DIGITS, GroupsArgument, Kernels, SPLIT, THREADS, TILE};
use crate::{Buffer, Config, CudaError, Device};
use tilewright_grouplasso::{GroupLassoSpec, Layout};

/// Groups on the device: which rows belong together, and what each group pays.
#[derive(Debug)]
pub struct ResidentGroups {
    starts: Option<Buffer<u64>>,
    members: Option<Buffer<u64>>,
    /// Three a group.
    terms: Buffer<f64>,
    groups: usize,
    rows: usize,
}

impl ResidentGroups {
    /// Copies them to the device.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], [`CudaError::Driver`].
    pub fn new(device: &Device, spec: &GroupLassoSpec, layout: &Layout) -> Result<Self, CudaError> {
        let (groups, rows) = (layout.groups(), layout.rows());
        let terms = (0..groups).map(|group| layout.terms(spec, group)).flat_map(|t| [t.l1, t.l2, t.ridge]);
        let terms = Buffer::from_slice(device, "terms of the groups", &terms.collect::<Vec<_>>())?;
        let (mut starts, mut members) = (None, None);
        if !layout.is_rows() {
            let mut ends = vec![0u64];
            let all: Vec<u64> = (0..groups).flat_map(|group| layout.rows_of(group)).map(|row| row as u64).collect();
            ends.extend((0..groups).scan(0, |end, group| {
                *end += layout.size(group) as u64;
                Some(*end)
            }));
            starts = Some(Buffer::from_slice(device, "starts of the groups", &ends)?);
            // Where places are rows there is nothing to look up.
            if !all.iter().enumerate().all(|(place, row)| place as u64 == *row) {
                members = Some(Buffer::from_slice(device, "rows of the groups", &all)?);
            }
        }
        Ok(Self { starts, members, terms, groups, rows })
    }

    fn argument(&self, outputs: usize) -> GroupsArgument {
        GroupsArgument {
            starts: self.starts.as_ref().map_or(0, Buffer::address),
            members: self.members.as_ref().map_or(0, Buffer::address),
            groups: self.groups as u64,
            outputs: outputs as u64,
        }
    }
}

/// The family's operations on a device's stream. It keeps its working memory.
pub struct ResidentGroupLasso {
    device: Device,
    pub(super) kernels: Kernels,
    histogram: Buffer<u32>,
    states: Buffer<u64>,
    tiles: Buffer<u32>,
    #[cfg(feature = "cublas")]
    pub(super) blas: Option<super::Cublas>,
}

impl ResidentGroupLasso {
    /// Loads the kernels.
    ///
    /// # Errors
    /// [`CudaError::Load`], [`CudaError::OutOfMemory`].
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        Ok(Self {
            device: device.clone(),
            kernels: Kernels::new(device)?,
            histogram: Buffer::zeros(device, "histogram", DIGITS)?,
            states: Buffer::uninit(device, "tile states", 0)?,
            tiles: Buffer::zeros(device, "tile counter", 1)?,
            #[cfg(feature = "cublas")]
            blas: None,
        })
    }

    /// The solver's products by cuBLAS. `X` is then kept in `f64`, standardised, and with a column for each copy of a feature.
    #[cfg(feature = "cublas")]
    #[must_use]
    pub fn with_cublas(mut self, blas: super::Cublas) -> Self {
        self.blas = Some(blas);
        self
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Blocks of 256 threads for a loop over `n`.
    pub(super) fn many(&self, n: usize) -> Config {
        let most = self.device.multiprocessors() as usize * 8;
        Config::new(n.div_ceil(THREADS as usize).clamp(1, most) as u32, THREADS)
    }

    /// Applies the proximal operator of the whole penalty to `w`, rows of `outputs` numbers end to end, in place: the bits of
    /// [`prox::all`](tilewright_grouplasso::prox::all).
    ///
    /// # Errors
    /// [`CudaError::Argument`] if `w` has not that many rows; the device failed.
    pub fn prox(
        &self,
        groups: &ResidentGroups,
        step: f64,
        w: &mut Buffer<f64>,
        outputs: usize,
    ) -> Result<(), CudaError> {
        if w.len() != groups.rows * outputs {
            let expected = format!("{} rows of {outputs}", groups.rows);
            return Err(CudaError::argument("w", format_args!("{} numbers", w.len()), expected));
        }
        if w.is_empty() {
            return Ok(());
        }
        let launch = self.kernels.prox.launch(self.many(groups.groups)).value(groups.argument(outputs));
        // SAFETY: a checked layout's rows lie in `w`.
        unsafe { launch.read(&groups.terms).value(step).write(w).run() }
    }

    /// The norms of the rows of `w`, of `outputs` numbers each: the bits of
    /// [`select::scores`](tilewright_grouplasso::select::scores).
    ///
    /// # Errors
    /// [`CudaError::Argument`] if `w` has not as many rows as there is room for scores; the device failed.
    pub fn scores(&self, w: &Buffer<f64>, outputs: usize, scores: &mut Buffer<f64>) -> Result<(), CudaError> {
        let rows = scores.len();
        if w.len() != rows * outputs {
            let expected = format!("{rows} rows of {outputs}");
            return Err(CudaError::argument("w", format_args!("{} numbers", w.len()), expected));
        }
        if rows == 0 {
            return Ok(());
        }
        let launch = self.kernels.scores.launch(self.many(rows)).read(w).value(rows as u64).value(outputs as u64);
        // SAFETY: `w` has so many rows, of which nothing is changed.
        unsafe { launch.write(scores).run() }
    }

    /// Writes the indices of the greatest scores, as many as there is room for in `kept`, ascending; of equal scores the least
    /// indices. None of the scores is NaN.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if more are asked for than there are; the device failed.
    pub fn top(&mut self, scores: &Buffer<f64>, kept: &mut Buffer<u64>) -> Result<(), CudaError> {
        let (n, k) = (scores.len(), kept.len());
        if k > n {
            return Err(CudaError::argument("features to keep", k, format_args!("at most {n}")));
        }
        if k == 0 {
            return Ok(());
        }
        let mut search = Buffer::from_slice(&self.device, "search", &[0, k as u64])?;
        for (shift, bits) in SPLIT {
            let launch = self.kernels.digits.launch(self.many(n)).read(scores).value(n as u64).read(&search);
            // SAFETY: it reads the scores, and counts digits.
            unsafe { launch.write(&mut self.histogram).value(shift).value(bits).run() }?;
            let launch = self.kernels.pick.launch(Config::new(1, DIGITS as u32 / 2)).write(&mut search);
            // SAFETY: it reads the histogram of digits, and writes the search.
            unsafe { launch.write(&mut self.histogram).value(bits).run() }?;
        }
        let tiles = n.div_ceil(TILE);
        if self.states.len() < 2 * tiles {
            self.states = Buffer::uninit(&self.device, "tile states", 2 * tiles)?;
        }
        self.states.clear_first(2 * tiles)?;
        self.tiles.clear()?;
        let launch = self.kernels.keep.launch(Config::new(tiles as u32, THREADS)).read(scores).value(n as u64);
        let launch = launch.read(&search).write(kept).value(k as u64).write(&mut self.tiles).write(&mut self.states);
        // SAFETY: it writes at most `k` indices, and two states a tile.
        unsafe { launch.run() }
    }
}
