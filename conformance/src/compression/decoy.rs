//! Answers that are wrong in a known way. A case is evidence against a fault only if it rejects the fault's decoy, and
//! a wrong answer that is some decoy to the bit has its name.

use crate::compression::judge::{judge_decode, judge_step};
use crate::compression::moment::{Arrival, Moment};
use crate::compression::subject::{Feature, Reply};
use tilewright_compression::key::magnitude;
use tilewright_compression::memory::left_over;
use tilewright_compression::message::{unpack, word};
use tilewright_compression::{
    CompressionSpec, Feedback, Memory, NonFinite, Placement, Policy, Reduction, Sampling, Selector, Slots, Step,
    ValueFormat, Wire,
};

/// A known mistake.
#[derive(Clone, Copy, Debug)]
pub struct Decoy {
    /// What is wrong.
    pub name: &'static str,
    /// The feature it is about.
    pub feature: Option<Feature>,
    wrong: Wrong,
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Step(fn(&Moment<'_>) -> Option<Reply>),
    Decode(fn(&Arrival) -> Option<Vec<f32>>),
}

const fn step(name: &'static str, wrong: fn(&Moment<'_>) -> Option<Reply>) -> Decoy {
    Decoy { name, feature: None, wrong: Wrong::Step(wrong) }
}

const fn about(feature: Feature, name: &'static str, wrong: fn(&Moment<'_>) -> Option<Reply>) -> Decoy {
    Decoy { name, feature: Some(feature), wrong: Wrong::Step(wrong) }
}

const fn decode(name: &'static str, wrong: fn(&Arrival) -> Option<Vec<f32>>) -> Decoy {
    Decoy { name, feature: Some(Feature::Ranks), wrong: Wrong::Decode(wrong) }
}

