//! `retrack gradient`: a method's loss and gradient, for comparison from outside.

use retrack_networks::parameters;
use retrack_networks::schedule::NoiseSchedule;
use retrack_unlearn::batch::{Batch, Candidates, Noised};
use retrack_unlearn::objective::{Method, Pass, Sums};

use super::tensors::{self, Tensors};
use crate::args::{GradientArgs, MethodName};
use crate::failure::Failure;
use crate::{machine, model};

pub fn run(args: &GradientArgs) -> Result<(), Failure> {
    let device = machine::device(&args.machine.device)?.autodiff();
    let opened = model::open(&args.model)?;
    let network = opened.network(&device)?;
    let schedule = NoiseSchedule::new(&opened.scheduler);
    if opened.config.in_channels != opened.config.out_channels {
        return Err(Failure::input(format!(
            "{}: learned variances are not supported",
            opened.folder.config_path().display()
        )));
    }
    let objective = method(args)?.objective();
    let draws = objective.draws();

    let input = Tensors::read(&args.input)?;
    let classes = opened.config.num_class_embeds.is_some();
    let noised = |stream: &str| noised(&input, stream, &schedule, classes);
    let forget = draws.forget.then(|| noised("forget")).transpose()?;
    let retain = draws.retain.then(|| noised("retain")).transpose()?;
    for images in [&forget, &retain].into_iter().flatten() {
        opened.config.check_size(images.shape[1], images.shape[2])?;
    }
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
    };
    check(&batch, args)?;

    let pass = Pass {
        network: &network,
        schedule: &schedule,
        device: &device,
        dropout: None,
    };
    let mut sums = Sums::default();
    let losses = objective.backward(&pass, &batch, &mut sums)?;
    let gradient = objective.combine(sums);

    let mut output = vec![("loss".to_string(), vec![1], vec![losses.loss as f32])];
    let mut parts = gradient.0.into_iter();
    for parameter in parameters::list(&network) {
        if parameter.trained {
            let part = parts.next().expect("a part for each trained parameter");
            let values = parameter.export(parameters::to_host(part));
            output.push((parameter.name, parameter.shape, values));
        }
    }
    tensors::write(&args.output, &output)
}

/// The method with its options, the paper's where none is given.
fn method(args: &GradientArgs) -> Result<Method, Failure> {
    let finite = |name: &str, value: Option<f64>| match value {
        Some(value) if !value.is_finite() => Err(Failure::input(format!(
            "--{name} is {value}; give a number"
        ))),
        value => Ok(value),
    };
    let lambda = finite("lambda", args.lambda)?;
    let rescale = finite("rescale", args.rescale)?;
    let eta = finite("eta", args.eta)?;
    let mut method: Method = args.method.to_default();
    match &mut method {
        Method::Retrack { lambda: own } => *own = lambda.unwrap_or(*own),
        Method::Erasediff { eta: own } => *own = eta.unwrap_or(*own),
        Method::Siss {
            lambda: own,
            rescale: length,
        } => {
            *own = lambda.unwrap_or(*own);
            *length = rescale.unwrap_or(*length);
        }
        Method::Finetune | Method::Neggrad => {}
    }
    method.check().map_err(Failure::input)?;
    Ok(method)
}

impl MethodName {
    /// The method with the paper's options.
    fn to_default(self) -> Method {
        let name = match self {
            Self::Retrack => "retrack",
            Self::Finetune => "finetune",
            Self::Neggrad => "neggrad",
            Self::Erasediff => "erasediff",
            Self::Siss => "siss",
        };
        name.parse().expect("every name is a method's")
    }
}

fn noised(
    input: &Tensors,
    stream: &str,
    schedule: &NoiseSchedule,
    classes: bool,
) -> Result<Noised, Failure> {
    let (clean, shape) = input.images(stream, 4)?;
    let (noise, noise_shape) = input.images(&format!("{stream}_noise"), 4)?;
    if noise_shape != shape {
        return Err(Failure::input(format!(
            "`{stream}_noise` has shape {noise_shape:?}, but `{stream}` has {shape:?}"
        )));
    }
    let timesteps = input.integers(&format!("{stream}_timestep"), shape[0])?;
    let labels = classes
        .then(|| input.integers(&format!("{stream}_labels"), shape[0]))
        .transpose()?;
    Ok(Noised {
        shape: [shape[0], shape[2], shape[3], shape[1]],
        clean,
        noise,
        timesteps: schedule.check(&timesteps)?,
        labels,
    })
}

/// Parts that belong together are of one size.
fn check(batch: &Batch, args: &GradientArgs) -> Result<(), Failure> {
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
