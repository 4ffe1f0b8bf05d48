//! Statements to [`crate::isa`]: names become register numbers, calls are expanded in place, labels become indices.

mod arithmetic;
mod call;
mod convert;
mod memory;
mod scope;
mod warp;

use std::collections::HashMap;

use crate::isa::{Ins, Kernel, Mode, Op, Param, R, Round, Value32, Value64};
use crate::ptx::{Function, Instruction, Operand, PtxError, Space, Statement, Type, Unit};
use scope::Scope;

/// The window each space has in generic addresses: its number is the address's upper 32 bits.
pub(crate) const SHARED_WINDOW: u64 = 1 << 32;
/// As above, for local memory.
pub(crate) const LOCAL_WINDOW: u64 = 2 << 32;
/// As above, for kernel parameters.
pub(crate) const PARAM_WINDOW: u64 = 3 << 32;
/// Shared and local memory start here, so that address 0 is never valid.
pub(crate) const FIRST_OFFSET: u32 = 1024;

/// Bytes of parameters that a kernel may take.
const MOST_PARAMETERS: u32 = 32764;

type Done = Result<(), PtxError>;

/// A kernel under construction.
pub(super) struct Builder<'a> {
    unit: &'a Unit,
    kernel: Kernel,
    scopes: Vec<Scope>,
    /// Number of the next scope, and every scope's parent.
    parents: Vec<usize>,
    labels: HashMap<(usize, String), u32>,
    /// Instruction, which of its targets, scope, name, line.
    jumps: Vec<(usize, usize, usize, String, u32)>,
    seen32: HashMap<u32, R>,
    /// Functions being expanded, each with the label its `ret` goes to.
    calls: Vec<(String, String)>,
    guard: (R, bool),
    line: u32,
}

/// # Errors
/// The first statement that isn't understood.
pub(crate) fn kernel(unit: &Unit, function: &Function) -> Result<Kernel, PtxError> {
    let mut builder = Builder {
        unit,
        kernel: Kernel { name: function.name.clone(), shared: FIRST_OFFSET, local: FIRST_OFFSET, ..Kernel::default() },
        scopes: Vec::new(),
        parents: Vec::new(),
        labels: HashMap::new(),
        jumps: Vec::new(),
        seen32: HashMap::new(),
        calls: Vec::new(),
        guard: (0, false),
        line: function.line,
    };
    builder.kernel.files[2] = 1;
    builder.kernel.max_threads = function.max_threads;
    builder.kernel.required = function.required;
    builder.open(true);
    builder.parameters(function)?;
    builder.statements(function.body.as_deref().unwrap_or_default())?;
    builder.emit(Op::Exit);
    builder.finish()
}

