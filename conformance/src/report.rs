//! What a trial found, counted and printed: the same tables and the same JSON for every family.
//!
//! A report has columns (what a family's cases differ in most: storage formats, selectors) and rows (features). Both are
//! names; which ones, and what of each case goes into them, is the family's to say.

use comfy_table::{ContentArrangement, Table, presets};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Cases tried while shrinking.
pub(crate) const SHRINK_BUDGET: usize = 200;
/// How long shrinking may go on: a program that takes seconds to start, or hangs on some candidates, takes them each time.
pub(crate) const SHRINK_TIME: Duration = Duration::from_secs(20);

/// Cases prepared at a time: enough to keep every core busy, few enough for memory.
const CHUNK: usize = 32;

/// Prepares cases, some at a time and in parallel, and tries them one after the other.
pub(crate) fn in_turn<C: Sync, P: Send>(
    cases: &[C],
    prepare: impl Fn(&C) -> Result<P, String> + Sync,
    mut put: impl FnMut(&P),
) -> Result<(), String> {
    for chunk in cases.chunks(CHUNK) {
        let ready: Vec<P> = chunk.par_iter().map(&prepare).collect::<Result<_, _>>()?;
        ready.iter().for_each(&mut put);
    }
    Ok(())
}

/// What a case says of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Right, on a case that would have shown some wrong answer.
    Conforms,
    /// Wrong.
    Violates,
    /// Right, but no wrong answer was ruled out: no evidence.
    Vacuous,
    /// The subject does not do this.
    Unsupported,
    /// Its process ended or its code panicked.
    Crashed,
    /// No answer in time.
    TimedOut,
}

impl Verdict {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 6] =
        [Self::Conforms, Self::Violates, Self::Vacuous, Self::Unsupported, Self::Crashed, Self::TimedOut];

    /// The name in tables; with an underscore for the space, the key in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conforms => "conforms",
            Self::Violates => "violates",
            Self::Vacuous => "vacuous",
            Self::Unsupported => "unsupported",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed out",
        }
    }
}

/// A number of which a report keeps the largest, column by column: how near answers came to their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// The heading in tables.
    pub heading: &'static str,
    /// The key in JSON.
    pub key: &'static str,
}

/// One failed case, made small and explained.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The case as it was met.
    pub case: String,
    /// The smallest case found that still fails.
    pub shrunk: String,
    /// The gravest kind of violation.
    pub kind: &'static str,
    /// Its error over limit; infinite where errors have no size.
    pub ratio: f64,
    /// The nearest decoy, if one is near.
    pub hint: Option<&'static str>,
    /// The whole story, several lines; empty for a failure that is only counted.
    pub text: String,
}

/// What one case contributes to a report.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its column.
    pub column: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, where the verdict is [`Verdict::Unsupported`].
    pub reason: Option<String>,
    /// Features it testifies for, if it conforms.
    pub evidence: Vec<&'static str>,
    /// Outputs left out.
    pub missing: Vec<&'static str>,
    /// Elements judged.
    pub elements: u64,
    /// One number a [`Measure`] of the report.
    pub measures: Vec<f64>,
}

/// Everything a trial found about one subject.
#[derive(Clone, Debug)]
pub struct Report {
    /// The family.
    pub family: &'static str,
    /// The subject's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What the columns are.
    pub heading: &'static str,
    /// The columns.
    pub columns: Vec<&'static str>,
    /// Features the subject declares: the rows of the table of evidence.
    pub features: Vec<&'static str>,
    /// What is declared and must have evidence: features and columns.
    pub required: Vec<(&'static str, &'static str)>,
    /// What is measured.
    pub measures: Vec<Measure>,
    /// What the subject promises, for the end of the text.
    pub promise: String,
    /// Cases by column and verdict.
    pub verdicts: BTreeMap<(&'static str, Verdict), usize>,
    /// Conforming cases that are evidence for a feature, by column.
    pub evidence: BTreeMap<(&'static str, &'static str), usize>,
    /// Largest measures, by column.
    pub largest: BTreeMap<&'static str, Vec<f64>>,
    /// Why cases were unsupported, and how many.
    pub unsupported: BTreeMap<String, usize>,
    /// Outputs left out, and how often.
    pub missing: BTreeMap<&'static str, usize>,
    /// Elements judged.
    pub elements: u64,
    /// Failures; only the first of them are shrunk and explained.
    pub failures: Vec<Failure>,
    /// How the subject was named on the command line: what a reproducer line needs.
    pub invocation: String,
}

/// How a reason begins that says no more than that a profile does not declare what a case asks for.
pub const UNDECLARED: &str = "does not declare";

/// Failures that are shrunk and explained; the others are counted.
const EXPLAINED: usize = 8;

impl Report {
    /// An empty report, for a family and its columns.
    pub fn new(family: &'static str, name: &str, version: &str) -> Self {
        Self {
            family,
            name: name.into(),
            version: version.into(),
            heading: "",
            columns: Vec::new(),
            features: Vec::new(),
            required: Vec::new(),
            measures: Vec::new(),
            promise: String::new(),
            verdicts: BTreeMap::new(),
            evidence: BTreeMap::new(),
            largest: BTreeMap::new(),
            unsupported: BTreeMap::new(),
            missing: BTreeMap::new(),
            elements: 0,
            failures: Vec::new(),
            invocation: String::new(),
        }
    }

