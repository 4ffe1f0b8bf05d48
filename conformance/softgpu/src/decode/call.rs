//! Calls, expanded in place: every call is its own copy of the function's body.

use super::{Builder, Done};
use crate::isa::{Ins, Op};
use crate::ptx::Operand;

impl Builder<'_> {
    /// `call (result), name, (arguments);` in any of its shorter forms.
    pub(super) fn call(&mut self, operands: &[Operand]) -> Done {
        let at = operands.iter().position(|o| matches!(o, Operand::Name(_)));
        let at = at.ok_or_else(|| self.error("a call through a register is not supported"))?;
        let Operand::Name(name) = &operands[at] else { return Ok(()) };
        let results = if at > 0 { names(&operands[0]) } else { Vec::new() };
        let arguments = operands.get(at + 1).map(names).unwrap_or_default();
        if name == "__assertfail" {
            self.emit(Op::Trap);
            return Ok(());
        }
        if self.calls.iter().any(|(active, _)| active == name) || self.calls.len() > 64 {
            return Err(self.error(format!("`{name}` calls itself, which is not supported")));
        }
        let unit = self.unit;
        let function = unit.functions.iter().find(|f| f.name == *name && f.body.is_some() && !f.kernel);
        let function = function.ok_or_else(|| self.error(format!("function `{name}` has no body here")))?;
        let mut places = Vec::new();
        for (formal, actual) in function.params.iter().zip(&arguments).chain(function.results.iter().zip(&results)) {
            let place = self.find_place(actual)?;
            let place = place.ok_or_else(|| self.error(format!("argument `{actual}` is not a `.param` variable")))?;
            places.push((formal.name.clone(), place));
        }
        if arguments.len() != function.params.len() || results.len() != function.results.len() {
            return Err(self.error(format!("the call of `{name}` doesn't fit its declaration")));
        }
        let end = format!("call@{}", self.kernel.code.len());
        let (guard, line) = (self.guard, self.line);
        if guard != (0, false) {
            // Whoever doesn't call goes round the body.
            self.jump(0, &end);
            self.kernel.code.push(Ins { op: Op::Bra(0), guard: guard.0, negate: !guard.1, line });
        }
        self.calls.push((name.clone(), end.clone()));
        self.open(true);
        for (formal, place) in places {
            self.declare(&formal, place);
        }
        self.guard = (0, false);
        self.statements(function.body.as_deref().unwrap_or_default())?;
        self.scopes.pop();
        self.calls.pop();
        (self.guard, self.line) = ((0, false), line);
        self.label(end);
        Ok(())
    }

    /// `ret`: to the end of the expanded body, or out of the kernel.
    pub(super) fn ret(&mut self) {
        match self.calls.last() {
            Some((_, end)) => {
                let end = end.clone();
                self.branch(&end);
            }
            None => self.emit(Op::Exit),
        }
    }
}

fn names(operand: &Operand) -> Vec<String> {
    let Operand::Vector(list) = operand else { return Vec::new() };
    list.iter()
        .map(|o| match o {
            Operand::Name(name) => name.clone(),
            other => format!("{other:?}"),
        })
        .collect()
}
