//! Ctrl-C and SIGTERM. A command that has nothing to finish ends at once, without the lock and the temporary files that
//! it made; a run that trains finishes its step first and keeps it. A second signal ends the process whatever it does, in
//! the same way, once it was said that the first one came: `timeout` and some terminals send one signal twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use retrack_networks::leftovers;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::failure::Failure;
use crate::progress;

/// Between two looks at whether a signal came.
const LOOK: Duration = Duration::from_millis(50);

/// What comes within this time is one signal, sent twice: nobody has read yet that it came.
const ONE_SIGNAL: Duration = Duration::from_millis(200);

/// The signal that came, or 0. A process has its signals once.
static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// The one that came since [`SIGNAL`] was told, or 0.
static AGAIN: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

static STATE: Mutex<State> = Mutex::new(State {
    kept: String::new(),
    goes_on: String::new(),
    starts_again: false,
    finishes: None,
    told: false,
});

struct State {
    /// What an interrupted command leaves, in words.
    kept: String,
    /// How to go on with a run that was interrupted.
    goes_on: String,
    /// Nothing is kept that could go on.
    starts_again: bool,
    /// What is finished first, in words. `None`: nothing, the process ends at once.
    finishes: Option<String>,
    /// Whether a person knows that the signal came.
    told: bool,
}

fn state() -> MutexGuard<'static, State> {
    STATE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Listens from now on, for the rest of the process.
///
/// # Errors
/// The system's.
pub fn listen() -> Result<(), Failure> {
    if SIGNAL.get().is_some() {
        return Ok(());
    }
    let cannot = |error| Failure::failed(format!("cannot listen to signals: {error}"));
    let signal = SIGNAL.get_or_init(Default::default);
    let again = AGAIN.get_or_init(Default::default);
    for number in [SIGINT, SIGTERM] {
        let registered = flag::register_usize(number, again.clone(), number as usize)
            .and_then(|_| flag::register_usize(number, signal.clone(), number as usize));
        registered.map_err(cannot)?;
    }
    std::thread::Builder::new().spawn(watch).map_err(cannot)?;
    Ok(())
}

/// Ends the process when a signal comes, unless something is to be finished.
fn watch() {
    loop {
        std::thread::sleep(LOOK);
        let Some(code) = pending() else {
            continue;
        };
        let mut state = state();
        match &state.finishes {
            Some(finishes) if !state.told => {
                progress::warn(format!(
                    "stopping {finishes}; a second signal ends it at once"
                ));
                state.told = true;
                drop(state);
                // What came until then is the one that was told.
                std::thread::sleep(ONE_SIGNAL);
                AGAIN
                    .get()
                    .inspect(|again| again.store(0, Ordering::Relaxed));
            }
            Some(_) => {
                let Some(code) = AGAIN.get().and_then(|again| exit_code(again)) else {
                    continue;
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
}

/// What is said of the files if a signal ends the command now, such as "nothing was written".
pub fn kept(words: impl Into<String>) {
    state().kept = words.into();
}

/// How to go on with a run that was interrupted, such as "the same command with --resume goes on".
pub fn goes_on(words: impl Into<String>) {
    state().goes_on = words.into();
}

/// How to do all of it again, such as "the same command with --force starts again": nothing of a run that was interrupted
/// is of use.
pub fn begins_again(words: impl Into<String>) {
    goes_on(words);
    state().starts_again = true;
}

/// Whether [`begins_again`] said so.
pub fn starts_again() -> bool {
    state().starts_again
}

/// The words of [`goes_on`].
pub fn how_to_go_on() -> String {
    state().goes_on.clone()
}

/// From now on a signal does not end the process: who calls this looks for [`pending`], or finishes what it does.
/// `words`: when it will stop, such as "after this step".
pub fn finish_first(words: &str) {
    state().finishes = Some(words.into());
}

/// From now on a signal ends the process again, and so does one that came meanwhile. `words`: as for [`kept`].
pub fn at_once(words: impl Into<String>) {
    let mut state = state();
    state.kept = words.into();
    state.finishes = None;
}

/// The exit code of a command that a signal is to end, if one came.
pub fn pending() -> Option<u8> {
    exit_code(SIGNAL.get()?)
}

fn exit_code(signal: &AtomicUsize) -> Option<u8> {
    match signal.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(128 + signal as u8),
    }
}