/// All decoys.
pub static DECOYS: &[Decoy] = &[
    step("last entry not sent, and lost", |m| m.sending(|words| words.truncate(words.len().saturating_sub(1)))),
    step("element 0 never sent", |m| m.without(|i, _| i == 0)),
    step("last element never sent", |m| m.without(|i, _| i as usize + 1 == m.spec.len)),
    step("one entry too few", |m| m.without(|i, _| Some(i as usize) == m.indices().last())),
    step("one entry too many", one_more),
    step("an entry at the threshold not sent", |m| m.without(|i, _| magnitude(m.values[i as usize]) == m.threshold())),
    step("an entry sent twice", |m| m.sending(|words| words.extend(words.last().copied()))),
    step("a zero sent", zero_sent),
    step("signs lost", |m| m.sending(|words| each(words, |_, x| x.abs()))),
    step("values of neighbours", |m| m.sending(|words| shifted(words))),
    step("values of the gradient", |m| m.sending(|words| each(words, |i, _| m.gradient[i]))),
    step("selected by value instead of magnitude", |m| m.without(|_, x| x < 0.0)),
    step("non-finite entries not sent", |m| m.without(|_, x| !x.is_finite())),
    step("ties go to the greatest index", ties_reversed),
    step("the seed ignored", |m| m.of(|spec| spec.seed = 0)),
    step("the step's number ignored", |m| m.again(m.spec, Step { number: 0, ..m.step }, &m.before)),
    step("the first k that pass the threshold", first_k),
    about(Feature::Compact, "out of order of index", |m| m.sending(|words| words.reverse())),
    about(Feature::HashTable, "the last one keeps the slot", |m| m.of(|spec| set_policy(spec, Policy::Any))),
    about(Feature::HashTable, "the loser of a slot cleared", losers_cleared),
    about(Feature::HashTable, "one slot fewer", |m| m.of(one_slot_fewer)),
    about(Feature::HashTable, "no table", |m| m.of(|spec| spec.placement = Placement::Compact)),
    about(Feature::HashTable, "table sent in order of index", |m| m.sending(|words| words.sort_unstable())),
    about(Feature::AnyWinner, "the winner of a slot not sent", |m| {
        m.sending(|words| words.truncate(words.len().saturating_sub(1)))
    }),
    about(Feature::AnyWinner, "the loser of a slot cleared", losers_cleared),
    about(Feature::Refinement, "the threshold not refined", |m| m.of(|spec| refine(spec, 0))),
    about(Feature::Refinement, "excess not cut", |m| m.of(|spec| refine(spec, 1))),
    about(Feature::Residual, "the residual of what was sent kept", sent_kept),
    about(Feature::Residual, "the residual of what was not sent cleared", unsent_cleared),
    about(Feature::Momentum, "the residual of what was sent kept", sent_kept),
    about(Feature::Momentum, "the residual of what was not sent cleared", unsent_cleared),
    about(Feature::Momentum, "momentum forgotten", |m| m.of(|spec| factor(spec, 0.0))),
    about(Feature::Nesterov, "classical momentum", |m| m.of(|spec| momentum(spec, |nesterov, _| *nesterov = false))),
    about(Feature::Masking, "momentum not masked", |m| m.of(|spec| momentum(spec, |_, masking| *masking = false))),
    about(Feature::Bf16, "values not rounded", |m| m.of(|spec| spec.wire = Wire::default())),
    about(Feature::Bf16, "values truncated", |m| m.sending(|words| each(words, |i, x| truncated(m, i, x)))),
    about(Feature::F16, "values not rounded", |m| m.of(|spec| spec.wire = Wire::default())),
    about(Feature::F16, "values as bfloat16", |m| m.of(|spec| spec.wire.value = ValueFormat::Bf16)),
    about(Feature::Reject, "accepted", |m| m.of(|spec| spec.non_finite = NonFinite::Propagate)),
    about(Feature::NonFinite, "NaN and infinities not sent", |m| m.without(|_, x| !x.is_finite())),
    about(Feature::NonFinite, "refused", |m| m.of(|spec| spec.non_finite = NonFinite::Reject)),
    about(Feature::Clipping, "the gradient not scaled", |m| m.again(m.spec, Step { scale: 1.0, ..m.step }, &m.before)),
    about(Feature::Clipping, "the gradient scaled twice", |m| {
        m.again(m.spec, Step { scale: m.step.scale * m.step.scale, ..m.step }, &m.before)
    }),
    about(Feature::Steps, "memory lost between steps", |m| {
        let blank = Memory::new(m.spec).ok()?;
        m.again(m.spec, m.step, &blank)
    }),
    about(Feature::Steps, "the step's number ignored", |m| m.again(m.spec, Step { number: 0, ..m.step }, &m.before)),
    decode("the last rank left out", |a| {
        let most: Vec<&[u64]> = a.messages.iter().map(Vec::as_slice).collect();
        let (_, most) = most.split_last()?;
        (!most.is_empty()).then(|| a.decoded(most, a.reduction)).flatten()
    }),
    decode("a later rank overwrites", overwritten),
    decode("the mean not divided", |a| {
        let all: Vec<&[u64]> = a.messages.iter().map(Vec::as_slice).collect();
        a.decoded(&all, Reduction::Sum)
    }),
    decode("gathered messages split equally", split_equally),
    decode("ranks added last to first", |a| {
        let all: Vec<&[u64]> = a.messages.iter().rev().map(Vec::as_slice).collect();
        a.decoded(&all, a.reduction)
    }),
];

impl Decoy {
    /// Whether some case must reject it for there to be evidence about its feature; decoys that are wrong about nothing
    /// in particular bear on every feature without decoys of its own.
    pub fn is_about(&self, feature: Feature) -> bool {
        self.feature == Some(feature)
    }

    /// Whether the judge sees through it at this moment.
    pub fn rejected_step(&self, moment: &Moment<'_>) -> bool {
        let Wrong::Step(wrong) = self.wrong else { return false };
        let Some(reply) = wrong(moment).filter(|reply| *reply != moment.right) else { return false };
        let Moment { spec, step, gradient, before, .. } = moment;
        judge_step(spec, *step, gradient, before, &reply, "decoy").is_err()
    }

