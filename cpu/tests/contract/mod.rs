//! What every engine owes: results in rank order, sums in rank order, whatever the lengths and however late a rank is.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::Duration;
use tilewright_compression::Collective;

/// The same number for the same arguments.
pub(crate) fn random(a: u64, b: u64, c: u64) -> u64 {
    let [x, y, ..] = tilewright_scalar::philox4x32_10([a as u32, b as u32, c as u32, 0], [7, 7]);
    u64::from(x) << 32 | u64::from(y)
}

pub(crate) fn dawdle(a: u64, b: u64) {
    let r = random(a, b, 99);
    if r.is_multiple_of(3) {
        thread::sleep(Duration::from_micros(r / 3 % 300));
    }
}

pub(crate) fn floats(rank: u64, step: u64, len: usize) -> Vec<f32> {
    (0..len as u64).map(|i| (random(rank, step, i) as f32 / 1e18 - 9.0) * (1.0 + (i % 5) as f32 * 1e-4)).collect()
}

/// Operations of every kind in a random order, lengths from nothing upwards, ranks out of breath at random: always what
/// one rank after the other would have put together.
pub(crate) fn exercise(rank: &dyn Collective, steps: u64, longest: u64) {
    let (me, size) = (rank.rank() as u64, rank.size());
    let (mut starts, mut received) = (Vec::new(), Vec::new());
    for step in 0..steps {
        dawdle(me, step);
        let len = |rank: u64| (random(rank, step, 1) % longest) as usize;
        let words = |rank: u64, len: usize| -> Vec<u64> { (0..len as u64).map(|i| random(rank, step, i)).collect() };
        let every = 0..size as u64;
        match random(77, step, 0) % 3 {
            0 => {
                let len = len(77);
                let mut receive = vec![1; size * len];
                rank.all_gather(&words(me, len), &mut receive).unwrap();
                assert_eq!(receive, every.flat_map(|rank| words(rank, len)).collect::<Vec<_>>());
            }
            1 => {
                rank.all_gather_v(&words(me, len(me)), &mut starts, &mut received).unwrap();
                assert_eq!(starts.len(), size + 1);
                assert_eq!(starts[size], received.len());
                for rank in every {
                    let part = &received[starts[rank as usize]..starts[rank as usize + 1]];
                    assert_eq!(part, words(rank, len(rank)));
                }
            }
            _ => {
                let len = len(77);
                let mut data = floats(me, step, len);
                rank.all_reduce_sum(&mut data).unwrap();
                let mut expected = floats(0, step, len);
                for rank in every.skip(1) {
                    expected.iter_mut().zip(floats(rank, step, len)).for_each(|(sum, x)| *sum += x);
                }
                let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&data), bits(&expected));
            }
        }
    }
}
