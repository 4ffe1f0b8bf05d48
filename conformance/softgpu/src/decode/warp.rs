//! Control flow, and what a warp does together.

use super::{Builder, Done};
use crate::isa::{AtomOp, Bar, Barrier, Mma, MmaShape, Op, R, Shuffle, Vote};
use crate::ptx::{Operand, PtxError, Type};

impl Builder<'_> {
    pub(super) fn warp(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        match words[0] {
            "bra" => match self.operand(operands, 0)? {
                Operand::Name(name) => self.branch(name),
                _ => return Err(self.error("`bra` takes a label")),
            },
            "brx" => return self.indexed(operands),
            "ret" => self.ret(),
            "exit" => self.emit(Op::Exit),
            "trap" | "brkpt" => self.emit(Op::Trap),
            "nanosleep" => self.emit(Op::Yield),
            "griddepcontrol" | "setmaxnreg" | "pmevent" => self.emit(Op::Nop),
            "membar" => self.emit(Op::Fence),
            "fence" => self.fence(words)?,
            "bar" | "barrier" => return self.barrier(words, operands),
            "mma" => return self.mma(words, operands),
            "movmatrix" => {
                let d = self.target(self.operand(operands, 0)?, 0)?;
                let a = self.source32(self.operand(operands, 1)?)?;
                self.emit(Op::Movmatrix(d, a));
            }
            _ => return self.collective(words, operands),
        }
        Ok(())
    }

    fn fence(&mut self, words: &[&str]) -> Done {
        match words.get(1).copied().unwrap_or("") {
            "sc" | "acq_rel" | "acquire" | "release" => self.emit(Op::Fence),
            _ => return Err(self.unknown(words)),
        }
        Ok(())
    }

    fn indexed(&mut self, operands: &[Operand]) -> Done {
        let index = self.source32(self.operand(operands, 0)?)?;
        let Operand::Name(name) = self.operand(operands, 1)? else {
            return Err(self.error("`brx.idx` takes a table"));
        };
        let table = self.table(name).ok_or_else(|| self.error(format!("no table `{name}`")))?;
        for (slot, target) in table.iter().enumerate() {
            self.jump(slot, target);
        }
        self.emit(Op::Brx(vec![0; table.len()].into(), index));
        Ok(())
    }

    fn barrier(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        if words.get(1) == Some(&"warp") {
            let members = self.source32(self.operand(operands, 0)?)?;
            self.emit(Op::SyncWarp(members));
            return Ok(());
        }
        let aligned = words[0] == "bar" || words.contains(&"aligned");
        if words.contains(&"cluster") {
            return Err(self.unknown(words));
        }
        let kind = if words.contains(&"sync") {
            Barrier::Sync
        } else if words.contains(&"arrive") {
            Barrier::Arrive
        } else if words.contains(&"popc") {
            Barrier::Popc
        } else if words.contains(&"and") {
            Barrier::And
        } else if words.contains(&"or") {
            Barrier::Or
        } else {
            return Err(self.unknown(words));
        };
        let reduces = matches!(kind, Barrier::Popc | Barrier::And | Barrier::Or);
        let first = usize::from(reduces);
        let d = match kind {
            Barrier::Popc => self.target(self.operand(operands, 0)?, 0)?,
            Barrier::And | Barrier::Or => self.target(self.operand(operands, 0)?, 2)?,
            _ => 0,
        };
        let id = self.source32(self.operand(operands, first)?)?;
        let last = operands.len() - usize::from(reduces);
        let count = if last > first + 1 { Some(self.source32(&operands[first + 1])?) } else { None };
        let pred = if reduces { Some(self.pred(self.operand(operands, last)?)?) } else { None };
        if kind == Barrier::Arrive && count.is_none() {
            return Err(self.error("`arrive` needs a number of threads"));
        }
        self.emit(Op::Bar(Box::new(Bar { kind, aligned, id, count, pred, d })));
        Ok(())
    }

    /// A destination with or without a predicate beside it.
    fn with_pred(&mut self, operand: &Operand, file: usize) -> Result<(R, Option<R>), PtxError> {
        match operand {
            Operand::Pair(d, p) => Ok((self.target(d, file)?, Some(self.target(p, 2)?))),
            single => Ok((self.target(single, file)?, None)),
        }
    }

    fn collective(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let first = self.operand(operands, 0)?;
        if words[0] == "activemask" {
            let d = self.target(first, 0)?;
            self.emit(Op::ActiveMask(d));
            return Ok(());
        }
        if words.get(1) != Some(&"sync") && words.get(2) != Some(&"sync") {
            return Err(self.error(format!("`{}` without `.sync` left the language with PTX 6.4", words.join("."))));
        }
        let members = operands.last().ok_or_else(|| self.unknown(words))?;
        let members = self.source32(members)?;
        let op = match words[0] {
            "shfl" => {
                let mode = match words.get(2).copied().unwrap_or("") {
                    "up" => Shuffle::Up,
                    "down" => Shuffle::Down,
                    "bfly" => Shuffle::Bfly,
                    "idx" => Shuffle::Idx,
                    _ => return Err(self.unknown(words)),
                };
                let (d, p) = self.with_pred(first, 0)?;
                let a = self.source32(self.operand(operands, 1)?)?;
                let b = self.source32(self.operand(operands, 2)?)?;
                let c = self.source32(self.operand(operands, 3)?)?;
                Op::Shfl { mode, d, p, a, b, c, members }
            }
            "vote" => {
                let (kind, file) = match words.get(2).copied().unwrap_or("") {
                    "all" => (Vote::All, 2),
                    "any" => (Vote::Any, 2),
                    "uni" => (Vote::Uni, 2),
                    "ballot" => (Vote::Ballot, 0),
                    _ => return Err(self.unknown(words)),
                };
                let d = self.target(first, file)?;
                let (p, negate) = self.pred(self.operand(operands, 1)?)?;
                Op::Vote { kind, d, p, negate, members }
            }
            "match" => {
                let ty = self.type_of(words)?;
                let (d, p) = self.with_pred(first, 0)?;
                let a = self.source(self.operand(operands, 1)?, ty)?;
                Op::Match { all: words[1] == "all", wide: ty.bytes() == 8, d, p, a, members }
            }
            "redux" => {
                let op = match words.get(2).copied().unwrap_or("") {
                    "add" => AtomOp::Add,
                    "min" => AtomOp::Min,
                    "max" => AtomOp::Max,
                    "and" => AtomOp::And,
                    "or" => AtomOp::Or,
                    "xor" => AtomOp::Xor,
                    _ => return Err(self.unknown(words)),
                };
                let ty = self.type_of(words)?;
                if ty.bytes() != 4 || ty.float() {
                    return Err(self.unknown(words));
                }
                let d = self.target(first, 0)?;
                let a = self.source32(self.operand(operands, 1)?)?;
                Op::Redux(op, ty.signed(), d, a, members)
            }
            "elect" => match first {
                Operand::Pair(d, p) => Op::Elect { d: Some(self.target(d, 0)?), p: self.target(p, 2)?, members },
                _ => return Err(self.unknown(words)),
            },
            _ => return Err(self.unknown(words)),
        };
        self.emit(op);
        Ok(())
    }

    fn mma(&mut self, words: &[&str], operands: &[Operand]) -> Done {
        let shape = match words.get(3).copied().unwrap_or("") {
            "m16n8k4" => MmaShape::M16N8K4,
            "m16n8k8" => MmaShape::M16N8K8,
            "m16n8k16" => MmaShape::M16N8K16,
            "m16n8k32" => MmaShape::M16N8K32,
            "m8n8k4" => MmaShape::M8N8K4,
            _ => return Err(self.unknown(words)),
        };
        let types: Vec<Type> = words.iter().filter_map(|w| Type::parse(w)).collect();
        let &[d_type, a_type, b_type, c_type] = &types[..] else { return Err(self.unknown(words)) };
        let layout = words.contains(&"row") && words.contains(&"col");
        if !layout || d_type != c_type || words.iter().any(|w| w.starts_with("kind") || w.starts_with("sp")) {
            return Err(self.unknown(words));
        }
        let mut sets = Vec::new();
        for i in 0..4 {
            let single = std::slice::from_ref(self.operand(operands, i)?);
            let list = if let Operand::Vector(list) = &single[0] { &list[..] } else { single };
            let file = usize::from([d_type, a_type, b_type, c_type][i] == Type::F64);
            let read = |b: &mut Self, o: &Operand| match (i, file) {
                (0, _) => b.target(o, file),
                (_, 0) => b.source32(o),
                _ => b.source64(o),
            };
            sets.push(list.iter().map(|o| read(self, o)).collect::<Result<Vec<_>, _>>()?);
        }
        let wanted = crate::tensor::registers(shape, a_type, b_type, c_type).ok_or_else(|| self.unknown(words))?;
        let lengths = [sets[0].len(), sets[1].len(), sets[2].len(), sets[3].len()];
        if lengths != [wanted[2], wanted[0], wanted[1], wanted[2]] {
            return Err(self.error(format!("this `mma` takes {wanted:?} registers for a, b and c")));
        }
        let mut sets = sets.into_iter();
        let mut next = || sets.next().unwrap_or_default();
        let (d, a, b, c) = (next(), next(), next(), next());
        let saturate = words.contains(&"satfinite");
        self.emit(Op::Mma(Box::new(Mma { a_type, b_type, c_type, saturate, d, a, b, c })));
        Ok(())
    }
}
