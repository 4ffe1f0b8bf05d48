//! Legitimate differences between correct kernels: the result is the same bits, whatever they do.

/// In which order the places of a bucket, and the candidates for a table, are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visit {
    /// First to last.
    Ascending,
    /// Last to first.
    Descending,
    /// Every so many, then the same from the next start: neighbouring threads on neighbouring places.
    Strided(usize),
    /// Blocks of this length from the last to the first, each of them ascending.
    Blocks(usize),
    /// In a random order that depends on the length alone.
    Shuffled,
}

/// How the greatest magnitudes are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Top {
    /// Quickselect among keys.
    Quickselect,
    /// All keys are sorted.
    Sort,
    /// A heap of the greatest so far.
    Heap,
    /// Histograms of digits of the keys, most significant digit first.
    Radix,
    /// Bisection over keys, counting those above.
    Bisection,
}

/// How chosen entries come into ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compaction {
    /// Collected in the order of visits, then sorted.
    Sorted,
    /// Counted by blocks of this length, then written where the prefix sum says.
    TwoPass(usize),
    /// Marked, then read off.
    Marked,
    /// Everything that is not zero collected, then filtered.
    Filtered,
}

/// How entries find their slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// An array of keys, one a slot.
    Keys,
    /// Entries are sorted by slot, and each run of equal slots is settled.
    Sorted,
    /// A search tree by slot.
    Tree,
    /// A table for each block of so many candidates, merged slot by slot.
    Merged(usize),
    /// One table for each residue class of candidates, merged by halves.
    Halves(usize),
}

/// Who stays in a collision if anyone may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Race {
    /// Who is visited last.
    Last,
    /// Who is visited first.
    First,
    /// The greatest magnitude.
    Largest,
    /// A coin decides, another one in each call.
    Random,
}

/// How an entry that was sent leaves the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forgetting {
    /// Where it is.
    InPlace,
    /// In a copy, which then becomes the memory.
    Copied,
}

/// How messages are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decoding {
    /// One message after the other.
    RankByRank,
    /// By so many owners of a range of places each, who read all messages in rank order.
    Owners(usize),
    /// All entries sorted by index, those of equal index in rank order.
    Sorted,
    /// Into a search tree by index, then into the vector.
    Tree,
}

/// Which NaN the memory holds where it holds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredNan {
    /// What the arithmetic makes of it.
    Natural,
    /// Negative, as some processors' own NaN is.
    Negative,
    /// All bits set but the sign, as on some GPUs.
    AllOnes,
}

/// How a correct kernel goes about its work.
///
/// ```
/// use tilewright_mutants::compression::{Race, Variant};
/// assert!(Variant::BASE.deterministic());
/// assert!(!Variant { race: Race::Random, ..Variant::BASE }.deterministic());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The order of visits.
    pub visit: Visit,
    /// How the greatest are found.
    pub top: Top,
    /// How candidates are listed.
    pub compaction: Compaction,
    /// The hash table.
    pub table: Table,
    /// Who wins where anyone may.
    pub race: Race,
    /// How the memory is cleared.
    pub forgetting: Forgetting,
    /// How messages are decoded.
    pub decoding: Decoding,
    /// Which NaN stays in the memory.
    pub nan: StoredNan,
}

impl Variant {
    /// Quickselect, a table of keys, sequential loops: what the faulty kernels are built on.
    pub const BASE: Self = Self {
        visit: Visit::Ascending,
        top: Top::Quickselect,
        compaction: Compaction::Sorted,
        table: Table::Keys,
        race: Race::Last,
        forgetting: Forgetting::InPlace,
        decoding: Decoding::RankByRank,
        nan: StoredNan::Natural,
    };

    /// Whether the same input gives the same bits again. Without that a kernel is right only where the specification
    /// lets anyone win a collision.
    pub fn deterministic(&self) -> bool {
        self.race != Race::Random
    }

    /// Whether all lengths of blocks, strides and parts are at least 1.
    pub(crate) fn is_sound(&self) -> bool {
        let lengths = [
            match self.visit {
                Visit::Strided(n) | Visit::Blocks(n) => n,
                _ => 1,
            },
            match self.compaction {
                Compaction::TwoPass(n) => n,
                _ => 1,
            },
            match self.table {
                Table::Merged(n) | Table::Halves(n) => n,
                _ => 1,
            },
            match self.decoding {
                Decoding::Owners(n) => n,
                _ => 1,
            },
        ];
        !lengths.contains(&0)
    }
}

impl Visit {
    /// The numbers below `len` in this order.
    pub fn order(self, len: usize) -> Vec<usize> {
        match self {
            Self::Ascending => (0..len).collect(),
            Self::Descending => (0..len).rev().collect(),
            Self::Strided(stride) => (0..stride.min(len)).flat_map(|start| (start..len).step_by(stride)).collect(),
            Self::Blocks(block) => {
                (0..len.div_ceil(block)).rev().flat_map(|b| b * block..len.min((b + 1) * block)).collect()
            }
            Self::Shuffled => {
                let mut order: Vec<usize> = (0..len).collect();
                order.sort_by_key(|i| tilewright_compression::hash::mix(*i as u32, len as u32));
                order
            }
        }
    }
}
