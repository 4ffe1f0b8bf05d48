//! A subject under examination: every call that a case makes of it, and the verification of what it answers.

use crate::SubjectError;
use crate::compression::judge::{Kind, Violation, judge_decode, judge_step};
use crate::compression::subject::{Compress, Decompress, Feature, Reply, Subject};
use crate::compression::trial::{Exhibit, Prepared};
use tilewright_compression::codec::{Encoder, decode};
use tilewright_compression::{
    CompressionSpec, IndexCoding, Memory, Message, Placement, Policy, Reduction, Selector, Step, invariants,
};

/// Why the examination of a case ended early.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// Something is wrong.
    Violated(Box<Violation>),
    /// The subject says it cannot do this.
    Refused(String),
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Self::Violated(Box::new(violation))
    }
}

/// What went on in all steps: the matter of laws.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Messages by step and rank.
    pub(crate) messages: Vec<Vec<Vec<u64>>>,
    /// Memories after the last step.
    pub(crate) memories: Vec<Memory>,
    /// Whether no gradient was refused.
    pub(crate) complete: bool,
    /// The first step's accumulated vector on the first rank.
    pub(crate) values: Vec<f32>,
}

/// A subject under examination.
pub(crate) struct Hearing<'a> {
    subject: &'a mut dyn Subject,
    pub(crate) prepared: &'a Prepared,
    id: String,
    /// Elements judged so far.
    pub(crate) elements: u64,
    /// The first wrong answer.
    pub(crate) exhibit: Option<Exhibit>,
}

/// What became of a call, if it was no answer.
fn ended(error: &SubjectError, place: &str) -> Ended {
    match error {
        SubjectError::Unsupported(why) => Ended::Refused(why.clone()),
        error => Violation::of_error(error, place).into(),
    }
}

impl<'a> Hearing<'a> {
    /// Nothing has been asked yet.
    pub(crate) fn new(subject: &'a mut dyn Subject, prepared: &'a Prepared) -> Self {
        Self { subject, prepared, id: prepared.case.to_string(), elements: 0, exhibit: None }
    }

    /// Whether the subject can do something that only a law asks for.
    pub(crate) fn can(&self, feature: Feature) -> bool {
        self.subject.profile().supports.contains(&feature)
    }

    /// Whether the same inputs must give the same bits.
    pub(crate) fn determined(&self) -> bool {
        let any = matches!(self.prepared.spec.placement, Placement::HashTable { policy: Policy::Any, .. });
        !any || self.subject.profile().deterministic
    }

