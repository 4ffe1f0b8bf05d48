//! The thing on trial, as far as all families agree about it: how it fails to answer. What it is asked is each
//! family's own: [`attention::Subject`](crate::attention::Subject), [`compression::Subject`](crate::compression::Subject).

use std::fmt;

/// Why a subject gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubjectError {
    /// It says it cannot do this.
    Unsupported(String),
    /// It reported an error on a valid problem.
    Failed(String),
    /// It wrote where it should not have, or did not keep to the protocol.
    Misbehaved(String),
    /// Its process ended or its code panicked.
    Crashed(String),
    /// It took longer than allowed.
    TimedOut(String),
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, detail) = match self {
            Self::Unsupported(detail) => ("unsupported", detail),
            Self::Failed(detail) => ("reported an error", detail),
            Self::Misbehaved(detail) => ("misbehaved", detail),
            Self::Crashed(detail) => ("crashed", detail),
            Self::TimedOut(detail) => ("timed out", detail),
        };
        write!(f, "{what}: {detail}")
    }
}

impl std::error::Error for SubjectError {}

/// What more is known of an error that a backend in this process reported; empty if nothing.
pub type Explain = fn() -> String;

/// Nothing is.
pub(crate) fn nothing() -> String {
    String::new()
}

impl SubjectError {
    /// The same with what `explain` has to say, if an error was reported.
    pub(crate) fn explained(self, explain: Explain) -> Self {
        match self {
            Self::Failed(detail) => match explain() {
                more if more.is_empty() => Self::Failed(detail),
                more => Self::Failed(format!("{detail}: {more}")),
            },
            other => other,
        }
    }

    /// What a panic becomes: a crash, with the first line of its message.
    pub(crate) fn from_panic(panic: Box<dyn std::any::Any + Send>) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
        Self::Crashed(text.lines().next().unwrap_or_default().into())
    }
}
