//! The binary `retrack`.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]

use std::process::ExitCode;

/// Training allocates and frees the same large buffers over and over; this one keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`, which `libmimalloc-sys` does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // Freed pages stay: given back, the kernel would clear them again for the next step, 3% of its time.
    // SAFETY: an option that exists, set before there are other threads.
    #[expect(unsafe_code, reason = "the allocator is a C library")]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1)
    };
    retrack_cli::run()
}
