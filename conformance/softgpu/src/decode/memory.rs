//! Loads, stores, atomics and asynchronous copies.

use super::{Builder, Done};
use crate::isa::{Access, Atom, AtomOp, Op, Order, R, Value64};
use crate::ptx::{Operand, PtxError, Space, Type};

fn space_of(words: &[&str]) -> Space {
    let space = words.iter().find_map(|word| {
        Some(match word.split("::").next()? {
            "global" => Space::Global,
            "const" => Space::Const,
            "shared" => Space::Shared,
            "local" => Space::Local,
            "param" => Space::Param,
            _ => return None,
        })
    });
    space.unwrap_or(Space::Generic)
}

fn order_of(words: &[&str], default: Order) -> Order {
    let order = words.iter().find_map(|word| {
        Some(match *word {
            "weak" => Order::Weak,
            "volatile" | "relaxed" | "mmio" => Order::Relaxed,
            "acquire" => Order::Acquire,
            "release" => Order::Release,
            "acq_rel" => Order::AcqRel,
            _ => return None,
        })
    });
    order.unwrap_or(default)
}

impl Builder<'_> {
    pub(super) fn memory(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        match words[0] {
            "ld" | "ldu" => self.load_store(words, self.operand(operands, 1)?, self.operand(operands, 0)?, true),
            "st" => self.load_store(words, self.operand(operands, 0)?, self.operand(operands, 1)?, false),
            "atom" | "red" => self.atomic(words, operands),
            "cp" => self.copy(words, operands),
            "ldmatrix" => self.ldmatrix(words, operands),
            "createpolicy" => {
                let d = self.target(self.operand(operands, 0)?, 1)?;
                let zero = self.const64(Value64::Bits(0));
                self.emit(Op::Mov64(d, zero));
                Ok(())
            }
            _ => {
                self.emit(Op::Nop);
                Ok(())
            }
        }
    }

    fn load_store(&mut self, words: &[&str], address: &Operand, data: &Operand, load: bool) -> Done {
        let ty = self.type_of(words)?;
        let single = std::slice::from_ref(data);
        let data = if let Operand::Vector(list) = data { list } else { single };
        let count = if words.contains(&"v4") {
            4
        } else if words.contains(&"v2") {
            2
        } else {
            1
        };
        if data.len() != count || ty.bytes() as usize * count > 16 || matches!(ty, Type::Pred | Type::B128) {
            return Err(self.unknown(words));
        }
        let (mut regs, mut wide) = ([0; 4], ty.bytes() == 8);
        for (i, operand) in data.iter().enumerate() {
            let (this, reg) = self.loaded(operand, ty, load)?;
            if i > 0 && this != wide {
                return Err(self.error("the registers of a vector must be of one size"));
            }
            (wide, regs[i]) = (this, reg);
        }
        let (addr, of_variable) = self.address(address)?;
        let mut space = space_of(words);
        if space == Space::Param
            && let Some(real) = of_variable
        {
            space = real;
        }
        let access = Box::new(Access {
            space,
            bytes: ty.bytes(),
            count: count as u32,
            signed: ty.signed(),
            wide,
            regs,
            addr,
            order: order_of(words, Order::Weak),
        });
        self.emit(if load { Op::Load(access) } else { Op::Store(access) });
        Ok(())
    }

    fn loaded(&mut self, operand: &Operand, ty: Type, load: bool) -> Result<(bool, R), PtxError> {
        if load && *operand == Operand::Name("_".into()) {
            let r = self.fresh(ty);
            return Ok((ty.bytes() == 8, r));
        }
        self.either(operand, ty)
    }

    fn atomic(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let ty = self.type_of(words)?;
        let op = words.iter().find_map(|word| {
            Some(match *word {
                "add" => AtomOp::Add,
                "min" => AtomOp::Min,
                "max" => AtomOp::Max,
                "and" => AtomOp::And,
                "or" => AtomOp::Or,
                "xor" => AtomOp::Xor,
                "exch" => AtomOp::Exch,
                "cas" => AtomOp::Cas,
                "inc" => AtomOp::Inc,
                "dec" => AtomOp::Dec,
                _ => return None,
            })
        });
        let op = op.ok_or_else(|| self.unknown(words))?;
        let narrow = matches!(ty, Type::B8 | Type::U8 | Type::S8 | Type::U16 | Type::S16);
        if words.contains(&"v2") || words.contains(&"v4") || narrow || matches!(ty, Type::B128 | Type::Pred) {
            return Err(self.unknown(words));
        }
        let first = usize::from(words[0] == "atom");
        let d = if first == 1 { Some(self.target_of(self.operand(operands, 0)?, ty)?) } else { None };
        let (addr, _) = self.address(self.operand(operands, first)?)?;
        let a = self.source(self.operand(operands, first + 1)?, ty)?;
        let b = if op == AtomOp::Cas { self.source(self.operand(operands, first + 2)?, ty)? } else { a };
        let order = order_of(words, Order::Relaxed);
        self.emit(Op::Atom(Box::new(Atom { op, ty, space: space_of(words), addr, d, a, b, order })));
        Ok(())
    }

    fn copy(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        if words.get(1) != Some(&"async") {
            return Err(self.unknown(words));
        }
        match words.get(2).copied().unwrap_or("") {
            "commit_group" => self.emit(Op::CpCommit),
            "wait_all" => self.emit(Op::CpWait(None)),
            "wait_group" => match self.operand(operands, 0)? {
                Operand::Int(n) => self.emit(Op::CpWait(Some(*n as u32))),
                _ => return Err(self.error("`wait_group` takes a number")),
            },
            "ca" | "cg" => return self.copy_async(words, operands),
            _ => return Err(self.unknown(words)),
        }
        Ok(())
    }

    fn copy_async(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let (dst, _) = self.address(self.operand(operands, 0)?)?;
        let (src, _) = self.address(self.operand(operands, 1)?)?;
        let bytes = match self.operand(operands, 2)? {
            Operand::Int(n) => *n as u32,
            _ => return Err(self.error("the size of an asynchronous copy must be a number")),
        };
        if !matches!(bytes, 4 | 8 | 16) || words[2] == "cg" && bytes != 16 {
            return Err(self.error(format!("an asynchronous copy of {bytes} bytes")));
        }
        let hint = words.iter().any(|w| w.contains("cache_hint"));
        let extra = operands.get(3).filter(|_| operands.len() > 3 + usize::from(hint));
        let (mut src_bytes, mut ignore) = (None, None);
        match extra {
            None => {}
            Some(Operand::Not(_)) => ignore = Some(self.pred(&operands[3])?),
            Some(operand) => match self.source32(operand) {
                Ok(r) => src_bytes = Some(r),
                Err(_) => ignore = Some(self.pred(operand)?),
            },
        }
        self.emit(Op::CpAsync { dst, src, bytes, src_bytes, ignore });
        Ok(())
    }

    fn ldmatrix(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let count = match (words.contains(&"m8n8"), words.contains(&"x2"), words.contains(&"x4")) {
            (true, false, false) => 1,
            (true, true, false) => 2,
            (true, false, true) => 4,
            _ => return Err(self.unknown(words)),
        };
        if words.last() != Some(&"b16") {
            return Err(self.unknown(words));
        }
        let Operand::Vector(list) = self.operand(operands, 0)? else {
            return Err(self.error("`ldmatrix` loads a vector"));
        };
        if list.len() != count {
            return Err(self.error(format!("`ldmatrix` needs {count} registers")));
        }
        let mut regs = [0; 4];
        for (reg, operand) in regs.iter_mut().zip(list) {
            *reg = self.target(operand, 0)?;
        }
        let (addr, _) = self.address(self.operand(operands, 1)?)?;
        let trans = words.contains(&"trans");
        self.emit(Op::Ldmatrix { count: count as u32, trans, regs, addr, space: space_of(words) });
        Ok(())
    }
}