    /// Whether the judge sees through it at this arrival.
    pub fn rejected_decode(&self, arrival: &Arrival) -> bool {
        let Wrong::Decode(wrong) = self.wrong else { return false };
        let messages: Vec<&[u64]> = arrival.messages.iter().map(Vec::as_slice).collect();
        wrong(arrival)
            .is_some_and(|out| judge_decode(&messages, arrival.reduction, arrival.right.len(), &out, "decoy").is_err())
    }

    /// Whether this is the mistake, to the bit.
    pub fn explains_step(&self, moment: &Moment<'_>, reply: &Reply) -> bool {
        let Wrong::Step(wrong) = self.wrong else { return false };
        wrong(moment).is_some_and(|wrong| wrong == *reply && wrong != moment.right)
    }

    /// Whether this is the mistake, to the bit.
    pub fn explains_decode(&self, arrival: &Arrival, out: &[f32]) -> bool {
        let Wrong::Decode(wrong) = self.wrong else { return false };
        wrong(arrival).is_some_and(|wrong| wrong == out && wrong != arrival.right)
    }
}

/// Every value replaced by what `f` makes of its index and itself.
fn each(words: &mut [u64], f: impl Fn(usize, f32) -> f32) {
    for w in words {
        let (i, x) = unpack(*w);
        *w = word(i, f(i as usize, x));
    }
}

fn shifted(words: &mut [u64]) {
    let mut values: Vec<f32> = words.iter().map(|word| unpack(*word).1).collect();
    if !values.is_empty() {
        values.rotate_left(1);
    }
    for (w, x) in words.iter_mut().zip(values) {
        *w = word(unpack(*w).0, x);
    }
}

/// The greatest entry that is not sent, sent too, at the end.
fn one_more(m: &Moment<'_>) -> Option<Reply> {
    let sent: std::collections::BTreeSet<usize> = m.indices().collect();
    let rest = (0..m.values.len()).filter(|i| !sent.contains(i) && magnitude(m.values[*i]) > 0);
    let next = rest.max_by_key(|i| magnitude(m.values[*i]))?;
    let on_wire = m.spec.wire.value.round(m.values[next]);
    let mut memory = m.after().clone();
    if let Some(v) = memory.velocity.get_mut(next) {
        *v = left_over(m.values[next], on_wire);
    }
    let mut words = m.words().to_vec();
    words.push(word(next as u32, on_wire));
    if m.spec.placement == Placement::Compact {
        words.sort_unstable();
    }
    Some(Reply::Sent { words, memory })
}

fn zero_sent(m: &Moment<'_>) -> Option<Reply> {
    let zero = m.values.iter().position(|x| *x == 0.0)? as u32;
    m.sending(|words| {
        words.push(word(zero, 0.0));
        if m.spec.placement == Placement::Compact {
            words.sort_unstable();
        }
    })
}

/// Of the entries that are as great as the least one sent, the last instead of the first.
fn ties_reversed(m: &Moment<'_>) -> Option<Reply> {
    if !matches!(m.spec.selector, Selector::ExactTopK(_)) || m.spec.placement != Placement::Compact {
        return None;
    }
    let cut = m.threshold();
    let above = |i: &usize| magnitude(m.values[*i]) > cut;
    let tied: Vec<usize> = (0..m.values.len()).filter(|i| magnitude(m.values[*i]) == cut).collect();
    let wanted = m.words().len() - m.indices().filter(above).count();
    let mut chosen: Vec<usize> = m.indices().filter(above).chain(tied.into_iter().rev().take(wanted)).collect();
    chosen.sort_unstable();
    let mut memory = m.after().clone();
    for (i, v) in memory.velocity.iter_mut().enumerate() {
        let sent = chosen.binary_search(&i).is_ok();
        *v = if sent { left_over(m.values[i], m.spec.wire.value.round(m.values[i])) } else { m.values[i] };
    }
    let words = chosen.iter().map(|i| word(*i as u32, m.spec.wire.value.round(m.values[*i]))).collect();
    Some(Reply::Sent { words, memory })
}

