//! The statements between a function's braces.

use super::number::{negated, number};
use super::parse::{Cursor, offset, registers, variables};
use super::{Instruction, Operand, PtxError, Statement};

/// Everything up to the brace that closes the body.
pub(super) fn body(cursor: &mut Cursor) -> Result<Vec<Statement>, PtxError> {
    let (mut out, mut depth) = (Vec::new(), 1);
    loop {
        let token =
            cursor.peek().ok_or_else(|| PtxError::new(cursor.line(), "a function without its closing brace"))?;
        match token.text {
            "{" => {
                depth += 1;
                cursor.at += 1;
                out.push(Statement::Open);
            }
            "}" => {
                depth -= 1;
                cursor.at += 1;
                if depth == 0 {
                    return Ok(out);
                }
                out.push(Statement::Close);
            }
            ";" | ".extern" => cursor.at += 1,
            ".reg" => out.extend(registers(cursor)?.into_iter().map(Statement::Registers)),
            ".shared" | ".local" | ".param" | ".const" | ".global" => {
                out.extend(variables(cursor)?.into_iter().map(Statement::Variable));
            }
            ".loc" | ".file" => cursor.skip_line(),
            ".pragma" => cursor.skip_past(";")?,
            word if word.starts_with('.') => {
                return Err(PtxError::new(token.line, format!("unknown directive `{word}` in a body")));
            }
            _ if cursor.tokens.get(cursor.at + 1).is_some_and(|t| t.text == ":") => {
                cursor.at += 2;
                label(cursor, token.text, &mut out)?;
            }
            _ => out.push(Statement::Instruction(instruction(cursor)?)),
        }
    }
}

/// After `name:`, which may introduce a table instead of naming a place.
fn label(cursor: &mut Cursor, name: &str, out: &mut Vec<Statement>) -> Result<(), PtxError> {
    if cursor.accept(".branchtargets") {
        let mut names = Vec::new();
        loop {
            names.push(cursor.next()?.text.to_owned());
            if cursor.accept(";") {
                break;
            }
            cursor.expect(",")?;
        }
        out.push(Statement::Targets(name.to_owned(), names));
    } else if cursor.peek().is_some_and(|t| t.text == ".callprototype" || t.text == ".calltargets") {
        cursor.skip_past(";")?;
    } else {
        out.push(Statement::Label(name.to_owned()));
    }
    Ok(())
}

fn instruction(cursor: &mut Cursor) -> Result<Instruction, PtxError> {
    let guard = if cursor.accept("@") {
        let negated = cursor.accept("!");
        Some((cursor.next()?.text.to_owned(), negated))
    } else {
        None
    };
    let opcode = cursor.next()?;
    let mut operands = Vec::new();
    while !cursor.accept(";") {
        operands.push(operand(cursor)?);
        if !cursor.accept(",") {
            cursor.expect(";")?;
            break;
        }
    }
    Ok(Instruction { line: opcode.line, guard, opcode: opcode.text.to_owned(), operands })
}

fn list(cursor: &mut Cursor, close: &str) -> Result<Vec<Operand>, PtxError> {
    let mut out = Vec::new();
    while !cursor.accept(close) {
        out.push(operand(cursor)?);
        if !cursor.accept(",") {
            cursor.expect(close)?;
            break;
        }
    }
    Ok(out)
}

fn operand(cursor: &mut Cursor) -> Result<Operand, PtxError> {
    let token = cursor.next()?;
    let first = match token.text {
        "{" => return Ok(Operand::Vector(list(cursor, "}")?)),
        "(" => return Ok(Operand::Vector(list(cursor, ")")?)),
        "[" => {
            let base = operand(cursor)?;
            let offset = offset(cursor)?;
            let mut parts = vec![base];
            if cursor.accept(",") {
                parts.extend(list(cursor, "]")?);
            } else {
                cursor.expect("]")?;
            }
            return Ok(Operand::Address(parts, offset));
        }
        "-" => return Ok(negated(operand(cursor)?)),
        "+" => return operand(cursor),
        "!" => return Ok(Operand::Not(Box::new(operand(cursor)?))),
        word => match number(word) {
            Some(number) => number,
            None if word.starts_with(|c: char| c.is_ascii_alphabetic() || "_$%".contains(c)) => {
                Operand::Name(word.to_owned())
            }
            None => return Err(PtxError::new(token.line, format!("expected an operand, found `{word}`"))),
        },
    };
    if cursor.accept("|") {
        return Ok(Operand::Pair(Box::new(first), Box::new(operand(cursor)?)));
    }
    Ok(first)
}
