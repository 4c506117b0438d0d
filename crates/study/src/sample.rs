//! Images from a model, in a grid or one by one.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use retrack_checkpoint::durable;
use retrack_checkpoint::lock::{self, Lock};
use retrack_checkpoint::words::counted;
use retrack_checkpoint::written::{self, Command, Output};
use retrack_data::ImageShape;
use retrack_eval::pictures::Grid;
use retrack_networks::diffusion::Condition;
use retrack_networks::schedule::SchedulerKind;

use crate::evaluation::GUIDANCE;
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{new_file, outside};
use crate::names::SamplerName;
use crate::samples::{Of, Prompt, Samples};
use crate::{interrupt, machine, model, opened, progress};

/// What to draw from which model, and where it goes. `None`: as the model says.
#[derive(Debug, Clone)]
pub struct Sample {
    /// A diffusers pipeline or UNet2DModel folder.
    pub model: PathBuf,
    /// How many images.
    pub count: usize,
    /// Denoising steps.
    pub steps: Option<usize>,
    /// The sampler; `None`: the model's own.
    pub scheduler: Option<SamplerName>,
    /// Decides all random numbers.
    pub seed: u64,
    /// Images computed together.
    pub batch_size: Option<usize>,
    /// Of every image, where the model has classes.
    pub class: Option<i64>,
    /// Of a text-to-image model, which needs one.
    pub prompt: Option<String>,
    /// What to keep away from.
    pub negative_prompt: Option<String>,
    /// How far to go from the negative prompt towards the prompt.
    pub guidance: Option<f64>,
    /// A grid where it ends in `.png`, else a folder of single images.
    pub out: PathBuf,
    /// Replaces the grid, or the samples that retrack wrote into the folder.
    pub force: bool,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// Draws images and writes them.
///
/// # Errors
/// Whatever is wrong with what was given, a place that holds something else, files that cannot be written.
pub fn sample(args: &Sample) -> Result<(), Failure> {
    if args.count == 0 || args.batch_size == Some(0) {
        return Err(Failure::input(format!(
            "{} and {} need at least 1",
            Field::Count,
            Field::BatchSize
        )));
    }
    let single = args
        .out
        .extension()
        .is_none_or(|e| !e.eq_ignore_ascii_case("png"));
    if single && args.out.is_file() {
        return Err(Failure::input(format!(
            "{}: a file; give a .png file for a grid, or a folder for single images",
            args.out.display()
        )));
    }
    if !single && args.out.is_dir() {
        return Err(Failure::input(format!(
            "{}: a folder; give a file for the grid, or a folder whose name does not end in .png",
            args.out.display()
        )));
    }
    outside(&args.out, &args.model, "model")?;
    let output = match single {
        true => {
            let lock = Lock::take(&args.out)?;
            only_samples(&args.out)?;
            let output = Output::open(&args.out, Command::Sample, args.force, is_sample)?;
            output.remove_temporaries();
            Some((output, lock))
        }
        false => {
            new_file(&args.out, args.force)?;
            None
        }
    };
    let device = machine::device(&args.device)?;
    let (bytes, shape) = draw(args, &device)?;
    let shape = [shape.height, shape.width, shape.channels];
    if let Some((mut output, _lock)) = output {
        let grid = Grid {
            shape,
            columns: 1,
            zoom: 1,
        };
        let images = bytes.chunks_exact(shape.iter().product()).enumerate();
        let files: Vec<(PathBuf, Vec<u8>)> = images
            .map(|(i, image)| Ok((format!("{i:06}.png").into(), grid.single(image)?)))
            .collect::<Result<_, Failure>>()?;
        interrupt::finish_first("once the samples are written");
        output.put(&files)?;
        // Another model's, or the same one's by another seed.
        output.remove_earlier()?;
    } else {
        let grid = Grid {
            shape,
            columns: (args.count as f64).sqrt().ceil() as usize,
            zoom: Grid::zoom_for(shape),
        };
        model::write(&args.out, &grid.png(&bytes)?)?;
    }
    progress::note(format!(
        "{} in {}",
        counted(args.count, "sample"),
        args.out.display()
    ));
    Ok(())
}

/// Whether this is the name of a single image.
fn is_sample(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.strip_suffix(".png")
        .is_some_and(|stem| stem.len() >= 6 && stem.bytes().all(|b| b.is_ascii_digit()))
}

/// Refuses a folder with anything but earlier samples: pictures of a data set would be written over, or mixed in.
fn only_samples(out: &Path) -> Result<(), Failure> {
    let Ok(entries) = std::fs::read_dir(out) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_own =
            |name: &str| [written::NAME, lock::NAME].contains(&name) || durable::is_temporary(name);
        if !is_sample(Path::new(&name)) && !name.to_str().is_some_and(is_own) {
            return Err(Failure::input(format!(
                "{}: holds something else than samples ({}); choose another folder",
                out.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

fn draw(args: &Sample, device: &Device) -> Result<(Vec<u8>, ImageShape), Failure> {
    let scheduler = args.scheduler.map(SchedulerKind::from);
    let opened = opened::open(&args.model)?;
    let steps = args
        .steps
        .unwrap_or(opened.steps(args.scheduler, model::STEPS));
    let (batch_size, of) = if opened.condition() == Condition::Text {
        let Some(prompt) = &args.prompt else {
            return Err(Failure::input(format!(
                "{}: a text-to-image model; say what to draw with {}",
                args.model.display(),
                Field::Prompt
            )));
        };
        if args.class.is_some() {
            return Err(Failure::input(format!(
                "{}: this model has no classes; leave {} out",
                args.model.display(),
                Field::Class
            )));
        }
        let of = Of::Prompt(Prompt {
            prompt,
            negative: args.negative_prompt.as_deref(),
            guidance: args.guidance.unwrap_or(GUIDANCE),
        });
        (1, of)
    } else {
        if args.prompt.is_some() {
            return Err(Failure::input(format!(
                "{}: this model takes no text; leave {} out",
                args.model.display(),
                Field::Prompt
            )));
        }
        (64, Of::Classes(args.class.into_iter().collect()))
    };
    let samples = Samples {
        count: args.count,
        steps,
        scheduler,
        seed: args.seed,
        batch_size: args.batch_size.unwrap_or(batch_size),
        of,
    };
    let network = opened.network(device)?;
    samples.draw(&*opened, &network, device, "sampling")
}
