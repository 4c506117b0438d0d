//! The Inception v3 network that FID and the Inception Score are defined by: TensorFlow's of 2015-12-05, in the
//! conversion that torch-fidelity and pytorch-fid use. It is not torchvision's: 1008 classes, average pools that leave
//! out the padding, one maximum pool where an average was meant, inputs resized as TensorFlow 1 resizes them.
//!
//! Layers and names: Szegedy et al. 2015, arXiv 1512.00567, as `FeatureExtractorInceptionV3` of torch-fidelity 0.4 has
//! them. The weights are published as `pt_inception-2015-12-05-6726825d.pth` (95 MB); nothing is downloaded here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use retrack_checkpoint::folder::{FolderError, read_weight_file};

use crate::images::{ImagesError, image_len};
use crate::inception_blocks::{Block, Conv, Parts, Pool, same, valid};
use crate::resize::to_planes;

/// Numbers that describe an image for FID ("pool3").
pub const FEATURES: usize = 2048;
/// Classes of the last layer.
pub const CLASSES: usize = 1008;

/// The network's input has this height and width.
const SIDE: usize = 299;
/// Images that one thread takes at once.
const BATCH: usize = 2;
/// The names under which the weights are published: pytorch-fid's, torch-fidelity's.
const FILE_NAMES: [&str; 2] = [
    "pt_inception-2015-12-05-6726825d.pth",
    "weights-inception-2015-12-05-6726825d.pth",
];

/// Why Inception cannot be loaded or cannot look at images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InceptionError {
    /// A file that cannot be read.
    #[error(transparent)]
    File(#[from] FolderError),
    /// All tensors that are missing or have another shape.
    #[error(
        "{}: not the Inception v3 of FID; give {} (pytorch-fid and torch-fidelity download it){}",
        path.display(),
        FILE_NAMES[0],
        listed(problems)
    )]
    Weights {
        /// The file.
        path: PathBuf,
        /// A sentence each.
        problems: Vec<String>,
    },
    /// Bytes that are no images.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// The device gave no results.
    #[error("Inception's results cannot be read from the device: {0}")]
    Device(String),
}

fn listed(problems: &[String]) -> String {
    const MOST: usize = 10;
    let mut text: String = problems
        .iter()
        .take(MOST)
        .map(|problem| format!("\n  - {problem}"))
        .collect();
    if problems.len() > MOST {
        text += &format!("\n  - and {} more", problems.len() - MOST);
    }
    text
}

/// Where the weights lie if another tool has downloaded them: `$TORCH_HOME/hub/checkpoints`, else that of
/// `$XDG_CACHE_HOME/torch` and of `~/.cache/torch`.
pub fn find() -> Option<PathBuf> {
    find_in(&caches(|name| std::env::var_os(name).map(PathBuf::from)))
}

/// PyTorch's caches, `variable` giving the environment.
fn caches(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
    let homes = [
        set("TORCH_HOME"),
        set("XDG_CACHE_HOME").map(|cache| cache.join("torch")),
        set("HOME").map(|home| home.join(".cache/torch")),
    ];
    let folders = homes.into_iter().flatten();
    folders.map(|home| home.join("hub/checkpoints")).collect()
}

fn find_in(folders: &[PathBuf]) -> Option<PathBuf> {
    folders
        .iter()
        .flat_map(|folder| FILE_NAMES.map(|name| folder.join(name)))
        .find(|path| path.is_file())
}

/// What Inception says of some images, one after another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Description {
    /// [`FEATURES`] numbers an image, for [`crate::frechet`].
    pub features: Vec<f32>,
    /// [`CLASSES`] numbers an image without the last layer's bias (torch-fidelity's `logits_unbiased`), for
    /// [`crate::inception_score`].
    pub logits: Vec<f32>,
}

/// The network, ready to look at images.
#[derive(Debug)]
pub struct Inception {
    /// Up to Mixed_5b: convolutions and the pools between them.
    stem: [Conv; 5],
    blocks: Vec<Block>,
    /// `[FEATURES, CLASSES]`.
    fc: Tensor<2>,
    device: Device,
}

