//! What the machine can do at best, measured beside a kernel: benches state what share of it a kernel reaches.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::factor::Factor;
use super::float::{Float, mul_add};
use super::isa::{Isa, Machine, stamped, stamped_for_pairs};
use super::kernels::{LANES, ROWS};
use super::pairs::Pair;
use std::hint::black_box;

/// Runs `rounds` rounds of multiply-adds that never leave the registers, in the shape of the products' register tile, and
/// returns how many floating-point operations that were.
///
/// ```
/// use tilewright_cpu::{Isa, attention::ceiling};
/// let began = std::time::Instant::now();
/// let operations = ceiling::multiply_adds(Isa::best(), 1000);
/// println!("{:.1} GFLOP/s", operations as f64 / began.elapsed().as_secs_f64() / 1e9);
/// ```
pub fn multiply_adds(isa: Isa, rounds: u64) -> u64 {
    let lanes = isa.panel(size_of::<f32>());
    black_box(spin(isa, black_box(rounds), black_box(0.999_f32), black_box(0.001_f32)));
    2 * rounds * (ROWS * lanes) as u64
}

/// The same for products of pairs of `bf16`, each of them four operations: by the machine's instruction for it, or as it is
/// done without.
pub fn pair_products(isa: Isa, rounds: u64) -> u64 {
    let (lanes, mut sum) = (isa.panel(size_of::<f32>()), 0.0);
    spin_pairs(isa, black_box(rounds), black_box(Pair::new(0.5, 0.25)), &mut sum);
    black_box(sum);
    4 * rounds * (ROWS * lanes) as u64
}

/// Reads memory once, as fast as one thread can, and returns the bytes read.
pub fn read(isa: Isa, memory: &[f32]) -> u64 {
    black_box(sum(isa, black_box(memory)));
    size_of_val(memory) as u64
}

stamped! {
    fn spin<A: Float>(rounds: u64, x: A, y: A) -> A = spin_body
}

#[inline(always)]
fn spin_body<A: Float, M: Machine>(rounds: u64, x: A, y: A) -> A {
    if const { M::VECTOR * M::VECTORS == 256 } {
        spin_tile::<A, M, 64>(rounds, x, y)
    } else if const { M::VECTOR * M::VECTORS == 64 } {
        spin_tile::<A, M, 16>(rounds, x, y)
    } else {
        spin_tile::<A, M, 8>(rounds, x, y)
    }
}

#[inline(always)]
fn spin_tile<A: Float, M: Machine, const C: usize>(rounds: u64, x: A, y: A) -> A {
    let mut sums = black_box([[x; C]; ROWS]);
    for _ in 0..rounds {
        for r in 0..ROWS {
            for lane in 0..C {
                sums[r][lane] = mul_add::<A, M>(sums[r][lane], x, y);
            }
        }
    }
    // As a whole: what is asked for number by number would be computed number by number.
    black_box(sums)[0][0]
}

stamped_for_pairs! {
    fn spin_pairs(rounds: u64, x: Pair, sum: &mut f32) = spin_pairs_body
}

#[inline(always)]
fn spin_pairs_body<M: Machine>(rounds: u64, x: Pair, sum: &mut f32) {
    *sum = if const { M::VECTOR * M::VECTORS == 256 } {
        spin_pairs_tile::<M, 64>(rounds, x)
    } else if const { M::VECTOR * M::VECTORS == 64 } {
        spin_pairs_tile::<M, 16>(rounds, x)
    } else {
        spin_pairs_tile::<M, 8>(rounds, x)
    };
}

#[inline(always)]
fn spin_pairs_tile<M: Machine, const C: usize>(rounds: u64, x: Pair) -> f32 {
    let (mut sums, row) = (black_box([[0.0; C]; ROWS]), black_box([x; C]));
    for _ in 0..rounds {
        Pair::add_outer::<M, C>([x; ROWS], &row, &mut sums);
    }
    black_box(sums)[0][0]
}

stamped! {
    fn sum<A: Float>(x: &[A]) -> A = sum_body
}

#[inline(always)]
fn sum_body<A: Float, M: Machine>(x: &[A]) -> A {
    const WIDTH: usize = 8 * LANES;
    let mut lanes = [A::zero(); WIDTH];
    for chunk in x.chunks_exact(WIDTH) {
        for lane in 0..WIDTH {
            lanes[lane] += chunk[lane];
        }
    }
    lanes.into_iter().fold(A::zero(), |total, x| total + x)
}
