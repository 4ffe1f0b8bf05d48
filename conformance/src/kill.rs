//! The suite on trial: planted bugs it must catch, correct variants it must not. One matrix for every family.

use crate::report::{Measure, new_table};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A planted bug, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// Stable number.
    pub id: u16,
    /// Kebab-case name.
    pub name: &'static str,
    /// Where it lives.
    pub group: String,
    /// What is wrong.
    pub about: &'static str,
    /// Which inputs reveal it.
    pub trigger: &'static str,
}

/// A correct variant, described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Name.
    pub name: &'static str,
    /// What is different about it.
    pub about: &'static str,
}

/// What the suite did to one defendant.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Cases put to it.
    pub cases: usize,
    /// Cases that rejected it, by the kind of violation that came first.
    pub rejections: BTreeMap<&'static str, usize>,
    /// A case that rejected it.
    pub example: Option<String>,
    /// Elements judged.
    pub elements: u64,
    /// Largest measures among the cases that did not reject it.
    pub measures: Vec<f64>,
}

impl Record {
    /// Whether any case rejected it.
    pub fn rejected(&self) -> bool {
        !self.rejections.is_empty()
    }

    /// Adds what other cases did.
    pub fn merge(&mut self, other: Self) {
        self.cases += other.cases;
        for (kind, n) in other.rejections {
            *self.rejections.entry(kind).or_default() += n;
        }
        self.example = self.example.take().or(other.example);
        self.elements += other.elements;
        self.measures.resize(self.measures.len().max(other.measures.len()), 0.0);
        self.measures.iter_mut().zip(other.measures).for_each(|(largest, x)| *largest = largest.max(x));
    }

    fn kinds(&self) -> String {
        let kinds: Vec<String> = self.rejections.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        kinds.join(", ")
    }
}

/// The kill matrix: planted bugs × checks, correct variants × checks.
#[derive(Clone, Debug)]
pub struct KillMatrix {
    /// What is measured of variants.
    pub measures: Vec<Measure>,
    /// Each planted bug and what became of it.
    pub mutants: Vec<(Bug, Record)>,
    /// Each correct variant and what became of it.
    pub controls: Vec<(Control, Record)>,
}

/// Who is put to the cases after a bug has been caught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caught {
    /// Everyone: the matrix says how many cases reject a bug.
    #[default]
    GoOn,
    /// Everyone to a round of some two dozen cases, then those bugs that have not been caught, and the variants.
    AreSpared,
}

/// Cases of a round.
const ROUND: usize = 24;

/// Puts all bugs and variants to the cases, which run in parallel: `judge` gives one record a bug, then one a variant, and
/// an empty one for whom it is told to spare.
///
/// # Errors
/// What `judge` says.
pub fn kill_matrix<C: Sync>(
    bugs: Vec<Bug>,
    controls: Vec<Control>,
    measures: Vec<Measure>,
    cases: &[C],
    caught: Caught,
    judge: impl Fn(&C, &[bool]) -> Result<Vec<Record>, String> + Sync,
) -> Result<KillMatrix, String> {
    let blank = || vec![Record::default(); bugs.len() + controls.len()];
    let merged = |mut all: Vec<Record>, some: Vec<Record>| {
        all.iter_mut().zip(some).for_each(|(all, some)| all.merge(some));
        all
    };
    let round = if caught == Caught::GoOn { cases.len().max(1) } else { ROUND };
    let mut records = blank();
    for cases in cases.chunks(round) {
        // No variant is ever spared.
        let spared: Vec<bool> =
            records.iter().enumerate().map(|(at, record)| at < bugs.len() && record.rejected()).collect();
        let found = cases.par_iter().map(|case| judge(case, &spared));
        records = merged(records, found.try_reduce(blank, |a, b| Ok(merged(a, b)))?);
    }
    let mut records = records.into_iter();
    let mutants = bugs.into_iter().zip(records.by_ref()).collect();
    Ok(KillMatrix { measures, mutants, controls: controls.into_iter().zip(records).collect() })
}

impl KillMatrix {
    /// Mutants that some case rejected.
    pub fn killed(&self) -> usize {
        self.mutants.iter().filter(|(_, record)| record.rejected()).count()
    }

    /// Mutants that no case rejected, by number.
    pub fn survivors(&self) -> Vec<u16> {
        self.mutants.iter().filter(|(_, record)| !record.rejected()).map(|(bug, _)| bug.id).collect()
    }

    /// Correct variants that some case rejected.
    pub fn false_rejects(&self) -> usize {
        self.controls.iter().filter(|(_, record)| record.rejected()).count()
    }

    /// Elements of correct variants that were judged.
    pub fn control_elements(&self) -> u64 {
        self.controls.iter().map(|(_, record)| record.elements).sum()
    }

