//! Folds for cross-validation and features at random: by counter-based random numbers, so a seed says everything.

use crate::GroupLassoError;
use crate::spec::spec;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use tilewright_scalar::philox4x32_10;

/// What a random number is for: the third word of the generator's counter.
#[derive(Clone, Copy)]
enum Purpose {
    Folds,
    Features,
}

/// A number below `bound`, which belongs to a seed, a purpose and a place.
fn below(seed: u64, purpose: Purpose, at: usize, bound: usize) -> usize {
    let [low, high, ..] =
        philox4x32_10([at as u32, (at as u64 >> 32) as u32, purpose as u32, 0], [seed as u32, (seed >> 32) as u32]);
    let word = u128::from(low) | u128::from(high) << 32;
    ((word * bound as u128) >> 64) as usize
}

/// The samples of each fold, ascending: as many of each class in every fold as in any other, and as many samples, but for one.
///
/// ```
/// use tilewright_grouplasso::sampling::stratified_folds;
/// let folds = stratified_folds(&[0, 0, 0, 0, 1, 1, 1, 1], 2, 7)?;
/// for fold in folds {
///     assert_eq!(fold.iter().filter(|&&sample| sample < 4).count(), 2);
///     assert_eq!(fold.len(), 4);
/// }
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
///
/// # Errors
/// [`GroupLassoError::Spec`] for fewer than two folds, or more than samples.
pub fn stratified_folds(labels: &[u32], folds: usize, seed: u64) -> Result<Vec<Vec<usize>>, GroupLassoError> {
    if folds < 2 || folds > labels.len() {
        return Err(spec("folds", folds.to_string(), "at least 2, and no more than samples"));
    }
    let mut order: Vec<usize> = (0..labels.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, below(seed, Purpose::Folds, i, i + 1));
    }
    // Stable: within a class the shuffled order stays. Dealt out in turn over all classes, no fold falls behind.
    order.sort_by_key(|&sample| labels[sample]);
    let mut dealt = vec![Vec::new(); folds];
    for (place, sample) in order.into_iter().enumerate() {
        dealt[place % folds].push(sample);
    }
    for fold in &mut dealt {
        fold.sort_unstable();
    }
    Ok(dealt)
}

/// The samples that are not in a fold.
pub fn others(samples: usize, fold: &[usize]) -> Vec<usize> {
    let mut held = vec![false; samples];
    fold.iter().filter(|&&sample| sample < samples).for_each(|&sample| held[sample] = true);
    (0..samples).filter(|&sample| !held[sample]).collect()
}

/// `count` different features of `features`, ascending, all choices equally likely: what a selection is compared with.
///
/// ```
/// let some = tilewright_grouplasso::sampling::random_features(1000, 10, 3);
/// assert_eq!(some.len(), 10);
/// assert!(some.windows(2).all(|pair| pair[0] < pair[1]) && some[9] < 1000);
/// ```
pub fn random_features(features: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..features).collect();
    let count = count.min(features);
    for i in 0..count {
        order.swap(i, i + below(seed, Purpose::Features, i, features - i));
    }
    order.truncate(count);
    order.sort_unstable();
    order
}
