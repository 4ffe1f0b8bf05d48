//! A trial: a subject, a suite, and a verdict on every case.

use crate::attention::case::Distribution;
use crate::attention::case::{Case, Storage};
use crate::attention::decoy::{self, DECOYS};
use crate::attention::expected::{self, Expected};
use crate::attention::generate::{Problem, generate};
use crate::attention::judge::{Judgement, Kind, Tiers, incident, judge};
use crate::attention::laws;
use crate::attention::{Feature, Request, Subject};
use crate::report::UNDECLARED;
pub use crate::report::Verdict;
use crate::suite;
use crate::{SubjectError, Tensors};
use std::collections::BTreeSet;
use tilewright_attention::Contract;
use tilewright_scalar::DoubleDouble;

/// A case, ready to be put to any subject with the same contract.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The case.
    pub case: Case,
    /// Its tensors.
    pub problem: Problem,
    /// The truth and its limits.
    pub truth: Expected,
    /// What it asks of a subject.
    pub features: BTreeSet<Feature>,
    /// The decoys it rejects: what it is evidence against.
    pub evidence: Vec<Evidence>,
    /// Whether gradients are judged.
    pub backward: bool,
    /// The contract the limits were derived from.
    pub contract: Contract,
}

/// A decoy that a case rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The decoy's name.
    pub decoy: &'static str,
    /// The feature it is about.
    pub feature: Option<Feature>,
    /// The outputs that give it away; an answer without any of them is no evidence.
    pub outputs: Vec<&'static str>,
}

impl Prepared {
    /// Generates a case's data, solves it and derives its limits.
    ///
    /// # Errors
    /// A line of text if the case's options cannot go together.
    pub fn new(case: &Case, contract: &Contract, backward: bool) -> Result<Self, String> {
        let problem = generate(case)?;
        let truth = expected::expect(&problem, contract, backward)?;
        let mut features: BTreeSet<Feature> = case.features().into_iter().collect();
        if truth.get("lse").is_some_and(|lse| lse.value.iter().any(|x| x.hi() == f64::NEG_INFINITY)) {
            features.insert(Feature::EmptyRows);
        }
        let evidence = DECOYS
            .iter()
            .filter(|decoy| decoy::applies(decoy, &problem) && (backward || !decoy.backward_only()))
            .filter_map(|decoy| {
                let answer = decoy.answer(&problem, &truth, decoy.backward_only())?;
                let outputs = decoy::rejected(&truth, &answer);
                Some(Evidence { decoy: decoy.name, feature: decoy.feature, outputs }).filter(|e| !e.outputs.is_empty())
            })
            .collect();
        Ok(Self { case: case.clone(), problem, truth, features, evidence, backward, contract: *contract })
    }

    /// The same case for a subject with another contract.
    ///
    /// # Errors
    /// A line of text if the tensors do not fit the problem.
    pub fn under_contract(&self, contract: &Contract) -> Result<Self, String> {
        let truth = expected::under_contract(&self.truth, &self.problem, contract, self.backward)?;
        Ok(Self { truth, contract: *contract, ..self.clone() })
    }

    /// Whether a right answer to this case, with these outputs left out, is evidence for a feature: one of its decoys
    /// is rejected, or, for a feature without any of its own, some decoy is.
    pub fn testifies_for(&self, feature: Feature, missing: &[&'static str]) -> bool {
        let own = DECOYS.iter().any(|decoy| decoy.feature == Some(feature) && decoy::applies(decoy, &self.problem));
        self.features.contains(&feature)
            && self.evidence_without(missing).any(|evidence| !own || evidence.feature == Some(feature))
    }

    /// The decoys that are rejected even by an answer that leaves out some outputs.
    pub fn evidence_without<'a>(&'a self, missing: &'a [&'static str]) -> impl Iterator<Item = &'a Evidence> {
        self.evidence.iter().filter(|evidence| evidence.outputs.iter().any(|name| !missing.contains(name)))
    }

    /// Which optional tiers of the judge apply.
    pub fn tiers(&self) -> Tiers {
        let one_hot = self.case.distribution == Distribution::OneHot;
        // Where P is rounded apart from the denominator, a folded exponent's e^0 ≠ 1 does not cancel against it.
        let contract = &self.contract;
        let cancels =
            contract.sums_rounded_probabilities || contract.probabilities.precision >= contract.accum.precision;
        Tiers {
            statistical: self.case.distribution.general_position(),
            copies: if one_hot && cancels { self.copied_rows() } else { Vec::new() },
        }
    }

    /// The rows of `O` that are equal to a row of `V`, component by component: a coincidence in data that are not.
    fn copied_rows(&self) -> Vec<bool> {
        let (Some(o), Some(v)) = (self.truth.get("o"), self.problem.inputs.get("v")) else { return Vec::new() };
        let dim = self.problem.spec.value_dim;
        let bits = |row: &[f64]| row.iter().map(|x| x.to_bits()).collect::<Vec<u64>>();
        let values: BTreeSet<Vec<u64>> =
            v.to_f64().chunks(dim).filter(|row| row.iter().all(|x| x.is_finite())).map(bits).collect();
        let copy = |row: &[DoubleDouble]| {
            let leading: Vec<f64> = row.iter().map(|x| x.hi()).collect();
            dim > 1 && row.iter().all(|x| x.lo() == 0.0) && values.contains(&bits(&leading))
        };
        o.value.chunks(dim).map(copy).collect()
    }
}

