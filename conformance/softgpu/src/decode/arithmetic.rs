//! Integer, bit and floating-point arithmetic.

use super::{Builder, Done, mode_of};
use crate::isa::{Alu32, Alu64, Carry, CarryOp, Flt, HalfFormat, Int, Mode, Op, Permute, R, Round};
use crate::ptx::{Operand, PtxError, Type};

impl Builder<'_> {
    /// Operations that exist for several types.
    pub(super) fn arithmetic(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        if words.contains(&"cc") {
            return self.carry(words, operands);
        }
        let ty = self.type_of(words)?;
        match ty {
            Type::Pred => self.predicates(words, operands),
            _ if ty.float() || matches!(ty, Type::F16x2 | Type::BF16x2) => self.float(words, operands, ty),
            _ => self.integer(words, operands, ty),
        }
    }

    fn predicates(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let d = self.target_of(self.operand(operands, 0)?, Type::Pred)?;
        let a = self.plain_pred(self.operand(operands, 1)?)?;
        if words[0] == "not" {
            self.emit(Op::PredNot(d, a));
            return Ok(());
        }
        let b = self.plain_pred(self.operand(operands, 2)?)?;
        let op = match words[0] {
            "and" => Op::PredAnd(d, a, b),
            "or" => Op::PredOr(d, a, b),
            "xor" => Op::PredXor(d, a, b),
            _ => return Err(self.unknown(words)),
        };
        self.emit(op);
        Ok(())
    }

    /// A predicate, negated into a new one if need be.
    pub(super) fn plain_pred(&mut self, operand: &Operand) -> Result<R, PtxError> {
        let (p, negated) = self.pred(operand)?;
        if !negated {
            return Ok(p);
        }
        let q = self.fresh(Type::Pred);
        let guard = std::mem::take(&mut self.guard);
        self.emit(Op::PredNot(q, p));
        self.guard = guard;
        Ok(q)
    }

    fn integer(&mut self, words: &[&str], operands: &[Operand], ty: Type) -> Done {
        let op = match (words[0], words.get(1).copied().unwrap_or("")) {
            ("add", _) => Int::Add,
            ("sub", _) => Int::Sub,
            ("mul" | "mad", "wide") => return self.wide(words[0] == "mad", operands, ty),
            ("mul", "hi") => Int::MulHi,
            ("mul", _) => Int::Mul,
            ("mad", "hi") => Int::MadHi,
            ("mad", _) => Int::Mad,
            ("div", _) => Int::Div,
            ("rem", _) => Int::Rem,
            ("min", _) => Int::Min,
            ("max", _) => Int::Max,
            ("and", _) => Int::And,
            ("or", _) => Int::Or,
            ("xor", _) => Int::Xor,
            ("not", _) => Int::Not,
            ("cnot", _) => Int::Cnot,
            ("abs", _) => Int::Abs,
            ("neg", _) => Int::Neg,
            ("sad", _) => Int::Sad,
            ("shl", _) => Int::Shl,
            ("shr", _) => Int::Shr,
            ("brev", _) => Int::Brev,
            _ => return Err(self.unknown(words)),
        };
        if words.contains(&"sat") || words.contains(&"relu") {
            return Err(self.unknown(words));
        }
        let d = self.target_of(self.operand(operands, 0)?, ty)?;
        if ty.bytes() == 8 && matches!(op, Int::Shl | Int::Shr) {
            let a = self.source64(self.operand(operands, 1)?)?;
            let n = self.source32(self.operand(operands, 2)?)?;
            self.emit(if op == Int::Shl { Op::Shl64(d, a, n) } else { Op::Shr64(ty.signed(), d, a, n) });
            return Ok(());
        }
        let sources = self.three(operands, ty)?;
        let op = match ty {
            Type::S64 => Op::Alu64(Alu64::S(op), d, sources),
            Type::U64 | Type::B64 => Op::Alu64(Alu64::U(op), d, sources),
            Type::S32 => Op::Alu32(Alu32::S32(op), d, sources),
            Type::U32 | Type::B32 => Op::Alu32(Alu32::U32(op), d, sources),
            Type::S16 => Op::Alu32(Alu32::S16(op), d, sources),
            Type::U16 | Type::B16 => Op::Alu32(Alu32::U16(op), d, sources),
            _ => return Err(self.unknown(words)),
        };
        self.emit(op);
        Ok(())
    }

    /// Operands 1 to 3, as many as there are; register 0 for the others.
    fn three(&mut self, operands: &[Operand], ty: Type) -> Result<[R; 3], PtxError> {
        let mut out = [0; 3];
        for (slot, operand) in out.iter_mut().zip(operands.get(1..).unwrap_or_default()) {
            *slot = self.source(operand, ty)?;
        }
        Ok(out)
    }

    fn wide(&mut self, mad: bool, operands: &[Operand], ty: Type) -> Done {
        let signed = ty.signed();
        let result = if ty.bytes() == 2 { Type::B32 } else { Type::B64 };
        let d = self.target_of(self.operand(operands, 0)?, result)?;
        let a = self.source32(self.operand(operands, 1)?)?;
        let b = self.source32(self.operand(operands, 2)?)?;
        let c = if mad { Some(self.source(self.operand(operands, 3)?, result)?) } else { None };
        let op = match (ty.bytes(), c) {
            (2, None) => Op::Wide16(signed, d, a, b),
            (2, Some(c)) => Op::MadWide16(signed, d, a, b, c),
            (4, None) => Op::Wide32(signed, d, a, b),
            (4, Some(c)) => Op::MadWide32(signed, d, a, b, c),
            _ => return Err(self.error("`.wide` takes 16- and 32-bit types")),
        };
        self.emit(op);
        Ok(())
    }

    fn float(&mut self, words: &[&str], operands: &[Operand], ty: Type) -> Done {
        let mode = mode_of(words);
        let approximate = words.contains(&"approx");
        let op = match words[0] {
            "add" => Flt::Add,
            "sub" => Flt::Sub,
            "mul" => Flt::Mul,
            "fma" | "mad" => Flt::Fma,
            "min" => Flt::Min,
            "max" => Flt::Max,
            "neg" => Flt::Neg,
            "abs" => Flt::Abs,
            "copysign" => Flt::Copysign,
            "div" => Flt::Div,
            "sqrt" => Flt::Sqrt,
            "rcp" if approximate && ty == Type::F64 => Flt::RcpHigh,
            "rsqrt" if mode.ftz && ty == Type::F64 => Flt::RsqrtHigh,
            "rcp" => Flt::Rcp,
            "rsqrt" => Flt::Rsqrt,
            "ex2" => Flt::Ex2,
            "lg2" => Flt::Lg2,
            "sin" => Flt::Sin,
            "cos" => Flt::Cos,
            "tanh" => Flt::Tanh,
            _ => return Err(self.unknown(words)),
        };
        let directed = !matches!(mode.round, Round::Nearest);
        let exact = matches!(op, Flt::Add | Flt::Sub | Flt::Mul | Flt::Fma);
        if words.contains(&"xorsign") || words.contains(&"abs") && words[0] != "abs" || directed && ty == Type::F64 {
            return Err(self.unknown(words));
        }
        if directed && !exact && !matches!(op, Flt::Div | Flt::Sqrt | Flt::Rcp) {
            return Err(self.unknown(words));
        }
        let d = self.target_of(self.operand(operands, 0)?, ty)?;
        let sources = self.three(operands, ty)?;
        let op = match ty {
            Type::F64 => Op::Alu64(Alu64::F(op, mode), d, sources),
            Type::F32 if mode == Mode::default() => Op::Alu32(Alu32::Plain(op), d, sources),
            Type::F32 => Op::Alu32(Alu32::F32(op, mode), d, sources),
            Type::F16 => Op::Alu32(Alu32::Half(HalfFormat::F16, op, mode, false), d, sources),
            Type::F16x2 => Op::Alu32(Alu32::Half(HalfFormat::F16, op, mode, true), d, sources),
            Type::BF16 => Op::Alu32(Alu32::Half(HalfFormat::BF16, op, mode, false), d, sources),
            Type::BF16x2 => Op::Alu32(Alu32::Half(HalfFormat::BF16, op, mode, true), d, sources),
            _ => return Err(self.unknown(words)),
        };
        self.emit(op);
        Ok(())
    }

    /// `add.cc`, `addc`, `mad.lo.cc` and their kin.
    pub(super) fn carry(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let ty = self.type_of(words)?;
        let op = match (words[0], words.get(1).copied().unwrap_or("")) {
            ("add" | "addc", _) => CarryOp::Add,
            ("sub" | "subc", _) => CarryOp::Sub,
            ("mad" | "madc", "lo") => CarryOp::MadLo,
            ("mad" | "madc", "hi") => CarryOp::MadHi,
            _ => return Err(self.unknown(words)),
        };
        let carry = Carry {
            op,
            signed: ty.signed(),
            reads: words[0].ends_with('c'),
            writes: words.contains(&"cc"),
            wide: ty.bytes() == 8,
        };
        let d = self.target_of(self.operand(operands, 0)?, ty)?;
        let sources = self.three(operands, ty)?;
        self.emit(Op::Carry(carry, d, sources));
        Ok(())
    }

    /// Operations on bits and fields.
    pub(super) fn bits(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        match words[0] {
            "popc" | "clz" | "bfind" => return self.counts(words, operands),
            "bfe" | "bfi" => return self.fields(words, operands),
            _ => {}
        }
        let signed = words.last().is_some_and(|w| *w == "s32");
        let wrap = words.contains(&"wrap");
        let op = match words[0] {
            "prmt" => Alu32::Prmt(match words.get(2).copied() {
                None => Permute::Index,
                Some("f4e") => Permute::Forward4,
                Some("b4e") => Permute::Backward4,
                Some("rc8") => Permute::Replicate8,
                Some("ecl") => Permute::EdgeLeft,
                Some("ecr") => Permute::EdgeRight,
                Some("rc16") => Permute::Replicate16,
                _ => return Err(self.unknown(words)),
            }),
            "shf" => Alu32::Shf { left: words.get(1) == Some(&"l"), wrap },
            "lop3" if words.len() == 2 => match self.operand(operands, 4)? {
                Operand::Int(table) => Alu32::Lop3(*table as u8),
                _ => return Err(self.error("the table of `lop3` must be a number")),
            },
            "dp4a" => Alu32::Dp4a { a: words.get(1) == Some(&"s32"), b: words.get(2) == Some(&"s32") },
            "dp2a" => Alu32::Dp2a {
                a: words.get(2) == Some(&"s32"),
                b: words.get(3) == Some(&"s32"),
                high: words.get(1) == Some(&"hi"),
            },
            "mul24" | "mad24" if !words.contains(&"sat") => {
                Alu32::Mul24 { signed, high: words.get(1) == Some(&"hi"), add: words[0] == "mad24" }
            }
            "szext" => Alu32::Szext { signed, wrap },
            "bmsk" => Alu32::Bmsk { wrap },
            _ => return Err(self.unknown(words)),
        };
        let d = self.target_of(self.operand(operands, 0)?, Type::B32)?;
        let sources = self.three(&operands[..operands.len().min(4)], Type::B32)?;
        self.emit(Op::Alu32(op, d, sources));
        Ok(())
    }

    fn counts(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let ty = self.type_of(words)?;
        let (signed, shift) = (ty.signed(), words.contains(&"shiftamt"));
        let d = self.target_of(self.operand(operands, 0)?, Type::B32)?;
        let a = self.source(self.operand(operands, 1)?, ty)?;
        let op = match (words[0], ty.bytes()) {
            ("popc", 4) => Op::Alu32(Alu32::Popc, d, [a, 0, 0]),
            ("clz", 4) => Op::Alu32(Alu32::Clz, d, [a, 0, 0]),
            ("bfind", 4) => Op::Alu32(Alu32::Bfind { signed, shift }, d, [a, 0, 0]),
            ("popc", 8) => Op::Popc64(d, a),
            ("clz", 8) => Op::Clz64(d, a),
            ("bfind", 8) => Op::Bfind64 { signed, shift, d, a },
            _ => return Err(self.unknown(words)),
        };
        self.emit(op);
        Ok(())
    }

    fn fields(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let ty = self.type_of(words)?;
        let wide = ty.bytes() == 8;
        let insert = words[0] == "bfi";
        let d = self.target_of(self.operand(operands, 0)?, ty)?;
        let a = self.source(self.operand(operands, 1)?, ty)?;
        let next = 2 + usize::from(insert);
        let into = if insert { self.source(self.operand(operands, 2)?, ty)? } else { 0 };
        let position = self.source32(self.operand(operands, next)?)?;
        let length = self.source32(self.operand(operands, next + 1)?)?;
        self.emit(match (insert, wide) {
            (false, false) => Op::Alu32(Alu32::Bfe { signed: ty.signed() }, d, [a, position, length]),
            (false, true) => Op::Bfe64(ty.signed(), d, a, position, length),
            (true, false) => Op::Bfi32(d, [a, into, position, length]),
            (true, true) => Op::Bfi64(d, a, into, position, length),
        });
        Ok(())
    }
}
