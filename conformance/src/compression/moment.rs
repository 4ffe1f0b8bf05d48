//! What a decoy is made from: one step of one rank, or the messages of all of them, with the right answer.

use crate::compression::subject::Reply;
use tilewright_compression::key::magnitude;
use tilewright_compression::memory::accumulate;
use tilewright_compression::message::unpack;
use tilewright_compression::reference::Reference;
use tilewright_compression::{
    CompressionError, CompressionSpec, Compressor, Decompressor, Memory, Message, Reduction, Step,
};

/// One step of one rank, with the right answer.
#[derive(Clone, Debug)]
pub struct Moment<'a> {
    /// The problem.
    pub spec: &'a CompressionSpec,
    /// Which step.
    pub step: Step,
    /// The gradient.
    pub gradient: &'a [f32],
    /// The memory before.
    pub before: Memory,
    /// The right answer.
    pub right: Reply,
    /// What entries are chosen from.
    pub values: Vec<f32>,
}

/// The messages of all ranks in one step, with the right answer.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The messages.
    pub messages: Vec<Vec<u64>>,
    /// Sum or mean.
    pub reduction: Reduction,
    /// The right answer.
    pub right: Vec<f32>,
}

// Some mistakes cannot always be made, so all of them are optional.
#[allow(clippy::unnecessary_wraps)]
impl<'a> Moment<'a> {
    /// The moment of a gradient, and the memory after it.
    ///
    /// # Errors
    /// What the reference says, unless it rightly refuses the gradient.
    pub fn new(
        spec: &'a CompressionSpec,
        step: Step,
        gradient: &'a [f32],
        before: Memory,
    ) -> Result<Self, CompressionError> {
        let values = accumulated(spec, step, gradient, &before);
        let right = answer(spec, step, gradient, &before)?;
        Ok(Self { spec, step, gradient, before, right, values })
    }

    /// The memory that the next step starts from.
    pub fn after(&self) -> &Memory {
        match &self.right {
            Reply::Sent { memory, .. } => memory,
            Reply::Refused { .. } => &self.before,
        }
    }

    /// What is sent.
    pub fn words(&self) -> &[u64] {
        match &self.right {
            Reply::Sent { words, .. } => words,
            Reply::Refused { .. } => &[],
        }
    }

    /// The answer to another problem, in another step, from another memory.
    pub(crate) fn again(&self, spec: &CompressionSpec, step: Step, before: &Memory) -> Option<Reply> {
        answer(spec, step, self.gradient, before).ok()
    }

    /// The answer to another problem.
    pub(crate) fn of(&self, change: impl FnOnce(&mut CompressionSpec)) -> Option<Reply> {
        let mut spec = *self.spec;
        change(&mut spec);
        self.again(&spec, self.step, &self.before)
    }

    /// The right answer, but other words.
    pub(crate) fn sending(&self, change: impl FnOnce(&mut Vec<u64>)) -> Option<Reply> {
        let mut words = self.words().to_vec();
        change(&mut words);
        Some(Reply::Sent { words, memory: self.after().clone() })
    }

    /// The right answer, but another memory.
    pub(crate) fn keeping(&self, change: impl FnOnce(&mut Memory)) -> Option<Reply> {
        let mut memory = self.after().clone();
        change(&mut memory);
        Some(Reply::Sent { words: self.words().to_vec(), memory })
    }

    /// The right answer without entries: they stay where they were.
    pub(crate) fn without(&self, left_out: impl Fn(u32, f32) -> bool) -> Option<Reply> {
        let (stay, go): (Vec<u64>, Vec<u64>) =
            self.words().iter().partition(|w| left_out(unpack(**w).0, unpack(**w).1));
        let mut memory = self.after().clone();
        for i in stay.iter().map(|word| unpack(*word).0 as usize) {
            if let Some(v) = memory.velocity.get_mut(i) {
                *v = self.values[i];
            }
        }
        Some(Reply::Sent { words: go, memory })
    }

    /// Who is sent.
    pub(crate) fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.words().iter().map(|word| unpack(*word).0 as usize)
    }

    /// The least magnitude that is sent.
    pub(crate) fn threshold(&self) -> u32 {
        self.indices().map(|i| magnitude(self.values[i])).min().unwrap_or(0)
    }
}

fn accumulated(spec: &CompressionSpec, step: Step, gradient: &[f32], before: &Memory) -> Vec<f32> {
    let at = |list: &[f32], i: usize| list.get(i).copied().unwrap_or(0.0);
    let one = |(i, g): (usize, &f32)| {
        let (u, v) = (at(&before.momentum, i), at(&before.velocity, i));
        accumulate(spec.feedback, u, v, step.scale * g).1
    };
    gradient.iter().enumerate().map(one).collect()
}

/// The reference's answer.
fn answer(spec: &CompressionSpec, step: Step, gradient: &[f32], before: &Memory) -> Result<Reply, CompressionError> {
    let (mut memory, mut message) = (before.clone(), Message::default());
    match Reference.compress(spec, step, gradient, &mut memory, &mut message) {
        Ok(()) => Ok(Reply::Sent { words: message.words, memory }),
        Err(CompressionError::NonFinite { index, .. }) => Ok(Reply::Refused { index }),
        Err(error) => Err(error),
    }
}

impl Arrival {
    /// Messages and their sum or mean.
    ///
    /// # Errors
    /// What the reference says.
    pub fn new(messages: Vec<Vec<u64>>, reduction: Reduction, len: usize) -> Result<Self, CompressionError> {
        let mut right = vec![0.0; len];
        let views: Vec<&[u64]> = messages.iter().map(Vec::as_slice).collect();
        Reference.decompress(&views, reduction, &mut right)?;
        Ok(Self { messages, reduction, right })
    }

    /// What messages decode to.
    pub(crate) fn decoded(&self, messages: &[&[u64]], reduction: Reduction) -> Option<Vec<f32>> {
        let mut out = vec![0.0; self.right.len()];
        Reference.decompress(messages, reduction, &mut out).ok()?;
        Some(out)
    }
}
