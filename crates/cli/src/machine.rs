//! The threads of a command.

use retrack_study::failure::Failure;

/// Stack of a thread: as a system gives the first one.
const STACK: usize = 8 << 20;

/// More than any processor has cores.
const MOST_THREADS: usize = 4096;

/// Does `work` on one of this many threads, all of which then share what is worth sharing; all cores without a number.
///
/// On one of them and not beside them: every parallel loop would begin with waking a thread and waiting for it, which
/// in small networks takes longer than the loop.
pub fn with_threads(
    threads: Option<usize>,
    work: impl FnOnce() -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    if threads == Some(0) {
        return Err(Failure::input("--threads is 0; give at least 1"));
    }
    if let Some(count) = threads.filter(|&count| count > MOST_THREADS) {
        return Err(Failure::input(format!(
            "--threads is {count}; more than {MOST_THREADS} help no machine"
        )));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .stack_size(STACK)
        .build_global()
        .map_err(|error| {
            Failure::failed(format!(
                "cannot start the threads: {error}; give fewer --threads"
            ))
        })?;
    rayon::scope(|_| work())
}