    /// Counts one case.
    pub fn count_in(&mut self, entry: &Entry) {
        *self.verdicts.entry((entry.column, entry.verdict)).or_default() += 1;
        self.elements += entry.elements;
        for name in &entry.missing {
            *self.missing.entry(name).or_default() += 1;
        }
        let largest = self.largest.entry(entry.column).or_insert_with(|| vec![0.0; entry.measures.len()]);
        largest.iter_mut().zip(&entry.measures).for_each(|(largest, x)| *largest = largest.max(*x));
        match entry.verdict {
            Verdict::Conforms => {
                for feature in &entry.evidence {
                    *self.evidence.entry((feature, entry.column)).or_default() += 1;
                }
            }
            Verdict::Unsupported => {
                *self.unsupported.entry(entry.reason.clone().unwrap_or_default()).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Counts in what another trial of the same subject found.
    pub fn absorb(&mut self, other: Self) {
        other.verdicts.into_iter().for_each(|(key, n)| *self.verdicts.entry(key).or_default() += n);
        other.evidence.into_iter().for_each(|(key, n)| *self.evidence.entry(key).or_default() += n);
        other.unsupported.into_iter().for_each(|(key, n)| *self.unsupported.entry(key).or_default() += n);
        other.missing.into_iter().for_each(|(key, n)| *self.missing.entry(key).or_default() += n);
        for (column, numbers) in other.largest {
            let largest = self.largest.entry(column).or_insert_with(|| vec![0.0; numbers.len()]);
            largest.iter_mut().zip(numbers).for_each(|(largest, x)| *largest = largest.max(x));
        }
        self.elements += other.elements;
        self.failures.extend(other.failures);
    }

    /// Whether the next failure is worth shrinking and explaining.
    pub fn explains_more(&self) -> bool {
        self.failures.len() < EXPLAINED
    }

    /// How many cases got a verdict, over all columns.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.verdicts.iter().filter(|((_, v), _)| *v == verdict).map(|(_, n)| n).sum()
    }

    /// Declared features that no conforming case testifies for, with their columns.
    pub fn without_evidence(&self) -> Vec<(&'static str, &'static str)> {
        self.required.iter().copied().filter(|key| !self.evidence.contains_key(key)).collect()
    }

    /// Whether the subject refused something its profile declares.
    pub fn broken_word(&self) -> bool {
        self.unsupported.keys().any(|why| !why.starts_with(UNDECLARED))
    }

    /// Whether nothing is wrong. A suite may be too short to give evidence for everything; that is the caller's to say.
    pub fn passes(&self) -> bool {
        [Verdict::Violates, Verdict::Crashed, Verdict::TimedOut].iter().all(|verdict| self.count(*verdict) == 0)
            && self.count(Verdict::Conforms) > 0
    }

    /// The subject's line of the JSON report.
    pub fn to_json(&self) -> Value {
        let mut line = Map::new();
        line.insert("name".into(), json!(self.name));
        line.insert("family".into(), json!(self.family));
        for verdict in Verdict::ALL {
            line.insert(verdict.name().replace(' ', "_"), json!(self.count(verdict)));
        }
        line.insert("elements".into(), json!(self.elements));
        line.insert("missing_outputs".into(), json!(self.missing));
        line.insert("unsupported_reasons".into(), json!(self.unsupported));
        Value::Object(line)
    }

    /// The violations of the JSON report.
    pub fn violations_json(&self) -> Vec<Value> {
        let ratio = |x: f64| if x.is_finite() { json!(x) } else { Value::Null };
        self.failures
            .iter()
            .map(|f| {
                json!({"case": f.case, "shrunk": f.shrunk, "kind": f.kind, "ratio": ratio(f.ratio), "hint": f.hint})
            })
            .collect()
    }

    /// The tables, for people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{} {}, {}\n", self.name, self.version, self.family);
        let _ = writeln!(text, "{}", self.verdict_table());
        let _ = writeln!(text, "{}", self.evidence_table());
        for (why, n) in &self.unsupported {
            let _ = writeln!(text, "unsupported: {n} × {why}");
        }
        for (name, n) in &self.missing {
            let _ = writeln!(text, "output {name} left out in {n} cases and not judged there");
        }
        if !self.promise.is_empty() {
            let _ = writeln!(text, "{}", self.promise);
        }
        for failure in self.failures.iter().filter(|failure| !failure.text.is_empty()) {
            let _ = write!(text, "\n{}", failure.text);
            let separator = if self.invocation.is_empty() { "" } else { " " };
            let _ = writeln!(text, "  repro    assay run{separator}{} --case '{}'", self.invocation, failure.shrunk);
        }
        let more = self.failures.iter().filter(|failure| failure.text.is_empty()).count();
        if more > 0 {
            let _ = writeln!(text, "\n… and {more} more failing cases");
        }
        text
    }

    fn verdict_table(&self) -> Table {
        let mut table = new_table();
        let heads = Verdict::ALL.map(Verdict::name);
        let measured = self.measures.iter().map(|measure| measure.heading);
        table.set_header(std::iter::once(self.heading).chain(heads).chain(measured));
        for column in &self.columns {
            let n = |verdict| self.verdicts.get(&(*column, verdict)).copied().unwrap_or(0).to_string();
            let measured = |at: usize| self.largest.get(column).and_then(|list| list.get(at)).copied().unwrap_or(0.0);
            let numbers = (0..self.measures.len()).map(|at| format!("{:.3}", measured(at)));
            table.add_row(std::iter::once((*column).to_string()).chain(Verdict::ALL.map(n)).chain(numbers));
        }
        table
    }

    fn evidence_table(&self) -> Table {
        let mut table = new_table();
        let heading = "conforming cases that would have shown a fault";
        table.set_header(std::iter::once(heading).chain(self.columns.iter().copied()));
        for feature in &self.features {
            let n = |column: &&'static str| self.evidence.get(&(*feature, *column)).copied().unwrap_or(0).to_string();
            table.add_row(std::iter::once((*feature).to_string()).chain(self.columns.iter().map(n)));
        }
        table
    }
}

/// A table that looks like all of ours.
pub fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table
}
