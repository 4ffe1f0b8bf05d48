//! Adversarial subjects: each fault must end in the verdict it deserves, and where it has a decoy, under its name.
#![allow(clippy::unwrap_used, missing_docs)]

use ndarray::{Array3, Array4, Axis, Slice};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tilewright_attention::{
    AttentionBackward, AttentionError, AttentionForward, AttentionSpec, BlockMask, CausalAlign, Contract, Gradients,
    Inputs, Outputs, Saved, Window,
};
use tilewright_conformance::attention::case::Case;
use tilewright_conformance::attention::decoy;
use tilewright_conformance::attention::in_process::InProcess;
use tilewright_conformance::attention::judge::Kind;
use tilewright_conformance::attention::suite::{self, FORMATS, Suite};
use tilewright_conformance::attention::trial::{Outcome, Prepared, Verdict, examine};
use tilewright_conformance::attention::{Feature, Profile, Request, Subject};
use tilewright_conformance::{SubjectError, Tensor, Tensors};
use tilewright_cpu::CpuAttention;
use tilewright_mutants::attention::{Fault, mutants};
use tilewright_scalar::{Element, Format};

/// What a [`Rogue`] does instead of its work, or to it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crime {
    None,
    Constant,
    Zeros,
    ReturnsEarly,
    NanEverywhere,
    FirstTileOnly,
    LastBitsByCall,
    Fails,
    Panics,
    Refuses,
    Scale(f64),
    LseBaseTwo,
    LseNegated,
    OtherCorner,
    LastKeyDropped,
    QueryGradientUnscaled,
    KeyGradientUnscaled,
    RowSumOmitted,
    RowSumAdded,
    WritesBeyond,
    ChangesKeys,
    ChangesIncoming,
}

/// The CPU backend with a crime committed on the way in or out.
struct Rogue {
    crime: Crime,
    calls: AtomicUsize,
}

impl Rogue {
    fn problem(&self, spec: &AttentionSpec) -> AttentionSpec {
        let mut spec = spec.clone();
        match self.crime {
            Crime::Scale(factor) => spec.scale *= factor,
            Crime::OtherCorner => {
                spec.align = match spec.align {
                    CausalAlign::TopLeft => CausalAlign::BottomRight,
                    CausalAlign::BottomRight => CausalAlign::TopLeft,
                }
            }
            Crime::LastKeyDropped => without_last_key(&mut spec),
            _ => {}
        }
        spec
    }

    fn misbehave(&self) -> Result<(), AttentionError> {
        match self.crime {
            Crime::Fails => Err(AttentionError::Presence { tensor: "scratch", problem: "out of memory" }),
            Crime::Refuses => Err(AttentionError::Unsupported { what: "Tuesdays" }),
            Crime::Panics => panic!("index out of bounds\non line two"),
            _ => Ok(()),
        }
    }
}

/// Hides from every row the last key that it sees.
fn without_last_key(spec: &mut AttentionSpec) {
    let shape = (spec.batch, spec.q_heads, spec.max_q_len(), spec.max_kv_len());
    let original = spec.clone();
    let sees = |b, h, i, j| i < original.q_len(b) && original.visible(b, h, i, j);
    let blocks = Array4::from_shape_fn(shape, |(b, h, i, j)| {
        sees(b, h, i, j) && (j + 1..original.kv_len(b)).any(|later| sees(b, h, i, later))
    });
    (spec.causal, spec.window) = (false, Window::default());
    spec.block_mask = Some(BlockMask { block_q: 1, block_k: 1, blocks });
}

/// Writes into memory that safe Rust only lets us read, as a kernel in another language could: through the system.
#[cfg(target_os = "linux")]
fn scribble<T>(address: *const T, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
    memory.write_all_at(bytes, address.addr() as u64).unwrap();
}

#[cfg(not(target_os = "linux"))]
fn scribble<T>(_: *const T, _: &[u8]) {}

