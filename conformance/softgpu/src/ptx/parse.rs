//! Tokens to variables and functions.

use super::body::body;
use super::number::{negated, number};
use super::token::{Token, tokens};
use super::{Function, Initial, Operand, PtxError, Registers, Space, Type, Unit, Variable};

/// # Errors
/// The first line that isn't PTX, or isn't known here.
pub(crate) fn parse(text: &str) -> Result<Unit, PtxError> {
    let tokens = tokens(text)?;
    let mut cursor = Cursor { tokens: &tokens, at: 0 };
    let mut unit = Unit::default();
    while let Some(token) = cursor.peek() {
        match token.text {
            ".version" | ".target" | ".address_size" | ".file" | ".loc" => cursor.skip_line(),
            ".section" => cursor.skip_section()?,
            ".visible" | ".extern" | ".weak" | ".common" | ";" => cursor.at += 1,
            ".entry" | ".func" => {
                let function = function(&mut cursor)?;
                unit.functions.push(function);
            }
            ".global" | ".const" | ".shared" => unit.variables.extend(variables(&mut cursor)?),
            ".pragma" | ".alias" => cursor.skip_past(";")?,
            other => return Err(PtxError::new(token.line, format!("unknown directive `{other}`"))),
        }
    }
    Ok(unit)
}

