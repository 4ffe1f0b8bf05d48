//! From an id to its case.

use crate::grouplasso::case::{
    Case, Design, Flaw, Grouping, Lambda, ProxCase, RefuseCase, Sampling, SelectCase, SolveCase, Structure, Task,
    Values, Weighting, loss_name,
};
use std::fmt;
use std::str::FromStr;
use tilewright_grouplasso::{Keep, Loss, Penalty};
use tilewright_scalar::Format;

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
const LARGEST: usize = 1 << 14;
const LARGEST_TOTAL: usize = 1 << 20;
const MOST_POINTS: usize = 32;
const DOCUMENTED: &str = "one that the documentation lists";

fn error(part: &'static str, got: &str, expected: &str) -> CaseError {
    CaseError { part, got: got.into(), expected: expected.into() }
}

fn documented(part: &'static str, got: &str) -> CaseError {
    error(part, got, DOCUMENTED)
}

impl FromStr for Case {
    type Err = CaseError;

    fn from_str(id: &str) -> Result<Self, CaseError> {
        let parts: Vec<&str> = id.trim().split('/').collect();
        match parts[..] {
            ["grouplasso", "prox", format, sizes, grouping, penalty, lambda, step, values, seed] => {
                prox(format, sizes, [grouping, penalty], lambda, step, values, seed).map(Self::Prox)
            }
            ["grouplasso", "select", format, sizes, keep, values, seed] => {
                select(format, sizes, keep, values, seed).map(Self::Select)
            }
            ["grouplasso", "solve", format, sizes, loss, grouping, penalty, lambda, options, task, design, seed] => {
                let structure = [grouping, penalty];
                solve([format, sizes, loss], structure, [lambda, options, task, design, seed]).map(Self::Solve)
            }
            ["grouplasso", "refuse", format, flaw, seed] => {
                let known = Flaw::all().find(|known| known.name() == flaw);
                let flaw = known.ok_or_else(|| documented("flaw", flaw))?;
                let (format, seed) = (parse_format(format)?, parse_seed(seed)?);
                let case = RefuseCase { format, flaw, seed };
                if flaw == Flaw::TooLargeInX && matches!(format, Format::F32 | Format::F16 | Format::BF16) {
                    return Err(error("format", format.name, "one that has numbers that large"));
                }
                Ok(Self::Refuse(case))
            }
            _ => Err(error(
                "form",
                id,
                "grouplasso/prox/…, grouplasso/select/…, grouplasso/solve/… or grouplasso/refuse/…",
            )),
        }
    }
}

fn prox(
    format: &str,
    sizes: &str,
    structure: [&str; 2],
    lambda: &str,
    options: &str,
    values: &str,
    seed: &str,
) -> Result<ProxCase, CaseError> {
    let [features, outputs] = parse_sizes(sizes, ["r", "c"])?;
    let (step, weights) = options.split_once('+').map_or((options, None), |(step, rest)| (step, Some(rest)));
    let weighting = weights.map_or(Ok(Weighting::default()), parse_weights)?;
    let positive = |text: &str, prefix: &str| number(text, prefix).filter(|x| *x > 0.0);
    let case = ProxCase {
        format: parse_format(format)?,
        features,
        outputs,
        structure: parse_structure(structure, weighting)?,
        lambda: number(lambda, "lambda=").ok_or_else(|| error("lambda", lambda, "lambda= and a number, at least 0"))?,
        step: positive(step, "step=").ok_or_else(|| error("step", step, "step= and a positive number"))?,
        values: parse_values(values)?,
        seed: parse_seed(seed)?,
    };
    check_sizes(sizes, &[case.features, case.outputs])?;
    Ok(case)
}