    /// Adds what other cases found.
    pub fn extend(&mut self, other: Self) {
        for (bug, record) in other.mutants {
            if let Some((_, known)) = self.mutants.iter_mut().find(|(known, _)| known.id == bug.id) {
                known.merge(record);
            }
        }
        for (control, record) in other.controls {
            if let Some((_, known)) = self.controls.iter_mut().find(|(known, _)| known.name == control.name) {
                known.merge(record);
            }
        }
    }

    /// The JSON report.
    pub fn to_json(&self) -> Value {
        let mutants = self.mutants.iter().map(|(bug, record)| {
            json!({
                "id": bug.id,
                "name": bug.name,
                "group": bug.group,
                "about": bug.about,
                "trigger": bug.trigger,
                "killed": record.rejected(),
                "cases": record.cases,
                "rejections": record.rejections,
                "example": record.example,
            })
        });
        let controls = self.controls.iter().map(|(control, record)| {
            let mut line = Map::new();
            line.insert("name".into(), json!(control.name));
            line.insert("about".into(), json!(control.about));
            line.insert("cases".into(), json!(record.cases));
            line.insert("elements".into(), json!(record.elements));
            line.insert("rejections".into(), json!(record.rejections));
            line.insert("example".into(), json!(record.example));
            for (n, measure) in self.measures.iter().enumerate() {
                line.insert(measure.key.into(), json!(record.measures.get(n).copied().unwrap_or(0.0)));
            }
            Value::Object(line)
        });
        json!({
            "mutants": {"total": self.mutants.len(), "killed": self.killed()},
            "controls": {
                "total": self.controls.len(),
                "rejected": self.false_rejects(),
                "elements": self.control_elements(),
            },
            "matrix": mutants.collect::<Vec<_>>(),
            "variants": controls.collect::<Vec<_>>(),
        })
    }

    /// The tables, for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut table = new_table();
        table.set_header(["id", "planted bug", "cases", "killed by", "reveals itself on"]);
        for (bug, record) in &self.mutants {
            let verdict = if record.rejected() { record.kinds() } else { "SURVIVES".into() };
            let cases = record.cases.to_string();
            table.add_row([bug.id.to_string(), bug.name.into(), cases, verdict, bug.trigger.into()]);
        }
        let _ = writeln!(text, "{table}");
        let mut table = new_table();
        let measured = self.measures.iter().map(|measure| measure.heading);
        table.set_header(["correct variant", "cases", "elements"].into_iter().chain(measured).chain(["rejected by"]));
        for (control, record) in &self.controls {
            let numbers = (0..self.measures.len()).map(|n| record.measures.get(n).copied().unwrap_or(0.0));
            let row = [control.name.to_string(), record.cases.to_string(), record.elements.to_string()];
            let verdict = if record.rejected() { record.kinds() } else { "–".into() };
            table.add_row(row.into_iter().chain(numbers.map(|x| format!("{x:.3}"))).chain([verdict]));
        }
        let _ = writeln!(text, "{table}");
        for (control, record) in self.controls.iter().filter(|(_, record)| record.rejected()) {
            let _ = writeln!(text, "FALSE REJECT {}: {}", control.name, record.example.as_deref().unwrap_or_default());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One bug that every case catches, one that none does, one that the last case does; and a variant.
    fn matrix(caught: Caught) -> KillMatrix {
        let bug = |id| Bug { id, name: "bug", group: String::new(), about: "", trigger: "" };
        let control = Control { name: "variant", about: "" };
        let cases: Vec<usize> = (0..3 * ROUND).collect();
        let last = cases.len() - 1;
        let judge = |case: &usize, spared: &[bool]| {
            let rejected = [true, false, *case == last, false];
            let record = |(rejected, spared): (bool, &bool)| {
                let rejections = if rejected && !spared { BTreeMap::from([("bound", 1)]) } else { BTreeMap::new() };
                Record { cases: usize::from(!spared), rejections, ..Record::default() }
            };
            Ok(rejected.into_iter().zip(spared).map(record).collect())
        };
        kill_matrix(vec![bug(1), bug(2), bug(3)], vec![control], Vec::new(), &cases, caught, judge)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn who_is_caught_is_spared_from_the_next_round_on() {
        let cases = |matrix: &KillMatrix| matrix.mutants.iter().map(|(_, record)| record.cases).collect::<Vec<_>>();
        let (all, once) = (matrix(Caught::GoOn), matrix(Caught::AreSpared));
        assert_eq!(cases(&all), [3 * ROUND; 3]);
        assert_eq!(cases(&once), [ROUND, 3 * ROUND, 3 * ROUND]);
        for matrix in [&all, &once] {
            assert_eq!((matrix.survivors(), matrix.killed(), matrix.false_rejects()), (vec![2], 2, 0));
            assert_eq!(matrix.controls[0].1.cases, 3 * ROUND, "a variant is never spared");
        }
    }
}
