//! Ctrl-C and SIGTERM. A command that has nothing to finish ends at once, without the lock and the temporary files that
//! it made; a run that trains finishes its step first and keeps it. A second signal ends the process whatever it does, in
//! the same way, once it was said that the first one came: `timeout` and some terminals send one signal twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use retrack_checkpoint::leftovers;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use retrack_study::failure::Failure;
use retrack_study::interrupt::{State, exit_code, pending, signal, with_state};

use crate::progress;

/// Between two looks at whether a signal came.
const LOOK: Duration = Duration::from_millis(50);

/// What comes within this time is one signal, sent twice: nobody has read yet that it came.
const ONE_SIGNAL: Duration = Duration::from_millis(200);

/// The one that came since the first was told, or 0.
static AGAIN: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Listens from now on, for the rest of the process.
///
/// # Errors
/// The system's.
pub fn listen() -> Result<(), Failure> {
    if AGAIN.get().is_some() {
        return Ok(());
    }
    let cannot = |error| Failure::failed(format!("cannot listen to signals: {error}"));
    for number in [SIGINT, SIGTERM] {
        let registered = flag::register_usize(number, again().clone(), number as usize)
            .and_then(|_| flag::register_usize(number, signal().clone(), number as usize));
        registered.map_err(cannot)?;
    }
    std::thread::Builder::new().spawn(watch).map_err(cannot)?;
    Ok(())
}

/// Ends the process when a signal comes, unless something is to be finished.
fn watch() {
    // Whether a person knows that the signal came.
    let mut told = false;
    loop {
        std::thread::sleep(LOOK);
        let Some(code) = pending() else {
            continue;
        };
        with_state(|state| act(state, code, told));
        if !told {
            told = true;
            // What came until then is the one that was told.
            std::thread::sleep(ONE_SIGNAL);
            again().store(0, Ordering::Relaxed);
        }
    }
}

/// Does what a signal asks for. `told`: a person knows that it came.
fn act(state: &State, code: u8, told: bool) {
    match &state.finishes {
        Some(finishes) if !told => {
            progress::warn(format!(
                "stopping {finishes}; a second signal ends it at once"
            ));
        }
        Some(_) => {
            let Some(code) = exit_code(again()) else {
                return;
            };
            leftovers::remove_all();
            let again = match state.goes_on.as_str() {
                "" => "the same command starts again",
                how => how,
            };
            progress::fail(format!(
                "interrupted a second time and ended at once, without what was not written yet; {again}"
            ));
            low_level::exit(code.into());
        }
        None => {
            leftovers::remove_all();
            progress::fail(format!("interrupted; {}", state.kept));
            // Nothing that the process would do at its end is worth waiting for, and its other threads still work.
            low_level::exit(code.into());
        }
    }
}

fn again() -> &'static Arc<AtomicUsize> {
    AGAIN.get_or_init(Default::default)
}
