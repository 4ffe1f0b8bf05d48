//! The optimiser step on one rank, and beside ranks that echo it.
#![allow(clippy::unwrap_used)]

mod common;

use common::wire;
use proptest::prelude::*;
use std::cell::Cell;
use tilewright_compression::bucket::Buckets;
use tilewright_compression::data_parallel::{Config, DataParallel, DataParallelError, Momentum, State, agree, hash_of};
use tilewright_compression::memory::{clipping, sum_of_squares};
use tilewright_compression::reference::Reference;
use tilewright_compression::schedule::Schedule;
use tilewright_compression::*;

const LENGTHS: [u64; 4] = [40, 3, 0, 17];

type Tensors = Vec<Vec<f32>>;

fn noise(step: u64, salt: u64) -> Tensors {
    let number = |i: u64| {
        let h = (i + 977 * step + 31_337 * salt + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((h >> 40) as f32 / (1 << 24) as f32 - 0.5) * (1.0 + (h & 7) as f32)
    };
    LENGTHS.iter().enumerate().map(|(t, len)| (0..*len).map(|i| number(1000 * t as u64 + i)).collect()).collect()
}

fn views(tensors: &Tensors) -> Vec<&[f32]> {
    tensors.iter().map(|tensor| &tensor[..]).collect()
}

fn bits(tensors: &Tensors) -> Vec<Vec<u32>> {
    tensors.iter().map(|tensor| tensor.iter().map(|x| x.to_bits()).collect()).collect()
}

type Optimiser<'a> = DataParallel<'a, Reference>;

fn optimiser<'a>(config: &Config, limit: u64, collective: &'a dyn Collective) -> Optimiser<'a> {
    let buckets = Buckets::pack(&LENGTHS, limit, |_, len| len > 3).unwrap();
    DataParallel::new(config.clone(), buckets, Reference, collective).unwrap()
}

fn take_steps(optimiser: &mut Optimiser, steps: std::ops::Range<u64>, weights: &mut Tensors) {
    for step in steps {
        assert_eq!(optimiser.state().step, step);
        let mut weights: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
        optimiser.step(0.1, &views(&noise(step, 0)), &mut weights).unwrap();
    }
}

fn trained(config: &Config, limit: u64, collective: &dyn Collective) -> Vec<Vec<u32>> {
    let mut weights = noise(0, 1);
    take_steps(&mut optimiser(config, limit, collective), 0..12, &mut weights);
    bits(&weights)
}

/// As many ranks as it says, all of which do what this one does.
struct Echo(usize);

impl Collective for Echo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        self.0
    }

    fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
        receive.copy_from_slice(&send.repeat(self.0));
        Ok(())
    }

    fn all_reduce_sum(&self, data: &mut [f32]) -> Result<(), CollectiveError> {
        for x in data {
            *x = (0..self.0).fold(0.0, |sum, _| sum + *x);
        }
        Ok(())
    }
}

/// Gathers that answer what the test wants: the word of rank 1 is changed, or the operation fails.
struct Meddler(Cell<Option<u64>>);

impl Collective for Meddler {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        2
    }

    fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
        receive.copy_from_slice(&send.repeat(2));
        if let Some(word) = self.0.get() {
            receive[send.len()] = word;
        }
        Ok(())
    }

    fn all_reduce_sum(&self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Err(CollectiveError::Engine("cable cut".into()))
    }
}

fn everything(feedback: Feedback) -> CompressionSpec {
    CompressionSpec { feedback, ..CompressionSpec::top_k(0, Count::Density(1.0)) }
}

