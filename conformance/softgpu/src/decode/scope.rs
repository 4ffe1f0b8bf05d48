//! Names: registers, variables, labels, and the scopes that hold them.

use std::collections::HashMap;

use super::{Builder, Done, file_of};
use crate::isa::{Address, Op, R, Special, Value32, Value64};
use crate::ptx::{Operand, PtxError, Registers, Space, Type, Variable};

/// Registers of one file that a kernel may declare, and bytes of shared or local memory.
const MOST_REGISTERS: usize = 1 << 18;
const MOST_BYTES: u32 = 1 << 24;

/// A register: its type's file and its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reg {
    pub(super) file: usize,
    pub(super) index: R,
}

/// A variable with a fixed place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) space: Space,
    /// `None`: the dynamic shared memory.
    pub(super) offset: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) id: usize,
    /// Names outside aren't seen from here.
    opaque: bool,
    registers: HashMap<String, Reg>,
    /// `%r<9>`: prefix, file, first index, count.
    ranges: Vec<(String, usize, R, u32)>,
    pub(super) places: HashMap<String, Place>,
    targets: HashMap<String, Vec<String>>,
}

impl Builder<'_> {
    pub(super) fn open(&mut self, opaque: bool) {
        let id = self.parents.len();
        self.parents.push(self.scopes.last().map_or(id, |s| s.id));
        self.scopes.push(Scope { id, opaque, ..Scope::default() });
    }

    fn here(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.open(true);
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    pub(super) fn label(&mut self, name: String) {
        let scope = self.here().id;
        self.labels.insert((scope, name), self.kernel.code.len() as u32);
    }

    pub(super) fn targets(&mut self, name: String, targets: Vec<String>) {
        self.here().targets.insert(name, targets);
    }

    /// Remembers that the instruction to be emitted next jumps to `name`.
    pub(super) fn jump(&mut self, slot: usize, name: &str) {
        let scope = self.here().id;
        self.jumps.push((self.kernel.code.len(), slot, scope, name.to_owned(), self.line));
    }

    pub(super) fn table(&self, name: &str) -> Option<Vec<String>> {
        self.visible().find_map(|s| s.targets.get(name).cloned())
    }

    pub(super) fn registers(&mut self, registers: &Registers) -> Done {
        let file = file_of(registers.ty);
        if self.kernel.files[file] + registers.count.unwrap_or(1) as usize > MOST_REGISTERS {
            return Err(self.error(format!("more than {MOST_REGISTERS} registers")));
        }
        let base = self.kernel.files[file] as R;
        self.kernel.files[file] += registers.count.unwrap_or(1) as usize;
        let scope = self.here();
        match registers.count {
            Some(count) => scope.ranges.push((registers.name.clone(), file, base, count)),
            None => drop(scope.registers.insert(registers.name.clone(), Reg { file, index: base })),
        }
        Ok(())
    }

    pub(super) fn declare_at(&mut self, name: &str, space: Space, offset: u32) {
        self.declare(name, Place { space, offset: Some(offset) });
    }

    pub(super) fn declare(&mut self, name: &str, place: Place) {
        self.here().places.insert(name.to_owned(), place);
    }

    /// A variable declared in a body.
    pub(super) fn variable(&mut self, variable: &Variable) -> Done {
        let place = self.place(variable)?;
        self.declare(&variable.name, place);
        Ok(())
    }

    /// Gives a variable exactly the alignment it declares and no more, so that code which relies on luck is found out.
    fn place(&mut self, variable: &Variable) -> Result<Place, PtxError> {
        let size = u32::try_from(variable.size).ok().filter(|&n| n <= MOST_BYTES);
        let size = size.ok_or_else(|| self.error(format!("`{}` is larger than {MOST_BYTES} bytes", variable.name)))?;
        if self.kernel.shared > MOST_BYTES || self.kernel.local > MOST_BYTES {
            return Err(self.error(format!("more than {MOST_BYTES} bytes of variables")));
        }
        match variable.space {
            Space::Shared if variable.dynamic => {
                self.kernel.dynamic = self.kernel.dynamic.max(variable.align);
                Ok(Place { space: Space::Shared, offset: None })
            }
            Space::Shared => {
                let start = just_aligned(self.kernel.shared + 4, variable.align);
                self.kernel.holes.push((self.kernel.shared, start));
                self.kernel.shared = start + size;
                Ok(Place { space: Space::Shared, offset: Some(start) })
            }
            // A function's own `.param` variables live with the thread, as its local ones do.
            Space::Local | Space::Param => {
                let start = just_aligned(self.kernel.local, variable.align);
                self.kernel.local = start + size;
                Ok(Place { space: Space::Local, offset: Some(start) })
            }
            _ => Err(self.error(format!("`{}`: this kind of variable belongs outside functions", variable.name))),
        }
    }

    fn visible(&self) -> impl Iterator<Item = &Scope> {
        let outermost = self.scopes.iter().rposition(|s| s.opaque).unwrap_or(0);
        self.scopes[outermost..].iter().rev()
    }

    fn find_register(&self, name: &str) -> Option<Reg> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, number) = name.split_at(name.len() - digits);
        let number = number.parse::<u32>().ok();
        self.visible().find_map(|scope| {
            scope.registers.get(name).copied().or_else(|| {
                let number = number?;
                let found = scope.ranges.iter().find(|(p, _, _, count)| p == prefix && number < *count);
                found.map(|&(_, file, base, _)| Reg { file, index: base + number })
            })
        })
    }

    /// A register by its name; special ones become constants.
    pub(super) fn register(&mut self, name: &str) -> Result<Reg, PtxError> {
        if let Some(reg) = self.find_register(name) {
            return Ok(reg);
        }
        if let Some(special) = special(name) {
            return Ok(Reg { file: 0, index: self.value32(Value32::Special(special)) });
        }
        match name {
            "%gridid" => Ok(Reg { file: 1, index: self.const64(Value64::Bits(1)) }),
            _ if name.starts_with("%envreg") => Ok(Reg { file: 0, index: self.const32(0) }),
            _ => Err(self.error(format!("`{name}` is not declared"))),
        }
    }

    /// A destination: a register of that file.
    pub(super) fn target(&mut self, operand: &Operand, file: usize) -> Result<R, PtxError> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(self.fresh([Type::B32, Type::B64, Type::Pred][file])),
            Operand::Name(name) => {
                let reg = self.register(name)?;
                if reg.file == file {
                    return Ok(reg.index);
                }
                Err(self.error(format!("`{name}` has the wrong size for this instruction")))
            }
            other => Err(self.error(format!("{other:?} is not a register"))),
        }
    }

    pub(super) fn target_of(&mut self, operand: &Operand, ty: Type) -> Result<R, PtxError> {
        self.target(operand, file_of(ty))
    }

    /// Source of up to 32 bits.
    pub(super) fn source32(&mut self, operand: &Operand) -> Result<R, PtxError> {
        match operand {
            Operand::Int(n) => Ok(self.const32(*n as u32)),
            Operand::F32(bits) => Ok(self.const32(*bits)),
            Operand::F64(bits) => Ok(self.const32((f64::from_bits(*bits) as f32).to_bits())),
            Operand::Name(name) if self.find_register(name).is_none() && special(name).is_none() => {
                let place = self.find_place(name)?;
                Ok(match place.and_then(|p| p.offset) {
                    Some(offset) => self.const32(offset),
                    None if place.is_some() => self.value32(Value32::Dynamic),
                    None => return Err(self.error(format!("`{name}` is not declared"))),
                })
            }
            other => self.target(other, 0),
        }
    }

    /// Source of 64 bits.
    pub(super) fn source64(&mut self, operand: &Operand) -> Result<R, PtxError> {
        match operand {
            Operand::Int(n) => Ok(self.const64(Value64::Bits(*n))),
            Operand::F64(bits) => Ok(self.const64(Value64::Bits(*bits))),
            Operand::F32(bits) => Ok(self.const64(Value64::Bits(f64::from(f32::from_bits(*bits)).to_bits()))),
            Operand::Name(name) if self.find_register(name).is_none() && !name.starts_with('%') => {
                self.address_of(name)
            }
            other => self.target(other, 1),
        }
    }

    /// The address of a variable, within its space.
    fn address_of(&mut self, name: &str) -> Result<R, PtxError> {
        let value = match self.find_place(name)? {
            Some(Place { offset: Some(offset), .. }) => Value64::Bits(u64::from(offset)),
            Some(_) => Value64::Dynamic,
            None => Value64::Symbol(name.to_owned()),
        };
        if matches!(value, Value64::Symbol(_)) && !self.unit.variables.iter().any(|v| v.name == name) {
            return Err(self.error(format!("`{name}` is not declared")));
        }
        Ok(self.const64(value))
    }

    pub(super) fn source(&mut self, operand: &Operand, ty: Type) -> Result<R, PtxError> {
        match (file_of(ty), operand) {
            (0, Operand::Int(n)) if ty.bytes() == 2 => Ok(self.const32(u32::from(*n as u16))),
            (0, _) => self.source32(operand),
            (1, _) => self.source64(operand),
            _ => self.pred(operand).and_then(|(p, negated)| {
                if negated { Err(self.error("a negated predicate can't stand here")) } else { Ok(p) }
            }),
        }
    }

    /// A register of either size: whether it is wide, and its number.
    pub(super) fn either(&mut self, operand: &Operand, ty: Type) -> Result<(bool, R), PtxError> {
        if let Operand::Name(name) = operand
            && let Some(reg) = self.find_register(name)
            && reg.file < 2
        {
            return Ok((reg.file == 1, reg.index));
        }
        Ok((file_of(ty) == 1, self.source(operand, ty)?))
    }

    /// A predicate and whether it is negated; `1` and `0` are allowed.
    pub(super) fn pred(&mut self, operand: &Operand) -> Result<(R, bool), PtxError> {
        match operand {
            Operand::Not(inner) => self.pred(inner).map(|(p, negated)| (p, !negated)),
            Operand::Int(n) => Ok((0, *n == 0)),
            Operand::Name(name) => Ok((self.pred_name(name)?, false)),
            other => Err(self.error(format!("{other:?} is not a predicate"))),
        }
    }

    pub(super) fn pred_name(&mut self, name: &str) -> Result<R, PtxError> {
        if name == "%pt" {
            return Ok(0);
        }
        self.target(&Operand::Name(name.to_owned()), 2)
    }

    /// A variable visible here; shared ones of the module get their place at first use.
    pub(super) fn find_place(&mut self, name: &str) -> Result<Option<Place>, PtxError> {
        let found = self.visible().find_map(|s| s.places.get(name).copied());
        if found.is_some() {
            return Ok(found);
        }
        let unit = self.unit;
        let Some(variable) = unit.variables.iter().find(|v| v.name == name && v.space == Space::Shared) else {
            return Ok(None);
        };
        if let Some(place) = self.scopes.first().and_then(|s| s.places.get(name).copied()) {
            return Ok(Some(place));
        }
        let place = self.place(variable)?;
        if let Some(outer) = self.scopes.first_mut() {
            outer.places.insert(name.to_owned(), place);
        }
        Ok(Some(place))
    }

    /// `[register+8]`, `[variable+8]`, `[4096]`; and the space, if the variable decides it.
    pub(super) fn address(&mut self, operand: &Operand) -> Result<(Address, Option<Space>), PtxError> {
        let Operand::Address(parts, offset) = operand else {
            return Err(self.error(format!("{operand:?} is not an address")));
        };
        let base = self.operand(parts, 0)?;
        let offset = *offset;
        if let Operand::Name(name) = base {
            if let Some(reg) = self.find_register(name) {
                return Ok((Address { base: reg.index, wide: reg.file == 1, offset }, None));
            }
            let space = self.find_place(name)?.map(|p| p.space);
            return Ok((Address { base: self.address_of(name)?, wide: true, offset }, space));
        }
        Ok((Address { base: self.source64(base)?, wide: true, offset }, None))
    }

    /// A jump without condition to `name`.
    pub(super) fn branch(&mut self, name: &str) {
        self.jump(0, name);
        self.emit(Op::Bra(0));
    }
}

