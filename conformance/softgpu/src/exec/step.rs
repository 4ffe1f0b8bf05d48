//! The loop that fetches and executes.

use super::asynchronous::Order;
use super::sync::Gather;
use super::{Block, Machine, Stop, Warp, fault};
use crate::fault::{FaultKind, Outcome};
use crate::isa::Op;

/// What the loop does after an instruction.
enum Next {
    Go,
    Jump(u32),
    /// The groups have changed.
    Choose,
    Pause,
}

/// A warp's turn, to be compiled for the machine's vectors: calling into vector code for every instruction would cost more
/// than most of them do.
struct Turn<'t, 'm> {
    warp: &'t mut Warp,
    machine: &'t mut Machine<'m>,
    block: &'t mut Block,
    quantum: u64,
}

impl pulp::WithSimd for Turn<'_, '_> {
    type Output = Outcome<Stop>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> Outcome<Stop> {
        self.warp.take_turn(self.machine, self.block, self.quantum)
    }
}

impl Warp {
    /// Runs until the warp is done, can't go on, or has executed `quantum` instructions.
    pub(crate) fn run(&mut self, machine: &mut Machine, block: &mut Block, quantum: u64) -> Outcome<Stop> {
        machine.arch.dispatch(Turn { warp: self, machine, block, quantum })
    }

    #[inline(always)]
    fn take_turn(&mut self, m: &mut Machine, b: &mut Block, quantum: u64) -> Outcome<Stop> {
        let end = m.steps + quantum;
        loop {
            let Some((group, limit)) = self.choose() else {
                if self.groups.is_empty() {
                    return Ok(Stop::Done);
                }
                self.stuck()?;
                return Ok(Stop::Blocked);
            };
            if self.straight(m, b, group, limit, end)? {
                return Ok(Stop::Paused);
            }
        }
    }

    /// Executes the group until the groups change or it meets another; `true` to stop the warp.
    #[inline(always)]
    fn straight(&mut self, m: &mut Machine, b: &mut Block, group: usize, limit: u32, end: u64) -> Outcome<bool> {
        let code = &m.kernel.code;
        let mut pc = self.groups[group].pc;
        let mask = self.groups[group].mask;
        loop {
            if pc == limit || m.steps >= end {
                self.groups[group].pc = pc;
                return Ok(pc != limit);
            }
            let ins = &code[pc as usize];
            m.steps += 1;
            self.at = ins.line;
            let mut active = mask;
            if ins.guard != 0 || ins.negate {
                let p = self.preds[ins.guard as usize];
                active &= if ins.negate { !p } else { p };
            }
            m.lanes += u64::from(active.count_ones());
            if active == 0 {
                pc += 1;
                continue;
            }
            match &ins.op {
                Op::Alu32(op, d, s) => self.alu32(*op, *d, *s, active),
                Op::Alu64(op, d, s) => self.alu64(*op, *d, *s, active),
                Op::Setp(s) => self.setp(s, active),
                Op::Load(access) => self.load(m, b, access, active)?,
                Op::Store(access) => self.store(m, b, access, active)?,
                Op::Cvt(cvt, from, to, d, a) => self.cvt(**cvt, *from, *to, *d, *a, active),
                op => {
                    if !self.compute(op, active) {
                        self.groups[group].pc = pc;
                        match self.special(m, b, group, op, active)? {
                            Next::Go => {}
                            Next::Jump(to) => {
                                if to <= pc && limit != u32::MAX {
                                    self.groups[group].laps += 1;
                                    self.groups[group].pc = to;
                                    return Ok(false);
                                }
                                pc = to;
                                continue;
                            }
                            Next::Choose => return Ok(false),
                            Next::Pause => {
                                self.groups[group].pc = pc + 1;
                                return Ok(true);
                            }
                        }
                    }
                }
            }
            pc += 1;
            if m.spins > 0 && m.spins.is_multiple_of(16) && matches!(ins.op, Op::Load(_)) {
                // Perhaps it waits for somebody: let others run.
                self.groups[group].pc = pc;
                return Ok(true);
            }
        }
    }

