//! Recorded cases: those that once told right from wrong where nothing else did.
//!
//! A text file a family, one case a line: the id, then why it is there. Lines that begin with `#` are remarks.

use std::fmt;
use std::str::FromStr;

/// A line of a file of regressions that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegressionError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for RegressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regressions, line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for RegressionError {}

/// The cases of a file's text, in its order, with their reasons.
///
/// ```
/// let text = "# remark\n7   seven is odd\n";
/// assert_eq!(tilewright_conformance::regressions::parse::<u8>(text), Ok(vec![(7, "seven is odd")]));
/// let error = tilewright_conformance::regressions::parse::<u8>("7\n").unwrap_err();
/// assert_eq!(error.to_string(), "regressions, line 1: got `7`, expected a case id and a reason");
/// ```
///
/// # Errors
/// [`RegressionError`] for the first line that is no case id with a reason.
pub fn parse<C: FromStr<Err: fmt::Display>>(text: &str) -> Result<Vec<(C, &str)>, RegressionError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(n, line)| {
            let error = |problem: String| RegressionError { line: n + 1, problem };
            let Some((id, reason)) = line.trim().split_once(char::is_whitespace) else {
                return Err(error(format!("got `{}`, expected a case id and a reason", line.trim())));
            };
            Ok((id.parse().map_err(|problem: C::Err| error(problem.to_string()))?, reason.trim()))
        })
        .collect()
}
