//! Moves, conversions, comparisons and selections.

use super::{Builder, Done, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, mode_of};
use crate::isa::{Alu64, Class, Cmp, Combine, Cvt, HalfFormat, Int, Op, R, Setp, Value64};
use crate::ptx::{Operand, PtxError, Space, Type};

impl Builder<'_> {
    pub(super) fn conversion(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        match words[0] {
            "mov" => self.mov(words, operands),
            "cvt" => self.cvt(words, operands),
            "cvta" => self.cvta(words, operands),
            "setp" => self.setp(words, operands),
            "set" => self.set(words, operands),
            "selp" => self.selp(words, operands),
            "slct" => self.slct(words, operands),
            "testp" => self.testp(words, operands),
            _ => self.isspacep(words, operands),
        }
    }

    fn mov(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let ty = self.type_of(words)?;
        let (to, from) = (self.operand(operands, 0)?, self.operand(operands, 1)?);
        match (to, from) {
            (Operand::Vector(parts), _) => self.unpack(parts, from, ty),
            (_, Operand::Vector(parts)) => self.pack(to, parts, ty),
            (_, Operand::Name(name)) if name == "%clock" || name == "%clock_hi" => {
                let d = self.target(to, 0)?;
                self.emit(Op::Clock32(d));
                Ok(())
            }
            (_, Operand::Name(name)) if name == "%clock64" || name.starts_with("%globaltimer") => {
                let d = self.target(to, 1)?;
                self.emit(Op::Clock64(d));
                Ok(())
            }
            _ if ty == Type::Pred => {
                let d = self.target_of(to, ty)?;
                let a = self.plain_pred(from)?;
                self.emit(Op::PredAnd(d, a, a));
                Ok(())
            }
            _ => {
                let d = self.target_of(to, ty)?;
                let a = self.source(from, ty)?;
                self.emit(if ty.bytes() == 8 { Op::Mov64(d, a) } else { Op::Mov32(d, a) });
                Ok(())
            }
        }
    }

    fn sink(&mut self, operand: &Operand) -> Result<Option<R>, PtxError> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(None),
            other => self.target(other, 0).map(Some),
        }
    }

    fn unpack(&mut self, parts: &[Operand], from: &Operand, ty: Type) -> Done {
        let a = self.source(from, ty)?;
        let sinks = parts.iter().map(|p| self.sink(p)).collect::<Result<Vec<_>, _>>()?;
        let op = match (ty.bytes(), &sinks[..]) {
            (4, &[low, high]) => Op::Unpack16(low, high, a),
            (8, &[low, high]) => Op::Unpack32(low, high, a),
            (8, &[a0, a1, a2, a3]) => Op::Unpack64x16([a0, a1, a2, a3], a),
            _ => return Err(self.error("this split of a register is not supported")),
        };
        self.emit(op);
        Ok(())
    }

    fn pack(&mut self, to: &Operand, parts: &[Operand], ty: Type) -> Done {
        let d = self.target_of(to, ty)?;
        let sources = parts.iter().map(|p| self.source32(p)).collect::<Result<Vec<_>, _>>()?;
        let op = match (ty.bytes(), &sources[..]) {
            (4, &[low, high]) => Op::Pack16(d, low, high),
            (8, &[low, high]) => Op::Pack32(d, low, high),
            (8, &[a0, a1, a2, a3]) => Op::Pack64x16(d, [a0, a1, a2, a3]),
            _ => return Err(self.error("this join of registers is not supported")),
        };
        self.emit(op);
        Ok(())
    }

    fn cvt(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let mode = mode_of(words);
        let types: Vec<Type> = words.iter().filter_map(|w| Type::parse(w)).collect();
        let &[to, from] = &types[..] else { return Err(self.unknown(words)) };
        if let Type::F16x2 | Type::BF16x2 = to {
            if from != Type::F32 {
                return Err(self.unknown(words));
            }
            let format = if to == Type::F16x2 { HalfFormat::F16 } else { HalfFormat::BF16 };
            let d = self.target(self.operand(operands, 0)?, 0)?;
            let a = self.source32(self.operand(operands, 1)?)?;
            let b = self.source32(self.operand(operands, 2)?)?;
            self.emit(Op::CvtPack(format, mode, d, a, b));
            return Ok(());
        }
        if matches!(from, Type::F16x2 | Type::BF16x2 | Type::TF32) {
            return Err(self.unknown(words));
        }
        let (wide_to, d) = self.either(self.operand(operands, 0)?, to)?;
        let (wide_from, a) = self.either(self.operand(operands, 1)?, from)?;
        self.emit(Op::Cvt(Box::new(Cvt { from, to, mode }), wide_from, wide_to, d, a));
        Ok(())
    }

    fn cvta(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let window = words.iter().find_map(|word| match *word {
            "shared" | "shared::cta" => Some(SHARED_WINDOW),
            "local" => Some(LOCAL_WINDOW),
            "param" => Some(PARAM_WINDOW),
            "global" | "const" => Some(0),
            _ => None,
        });
        let window = window.ok_or_else(|| self.unknown(words))?;
        if !words.last().is_some_and(|w| w.ends_with("64")) {
            return Err(self.unknown(words));
        }
        let d = self.target(self.operand(operands, 0)?, 1)?;
        let a = self.source64(self.operand(operands, 1)?)?;
        let window = self.const64(Value64::Bits(window));
        let op = if words.contains(&"to") { Int::Sub } else { Int::Add };
        self.emit(Op::Alu64(Alu64::U(op), d, [a, window, 0]));
        Ok(())
    }

    fn comparison(&self, words: &[&str]) -> Result<(Cmp, Option<Combine>), PtxError> {
        let cmp = match words.get(1).copied().unwrap_or("") {
            "eq" => Cmp::Eq,
            "ne" => Cmp::Ne,
            "lt" | "lo" => Cmp::Lt,
            "le" | "ls" => Cmp::Le,
            "gt" | "hi" => Cmp::Gt,
            "ge" | "hs" => Cmp::Ge,
            "equ" => Cmp::Equ,
            "neu" => Cmp::Neu,
            "ltu" => Cmp::Ltu,
            "leu" => Cmp::Leu,
            "gtu" => Cmp::Gtu,
            "geu" => Cmp::Geu,
            "num" => Cmp::Num,
            "nan" => Cmp::Nan,
            _ => return Err(self.unknown(words)),
        };
        let combine = words.iter().find_map(|word| match *word {
            "and" => Some(Combine::And),
            "or" => Some(Combine::Or),
            "xor" => Some(Combine::Xor),
            _ => None,
        });
        Ok((cmp, combine))
    }

    fn compare(&mut self, words: &[&str], operands: &[Operand], ty: Type, d: R, q: Option<R>) -> Done {
        if matches!(ty, Type::F16x2 | Type::BF16x2 | Type::Pred) {
            return Err(self.unknown(words));
        }
        let (cmp, combine) = self.comparison(words)?;
        let a = self.source(self.operand(operands, 1)?, ty)?;
        let b = self.source(self.operand(operands, 2)?, ty)?;
        let with = match combine {
            Some(combine) => {
                let (p, negated) = self.pred(self.operand(operands, 3)?)?;
                Some((combine, p, negated))
            }
            None => None,
        };
        let ftz = words.contains(&"ftz");
        self.emit(Op::Setp(Box::new(Setp { cmp, ty, ftz, d, q, a, b, with })));
        Ok(())
    }

    fn setp(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let ty = self.type_of(words)?;
        let (d, q) = match self.operand(operands, 0)? {
            Operand::Pair(d, q) => (self.target(d, 2)?, Some(self.target(q, 2)?)),
            single => (self.target(single, 2)?, None),
        };
        self.compare(words, operands, ty, d, q)
    }

    fn set(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let types: Vec<Type> = words.iter().filter_map(|w| Type::parse(w)).collect();
        let &[to, from] = &types[..] else { return Err(self.unknown(words)) };
        let ones = match to {
            Type::U32 | Type::S32 => u32::MAX,
            Type::F32 => 1f32.to_bits(),
            _ => return Err(self.unknown(words)),
        };
        let d = self.target(self.operand(operands, 0)?, 0)?;
        let p = self.fresh(Type::Pred);
        self.compare(words, operands, from, p, None)?;
        self.emit(Op::Mask(d, p, ones));
        Ok(())
    }

    fn selp(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let ty = self.type_of(words)?;
        let d = self.target_of(self.operand(operands, 0)?, ty)?;
        let mut a = self.source(self.operand(operands, 1)?, ty)?;
        let mut b = self.source(self.operand(operands, 2)?, ty)?;
        let (p, negated) = self.pred(self.operand(operands, 3)?)?;
        if negated {
            (a, b) = (b, a);
        }
        self.emit(if ty.bytes() == 8 { Op::Selp64(d, a, b, p) } else { Op::Selp32(d, a, b, p) });
        Ok(())
    }

    fn slct(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let types: Vec<Type> = words.iter().filter_map(|w| Type::parse(w)).collect();
        let &[ty, by] = &types[..] else { return Err(self.unknown(words)) };
        let d = self.target_of(self.operand(operands, 0)?, ty)?;
        let a = self.source(self.operand(operands, 1)?, ty)?;
        let b = self.source(self.operand(operands, 2)?, ty)?;
        let c = self.source32(self.operand(operands, 3)?)?;
        self.emit(Op::Slct { float: by == Type::F32, wide: ty.bytes() == 8, d, a, b, c });
        Ok(())
    }

    fn testp(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let ty = self.type_of(words)?;
        let which = match words.get(1).copied().unwrap_or("") {
            "finite" => Class::Finite,
            "infinite" => Class::Infinite,
            "number" => Class::Number,
            "notanumber" => Class::NotANumber,
            "normal" => Class::Normal,
            "subnormal" => Class::Subnormal,
            _ => return Err(self.unknown(words)),
        };
        let d = self.target(self.operand(operands, 0)?, 2)?;
        let a = self.source(self.operand(operands, 1)?, ty)?;
        self.emit(Op::Testp { which, wide: ty == Type::F64, d, a });
        Ok(())
    }

    fn isspacep(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let space = match words.get(1).copied().unwrap_or("") {
            "global" => Space::Global,
            "shared" | "shared::cta" => Space::Shared,
            "local" => Space::Local,
            "param" => Space::Param,
            _ => return Err(self.unknown(words)),
        };
        let d = self.target(self.operand(operands, 0)?, 2)?;
        let a = self.source64(self.operand(operands, 1)?)?;
        self.emit(Op::IsSpace(space, d, a));
        Ok(())
    }
}