/// DGC that sends everything is momentum SGD, or plain SGD if it masks: it masks everything.
#[test]
fn dgc_at_density_one_is_sgd() {
    for nesterov in [false, true] {
        let momentum = Momentum { factor: 0.9, nesterov };
        let dense = Config { momentum, ..Config::dense(0.0) };
        let dgc = |masking| Config::compressed(everything(Feedback::Momentum { factor: 0.9, nesterov, masking }));
        assert_eq!(trained(&dgc(false), 1000, &Solo), trained(&dense, 1000, &Solo), "nesterov {nesterov}");
        // The dense tensor keeps its momentum.
        let (masked, mut plain) = (trained(&dgc(true), 1000, &Solo), trained(&Config::dense(0.0), 1000, &Solo));
        if nesterov {
            // Masked after the update was sent: u = m·g, so what is sent is m·g + g.
            assert_ne!(masked, plain);
        } else {
            plain[1] = trained(&dense, 1000, &Solo)[1].clone();
            assert_eq!(masked, plain);
        }
    }
}

/// Momentum and weight decay after the mean, written out for one weight at a time.
#[test]
fn momentum_sgd_by_hand() {
    let (factor, decay, rate) = (0.7_f32, 0.01_f32, 0.1_f32);
    let mut weights = noise(0, 1);
    let mut u: Tensors = weights.iter().map(|tensor| vec![0.0; tensor.len()]).collect();
    for step in 0..12 {
        let gradients = noise(step, 0);
        for ((weights, u), gradients) in weights.iter_mut().zip(&mut u).zip(&gradients) {
            for ((w, u), g) in weights.iter_mut().zip(u).zip(gradients) {
                *u = factor * *u + (g + decay * *w);
                *w -= rate * *u;
            }
        }
    }
    let config = Config { weight_decay: decay, ..Config::dense(factor) };
    assert_eq!(trained(&config, 1000, &Solo), bits(&weights));
    let compressed = Config { compression: Some(everything(Feedback::Residual)), ..config };
    assert_eq!(trained(&compressed, 1000, &Solo), bits(&weights));
}

/// With momentum correction, weight decay goes beside the mean, through momentum of its own.
#[test]
fn corrected_decay_by_hand() {
    let feedback = Feedback::Momentum { factor: 0.5, nesterov: false, masking: false };
    let config = Config { weight_decay: 0.25, ..Config::compressed(everything(feedback)) };
    let (mut w, mut u, mut d) = (noise(0, 1)[0][5], 0.0_f32, 0.0_f32);
    for step in 0..12 {
        u = 0.5 * u + noise(step, 0)[0][5];
        d = 0.5 * d + 0.25 * w;
        w -= 0.1 * (u + d);
    }
    assert_eq!(trained(&config, 1000, &Solo)[0][5], w.to_bits());
}

fn methods() -> Vec<Config> {
    let count = Count::Density(0.1);
    let rice = Wire { value: ValueFormat::Bf16, index: IndexCoding::Rice };
    let dgc =
        Config { schedule: Schedule::exponential(2, 2), ..Config::compressed(CompressionSpec::dgc(0, count, 0.9)) };
    let top_k = Config::compressed(CompressionSpec::top_k(0, count));
    vec![
        Config::dense(0.9),
        Config { momentum: Momentum { factor: 0.9, nesterov: true }, ..top_k.clone() },
        Config { compression: Some(everything(Feedback::None)), ..top_k },
        Config::compressed(CompressionSpec::random_k(0, count)),
        Config { weight_decay: 0.01, clip: Some(3.0), ..dgc.clone() },
        dgc,
        Config::compressed(CompressionSpec { wire: rice, ..CompressionSpec::dragonn(0, count, 0.9) }),
    ]
}

/// Stopped after any step and continued from its state by another optimiser: the same bits, and the same state.
#[test]
fn restored_exactly() {
    for config in methods() {
        for stop in 0..8 {
            let mut weights = noise(0, 1);
            let mut first = optimiser(&config, 32, &Echo(3));
            take_steps(&mut first, 0..stop, &mut weights);
            let (state, mut resumed): (State, _) = (first.state().clone(), weights.clone());
            take_steps(&mut first, stop..12, &mut weights);
            let mut second = optimiser(&config, 32, &Echo(3));
            second.restore(state).unwrap();
            take_steps(&mut second, stop..12, &mut resumed);
            assert_eq!(bits(&resumed), bits(&weights), "{config:?}");
            assert_eq!(second.state(), first.state());
        }
    }
}

