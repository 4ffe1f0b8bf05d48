//! The compact form that instructions are decoded to, once per kernel.
//!
//! Every operand is the index of a register: immediates, special registers and the addresses of variables are registers
//! too, filled when a warp starts. Three files exist: 32-bit (8- and 16-bit values live there, zero-extended), 64-bit and
//! predicates; a predicate is one bit per lane, and predicate 0 is true.

use crate::ptx::{Space, Type};

/// Index of a register in its file.
pub(crate) type R = u32;

/// An instruction with its guard.
#[derive(Clone, Debug)]
pub(crate) struct Ins {
    pub(crate) op: Op,
    pub(crate) guard: R,
    pub(crate) negate: bool,
    pub(crate) line: u32,
}

/// How a result that doesn't fit is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Round {
    #[default]
    Nearest,
    Zero,
    Down,
    Up,
    /// To the nearest, ties away from zero.
    Away,
}

/// What modifies floating-point arithmetic.
#[allow(clippy::struct_excessive_bools)] // they are the modifiers of the text
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Mode {
    pub(crate) round: Round,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
    /// `.NaN` of `min` and `max`.
    pub(crate) nan: bool,
    /// Rounds to an integral value (`.rni` …), in `cvt`.
    pub(crate) integral: bool,
}

/// Integer operations of one width; which width says the instruction around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int {
    Add,
    Sub,
    Mul,
    MulHi,
    Mad,
    MadHi,
    And,
    Or,
    Xor,
    Not,
    Cnot,
    Shl,
    Shr,
    Min,
    Max,
    Div,
    Rem,
    Abs,
    Neg,
    Sad,
    Brev,
}

/// Floating-point operations, of any format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flt {
    Add,
    Sub,
    Mul,
    Fma,
    Min,
    Max,
    Neg,
    Abs,
    Copysign,
    Div,
    Sqrt,
    Rcp,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
    /// `rcp.approx.ftz.f64`: the upper half only.
    RcpHigh,
    /// `rsqrt.approx.ftz.f64`, likewise.
    RsqrtHigh,
}

/// 32-bit registers in, a 32-bit register out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alu32 {
    U32(Int),
    S32(Int),
    U16(Int),
    S16(Int),
    F32(Flt, Mode),
    /// As above, without modifiers.
    Plain(Flt),
    /// One number, or with `true` a pair.
    Half(HalfFormat, Flt, Mode, bool),
    Popc,
    Clz,
    Bfind {
        signed: bool,
        shift: bool,
    },
    Bfe {
        signed: bool,
    },
    Prmt(Permute),
    Shf {
        left: bool,
        wrap: bool,
    },
    Lop3(u8),
    Dp4a {
        a: bool,
        b: bool,
    },
    Dp2a {
        a: bool,
        b: bool,
        high: bool,
    },
    Mul24 {
        signed: bool,
        high: bool,
        add: bool,
    },
    Szext {
        signed: bool,
        wrap: bool,
    },
    Bmsk {
        wrap: bool,
    },
}

/// The selection modes of `prmt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permute {
    Index,
    Forward4,
    Backward4,
    Replicate8,
    EdgeLeft,
    EdgeRight,
    Replicate16,
}

/// The two 16-bit formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HalfFormat {
    F16,
    BF16,
}

/// 64-bit registers in, a 64-bit register out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alu64 {
    U(Int),
    S(Int),
    F(Flt, Mode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// Combines the comparison with another predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combine {
    And,
    Or,
    Xor,
}

#[derive(Clone, Debug)]
pub(crate) struct Setp {
    pub(crate) cmp: Cmp,
    pub(crate) ty: Type,
    pub(crate) ftz: bool,
    pub(crate) d: R,
    /// Receives the opposite.
    pub(crate) q: Option<R>,
    pub(crate) a: R,
    pub(crate) b: R,
    pub(crate) with: Option<(Combine, R, bool)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cvt {
    pub(crate) from: Type,
    pub(crate) to: Type,
    pub(crate) mode: Mode,
}

/// An address: a register plus a constant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) base: R,
    pub(crate) wide: bool,
    pub(crate) offset: i64,
}

