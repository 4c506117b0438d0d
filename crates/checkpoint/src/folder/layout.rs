//! Which files of a UNet's folder hold its weights.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::error::{FolderError, shown};
use super::names::current_name;
use super::safetensors_file::{self, UniqueMap};
use super::source::Source;
use super::stored::StoredTensor;
use super::tensor::{Dtype, RawTensor};
use super::torch_file;
use super::wrapping::wrapping;

const STEM: &str = "diffusion_pytorch_model";

/// The names of weight files, in the order in which they are looked for.
pub(super) struct Names {
    files: [&'static str; 4],
    expected: &'static str,
}

/// The order is that of diffusers: sharded safetensors, safetensors, `.bin`; a sharded `.bin`, which diffusers takes only
/// with `use_safetensors=False`, comes last.
pub(super) const DIFFUSERS: Names = Names {
    files: [
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.bin.index.json",
    ],
    expected: "diffusion_pytorch_model.safetensors, its .index.json with the shards, diffusion_pytorch_model.bin",
};

pub(super) const TRANSFORMERS: Names = Names {
    files: [
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ],
    expected: "model.safetensors, its .index.json with the shards, pytorch_model.bin",
};

impl Names {
    /// The one safetensors file.
    pub fn single(&self) -> &'static str {
        let single = |name: &&str| name.ends_with(".safetensors");
        let found = self.files.into_iter().find(single);
        found.expect("written above")
    }
}

pub(super) const LARGEST_INDEX: u64 = 16 << 20;

/// The weight files that diffusers would load without `variant`.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Relative to the model folder, as all paths here.
    pub files: Vec<PathBuf>,
    /// Index file and tensor -> shard, for sharded weights.
    index: Option<(PathBuf, Vec<(String, PathBuf)>)>,
}

/// A tensor, where it is from, and its name there.
pub(super) struct Loaded {
    pub file: PathBuf,
    pub name: String,
    /// The name that the network uses today.
    pub current: String,
    pub tensor: StoredTensor,
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap,
}

impl Layout {
    /// Looks for weights in `unet` (relative to the model folder).
    pub fn find(source: &Source, unet: &Path, names: &Names) -> Result<Self, FolderError> {
        for name in names.files {
            let relative = unet.join(name);
            if source.has(&relative) {
                return if name.ends_with(".json") {
                    Self::sharded(source, unet, relative)
                } else {
                    Ok(Self {
                        files: vec![relative],
                        index: None,
                    })
                };
            }
        }
        Err(nothing_to_load(source, unet, names.expected))
    }

    fn sharded(source: &Source, unet: &Path, index: PathBuf) -> Result<Self, FolderError> {
        let bytes = source.read_small(&index, LARGEST_INDEX)?;
        let path = source.path(&index);
        let Index { weight_map } = match serde_json::from_slice(&bytes) {
            Ok(parsed) => parsed,
            Err(source) => return Err(FolderError::Json { path, source }),
        };
        let mut problems = Vec::new();
        let shards: BTreeSet<&String> = weight_map.0.iter().map(|(_, shard)| shard).collect();
        if shards.is_empty() {
            problems.push("it lists no tensors".to_string());
        }
        for shard in shards.iter().copied() {
            if !is_plain_name(shard) {
                problems.push(format!(
                    "shard {} is not a plain file name in the folder",
                    shown(shard)
                ));
            } else if let Err(error) = source.open_content(&unet.join(shard)) {
                problems.push(error.to_string());
            }
        }
        if !problems.is_empty() {
            return Err(FolderError::Index { path, problems });
        }
        let files = shards.into_iter().map(|shard| unet.join(shard)).collect();
        let map = weight_map
            .0
            .into_iter()
            .map(|(name, shard)| (name, unet.join(shard)))
            .collect();
        Ok(Self {
            files,
            index: Some((index, map)),
        })
    }

    /// The weight files and the index.
    pub fn all_files(&self) -> impl Iterator<Item = &Path> {
        let index = self.index.as_ref().map(|(index, _)| index.as_path());
        self.files.iter().map(PathBuf::as_path).chain(index)
    }

    /// Finds every tensor, file by file, looks at all values once, and compares shards with their index.
    pub fn read(&self, source: &Source) -> Result<Vec<Loaded>, FolderError> {
        let mut loaded = Vec::new();
        for file in &self.files {
            let tensors: Vec<(String, StoredTensor)> = if is_torch(file) {
                let tensors = torch_file::read(source, file)?.into_iter();
                tensors
                    .map(|(name, tensor)| (name, tensor.into()))
                    .collect()
            } else {
                safetensors_file::find(source, file)?
            };
            if tensors.is_empty() {
                return Err(FolderError::malformed(
                    &source.path(file),
                    "holds no tensors",
                ));
            }
            let values = tensors.iter().map(|(name, t)| Ok((name, t.read()?)));
            check_finite(&source.path(file), values)?;
            loaded.extend(tensors.into_iter().map(|(name, tensor)| Loaded {
                file: file.clone(),
                current: name.clone(),
                name,
                tensor,
            }));
        }
        let prefix = wrapping(loaded.iter().map(|one| one.name.as_str()));
        for one in &mut loaded {
            let name = &one.name[prefix.len()..];
            // diffusers does not rename in sharded files, which are younger than the new names.
            let renamed = self.index.is_none().then(|| current_name(name)).flatten();
            one.current = renamed.unwrap_or_else(|| name.to_owned());
        }
        if let Some((index, map)) = &self.index {
            let problems = index_problems(map, &loaded);
            if !problems.is_empty() {
                return Err(FolderError::Index {
                    path: source.path(index),
                    problems,
                });
            }
        }
        Ok(loaded)
    }