#[test]
fn foreign_states_are_refused() {
    let configs = methods();
    let field = |result| match result {
        Err(DataParallelError::State { field, .. }) => field,
        Err(DataParallelError::Compression(CompressionError::Length { argument, .. })) => argument,
        other => panic!("{other:?}"),
    };
    let mut target = optimiser(&configs[5], 32, &Echo(3));
    take_steps(&mut target, 0..3, &mut noise(0, 1));
    let before = target.state().clone();
    for other in &configs {
        if *other != configs[5] {
            assert_eq!(field(target.restore(optimiser(other, 32, &Echo(3)).state().clone())), "fingerprint");
        }
    }
    assert_eq!(field(target.restore(optimiser(&configs[5], 33, &Echo(3)).state().clone())), "fingerprint");
    assert_eq!(field(target.restore(optimiser(&configs[5], 32, &Echo(2)).state().clone())), "number of ranks");
    assert_eq!(field(target.restore(State { rank: 1, ..before.clone() })), "rank");
    assert_eq!(field(target.restore(State { buckets: Vec::new(), ..before.clone() })), "number of buckets");
    let mut damaged = before.clone();
    damaged.buckets[0].memory.velocity.pop();
    assert_eq!(field(target.restore(damaged)), "velocity");
    assert_eq!(*target.state(), before);
}

/// Settings or step numbers that differ between ranks are found before anything is exchanged.
#[test]
fn ranks_that_disagree() {
    let meddler = Meddler(Cell::new(Some(7)));
    let mut target = optimiser(&methods()[1], 1000, &meddler);
    let mut weights = noise(0, 1);
    let mut weights: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
    let error = target.step(0.1, &views(&noise(0, 0)), &mut weights).unwrap_err();
    let problem = "it has other settings".into();
    assert_eq!(error, DataParallelError::Collective(CollectiveError::Mismatch { rank: 1, problem }));
}

/// A refused step has not happened on any rank; one that failed half way breaks the optimiser until it is restored.
#[test]
fn refused_and_broken() {
    let spec = CompressionSpec { non_finite: NonFinite::Reject, ..CompressionSpec::dgc(0, Count::Density(0.2), 0.9) };
    let config = Config { clip: Some(1.0), ..Config::compressed(spec) };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut target = optimiser(&config, 32, &Echo(2));
        let mut weights = noise(0, 1);
        take_steps(&mut target, 0..2, &mut weights);
        let (before, state) = (bits(&weights), target.state().clone());
        let mut gradients = noise(2, 0);
        gradients[3][4] = bad;
        let mut slices: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
        let refused = target.step(0.1, &views(&gradients), &mut slices);
        assert_eq!(refused, Err(DataParallelError::Refused { rank: 0 }));
        assert_eq!((bits(&weights), target.state()), (before, &state));
        take_steps(&mut target, 2..4, &mut weights);
    }

    let meddler = Meddler(Cell::new(None));
    let mut target = optimiser(&config, 32, &meddler);
    let (start, mut weights) = (target.state().clone(), noise(0, 1));
    let mut slices: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
    let gradients = noise(0, 0);
    let mut step = |target: &mut Optimiser| target.step(0.1, &views(&gradients), &mut slices).unwrap_err();
    let cut = DataParallelError::Collective(CollectiveError::Engine("cable cut".into()));
    assert_eq!(step(&mut target), cut);
    assert_eq!(step(&mut target), DataParallelError::Broken);
    target.restore(start).unwrap();
    assert_eq!(step(&mut target), cut);
}

