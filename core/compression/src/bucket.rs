//! Many tensors in few buckets, and which of them are compressed at all.
//!
//! A compressor has a fixed cost per call, so small tensors are packed together (as PyTorch's DDP does), and an index has
//! 32 bits, so a huge one is split. DRAGONN's efficiency-aware selection (Wang et al. 2022, §4.3) leaves the rest dense.

use crate::CompressionError;
use crate::spec::{LONGEST, spec};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;

/// A run of elements of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// Which tensor.
    pub tensor: usize,
    /// First element within the tensor.
    pub start: u64,
    /// Elements, at least one.
    pub len: u64,
}

/// Pieces that travel together, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Whether it is compressed.
    pub compressed: bool,
    /// Elements of all pieces, at least one and at most [`LONGEST`].
    pub len: u64,
    /// What it consists of, in order.
    pub pieces: Vec<Piece>,
}

impl Bucket {
    fn open(compressed: bool) -> Self {
        Self { compressed, len: 0, pieces: Vec::new() }
    }

    fn push(&mut self, piece: Piece) {
        self.len += piece.len;
        self.pieces.push(piece);
    }

    /// The pieces, each with its place in the bucket.
    ///
    /// ```
    /// use tilewright_compression::bucket::Buckets;
    /// let buckets = Buckets::pack(&[3, 2], 8, |_, _| true)?;
    /// let places: Vec<_> = buckets.list()[0].places().map(|(place, piece)| (place, piece.tensor)).collect();
    /// assert_eq!(places, [(0..3, 0), (3..5, 1)]);
    /// # Ok::<(), tilewright_compression::CompressionError>(())
    /// ```
    pub fn places(&self) -> impl Iterator<Item = (Range<u64>, Piece)> + '_ {
        self.pieces.iter().scan(0, |end, piece| {
            let start = *end;
            *end += piece.len;
            Some((start..*end, *piece))
        })
    }
}

/// How the tensors of a model are packed.
///
/// ```
/// use tilewright_compression::bucket::Buckets;
/// // Two matrices with their biases; what has fewer than 100 elements is not worth compressing.
/// let buckets = Buckets::pack(&[640, 10, 500, 50], 1000, |_, len| len >= 100)?;
/// let shape: Vec<_> = buckets.list().iter().map(|bucket| (bucket.compressed, bucket.len)).collect();
/// assert_eq!(shape, [(true, 640), (false, 60), (true, 500)]);
/// # Ok::<(), tilewright_compression::CompressionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buckets {
    lengths: Vec<u64>,
    list: Vec<Bucket>,
}

impl Buckets {
    /// Packs tensors of these lengths into buckets of at most `limit` elements. `compress` is asked about each tensor by
    /// number and length; those with a yes share buckets with each other, and so do those with a no.
    ///
    /// Tensors keep their order within their kind. One that fits into a bucket is never split: if the open bucket has no
    /// room for it, another is opened. One longer than `limit` is cut into pieces of `limit` and a rest. An empty tensor
    /// is nowhere. Buckets are listed in the order they were opened.
    ///
    /// # Errors
    /// [`CompressionError::Spec`] if `limit` is zero or beyond [`LONGEST`], or if the elements cannot be counted in 64
    /// bits.
    pub fn pack(
        lengths: &[u64],
        limit: u64,
        mut compress: impl FnMut(usize, u64) -> bool,
    ) -> Result<Self, CompressionError> {
        if limit == 0 || limit > LONGEST as u64 {
            return Err(spec("bucket size", limit.to_string(), "at least 1 and at most 4294967295"));
        }
        if lengths.iter().try_fold(0_u64, |sum, len| sum.checked_add(*len)).is_none() {
            return Err(spec("tensors", "more elements".into(), "fewer than 2^64 elements in all"));
        }
        let mut list: Vec<Bucket> = Vec::new();
        let mut open: [Option<usize>; 2] = [None; 2];
        for (tensor, len) in lengths.iter().copied().enumerate().filter(|(_, len)| *len > 0) {
            let compressed = compress(tensor, len);
            let open = &mut open[usize::from(compressed)];
            for piece in pieces(tensor, len, limit) {
                let at = match *open {
                    Some(at) if piece.len <= limit - list[at].len => at,
                    _ => {
                        list.push(Bucket::open(compressed));
                        list.len() - 1
                    }
                };
                list[at].push(piece);
                *open = Some(at);
            }
        }
        Ok(Self { lengths: lengths.to_vec(), list })
    }

    /// The buckets.
    pub fn list(&self) -> &[Bucket] {
        &self.list
    }

    /// The lengths of the tensors.
    pub fn lengths(&self) -> &[u64] {
        &self.lengths
    }

    /// Elements of all tensors.
    pub fn elements(&self) -> u64 {
        self.lengths.iter().sum()
    }

    /// The length of the longest bucket, 0 without any.
    pub fn longest(&self) -> u64 {
        self.list.iter().map(|bucket| bucket.len).max().unwrap_or(0)
    }
}

/// A tensor in pieces of `limit` and a rest. A tensor of 2⁶⁴ − 1 elements and a small limit make more pieces than there
/// is memory for, but each number along the way is right.
fn pieces(tensor: usize, len: u64, limit: u64) -> impl Iterator<Item = Piece> {
    (0..len.div_ceil(limit)).map(move |i| {
        let start = i * limit;
        Piece { tensor, start, len: limit.min(len - start) }
    })
}