fn select(format: &str, sizes: &str, keep: &str, values: &str, seed: &str) -> Result<SelectCase, CaseError> {
    let [rows, outputs] = parse_sizes(sizes, ["r", "c"])?;
    let case = SelectCase {
        format: parse_format(format)?,
        rows,
        outputs,
        keep: parse_keep(keep).ok_or_else(|| error("keep", keep, "keep@ and a share, or keep= and a count"))?,
        values: parse_values(values)?,
        seed: parse_seed(seed)?,
    };
    check_sizes(sizes, &[case.rows, case.outputs])?;
    if case.values == Values::Edge {
        return Err(documented("values", values));
    }
    Ok(case)
}

fn solve(first: [&str; 3], structure: [&str; 2], rest: [&str; 5]) -> Result<SolveCase, CaseError> {
    let ([format, sizes, loss], [lambda, options, task, design, seed]) = (first, rest);
    let [samples, features, outputs] = parse_sizes(sizes, ["n", "d", "c"])?;
    let known = [Loss::LeastSquares, Loss::Multinomial].into_iter().find(|known| loss_name(*known) == loss);
    let loss = known.ok_or_else(|| documented("loss", loss))?;
    let mut case = SolveCase { intercept: false, ..SolveCase::new(loss, samples, features, outputs) };
    case.format = parse_format(format)?;
    case.lambda = parse_lambda(lambda)
        .ok_or_else(|| error("lambda", lambda, "lambda@ and a share of the largest, or lambda= and a number"))?;
    let mut options = options.split('+');
    let gap = options.next().unwrap_or_default();
    let in_range = number(gap, "gap=").filter(|gap| (1e-30..=1.0).contains(gap));
    case.gap = in_range.ok_or_else(|| error("gap", gap, "gap= and a number from 1e-30 to 1"))?;
    let mut weighting = Weighting::default();
    for option in options {
        match option.split_once('=') {
            None if option == "intercept" => case.intercept = true,
            None if option == "centre" => case.centre = true,
            None if option == "scale" => case.scale = true,
            Some(("weights", _)) => weighting = parse_weights(option)?,
            Some(("samples", name)) => {
                let known = Sampling::ALL.into_iter().find(|known| known.name() == name);
                case.sampling = Some(known.ok_or_else(|| documented("option", option))?);
            }
            _ => return Err(documented("option", option)),
        }
    }
    case.structure = parse_structure(structure, weighting)?;
    case.task = parse_task(task).ok_or_else(|| documented("task", task))?;
    let known = Design::ALL.into_iter().find(|known| known.name() == design);
    case.design = known.ok_or_else(|| documented("data", design))?;
    case.seed = parse_seed(seed)?;
    check_sizes(sizes, &[samples, features, outputs])?;
    if loss == Loss::Multinomial && outputs < 2 {
        return Err(error("sizes", sizes, "at least two classes"));
    }
    if case.design == Design::MissingClass && loss != Loss::Multinomial {
        return Err(error("data", design, "classes, for one to be missing"));
    }
    Ok(case)
}

fn check_sizes(text: &str, sizes: &[usize]) -> Result<(), CaseError> {
    let total = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    match total {
        Some(1..=LARGEST_TOTAL) => Ok(()),
        _ => Err(error("sizes", text, "at least 1 of each, and a product of at most 2^20")),
    }
}

/// Numbers with these letters before them.
fn parse_sizes<const N: usize>(text: &str, letters: [&str; N]) -> Result<[usize; N], CaseError> {
    let wrong = || error("sizes", text, &format!("{} each with a number up to {LARGEST}", letters.join(", ")));
    let (mut sizes, mut rest) = ([0; N], text);
    for (n, letter) in letters.into_iter().enumerate() {
        let tail = rest.strip_prefix(letter).ok_or_else(wrong)?;
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        sizes[n] = tail[..end].parse().ok().filter(|size| *size <= LARGEST).ok_or_else(wrong)?;
        rest = &tail[end..];
    }
    if rest.is_empty() { Ok(sizes) } else { Err(wrong()) }
}