/// How one case went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// What the judge found; its first violation is the gravest.
    pub judgement: Judgement,
    /// Outputs the subject left out.
    pub missing: Vec<&'static str>,
    /// Why it is unsupported, if it is.
    pub reason: Option<String>,
    /// The answer, for reports.
    pub answer: Option<Tensors>,
}

impl Outcome {
    fn without_answer(verdict: Verdict, kind: Option<Kind>, reason: String) -> Self {
        let violations = kind.map(|kind| incident(kind, "run", reason.clone())).into_iter().collect();
        Self {
            verdict,
            judgement: Judgement { violations, ..Judgement::default() },
            missing: Vec::new(),
            reason: Some(reason),
            answer: None,
        }
    }
}

/// Whether a subject's profile covers a case; if not, what it lacks.
pub fn lacks(subject: &dyn Subject, prepared: &Prepared) -> Option<String> {
    let profile = subject.profile();
    let format = prepared.case.format;
    if !profile.formats.contains(&format) {
        return Some(format!("format {}", format.name));
    }
    prepared.features.difference(&profile.supports).next().map(|feature| feature.name().into())
}

/// Puts one case to a subject.
pub fn examine(subject: &mut dyn Subject, prepared: &Prepared) -> Outcome {
    if let Some(what) = lacks(subject, prepared) {
        return Outcome::without_answer(Verdict::Unsupported, None, format!("{UNDECLARED} {what}"));
    }
    let id = prepared.case.to_string();
    let want = expected::outputs(&prepared.problem, prepared.backward && subject.profile().backward);
    let request = Request {
        id: &id,
        spec: &prepared.problem.spec,
        inputs: &prepared.problem.inputs,
        layout: prepared.case.layout,
        want: &want,
    };
    let answer = match subject.run(&request) {
        Ok(answer) => answer,
        Err(error) => return refusal(error),
    };
    let missing: Vec<&'static str> = want.iter().copied().filter(|name| !answer.contains_key(*name)).collect();
    let mut judgement = judge(&prepared.truth, &answer, &prepared.contract, &prepared.tiers());
    // LSE alone is no output of many a public function; whoever leaves out anything else could do so where it is wrong.
    if let Some(name) = missing.iter().find(|name| **name != "lse") {
        judgement.violations.insert(0, incident(Kind::Misbehaved, name, "left out of the answer".into()));
    }
    if judgement.violations.is_empty() {
        judgement.violations.extend(laws::check(subject, prepared, &answer));
        // Last, so that a kernel which remembers an earlier call has one to remember.
        judgement.violations.extend(repetition(subject, &request, &answer));
        // Where two runs of one problem differ, those of two problems that a law compares prove nothing more.
        judgement.violations.sort_by_key(|violation| violation.kind);
    }
    let verdict = match judgement.violations.first().map(|violation| violation.kind) {
        Some(Kind::Crashed) => Verdict::Crashed,
        Some(Kind::TimedOut) => Verdict::TimedOut,
        Some(_) => Verdict::Violates,
        None if prepared.evidence_without(&missing).next().is_none() => Verdict::Vacuous,
        None => Verdict::Conforms,
    };
    Outcome { verdict, judgement, missing, reason: None, answer: Some(answer) }
}