impl<T: Element> AttentionForward<T> for Rogue
where
    CpuAttention: AttentionForward<T>,
{
    fn forward(&self, spec: &AttentionSpec, inputs: &Inputs<'_, T>, out: Outputs<'_, T>) -> Result<(), AttentionError> {
        self.misbehave()?;
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let Outputs { o: mut to_o, lse: mut to_lse } = out;
        let (mut o, mut lse) = (Array4::from_elem(spec.o_shape(), T::from_f64(0.0)), Array3::zeros(spec.lse_shape()));
        let inner = Outputs { o: o.view_mut(), lse: lse.view_mut() };
        CpuAttention::default().forward(&self.problem(spec), inputs, inner)?;
        let accum = <T::Accum as Element>::from_f64;
        match self.crime {
            Crime::Constant => o.fill(T::from_f64(0.5)),
            Crime::Zeros => {
                o.fill(T::from_f64(0.0));
                lse.fill(accum(0.0));
            }
            Crime::NanEverywhere => {
                o.fill(T::from_f64(f64::NAN));
                lse.fill(accum(f64::NAN));
            }
            Crime::ReturnsEarly => return Ok(()),
            Crime::FirstTileOnly => {
                let tile = Slice::from(..spec.o_shape()[2].min(16));
                to_o.slice_axis_mut(Axis(2), tile).assign(&o.slice_axis(Axis(2), tile));
                to_lse.assign(&lse);
                return Ok(());
            }
            Crime::LastBitsByCall => {
                let step = 1.0 + (call % 3) as f64 * 2.0 * T::FORMAT.unit_roundoff();
                o.mapv_inplace(|x| T::from_f64(x.to_f64() * step));
            }
            Crime::LseBaseTwo => lse.mapv_inplace(|x| accum(Element::to_f64(x) * std::f64::consts::LOG2_E)),
            Crime::LseNegated => lse.mapv_inplace(|x| accum(-Element::to_f64(x))),
            Crime::WritesBeyond => scribble(to_o.as_ptr().wrapping_add(to_o.len()), &[7]),
            Crime::ChangesKeys => scribble(inputs.k.as_ptr(), &[7]),
            _ => {}
        }
        to_o.assign(&o);
        to_lse.assign(&lse);
        Ok(())
    }
}

