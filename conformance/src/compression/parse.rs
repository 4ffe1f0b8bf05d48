//! From an id to its case.

use crate::compression::case::{Case, Distribution, index_from_name, value_from_name};
use std::fmt;
use std::str::FromStr;
use tilewright_compression::{
    Count, Feedback, NonFinite, Placement, Policy, Refinement, Sampling, Selector, Slots, Wire,
};

/// What is wrong with a case id: one line that names the part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseError {
    part: &'static str,
    got: String,
    expected: String,
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let got: String = self.got.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        write!(f, "case id, {}: got `{got}`, expected {}", self.part, self.expected)
    }
}

impl std::error::Error for CaseError {}

/// Sizes an id may name: a case is a test, not a benchmark, and a typo should not ask for all of memory.
const LARGEST: usize = 1 << 20;
const MOST_STEPS: usize = 64;
const MOST_RANKS: usize = 16;
const LARGEST_TOTAL: usize = 1 << 24;
/// Slots an id may name.
const MOST_SLOTS: u32 = 1 << 22;

impl FromStr for Case {
    type Err = CaseError;

    fn from_str(id: &str) -> Result<Self, CaseError> {
        let error = |part, got: &str, expected: &str| CaseError { part, got: got.into(), expected: expected.into() };
        let parts: Vec<&str> = id.trim().split('/').collect();
        let ["compression", len, selector, placement, feedback, options, distribution, steps, ranks, seed] = parts[..]
        else {
            let form = "compression/nN/SELECTOR/PLACEMENT/FEEDBACK/wire=V,I/DISTRIBUTION/steps=T/ranks=R/SEED";
            return Err(error("form", id, form));
        };
        let number = |part: &'static str, text: &str, prefix: &str, range: std::ops::RangeInclusive<usize>| {
            let expected = format!("{prefix} and a number from {} to {}", range.start(), range.end());
            let digits = text.strip_prefix(prefix).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| range.contains(number));
            number.ok_or_else(|| error(part, text, &expected))
        };
        let wrong = |part: &'static str, text: &str| error(part, text, "one that the documentation lists");
        let mut case = Self {
            len: number("length", len, "n", 0..=LARGEST)?,
            selector: parse_selector(selector).ok_or_else(|| wrong("selector", selector))?,
            placement: parse_placement(placement).ok_or_else(|| wrong("placement", placement))?,
            feedback: parse_feedback(feedback).ok_or_else(|| wrong("feedback", feedback))?,
            steps: number("steps", steps, "steps=", 1..=MOST_STEPS)?,
            ranks: number("ranks", ranks, "ranks=", 1..=MOST_RANKS)?,
            seed: u32::from_str_radix(seed, 16).map_err(|_| error("seed", seed, "up to eight hexadecimal digits"))?,
            ..Self::new(0, 1.0)
        };
        for option in options.split('+') {
            case.set_option(option).ok_or_else(|| wrong("option", option))?;
        }
        let known = Distribution::ALL.into_iter().find(|known| known.name() == distribution);
        case.distribution = known.ok_or_else(|| wrong("distribution", distribution))?;
        case.check().map_err(|(part, expected)| error(part, id, &expected))?;
        Ok(case)
    }
}

fn parse_count(text: &str) -> Option<(&str, Count)> {
    if let Some((name, density)) = text.split_once('@') {
        return Some((name, Count::Density(density.parse().ok()?)));
    }
    let (name, entries) = text.split_once('=')?;
    Some((name, Count::Entries(entries.parse().ok().filter(|entries| *entries <= LARGEST)?)))
}

fn parse_selector(text: &str) -> Option<Selector> {
    if let Some(threshold) = text.strip_prefix("fixed=") {
        return Some(Selector::FixedThreshold(threshold.parse().ok()?));
    }
    let mut parts = text.split(',');
    let (name, count) = parse_count(parts.next()?)?;
    let selector = match name {
        "topk" => Selector::ExactTopK(count),
        "random" => Selector::RandomK(count),
        "sampled" => {
            let ratio = parts.next()?.strip_prefix("ratio=")?.parse().ok()?;
            let refine = parts.next().map(parse_refinement).map_or(Some(None), |refine| refine.map(Some))?;
            Selector::SampledThreshold(count, Sampling { ratio, refine })
        }
        _ => return None,
    };
    parts.next().is_none().then_some(selector)
}

fn parse_refinement(text: &str) -> Option<Refinement> {
    let mut parts = text.strip_prefix("refine=")?.split(':');
    let (lower, upper, iterations) = (parts.next()?, parts.next()?, parts.next()?);
    let refinement = Refinement {
        lower: lower.parse().ok()?,
        upper: upper.parse().ok()?,
        iterations: iterations.parse().ok().filter(|n| *n <= 1000)?,
    };
    parts.next().is_none().then_some(refinement)
}

fn parse_placement(text: &str) -> Option<Placement> {
    if text == "compact" {
        return Some(Placement::Compact);
    }
    let (slots, policy) = match text.strip_suffix(",any") {
        Some(slots) => (slots, Policy::Any),
        None => (text, Policy::LargestMagnitude),
    };
    let slots = match slots.strip_prefix("hash")?.split_at_checked(1)? {
        ("@", per_entry) => Slots::PerEntry(per_entry.parse().ok()?),
        ("=", slots) => Slots::Exactly(slots.parse().ok()?),
        _ => return None,
    };
    Some(Placement::HashTable { slots, policy })
}

fn parse_feedback(text: &str) -> Option<Feedback> {
    match text {
        "none" => return Some(Feedback::None),
        "residual" => return Some(Feedback::Residual),
        _ => {}
    }
    let mut parts = text.strip_prefix("momentum=")?.split(',');
    let factor = parts.next()?.parse().ok()?;
    let rest: Vec<&str> = parts.collect();
    let (nesterov, masking) = match rest[..] {
        [] => (false, false),
        ["nesterov"] => (true, false),
        ["masked"] => (false, true),
        ["nesterov", "masked"] => (true, true),
        _ => return None,
    };
    Some(Feedback::Momentum { factor, nesterov, masking })
}

impl Case {
    fn set_option(&mut self, option: &str) -> Option<()> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (name, value) {
            ("wire", formats) => {
                let (value, index) = formats.split_once(',')?;
                self.wire = Wire { value: value_from_name(value)?, index: index_from_name(index)? };
            }
            ("reject", "") => self.non_finite = NonFinite::Reject,
            ("clip", scale) => {
                let scale: f32 = scale.parse().ok()?;
                self.scale = Some(scale).filter(|scale| scale.is_finite() && *scale >= 0.0)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// The first inconsistency, if there is one.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.len * self.steps * self.ranks > LARGEST_TOTAL {
            return Err(("sizes", "at most 2^24 gradients in all".into()));
        }
        let spec = self.spec();
        spec.validate().map_err(|error| ("specification", error.to_string()))?;
        match spec.slots() {
            Ok(Some(slots)) if slots > MOST_SLOTS => Err(("placement", "at most 2^22 slots".into())),
            _ => Ok(()),
        }
    }
}