fn refusal(error: SubjectError) -> Outcome {
    match error {
        // The profile declares everything this case needs, so a refusal now is a broken promise, but an honest one:
        // it is counted, by name.
        SubjectError::Unsupported(why) => {
            Outcome::without_answer(Verdict::Unsupported, None, format!("refuses what it declares: {why}"))
        }
        SubjectError::Failed(why) => Outcome::without_answer(Verdict::Violates, Some(Kind::Failed), why),
        SubjectError::Misbehaved(why) => Outcome::without_answer(Verdict::Violates, Some(Kind::Misbehaved), why),
        SubjectError::Crashed(why) => Outcome::without_answer(Verdict::Crashed, Some(Kind::Crashed), why),
        SubjectError::TimedOut(why) => Outcome::without_answer(Verdict::TimedOut, Some(Kind::TimedOut), why),
    }
}

/// The same request again: the same bits if the subject says so.
fn repetition(
    subject: &mut dyn Subject,
    request: &Request<'_>,
    answer: &Tensors,
) -> Option<crate::attention::judge::Violation> {
    if !subject.profile().deterministic {
        return None;
    }
    let again = match subject.run(request) {
        Ok(again) => again,
        Err(error) => return Some(incident(Kind::Nondeterministic, "run", format!("the second run {error}"))),
    };
    let differs =
        answer.iter().find(|(name, tensor)| again.get(*name).is_none_or(|other| other.bits() != tensor.bits()));
    differs.map(|(name, _)| incident(Kind::Nondeterministic, name, "other bits in the second run".into()))
}

/// Simplifies a case step by step while `still_wrong` says that it still shows the fault: sequences and heads to one,
/// options off, simpler data, and sizes down.
pub fn shrink(case: &Case, still_wrong: impl FnMut(&Case) -> bool, budget: usize) -> Case {
    suite::shrink(case, simpler, still_wrong, budget)
}

/// Candidates one step simpler, the boldest first.
fn simpler(case: &Case) -> Vec<Case> {
    let mut list = Vec::new();
    let mut offer = |candidate: Case| {
        if candidate != *case {
            list.push(candidate);
        }
    };
    offer(Case { batch: case.batch.min(1), ..case.clone() });
    offer(Case { q_heads: 1, kv_heads: 1, ..case.clone() });
    offer(Case { q_heads: case.q_heads / case.kv_heads, kv_heads: 1, ..case.clone() });
    offer(Case { storage: Storage::Padded, ..case.clone() });
    offer(Case { layout: crate::attention::Layout::Contiguous, ..case.clone() });
    offer(Case { dropout: None, ..case.clone() });
    offer(Case { blocks: None, ..case.clone() });
    offer(Case { bias: None, ..case.clone() });
    offer(Case { sink: false, ..case.clone() });
    offer(Case { alibi: false, ..case.clone() });
    offer(Case { softcap: None, ..case.clone() });
    offer(Case { d_lse: false, ..case.clone() });
    offer(Case { window: [None, None], ..case.clone() });
    offer(Case { causal: false, ..case.clone() });
    offer(Case { align: tilewright_attention::CausalAlign::BottomRight, ..case.clone() });
    for smaller in smaller_sizes(case.kv_len) {
        offer(Case { kv_len: smaller, ..case.clone() });
    }
    for smaller in smaller_sizes(case.q_len) {
        offer(Case { q_len: smaller, ..case.clone() });
    }
    for smaller in smaller_sizes(case.head_dim) {
        offer(Case { head_dim: smaller, ..case.clone() });
    }
    for smaller in smaller_sizes(case.value_dim) {
        offer(Case { value_dim: smaller, ..case.clone() });
    }
    // Strictly simpler, or two distributions would be offered in turn for ever.
    let simple = [Distribution::OneHot, Distribution::Equal, Distribution::Normal];
    for distribution in simple.into_iter().take_while(|simple| *simple != case.distribution) {
        offer(Case { distribution, ..case.clone() });
    }
    list
}

/// 1, then half, then one less.
fn smaller_sizes(n: usize) -> Vec<usize> {
    let mut sizes = vec![1, n / 2, n.saturating_sub(1)];
    sizes.retain(|size| *size < n && *size > 0);
    sizes.dedup();
    sizes
}