/// A rank whose messages are not what they should be is named, whatever the wire.
#[test]
fn a_forged_message_is_named() {
    struct Forger;
    impl Collective for Forger {
        fn rank(&self) -> usize {
            0
        }
        fn size(&self) -> usize {
            3
        }
        fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
            Echo(3).all_gather(send, receive)
        }
        fn all_gather_v(
            &self,
            send: &[u64],
            starts: &mut Vec<usize>,
            receive: &mut Vec<u64>,
        ) -> Result<(), CollectiveError> {
            *receive = [send, send, &[0x7fff_ffff_3f80_0000]].concat();
            *starts = vec![0, send.len(), 2 * send.len(), 2 * send.len() + 1];
            Ok(())
        }
        fn all_reduce_sum(&self, data: &mut [f32]) -> Result<(), CollectiveError> {
            Echo(3).all_reduce_sum(data)
        }
    }
    for config in methods() {
        let mut target = optimiser(&config, 1000, &Forger);
        let mut weights = noise(0, 1);
        let before = bits(&weights);
        let mut slices: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
        let result = target.step(0.1, &views(&noise(0, 0)), &mut slices);
        if config.compression.is_none() {
            assert!(result.is_ok());
            continue;
        }
        let Err(DataParallelError::Compression(CompressionError::Message { rank: 2, .. })) = result else {
            panic!("{result:?}")
        };
        assert_eq!(bits(&weights), before, "{config:?}");
    }
}

#[test]
fn lengths_are_checked_first() {
    let mut target = optimiser(&methods()[5], 32, &Solo);
    let (gradients, mut weights) = (noise(0, 0), noise(0, 1));
    let before = target.state().clone();
    for broken in 0..3 {
        let (mut gradients, mut weights) = (gradients.clone(), weights.clone());
        match broken {
            0 => drop(gradients.pop()),
            1 => drop(gradients[3].pop()),
            _ => weights[0].push(0.0),
        }
        let mut slices: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
        let error = target.step(0.1, &views(&gradients), &mut slices).unwrap_err();
        assert!(matches!(error, DataParallelError::Compression(CompressionError::Length { .. })), "{error}");
    }
    assert_eq!(*target.state(), before);
    take_steps(&mut target, 0..1, &mut weights);
}

#[test]
fn invalid_settings_are_named() {
    let dgc = Config::compressed(CompressionSpec::dgc(0, Count::Density(0.1), 0.9));
    let bad_count = Config::compressed(CompressionSpec::dgc(0, Count::Density(0.0), 0.9));
    for (expected, config) in [
        ("momentum", Config::dense(1.0)),
        ("momentum", Config { momentum: Momentum::default(), ..dgc.clone() }),
        ("weight decay", Config { weight_decay: -0.1, ..dgc.clone() }),
        ("clipping bound", Config { clip: Some(0.0), ..dgc.clone() }),
        ("steps per epoch", Config { schedule: Schedule::paper(0), ..dgc }),
        ("density", bad_count),
    ] {
        let Err(CompressionError::Spec { field, .. }) = config.validate() else { panic!("{config:?} is valid") };
        assert_eq!(field, expected);
    }
}

/// Clipping is that of all tensors together, and applies to dense and compressed buckets alike.
#[test]
fn clips_by_the_norm_of_the_model() {
    let gradients = noise(0, 0);
    let squares: f64 = gradients.iter().map(|gradient| sum_of_squares(gradient)).sum();
    let scale = clipping(squares, 2.0, 4);
    assert!(scale < 0.5);
    let config = Config { clip: Some(2.0), ..Config::compressed(everything(Feedback::Residual)) };
    let mut weights: Tensors = LENGTHS.iter().map(|len| vec![0.0; *len as usize]).collect();
    let mut slices: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
    let report = optimiser(&config, 32, &Echo(4)).step(1.0, &views(&gradients), &mut slices).unwrap();
    assert_eq!(report.scale, scale);
    for (w, g) in weights.iter().flatten().zip(gradients.iter().flatten()) {
        assert_eq!(*w, -(scale * g));
    }
}

