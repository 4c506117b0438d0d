//! What a run needs of disk and memory, and what there is: a run that cannot fit ends before it begins.

use std::fmt;
use std::path::Path;

use retrack_data::Dataset;
use retrack_networks::cost::Footprint;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::{model, progress};

/// A line of `events.jsonl`, its TensorBoard record, and a little more.
const LOGGED: f64 = 1024.0;
/// The program itself, its buffers and its threads' stacks.
const PROGRAM: f64 = 64e6;
/// How far an estimate of memory may lie above what is used.
const UNSURE: f64 = 1.5;

/// What a run is about to do.
pub struct Work<'a> {
    /// Of the training.
    pub footprint: Footprint,
    /// The images.
    pub data: &'a Dataset,
    /// Images in a micro-batch of one stream.
    pub batch_size: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
    /// Steps of the optimizer.
    pub steps: usize,
    /// Steps between checkpoints; `None`: only what a signal or the end makes.
    pub checkpoint_every: Option<usize>,
    /// Bytes of the folder that will be written.
    pub model: u64,
}

/// What it needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    /// Bytes on disk.
    pub disk: f64,
    /// Bytes in memory.
    pub memory: f64,
}

impl Work<'_> {
    /// What it comes to.
    ///
    /// # Errors
    /// Numbers that no run could work through.
    pub fn needs(&self) -> Result<Needs, Failure> {
        check_images(self.steps, self.accumulate, self.batch_size)?;
        let Footprint { state, held } = &self.footprint;
        let program = PROGRAM + data_held(self.data);
        Ok(Needs {
            disk: disk(self.model, *state, self.steps, self.checkpoint_every),
            memory: held.iter().fold(program, |sum, part| sum + part),
        })
    }
}

/// Refuses numbers that no run could work through.
fn check_images(steps: usize, accumulate: usize, batch_size: usize) -> Result<(), Failure> {
    let images = steps as f64 * accumulate as f64 * batch_size as f64;
    // Beyond this images are not told apart by the numbers of their noise.
    if images >= 2f64.powi(53) {
        return Err(Failure::input(format!(
            "{steps} steps of {accumulate} x {batch_size} images are more than any run can do; give fewer"
        )));
    }
    Ok(())
}

/// Bytes of the new model, of checkpoints of `state` bytes and of what is recorded.
fn disk(model: u64, state: f64, steps: usize, checkpoint_every: Option<usize>) -> f64 {
    // The last two are kept while the next one is written; the last step has one in any case.
    let checkpoints = match checkpoint_every {
        Some(every) => steps.div_ceil(every.max(1)).clamp(1, 3),
        None => 1,
    };
    model as f64 + checkpoints as f64 * state + LOGGED * steps as f64
}

/// Bytes of a data set in memory, or of what of it is decoded at a time.
fn data_held(data: &Dataset) -> f64 {
    match data.pixels() {
        Some(pixels) => pixels.len() as f64,
        None => model::BUDGET as f64,
    }
}

impl Needs {
    /// As part of what a dry run prints.
    pub fn json(&self, out: &Path) -> Value {
        json!({
            "disk_bytes": self.disk as u64,
            "memory_bytes": self.memory as u64,
            "free_disk_bytes": free_disk(out),
            "available_memory_bytes": available_memory(),
        })
    }

    /// For people.
    pub fn text(&self, out: &Path) -> String {
        let of = |there: Option<u64>, what: &str| {
            there.map_or(String::new(), |bytes| {
                format!(" ({} {what})", Bytes(bytes as f64))
            })
        };
        format!(
            "needs about {} of disk{} and {} of memory{}",
            Bytes(self.disk),
            of(free_disk(out), "free"),
            Bytes(self.memory),
            of(available_memory(), "available"),
        )
    }

    /// Refuses what cannot fit; warns of what may not. `held`: bytes in `out` that the run will replace or has written
    /// already. `smaller`: what to do about memory.
    ///
    /// # Errors
    /// The numbers and the remedy.
    pub fn check(&self, out: &Path, held: u64, smaller: &str) -> Result<(), Failure> {
        let needed = (self.disk - held as f64).max(0.0);
        if let Some(free) = free_disk(out)
            && needed > free as f64
        {
            return Err(Failure::input(format!(
                "{}: the run needs about {} of disk, but only {} are free there; free some space or choose a folder \
                 on another disk",
                out.display(),
                Bytes(needed),
                Bytes(free as f64)
            )));
        }
        let Some(available) = available_memory() else {
            return Ok(());
        };
        if self.memory / UNSURE > available as f64 {
            return Err(Failure::input(format!(
                "the run needs about {} of memory, but only {} are available; {smaller}",
                Bytes(self.memory),
                Bytes(available as f64)
            )));
        }
        if self.memory > available as f64 {
            progress::warn(format!(
                "the run may need {} of memory, but only {} are available; if it is killed, {smaller}",
                Bytes(self.memory),
                Bytes(available as f64)
            ));
        }
        Ok(())
    }
}

