//! SSCD, the descriptor of copy detection (Pizzi et al. 2022, arXiv 2202.10261): the cosine of two images' embeddings
//! says how likely one is a copy of the other, and 0.5 is a usual threshold for `sscd_disc_mixup`.
//!
//! The published network is a TorchScript file; it is read as ONNX here, and the refusal of anything else says how to
//! convert it once. Images are resized to 288 x 288 whatever their shape, as SSCD's README does it for batches, and
//! normalised with ImageNet's mean and standard deviation. Nothing is downloaded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rten::{
    DataType, Dimension, LoadError, LoadErrorKind, Model, ModelOptions, RunOptions, ThreadPool,
    ValueType, ValueView,
};

use crate::distance::mean;
use crate::images::{ImagesError, image_len};
use crate::onnx;
use crate::pillow::resize;

/// The height and width that every image is resized to.
const SIDE: usize = 288;
/// ImageNet's, over values in [0, 1].
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const SD: [f32; 3] = [0.229, 0.224, 0.225];
/// How the published file becomes one that is read here.
const CONVERT: &str = "python -c \"import torch; m = torch.jit.load('sscd_disc_mixup.torchscript.pt'); \
    torch.onnx.export(m, torch.zeros(1, 3, 288, 288), 'sscd.onnx', dynamo=False)\"";

/// Why SSCD cannot be loaded or cannot look at images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SscdError {
    /// The system refused the file.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A zip archive, as `torch.save` and TorchScript write them.
    #[error(
        "{}: PyTorch's format, where SSCD is read as ONNX; convert sscd_disc_mixup.torchscript.pt once: {}",
        path.display(),
        CONVERT
    )]
    PyTorch {
        /// The file.
        path: PathBuf,
    },
    /// No whole ONNX network.
    #[error(
        "{}: no whole ONNX network ({reason}); copy the file again, or make it anew: {}",
        path.display(),
        CONVERT
    )]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What the ONNX runtime says.
        reason: String,
    },
    /// The network takes something else than images.
    #[error(
        "{}: takes {found} instead of f32 [N, 3, 288, 288] or u8 [N, 288, 288, 3], N being 1 or open; make it anew: {}",
        path.display(),
        CONVERT
    )]
    Input {
        /// The file.
        path: PathBuf,
        /// What it takes.
        found: String,
    },
    /// The network gives something else than embeddings.
    #[error(
        "{}: gives {found} instead of one embedding an image, f32 [N, D]; make it anew: {}",
        path.display(),
        CONVERT
    )]
    Output {
        /// The file.
        path: PathBuf,
        /// What it gives.
        found: String,
    },
    /// Bytes that are no images.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// The network failed on an image.
    #[error("{}: fails on an image: {reason}", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// What the ONNX runtime says.
        reason: String,
    },
}

/// An image's descriptor, of length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Nothing where the values have no direction: all zero, or not finite.
    fn of(mut values: Vec<f32>) -> Option<Self> {
        let norm = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let norm = norm.sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return None;
        }
        for value in &mut values {
            *value = (f64::from(*value) / norm) as f32;
        }
        Some(Self(values))
    }

    /// Its numbers; their squares add up to 1.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// The cosine of the angle between two embeddings of the same network: 1 for equal images.
    pub fn similarity(&self, other: &Self) -> f64 {
        let pairs = self.0.iter().zip(&other.0);
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    /// The similarity to the one of `others` that is most alike; minus infinity where there are none.
    pub fn most_similar(&self, others: &[Self]) -> f64 {
        let all = others.iter().map(|other| self.similarity(other));
        all.fold(f64::NEG_INFINITY, f64::max)
    }
}

/// How similar images are to one.
#[derive(Debug, Clone, PartialEq)]
pub struct Similarities {
    /// NaN where there are none.
    pub mean: f64,
    /// In the order of the images.
    pub all: Vec<f64>,
}

/// How a network wants its images.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Input {
    /// `[1, 3, SIDE, SIDE]`, normalised: the published network.
    Normalised,
    /// `[1, SIDE, SIDE, 3]` bytes, the normalisation being part of the network.
    Bytes,
}

impl Input {
    fn shape(self) -> [usize; 4] {
        match self {
            Self::Normalised => [1, 3, SIDE, SIDE],
            Self::Bytes => [1, SIDE, SIDE, 3],
        }
    }

    fn value_type(self) -> ValueType {
        ValueType::Tensor(match self {
            Self::Normalised => DataType::Float,
            Self::Bytes => DataType::UInt8,
        })
    }

