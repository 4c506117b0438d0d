//! `retrack sample`: images from a model.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use retrack_checkpoint::durable;
use retrack_checkpoint::lock::{self, Lock};
use retrack_checkpoint::words::counted;
use retrack_checkpoint::written::{self, Command, Output};
use retrack_data::ImageShape;
use retrack_eval::pictures::Grid;
use retrack_networks::schedule::SchedulerKind;

use crate::args::SampleArgs;
use crate::progress;
use retrack_study::evaluation::GUIDANCE;
use retrack_study::failure::Failure;
use retrack_study::folders::{new_file, outside};
use retrack_study::latent::{self, Opened, PromptedSamples};
use retrack_study::model::{self, Samples};
use retrack_study::{interrupt, machine};

pub fn run(args: &SampleArgs) -> Result<(), Failure> {
    if args.count == 0 || args.batch_size == Some(0) {
        return Err(Failure::input("--count and --batch-size need at least 1"));
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
    let device = machine::device(&args.machine.device)?;
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

fn draw(args: &SampleArgs, device: &Device) -> Result<(Vec<u8>, ImageShape), Failure> {
    let scheduler = args.scheduler.map(SchedulerKind::from);
    let opened = latent::open(&args.model)?;
    let steps = args
        .steps
        .unwrap_or(opened.steps(args.scheduler, model::STEPS));
    match opened {
        Opened::Image(opened) => {
            if args.prompt.is_some() {
                return Err(Failure::input(format!(
                    "{}: this model takes no text; leave --prompt out",
                    args.model.display()
                )));
            }
            let samples = Samples {
                count: args.count,
                steps,
                scheduler,
                seed: args.seed,
                batch_size: args.batch_size.unwrap_or(64),
                classes: args.class.into_iter().collect(),
            };
            let network = opened.network(device)?;
            samples.draw(&opened, &network, device, "sampling")
        }
        Opened::Text(opened) => {
            let Some(prompt) = &args.prompt else {
                return Err(Failure::input(format!(
                    "{}: a text-to-image model; say what to draw with --prompt",
                    args.model.display()
                )));
            };
            if args.class.is_some() {
                return Err(Failure::input(format!(
                    "{}: this model has no classes; leave --class out",
                    args.model.display()
                )));
            }
            let samples = PromptedSamples {
                count: args.count,
                steps,
                scheduler,
                seed: args.seed,
                batch_size: args.batch_size.unwrap_or(1),
                prompt,
                negative_prompt: args.negative_prompt.as_deref().unwrap_or(""),
                guidance: args.guidance.unwrap_or(GUIDANCE),
            };
            let network = opened.model.network(device)?;
            samples.draw(&opened, &network, device, "sampling")
        }
    }
}
