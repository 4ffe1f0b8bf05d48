//! Sums that gather in the backward pass, and where they go.

use super::float::{Float, Stored};
use super::meeting::KeyGradients;
use super::tile::Tile;
use ndarray::{Array4, ArrayViewMut4};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tilewright_attention::{AttentionSpec, Keys, tensors};

/// What one chunk of keys adds to `dQ`: consecutive query tiles, from number `first` on.
#[derive(Debug)]
pub(super) struct Part<A> {
    pub(super) first: usize,
    pub(super) tiles: Vec<Tile<A>>,
}

/// A sum of parts in the order of their numbers, whatever order they come in.
#[derive(Debug)]
pub(super) struct Gathering<A>(Mutex<Sums<A>>);

#[derive(Debug)]
struct Sums<A> {
    tiles: Vec<Tile<A>>,
    next: usize,
    /// Parts that came before their turn.
    early: BTreeMap<usize, Part<A>>,
}

impl<A: Float> Gathering<A> {
    /// From zeros.
    pub(super) fn new(tiles: Vec<Tile<A>>) -> Self {
        Self(Mutex::new(Sums { tiles, next: 0, early: BTreeMap::new() }))
    }

    /// Adds part number `at`; every number from 0 on comes once. Returns the tiles of the parts whose turn has come.
    pub(super) fn add(&self, at: usize, part: Part<A>) -> Vec<Tile<A>> {
        let mut spent = Vec::new();
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = &mut *guard;
        sums.early.insert(at, part);
        while let Some(part) = sums.early.remove(&sums.next) {
            sums.next += 1;
            for (sum, part) in sums.tiles[part.first..].iter_mut().zip(&part.tiles) {
                sum.add(part);
            }
            spent.extend(part.tiles);
        }
        spent
    }

    /// The sums, once all parts have come.
    pub(super) fn into_sums(self) -> Vec<Tile<A>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).tiles
    }
}

/// The gradients of paged keys and values. Sequences may share pages, and what belongs to a page is added up before it is
/// rounded.
#[derive(Debug)]
pub(super) struct Pages<A> {
    d_k: Array4<A>,
    d_v: Array4<A>,
}

impl<A: Float> Pages<A> {
    /// Zeros, if keys are paged.
    pub(super) fn new(spec: &AttentionSpec) -> Option<Self> {
        let zeros = |shape| Array4::from_elem(shape, A::zero());
        matches!(spec.keys, Keys::Paged { .. }).then(|| Self { d_k: zeros(spec.k_shape()), d_v: zeros(spec.v_shape()) })
    }

    /// Adds what has gathered for the keys of one head.
    pub(super) fn add(&mut self, spec: &AttentionSpec, [b, hk]: [usize; 2], keys: &[KeyGradients<A>]) {
        for tile in keys {
            for (r, j) in tile.keys.clone().enumerate() {
                let (slot, row) = spec.key_slot(b, j);
                for (to, from) in [(&mut self.d_k, &tile.d_k), (&mut self.d_v, &tile.d_v)] {
                    let to = tensors::row_mut(to.view_mut(), [slot, hk, row]);
                    to.into_iter().zip(from.row(r)).for_each(|(to, x)| *to += *x);
                }
            }
        }
    }

    /// Rounds them to storage, `dK` times `scale`.
    pub(super) fn store<T: Stored<Accum = A>>(
        &self,
        scale: A,
        mut d_k: ArrayViewMut4<'_, T>,
        mut d_v: ArrayViewMut4<'_, T>,
    ) {
        d_k.zip_mut_with(&self.d_k, |to, from| *to = T::from_accum(scale * *from));
        d_v.zip_mut_with(&self.d_v, |to, from| *to = T::from_accum(*from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parts of three tiles whose sum has other bits in another order; number `at` begins at tile `at % 3`.
    fn part(at: usize) -> Part<f32> {
        let tile = |n: usize| {
            let mut tile = Tile::zeros(2, 3);
            for (c, x) in tile.row_mut(1).iter_mut().enumerate() {
                *x = 0.1 * 3f32.powi(((at * 7 + n * 5 + c) % 16) as i32);
            }
            tile
        };
        Part { first: at % 3, tiles: (at % 3..3).map(tile).collect() }
    }

    fn sums(order: &[usize]) -> Vec<u32> {
        let gathering = Gathering::new(vec![Tile::zeros(2, 3); 3]);
        for &at in order {
            gathering.add(at, part(at));
        }
        gathering
            .into_sums()
            .iter()
            .flat_map(|tile| tile.row(1).iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            .collect()
    }

    proptest! {
        #[test]
        fn the_order_in_which_parts_come_is_no_matter(order in Just((0..9).collect::<Vec<_>>()).prop_shuffle()) {
            prop_assert_eq!(sums(&order), sums(&(0..9).collect::<Vec<_>>()));
        }
    }
}
