//! What a launch can do wrong, and the one line that says it.

use core::fmt;

/// The kinds of fault a launch is stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access outside every live allocation or window.
    OutOfBounds,
    /// An access to memory that has been freed.
    UseAfterFree,
    /// An address that is not a multiple of the access's size, given the declared alignment and no more.
    Misaligned,
    /// A read of bytes that nothing ever wrote.
    Uninitialized,
    /// A write to memory that kernels may only read.
    ReadOnly,
    /// Two accesses, one of them a write, that nothing orders.
    Race,
    /// A read or write of bytes that an asynchronous copy still owns.
    MissingWait,
    /// A barrier that part of a warp reaches and part of it never will.
    DivergentBarrier,
    /// A warp-wide instruction executed by fewer lanes than it names.
    DivergentWarp,
    /// A shuffle that reads a lane which doesn't take part.
    InactiveLane,
    /// No thread can go on, or all of them only spin.
    Deadlock,
    /// The launch executed more instructions than its settings allow.
    StepLimit,
    /// The kernel executed `trap`, or an operand the manual leaves undefined.
    Trap,
    /// The launch itself is wrong: its shape, its parameters, its shared memory.
    Launch,
}

impl FaultKind {
    /// A few words for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfBounds => "out of bounds",
            Self::UseAfterFree => "use after free",
            Self::Misaligned => "misaligned address",
            Self::Uninitialized => "read of uninitialized memory",
            Self::ReadOnly => "write to read-only memory",
            Self::Race => "race",
            Self::MissingWait => "missing wait for an asynchronous copy",
            Self::DivergentBarrier => "divergent barrier",
            Self::DivergentWarp => "divergent warp instruction",
            Self::InactiveLane => "shuffle from an inactive lane",
            Self::Deadlock => "deadlock",
            Self::StepLimit => "step limit",
            Self::Trap => "trap",
            Self::Launch => "bad launch",
        }
    }
}

/// Why a launch was stopped: where, and by which threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What went wrong.
    pub kind: FaultKind,
    /// The kernel's name.
    pub kernel: String,
    /// The line of the PTX text, from 1; 0 if no instruction is to blame.
    pub line: u32,
    /// The block's coordinates.
    pub block: [u32; 3],
    /// Linear indices of the threads concerned, within the block.
    pub threads: Vec<u32>,
    /// The particulars.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.kind.name(), self.kernel)?;
        if self.line > 0 {
            write!(f, ", PTX line {}", self.line)?;
        }
        let [x, y, z] = self.block;
        write!(f, ", block ({x},{y},{z})")?;
        if !self.threads.is_empty() {
            write!(f, ", thread {}", ranges(&self.threads))?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl core::error::Error for Fault {}

/// `0-3,7` for sorted numbers.
fn ranges(numbers: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = numbers;
    while let Some(&first) = rest.first() {
        let run = rest.iter().enumerate().take_while(|&(i, &n)| n == first + i as u32).count();
        if !text.is_empty() {
            text.push(',');
        }
        text += &first.to_string();
        if run > 1 {
            text.push('-');
            text += &(first + run as u32 - 1).to_string();
        }
        rest = &rest[run..];
    }
    text
}

/// A fault as the interpreter raises it, before the launch adds kernel and block.
#[derive(Clone, Debug)]
pub(crate) struct Raised {
    pub(crate) kind: FaultKind,
    pub(crate) lanes: u32,
    pub(crate) detail: String,
}

impl Raised {
    #[allow(clippy::unnecessary_box_returns)] // every use is an error, and errors are kept small
    pub(crate) fn new(kind: FaultKind, lanes: u32, detail: String) -> Box<Self> {
        Box::new(Self { kind, lanes, detail })
    }
}

pub(crate) type Outcome<T> = Result<T, Box<Raised>>;
