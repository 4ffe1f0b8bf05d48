//! Working memory that is handed from task to task: a page that the system has to hand out and to clear costs more than what is
//! written to it.

use std::sync::{Mutex, PoisonError};

/// What nobody uses at present, the last used first, as it may still be in a cache.
#[derive(Debug)]
pub(super) struct Spare<T>(Mutex<Vec<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Spare<T> {
    /// One of them, or a new one. It holds what it held when it was given.
    pub(super) fn take(&self, new: impl FnOnce() -> T) -> T {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(new)
    }

    pub(super) fn give(&self, used: impl IntoIterator<Item = T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(used);
    }

    /// Runs `f` with one of them.
    pub(super) fn lend<R>(&self, new: impl FnOnce() -> T, f: impl FnOnce(&mut T) -> R) -> R {
        let mut own = self.take(new);
        let result = f(&mut own);
        self.give([own]);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_lent_again() {
        let spare = Spare::default();
        spare.lend(Vec::new, |own: &mut Vec<u8>| own.push(1));
        assert_eq!(spare.lend(|| unreachable!("there is one"), |own| own.clone()), [1]);
        assert_eq!(spare.take(Vec::new), [1]);
        assert!(spare.take(Vec::new).is_empty(), "a new one, as there is none");
    }
}