    /// Which one takes this type and shape. Dimensions that are left open fit.
    fn of(found: Option<ValueType>, shape: &[Dimension]) -> Option<Self> {
        [Self::Normalised, Self::Bytes].into_iter().find(|input| {
            let mut pairs = shape.iter().zip(input.shape());
            found == Some(input.value_type())
                && shape.len() == input.shape().len()
                && pairs.all(|(dimension, size)| match dimension {
                    Dimension::Fixed(fixed) => *fixed == size,
                    Dimension::Symbolic(_) => true,
                })
        })
    }
}

/// The network, ready to look at images.
pub struct Sscd {
    model: Model,
    /// As many threads as everything else of this program has.
    threads: Arc<ThreadPool>,
    input: Input,
    path: PathBuf,
}

impl std::fmt::Debug for Sscd {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Sscd").field(&self.path).finish()
    }
}

impl Sscd {
    /// Reads an ONNX file: the published network over normalised images, or one over bytes that normalises by itself.
    /// Weights that PyTorch wrote into a file of their own, `NAME.onnx.data`, are looked for beside it.
    ///
    /// # Errors
    /// The file cannot be read, is no ONNX, or its network does not take 288 x 288 images and give one vector each.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SscdError> {
        let path = path.as_ref();
        let bytes = read(path)?;
        if bytes.starts_with(b"PK") {
            return Err(SscdError::PyTorch {
                path: path.to_path_buf(),
            });
        }
        // rten means to report what it cannot take, but a damaged file may reach an assertion of its.
        let model = catch_unwind(|| load(path, bytes)).unwrap_or_else(|_| {
            Err(SscdError::Onnx {
                path: path.to_path_buf(),
                reason: "its parts contradict each other".into(),
            })
        })?;
        let input_of = |found: String| SscdError::Input {
            path: path.to_path_buf(),
            found,
        };
        let &[id] = model.input_ids() else {
            return Err(input_of(format!("{} inputs", model.input_ids().len())));
        };
        let info = model.node_info(id);
        let found = info.as_ref().and_then(|info| info.dtype());
        let shape = info.and_then(|info| info.shape()).unwrap_or_default();
        let input = Input::of(found, &shape).ok_or_else(|| input_of(shown(found, &shape)))?;
        let sscd = Self {
            model,
            threads: Arc::new(ThreadPool::with_num_threads(rayon::current_num_threads())),
            input,
            path: path.to_path_buf(),
        };
        // What it gives is known only from trying, and better here than after the images were made.
        sscd.run(&[0; SIDE * SIDE * 3])?;
        Ok(sscd)
    }

    /// Embeds images of bytes: `shape` (height, width, channels) each, one after another, of any size. One channel is
    /// taken as gray.
    ///
    /// # Errors
    /// Other than 1 or 3 channels, no whole number of images, a network that fails or gives no direction.
    pub fn embed(&self, images: &[u8], shape: [usize; 3]) -> Result<Vec<Embedding>, SscdError> {
        let len = image_len(images, shape, "SSCD")?;
        images
            .chunks_exact(len)
            .map(|image| {
                let values = self.run(&to_side(image, shape))?;
                Embedding::of(values).ok_or_else(|| SscdError::Run {
                    path: self.path.clone(),
                    reason: "its embedding has no direction".into(),
                })
            })
            .collect()
    }

    /// How similar `images` are to `image`, all of the same shape.
    ///
    /// # Errors
    /// Those of [`Self::embed`].
    pub fn similarities(
        &self,
        image: &[u8],
        images: &[u8],
        shape: [usize; 3],
    ) -> Result<Similarities, SscdError> {
        let known = self.embed(image, shape)?;
        let [known] = known.as_slice() else {
            let [height, width, channels] = shape;
            return Err(SscdError::Images(ImagesError::Size {
                bytes: image.len(),
                height,
                width,
                channels,
            }));
        };
        let others = self.embed(images, shape)?;
        let all: Vec<f64> = others.iter().map(|other| known.similarity(other)).collect();
        Ok(Similarities {
            mean: mean(&all),
            all,
        })
    }

    /// What the network gives for one image of `SIDE` x `SIDE` x 3 bytes, on all threads.
    fn run(&self, image: &[u8]) -> Result<Vec<f32>, SscdError> {
        let failed = |reason: String| SscdError::Run {
            path: self.path.clone(),
            reason,
        };
        let output_of = |found: String| SscdError::Output {
            path: self.path.clone(),
            found,
        };
        if self.model.output_ids().len() != 1 {
            let outputs = self.model.output_ids().len();
            return Err(output_of(format!("{outputs} outputs")));
        }
        let normalised = match self.input {
            Input::Normalised => normalised(image),
            Input::Bytes => Vec::new(),
        };
        let shape = self.input.shape();
        let view = match self.input {
            Input::Normalised => ValueView::from_shape(shape, &normalised).ok(),
            Input::Bytes => ValueView::from_shape(shape, image).ok(),
        };
        let view = view.expect("as many values as the shape says");
        let options = RunOptions::default().with_thread_pool(Some(self.threads.clone()));
        let run = || self.model.run_one(view.into(), Some(options));
        let value = catch_unwind(AssertUnwindSafe(run))
            .map_err(|_| failed("its parts contradict each other".into()))?
            .map_err(|error| failed(error.to_string()))?;
        let found = value.dtype();
        match value.into_shape_vec::<f32, 2>() {
            Ok(([1, dims], values)) if dims > 0 => Ok(values),
            Ok((shape, _)) => Err(output_of(format!("{shape:?}"))),
            Err(error) => Err(output_of(format!("{found} ({error})"))),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SscdError> {
    std::fs::read(path).map_err(|source| SscdError::Read {
        path: path.to_path_buf(),
        source,
    })
}

/// The network in `bytes`, which `path` holds.
fn load(path: &Path, bytes: Vec<u8>) -> Result<Model, SscdError> {
    onnx::check(&bytes).map_err(|problem| SscdError::Onnx {
        path: path.to_path_buf(),
        reason: format!("cut off, or another format: {problem}"),
    })?;
    let mut options = ModelOptions::with_all_ops();
    // Read here and not by rten, which would first make room for as much as the file says that it wants.
    if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
        let name = format!("{name}.data");
        let beside = path.with_file_name(&name);
        if beside.is_file() {
            options.external_data(&name, read(&beside)?);
        }
    }
    options.load(bytes).map_err(|error: LoadError| {
        let reason = match error.kind() {
            // Its own format's name would mislead: other bytes happen to look like it.
            LoadErrorKind::UnknownFileType | LoadErrorKind::FormatNotEnabled => {
                "cut off, or another format".into()
            }
            _ => error.to_string(),
        };
        SscdError::Onnx {
            path: path.to_path_buf(),
            reason,
        }
    })
}

/// An input as people write it: `f32 [N, 3, 288, 288]`.
fn shown(found: Option<ValueType>, shape: &[Dimension]) -> String {
    let found = match found {
        Some(ValueType::Tensor(DataType::Float)) => "f32",
        Some(ValueType::Tensor(DataType::UInt8)) => "u8",
        Some(ValueType::Tensor(DataType::Int8)) => "i8",
        Some(ValueType::Tensor(DataType::Int32)) => "whole numbers",
        _ => "another type",
    };
    let sizes: Vec<String> = shape
        .iter()
        .map(|dimension| match dimension {
            Dimension::Fixed(size) => size.to_string(),
            Dimension::Symbolic(name) => name.clone(),
        })
        .collect();
    format!("{found} [{}]", sizes.join(", "))
}

/// Resizes one image of bytes to `[SIDE, SIDE, 3]`, a single channel being repeated.
fn to_side(image: &[u8], shape: [usize; 3]) -> Vec<u8> {
    let resized = resize(image, shape, SIDE);
    match shape[2] {
        1 => resized.into_iter().flat_map(|byte| [byte; 3]).collect(),
        _ => resized,
    }
}

/// `[SIDE, SIDE, 3]` bytes to `[3, SIDE, SIDE]` as the network was trained on.
fn normalised(image: &[u8]) -> Vec<f32> {
    (0..3)
        .flat_map(|channel| {
            let plane = image.iter().skip(channel).step_by(3);
            plane.map(move |&byte| (f32::from(byte) / 255.0 - MEAN[channel]) / SD[channel])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalising_subtracts_the_mean_of_imagenet_from_each_plane() {
        let mut image = vec![0; SIDE * SIDE * 3];
        image[3..6].copy_from_slice(&[255, 51, 102]);
        let planes = normalised(&image);
        let second = |channel: usize| planes[channel * SIDE * SIDE + 1];
        for (channel, value) in [1.0, 0.2, 0.4].into_iter().enumerate() {
            let expected = (value - MEAN[channel]) / SD[channel];
            assert!((second(channel) - expected).abs() < 1e-6);
            assert_eq!(planes[channel * SIDE * SIDE], -MEAN[channel] / SD[channel]);
        }
    }

    #[test]
    fn embeddings_have_length_one_and_what_has_no_direction_has_none() {
        let embedding = Embedding::of(vec![3.0, -4.0]).unwrap();
        assert_eq!(embedding.values(), [0.6, -0.8]);
        assert!((embedding.similarity(&embedding) - 1.0).abs() < 1e-7);
        let across = Embedding::of(vec![4.0, 3.0]).unwrap();
        for others in [
            [embedding.clone(), across.clone()],
            [across, embedding.clone()],
        ] {
            assert!((embedding.most_similar(&others) - 1.0).abs() < 1e-7);
        }
        assert_eq!(Embedding::of(vec![0.0; 3]), None);
        assert_eq!(Embedding::of(vec![1.0, f32::NAN]), None);
    }
}
