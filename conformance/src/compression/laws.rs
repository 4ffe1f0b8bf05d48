//! Laws: what must hold between several runs of the same compressor. None of them looks at the reference.
//!
//! Each has its kind of violation, and each asks for runs that the case at hand is able to ask for: the same selector,
//! a problem stripped to what the law is about.

use crate::compression::chance::many_seeds;
use crate::compression::generate::gradient;
use crate::compression::hearing::{Ended, Hearing, History};
use crate::compression::judge::{Kind, Violation, judge_decode};
use crate::compression::subject::{Column, Feature, Reply};

use tilewright_compression::hash::StepSeeds;
use tilewright_compression::invariants::{self, same_number};
use tilewright_compression::key::magnitude;
use tilewright_compression::message::{unpack, word};
use tilewright_compression::{
    CompressionSpec, Count, Feedback, Memory, NonFinite, Placement, Policy, Reduction, Selector, Slots, Step, Wire,
};

/// Runs every law that applies; the first that does not hold ends it.
pub(crate) fn check(hearing: &mut Hearing<'_>, history: &History) -> Result<(), Ended> {
    decoding(hearing, history)?;
    scale_refused(hearing)?;
    telescoping(hearing, history)?;
    let Some(bare) = Bare::of(hearing) else { return Ok(()) };
    if bare.finite {
        zeros_at_the_end(hearing, &bare)?;
    }
    if bare.finite && bare.gradient.len() <= LONGEST {
        threshold_commutes(hearing, &bare)?;
        semilattice(hearing, &bare)?;
        idempotence(hearing, &bare)?;
        scale_and_sign(hearing, &bare)?;
        many_seeds(hearing, &bare)?;
    }
    dgc_identities(hearing, &bare)
}

/// Longest bucket that all laws are tried on: what depends on the length alone is order's affair.
const LONGEST: usize = 40_000;

/// The case's problem without what laws are not about: no feedback, no rounding on the wire, no clipping, slots counted
/// out so that they do not depend on length or density.
pub(crate) struct Bare {
    pub(crate) spec: CompressionSpec,
    pub(crate) step: Step,
    pub(crate) gradient: Vec<f32>,
    /// Whether the gradient is.
    finite: bool,
    pub(crate) column: Column,
    /// Whether it is laid down who wins a slot.
    pub(crate) settled: bool,
}

impl Bare {
    fn of(hearing: &Hearing<'_>) -> Option<Self> {
        let prepared = hearing.prepared;
        let case = &prepared.case;
        let feedback = if hearing.can(Feature::NoFeedback) {
            Feedback::None
        } else if hearing.can(Feature::Residual) {
            Feedback::Residual
        } else {
            return None;
        };
        let mut spec =
            CompressionSpec { feedback, wire: Wire::default(), non_finite: NonFinite::Propagate, ..prepared.spec };
        let mut settled = true;
        if let (Placement::HashTable { policy, .. }, Ok(Some(slots))) = (spec.placement, spec.slots()) {
            spec.placement = Placement::HashTable { slots: Slots::Exactly(slots), policy };
            settled = policy == Policy::LargestMagnitude;
        }
        if let Selector::ExactTopK(count) = spec.selector {
            spec.selector = Selector::ExactTopK(Count::Entries(count.of(spec.len)));
        }
        let gradient = prepared.gradients.first()?.first()?.clone();
        let finite = gradient.iter().all(|x| x.is_finite());
        let step = Step::new(case.step(0).number);
        Some(Self { spec, step, gradient, finite, column: case.column(), settled })
    }

    pub(crate) fn slots(&self) -> Option<u32> {
        self.spec.slots().ok().flatten()
    }
}

/// An invariant as a law.
pub(crate) fn law(kind: Kind, outcome: Result<(), invariants::Violation>) -> Result<(), Ended> {
    outcome.map_err(|found| Violation::new(kind, "law", found.to_string()).into())
}

/// The decoder: order inside messages, repetition, threads, indices that are none.
fn decoding(hearing: &mut Hearing<'_>, history: &History) -> Result<(), Ended> {
    let Some(messages) = history.messages.last() else { return Ok(()) };
    let len = hearing.prepared.case.len;
    let views: Vec<&[u64]> = messages.iter().map(Vec::as_slice).collect();
    let first = hearing.decompress(&views, Reduction::Mean, None, "law, decoding")?;
    let reversed: Vec<Vec<u64>> = messages.iter().map(|words| words.iter().rev().copied().collect()).collect();
    let reversed: Vec<&[u64]> = reversed.iter().map(Vec::as_slice).collect();
    let again = hearing.decompress(&reversed, Reduction::Mean, None, "law, messages reversed")?;
    law(Kind::MessageOrder, invariants::same_bits("a message and its reverse", &first, &again))?;
    for threads in [None, Some(1), Some(3)] {
        let replica = hearing.decompress(&views, Reduction::Mean, threads, "law, replicas")?;
        law(Kind::Replicas, invariants::same_bits("two replicas", &first, &replica))?;
    }
    for foreign in [len as u32, u32::MAX] {
        let mut words = messages[0].clone();
        words.push(word(foreign, 1.0));
        let mut foreign: Vec<&[u64]> = views.clone();
        foreign[0] = &words;
        if !hearing.refuses(&foreign, Reduction::Sum, "law, foreign index")? {
            let detail = format!("decoded an index beyond {len}");
            return Err(Violation::new(Kind::Refusal, "law, foreign index", detail).into());
        }
    }
    Ok(())
}

