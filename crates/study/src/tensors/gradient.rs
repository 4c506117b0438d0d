//! A method's loss and gradient.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use retrack_networks::denoiser::Embeddings;
use retrack_networks::diffusion::Condition;
use retrack_networks::network::Network;
use retrack_networks::parameters;
use retrack_networks::process::Process;
use retrack_unlearn::batch::{Batch, Candidates, Draws, Noised};
use retrack_unlearn::objective::{Method, Objective, Pass, Sums};

use super::texts::texts;
use super::{Tensors, write as write_tensors};
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{new_file_beside, outside};
use crate::{machine, opened};

/// Which gradient of which network, and on what.
#[derive(Debug, Clone)]
pub struct Gradient {
    /// A diffusers pipeline or UNet folder.
    pub model: PathBuf,
    /// The method.
    pub method: Method,
    /// Names and values of those that are not the paper's.
    pub strengths: Vec<(&'static str, f64)>,
    /// Tensors of a batch, a safetensors file.
    pub input: PathBuf,
    /// Where loss and gradients go.
    pub output: PathBuf,
    /// Replaces the file if it is there.
    pub force: bool,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// Writes the loss, and the gradient of each parameter under its checkpoint name, before clipping.
///
/// # Errors
/// Whatever is wrong with what was given, a network with learned variances, a file that cannot be written.
pub fn gradient(args: &Gradient) -> Result<(), Failure> {
    new_file_beside(&args.output, &args.input, args.force)?;
    outside(&args.output, &args.model, "model")?;
    let device = machine::device(&args.device)?.autodiff();
    let opened = opened::open_denoiser(&args.model)?;
    let config = &opened.config;
    check_variances(
        config.in_channels == config.out_channels,
        &opened.folder.config_path(),
    )?;
    let process = opened.scheduler.process();
    let input = Tensors::read(&args.input)?;
    let texts = match config.condition() {
        Condition::Text => Some(Texts::read(&input, &objective(args)?.draws(), &device)?),
        _ => None,
    };
    let labels = |stream: &str, images| match (&texts, config.condition()) {
        (Some(texts), _) => texts.labels(&input, stream, images).map(Some),
        (None, Condition::Class(_)) => {
            let labels = input.integers(&format!("{stream}_labels"), images);
            labels.map(Some)
        }
        (None, _) => Ok(None),
    };
    let batch = batch(args, &input, &*process, &labels)?;
    for images in [&batch.forget, &batch.retain].into_iter().flatten() {
        config.check_size(images.shape[1], images.shape[2])?;
    }
    let mut network = opened.network(&device)?;
    if let Some(texts) = &texts {
        network.tell(texts.embeddings.clone());
    }
    write(args, &network, &*process, &device, &batch)
}

fn check_variances(none: bool, config: &Path) -> Result<(), Failure> {
    if none {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{}: learned variances are not supported",
        config.display()
    )))
}

/// The texts of all images, one after another: one for both streams, or one of its own for each.
struct Texts {
    embeddings: Embeddings,
    /// Stream, number of its first text, and how many it has.
    streams: Vec<(&'static str, usize, usize)>,
}

impl Texts {
    fn read(input: &Tensors, draws: &Draws, device: &Device) -> Result<Self, Failure> {
        let mut all: Option<Embeddings> = None;
        let mut streams = Vec::new();
        for (stream, drawn) in [("retain", draws.retain), ("forget", draws.forget)] {
            if !drawn {
                continue;
            }
            let own = texts(input, &format!("{stream}_"), device)?;
            streams.push((stream, all.as_ref().map_or(0, Embeddings::len), own.len()));
            all = Some(match all {
                None => own,
                Some(first) => {
                    fits(input, stream, &first, &own)?;
                    first.joined(own)
                }
            });
        }
        Ok(Self {
            embeddings: all.expect("every method draws one stream at least"),
            streams,
        })
    }

