//! What is sent becomes words and leaves the memory.

use crate::compression::kernel::Pass;
use crate::compression::place::Placed;
use crate::compression::{Fault, Forgetting};
use tilewright_compression::{CompressionSpec, Feedback, Memory, Message, ValueFormat};
use tilewright_scalar::{Element, bf16, f16};

impl Pass {
    pub(crate) fn send(
        &self,
        spec: &CompressionSpec,
        gradient: &[f32],
        values: &[f32],
        placed: &Placed,
        memory: &mut Memory,
        message: &mut Message,
    ) {
        if !self.is(Fault::MessageNotCleared) {
            message.words.clear();
        }
        let mut copy = (self.variant.forgetting == Forgetting::Copied).then(|| memory.clone());
        let kept = copy.as_mut().unwrap_or(memory);
        for (at, &i) in placed.sent.iter().enumerate() {
            let value = values[i as usize];
            let on_wire = self.on_wire(spec.wire.value, value);
            let rest = self.left_over(spec.wire.value, value, on_wire);
            let shown = match self.fault {
                Some(Fault::GradientSent) => spec.wire.value.round(gradient[i as usize]),
                Some(Fault::SentAfterClearing) if spec.feedback != Feedback::None => spec.wire.value.round(rest),
                Some(Fault::ValueOfNeighbour) => {
                    let neighbour = placed.sent[(at + 1) % placed.sent.len()];
                    self.on_wire(spec.wire.value, values[neighbour as usize])
                }
                _ => on_wire,
            };
            let index = if self.is(Fault::IndexTruncated) { i & 0xffff } else { i };
            message.push(index, shown);
            self.forget(spec.feedback, i as usize, rest, kept);
        }
        for &i in &placed.lost {
            let rest = if self.is(Fault::LosersMasked) { values[i as usize] } else { 0.0 };
            self.forget(spec.feedback, i as usize, rest, kept);
        }
        if let Some(copy) = copy {
            memory.velocity.copy_from_slice(&copy.velocity);
            memory.momentum.copy_from_slice(&copy.momentum);
        }
        if self.is(Fault::LastEntryNotSent) {
            message.words.pop();
        }
    }

    /// What the next call finds of this one's values: what it would have kept.
    pub(crate) fn after(&self, spec: &CompressionSpec, mut values: Vec<f32>, placed: &Placed) -> Vec<f32> {
        if self.is(Fault::HiddenResidual) && spec.feedback == Feedback::None {
            placed.sent.iter().for_each(|i| values[*i as usize] = 0.0);
        }
        values
    }

    /// A value as the receiver sees it.
    fn on_wire(&self, format: ValueFormat, x: f32) -> f32 {
        let right = format.round(x);
        match (self.fault, format) {
            (Some(Fault::WireIgnored), _) => x,
            (Some(Fault::SignLost), _) => right.abs(),
            (Some(Fault::EightBitValues), _) if x.is_finite() => f32::from_bits(right.to_bits() & 0xfff0_0000),
            (Some(Fault::Bf16OnWire), ValueFormat::F32) => ValueFormat::Bf16.round(x),
            (Some(Fault::OverflowToInfinity), ValueFormat::F16) => f16::from_accum(x).to_accum(),
            (Some(Fault::OverflowToInfinity), ValueFormat::Bf16) => bf16::from_accum(x).to_accum(),
            (Some(Fault::HalfSubnormalsFlushed), ValueFormat::F16) if right.abs() < 6.103_515_6e-5 => 0.0,
            (Some(Fault::TruncatedOnWire), ValueFormat::Bf16 | ValueFormat::F16) if right.abs() > x.abs() => {
                toward_zero(format, right)
            }
            (Some(Fault::TiesAwayOnWire), ValueFormat::Bf16 | ValueFormat::F16) if right.abs() < x.abs() => {
                let next = away_from_zero(format, right);
                if x - right == next - x { next } else { right }
            }
            _ => right,
        }
    }

    fn left_over(&self, format: ValueFormat, value: f32, on_wire: f32) -> f32 {
        match self.fault {
            Some(Fault::WinnerKept) => value,
            Some(Fault::RoundingForgotten) => 0.0,
            Some(Fault::InfinityLessItself) => value - on_wire,
            Some(Fault::ClearedByProduct) if format == ValueFormat::F32 => value * 0.0,
            Some(Fault::RoundingNegated) if value.is_finite() => on_wire - value,
            _ if value.is_finite() => value - on_wire,
            _ => 0.0,
        }
    }

    /// An entry was sent: only `rest` of it stays.
    fn forget(&self, feedback: Feedback, i: usize, rest: f32, memory: &mut Memory) {
        if let Some(v) = memory.velocity.get_mut(i) {
            *v = rest;
        }
        let (Feedback::Momentum { masking, .. }, Some(u)) = (feedback, memory.momentum.get_mut(i)) else { return };
        let clears = match self.fault {
            Some(Fault::MomentumNotMasked) => false,
            Some(Fault::MomentumMaskedAnyway) => true,
            Some(Fault::RoundingKeptUnmasked) => masking && rest == 0.0,
            _ => masking,
        };
        if clears {
            *u = 0.0;
        }
    }
}

/// The next number of the format toward zero.
fn toward_zero(format: ValueFormat, x: f32) -> f32 {
    neighbour(format, x, u16::wrapping_sub)
}

/// The next number of the format away from zero.
fn away_from_zero(format: ValueFormat, x: f32) -> f32 {
    neighbour(format, x, u16::wrapping_add)
}

/// Magnitudes of a format are ordered as their bits are.
fn neighbour(format: ValueFormat, x: f32, step: fn(u16, u16) -> u16) -> f32 {
    match format {
        ValueFormat::F32 => x,
        ValueFormat::Bf16 => bf16::from_bits(step(bf16::from_accum(x).to_bits(), 1)).to_accum(),
        ValueFormat::F16 => f16::from_bits(step(f16::from_accum(x).to_bits(), 1)).to_accum(),
    }
}