fn parse_format(text: &str) -> Result<Format, CaseError> {
    let known = [Format::F64, Format::F32, Format::F16, Format::BF16].into_iter().find(|known| known.name == text);
    known.ok_or_else(|| error("format", text, "f64, f32, f16 or bf16"))
}

fn parse_seed(text: &str) -> Result<u32, CaseError> {
    u32::from_str_radix(text, 16).map_err(|_| error("seed", text, "up to eight hexadecimal digits"))
}

fn parse_values(text: &str) -> Result<Values, CaseError> {
    Values::ALL.into_iter().find(|known| known.name() == text).ok_or_else(|| documented("values", text))
}

fn parse_weights(option: &str) -> Result<Weighting, CaseError> {
    let known = Weighting::ALL.into_iter().find(|known| option.strip_prefix("weights=") == Some(known.name()));
    known.filter(|known| *known != Weighting::default()).ok_or_else(|| documented("option", option))
}

/// A finite number, at least 0, after a prefix.
fn number(text: &str, prefix: &str) -> Option<f64> {
    let number: f64 = text.strip_prefix(prefix)?.parse().ok()?;
    (number.is_finite() && number.is_sign_positive()).then_some(number)
}

fn parse_lambda(text: &str) -> Option<Lambda> {
    match text.strip_prefix("lambda@") {
        Some(_) => number(text, "lambda@").map(Lambda::Share),
        None => number(text, "lambda=").map(Lambda::Exactly),
    }
}

fn parse_keep(text: &str) -> Option<Keep> {
    let keep = match text.strip_prefix("keep@") {
        Some(share) => Keep::Fraction(share.parse().ok()?),
        None => Keep::Features(text.strip_prefix("keep=")?.parse().ok()?),
    };
    keep.validate().ok().map(|()| keep)
}

fn parse_task(text: &str) -> Option<Task> {
    let (name, number) = match text.split_once('=') {
        Some((name, number)) => (name, Some(number.parse::<usize>().ok().filter(|n| *n <= MOST_POINTS)?)),
        None => (text, None),
    };
    match (name, number) {
        ("once", None) => Some(Task::Once),
        ("warm", None) => Some(Task::Warm),
        ("path", Some(points @ 1..)) => Some(Task::Path(points)),
        ("interrupt", Some(after @ 1..)) => Some(Task::Interrupt(after)),
        ("far", None) => Some(Task::Far),
        ("limit", Some(iterations)) => Some(Task::Limit(iterations)),
        ("cut", Some(after @ 1..)) => Some(Task::Cut(after)),
        _ => None,
    }
}

fn parse_structure([grouping, penalty]: [&str; 2], weighting: Weighting) -> Result<Structure, CaseError> {
    let grouping = parse_grouping(grouping).ok_or_else(|| documented("groups", grouping))?;
    let penalty = parse_penalty(penalty).ok_or_else(|| documented("penalty", penalty))?;
    Ok(Structure { grouping, weighting, penalty })
}

fn parse_grouping(text: &str) -> Option<Grouping> {
    let count = |prefix: &str, least: usize| {
        text.strip_prefix(prefix).and_then(|n| n.parse().ok()).filter(|n| (least..=LARGEST).contains(n))
    };
    match text {
        "rows" => Some(Grouping::Rows),
        "one" => Some(Grouping::One),
        "ragged" => Some(Grouping::Ragged),
        _ => count("equal=", 1)
            .map(Grouping::Equal)
            .or_else(|| count("lists=", 1).map(Grouping::Lists))
            .or_else(|| count("overlap=", 2).map(Grouping::Overlap)),
    }
}

fn parse_penalty(text: &str) -> Option<Penalty> {
    let share = |prefix: &str| number(text, prefix).filter(|share| *share <= 1.0);
    match text {
        "gl" => Some(Penalty::GroupLasso),
        _ => share("sg=")
            .map(|tau| Penalty::SparseGroup { tau })
            .or_else(|| share("en=").map(|alpha| Penalty::ElasticNet { alpha })),
    }
}