impl<T: Element> AttentionBackward<T> for Rogue
where
    CpuAttention: AttentionForward<T> + AttentionBackward<T>,
{
    fn backward(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        saved: &Saved<'_, T>,
        gradients: Gradients<'_, T>,
    ) -> Result<(), AttentionError> {
        let accum = <T::Accum as Element>::from_f64;
        let Gradients { mut d_q, mut d_k, mut d_v, d_bias, d_sink } = gradients;
        // A gradient of D into LSE cancels D; one of 2 D turns its sign.
        let times = match self.crime {
            Crime::RowSumOmitted => 1.0,
            Crime::RowSumAdded => 2.0,
            _ => 0.0,
        };
        let d_lse = Array3::from_shape_fn(spec.lse_shape(), |(b, h, i)| {
            let at = |x: usize| [b, h, i, x];
            let d: f64 = (0..spec.value_dim).map(|x| saved.d_o[at(x)].to_f64() * saved.o[at(x)].to_f64()).sum();
            let given = saved.d_lse.map_or(0.0, |d_lse| Element::to_f64(d_lse[[b, h, i]]));
            accum(given + if times == 0.0 { 0.0 } else { times * d })
        });
        // A wrong LSE is for the caller; the gradients are those of a right one.
        let mut lse = saved.lse.to_owned();
        match self.crime {
            Crime::LseBaseTwo => lse.mapv_inplace(|x| accum(Element::to_f64(x) / std::f64::consts::LOG2_E)),
            Crime::LseNegated => lse.mapv_inplace(|x| accum(-Element::to_f64(x))),
            _ => {}
        }
        if matches!(self.crime, Crime::ReturnsEarly) {
            return Ok(());
        }
        let saved = Saved { lse: lse.view(), d_lse: Some(d_lse.view()), ..*saved };
        let inner = Gradients { d_q: d_q.view_mut(), d_k: d_k.view_mut(), d_v: d_v.view_mut(), d_bias, d_sink };
        CpuAttention::default().backward(&self.problem(spec), inputs, &saved, inner)?;
        let unscaled = |x: &mut T| *x = T::from_f64(x.to_f64() / spec.scale);
        match self.crime {
            Crime::QueryGradientUnscaled => d_q.iter_mut().for_each(unscaled),
            Crime::KeyGradientUnscaled => d_k.iter_mut().for_each(unscaled),
            Crime::ChangesIncoming => scribble(saved.d_o.as_ptr(), &[7]),
            Crime::Zeros => {
                for gradient in [d_q, d_k, d_v] {
                    gradient.into_iter().for_each(|x| *x = T::from_f64(0.0));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn contract(format: Format) -> Contract {
    CpuAttention::default().contract(format)
}

fn profile() -> Profile {
    let mut profile = Profile::new("rogue", "1", &FORMATS);
    profile.contracts = FORMATS.iter().map(|format| contract(*format)).collect();
    profile
}

fn rogue(crime: Crime) -> InProcess<Rogue> {
    InProcess::new(Rogue { crime, calls: AtomicUsize::new(0) }, profile())
}

fn prepared(id: &str) -> Prepared {
    let case: Case = id.parse().unwrap();
    Prepared::new(&case, &contract(case.format), true).unwrap()
}

fn hint(prepared: &Prepared, outcome: &Outcome) -> Option<&'static str> {
    let answer = outcome.answer.as_ref()?;
    decoy::nearest(&prepared.problem, &prepared.truth, answer, true).map(|(name, _)| name)
}

/// In every format: the verdict, the gravest kind of violation and what is said of it.
fn convicted(crime: Crime, rest: &str, verdict: Verdict, kind: Kind) -> Vec<String> {
    let mut details = Vec::new();
    for format in FORMATS {
        let id = format!("attention/{}/{rest}", format.name);
        let outcome = examine(&mut rogue(crime), &prepared(&id));
        let first = outcome.judgement.violations.first();
        let found = (outcome.verdict, first.map(|violation| violation.kind));
        assert_eq!(
            found,
            (verdict, Some(kind)),
            "{crime:?} {id}: {}",
            first.map(ToString::to_string).unwrap_or_default()
        );
        details.push(first.unwrap().to_string());
    }
    details
}

const PLAIN: &str = "b1h2k2/n21s70d16v16/plain/normal/1";
const CAUSAL: &str = "b1h2k2/n37s53d16v16/causal/normal/1";

#[test]
fn the_backend_itself_conforms() {
    for format in FORMATS {
        for rest in [PLAIN, CAUSAL, "b3h4k2/n9s20d8v6/packed+bias=b1qk+sink+dlse/peaky/3"] {
            let prepared = prepared(&format!("attention/{}/{rest}", format.name));
            let outcome = examine(&mut rogue(Crime::None), &prepared);
            assert_eq!(outcome.verdict, Verdict::Conforms, "{rest}: {:?}", outcome.judgement.violations);
            assert_eq!(hint(&prepared, &outcome), None, "{rest}: a right answer resembles no wrong one");
        }
    }
}

#[test]
fn answers_that_are_no_work_are_convicted() {
    convicted(Crime::Constant, PLAIN, Verdict::Violates, Kind::Bound);
    convicted(Crime::Zeros, PLAIN, Verdict::Violates, Kind::Bound);
    convicted(Crime::ReturnsEarly, PLAIN, Verdict::Violates, Kind::SpecialValue);
    convicted(Crime::NanEverywhere, PLAIN, Verdict::Violates, Kind::SpecialValue);
    for violation in convicted(Crime::FirstTileOnly, PLAIN, Verdict::Violates, Kind::SpecialValue) {
        assert!(violation.starts_with("special-value(o) at [0, 0, 16, 0]"), "{violation}");
    }
    convicted(Crime::LastBitsByCall, CAUSAL, Verdict::Violates, Kind::Nondeterministic);
}

#[test]
fn answers_that_are_none_are_convicted_for_what_they_are() {
    for violation in convicted(Crime::Panics, PLAIN, Verdict::Crashed, Kind::Crashed) {
        assert_eq!(violation, "crashed(run); index out of bounds");
    }
    for violation in convicted(Crime::Fails, PLAIN, Verdict::Violates, Kind::Failed) {
        assert_eq!(violation, "failed(run); tensor scratch: out of memory");
    }
    let outcome = examine(&mut rogue(Crime::Refuses), &prepared(&format!("attention/f32/{PLAIN}")));
    assert_eq!(outcome.verdict, Verdict::Unsupported);
    assert_eq!(outcome.reason.as_deref(), Some("refuses what it declares: Tuesdays"));
    assert!(outcome.judgement.violations.is_empty());
}

/// Memory that is not the kernel's own: beyond its outputs, and its inputs.
#[test]
#[cfg(target_os = "linux")]
fn trespass_is_noticed() {
    for violation in convicted(Crime::WritesBeyond, PLAIN, Verdict::Violates, Kind::Misbehaved) {
        assert_eq!(violation, "misbehaved(run); wrote outside of o");
    }
    for rest in [PLAIN, "b1h2k2/n9s20d8v8/gapped/normal/1", "b1h2k2/n9s20d8v8/heads-inner/normal/1"] {
        for crime in [Crime::ChangesKeys, Crime::ChangesIncoming] {
            for violation in convicted(crime, rest, Verdict::Violates, Kind::Misbehaved) {
                assert_eq!(violation, "misbehaved(run); changed its inputs");
            }
        }
    }
}

#[test]
fn bits_may_differ_where_the_profile_says_so() {
    let mut profile = profile();
    profile.deterministic = false;
    let backend = Rogue { crime: Crime::LastBitsByCall, calls: AtomicUsize::new(0) };
    let mut subject = InProcess::new(backend, profile);
    let outcome = examine(&mut subject, &prepared(&format!("attention/f32/{PLAIN}")));
    assert_eq!(outcome.verdict, Verdict::Conforms, "{:?}", outcome.judgement.violations);
}

/// A subject that tampers with the tensors of a right answer, or with the order of its answers.
struct Tampering<F> {
    inner: InProcess<Rogue>,
    profile: Profile,
    tamper: F,
}

impl<F: FnMut(&Request<'_>, Tensors) -> Tensors> Subject for Tampering<F> {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn run(&mut self, request: &Request<'_>) -> Result<Tensors, SubjectError> {
        let answer = self.inner.run(request)?;
        Ok((self.tamper)(request, answer))
    }
}

fn tampering(tamper: impl FnMut(&Request<'_>, Tensors) -> Tensors) -> impl Subject {
    Tampering { inner: rogue(Crime::None), profile: profile(), tamper }
}

#[test]
fn the_previous_answer_is_no_answer() {
    for format in FORMATS {
        let mut previous: Option<Tensors> = None;
        let mut stale = tampering(move |_, answer| previous.replace(answer.clone()).unwrap_or(answer));
        let case = |rest: &str| prepared(&format!("attention/{}/{rest}", format.name));
        // The first answer cannot be stale; a second case of the same shapes, and one of others, both give it away.
        let _ = examine(&mut stale, &case("b1h2k2/n21s30d8v8/causal/normal/1"));
        let outcome = examine(&mut stale, &case("b1h2k2/n21s30d8v8/causal/normal/2"));
        assert_eq!((outcome.verdict, outcome.judgement.violations[0].kind), (Verdict::Violates, Kind::Bound));
        let outcome = examine(&mut stale, &case("b1h2k2/n20s30d8v8/causal/normal/1"));
        assert_eq!((outcome.verdict, outcome.judgement.violations[0].kind), (Verdict::Violates, Kind::Shape));
    }
    // One that recognises a problem by its shapes alone is caught by the first law that varies the values.
    let mut cache: BTreeMap<Vec<usize>, Tensors> = BTreeMap::new();
    let mut caching =
        tampering(move |request, answer| cache.entry(request.inputs["k"].shape().to_vec()).or_insert(answer).clone());
    let outcome = examine(&mut caching, &prepared(&format!("attention/f32/{PLAIN}")));
    assert_eq!((outcome.verdict, outcome.judgement.violations[0].kind), (Verdict::Violates, Kind::Law));
}

#[test]
fn shapes_and_formats_must_be_those_asked_for() {
    let prepared = prepared(&format!("attention/f32/{PLAIN}"));
    let judged = |tamper: fn(Tensor) -> Tensor| {
        let mut subject = tampering(move |_, mut answer| {
            let o = answer.remove("o").unwrap();
            answer.insert("o".into(), tamper(o));
            answer
        });
        examine(&mut subject, &prepared)
    };
    let flat = judged(|o| Tensor::from_f64(o.format(), &[o.len()], &o.to_f64()).unwrap());
    assert_eq!((flat.verdict, flat.judgement.violations[0].kind), (Verdict::Violates, Kind::Shape));
    let transposed = judged(|o| {
        let [b, h, n, d] = o.shape().try_into().unwrap();
        Tensor::from_f64(o.format(), &[b, h, d, n], &o.to_f64()).unwrap()
    });
    assert_eq!(transposed.judgement.violations[0].kind, Kind::Shape);
    let wide = judged(|o| Tensor::from_f64(Format::F64, o.shape(), &o.to_f64()).unwrap());
    let violation = &wide.judgement.violations[0];
    assert_eq!(violation.kind, Kind::Shape);
    assert_eq!(violation.detail, "got f64 [1, 2, 21, 16], expected f32 [1, 2, 21, 16]");
    let empty = judged(|o| Tensor::from_f64(o.format(), &[0], &[]).unwrap());
    assert_eq!(empty.judgement.violations[0].kind, Kind::Shape);
}

/// Tensors nobody asked for, such as gradients where a law wants the forward pass alone, are nobody's business.
#[test]
fn extra_tensors_are_ignored() {
    for format in FORMATS {
        let prepared = prepared(&format!("attention/{}/{PLAIN}", format.name));
        let mut all: Option<Tensors> = None;
        let mut generous = tampering(move |request, mut answer| {
            answer.insert("s".into(), Tensor::from_f64(Format::F16, &[1], &[f64::NAN]).unwrap());
            if request.want.len() > 2 {
                all.get_or_insert_with(|| answer.clone());
            }
            for (name, tensor) in all.iter().flatten() {
                answer.entry(name.clone()).or_insert_with(|| tensor.clone());
            }
            answer
        });
        let outcome = examine(&mut generous, &prepared);
        assert_eq!(outcome.verdict, Verdict::Conforms, "{:?}", outcome.judgement.violations);
    }
}

#[test]
fn a_subject_is_asked_only_what_it_declares() {
    let lacking = |feature: Feature, id: &str| {
        let mut profile = profile();
        profile.supports.remove(&feature);
        let asked = Mutex::new(0);
        let tamper = |_: &Request<'_>, answer| {
            *asked.lock().unwrap() += 1;
            answer
        };
        let outcome = examine(&mut Tampering { inner: rogue(Crime::None), profile, tamper }, &prepared(id));
        (outcome.verdict, outcome.reason, asked.into_inner().unwrap())
    };
    let declined = |what: &str| (Verdict::Unsupported, Some(format!("does not declare {what}")), 0);
    let rows = "attention/f32/b1h1k1/n20s9d8v8/causal/normal/1";
    assert_eq!(lacking(Feature::CausalBottomRight, rows), declined("causal-bottom-right"));
    // Eleven queries stand before the first key: the id does not say so, the data do.
    assert_eq!(lacking(Feature::EmptyRows, rows), declined("empty-rows"));
    assert_eq!(lacking(Feature::Sink, rows).0, Verdict::Conforms);
    assert_eq!(lacking(Feature::LseGradient, "attention/f32/b1h1k1/n2s9d8v8/dlse/normal/1"), declined("lse-gradient"));
}

#[test]
fn faults_with_a_decoy_are_called_by_their_name() {
    let gqa = "b1h4k2/n19s40d8v8/plain/normal/3";
    for (crime, rest, name) in [
        (Crime::LseBaseTwo, PLAIN, "LSE in base 2"),
        (Crime::LseBaseTwo, CAUSAL, "LSE in base 2"),
        (Crime::LseNegated, gqa, "LSE negated"),
        (Crime::OtherCorner, CAUSAL, "causal diagonal in the other corner"),
        (Crime::OtherCorner, "b1h2k2/n37s53d16v16/causal+top-left/normal/1", "causal diagonal in the other corner"),
        (Crime::LastKeyDropped, PLAIN, "last visible key dropped"),
        (Crime::QueryGradientUnscaled, PLAIN, "dQ not multiplied by scale"),
        (Crime::KeyGradientUnscaled, gqa, "dK not multiplied by scale"),
        (Crime::RowSumOmitted, PLAIN, "row sum D left out of dS"),
        (Crime::RowSumAdded, CAUSAL, "row sum D added to dP"),
        (Crime::Zeros, PLAIN, "all zeros"),
    ] {
        for format in FORMATS {
            let prepared = prepared(&format!("attention/{}/{rest}", format.name));
            let outcome = examine(&mut rogue(crime), &prepared);
            let found = (outcome.verdict, hint(&prepared, &outcome));
            assert_eq!(found, (Verdict::Violates, Some(name)), "{crime:?} {}", prepared.case);
        }
    }
}

/// One percent is found in every format, also where no single element of a 16-bit tensor need be beyond its bound.
#[test]
fn a_scale_one_percent_off_is_found_in_every_format() {
    for format in FORMATS {
        for rest in [PLAIN, "b1h2k2/n21s70d32v32/plain/normal/2", "b1h2k2/n30s90d16v16/causal/peaky/1"] {
            for factor in [1.01, 0.99] {
                let prepared = prepared(&format!("attention/{}/{rest}", format.name));
                let outcome = examine(&mut rogue(Crime::Scale(factor)), &prepared);
                assert_eq!(outcome.verdict, Verdict::Violates, "{} × {factor}", prepared.case);
                if factor > 1.0 {
                    assert_eq!(hint(&prepared, &outcome), Some("scale off by 1 %"), "{}", prepared.case);
                }
            }
        }
    }
}

/// Planted bugs that a decoy describes.
const BLAME: [(Fault, &str); 16] = [
    (Fault::CausalOtherCorner, "causal diagonal in the other corner"),
    (Fault::StrictDiagonal, "diagonal excluded"),
    (Fault::ScaleOnePercentOff, "scale off by 1 %"),
    (Fault::ScaleTwice, "scale applied twice"),
    (Fault::TailKeyDropped, "last visible key dropped"),
    (Fault::LseBaseTwo, "LSE in base 2"),
    (Fault::LseSign, "LSE negated"),
    (Fault::RowDotOmitted, "row sum D left out of dS"),
    (Fault::RowDotAdded, "row sum D added to dP"),
    (Fault::QueryGradientNotScaled, "dQ not multiplied by scale"),
    (Fault::KeyGradientNotScaled, "dK not multiplied by scale"),
    (Fault::WindowRightOffByOne, "window one wider on the right"),
    (Fault::BiasIgnored, "bias left out"),
    (Fault::SinkIgnored, "sink left out"),
    (Fault::AlibiSign, "ALiBi of the wrong sign"),
    (Fault::LseGradientIgnored, "gradient into LSE ignored"),
];

/// Convictions asked for, a fault and format.
const CONVICTIONS: usize = 6;

#[test]
fn hints_name_the_planted_bug() {
    let (mut right, mut all) = (0, 0);
    for format in [Format::F32, Format::BF16] {
        let cases: Vec<Case> = suite::cases(Suite::Quick, 0).into_iter().filter(|case| case.format == format).collect();
        let mut tally: Vec<BTreeMap<&str, usize>> = vec![BTreeMap::new(); BLAME.len()];
        for case in cases.iter().step_by(3) {
            let Ok(prepared) = Prepared::new(case, &Contract::strict(format), true) else { continue };
            for ((fault, _), tally) in BLAME.iter().zip(&mut tally) {
                if tally.values().sum::<usize>() >= CONVICTIONS {
                    continue;
                }
                let mutant = mutants().iter().find(|mutant| mutant.fault == *fault).unwrap();
                let mut subject = InProcess::new(mutant.kernel(), Profile::new("mutant", "", &FORMATS));
                let outcome = examine(&mut subject, &prepared);
                if outcome.verdict == Verdict::Violates {
                    *tally.entry(hint(&prepared, &outcome).unwrap_or("nothing")).or_default() += 1;
                }
            }
        }
        for ((fault, name), tally) in BLAME.iter().zip(&tally) {
            let (named, convictions) = (tally.get(name).copied().unwrap_or(0), tally.values().sum::<usize>());
            println!("{:4} {fault:?}: {named} of {convictions} {tally:?}", format.name);
            assert!(convictions > 0, "{fault:?} was never convicted in {}", format.name);
            right += named;
            all += convictions;
        }
    }
    println!("blame accuracy: {right} of {all} hints name the planted bug, {:.1} %", 100.0 * right as f64 / all as f64);
    assert!(right * 100 >= all * 80, "{right} of {all}");
}
