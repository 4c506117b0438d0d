//! Every parser on its seed files, on the files that once broke it, and on damaged ones: no panic, no hang, no more
//! than 256 MB. The same bodies as the fuzz targets in `fuzz/`.
//!
//! `RETRACK_FUZZ_FILES=100000 cargo test --test fuzz -- --nocapture` is the long run; RETRACK_FUZZ_SEED starts it elsewhere.

#[path = "support/mutate.rs"]
mod mutate;
#[path = "support/parsers.rs"]
mod parsers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mutate::Mutator;
use parsers::{PARSERS, Parser};

/// Damaged files of each parser in an ordinary test run.
const FILES: usize = 500;
const MOST_MEMORY: usize = 256_000_000;
const MOST_SECONDS: f64 = 5.0;

/// Counts what is held, so that a parser's greed is seen.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// One parser at a time: the counts are the process's.
static ONE: Mutex<()> = Mutex::new(());

// SAFETY: the system's allocator does the work.
#[expect(unsafe_code, reason = "an allocator that counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both at once, as a moving reallocation holds them.
        grow(size);
        // SAFETY: the caller's promises are the system allocator's.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        moved
    }
}

fn grow(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

struct Report {
    accepted: usize,
    slowest: f64,
    peak: usize,
    /// The file that held the most.
    greediest: String,
    failures: Vec<String>,
}

impl Report {
    fn run(&mut self, parser: &Parser, scratch: &Path, what: &str, bytes: &[u8]) {
        let held = HELD.load(Ordering::Relaxed);
        PEAK.store(held, Ordering::Relaxed);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (parser.parse)(scratch, bytes)));
        let seconds = start.elapsed().as_secs_f64();
        let peak = PEAK.load(Ordering::Relaxed).saturating_sub(held);
        self.slowest = self.slowest.max(seconds);
        if peak > self.peak {
            self.peak = peak;
            self.greediest = what.to_string();
        }
        let problem = match outcome {
            Err(_) => "panicked".to_string(),
            Ok(_) if seconds > MOST_SECONDS => format!("took {seconds:.1} s"),
            Ok(_) if peak > MOST_MEMORY => format!("held {peak} bytes"),
            Ok(accepted) => {
                self.accepted += usize::from(accepted);
                return;
            }
        };
        let kept = std::env::temp_dir().join(format!("retrack-{}-{what}", parser.name));
        fs::write(&kept, bytes).unwrap();
        self.failures.push(format!(
            "{} {what}: {problem}; the file is {}",
            parser.name,
            kept.display()
        ));
        assert!(self.failures.len() < 20, "{:#?}", self.failures);
    }
}

/// Feeds a parser its corpus and damaged files.
fn feed(name: &str) {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let parser = PARSERS.iter().find(|parser| parser.name == name).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let seeds = corpus(name);
    let mut report = Report {
        accepted: 0,
        slowest: 0.0,
        peak: 0,
        greediest: String::new(),
        failures: Vec::new(),
    };
    for (path, bytes) in &seeds {
        let before = report.accepted;
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        report.run(parser, scratch.path(), &file, bytes);
        // Otherwise the damaged files would test nothing but the first bytes.
        let is_seed = !file.starts_with("bad-") && !file.starts_with("crash-");
        assert_eq!(report.accepted > before, is_seed, "{}", path.display());
    }
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|(_, bytes)| bytes).collect();
    let files = number("RETRACK_FUZZ_FILES", FILES as u64);
    let seed = number("RETRACK_FUZZ_SEED", 1);
    report.accepted = 0;
    let start = Instant::now();
    for index in 0..files {
        // Each file by its own number, so that one can be made again.
        let bytes = Mutator(seed << 40 | index).file(&seeds);
        report.run(parser, scratch.path(), &format!("{seed}-{index}"), &bytes);
    }
    println!(
        "{name}: {files} files in {:.0} s, {} accepted, slowest {:.3} s, at most {:.1} MB ({})",
        start.elapsed().as_secs_f64(),
        report.accepted,
        report.slowest,
        report.peak as f64 / 1e6,
        report.greediest
    );
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
}

macro_rules! parsers {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            feed($name);
        })*

        #[test]
        fn every_parser_is_fed() {
            let mut named = vec![$($name),*];
            let mut all: Vec<&str> = PARSERS.iter().map(|parser| parser.name).collect();
            named.sort_unstable();
            all.sort_unstable();
            assert_eq!(named, all);
            for name in all {
                let target = Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../../fuzz/fuzz_targets")
                    .join(format!("{name}.rs"));
                assert!(target.is_file(), "{}", target.display());
            }
        }
    };
}

parsers! {
    damaged_safetensors_files_are_refused: "safetensors",
    damaged_pytorch_files_are_refused: "torch",
    damaged_network_configurations_are_refused: "network_config",
    damaged_model_indices_are_refused: "model_index",
    damaged_shard_indices_are_refused: "shard_index",
    damaged_scheduler_configurations_are_refused: "scheduler_config",
    damaged_images_are_refused: "image",
    damaged_parquet_files_are_refused: "parquet",
    damaged_idx_files_are_refused: "idx",
    damaged_cifar_batches_are_refused: "cifar",
    damaged_pickles_of_cifar_are_refused: "cifar_python",
    damaged_settings_files_are_refused: "settings",
    damaged_selections_are_refused: "selection",
    damaged_tokenizers_are_refused: "tokenizer",
    damaged_captions_and_labels_are_refused: "captions",
    damaged_adapters_are_refused: "adapter",
    damaged_settings_of_adapters_are_refused: "adapter_config",
    damaged_onnx_files_are_refused: "onnx",
    damaged_records_of_requests_are_refused: "requests",
    damaged_archives_of_sealed_images_and_files_of_keys_are_refused: "sealed",
}