    fn special(&mut self, m: &mut Machine, b: &mut Block, group: usize, op: &Op, active: u32) -> Outcome<Next> {
        let mask = self.groups[group].mask;
        match *op {
            Op::Bra(to) if active == mask => return Ok(Next::Jump(to)),
            Op::Bra(to) => {
                let pc = self.groups[group].pc;
                self.groups[group].laps += u32::from(to <= pc);
                self.groups[group].pc = pc + 1;
                self.diverge(group, active, to);
                return Ok(Next::Choose);
            }
            Op::Brx(ref table, index) => return self.indexed(group, table, index, active),
            Op::Exit => {
                self.groups[group].pc += 1;
                self.exit(group, active);
                return Ok(Next::Choose);
            }
            Op::Trap => return fault(FaultKind::Trap, active, "the kernel trapped"),
            Op::Yield => {
                m.spins += 1;
                return Ok(Next::Pause);
            }
            Op::Fence => self.clocks.fence(),
            Op::Clock32(d) => self.set32(d, &[m.steps as u32; 32], active),
            Op::Clock64(d) => self.set64(d, &[m.steps; 32], active),
            Op::ActiveMask(d) => self.set32(d, &[active; 32], active),
            Op::IsSpace(space, d, a) => self.is_space(space, d, a, active),
            Op::Testp { which, wide, d, a } => self.testp(which, wide, d, a, active),
            Op::Atom(ref atom) => {
                self.atom(m, b, atom, active)?;
                return Ok(if m.spins > 0 { Next::Pause } else { Next::Go });
            }
            Op::CpAsync { dst, src, bytes, src_bytes, ignore } => {
                self.copy_async(m, b, &Order { dst, src, bytes, src_bytes, ignore }, active)?;
            }
            Op::CpCommit => self.commit(active),
            Op::CpWait(pending) => self.wait(m, b, pending, active)?,
            _ => return self.together(m, b, group, op, active),
        }
        Ok(Next::Go)
    }

    /// Instructions that several lanes execute together.
    fn together(&mut self, m: &mut Machine, b: &mut Block, group: usize, op: &Op, active: u32) -> Outcome<Next> {
        let pc = self.groups[group].pc;
        if active != self.groups[group].mask {
            // Those whose guard is false go on; the others meet here.
            let passing = self.groups[group].mask & !active;
            self.diverge(group, passing, pc + 1);
        }
        let several = self.groups.len() > 1;
        let mut waits = false;
        match *op {
            Op::Shfl { members, .. }
            | Op::Vote { members, .. }
            | Op::Match { members, .. }
            | Op::Redux(_, _, _, _, members)
            | Op::Elect { members, .. }
            | Op::SyncWarp(members) => {
                if self.gather(group, members, active)? == Gather::Wait {
                    return Ok(Next::Choose);
                }
                self.collective(op, active)?;
            }
            Op::Ldmatrix { count, trans, regs, addr, space } => {
                if self.whole(group, active, "`ldmatrix`")? == Gather::Wait {
                    return Ok(Next::Choose);
                }
                self.ldmatrix(m, b, count as usize, trans, regs, addr, space)?;
            }
            Op::Mma(ref mma) => {
                if self.whole(group, active, "`mma.sync`")? == Gather::Wait {
                    return Ok(Next::Choose);
                }
                crate::tensor::mma(mma, m.arch, &mut self.r32, &mut self.r64);
            }
            Op::Movmatrix(d, a) => {
                if self.whole(group, active, "`movmatrix`")? == Gather::Wait {
                    return Ok(Next::Choose);
                }
                self.movmatrix(d, a);
            }
            Op::Bar(ref bar) => waits = self.bar(m, b, group, bar, active)?,
            _ => {}
        }
        if waits {
            return Ok(Next::Choose);
        }
        if several {
            self.groups[group].pc = pc + 1;
            return Ok(Next::Choose);
        }
        Ok(Next::Go)
    }

    fn indexed(&mut self, group: usize, table: &[u32], index: u32, active: u32) -> Outcome<Next> {
        let index = self.r32[index as usize];
        let pc = self.groups[group].pc;
        self.groups[group].pc = pc + 1;
        let mut rest = active;
        while rest != 0 {
            let chosen = index[rest.trailing_zeros() as usize];
            let same = super::lanes(rest).filter(|&l| index[l] == chosen).fold(0, |all, l| all | 1 << l);
            let Some(&to) = table.get(chosen as usize) else {
                return fault(FaultKind::Trap, same, format!("entry {chosen} of a table of {} labels", table.len()));
            };
            self.diverge(group, same, to);
            rest &= !same;
        }
        if self.groups[group].mask == 0 {
            self.groups.swap_remove(group);
        }
        Ok(Next::Choose)
    }
}
