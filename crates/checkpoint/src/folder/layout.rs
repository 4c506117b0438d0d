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
/// In the name of a shard, between its number and that of all: `-00001-of-00002`.
const SHARD: &str = "-of-";
/// The parts of a pipeline whose weights are read, and how their files are called.
pub(super) const PARTS: [(&str, &Names); 6] = [
    ("unet", &DIFFUSERS),
    ("transformer", &DIFFUSERS),
    ("vae", &DIFFUSERS),
    ("text_encoder", &TRANSFORMERS),
    ("text_encoder_2", &TRANSFORMERS),
    ("text_encoder_3", &TRANSFORMERS),
];

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
    /// The main file of which `name` is a variant: `model.safetensors` of `model.fp16.safetensors`,
    /// `model.safetensors.index.json` of `model.safetensors.index.fp16.json`. No shard is one.
    fn main_of(&self, name: &str) -> Option<&'static str> {
        let parts: Vec<&str> = name.split('.').collect();
        let without = |left_out: usize| {
            let others = (0..parts.len()).filter(|&at| at != left_out);
            others.map(|at| parts[at]).collect::<Vec<_>>().join(".")
        };
        let variants = (1..parts.len()).filter(|&at| !parts[at].contains(SHARD));
        let mut mains = variants.filter_map(|at| {
            let main = without(at);
            self.files.into_iter().find(|file| *file == main)
        });
        mains.next()
    }

    /// The file of a variant to rename among those of a folder without main weights, and its new name.
    fn variant(&self, found: &[String]) -> Option<(String, String)> {
        self.files.into_iter().find_map(|main| {
            let name = found.iter().find(|name| self.main_of(name) == Some(main))?;
            Some((name.clone(), main.to_owned()))
        })
    }

    /// The index that lies beside a shard of this name.
    fn index_of(&self, shard: &str) -> Option<String> {
        let (start, ending) = shard.rsplit_once('.')?;
        let (stem, number) = start.split_at(start.find(['-', '.'])?);
        let single = format!("{stem}.{ending}");
        (number.contains(SHARD) && self.files.contains(&single.as_str())).then(|| {
            // `.fp16-00001-of-00002`, and `-00001-of-00002.fp16` as older releases wrote it.
            let word = |part: &&str| !part.contains(SHARD) && !part.is_empty();
            let variant = match number
                .strip_prefix('.')
                .and_then(|rest| rest.split_once('-'))
            {
                Some((variant, _)) => Some(variant),
                None => number.split('.').skip(1).find(word),
            };
            let variant = variant.map_or(String::new(), |variant| format!(".{variant}"));
            format!("{single}.index{variant}.json")
        })
    }

    /// The one safetensors file.
    pub(super) fn single(&self) -> &'static str {
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
    /// The file, relative to the root.
    pub file: PathBuf,
    /// The name in the file.
    pub name: String,
    /// The name that the network uses today.
    pub current: String,
    /// Its values.
    pub tensor: StoredTensor,
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap,
}

