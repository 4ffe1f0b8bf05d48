//! Bad input of every kind: one line that names the argument, what it was and what was expected; nothing changes.
#![allow(clippy::unwrap_used)]

use tilewright_compression::reference::Reference;
use tilewright_compression::*;

fn refused(spec: CompressionSpec) -> String {
    let error = spec.validate().unwrap_err();
    let mut message = Message::default();
    let mut memory = Memory::default();
    let gradient = vec![1.0; spec.len.min(10)];
    let again = Reference.compress(&spec, Step::new(0), &gradient, &mut memory, &mut message);
    assert_eq!(again, Err(error.clone()));
    assert_eq!(Memory::new(&spec), Err(error.clone()));
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn specifications() {
    let base = CompressionSpec::top_k(10, Count::Density(0.1));
    let select = |selector| refused(CompressionSpec { selector, ..base });
    for density in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        let expected = format!("density: got {density}, expected more than 0 and at most 1");
        assert_eq!(select(Selector::ExactTopK(Count::Density(density))), expected);
        assert_eq!(select(Selector::RandomK(Count::Density(density))), expected);
        assert_eq!(select(Selector::SampledThreshold(Count::Density(density), Sampling::DGC)), expected);
    }
    for threshold in [-1.0, f32::NAN, f32::INFINITY] {
        let expected = format!("threshold: got {threshold}, expected a finite number, at least 0");
        assert_eq!(select(Selector::FixedThreshold(threshold)), expected);
    }
    let sample = |sampling| select(Selector::SampledThreshold(Count::Entries(1), sampling));
    assert_eq!(
        sample(Sampling { ratio: 0.0, refine: None }),
        "sample ratio: got 0, expected more than 0 and at most 1"
    );
    let refine =
        |lower, upper| sample(Sampling { ratio: 1.0, refine: Some(Refinement { lower, upper, iterations: 1 }) });
    assert_eq!(refine(1.0, 2.0), "lower bound: got 1, expected more than 0 and less than 1");
    assert_eq!(refine(0.5, f32::NAN), "upper bound: got NaN, expected a finite number, at least 1");
    for factor in [1.0, -0.1, f32::NAN] {
        let feedback = Feedback::Momentum { factor, nesterov: false, masking: true };
        let expected = format!("momentum: got {factor}, expected at least 0 and less than 1");
        assert_eq!(refused(CompressionSpec { feedback, ..base }), expected);
    }
}

#[test]
fn tables() {
    let base = CompressionSpec::top_k(10, Count::Density(0.1));
    let table =
        |slots| CompressionSpec { placement: Placement::HashTable { slots, policy: Policy::default() }, ..base };
    assert_eq!(refused(table(Slots::Exactly(0))), "slots: got 0, expected at least 1");
    for per_entry in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let expected = format!("slots per entry: got {per_entry}, expected a positive number");
        assert_eq!(refused(table(Slots::PerEntry(per_entry))), expected);
    }
    assert_eq!(refused(table(Slots::PerEntry(1e10))), "slots: got 10000000000, expected at most 4294967295");
    let unforeseen = CompressionSpec { selector: Selector::FixedThreshold(1.0), ..table(Slots::PerEntry(4.0)) };
    assert_eq!(
        refused(unforeseen),
        "slots: got 4 per entry, expected a number of slots: the fixed threshold foresees no number of entries"
    );
}

#[test]
fn lengths() {
    let spec = CompressionSpec::dgc(3, Count::Density(1.0), 0.9);
    let good = Memory::new(&spec).unwrap();
    let mut message = Message::default();
    let mut attempt = |gradient: &[f32], memory: &Memory| {
        let mut memory = memory.clone();
        Reference.compress(&spec, Step::new(0), gradient, &mut memory, &mut message).unwrap_err().to_string()
    };
    assert_eq!(attempt(&[1.0; 2], &good), "length of gradient: got 2, expected 3");
    let short = Memory { velocity: vec![0.0; 2], ..good.clone() };
    assert_eq!(attempt(&[1.0; 3], &short), "length of velocity: got 2, expected 3");
    let none = Memory { momentum: vec![], ..good };
    assert_eq!(attempt(&[1.0; 3], &none), "length of momentum: got 0, expected 3");
    let (mut memory, step) = (Memory::new(&spec).unwrap(), Step { number: 0, scale: f32::NAN });
    let error = Reference.compress(&spec, step, &[1.0; 3], &mut memory, &mut message).unwrap_err();
    assert_eq!(error.to_string(), "scale: got NaN, expected a finite number");
}

#[test]
fn messages() {
    let mut out = [7.0; 3];
    let (good, bad) = ([message::word(2, 1.0)], [message::word(0, 1.0), message::word(3, 1.0)]);
    let error = Reference.decompress(&[&good, &bad], Reduction::Sum, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "message of rank 1: index 3, expected less than 3");
    let error = Reference.decompress(&[], Reduction::Mean, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "messages: got none, expected one of each rank");
    assert_eq!(out, [7.0; 3]);
}

#[test]
fn memory_that_cannot_be_had() {
    let elements = LONGEST;
    let error = CompressionError::OutOfMemory { what: "velocity", elements };
    assert_eq!(error.to_string(), "velocity: no memory for 4294967295 elements");
    assert_eq!(CompressionError::Unsupported { what: "random-k" }.to_string(), "unsupported: random-k");
    let codec = CompressionError::Codec { at: 3, problem: "ends too early" };
    assert_eq!(codec.to_string(), "encoded message, byte 3: ends too early");
}
