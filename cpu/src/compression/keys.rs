//! Selection among keys.

/// The least key of a magnitude or greater.
pub(super) fn least_key(magnitude: u32) -> u64 {
    u64::from(magnitude) << 33
}

/// The `k`-th greatest of `keys`. If `certain` separates off a few less than `k` of them, only what is below it is sorted
/// out; any `certain` gives the right answer. `k` is at least 1 and at most the number of keys.
pub(super) fn kth_greatest(keys: &[u64], k: usize, certain: u64, scratch: &mut Vec<u64>) -> u64 {
    let below = filter(keys, scratch, |key| key < certain);
    let above = keys.len() - below;
    if above < k {
        return nth_greatest(&mut scratch[..below], k - above);
    }
    let above = filter(keys, scratch, |key| key >= certain);
    nth_greatest(&mut scratch[..above], k)
}

fn nth_greatest(keys: &mut [u64], n: usize) -> u64 {
    let at = keys.len() - n;
    *keys.select_nth_unstable(at).1
}

/// Copies what `wanted` accepts to the front of `scratch`, without a branch for each; returns how many.
fn filter(keys: &[u64], scratch: &mut Vec<u64>, wanted: impl Fn(u64) -> bool) -> usize {
    if scratch.len() < keys.len() {
        scratch.resize(keys.len(), 0);
    }
    let mut count = 0;
    for &key in keys {
        scratch[count] = key;
        count += usize::from(wanted(key));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tilewright_compression::key::key;

    proptest! {
        #[test]
        fn any_guess_gives_the_right_key(
            values in proptest::collection::vec(-9i8..9, 1..300),
            k in 1usize..300,
            certain in 0u32..12,
        ) {
            let keys: Vec<u64> = (0u32..).zip(&values).map(|(i, x)| key(i, f32::from(*x))).collect();
            let k = k.min(keys.len());
            let mut sorted = keys.clone();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            for certain in [0, key(0, certain as f32), u64::MAX] {
                prop_assert_eq!(kth_greatest(&keys, k, certain, &mut vec![7; 3]), sorted[k - 1]);
            }
        }
    }
}
