//! The state of a run on disk: weights, moments, average, step, and what the retained images' loss was at first.
//!
//! A checkpoint is a safetensors file with its SHA-256 beside it. The last two are kept, so that a
//! damaged one costs the steps since the one before and not the run. None holds an image.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use retrack_checkpoint::folder::sha256_file;
use retrack_networks::lora;
use retrack_networks::parameters::{self, to_host};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorInfo};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::optimizer::{AdamW, AdamWConfig, Ema, EmaConfig};
use crate::trainer::Trainer;
use retrack_checkpoint::durable;
use retrack_checkpoint::hex::hex;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused a file or a folder.
    #[error("{}: cannot {action} the checkpoint: {source}", path.display())]
    Io {
        /// The checkpoint.
        path: PathBuf,
        /// What was tried: "write" or "read".
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// The file is no checkpoint of such a run.
    #[error("{}: damaged checkpoint: {problem}", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// A checkpoint without the state that resuming needs.
    #[error(
        "{}: an earlier version wrote this checkpoint, without what the retained images' loss was at first; finish the \
         run with that version, or start it anew in another folder",
        path.display()
    )]
    Earlier {
        /// The checkpoint.
        path: PathBuf,
    },
}

const KEPT: usize = 2;

/// The key of the header under which is what is no tensor: one text, so that its bytes follow from the state.
const STATE: &str = "state";

/// The checkpoint of a step in a run's folder.
pub fn file(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("checkpoint-{step:08}.safetensors"))
}

fn digest_file(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

/// The steps of the checkpoints in a folder, newest first.
pub fn list(folder: &Path) -> Vec<usize> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut steps: Vec<usize> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            step_of(name.to_str()?.strip_suffix(".safetensors")?)
        })
        .collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps
}

/// The step in a checkpoint's name without its ending. Other names that begin alike, such as copies that somebody made
/// of one, are not ours.
fn step_of(stem: &str) -> Option<usize> {
    let step = stem.strip_prefix("checkpoint-")?;
    let digits = step.len() >= 8 && step.bytes().all(|byte| byte.is_ascii_digit());
    step.parse().ok().filter(|_| digits)
}

/// Whether a file's name is that of a checkpoint or its digest.
pub fn is_name(name: &str) -> bool {
    let stem = [".safetensors", ".sha256"]
        .iter()
        .find_map(|end| name.strip_suffix(end));
    stem.is_some_and(|stem| step_of(stem).is_some())
}