/// A place in the tokens.
pub(super) struct Cursor<'a> {
    pub(super) tokens: &'a [Token<'a>],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    pub(super) fn line(&self) -> u32 {
        self.peek().or(self.tokens.last().copied()).map_or(1, |t| t.line)
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, PtxError> {
        let token = self.peek().ok_or_else(|| PtxError::new(self.line(), "the text ends in the middle"))?;
        self.at += 1;
        Ok(token)
    }

    pub(super) fn accept(&mut self, text: &str) -> bool {
        let found = self.peek().is_some_and(|t| t.text == text);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, text: &str) -> Result<(), PtxError> {
        let token = self.next()?;
        if token.text == text {
            return Ok(());
        }
        Err(PtxError::new(token.line, format!("expected `{text}`, found `{}`", token.text)))
    }

    /// Directives such as `.loc` end with their line.
    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while self.peek().is_some_and(|t| t.line == line && t.text != "{") {
            self.at += 1;
        }
    }

    pub(super) fn skip_past(&mut self, text: &str) -> Result<(), PtxError> {
        while self.next()?.text != text {}
        Ok(())
    }

    fn skip_section(&mut self) -> Result<(), PtxError> {
        self.skip_past("{")?;
        let mut depth = 1;
        while depth > 0 {
            match self.next()?.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn integer(&mut self) -> Result<u64, PtxError> {
        let token = self.next()?;
        match number(token.text) {
            Some(Operand::Int(n)) => Ok(n),
            _ => Err(PtxError::new(token.line, format!("expected an integer, found `{}`", token.text))),
        }
    }
}

fn function(cursor: &mut Cursor) -> Result<Function, PtxError> {
    let kernel = cursor.next()?.text == ".entry";
    let results = if !kernel && cursor.accept("(") { params(cursor)? } else { Vec::new() };
    let name = cursor.next()?;
    let params = if cursor.accept("(") { params(cursor)? } else { Vec::new() };
    let mut function = Function {
        name: name.text.to_owned(),
        line: name.line,
        kernel,
        results,
        params,
        max_threads: None,
        required: false,
        body: None,
    };
    loop {
        let token = cursor.next()?;
        match token.text {
            ".maxntid" | ".reqntid" => {
                let mut shape = [1; 3];
                for side in &mut shape {
                    *side = cursor.integer()? as u32;
                    if !cursor.accept(",") {
                        break;
                    }
                }
                function.max_threads = Some(shape);
                function.required = token.text == ".reqntid";
            }
            ".minnctapersm" | ".maxnctapersm" | ".maxnreg" => drop(cursor.integer()?),
            ".noreturn" => {}
            ".pragma" => cursor.skip_past(";")?,
            ";" => return Ok(function),
            "{" => {
                function.body = Some(body(cursor)?);
                return Ok(function);
            }
            other => return Err(PtxError::new(token.line, format!("unknown directive `{other}` of a function"))),
        }
    }
}

/// What follows `(` up to `)`.
fn params(cursor: &mut Cursor) -> Result<Vec<Variable>, PtxError> {
    let mut out = Vec::new();
    while !cursor.accept(")") {
        let token = cursor.next()?;
        match token.text {
            "," => {}
            ".param" | ".reg" => out.push(variable(cursor, Space::Param)?),
            other => return Err(PtxError::new(token.line, format!("unknown parameter `{other}`"))),
        }
    }
    Ok(out)
}

/// `.shared .align 4 .b8 a[16], b[16];` from its first word.
pub(super) fn variables(cursor: &mut Cursor) -> Result<Vec<Variable>, PtxError> {
    let space = match cursor.next()?.text {
        ".global" => Space::Global,
        ".const" => Space::Const,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        _ => Space::Param,
    };
    let mut out = vec![variable(cursor, space)?];
    while cursor.accept(",") {
        let (last, line) = (out[0].clone(), cursor.line());
        if !last.initial.is_empty() {
            return Err(PtxError::new(line, "several variables with initial values in one statement"));
        }
        out.push(named(cursor, last.space, last.align, element_of(&last))?);
    }
    cursor.expect(";")?;
    Ok(out)
}

fn element_of(variable: &Variable) -> u32 {
    u32::try_from(variable.size).unwrap_or(1).clamp(1, 8)
}

fn variable(cursor: &mut Cursor, space: Space) -> Result<Variable, PtxError> {
    let (mut align, mut element) = (None, None);
    loop {
        let token = cursor.next()?;
        match token.text {
            ".align" => align = Some(cursor.integer()? as u32),
            ".ptr" | ".managed" | ".attribute" => {}
            ".global" | ".const" | ".shared" | ".local" | ".generic" if element.is_some() => {}
            ".v2" => element = Some(element.unwrap_or(1) * 2),
            ".v4" => element = Some(element.unwrap_or(1) * 4),
            word if word.starts_with('.') => {
                let ty = word.get(1..).and_then(Type::parse);
                let ty = ty.ok_or_else(|| PtxError::new(token.line, format!("unknown type `{word}`")))?;
                element = Some(element.unwrap_or(1) * ty.bytes());
            }
            _ => {
                cursor.at -= 1;
                let element = element.ok_or_else(|| PtxError::new(token.line, "a variable without a type"))?;
                return named(cursor, space, align.unwrap_or(element), element);
            }
        }
    }
}

/// `name[16] = {…}` after the type.
fn named(cursor: &mut Cursor, space: Space, align: u32, element: u32) -> Result<Variable, PtxError> {
    let name = cursor.next()?;
    if !align.is_power_of_two() || align > 1 << 16 {
        return Err(PtxError::new(name.line, format!("alignment {align} is not a power of two up to 65536")));
    }
    let (mut size, mut dynamic) = (u64::from(element), false);
    while cursor.accept("[") {
        if cursor.accept("]") {
            (size, dynamic) = (0, true);
        } else {
            size = size.saturating_mul(cursor.integer()?);
            cursor.expect("]")?;
        }
    }
    let mut out = Variable { name: name.text.to_owned(), space, align, size, dynamic, initial: Vec::new() };
    if cursor.accept("=") {
        let mut at = 0;
        initial(cursor, u64::from(element), &mut at, &mut out.initial)?;
        if dynamic {
            (out.size, out.dynamic) = (at, false);
        }
        if at > out.size {
            return Err(PtxError::new(name.line, format!("{at} bytes of initial values for {} bytes", out.size)));
        }
    }
    Ok(out)
}

fn initial(cursor: &mut Cursor, element: u64, at: &mut u64, out: &mut Vec<Initial>) -> Result<(), PtxError> {
    if cursor.accept("{") {
        while !cursor.accept("}") {
            initial(cursor, element, at, out)?;
            cursor.accept(",");
        }
        return Ok(());
    }
    let minus = cursor.accept("-");
    let token = cursor.next()?;
    let bytes = match number(token.text).map(|n| if minus { negated(n) } else { n }) {
        Some(Operand::Int(n)) => n.to_le_bytes(),
        Some(Operand::F32(bits)) => u64::from(bits).to_le_bytes(),
        Some(Operand::F64(bits)) if element == 4 => u64::from((f64::from_bits(bits) as f32).to_bits()).to_le_bytes(),
        Some(Operand::F64(bits)) => bits.to_le_bytes(),
        _ if token.text == "generic" => {
            cursor.expect("(")?;
            let name = cursor.next()?;
            cursor.expect(")")?;
            out.push(Initial::Address(*at, name.text.to_owned(), offset(cursor)?));
            *at += element;
            return Ok(());
        }
        _ => {
            out.push(Initial::Address(*at, token.text.to_owned(), offset(cursor)?));
            *at += element;
            return Ok(());
        }
    };
    let bytes = bytes.get(..element as usize).unwrap_or(&bytes);
    match out.last_mut() {
        Some(Initial::Bytes(start, last)) if *start + last.len() as u64 == *at => last.extend_from_slice(bytes),
        _ => out.push(Initial::Bytes(*at, bytes.to_vec())),
    }
    *at += element;
    Ok(())
}

/// `+4`, `-4`, `+-4` or nothing.
pub(super) fn offset(cursor: &mut Cursor) -> Result<i64, PtxError> {
    let plus = cursor.accept("+");
    let minus = cursor.accept("-");
    if !plus && !minus {
        return Ok(0);
    }
    let n = cursor.integer()? as i64;
    Ok(if minus { n.wrapping_neg() } else { n })
}

/// `.reg .b32 a, %r<5>;` from its first word.
pub(super) fn registers(cursor: &mut Cursor) -> Result<Vec<Registers>, PtxError> {
    cursor.at += 1;
    let token = cursor.next()?;
    let ty = token.text.strip_prefix('.').and_then(Type::parse);
    let ty = ty.ok_or_else(|| PtxError::new(token.line, format!("unknown register type `{}`", token.text)))?;
    let mut out = Vec::new();
    loop {
        let name = cursor.next()?.text.to_owned();
        let count = if cursor.accept("<") {
            let count = cursor.integer()? as u32;
            cursor.expect(">")?;
            Some(count)
        } else {
            None
        };
        out.push(Registers { name, ty, count });
        if cursor.accept(";") {
            return Ok(out);
        }
        cursor.expect(",")?;
    }
}