/// No gradient is scaled by what is no number.
fn scale_refused(hearing: &mut Hearing<'_>) -> Result<(), Ended> {
    let prepared = hearing.prepared;
    let (Ok(blank), true) = (Memory::new(&prepared.spec), hearing.can(Feature::Clipping)) else { return Ok(()) };
    let Some(gradient) = prepared.gradients.first().and_then(|step| step.first()) else { return Ok(()) };
    for scale in [f32::NAN, f32::INFINITY] {
        let step = Step { scale, ..prepared.case.step(0) };
        match hearing.compress(&prepared.spec, step, gradient, &blank, None, "law, scale") {
            Err(Ended::Violated(violation)) if violation.kind == Kind::Failed => {}
            Err(ended) => return Err(ended),
            // Both are refusals; of which of the two errors there are is nobody's concern.
            Ok(Reply::Refused { .. }) => {}
            Ok(Reply::Sent { .. }) => {
                let detail = format!("took a step with a factor of {scale}");
                return Err(Violation::new(Kind::Refusal, "law, scale", detail).into());
            }
        }
    }
    Ok(())
}

/// Whole numbers: what was sent and what is left add up, exactly, over all steps.
fn telescoping(hearing: &Hearing<'_>, history: &History) -> Result<(), Ended> {
    let prepared = hearing.prepared;
    let case = &prepared.case;
    let whole = |x: &f32| x.fract() == 0.0 && x.abs() <= 1024.0;
    let applies = case.feedback == Feedback::Residual
        && case.wire.value == tilewright_compression::ValueFormat::F32
        && case.scale == 1.0
        && history.complete
        && prepared.gradients.iter().flatten().flatten().all(whole);
    if !applies {
        return Ok(());
    }
    for rank in 0..case.ranks {
        let gradients: Vec<Vec<f32>> = prepared.gradients.iter().map(|step| step[rank].clone()).collect();
        let messages: Vec<Vec<u64>> = history.messages.iter().map(|step| step[rank].clone()).collect();
        let residual = &history.memories[rank].velocity;
        law(Kind::Telescoping, invariants::telescopes(&gradients, &messages, residual))?;
    }
    Ok(())
}

/// A higher threshold forgets smaller winners and nothing else.
fn threshold_commutes(hearing: &mut Hearing<'_>, bare: &Bare) -> Result<(), Ended> {
    if bare.column != Column::Fixed || !bare.settled {
        return Ok(());
    }
    let lower = hearing.message(&bare.spec, bare.step, &bare.gradient, "law, lower threshold")?;
    let mut sizes: Vec<u32> = lower.iter().map(|word| magnitude(unpack(*word).1)).collect();
    sizes.sort_unstable();
    let Some(median) = sizes.get(sizes.len() / 2).map(|bits| f32::from_bits(*bits)) else { return Ok(()) };
    let spec = CompressionSpec { selector: Selector::FixedThreshold(median), ..bare.spec };
    let higher = hearing.message(&spec, bare.step, &bare.gradient, "law, higher threshold")?;
    law(Kind::ThresholdCommutes, invariants::threshold_commutes(&lower, &higher, median))
}

/// Zeros at the end change nothing: another division of the work over blocks and threads.
fn zeros_at_the_end(hearing: &mut Hearing<'_>, bare: &Bare) -> Result<(), Ended> {
    if !matches!(bare.column, Column::TopK | Column::Fixed) || !bare.settled {
        return Ok(());
    }
    let short = hearing.message(&bare.spec, bare.step, &bare.gradient, "law, order")?;
    let mut gradient = bare.gradient.clone();
    gradient.resize(bare.spec.len + 77, 0.0);
    let spec = CompressionSpec { len: gradient.len(), ..bare.spec };
    let long = hearing.message(&spec, bare.step, &gradient, "law, zeros at the end")?;
    law(Kind::OrderFreedom, invariants::same(&short, &long))
}