/// DGC's cut: of more than `k` that pass, the first.
fn first_k(m: &Moment<'_>) -> Option<Reply> {
    let k = m.spec.selector.aim(m.spec.len)?;
    let kept: Vec<u32> = m.words().iter().take(k).map(|word| unpack(*word).0).collect();
    if matches!(m.spec.selector, Selector::SampledThreshold(..)) && m.words().len() > k {
        return m.without(|i, _| !kept.contains(&i));
    }
    None
}

fn set_policy(spec: &mut CompressionSpec, rule: Policy) {
    if let Placement::HashTable { policy, .. } = &mut spec.placement {
        *policy = rule;
    }
}

fn one_slot_fewer(spec: &mut CompressionSpec) {
    if let (Ok(Some(count)), Placement::HashTable { slots, .. }) = (spec.slots(), &mut spec.placement) {
        *slots = Slots::Exactly(count.saturating_sub(1).max(1));
    }
}

fn refine(spec: &mut CompressionSpec, what: u8) {
    if let Selector::SampledThreshold(_, Sampling { refine: refinement, .. }) = &mut spec.selector {
        match (what, refinement) {
            (0, refinement) => *refinement = None,
            (_, Some(refinement)) => refinement.upper = f32::MAX,
            _ => {}
        }
    }
}

fn factor(spec: &mut CompressionSpec, value: f32) {
    if let Feedback::Momentum { factor, .. } = &mut spec.feedback {
        *factor = value;
    }
}

fn momentum(spec: &mut CompressionSpec, change: impl Fn(&mut bool, &mut bool)) {
    if let Feedback::Momentum { nesterov, masking, .. } = &mut spec.feedback {
        change(nesterov, masking);
    }
}

fn sent_kept(m: &Moment<'_>) -> Option<Reply> {
    m.keeping(|memory| m.indices().for_each(|i| memory.velocity[i] = m.values[i]))
}

fn unsent_cleared(m: &Moment<'_>) -> Option<Reply> {
    let sent: std::collections::BTreeSet<usize> = m.indices().collect();
    m.keeping(|memory| {
        let unsent = memory.velocity.iter_mut().enumerate().filter(|(i, _)| !sent.contains(i));
        unsent.for_each(|(_, v)| *v = 0.0);
    })
}

/// Everyone who would be a candidate without the table has left the residual.
fn losers_cleared(m: &Moment<'_>) -> Option<Reply> {
    let Some(Reply::Sent { words, .. }) = m.of(|spec| spec.placement = Placement::Compact) else { return None };
    let everyone = words.iter().map(|word| unpack(*word).0 as usize);
    let sent: std::collections::BTreeSet<usize> = m.indices().collect();
    m.keeping(|memory| {
        for i in everyone.filter(|i| !sent.contains(i)) {
            if let Some(v) = memory.velocity.get_mut(i) {
                *v = 0.0;
            }
        }
    })
}

fn truncated(m: &Moment<'_>, i: usize, x: f32) -> f32 {
    if x.is_finite() { f32::from_bits(m.values[i].to_bits() & 0xffff_0000) } else { x }
}

#[allow(clippy::unnecessary_wraps)]
fn overwritten(a: &Arrival) -> Option<Vec<f32>> {
    let mut out = vec![0.0; a.right.len()];
    for (i, x) in a.messages.iter().flatten().map(|word| unpack(*word)) {
        out[i as usize] = x;
    }
    if a.reduction == Reduction::Mean {
        for x in &mut out {
            *x /= a.messages.len() as f32;
        }
    }
    Some(out)
}

/// What is left over by an equal split of everything that was gathered is lost.
fn split_equally(a: &Arrival) -> Option<Vec<f32>> {
    let all: Vec<u64> = a.messages.concat();
    let share = all.len() / a.messages.len();
    let parts: Vec<&[u64]> = (0..a.messages.len()).map(|rank| &all[rank * share..(rank + 1) * share]).collect();
    a.decoded(&parts, a.reduction)
}