impl Layout {
    /// Looks for weights in `unet` (relative to the model folder).
    pub(super) fn find(source: &Source, unet: &Path, names: &Names) -> Result<Self, FolderError> {
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
        Err(nothing_to_load(source, unet, names))
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
    pub(super) fn all_files(&self) -> impl Iterator<Item = &Path> {
        let index = self.index.as_ref().map(|(index, _)| index.as_path());
        self.files.iter().map(PathBuf::as_path).chain(index)
    }

    /// Finds every tensor, file by file, looks at all values once, and compares shards with their index.
    pub(super) fn read(&self, source: &Source) -> Result<Vec<Loaded>, FolderError> {
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
    pub(super) fn names(&self, source: &Source) -> Result<Vec<String>, FolderError> {
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
    pub(super) fn can_convert(&self) -> bool {
        self.index.is_none() && !self.files.iter().any(|file| is_torch(file))
    }

    /// Writes `file`, one of `self.files`, to `out` with the values of `tensor`, found by the names in the file, in the
    /// types that `dtype` gives for those of the file.
    pub(super) fn rewrite<'a>(
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
    is_model && (is_weights(name) || is_index(name))
}

/// The same of a network of transformers.
pub(super) fn is_text_weights(name: &str) -> bool {
    const STEMS: [&str; 5] = [
        "model.",
        "model-",
        "pytorch_model",
        "tf_model",
        "flax_model",
    ];
    let is_model = STEMS.iter().any(|stem| name.starts_with(stem));
    is_model && (is_weights(name) || is_index(name))
}

/// Whether a file name is that of weights of any kind.
pub(super) fn is_weights(name: &str) -> bool {
    const ENDINGS: [&str; 24] = [
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
        ".pkl",
        ".pickle",
        ".joblib",
        ".npz",
        ".npy",
        ".engine",
        ".plan",
        ".tflite",
        ".onnx_data",
        ".onnx.data",
        ".ot",
        ".hdf5",
        ".mlmodel",
    ];
    let name = name.to_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a file name is that of an index of shards: `x.index.json`, of a variant `x.index.fp16.json`.
fn is_index(name: &str) -> bool {
    name.contains(".index.") && name.ends_with(".json")
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

fn nothing_to_load(source: &Source, unet: &Path, names: &Names) -> FolderError {
    let path = source.path(unet);
    let there = names_in(source, unet);
    let found = there.iter().filter(|name| is_weights(name)).cloned();
    let found: Vec<String> = found.collect();
    if let Some(own) = names.variant(&there) {
        // Whoever saved one part so saved all, and renames all at once.
        let others = PARTS.iter().filter(|(part, _)| {
            let pipeline = unet.components().count() == 1;
            pipeline && Path::new(part) != unet
        });
        let others = others.filter_map(|(part, names)| {
            let there = names_in(source, Path::new(part));
            let has_main = names
                .files
                .iter()
                .any(|main| there.iter().any(|name| name == main));
            let (from, to) = names.variant(&there).filter(|_| !has_main)?;
            let below = |name: String| {
                source
                    .path(&Path::new(part).join(name))
                    .display()
                    .to_string()
            };
            Some((below(from), below(to)))
        });
        return FolderError::OnlyVariant {
            path,
            found,
            renames: std::iter::once(own).chain(others).collect(),
        };
    }
    match found.iter().find_map(|name| names.index_of(name)) {
        Some(index) => FolderError::NoIndex { path, found, index },
        None => FolderError::NoWeights {
            path,
            expected: names.expected,
            found,
        },
    }
}

/// The names of the files in a folder (relative to the model folder), in their order.
fn names_in(source: &Source, folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(source.canonical.join(folder));
    let entries = entries.into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
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
    fn a_variant_is_its_main_file_with_one_more_part_in_its_name() {
        for (names, variant, main) in [
            (&TRANSFORMERS, "model.fp16.safetensors", "model.safetensors"),
            (&TRANSFORMERS, "pytorch_model.fp16.bin", "pytorch_model.bin"),
            (
                &TRANSFORMERS,
                "model.safetensors.index.fp16.json",
                "model.safetensors.index.json",
            ),
            (
                &DIFFUSERS,
                "diffusion_pytorch_model.non_ema.bin",
                "diffusion_pytorch_model.bin",
            ),
            (
                &DIFFUSERS,
                "diffusion_pytorch_model.safetensors.index.fp16.json",
                "diffusion_pytorch_model.safetensors.index.json",
            ),
        ] {
            assert_eq!(names.main_of(variant), Some(main), "{variant}");
        }
        for other in [
            "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.safetensors",
            "model.fp16.safetensors",
        ] {
            assert_eq!(DIFFUSERS.main_of(other), None, "{other}");
        }
    }

    #[test]
    fn shards_without_an_index_are_told_which_they_lack() {
        let of = |shard: &str| DIFFUSERS.index_of(&format!("diffusion_pytorch_model{shard}"));
        let index = |variant: &str| {
            Some(format!(
                "diffusion_pytorch_model.safetensors.index{variant}.json"
            ))
        };
        assert_eq!(of("-00001-of-00002.safetensors"), index(""));
        assert_eq!(of(".fp16-00001-of-00002.safetensors"), index(".fp16"));
        assert_eq!(of("-00001-of-00002.fp16.safetensors"), index(".fp16"));
        assert_eq!(of(".fp16.safetensors"), None);
        assert_eq!(TRANSFORMERS.index_of("optimizer-00001-of-00002.bin"), None);
    }

    #[test]
    fn weights_of_the_same_network_are_told_from_other_files() {
        for name in [
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.fp16.bin.index.json",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
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

    #[test]
    fn what_may_hold_weights_is_known_in_every_format() {
        for name in [
            "ema.pkl",
            "weights.npz",
            "unet/model.engine",
            "model.onnx_data",
            "MODEL.CKPT",
        ] {
            assert!(is_weights(name), "{name}");
        }
        for name in ["config.json", "README.md", "sample.png", "merges.txt"] {
            assert!(!is_weights(name), "{name}");
        }
    }
}