/// The first offset from `at` on that is a multiple of `align` and of no greater power of two (from 16 on, any multiple).
pub(crate) fn just_aligned(at: u32, align: u32) -> u32 {
    let start = at.next_multiple_of(align);
    if start.is_multiple_of(2 * align) { start + align } else { start }
}

fn special(name: &str) -> Option<Special> {
    let axis = |suffix: &str| match suffix {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let name = name.strip_prefix('%')?;
    if let Some((stem, suffix)) = name.split_once('.') {
        let axis = axis(suffix)?;
        return Some(match stem {
            "tid" => Special::Tid(axis),
            "ntid" => Special::Ntid(axis),
            "ctaid" => Special::Ctaid(axis),
            "nctaid" => Special::Nctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "laneid" => Special::LaneId,
        "warpid" => Special::WarpId,
        "nwarpid" => Special::NWarpId,
        "smid" => Special::SmId,
        "nsmid" => Special::NSmId,
        "lanemask_eq" => Special::MaskEq,
        "lanemask_le" => Special::MaskLe,
        "lanemask_lt" => Special::MaskLt,
        "lanemask_ge" => Special::MaskGe,
        "lanemask_gt" => Special::MaskGt,
        "dynamic_smem_size" => Special::DynamicShared,
        "total_smem_size" => Special::TotalShared,
        _ if name == "WARP_SZ" => Special::WarpSize,
        _ => return None,
    })
}
