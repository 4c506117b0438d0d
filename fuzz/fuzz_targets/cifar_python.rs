#![no_main]

#[path = "../../crates/cli/tests/support/parsers.rs"]
mod parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::parse("cifar_python", bytes));