    /// One step, unjudged.
    pub(crate) fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &Memory,
        threads: Option<usize>,
        place: &str,
    ) -> Result<Reply, Ended> {
        let request = Compress { id: &self.id, spec, step, gradient, memory, threads };
        self.subject.compress(&request).map_err(|error| ended(&error, place))
    }

    /// One step that cannot be refused, from a blank memory, unjudged: its message.
    pub(crate) fn message(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        place: &str,
    ) -> Result<Vec<u64>, Ended> {
        let memory = Memory::new(spec).map_err(|error| Violation::new(Kind::Failed, place, error.to_string()))?;
        match self.compress(spec, step, gradient, &memory, None, place)? {
            Reply::Sent { words, .. } => Ok(words),
            Reply::Refused { .. } => Err(Violation::new(Kind::Refusal, place, "refused a sound gradient").into()),
        }
    }

    /// A decoding, unjudged.
    pub(crate) fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        threads: Option<usize>,
        place: &str,
    ) -> Result<Vec<f32>, Ended> {
        let request = Decompress { id: &self.id, messages, reduction, len: self.prepared.case.len, threads };
        self.subject.decompress(&request).map_err(|error| ended(&error, place))
    }

    /// A decoding that has to fail: whether it does.
    pub(crate) fn refuses(&mut self, messages: &[&[u64]], reduction: Reduction, place: &str) -> Result<bool, Ended> {
        let request = Decompress { id: &self.id, messages, reduction, len: self.prepared.case.len, threads: None };
        match self.subject.decompress(&request) {
            Ok(_) => Ok(false),
            Err(SubjectError::Failed(_)) => Ok(true),
            Err(error) => Err(ended(&error, place)),
        }
    }

    /// All steps of all ranks, each verified, each followed by the decoding of everybody's messages.
    pub(crate) fn chain(&mut self) -> Result<Option<History>, Ended> {
        let prepared = self.prepared;
        let (case, spec) = (&prepared.case, &prepared.spec);
        let Ok(blank) = Memory::new(spec) else { return Ok(None) };
        let mut history =
            History { messages: Vec::new(), memories: vec![blank; case.ranks], complete: true, values: Vec::new() };
        for (t, gradients) in prepared.gradients.iter().enumerate() {
            let mut messages = Vec::new();
            for (rank, gradient) in gradients.iter().enumerate() {
                let words = self.one_step(t, rank, gradient, &mut history)?;
                self.travels(&words, &format!("step {t}, rank {rank}"))?;
                messages.push(words);
            }
            self.arrive(t, &messages)?;
            history.messages.push(messages);
        }
        Ok(Some(history))
    }

    fn one_step(&mut self, t: usize, rank: usize, gradient: &[f32], history: &mut History) -> Result<Vec<u64>, Ended> {
        let spec = self.prepared.spec;
        let (step, place) = (self.prepared.case.step(t), format!("step {t}, rank {rank}"));
        let before = std::mem::take(&mut history.memories[rank]);
        let reply = self.compress(&spec, step, gradient, &before, None, &place)?;
        self.elements += gradient.len() as u64;
        let checked = match judge_step(&spec, step, gradient, &before, &reply, &place) {
            Ok(checked) => checked,
            Err(violation) => {
                self.exhibit = Some(Exhibit::Step { t, rank, before, reply });
                return Err(violation.into());
            }
        };
        let last = t + 1 == self.prepared.case.steps && rank + 1 == self.prepared.case.ranks;
        if last && self.determined() {
            self.repeat(step, gradient, &before, &reply, &place)?;
        }
        let Reply::Sent { words, memory } = reply else {
            (history.memories[rank], history.complete) = (before, false);
            return Ok(Vec::new());
        };
        if let Some(checked) = checked {
            self.contracts(&checked.values, &words, &place)?;
            if t == 0 && rank == 0 {
                history.values = checked.values;
            }
        }
        history.memories[rank] = memory;
        Ok(words)
    }

    /// The same step again, and on other numbers of threads: the same bits.
    fn repeat(
        &mut self,
        step: Step,
        gradient: &[f32],
        before: &Memory,
        reply: &Reply,
        place: &str,
    ) -> Result<(), Ended> {
        let spec = self.prepared.spec;
        for (threads, kind) in
            [(None, Kind::Nondeterministic), (Some(1), Kind::OrderFreedom), (Some(3), Kind::OrderFreedom)]
        {
            let again = self.compress(&spec, step, gradient, before, threads, place)?;
            if !same_reply(&again, reply) {
                let how = threads.map_or("in a second run".into(), |n| format!("on {n} threads"));
                return Err(Violation::new(kind, place, format!("another answer {how}")).into());
            }
        }
        Ok(())
    }

    /// §3.1 of Lin et al. in reverse: what is kept back is less than what is sent.
    fn contracts(&self, values: &[f32], words: &[u64], place: &str) -> Result<(), Ended> {
        let spec = &self.prepared.spec;
        let exact = spec.placement == Placement::Compact && matches!(spec.selector, Selector::ExactTopK(_));
        let aim = spec.selector.aim(spec.len).unwrap_or(0);
        if !exact || !values.iter().all(|x| x.is_finite()) {
            return Ok(());
        }
        invariants::contraction(values, words, aim)
            .map_err(|found| Violation::new(Kind::Contraction, place, found.to_string()).into())
    }

    /// Over the wire and back: the message can be encoded, and is the same afterwards.
    fn travels(&self, words: &[u64], place: &str) -> Result<(), Ended> {
        let spec = &self.prepared.spec;
        let wrong = |what: String| Ended::from(Violation::new(Kind::Codec, place, what));
        let (mut bytes, mut received) = (Vec::new(), Message::default());
        Encoder::default().encode(spec.wire, spec.len, words, &mut bytes).map_err(|error| wrong(error.to_string()))?;
        decode(&bytes, spec.len, &mut received).map_err(|error| wrong(error.to_string()))?;
        let same = match spec.wire.index {
            IndexCoding::Plain => invariants::same(words, &received.words),
            IndexCoding::Rice => invariants::same_entries(words, &received.words),
        };
        same.map_err(|found| wrong(found.to_string()))
    }

    /// Everybody's messages of one step, as sum and as mean; then with one more rank that sends nothing.
    fn arrive(&mut self, t: usize, messages: &[Vec<u64>]) -> Result<(), Ended> {
        let len = self.prepared.case.len;
        let views: Vec<&[u64]> = messages.iter().map(Vec::as_slice).collect();
        let with_idle: Vec<&[u64]> = views.iter().copied().chain([&[] as &[u64]]).collect();
        let place = format!("step {t}, decoding");
        for (messages, reduction) in
            [(&views, Reduction::Sum), (&views, Reduction::Mean), (&with_idle, Reduction::Mean)]
        {
            let out = self.decompress(messages, reduction, None, &place)?;
            self.elements += len as u64;
            if let Err(violation) = judge_decode(messages, reduction, len, &out, &place) {
                let messages = messages.iter().map(|words| words.to_vec()).collect();
                self.exhibit = Some(Exhibit::Decode { messages, reduction, out });
                return Err(violation.into());
            }
        }
        Ok(())
    }
}

/// The same bits, NaN being NaN.
fn same_reply(a: &Reply, b: &Reply) -> bool {
    let same = |a: &[f32], b: &[f32]| invariants::same_bits("", a, b).is_ok();
    match (a, b) {
        (Reply::Sent { words: a, memory: m }, Reply::Sent { words: b, memory: n }) => {
            a == b && same(&m.velocity, &n.velocity) && same(&m.momentum, &n.momentum)
        }
        // Any entry that is not finite will do.
        (Reply::Refused { .. }, Reply::Refused { .. }) => true,
        _ => false,
    }
}
