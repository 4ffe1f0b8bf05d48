//! Collisions of `k` entries in `m` slots, exactly, for a hash that is uniform and independent.

/// `(1 − parts/m)^k`: that `k` entries all miss `parts` slots.
fn missed(parts: f64, k: f64, m: f64) -> f64 {
    match () {
        () if k == 0.0 => 1.0,
        () if m <= parts => 0.0,
        () => libm::exp(k * libm::log1p(-parts / m)),
    }
}

/// Slots that are expected to be taken: `m(1 − (1 − 1/m)^k)`.
///
/// ```
/// use tilewright_compression::statistics::expected_occupied;
/// let kept = expected_occupied(1000, 4000) / 1000.0; // DRAGONN's four slots an entry
/// assert!((1.0 - kept - 0.115).abs() < 0.001);
/// ```
pub fn expected_occupied(k: u64, m: u64) -> f64 {
    let (k, m) = (k as f64, m as f64);
    if m > 1.0 { -m * libm::expm1(k * libm::log1p(-1.0 / m)) } else { m * (1.0 - missed(1.0, k, m)) }
}

/// The variance of the number of taken slots:
/// `m(m − 1)(1 − 2/m)^k + m(1 − 1/m)^k − m²(1 − 1/m)^{2k}`.
///
/// With `a = (1 − 1/m)^k` it is `m²a²((1 − 1/(m − 1)²)^k − 1) − ma((1 − 1/(m − 1))^k − 1)`, whose differences from 1 can
/// be had without cancellation when there are far more slots than entries.
pub fn occupied_variance(k: u64, m: u64) -> f64 {
    let (k, m) = (k as f64, m as f64);
    let (one, two) = (missed(1.0, k, m), missed(2.0, k, m));
    if m <= 2.0 {
        return (m * m * (two - one * one) + m * (one - two)).max(0.0);
    }
    let less = |part: f64| libm::expm1(k * libm::log1p(-part));
    let n = m - 1.0;
    (m * m * one * one * less(1.0 / (n * n)) - m * one * less(1.0 / n)).max(0.0)
}

/// The chance that the entry of rank `rank` (1 is the greatest) keeps its slot under the rule of the largest magnitude:
/// none of the `rank − 1` greater ones is in it, `(1 − 1/m)^(rank − 1)`. There is no rank 0; it counts as 1.
pub fn survival(rank: u64, m: u64) -> f64 {
    missed(1.0, rank.saturating_sub(1) as f64, m as f64)
}

/// How many standard deviations an observed total of taken slots, over `rounds` independent rounds, is from its mean. 0
/// where nothing is random.
pub fn deviations(occupied: u64, rounds: u64, k: u64, m: u64) -> f64 {
    let (mean, variance) = (expected_occupied(k, m) * rounds as f64, occupied_variance(k, m) * rounds as f64);
    let off = occupied as f64 - mean;
    if variance > 1e-9 { off / libm::sqrt(variance) } else { off }
}

/// χ² of counts against equal shares; 0 if nothing was counted.
///
/// ```
/// use tilewright_compression::statistics::chi_squared;
/// assert_eq!(chi_squared(&[10, 10]), 0.0);
/// assert_eq!(chi_squared(&[20, 0]), 20.0);
/// ```
pub fn chi_squared(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>();
    if total == 0 {
        return 0.0;
    }
    let share = total as f64 / counts.len() as f64;
    counts.iter().map(|n| (*n as f64 - share) * (*n as f64 - share) / share).sum()
}

/// The largest load that owners are allowed when indices are shared out by hash (ZEN, Wang et al., OSDI 2025, has the
/// form of it): `1 + 5√(N ln N / entries)` times the mean.
pub fn owner_imbalance(owners: usize, entries: usize) -> f64 {
    let n = owners.max(1) as f64;
    1.0 + 5.0 * libm::sqrt(n * libm::log(n) / (entries as f64).max(1.0))
}
