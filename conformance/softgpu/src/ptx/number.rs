//! Numbers as PTX writes them.

use super::Operand;

/// `12`, `0x1f`, `017`, `0b101`, each with or without `U`; `0f3F800000`; `0d3FF0000000000000`; `1.5`.
pub(super) fn number(word: &str) -> Option<Operand> {
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let prefix = word.get(..2).unwrap_or("");
    let digits = word.get(2..).unwrap_or("");
    let integer = |digits: &str, radix| u64::from_str_radix(digits.trim_end_matches(['U', 'u']), radix).ok();
    match prefix {
        "0f" | "0F" if digits.len() == 8 => return u32::from_str_radix(digits, 16).ok().map(Operand::F32),
        "0d" | "0D" if digits.len() == 16 => return u64::from_str_radix(digits, 16).ok().map(Operand::F64),
        "0x" | "0X" => return integer(digits, 16).map(Operand::Int),
        "0b" | "0B" => return integer(digits, 2).map(Operand::Int),
        _ => {}
    }
    if word.contains('.') {
        return word.parse::<f64>().ok().map(|x| Operand::F64(x.to_bits()));
    }
    let octal = word.len() > 1 && word.starts_with('0') && word.bytes().all(|b| b.is_ascii_digit());
    integer(word, if octal { 8 } else { 10 }).map(Operand::Int)
}

/// The bits of a number for a field of `bytes`, as integer initialisers and immediates want them.
pub(super) fn negated(operand: Operand) -> Operand {
    match operand {
        Operand::Int(n) => Operand::Int(n.wrapping_neg()),
        Operand::F32(bits) => Operand::F32(bits ^ 1 << 31),
        Operand::F64(bits) => Operand::F64(bits ^ 1 << 63),
        other => Operand::Not(Box::new(other)),
    }
}
