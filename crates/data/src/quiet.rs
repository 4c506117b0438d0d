//! Turning a panic of a decoder into an error.
//!
//! The Parquet reader panics on some corrupt files, and image decoders have done so. The panic is caught where the
//! decoder is called; its message must not reach the terminal, where it would look like a crash of this program.
//! With `panic = "abort"` nothing can be caught: the release profile must keep unwinding.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// Runs `work`; a panic inside becomes `Err` with the panic's message, and nothing is printed.
///
/// The hook that silences is installed once and looks at a flag of the panicking thread, so panics of other
/// threads are reported as before. `work` must not hand its parts to other threads.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !SILENT.with(Cell::get) {
                previous(info);
            }
        }));
    });
    let before = SILENT.replace(true);
    // `work` reads files into buffers of its own: after a panic they are dropped, and no state is left half-changed.
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    SILENT.set(before);
    outcome.map_err(|payload| {
        if let Some(text) = payload.downcast_ref::<&str>() {
            (*text).to_owned()
        } else if let Some(text) = payload.downcast_ref::<String>() {
            text.clone()
        } else {
            "the reader panicked".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let row = 7;
        assert_eq!(
            quietly(|| panic!("row {row}")),
            Err::<(), _>("row 7".to_owned())
        );
        assert_eq!(quietly(|| 3), Ok(3));
        assert!(!SILENT.with(Cell::get));
    }
}
