//! The PTX text as data: variables, kernels, functions, statements.
//!
//! Nothing here knows what an instruction does; [`crate::decode`] does.

mod body;
mod number;
mod parse;
mod token;
pub(crate) mod types;

use core::fmt;
pub(crate) use parse::parse;
pub(crate) use types::Type;

/// PTX that can't be run: which line, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtxError {
    /// The line of the text, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub message: String,
}

impl PtxError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl core::error::Error for PtxError {}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
    Generic,
}

/// A variable: `.shared .align 16 .b8 tile[4096];` and the like.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) space: Space,
    pub(crate) align: u32,
    /// Bytes; 0 with `dynamic`.
    pub(crate) size: u64,
    /// `extern .shared x[]`: as large as the launch says.
    pub(crate) dynamic: bool,
    pub(crate) initial: Vec<Initial>,
}

/// A piece of a variable's initial contents.
#[derive(Clone, Debug)]
pub(crate) enum Initial {
    Bytes(u64, Vec<u8>),
    /// At this offset, the address of that variable plus a number.
    Address(u64, String, i64),
}

/// `.reg .b32 %r<9>` declares `%r0` to `%r8`; without `count` the one name.
#[derive(Clone, Debug)]
pub(crate) struct Registers {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) count: Option<u32>,
}

/// One statement of a body.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Open,
    Close,
    Label(String),
    Registers(Registers),
    Variable(Variable),
    /// `name: .branchtargets a, b, c;`
    Targets(String, Vec<String>),
    Instruction(Instruction),
}

/// `@!%p1 add.s32 %r1, %r2, 5;`
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub(crate) line: u32,
    pub(crate) guard: Option<(String, bool)>,
    pub(crate) opcode: String,
    pub(crate) operands: Vec<Operand>,
}

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register, a variable, a label, or `_`.
    Name(String),
    /// An integer, two's complement.
    Int(u64),
    /// The bits of an `0f…` number.
    F32(u32),
    /// The bits of an `0d…` number, or of a decimal fraction.
    F64(u64),
    /// `{a, b}`, or `(a, b)` in a call.
    Vector(Vec<Operand>),
    /// `[base+offset]`, or further parts after a comma.
    Address(Vec<Operand>, i64),
    /// `a|b`
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`, `-r`
    Not(Box<Operand>),
}

/// A kernel or a function.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) kernel: bool,
    pub(crate) results: Vec<Variable>,
    pub(crate) params: Vec<Variable>,
    /// Largest block (`.maxntid`) or the only one (`.reqntid`).
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required: bool,
    pub(crate) body: Option<Vec<Statement>>,
}

/// A whole text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    pub(crate) variables: Vec<Variable>,
    pub(crate) functions: Vec<Function>,
}