/// The message of a whole is the merger of those of its parts.
fn semilattice(hearing: &mut Hearing<'_>, bare: &Bare) -> Result<(), Ended> {
    if bare.column != Column::Fixed || !bare.settled {
        return Ok(());
    }
    let part = |parity: usize| -> Vec<f32> {
        bare.gradient.iter().enumerate().map(|(i, x)| if i % 2 == parity { *x } else { 0.0 }).collect()
    };
    let even = hearing.message(&bare.spec, bare.step, &part(0), "law, even places")?;
    let odd = hearing.message(&bare.spec, bare.step, &part(1), "law, odd places")?;
    let both = hearing.message(&bare.spec, bare.step, &bare.gradient, "law, all places")?;
    let seeds = StepSeeds::new(bare.spec.seed, bare.step.number);
    let merged = match bare.slots() {
        Some(slots) => invariants::merged(&even, &odd, &both, seeds.hash, slots),
        None => invariants::same_entries(&[even.clone(), odd.clone()].concat(), &both),
    };
    law(Kind::Semilattice, merged)?;
    // Messages that share no index decode side by side.
    let parts: [&[u64]; 2] = [&even, &odd];
    let out = hearing.decompress(&parts, Reduction::Sum, None, "law, disjoint messages")?;
    judge_decode(&parts, Reduction::Sum, bare.spec.len, &out, "law, disjoint messages")
        .map_err(|found| Violation { kind: Kind::Semilattice, ..found }.into())
}

/// What was decoded compresses to the same message.
fn idempotence(hearing: &mut Hearing<'_>, bare: &Bare) -> Result<(), Ended> {
    // A sampled threshold is another one in the decoded vector's sample.
    if bare.column == Column::Sampled {
        return Ok(());
    }
    let once = hearing.message(&bare.spec, bare.step, &bare.gradient, "law, once")?;
    let decoded = hearing.decompress(&[&once], Reduction::Sum, None, "law, decoded")?;
    let twice = hearing.message(&bare.spec, bare.step, &decoded, "law, twice")?;
    law(Kind::Idempotence, invariants::same(&once, &twice))
}

/// Multiplication by a power of two or by −1 passes through.
fn scale_and_sign(hearing: &mut Hearing<'_>, bare: &Bare) -> Result<(), Ended> {
    if !hearing.prepared.case.distribution.calm() || !bare.settled {
        return Ok(());
    }
    let plain = hearing.message(&bare.spec, bare.step, &bare.gradient, "law, plain")?;
    for by in [2.0, 0.25, -1.0f32] {
        let mut spec = bare.spec;
        if let Selector::FixedThreshold(threshold) = &mut spec.selector {
            *threshold *= by.abs();
        }
        let gradient: Vec<f32> = bare.gradient.iter().map(|x| x * by).collect();
        let multiplied = hearing.message(&spec, bare.step, &gradient, "law, multiplied")?;
        law(Kind::ScaleAndSign, invariants::scaled(&plain, by, &multiplied))?;
    }
    Ok(())
}

/// Density 1, everything sent at once: without masking what is sent is momentum SGD's step, with it plain SGD's.
fn dgc_identities(hearing: &mut Hearing<'_>, bare: &Bare) -> Result<(), Ended> {
    let case = &hearing.prepared.case;
    let Feedback::Momentum { factor, nesterov, masking } = case.feedback else { return Ok(()) };
    if bare.column != Column::TopK || bare.spec.placement != Placement::Compact || !case.distribution.calm() {
        return Ok(());
    }
    let kind = if masking { Kind::PlainSgd } else { Kind::MomentumSgd };
    let spec =
        CompressionSpec { selector: Selector::ExactTopK(Count::Density(1.0)), feedback: case.feedback, ..bare.spec };
    let gradients: Vec<Vec<f32>> = (0..3).map(|t| gradient(case, t, 0)).collect();
    let mut memory = Memory::new(&spec).map_err(|error| Violation::new(kind, "law", error.to_string()))?;
    let mut buffer = vec![0.0f32; case.len];
    for (t, gradient) in gradients.iter().enumerate() {
        let step = Step::new(bare.step.number + t as u64);
        let Reply::Sent { words, memory: after } =
            hearing.compress(&spec, step, gradient, &memory, None, "law, density 1")?
        else {
            return Err(Violation::new(Kind::Refusal, "law, density 1", "refused a sound gradient").into());
        };
        let mut sent = vec![0.0f32; case.len];
        for (i, x) in words.iter().map(|word| unpack(*word)) {
            if let Some(place) = sent.get_mut(i as usize) {
                *place = x;
            }
        }
        for i in 0..case.len {
            let g = gradient[i];
            buffer[i] = if nesterov { factor * (buffer[i] + g) } else { factor * buffer[i] + g };
            let expected = if nesterov { buffer[i] + g } else { buffer[i] };
            if sent[i] != expected && !same_number(sent[i], expected) {
                let detail = format!("step {t}, index {i}: sent {:e}, SGD's step is {expected:e}", sent[i]);
                return Err(Violation::new(kind, "law", detail).into());
            }
            if masking && sent[i] != 0.0 {
                buffer[i] = 0.0;
            }
        }
        memory = after;
    }
    Ok(())
}
