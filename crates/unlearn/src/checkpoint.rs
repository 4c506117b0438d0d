//! The state of a run on disk: weights, moments, average and step.
//!
//! A checkpoint is a safetensors file with its SHA-256 beside it. The last two are kept, so that a
//! damaged one costs the steps since the one before and not the run. None holds an image.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::denoiser::Denoiser;
use retrack_networks::folder::sha256_file;
use retrack_networks::lora;
use retrack_networks::parameters::{self, to_host};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorInfo};
use sha2::{Digest, Sha256};

use crate::data::hex;
use crate::durable;
use crate::optimizer::{AdamWConfig, Ema, EmaConfig};
use crate::trainer::Trainer;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(
        "{}: the disk is full: cannot {action} the checkpoint; the one before is as it was: free some space, or copy \
         the run's folder to another disk and go on there with --resume",
        path.display()
    )]
    DiskFull {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    #[error("{}: cannot {action} the checkpoint: {source}", path.display())]
    Io {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    #[error("{}: damaged checkpoint: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
}

const KEPT: usize = 2;

fn file(folder: &Path, step: usize) -> PathBuf {
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
pub fn save<M: Module + Denoiser>(
    trainer: &Trainer<M>,
    folder: &Path,
) -> Result<(), CheckpointError> {
    let path = file(folder, trainer.step);
    let failed = |source: io::Error| {
        let (path, action) = (path.clone(), "write");
        if durable::is_full(&source) {
            CheckpointError::DiskFull {
                path,
                action,
                source,
            }
        } else {
            CheckpointError::Io {
                path,
                action,
                source,
            }
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
fn for_each_tensor<M: Module + Denoiser>(
    trainer: &Trainer<M>,
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
fn header<M: Module + Denoiser>(trainer: &Trainer<M>) -> Result<Vec<u8>, SafeTensorError> {
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
    let step = HashMap::from([("step".to_string(), trainer.step.to_string())]);
    let header = Metadata::new(Some(step), tensors)?;
    let mut header = serde_json::to_vec(&header).map_err(SafeTensorError::JsonError)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// Loads the newest checkpoint that is whole into a trainer of the same run. Returns what was wrong
/// with newer ones; without any checkpoint the trainer stays at step 0.
///
/// # Errors
/// There are checkpoints, but none is whole.
pub fn resume<M: Module + Denoiser>(
    trainer: &mut Trainer<M>,
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

fn load<M: Module + Denoiser>(
    trainer: &mut Trainer<M>,
    folder: &Path,
    step: usize,
    adamw: &AdamWConfig,
    ema: Option<&EmaConfig>,
) -> Result<(), CheckpointError> {
    let path = file(folder, step);
    let failed = |source| CheckpointError::Io {
        path: path.clone(),
        action: "read",
        source,
    };
    let damaged = |problem: String| CheckpointError::Damaged {
        path: path.clone(),
        problem,
    };
    let recorded = fs::read_to_string(digest_file(&path)).map_err(failed)?;
    let actual = sha256_file(&path).map_err(|error| failed(io::Error::other(error)))?;
    if recorded.trim() != actual {
        return Err(damaged("its SHA-256 is not the recorded one".into()));
    }
    let content = fs::read(&path).map_err(failed)?;
    let tensors = SafeTensors::deserialize(&content).map_err(|e| damaged(e.to_string()))?;
    let values = |part: &str, name: &str, count: usize| -> Result<Vec<f32>, CheckpointError> {
        let view = tensors
            .tensor(&format!("{part}/{name}"))
            .map_err(|error| damaged(error.to_string()))?;
        if view.dtype() != Dtype::F32 || view.data().len() != 4 * count {
            return Err(damaged(format!("{part}/{name} has another size")));
        }
        let (words, _) = view.data().as_chunks::<4>();
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    };

    let mut network = HashMap::new();
    let mut moments = Vec::new();
    let mut averages = Vec::new();
    let device = trainer.device.clone().without_autodiff();
    let adapted = lora::is_adapted(trainer.network());
    let flat = |values: Vec<f32>, device: &Device| {
        let count = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [count]), device)
    };
    for parameter in parameters::list(trainer.network()) {
        if adapted && !parameter.trained {
            continue;
        }
        let count = parameter.shape.iter().product();
        let name = &parameter.name;
        network.insert(name.clone(), values("network", name, count)?);
        if parameter.trained {
            let first = flat(values("moment1", name, count)?, &device);
            let second = flat(values("moment2", name, count)?, &device);
            moments.push((first, second));
            if ema.is_some() {
                averages.push(flat(values("ema", name, count)?, &device));
            }
        }
    }
    trainer.replace_network(|module| {
        parameters::map(module, |parameter, tensor| {
            match network.remove(&parameter.name) {
                Some(values) => flat(values, &tensor.device()),
                None => tensor,
            }
        })
    });
    trainer.optimizer = crate::optimizer::AdamW::resumed(adamw.clone(), step, moments);
    trainer.ema = ema.map(|config| Ema::resumed(config.clone(), step, averages));
    trainer.step = step;
    Ok(())
}