impl Inception {
    /// Reads the published weights: a `.pth` of any age, or the same tensors as `.safetensors`. Tensors beside those
    /// that are needed (`AuxLogits.*`, `num_batches_tracked`) are ignored.
    ///
    /// # Errors
    /// The file cannot be read, or tensors are missing or of another shape: all of them in one message.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, InceptionError> {
        let path = path.as_ref();
        let tensors: HashMap<_, _> = read_weight_file(path)?.into_iter().collect();
        let take = |name: &str, shape: &[usize]| match tensors.get(name) {
            Some(tensor) if tensor.shape() == shape => Ok(tensor.to_f32()),
            Some(tensor) => Err(format!(
                "{name} is {:?} instead of {shape:?}",
                tensor.shape()
            )),
            None => Err(format!("{name} {shape:?} is missing")),
        };
        Self::with_tensors(take, device).map_err(|problems| InceptionError::Weights {
            path: path.to_path_buf(),
            problems,
        })
    }

    /// Builds the network from `take`, which gives the values (in C order) of a tensor by its name and shape in the
    /// published file, or says what is wrong with it.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn with_tensors(
        mut take: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, String>,
        device: &Device,
    ) -> Result<Self, Vec<String>> {
        let mut parts = Parts {
            take: &mut take,
            problems: Vec::new(),
            device: device.clone(),
        };
        let stem = [
            parts.conv("Conv2d_1a_3x3", 3, 32, valid(3, 2)),
            parts.conv("Conv2d_2a_3x3", 32, 32, valid(3, 1)),
            parts.conv("Conv2d_2b_3x3", 32, 64, same(3, 3)),
            parts.conv("Conv2d_3b_1x1", 64, 80, valid(1, 1)),
            parts.conv("Conv2d_4a_3x3", 80, 192, valid(3, 1)),
        ];
        let blocks = vec![
            Block::a(&mut parts, "Mixed_5b", 192, 32),
            Block::a(&mut parts, "Mixed_5c", 256, 64),
            Block::a(&mut parts, "Mixed_5d", 288, 64),
            Block::b(&mut parts, "Mixed_6a", 288),
            Block::c(&mut parts, "Mixed_6b", 768, 128),
            Block::c(&mut parts, "Mixed_6c", 768, 160),
            Block::c(&mut parts, "Mixed_6d", 768, 160),
            Block::c(&mut parts, "Mixed_6e", 768, 192),
            Block::d(&mut parts, "Mixed_7a", 768),
            Block::e(&mut parts, "Mixed_7b", 1280, Pool::Average),
            Block::e(&mut parts, "Mixed_7c", 2048, Pool::Max),
        ];
        let fc = parts.values("fc.weight", &[CLASSES, FEATURES]);
        if !parts.problems.is_empty() {
            return Err(parts.problems);
        }
        let fc = TensorData::new(fc, [CLASSES, FEATURES]);
        Ok(Self {
            stem,
            blocks,
            fc: Tensor::<2>::from_data(fc, device).transpose(),
            device: device.clone(),
        })
    }

    /// Describes images of bytes: `shape` (height, width, channels) each, one after another, of any size. One channel
    /// is taken as gray.
    ///
    /// # Errors
    /// Other than 1 or 3 channels, no whole number of images, a device that fails.
    pub fn describe(
        &self,
        images: &[u8],
        shape: [usize; 3],
    ) -> Result<Description, InceptionError> {
        let len = image_len(images, shape, "Inception")?;
        let parts = images.par_chunks(BATCH * len).map(|batch| {
            let count = batch.len() / len;
            let planes = batch.chunks_exact(len);
            let planes: Vec<f32> = planes
                .flat_map(|image| to_planes(image, shape, SIDE))
                .collect();
            let input = TensorData::new(planes, [count, 3, SIDE, SIDE]);
            let features = self.features(Tensor::from_data(input, &self.device));
            let logits = features.clone().matmul(self.fc.clone());
            Ok((host(features)?, host(logits)?))
        });
        let parts = parts.collect::<Result<Vec<_>, InceptionError>>()?;
        let mut description = Description::default();
        for (features, logits) in parts {
            description.features.extend(features);
            description.logits.extend(logits);
        }
        Ok(description)
    }

    /// # Shapes
    /// `[batch, 3, 299, 299]`, bytes b as (b - 128) / 128, to `[batch, 2048]`.
    fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let [a1, a2, b2, b3, a4] = &self.stem;
        let x = b2.forward(a2.forward(a1.forward(x)));
        let x = Pool::MaxHalve.forward(x);
        let x = Pool::MaxHalve.forward(a4.forward(b3.forward(x)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let [batch, channels, height, width] = x.dims();
        let pixels = x.reshape([batch, channels, height * width]);
        pixels.mean_dim(2).reshape([batch, channels])
    }
}

fn host(tensor: Tensor<2>) -> Result<Vec<f32>, InceptionError> {
    let data = tensor.into_data();
    data.try_to_vec()
        .map_err(|error| InceptionError::Device(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caches_of_pytorch_are_searched_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let variable = |name: &str| match name {
            "TORCH_HOME" => Some(PathBuf::new()),
            "XDG_CACHE_HOME" => Some(folder.path().join("xdg")),
            "HOME" => Some(folder.path().join("home")),
            _ => None,
        };
        let folders = caches(variable);
        assert_eq!(folders.len(), 2);
        assert_eq!(find_in(&folders), None);
        for (cache, name) in [
            ("home/.cache/torch", FILE_NAMES[0]),
            ("xdg/torch", FILE_NAMES[1]),
        ] {
            let cache = folder.path().join(cache).join("hub/checkpoints");
            std::fs::create_dir_all(&cache).unwrap();
            std::fs::write(cache.join(name), "x").unwrap();
            assert_eq!(find_in(&folders), Some(cache.join(name)));
        }
    }
}
