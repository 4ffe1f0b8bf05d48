//! PTX text to tokens. Comments vanish, line numbers stay.

use super::PtxError;

/// A word, a number, a string or one punctuation mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: u32,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// # Errors
/// An unterminated comment or string, or a byte that begins no token.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, PtxError> {
    let bytes = text.as_bytes();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1u32);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
            }
            byte if byte.is_ascii_whitespace() || byte == 0 => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += bytes[at..].iter().position(|&b| b == b'\n').unwrap_or(bytes.len() - at);
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let length = text[at + 2..].find("*/").ok_or_else(|| PtxError::new(line, "unterminated comment"))?;
                line += text[at..at + 2 + length].matches('\n').count() as u32;
                at += length + 4;
            }
            b'"' => {
                let length = text[at + 1..].find('"').ok_or_else(|| PtxError::new(line, "unterminated string"))?;
                at += length + 2;
                out.push(Token { text: &text[start..at], line });
            }
            byte if is_word(byte) => {
                while at < bytes.len() && (is_word(bytes[at]) || scope_mark(bytes, at)) {
                    at += if bytes[at] == b':' { 2 } else { 1 };
                }
                out.push(Token { text: &text[start..at], line });
            }
            byte if byte.is_ascii_punctuation() => {
                at += 1;
                out.push(Token { text: &text[start..at], line });
            }
            _ => return Err(PtxError::new(line, "a character that is no part of PTX")),
        }
    }
    Ok(out)
}

/// `::` inside an opcode, as in `shared::cta`.
fn scope_mark(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b':' && bytes.get(at + 1) == Some(&b':') && bytes.get(at + 2).is_some_and(|&b| is_word(b))
}