    /// The number of each image's text.
    fn labels(&self, input: &Tensors, stream: &str, images: usize) -> Result<Vec<i64>, Failure> {
        let found = self.streams.iter().find(|(name, ..)| *name == stream);
        let &(_, first, count) = found.expect("read for every stream that is drawn");
        match count {
            1 => Ok(vec![first as i64; images]),
            _ if count == images => Ok((first..first + count).map(|text| text as i64).collect()),
            _ => Err(input.fail(format!(
                "{count} texts for {images} images of `{stream}`; give one for all or one for each"
            ))),
        }
    }
}

/// Texts of both streams are of one kind.
fn fits(
    input: &Tensors,
    stream: &str,
    first: &Embeddings,
    own: &Embeddings,
) -> Result<(), Failure> {
    let sides = [first, own].map(|texts| {
        let pooled = texts.pooled.as_ref().map(|pooled| pooled.dims()[1]);
        (texts.states.dims()[1..].to_vec(), pooled)
    });
    if sides[0] == sides[1] {
        return Ok(());
    }
    let shape = own.states.dims();
    Err(input.fail(match sides[0].0 == sides[1].0 {
        false => format!(
            "`{stream}_encoder_hidden_states` has shape {shape:?}; tokens and width are those of the other stream's, {:?}",
            sides[0].0
        ),
        true => format!(
            "`{stream}_text_embeds` and the other stream's are of different widths, or one of them is missing"
        ),
    }))
}

/// The labels of a stream's images, where the network takes any.
type Labels<'a> = &'a dyn Fn(&str, usize) -> Result<Option<Vec<i64>>, Failure>;

fn batch(
    args: &Gradient,
    input: &Tensors,
    process: &dyn Process,
    labels: Labels,
) -> Result<Batch<'static>, Failure> {
    let draws = objective(args)?.draws();
    let noised = |stream: &str| noised(input, stream, process, labels);
    let forget = draws.forget.then(|| noised("forget")).transpose()?;
    let retain = draws.retain.then(|| noised("retain")).transpose()?;
    let neighbors = if draws.neighbors {
        let (values, shape) = input.images("neighbors", 5)?;
        if Some(shape[0]) != forget.as_ref().map(Noised::len) {
            return Err(Failure::input(format!(
                "{}: `neighbors` has shape {shape:?}; its first dimension is the number of forgotten images",
                args.input.display()
            )));
        }
        if let Some(forget) = &forget
            && [shape[3], shape[4], shape[2]] != forget.shape[1..]
        {
            return Err(Failure::input(format!(
                "{}: `neighbors` has shape {shape:?}; its images are not of `forget`'s shape",
                args.input.display()
            )));
        }
        let each = values.len() / shape[0];
        let neighbors = values.chunks_exact(each).map(Into::into);
        Some(Candidates::Nearest(neighbors.collect()))
    } else {
        None
    };
    let images = forget.as_ref().map_or(0, Noised::len);
    let uniform = if draws.uniform {
        Some(input.images("uniform", 4)?.0)
    } else {
        None
    };
    let mixture_mask = if draws.mixture.is_some() {
        let mask = input.integers("mixture_mask", images)?;
        Some(mask.into_iter().map(|slot| slot != 0).collect())
    } else {
        None
    };
    let batch = Batch {
        retain,
        forget,
        neighbors,
        uniform,
        mixture_mask,
        ..Batch::default()
    };
    check(&batch, args)?;
    Ok(batch)
}

/// Computes loss and gradient, and writes them.
fn write(
    args: &Gradient,
    network: &Network,
    process: &dyn Process,
    device: &Device,
    batch: &Batch,
) -> Result<(), Failure> {
    let objective = objective(args)?;
    let pass = Pass {
        network: &**network,
        process,
        device,
        dropout: None,
    };
    let mut sums = Sums::default();
    let losses = objective.backward(&pass, batch, &mut sums)?;
    losses.check().map_err(Failure::failed)?;
    let gradient = objective.combine(sums).map_err(Failure::failed)?;

    let mut output = vec![("loss".to_string(), vec![1], vec![losses.loss as f32])];
    let mut parts = gradient.0.into_iter();
    for parameter in parameters::list(network) {
        if parameter.trained {
            let part = parts.next().expect("a part for each trained parameter");
            let values = parameter.export(parameters::to_host(part));
            output.push((parameter.name, parameter.shape, values));
        }
    }
    write_tensors(&args.output, &output)
}

/// The method's objective with the strengths that are given, the paper's where none is.
fn objective(args: &Gradient) -> Result<Box<dyn Objective>, Failure> {
    let method = args.method;
    let mut strengths = method.defaults();
    for &(name, value) in &args.strengths {
        if !value.is_finite() {
            return Err(Failure::input(format!(
                "{} is {value}; give a number",
                Field::Strength(name)
            )));
        }
        strengths.set(name, value);
    }
    method.check(&strengths).map_err(Failure::input)?;
    Ok(method.objective(&strengths))
}

fn noised(
    input: &Tensors,
    stream: &str,
    process: &dyn Process,
    labels: Labels,
) -> Result<Noised, Failure> {
    let (clean, shape) = input.images(stream, 4)?;
    let (noise, noise_shape) = input.images(&format!("{stream}_noise"), 4)?;
    if noise_shape != shape {
        return Err(Failure::input(format!(
            "`{stream}_noise` has shape {noise_shape:?}, but `{stream}` has {shape:?}"
        )));
    }
    let timesteps = input.one_each(&format!("{stream}_timestep"), shape[0])?;
    let labels = labels(stream, shape[0])?;
    Ok(Noised {
        shape: [shape[0], shape[2], shape[3], shape[1]],
        clean,
        noise,
        timesteps: process.check(&timesteps)?,
        labels,
    })
}

/// Parts that belong together are of one size.
fn check(batch: &Batch, args: &Gradient) -> Result<(), Failure> {
    let fail = |problem: &str| {
        Err(Failure::input(format!(
            "{}: {problem}",
            args.input.display()
        )))
    };
    let Some(forget) = &batch.forget else {
        return Ok(());
    };
    if batch
        .uniform
        .as_ref()
        .is_some_and(|uniform| uniform.len() != forget.clean.len())
    {
        return fail("`uniform` and `forget` differ in shape");
    }
    if batch.mixture_mask.is_some()
        && batch
            .retain
            .as_ref()
            .is_some_and(|retain| retain.shape != forget.shape)
    {
        return fail("`retain` and `forget` differ in shape");
    }
    Ok(())
}
