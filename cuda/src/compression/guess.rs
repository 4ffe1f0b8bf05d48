//! How much is staged: values above a floor that is low enough to have all candidates, and high enough to leave most of a
//! bucket behind. The floor is guessed from a sample. A wrong guess costs time and nothing else: the kernels see that what
//! was staged does not do, and look at everything.

use tilewright_compression::CompressionSpec;

/// Most places of the sample.
const MOST: usize = 1 << 16;
/// Standard deviations between the number wanted and the number expected above the floor.
const DEVIATIONS: f64 = 6.0;
/// And so many places more, for counts so low that they are far from normal.
const MARGIN: f64 = 8.0;

/// Which magnitude of a sample is the floor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Guess {
    /// Places; one in each stretch of `stride` values.
    pub(super) count: usize,
    pub(super) stride: usize,
    /// The floor's rank among them, from the greatest down.
    pub(super) rank: usize,
}

impl Guess {
    /// The guess for the `k` greatest of `len`; none if everything has to be staged anyway.
    ///
    /// Of the sample's `s` places `s·k/len` are expected among the `k` greatest, with a variance that is no greater. So many
    /// deviations below that there are `k` in all but one of 10⁹ buckets.
    pub(super) fn new(len: usize, k: usize) -> Option<Self> {
        let count = (len / 16).min(MOST);
        let expected = count as f64 * k as f64 / len as f64;
        let rank = (expected + DEVIATIONS * expected.sqrt() + MARGIN).ceil() as usize;
        (k > 0 && rank < count).then(|| Self { count, stride: len / count, rank })
    }
}

/// Words that there is room for: several times what is expected above the floor. With a fixed threshold nobody knows.
pub(super) fn room(spec: &CompressionSpec) -> usize {
    let len = spec.len;
    let likely = spec.selector.aim(len).map_or(len / 8, |k| k.saturating_mul(4).saturating_add(len / 64));
    likely.saturating_add(1024).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright_compression::Count;

    #[test]
    fn there_is_room_for_what_a_guess_expects() {
        for len in [1, 500, 9000, 1 << 20, 1 << 28, u32::MAX as usize] {
            for k in [1, 10, len / 1000, len / 100, len / 10, len].map(|k| k.min(len)) {
                let room = room(&CompressionSpec::top_k(len, Count::Entries(k)));
                assert!(room <= len);
                let Some(Guess { count, stride, rank }) = Guess::new(len, k) else { continue };
                assert!(count * stride <= len && rank < count);
                // Six deviations above what is expected there.
                let (rank, share) = (rank as f64, len as f64 / count as f64);
                assert!((room as f64) >= ((rank + 6.0 * rank.sqrt()) * share).min(len as f64), "{k} of {len}: {room}");
            }
        }
    }
}