/// Reports count what was gathered and reduced, as the counting collective does.
#[test]
fn reports_bytes() {
    for config in methods() {
        let counting = Counting::new(Echo(3));
        let mut target = optimiser(&config, 32, &counting);
        let mut weights = noise(0, 1);
        take_steps(&mut target, 0..1, &mut weights);
        let before = counting.traffic();
        let mut slices: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
        let report = target.step(0.1, &views(&noise(1, 0)), &mut slices).unwrap();
        let after = counting.traffic();
        assert_eq!(after.gathered - before.gathered, report.message_bytes);
        assert_eq!(after.reduced - before.reduced, report.dense_bytes);
        let plain = config.compression.is_none_or(|spec| spec.wire == Wire::default());
        assert_eq!(plain, report.message_bytes == 8 * report.entries);
    }
}

#[test]
fn the_odd_rank_is_named() {
    struct Votes(Vec<u64>);
    impl Collective for Votes {
        fn rank(&self) -> usize {
            0
        }
        fn size(&self) -> usize {
            self.0.len()
        }
        fn all_gather(&self, _: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
            receive.copy_from_slice(&self.0);
            Ok(())
        }
        fn all_reduce_sum(&self, _: &mut [f32]) -> Result<(), CollectiveError> {
            Ok(())
        }
    }
    let named = |votes: &[u64]| match agree(&Votes(votes.to_vec()), votes[0]) {
        Ok(()) => None,
        Err(CollectiveError::Mismatch { rank, .. }) => Some(rank),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(named(&[5, 5, 5]), None);
    assert_eq!(named(&[4, 5, 5]), Some(0));
    assert_eq!(named(&[5, 5, 4]), Some(2));
    assert_eq!(named(&[5, 4]), Some(1));
}

proptest! {
    /// Where every element is chosen for itself, it does not matter which bucket it is in.
    #[test]
    fn packing_changes_nothing(limit in 1_u64..70, threshold in 0.0_f32..2.0, clip in proptest::option::of(1.0..9.0)) {
        let feedback = Feedback::Momentum { factor: 0.9, nesterov: false, masking: true };
        let spec = CompressionSpec { selector: Selector::FixedThreshold(threshold), ..everything(feedback) };
        let config = Config { clip, weight_decay: 0.01, ..Config::compressed(spec) };
        prop_assert_eq!(trained(&config, limit, &Echo(3)), trained(&config, 1000, &Echo(3)));
    }

    /// How indices are written changes no weight, and what values are rounded to is the same with either.
    #[test]
    fn index_coding_changes_nothing(wire in wire(), density in 0.01_f64..=1.0) {
        let spec = CompressionSpec { wire, ..CompressionSpec::dragonn(0, Count::Density(density), 0.9) };
        let plain = CompressionSpec { wire: Wire { index: IndexCoding::Plain, ..wire }, ..spec };
        let (coded, plain) = (Config::compressed(spec), Config::compressed(plain));
        prop_assert_eq!(trained(&coded, 32, &Echo(3)), trained(&plain, 32, &Echo(3)));
    }

    /// One changed bit changes the hash.
    #[test]
    fn hashes_see_every_bit(data in proptest::collection::vec(any::<u32>(), 1..40), place in any::<prop::sample::Index>(), bit in 0_u32..32) {
        let tensor: Vec<f32> = data.iter().map(|bits| f32::from_bits(*bits)).collect();
        let mut other = tensor.clone();
        let place = place.index(data.len());
        other[place] = f32::from_bits(data[place] ^ 1 << bit);
        prop_assert_ne!(hash_of([&tensor[..]]), hash_of([&other[..]]));
    }
}

/// A warm-up must not hide, until it ends, that nothing valid comes after it.
#[test]
fn an_invalid_density_behind_a_warm_up() {
    for density in [0.0, -1.0, f64::NAN] {
        let top_k = CompressionSpec::top_k(0, Count::Density(density));
        let config = Config { schedule: Schedule::paper(1), ..Config::compressed(top_k) };
        let expected = format!("density: got {density}, expected more than 0 and at most 1");
        assert_eq!(config.validate().unwrap_err().to_string(), expected);
    }
}