/// The memory-model strength of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A plain access.
    Weak,
    /// `.relaxed`, `.volatile`, and atomics that say nothing.
    Relaxed,
    Acquire,
    Release,
    AcqRel,
}

impl Order {
    pub(crate) fn acquires(self) -> bool {
        matches!(self, Self::Acquire | Self::AcqRel)
    }

    pub(crate) fn releases(self) -> bool {
        matches!(self, Self::Release | Self::AcqRel)
    }
}

/// A load or store of `count` elements.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) space: Space,
    /// Bytes of one element.
    pub(crate) bytes: u32,
    pub(crate) count: u32,
    pub(crate) signed: bool,
    /// The registers are 64-bit ones.
    pub(crate) wide: bool,
    pub(crate) regs: [R; 4],
    pub(crate) addr: Address,
    pub(crate) order: Order,
}

impl Access {
    /// Element `i` of what was loaded, extended to 64 bits.
    #[inline(always)]
    pub(crate) fn element(&self, value: u128, i: usize) -> u64 {
        let bits = 8 * self.bytes;
        let (element, unused) = ((value >> (bits * i as u32)) as u64, 64 - bits);
        if self.signed { ((element << unused) as i64 >> unused) as u64 } else { element << unused >> unused }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Clone, Debug)]
pub(crate) struct Atom {
    pub(crate) op: AtomOp,
    pub(crate) ty: Type,
    pub(crate) space: Space,
    pub(crate) addr: Address,
    pub(crate) d: Option<R>,
    pub(crate) a: R,
    pub(crate) b: R,
    pub(crate) order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barrier {
    Sync,
    Arrive,
    Popc,
    And,
    Or,
}

#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) kind: Barrier,
    pub(crate) aligned: bool,
    pub(crate) id: R,
    pub(crate) count: Option<R>,
    /// Predicate in, and whether it is negated.
    pub(crate) pred: Option<(R, bool)>,
    /// Where the reduction goes: a 32-bit register for `popc`, else a predicate.
    pub(crate) d: R,
}

/// The shapes of `mma.sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MmaShape {
    M16N8K8,
    M16N8K16,
    M16N8K32,
    M16N8K4,
    M8N8K4,
}

#[derive(Clone, Debug)]
pub(crate) struct Mma {
    pub(crate) a_type: Type,
    pub(crate) b_type: Type,
    /// Of the accumulator in and out.
    pub(crate) c_type: Type,
    pub(crate) saturate: bool,
    pub(crate) d: Vec<R>,
    pub(crate) a: Vec<R>,
    pub(crate) b: Vec<R>,
    pub(crate) c: Vec<R>,
}

/// Sums with the carry flag.
#[allow(clippy::struct_excessive_bools)] // they are the modifiers of the text
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carry {
    pub(crate) op: CarryOp,
    pub(crate) signed: bool,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) wide: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarryOp {
    Add,
    Sub,
    MadLo,
    MadHi,
}

