//! Ending early. Whoever can end a study (Ctrl-C, a button) writes into [`signal`]; a run that trains finishes its step
//! and keeps it. What is finished first and what is left is kept here in words, for whoever ends it to tell.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

static STATE: Mutex<State> = Mutex::new(State {
    kept: String::new(),
    goes_on: String::new(),
    starts_again: false,
    finishes: None,
});

/// What is said of a study that ends early.
#[derive(Debug)]
pub struct State {
    /// What it leaves.
    pub kept: String,
    /// How to go on with it.
    pub goes_on: String,
    /// Nothing is kept that could go on.
    pub starts_again: bool,
    /// What is finished first. `None`: nothing, it may end at once.
    pub finishes: Option<String>,
}

fn lock() -> MutexGuard<'static, State> {
    STATE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Does `work` with what would be said now, which stays as it is until `work` is done.
pub fn with_state<T>(work: impl FnOnce(&State) -> T) -> T {
    work(&lock())
}

/// The number of the signal that is to end what goes on, such as 2 for SIGINT, or 0.
pub fn signal() -> &'static Arc<AtomicUsize> {
    SIGNAL.get_or_init(Default::default)
}

/// What is said of the files if it ends now, such as "nothing was written".
pub fn kept(words: impl Into<String>) {
    lock().kept = words.into();
}

/// How to go on with what was interrupted, such as "the same command with --resume goes on".
pub fn goes_on(words: impl Into<String>) {
    lock().goes_on = words.into();
}

/// How to do all of it again, such as "the same command with --force starts again": nothing of what was interrupted is of
/// use.
pub fn begins_again(words: impl Into<String>) {
    goes_on(words);
    lock().starts_again = true;
}

/// Whether [`begins_again`] said so.
pub fn starts_again() -> bool {
    lock().starts_again
}

/// The words of [`goes_on`].
pub fn how_to_go_on() -> String {
    lock().goes_on.clone()
}

/// From now on it does not end at once: who calls this looks for [`pending`], or finishes what it does.
/// `words`: when it will stop, such as "after this step".
pub fn finish_first(words: &str) {
    lock().finishes = Some(words.into());
}

/// From now on it may end at once again. `words`: as for [`kept`].
pub fn at_once(words: impl Into<String>) {
    let mut state = lock();
    state.kept = words.into();
    state.finishes = None;
}

/// The exit code of what is to end, if it is: 128 and the signal's number.
pub fn pending() -> Option<u8> {
    exit_code(signal())
}

/// The exit code that goes with a signal, if there was one.
pub fn exit_code(signal: &AtomicUsize) -> Option<u8> {
    match signal.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(128 + signal as u8),
    }
}
