//! Modules loaded from another text than their own: how a test plants a fault in a kernel that only the program under
//! test launches.

use std::ffi::{CStr, c_char};
use std::sync::{Mutex, PoisonError};

use crate::code::{Code, SUCCESS};
use crate::state::with;

/// A text, and what is loaded when it is asked for.
static INSTEAD: Mutex<Option<(Vec<u8>, Vec<u8>)>> = Mutex::new(None);

/// What to load where `image` is asked for.
pub(crate) fn replaced(image: &[u8]) -> Option<Vec<u8>> {
    let pair = INSTEAD.lock().unwrap_or_else(PoisonError::into_inner);
    pair.as_ref().filter(|(text, _)| text == image).map(|(_, instead)| instead.clone())
}

/// From now on a module of this text is loaded from `instead`; if either is null, all modules are from their own again.
///
/// # Safety
/// Both must be null or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softgpu_load_instead(text: *const c_char, instead: *const c_char) {
    let pair = (!text.is_null() && !instead.is_null()).then(|| {
        // SAFETY: not null, and the caller promises the rest.
        let bytes = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_bytes().to_vec();
        (bytes(text), bytes(instead))
    });
    *INSTEAD.lock().unwrap_or_else(PoisonError::into_inner) = pair;
}

/// Forgets the text of the last fault.
#[unsafe(no_mangle)]
pub extern "C" fn softgpu_forget_fault() -> Code {
    with(|s| {
        s.fault.clear();
        SUCCESS
    })
}
