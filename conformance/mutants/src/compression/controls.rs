//! The correct kernels: what a fair judge must not convict.

use crate::compression::{Compaction, Decoding, Forgetting, Kernel, Race, StoredNan, Table, Top, Variant, Visit};

/// A correct kernel, different from its peers in how it works, not in what comes out.
///
/// ```
/// let names: Vec<_> = tilewright_mutants::compression::variants().iter().map(|variant| variant.name).collect();
/// assert!(names.contains(&"table-of-tables"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrectVariant {
    /// Kebab-case name.
    pub name: &'static str,
    /// What it does differently.
    pub about: &'static str,
    /// How it works.
    pub variant: Variant,
}

impl CorrectVariant {
    /// The kernel.
    pub fn kernel(&self) -> Kernel {
        Kernel::correct(self.variant)
    }

    /// Whether the same input gives the same bits again.
    pub fn deterministic(&self) -> bool {
        self.variant.deterministic()
    }
}

/// Every correct kernel.
pub fn variants() -> Vec<CorrectVariant> {
    let mut list = vec![control("base", "quickselect, a table of keys, sequential loops", Variant::BASE)];
    list.extend(visits());
    list.extend(selections());
    list.extend(compactions());
    list.extend(tables());
    list.extend(memories());
    list.extend(decoders());
    list.extend(lookalikes());
    list
}

fn control(name: &'static str, about: &'static str, variant: Variant) -> CorrectVariant {
    CorrectVariant { name, about, variant }
}

fn visits() -> Vec<CorrectVariant> {
    let visit = |visit| Variant { visit, ..Variant::BASE };
    vec![
        control("descending", "everything from the last place to the first", visit(Visit::Descending)),
        control("strided-32", "every thirty-second place, then the next ones", visit(Visit::Strided(32))),
        control("strided-7", "a stride that divides nothing", visit(Visit::Strided(7))),
        control("blocks-61", "blocks of 61, the last one first", visit(Visit::Blocks(61))),
        control("shuffled", "a random order of visits", visit(Visit::Shuffled)),
    ]
}

fn selections() -> Vec<CorrectVariant> {
    let top = |top| Variant { top, ..Variant::BASE };
    vec![
        control("full-sort", "top-k by sorting everything", top(Top::Sort)),
        control("heap", "top-k by a heap of k", top(Top::Heap)),
        control("radix", "top-k by histograms of digits", top(Top::Radix)),
        control("bisection", "top-k by bisection over keys", top(Top::Bisection)),
    ]
}

fn compactions() -> Vec<CorrectVariant> {
    let compaction = |compaction| Variant { compaction, ..Variant::BASE };
    vec![
        control("two-pass-64", "count blocks of 64, prefix sum, write", compaction(Compaction::TwoPass(64))),
        control("two-pass-37", "blocks that no length is a multiple of", compaction(Compaction::TwoPass(37))),
        control("marked", "candidates marked, then read off", compaction(Compaction::Marked)),
        control("filtered", "everything that is not zero collected, then filtered", compaction(Compaction::Filtered)),
    ]
}

fn tables() -> Vec<CorrectVariant> {
    let table = |table| Variant { table, ..Variant::BASE };
    let race = |race| Variant { race, ..Variant::BASE };
    vec![
        control("table-sorted", "entries sorted by slot", table(Table::Sorted)),
        control("table-tree", "a search tree by slot", table(Table::Tree)),
        control("table-of-tables", "a table for each 5 candidates, merged in order", table(Table::Merged(5))),
        control("table-halves", "eight interleaved tables, merged by halves", table(Table::Halves(8))),
        control("first-wins", "the first one stays where anyone may", race(Race::First)),
        control("largest-wins", "the greatest stays although anyone may", race(Race::Largest)),
        control("coin-wins", "a coin decides where anyone may", race(Race::Random)),
    ]
}

fn memories() -> Vec<CorrectVariant> {
    vec![
        control(
            "memory-copied",
            "entries are cleared in a copy of the memory",
            Variant { forgetting: Forgetting::Copied, ..Variant::BASE },
        ),
        control("negative-nan", "the memory's NaN is negative", Variant { nan: StoredNan::Negative, ..Variant::BASE }),
        control(
            "all-ones-nan",
            "the memory's NaN has all bits set",
            Variant { nan: StoredNan::AllOnes, ..Variant::BASE },
        ),
    ]
}

fn decoders() -> Vec<CorrectVariant> {
    let decoding = |decoding| Variant { decoding, ..Variant::BASE };
    vec![
        control("owners-3", "three owners of a range of places each", decoding(Decoding::Owners(3))),
        control("owners-16", "sixteen owners, some of nothing", decoding(Decoding::Owners(16))),
        control("decode-sorted", "entries sorted by index, then by rank", decoding(Decoding::Sorted)),
        control("decode-tree", "added up in a search tree", decoding(Decoding::Tree)),
    ]
}

/// Combinations as existing kernels have them.
fn lookalikes() -> Vec<CorrectVariant> {
    let gpu = Variant {
        visit: Visit::Strided(256),
        top: Top::Radix,
        compaction: Compaction::TwoPass(128),
        table: Table::Keys,
        race: Race::Random,
        decoding: Decoding::Owners(64),
        ..Variant::BASE
    };
    let threads = Variant {
        visit: Visit::Blocks(1024),
        top: Top::Heap,
        compaction: Compaction::TwoPass(1024),
        table: Table::Merged(1024),
        forgetting: Forgetting::Copied,
        decoding: Decoding::Owners(4),
        ..Variant::BASE
    };
    vec![
        control("gpu", "as on a GPU: strided threads, radix select, racing writers, decoding by tiles", gpu),
        control("threads", "as a pool of threads: blocks, a table and a heap each, merged", threads),
    ]
}
