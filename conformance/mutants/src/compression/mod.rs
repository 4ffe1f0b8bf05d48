//! Gradient compression: planted bugs and correct-but-different kernels.
//!
//! One scalar kernel takes every [`CompressionSpec`](tilewright_compression::CompressionSpec) and decodes the messages:
//! quickselect, a table of keys, loops. A [`Fault`] plants one bug in it, at the line where such a bug would live; a
//! [`Variant`] changes the order of visits, the way to the top-k, the table, the decoder, and not one bit of what comes
//! out — except where the specification lets anyone win a collision.
//!
//! | module | holds |
//! |---|---|
//! | [`catalogue`] | [`Fault`] and the table of mutants: what is wrong, and which inputs show it |
//! | [`variant`], [`controls`] | [`Variant`] and the table of correct kernels |
//! | `kernel` | a step from refusal to message; seeds |
//! | `accumulate`, `send` | what enters the memory; what leaves it, and how it travels |
//! | `select`, `sample`, `top` | candidates: the cut, sampled thresholds, the `k` greatest |
//! | `place` | the hash table |
//! | `decode` | adding up messages |
//!
//! ```
//! use tilewright_compression::{CompressionSpec, Compressor, Count, Memory, Message, Step};
//! use tilewright_mutants::compression::{Fault, Kernel, Variant};
//!
//! let spec = CompressionSpec::top_k(4, Count::Entries(1));
//! let run = |mut kernel: Kernel| {
//!     let (mut memory, mut message) = (Memory::new(&spec)?, Message::default());
//!     kernel.compress(&spec, Step::new(0), &[1.0, -3.0, 2.0, 0.0], &mut memory, &mut message)?;
//!     Ok(message.entries().collect::<Vec<_>>())
//! };
//! assert_eq!(run(Kernel::correct(Variant::BASE))?, [(1, -3.0)]);
//! assert_eq!(run(Kernel::faulty(Fault::SignedTopK))?, [(2, 2.0)]);
//! # Ok::<(), tilewright_compression::CompressionError>(())
//! ```

mod accumulate;
pub mod catalogue;
pub mod controls;
mod decode;
mod kernel;
mod place;
mod sample;
mod select;
mod send;
mod top;
pub mod variant;

pub use catalogue::{Fault, Group};
pub use controls::{CorrectVariant, variants};
pub use kernel::Kernel;
pub use variant::{Compaction, Decoding, Forgetting, Race, StoredNan, Table, Top, Variant, Visit};

/// A kernel with one bug.
///
/// ```
/// let mutant = tilewright_mutants::compression::mutants().iter().find(|mutant| mutant.id == 111).unwrap();
/// assert_eq!(mutant.name, "loser-cleared");
/// assert_eq!(mutant.trigger, "a collision, with a memory");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Stable number.
    pub id: u16,
    /// Kebab-case name.
    pub name: &'static str,
    /// Where the bug lives.
    pub group: Group,
    /// The bug.
    pub fault: Fault,
    /// What is wrong.
    pub about: &'static str,
    /// Which inputs reveal it.
    pub trigger: &'static str,
}

/// Every planted bug, by number.
pub fn mutants() -> &'static [Mutant] {
    catalogue::MUTANTS
}

impl Mutant {
    /// The faulty kernel.
    pub fn kernel(&self) -> Kernel {
        Kernel::faulty(self.fault)
    }
}

impl Fault {
    /// The kernel the bug is planted in: [`Variant::BASE`], or the one that has the part the bug is in.
    pub fn variant(self) -> Variant {
        match self {
            Self::MergedWithoutComparing => Variant { table: Table::Merged(8), ..Variant::BASE },
            Self::OwnersRoundDown => Variant { decoding: Decoding::Owners(3), ..Variant::BASE },
            _ => Variant::BASE,
        }
    }
}