impl Builder<'_> {
    fn error(&self, message: impl Into<String>) -> PtxError {
        PtxError::new(self.line, message)
    }

    fn parameters(&mut self, function: &Function) -> Done {
        let mut offset = 0u32;
        for param in &function.params {
            let size = u32::try_from(param.size).ok().filter(|&n| n <= MOST_PARAMETERS && offset <= MOST_PARAMETERS);
            let size = size.ok_or_else(|| self.error(format!("more than {MOST_PARAMETERS} bytes of parameters")))?;
            offset = offset.next_multiple_of(param.align.max(1));
            self.kernel.params.push(Param { offset, size });
            self.declare_at(&param.name, Space::Param, offset);
            offset += size;
        }
        self.kernel.param_bytes = offset;
        Ok(())
    }

    fn statements(&mut self, body: &[Statement]) -> Done {
        for statement in body {
            match statement {
                Statement::Open => self.open(false),
                Statement::Close => drop(self.scopes.pop()),
                Statement::Label(name) => self.label(name.clone()),
                Statement::Registers(registers) => self.registers(registers)?,
                Statement::Variable(variable) => self.variable(variable)?,
                Statement::Targets(name, targets) => self.targets(name.clone(), targets.clone()),
                Statement::Instruction(instruction) => self.instruction(instruction)?,
            }
        }
        Ok(())
    }

    fn instruction(&mut self, instruction: &Instruction) -> Done {
        self.line = instruction.line;
        self.guard = match &instruction.guard {
            None => (0, false),
            Some((name, negated)) => (self.pred_name(name)?, *negated),
        };
        let words: Vec<&str> = instruction.opcode.split('.').collect();
        let operands = &instruction.operands;
        self.opcode(&words, operands)
    }

    /// Sends the instruction to the group it belongs to.
    fn opcode(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        match words[0] {
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "and" | "or" | "xor" | "not"
            | "cnot" | "abs" | "neg" | "sad" | "shl" | "shr" | "brev" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2"
            | "sin" | "cos" | "tanh" | "copysign" => self.arithmetic(words, operands),
            "addc" | "subc" | "madc" => self.carry(words, operands),
            "popc" | "clz" | "bfind" | "bfe" | "bfi" | "prmt" | "shf" | "lop3" | "dp4a" | "dp2a" | "mul24"
            | "mad24" | "szext" | "bmsk" => self.bits(words, operands),
            "mov" | "cvt" | "cvta" | "setp" | "set" | "selp" | "slct" | "testp" | "isspacep" => {
                self.conversion(words, operands)
            }
            "ld" | "ldu" | "st" | "atom" | "red" | "cp" | "ldmatrix" | "prefetch" | "prefetchu" | "discard"
            | "applypriority" | "createpolicy" => self.memory(words, operands),
            "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" | "bar" | "barrier" | "membar" | "fence"
            | "mma" | "movmatrix" | "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep"
            | "griddepcontrol" | "setmaxnreg" | "pmevent" => self.warp(words, operands),
            "call" => self.call(operands),
            _ => Err(self.unknown(words)),
        }
    }

    fn unknown(&self, words: &[&str]) -> PtxError {
        self.error(format!("unknown instruction `{}`", words.join(".")))
    }

    fn emit(&mut self, op: Op) {
        let (guard, negate) = self.guard;
        self.kernel.code.push(Ins { op, guard, negate, line: self.line });
    }

    /// The operand at `index`.
    ///
    /// # Errors
    /// If there are too few.
    fn operand<'o>(&self, operands: &'o [Operand], index: usize) -> Result<&'o Operand, PtxError> {
        operands.get(index).ok_or_else(|| self.error(format!("operand {} is missing", index + 1)))
    }

    /// The type after the opcode: the last word that is one.
    fn type_of(&self, words: &[&str]) -> Result<Type, PtxError> {
        let ty = words.iter().rev().find_map(|word| Type::parse(word));
        ty.ok_or_else(|| self.error(format!("`{}` has no type", words.join("."))))
    }

    fn finish(mut self) -> Result<Kernel, PtxError> {
        for (at, slot, scope, name, line) in std::mem::take(&mut self.jumps) {
            let target = self.find_label(scope, &name);
            let target = target.ok_or_else(|| PtxError::new(line, format!("no label `{name}`")))?;
            match &mut self.kernel.code[at].op {
                Op::Bra(to) => *to = target,
                Op::Brx(table, _) => table[slot] = target,
                _ => {}
            }
        }
        let align = self.kernel.dynamic;
        let end = self.kernel.shared;
        self.kernel.dynamic = if align == 0 { end } else { scope::just_aligned(end, align) };
        self.kernel.granule = granule(&self.kernel.code);
        Ok(self.kernel)
    }

    fn find_label(&self, mut scope: usize, name: &str) -> Option<u32> {
        loop {
            if let Some(&at) = self.labels.get(&(scope, name.to_owned())) {
                return Some(at);
            }
            let parent = self.parents[scope];
            if parent == scope {
                return None;
            }
            scope = parent;
        }
    }

    /// A constant 32-bit register.
    fn const32(&mut self, bits: u32) -> R {
        if let Some(&r) = self.seen32.get(&bits) {
            return r;
        }
        let r = self.value32(Value32::Bits(bits));
        self.seen32.insert(bits, r);
        r
    }

    fn value32(&mut self, value: Value32) -> R {
        if let Some((r, _)) = self.kernel.const32.iter().find(|(_, v)| *v == value) {
            return *r;
        }
        let r = self.fresh(Type::B32);
        self.kernel.const32.push((r, value));
        r
    }

    fn const64(&mut self, value: Value64) -> R {
        if let Some((r, _)) = self.kernel.const64.iter().find(|(_, v)| *v == value) {
            return *r;
        }
        let r = self.fresh(Type::B64);
        self.kernel.const64.push((r, value));
        r
    }

    /// A new register of the file that holds the type.
    fn fresh(&mut self, ty: Type) -> R {
        let file = &mut self.kernel.files[file_of(ty)];
        *file += 1;
        (*file - 1) as R
    }
}

/// 0: 32-bit, 1: 64-bit, 2: predicates.
pub(super) fn file_of(ty: Type) -> usize {
    match ty {
        Type::Pred => 2,
        _ if ty.bytes() == 8 => 1,
        _ => 0,
    }
}

/// Stores smaller than a shadow cell would make neighbours look like one place.
fn granule(code: &[Ins]) -> u32 {
    let smallest = code.iter().filter_map(|ins| match &ins.op {
        Op::Store(access) => Some(access.bytes),
        Op::Atom(atom) => Some(atom.ty.bytes()),
        Op::CpAsync { bytes, .. } => Some(*bytes),
        _ => None,
    });
    smallest.min().unwrap_or(8).clamp(1, 8)
}

/// The words that modify floating-point arithmetic and conversions.
fn mode_of(words: &[&str]) -> Mode {
    let mut mode = Mode::default();
    for &word in words {
        match word {
            "rn" => mode.round = Round::Nearest,
            "rz" => mode.round = Round::Zero,
            "rm" => mode.round = Round::Down,
            "rp" => mode.round = Round::Up,
            "rna" => mode.round = Round::Away,
            "rni" => (mode.round, mode.integral) = (Round::Nearest, true),
            "rzi" => (mode.round, mode.integral) = (Round::Zero, true),
            "rmi" => (mode.round, mode.integral) = (Round::Down, true),
            "rpi" => (mode.round, mode.integral) = (Round::Up, true),
            "ftz" => mode.ftz = true,
            "sat" => mode.sat = true,
            "relu" => mode.relu = true,
            "NaN" => mode.nan = true,
            _ => {}
        }
    }
    mode
}