/// What an instruction does.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alu32(Alu32, R, [R; 3]),
    Alu64(Alu64, R, [R; 3]),
    /// 64-bit value, 32-bit count.
    Shl64(R, R, R),
    Shr64(bool, R, R, R),
    Bfi32(R, [R; 4]),
    /// d, a, position, length: 64-bit fields, 32-bit positions.
    Bfe64(bool, R, R, R, R),
    Bfi64(R, R, R, R, R),
    /// Counts in a 64-bit register.
    Popc64(R, R),
    Clz64(R, R),
    Bfind64 {
        signed: bool,
        shift: bool,
        d: R,
        a: R,
    },
    /// 16 to 32 bits.
    Wide16(bool, R, R, R),
    MadWide16(bool, R, R, R, R),
    /// 32 to 64 bits.
    Wide32(bool, R, R, R),
    MadWide32(bool, R, R, R, R),
    Carry(Carry, R, [R; 3]),
    Mov32(R, R),
    Mov64(R, R),
    /// Two halves to one 32-bit register, and back.
    Pack16(R, R, R),
    Unpack16(Option<R>, Option<R>, R),
    Pack32(R, R, R),
    Unpack32(Option<R>, Option<R>, R),
    Pack64x16(R, [R; 4]),
    Unpack64x16([Option<R>; 4], R),
    Setp(Box<Setp>),
    /// Predicate to 0 and `ones` of a 32-bit register.
    Mask(R, R, u32),
    Selp32(R, R, R, R),
    Selp64(R, R, R, R),
    /// `slct`: c in the 32-bit file, as s32 or f32.
    Slct {
        float: bool,
        wide: bool,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Testp {
        which: Class,
        wide: bool,
        d: R,
        a: R,
    },
    PredAnd(R, R, R),
    PredOr(R, R, R),
    PredXor(R, R, R),
    PredNot(R, R),
    /// Source wide, destination wide.
    Cvt(Box<Cvt>, bool, bool, R, R),
    /// `cvt.rn.bf16x2.f32 d, a, b`: a goes to the upper half.
    CvtPack(HalfFormat, Mode, R, R, R),
    IsSpace(Space, R, R),
    Load(Box<Access>),
    Store(Box<Access>),
    Atom(Box<Atom>),
    Shfl {
        mode: Shuffle,
        d: R,
        p: Option<R>,
        a: R,
        b: R,
        c: R,
        members: R,
    },
    Vote {
        kind: Vote,
        d: R,
        p: R,
        negate: bool,
        members: R,
    },
    Match {
        all: bool,
        wide: bool,
        d: R,
        p: Option<R>,
        a: R,
        members: R,
    },
    Redux(AtomOp, bool, R, R, R),
    Elect {
        d: Option<R>,
        p: R,
        members: R,
    },
    ActiveMask(R),
    SyncWarp(R),
    Bar(Box<Bar>),
    /// `true`: at least release and acquire.
    Fence,
    CpAsync {
        dst: Address,
        src: Address,
        bytes: u32,
        src_bytes: Option<R>,
        ignore: Option<(R, bool)>,
    },
    CpCommit,
    /// How many groups may stay under way; `None`: nothing may, committed or not.
    CpWait(Option<u32>),
    Ldmatrix {
        count: u32,
        trans: bool,
        regs: [R; 4],
        addr: Address,
        space: Space,
    },
    Movmatrix(R, R),
    Mma(Box<Mma>),
    Bra(u32),
    Brx(Box<[u32]>, R),
    Exit,
    Trap,
    /// Gives others a turn.
    Yield,
    Clock32(R),
    Clock64(R),
    /// A touch without effect, checked like a load of one byte.
    Nop,
}

/// `testp`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// A register whose value depends on where the warp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    WarpSize,
    MaskEq,
    MaskLe,
    MaskLt,
    MaskGe,
    MaskGt,
    DynamicShared,
    TotalShared,
}

/// Where a 64-bit constant register gets its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value64 {
    Bits(u64),
    /// Address of a module's variable.
    Symbol(String),
    /// Start of the dynamic shared memory.
    Dynamic,
}

/// Where a 32-bit constant register gets its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value32 {
    Bits(u32),
    Special(Special),
    Dynamic,
}

/// A kernel's parameter.
#[derive(Clone, Debug)]
pub(crate) struct Param {
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

/// A kernel, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) code: Vec<Ins>,
    /// Sizes of the three files.
    pub(crate) files: [usize; 3],
    pub(crate) const32: Vec<(R, Value32)>,
    pub(crate) const64: Vec<(R, Value64)>,
    pub(crate) params: Vec<Param>,
    pub(crate) param_bytes: u32,
    /// Bytes of shared memory with a fixed size, and the bytes within that belong to no variable.
    pub(crate) shared: u32,
    pub(crate) holes: Vec<(u32, u32)>,
    /// Where the dynamic part starts.
    pub(crate) dynamic: u32,
    /// Bytes of local memory a thread.
    pub(crate) local: u32,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required: bool,
    /// Bytes that the finest cell of the race shadow stands for: the smallest store, 1, 2, 4 or 8.
    pub(crate) granule: u32,
}
