//! Ctrl-C and SIGTERM, once a run has begun: what is at hand is finished first; a second signal ends the process at
//! once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::Failure;

/// The signal that came, or 0. A process has its signals once.
static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Listens from now on, for the rest of the process.
///
/// # Errors
/// The system's.
pub fn listen() -> Result<(), Failure> {
    if SIGNAL.get().is_some() {
        return Ok(());
    }
    let signal = SIGNAL.get_or_init(Default::default);
    let again = Arc::new(AtomicBool::new(false));
    for (number, code) in [(SIGINT, 130), (SIGTERM, 143)] {
        // In this order: the first signal finds the flag down and raises it, the second one finds it up.
        let registered = flag::register_conditional_shutdown(number, code, again.clone())
            .and_then(|_| flag::register(number, again.clone()))
            .and_then(|_| flag::register_usize(number, signal.clone(), number as usize));
        registered
            .map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))?;
    }
    Ok(())
}

/// The exit code of a command that a signal is to end, if one came.
pub fn pending() -> Option<u8> {
    match SIGNAL.get()?.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(128 + signal as u8),
    }
}