/// Refuses a piece of work that needs more memory than there is.
///
/// # Errors
/// `what`, the numbers and the remedy.
pub fn check_memory(bytes: f64, what: &str, remedy: &str) -> Result<(), Failure> {
    match available_memory() {
        Some(available) if bytes > available as f64 => Err(Failure::input(format!(
            "{what} need about {} of memory, but only {} are available; {remedy}",
            Bytes(bytes),
            Bytes(available as f64)
        ))),
        _ => Ok(()),
    }
}

/// Bytes of all files below a folder; what cannot be read counts nothing.
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Bytes that may still be written where `out` is or would be.
#[cfg(unix)]
fn free_disk(out: &Path) -> Option<u64> {
    let absolute = std::path::absolute(out).ok()?;
    let existing = absolute.ancestors().find(|path| path.exists())?;
    let found = rustix::fs::statvfs(existing).ok()?;
    // Some file systems (of /proc, of a network) say 0 of 0: they do not know.
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free_disk(_out: &Path) -> Option<u64> {
    None
}

/// Bytes that this process may still take: of the machine's memory and swap, and of its control groups' limits.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let machine = 1024 * (kibibytes("MemAvailable:")? + kibibytes("SwapFree:").unwrap_or(0));
    Some(control_groups().into_iter().fold(machine, u64::min))
}

/// What each control group of this process leaves it (cgroup v2, and v1's memory controller).
fn control_groups() -> Vec<u64> {
    let Ok(text) = std::fs::read_to_string("/proc/self/cgroup") else {
        return Vec::new();
    };
    let number = |path: std::path::PathBuf| -> Option<u64> {
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let mut left = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, limit, used) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
            "memory" => (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
            _ => continue,
        };
        // In a container the group's path is the host's; its own files are then at the root.
        let relative = Path::new(group.trim_start_matches('/'));
        for group in relative.ancestors() {
            let folder = Path::new(root).join(group);
            let Some(limit) = number(folder.join(limit)) else {
                continue;
            };
            let used = number(folder.join(used)).unwrap_or(0);
            // Cached files are given back when memory is wanted.
            let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let cached = stat
                .lines()
                .filter_map(|line| {
                    line.strip_prefix("inactive_file ")
                        .or_else(|| line.strip_prefix("active_file "))
                })
                .filter_map(|bytes| bytes.parse::<u64>().ok())
                .sum::<u64>();
            left.push(limit.saturating_sub(used.saturating_sub(cached)));
        }
    }
    left
}

/// Bytes in a unit that can be read.
pub struct Bytes(pub f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("TB", 1e12), ("GB", 1e9), ("MB", 1e6)] {
            if self.0 >= size {
                return write!(f, "{:.1} {unit}", self.0 / size);
            }
        }
        write!(f, "{:.0} kB", (self.0 / 1e3).ceil())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_data::ImageShape;

    #[test]
    fn bytes_have_a_unit_that_can_be_read() {
        for (bytes, text) in [
            (10.0, "1 kB"),
            (2.5e6, "2.5 MB"),
            (3e9, "3.0 GB"),
            (4.4e15, "4400.0 TB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_disk_of_this_machine_are_found() {
        assert!(available_memory().unwrap() > 1 << 20);
        assert!(free_disk(Path::new("not/there/yet")).unwrap() > 0);
    }

    #[test]
    fn what_cannot_fit_is_refused_with_numbers_and_remedy() {
        let needs = Needs {
            disk: 1e6,
            memory: 1e18,
        };
        let failure = needs
            .check(Path::new("out"), 0, "give a smaller --batch-size")
            .unwrap_err();
        assert_eq!(failure.code, 2);
        for part in ["1000000.0 TB of memory", "available", "--batch-size"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        let needs = Needs {
            disk: 1e18,
            memory: 1e6,
        };
        let failure = needs.check(Path::new("out"), 0, "").unwrap_err();
        assert!(failure.message.contains("out: the run needs about"));
        needs.check(Path::new("out"), 1 << 62, "").unwrap();
    }

    #[test]
    fn more_steps_than_can_be_counted_are_refused() {
        let shape = ImageShape {
            height: 1,
            width: 1,
            channels: 3,
        };
        let data = Dataset::from_pixels(shape, vec![0; 6], vec![0, 0]).unwrap();
        let endless = Work {
            footprint: Footprint {
                state: 0.0,
                held: Vec::new(),
            },
            data: &data,
            batch_size: 1,
            accumulate: 1,
            steps: usize::MAX,
            checkpoint_every: Some(5),
            model: 0,
        };
        assert_eq!(endless.needs().unwrap_err().code, 2);
    }
}
