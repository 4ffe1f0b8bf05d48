//! From what a layer puts out to a few hundred or thousand features: pooling to a target size `T`, by the rule of Head2Toe's
//! code.
//!
//! * A map of `c` channels: with `c ≥ T` the mean over all places; else a grid of about `n × n` cells, `n = ⌊√⌊T/c⌋⌋`, each the
//!   mean of `p × p` places, `p = ⌊width/n⌋`, stride `p`; what does not fill a cell is left out. `n` cells is what is aimed at:
//!   where `p` does not divide the width, there can be more.
//! * Tokens of `c` channels: with `c ≥ T` the mean over all tokens; else cells of `p = ⌊tokens · c / T⌋` tokens, likewise.
//! * A vector stays as it is.
//!
//! Where the rule asks for more cells than there are places (`p = 0`), a place is a cell. Channels come last, and are the
//! fastest to change in what is put out, as in the paper's code.

use crate::GroupLassoError;
use alloc::format;
use ndarray::{Array2, ArrayView3, ArrayView4};
use tilewright_scalar::Element;

/// The shape of what a layer puts out for one sample.
///
/// ```
/// use tilewright_grouplasso::pooling::Tap;
/// assert_eq!(Tap::Map { height: 60, width: 60, channels: 64 }.pooled(512)?, 256); // 2 × 2 cells of 30 × 30 places
/// assert_eq!(Tap::Tokens { tokens: 197, channels: 768 }.pooled(768)?, 768); // the mean token
/// assert_eq!(Tap::Vector { features: 2048 }.pooled(512)?, 2048);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tap {
    /// Numbers without a place.
    Vector {
        /// So many.
        features: usize,
    },
    /// A sequence of vectors.
    Tokens {
        /// Its length.
        tokens: usize,
        /// The length of each vector.
        channels: usize,
    },
    /// A rectangle of vectors.
    Map {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The length of each vector.
        channels: usize,
    },
}

impl Tap {
    /// Features after pooling to the target size `T`.
    ///
    /// # Errors
    /// [`GroupLassoError::Spec`] if `T` is 0, [`GroupLassoError::Shape`] if the tap is empty.
    pub fn pooled(self, target: usize) -> Result<usize, GroupLassoError> {
        let Cells { down, across, channels } = self.cells(target)?;
        Ok(down.count * across.count * channels)
    }

    /// The sizes of all numbers of all taps together, pooled: `d`.
    ///
    /// # Errors
    /// As [`pooled`](Self::pooled).
    pub fn pooled_sum(taps: impl IntoIterator<Item = Self>, target: usize) -> Result<usize, GroupLassoError> {
        taps.into_iter().map(|tap| tap.pooled(target)).sum()
    }

    fn cells(self, target: usize) -> Result<Cells, GroupLassoError> {
        if target == 0 {
            return Err(crate::spec::spec("target", "0".into(), "at least 1"));
        }
        let empty =
            |shape| GroupLassoError::Shape { argument: "tap", got: shape, expected: "at least 1 of each".into() };
        match self {
            Self::Vector { features: 0 } => Err(empty("0 features".into())),
            Self::Vector { features } => Ok(Cells { down: Axis::ALL, across: Axis::ALL, channels: features }),
            Self::Tokens { tokens, channels } if tokens == 0 || channels == 0 => {
                Err(empty(format!("{tokens} tokens of {channels} channels")))
            }
            Self::Tokens { tokens, channels } => {
                let size = if channels >= target { tokens } else { tokens.saturating_mul(channels) / target };
                Ok(Cells { down: Axis::ALL, across: Axis::new(tokens, size), channels })
            }
            Self::Map { height, width, channels } if height == 0 || width == 0 || channels == 0 => {
                Err(empty(format!("{height} × {width} places of {channels} channels")))
            }
            Self::Map { height, width, channels } if channels >= target => {
                Ok(Cells { down: Axis::new(height, height), across: Axis::new(width, width), channels })
            }
            Self::Map { height, width, channels } => {
                let size = width / (target / channels).isqrt();
                Ok(Cells { down: Axis::new(height, size), across: Axis::new(width, size), channels })
            }
        }
    }
}

/// Cells along one axis.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    count: usize,
}

impl Axis {
    const ALL: Self = Self { size: 1, count: 1 };

    /// Cells of `size` places, but at least of one and at most of all.
    fn new(places: usize, size: usize) -> Self {
        let size = size.clamp(1, places);
        Self { size, count: (places - size) / size + 1 }
    }
}

struct Cells {
    down: Axis,
    across: Axis,
    channels: usize,
}

/// Pools maps, `n × height × width × channels`: one row a sample.
///
/// ```
/// use ndarray::Array4;
/// use tilewright_grouplasso::pooling::pool_maps;
/// let x = Array4::from_shape_fn((1, 2, 4, 1), |(_, i, j, _)| (10 * i + j) as f64);
/// assert_eq!(pool_maps(x.view(), 4)?, ndarray::array![[5.5, 7.5]]); // one row of two cells
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
///
/// # Errors
/// As [`Tap::pooled`].
pub fn pool_maps<T: Element>(x: ArrayView4<'_, T>, target: usize) -> Result<Array2<T>, GroupLassoError> {
    let (samples, height, width, channels) = x.dim();
    let Cells { down, across, .. } = Tap::Map { height, width, channels }.cells(target)?;
    Ok(Array2::from_shape_fn((samples, down.count * across.count * channels), |(sample, at)| {
        let (cell, channel) = (at / channels, at % channels);
        let (top, left) = (cell / across.count * down.size, cell % across.count * across.size);
        let mut sum = 0.0;
        for i in top..top + down.size {
            for j in left..left + across.size {
                sum += x[[sample, i, j, channel]].to_f64();
            }
        }
        T::from_f64(sum / (down.size * across.size) as f64)
    }))
}

/// Pools tokens, `n × tokens × channels`: one row a sample.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::pooling::pool_tokens;
/// let x = array![[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]];
/// assert_eq!(pool_tokens(x.view(), 2)?, array![[3.0, 4.0]]);
/// assert_eq!(pool_tokens(x.view(), 6)?, array![[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
///
/// # Errors
/// As [`Tap::pooled`].
pub fn pool_tokens<T: Element>(x: ArrayView3<'_, T>, target: usize) -> Result<Array2<T>, GroupLassoError> {
    let (samples, tokens, channels) = x.dim();
    let Cells { across, .. } = Tap::Tokens { tokens, channels }.cells(target)?;
    Ok(Array2::from_shape_fn((samples, across.count * channels), |(sample, at)| {
        let (cell, channel) = (at / channels, at % channels);
        let tokens = cell * across.size..(cell + 1) * across.size;
        let sum: f64 = tokens.map(|token| x[[sample, token, channel]].to_f64()).sum();
        T::from_f64(sum / across.size as f64)
    }))
}