/// Removes the checkpoints of a folder, all or all but the newest, and what interrupted writes left there.
///
/// # Errors
/// The system's.
pub fn remove_all(folder: &Path, keep_newest: bool) -> io::Result<()> {
    let kept = list(folder).first().copied().filter(|_| keep_newest);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem);
        let is_kept = kept.is_some() && step_of(stem) == kept;
        let ours = is_name(&name) || durable::is_temporary(&name);
        if ours && !is_kept && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove(folder: &Path, step: usize) -> io::Result<()> {
    let path = file(folder, step);
    fs::remove_file(&path)?;
    match fs::remove_file(digest_file(&path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the trainer's state and removes all but the newest two checkpoints.
///
/// # Errors
/// The disk's; earlier checkpoints are then as they were.
pub fn save(trainer: &Trainer, folder: &Path) -> Result<(), CheckpointError> {
    let path = file(folder, trainer.step);
    let failed = |source: io::Error| {
        let (path, action) = (path.clone(), "write");
        CheckpointError::Io {
            path,
            action,
            source,
        }
    };
    let header = header(trainer).map_err(|error| failed(io::Error::other(error)))?;
    // One tensor at a time: together they are three to four times the network.
    let digest = RefCell::new(Sha256::new());
    durable::write_then(
        &path,
        |out| {
            let mut put = |bytes: &[u8]| {
                digest.borrow_mut().update(bytes);
                out.write_all(bytes)
            };
            put(&(header.len() as u64).to_le_bytes())?;
            put(&header)?;
            for_each_tensor(trainer, |_, values| {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                put(&bytes)
            })
        },
        // The digest before the checkpoint has its name: one that is there can always be verified, whenever the
        // process dies.
        || {
            let digest = hex(&digest.take().finalize());
            durable::write(&digest_file(&path), |out| out.write_all(digest.as_bytes()))
        },
    )
    .map_err(failed)?;
    for step in list(folder).into_iter().skip(KEPT) {
        remove(folder, step).map_err(failed)?;
    }
    Ok(())
}

/// Hands every tensor of a trainer's state to `work`, in the order of the file.
fn for_each_tensor(
    trainer: &Trainer,
    mut work: impl FnMut(&str, &[f32]) -> io::Result<()>,
) -> io::Result<()> {
    let adapted = lora::is_adapted(trainer.network());
    let mut trained = Vec::new();
    let mut outcome = Ok(());
    parameters::visit(trainer.network(), |parameter, tensor| {
        if parameter.trained {
            trained.push(parameter.name.clone());
        } else if adapted {
            // The weights under adapters are the model folder's, and gigabytes.
            return;
        }
        if outcome.is_ok() {
            outcome = work(&format!("network/{}", parameter.name), &to_host(tensor));
        }
    });
    outcome?;
    for (name, (first, second)) in trained.iter().zip(trainer.optimizer.moments()) {
        work(&format!("moment1/{name}"), &to_host(first.clone()))?;
        work(&format!("moment2/{name}"), &to_host(second.clone()))?;
    }
    if let Some(ema) = &trainer.ema {
        for (name, average) in trained.iter().zip(ema.averages()) {
            work(&format!("ema/{name}"), &to_host(average.clone()))?;
        }
    }
    Ok(())
}

/// The safetensors header of a trainer's state.
fn header(trainer: &Trainer) -> Result<Vec<u8>, SafeTensorError> {
    let (mut tensors, mut end) = (Vec::new(), 0);
    let mut lengths = Vec::new();
    let adapted = lora::is_adapted(trainer.network());
    parameters::visit(trainer.network(), |parameter, _| {
        if adapted && !parameter.trained {
            return;
        }
        let count: usize = parameter.shape.iter().product();
        lengths.push((parameter.name.clone(), count, parameter.trained));
    });
    let trained = || lengths.iter().filter(|(_, _, trained)| *trained);
    let mut add = |name: String, count: usize| {
        let start = end;
        end += 4 * count;
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: vec![count],
            data_offsets: (start, end),
        };
        tensors.push((name, info));
    };
    for (name, count, _) in &lengths {
        add(format!("network/{name}"), *count);
    }
    for ((name, count, _), _) in trained().zip(trainer.optimizer.moments()) {
        add(format!("moment1/{name}"), *count);
        add(format!("moment2/{name}"), *count);
    }
    if trainer.ema.is_some() {
        for (name, count, _) in trained() {
            add(format!("ema/{name}"), *count);
        }
    }
    let state = json!({"step": trainer.step, "watch": trainer.watch.to_json()}).to_string();
    let header = Metadata::new(Some(HashMap::from([(STATE.to_string(), state)])), tensors)?;
    let mut header = serde_json::to_vec(&header).map_err(SafeTensorError::JsonError)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// Loads the newest checkpoint that is whole into a trainer of the same run. Returns what was wrong
/// with newer ones; without any checkpoint the trainer stays at step 0.
///
/// # Errors
/// There are checkpoints, but none is whole; the trainer is then of no more use.
pub fn resume(
    trainer: &mut Trainer,
    folder: &Path,
    adamw: &AdamWConfig,
    ema: Option<&EmaConfig>,
) -> Result<Vec<CheckpointError>, CheckpointError> {
    let mut damaged = Vec::new();
    for step in list(folder) {
        match load(trainer, folder, step, adamw, ema) {
            Ok(()) => return Ok(damaged),
            Err(error) => damaged.push(error),
        }
    }
    match damaged.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Vec::new()),
    }
}

/// Looks whether the checkpoint of a step is as it was written.
///
/// # Errors
/// It is not, or cannot be read.
pub fn verify(folder: &Path, step: usize) -> Result<(), CheckpointError> {
    let path = file(folder, step);
    let failed = |source| CheckpointError::Io {
        path: path.clone(),
        action: "read",
        source,
    };
    let recorded = fs::read_to_string(digest_file(&path)).map_err(failed)?;
    let actual = sha256_file(&path).map_err(|error| failed(io::Error::other(error)))?;
    match recorded.trim() == actual {
        true => Ok(()),
        false => Err(CheckpointError::Damaged {
            path,
            problem: "its SHA-256 is not the recorded one".into(),
        }),
    }
}

fn load(
    trainer: &mut Trainer,
    folder: &Path,
    step: usize,
    adamw: &AdamWConfig,
    ema: Option<&EmaConfig>,
) -> Result<(), CheckpointError> {
    verify(folder, step)?;
    let path = file(folder, step);
    let mut saved = Saved::open(&path)?;
    let adapted = lora::is_adapted(trainer.network());
    let parameters: Vec<(String, usize, bool)> = parameters::list(trainer.network())
        .into_iter()
        .filter(|parameter| parameter.trained || !adapted)
        .map(|parameter| {
            let count = parameter.shape.iter().product();
            (parameter.name, count, parameter.trained)
        })
        .collect();
    // All is looked for before anything changes.
    for (name, count, trained) in &parameters {
        let parts: &[&str] = match (trained, ema) {
            (false, _) => &["network"],
            (true, None) => &["network", "moment1", "moment2"],
            (true, Some(_)) => &["network", "moment1", "moment2", "ema"],
        };
        for part in parts {
            saved.check(&format!("{part}/{name}"), *count)?;
        }
    }
    let mut watch = trainer.watch.clone();
    watch
        .restore(&saved.watch)
        .ok_or_else(|| saved.damaged("its record of the retained images' loss".into()))?;

    // One tensor at a time, in place of what was there: no more is in memory than what the run itself holds.
    trainer.ema = None;
    let device = trainer.device.clone().without_autodiff();
    let mut outcome = Ok(());
    trainer.replace_network(|module| {
        parameters::map(module, |parameter, tensor| {
            if outcome.is_err() || (adapted && !parameter.trained) {
                return tensor;
            }
            match saved.read("network", &parameter.name, &tensor.device()) {
                Ok(values) => values,
                Err(error) => {
                    outcome = Err(error);
                    tensor
                }
            }
        })
    });
    outcome?;
    let (mut moments, mut averages) = (Vec::new(), Vec::new());
    for (name, _, _) in parameters.iter().filter(|(_, _, trained)| *trained) {
        let first = saved.read("moment1", name, &device)?;
        moments.push((first, saved.read("moment2", name, &device)?));
        if ema.is_some() {
            averages.push(saved.read("ema", name, &device)?);
        }
    }
    trainer.optimizer = AdamW::resumed(adamw.clone(), step, moments);
    trainer.ema = ema.map(|config| Ema::resumed(config.clone(), step, averages));
    trainer.watch = watch;
    trainer.step = step;
    Ok(())
}

/// A checkpoint whose header is read.
struct Saved {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// Where the tensors begin.
    start: u64,
    watch: Value,
}

impl Saved {
    fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mut file = File::open(path).map_err(|error| Self::failed(path, error))?;
        let damaged = |problem: String| CheckpointError::Damaged {
            path: path.into(),
            problem,
        };
        let size = file
            .metadata()
            .map_err(|error| Self::failed(path, error))?
            .len();
        let mut length = [0; 8];
        file.read_exact(&mut length)
            .map_err(|error| damaged(error.to_string()))?;
        let length = u64::from_le_bytes(length);
        if length > size - 8 {
            return Err(damaged("its header is longer than the file".into()));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)
            .map_err(|error| Self::failed(path, error))?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
        if header.data_len() as u64 != size - 8 - length {
            return Err(damaged("its tensors do not fill the file".into()));
        }
        let state = header.metadata().as_ref().and_then(|all| all.get(STATE));
        let state = state.ok_or_else(|| CheckpointError::Earlier { path: path.into() })?;
        let state: Value =
            serde_json::from_str(state).map_err(|error| damaged(error.to_string()))?;
        Ok(Self {
            path: path.into(),
            file,
            header,
            start: 8 + length,
            watch: state["watch"].clone(),
        })
    }

    fn failed(path: &Path, source: io::Error) -> CheckpointError {
        CheckpointError::Io {
            path: path.into(),
            action: "read",
            source,
        }
    }

    fn damaged(&self, problem: String) -> CheckpointError {
        CheckpointError::Damaged {
            path: self.path.clone(),
            problem,
        }
    }

    /// That there is such a tensor, of `count` numbers.
    fn check(&self, name: &str, count: usize) -> Result<(), CheckpointError> {
        match self.header.info(name) {
            Some(info)
                if info.dtype == Dtype::F32 && info.shape.iter().product::<usize>() == count =>
            {
                Ok(())
            }
            Some(_) => Err(self.damaged(format!("{name} has another size"))),
            None => Err(self.damaged(format!("{name} is missing"))),
        }
    }

    /// A tensor that is there, flat.
    fn read(
        &mut self,
        part: &str,
        name: &str,
        device: &Device,
    ) -> Result<Tensor<1>, CheckpointError> {
        let info = self
            .header
            .info(&format!("{part}/{name}"))
            .expect("checked");
        let (start, end) = info.data_offsets;
        let count = (end - start) / 4;
        let values = read_floats(&mut self.file, self.start + start as u64, count)
            .map_err(|error| Self::failed(&self.path, error))?;
        Ok(Tensor::from_data(TensorData::new(values, [count]), device))
    }
}

/// `count` floats from the byte `start` on.
fn read_floats(file: &mut File, start: u64, count: usize) -> io::Result<Vec<f32>> {
    const AT_ONCE: usize = 1 << 18;
    file.seek(SeekFrom::Start(start))?;
    let mut values = Vec::with_capacity(count);
    let mut bytes = vec![0; 4 * count.min(AT_ONCE)];
    while values.len() < count {
        let bytes = &mut bytes[..4 * (count - values.len()).min(AT_ONCE)];
        file.read_exact(bytes)?;
        let (words, _) = bytes.as_chunks::<4>();
        values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
    }
    Ok(values)
}