    /// The names of all tensors as the files have them.
    pub fn names(&self, source: &Source) -> Result<Vec<String>, FolderError> {
        let mut names = Vec::new();
        for file in &self.files {
            if is_torch(file) {
                names.extend(torch_file::names(source, file)?);
            } else {
                let tensors = safetensors_file::find(source, file)?.into_iter();
                names.extend(tensors.map(|(name, _)| name));
            }
        }
        Ok(names)
    }

    /// Whether tensors can be written in another element type: a `.bin` says it in its program, and an index counts
    /// bytes.
    pub fn can_convert(&self) -> bool {
        self.index.is_none() && !self.files.iter().any(|file| is_torch(file))
    }

    /// Writes `file`, one of `self.files`, to `out` with the values of `tensor`, found by the names in the file, in the
    /// types that `dtype` gives for those of the file.
    pub fn rewrite<'a>(
        source: &Source,
        file: &Path,
        out: &Path,
        dtype: impl Fn(Dtype) -> Dtype,
        tensor: impl Fn(&str) -> Result<Option<Cow<'a, RawTensor>>, FolderError>,
    ) -> Result<(), FolderError> {
        if is_torch(file) {
            torch_file::rewrite(source, file, out, tensor)
        } else {
            safetensors_file::rewrite(source, file, out, dtype, "", tensor)
        }
    }
}

/// Whether a file name is that of weights that diffusers would take for the same network under other options (another
/// format, a variant, a shard of either).
pub(super) fn is_network_weights(name: &str) -> bool {
    let is_model = name.starts_with(STEM)
        || name.starts_with("diffusion_flax_model")
        || name == "model.flashpack";
    is_model && (is_weights(name) || name.ends_with(".index.json"))
}

/// Whether a file name is that of weights of any kind.
pub(super) fn is_weights(name: &str) -> bool {
    const ENDINGS: [&str; 11] = [
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".msgpack",
        ".onnx",
        ".pb",
        ".h5",
        ".gguf",
        ".flashpack",
    ];
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Refuses NaN and infinity, with the names of all tensors that hold one. Holds one tensor at a time.
pub(super) fn check_finite<'a>(
    path: &Path,
    tensors: impl Iterator<Item = Result<(&'a String, Cow<'a, RawTensor>), FolderError>>,
) -> Result<(), FolderError> {
    let mut names = Vec::new();
    for tensor in tensors {
        let (name, tensor) = tensor?;
        if !tensor.is_finite() {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let path = path.to_path_buf();
    Err(FolderError::NonFinite { path, names })
}

pub(super) fn is_torch(file: &Path) -> bool {
    file.extension()
        .is_none_or(|extension| extension != "safetensors")
}

fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let first = components.next();
    matches!(first, Some(Component::Normal(only)) if only == name)
        && components.next().is_none()
        && !name.contains(['/', '\\', '\0'])
}

fn nothing_to_load(source: &Source, unet: &Path, expected: &'static str) -> FolderError {
    let path = source.path(unet);
    let names = std::fs::read_dir(source.canonical.join(unet))
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<_> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_weights(name))
        .collect();
    found.sort();
    // `diffusion_pytorch_model.fp16.safetensors`, `diffusion_pytorch_model.non_ema.bin`.
    let variant = found.iter().find_map(|name| {
        let (rest, ending) = name.strip_prefix(STEM)?.rsplit_once('.')?;
        let is_variant = rest.starts_with('.') && matches!(ending, "safetensors" | "bin");
        is_variant.then(|| (name.clone(), format!("{STEM}.{ending}")))
    });
    match variant {
        Some((rename_from, rename_to)) => FolderError::OnlyVariant {
            path,
            found,
            rename_from,
            rename_to,
        },
        None => FolderError::NoWeights {
            path,
            expected,
            found,
        },
    }
}

fn index_problems(map: &[(String, PathBuf)], loaded: &[Loaded]) -> Vec<String> {
    let shard_name = |file: &Path| shown(&file.file_name().unwrap_or_default().to_string_lossy());
    let mapped: HashMap<&str, &Path> = map
        .iter()
        .map(|(name, shard)| (name.as_str(), shard.as_path()))
        .collect();
    let there: HashSet<(&str, &Path)> = loaded
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor.file.as_path()))
        .collect();
    let missing = map
        .iter()
        .filter(|(name, shard)| !there.contains(&(name.as_str(), shard.as_path())));
    let missing =
        missing.map(|(name, shard)| format!("{} is not in {}", shown(name), shard_name(shard)));
    let extra = loaded.iter().filter_map(|tensor| {
        let found = format!("{} is in {}", shown(&tensor.name), shard_name(&tensor.file));
        match mapped.get(tensor.name.as_str()) {
            None => Some(format!("{found} but not in the index")),
            Some(shard) if *shard != tensor.file => {
                Some(format!("{found}, the index says {}", shard_name(shard)))
            }
            Some(_) => None,
        }
    });
    missing.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_without_folders_are_shards() {
        assert!(is_plain_name(
            "diffusion_pytorch_model-00001-of-00002.safetensors"
        ));
        for name in [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "a/b",
            "a/",
            "./a",
            "a\\b",
            "a\0b",
        ] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }

    #[test]
    fn weights_of_the_same_network_are_told_from_other_files() {
        for name in [
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.fp16.bin.index.json",
            "diffusion_flax_model.msgpack",
        ] {
            assert!(is_network_weights(name), "{name}");
        }
        for name in [
            "config.json",
            "model.safetensors",
            "diffusion_pytorch_model.md",
        ] {
            assert!(!is_network_weights(name), "{name}");
        }
    }
}
