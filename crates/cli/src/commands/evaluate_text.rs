//! `retrack evaluate` for text-to-image models: what is still drawn for the forgotten prompt.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use retrack_eval::clusters::Clusters;
use retrack_eval::pictures::Grid;
use retrack_eval::score::Table;
use retrack_networks::schedule::SchedulerKind;
use retrack_unlearn::data::{
    self, Dataset, ImageShape, MEMORIZED, modified_prompts, original_prompt,
};
use serde_json::{Value, json};

use super::unlearn_text::{check_forget, open_data};
use crate::args::EvaluateArgs;
use crate::failure::Failure;
use crate::latent::{self, Opened, PromptedSamples};
use crate::progress::say;
use crate::{model, progress};

/// Samples of each prompt: the published number.
const SAMPLES: usize = 16;
/// Labels by 2-means on pixels agree with their means nearly always.
const AGREEMENT: f64 = 0.9;

/// Refuses what only text-to-image models take, and a missing `--forget`, which only their data may leave out.
pub fn refuse_texts(args: &EvaluateArgs) -> Result<(), Failure> {
    let typed = [
        ("--prompt", args.prompt.is_some()),
        ("--modified-prompt", !args.modified_prompt.is_empty()),
        ("--guidance", args.guidance.is_some()),
    ];
    if let Some((option, _)) = typed.iter().find(|(_, typed)| *typed) {
        return Err(Failure::input(format!(
            "{}: this model takes no text; leave {option} out",
            args.model.display()
        )));
    }
    check_forget(&args.forget)
}

/// Samples of one prompt by one model.
struct Drawn {
    model: &'static str,
    prompt: String,
    forgotten: bool,
    memorized: usize,
    count: usize,
    picture: PathBuf,
}

pub fn run(args: &EvaluateArgs, device: &Device) -> Result<(), Failure> {
    if args.out.join("metrics.json").exists() && !args.force {
        return Err(Failure::input(format!(
            "{}: holds an evaluation already; choose another folder, or give --force to replace it",
            args.out.display()
        )));
    }
    let count = args.protocol.samples.unwrap_or(SAMPLES);
    if count == 0 || args.steps == 0 {
        return Err(Failure::input("--samples and --steps need at least 1"));
    }
    let Opened::Text(opened) = latent::open(&args.model)? else {
        return Err(Failure::input("the model changed while it was opened"));
    };
    let data = open_data(&args.data, &opened)?;
    let clusters = clusters(args, &data)?;
    if clusters.agreement < AGREEMENT {
        progress::warn(format!(
            "only {:.0}% of the images lie nearer to the mean of their own part, forgotten or not: counts of \
             memorized samples say little",
            100.0 * clusters.agreement
        ));
    }
    let published = data::is_published(&args.data);
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None if published => original_prompt(&args.data)?.ok_or_else(no_prompt)?,
        None => return Err(no_prompt()),
    };
    let modified = match args.modified_prompt.as_slice() {
        [] if published => modified_prompts(&args.data)?,
        typed => typed.to_vec(),
    };
    let baseline = args.baseline.as_deref().map(|path| ("baseline", path));
    let mut drawn = Vec::new();
    for (name, path) in baseline
        .into_iter()
        .chain([("model", args.model.as_path())])
    {
        let Opened::Text(opened) = latent::open(path)? else {
            return Err(Failure::input(format!(
                "{}: not a text-to-image model, as --model is",
                path.display()
            )));
        };
        let network = opened.model.network(device)?;
        let prompts = std::iter::once((&prompt, true)).chain(modified.iter().map(|p| (p, false)));
        for (number, (prompt, forgotten)) in prompts.enumerate() {
            let samples = PromptedSamples {
                count,
                steps: args.steps,
                scheduler: Some(args.scheduler.map_or(SchedulerKind::Ddpm, Into::into)),
                seed: args.seed,
                batch_size: 1,
                prompt,
                negative_prompt: "",
                guidance: args.guidance.unwrap_or(7.5),
            };
            let (bytes, shape) = samples.draw(&opened, &network, device, name)?;
            if shape != data.shape() {
                return Err(Failure::input(format!(
                    "{}: images of {}, but the model draws {shape}",
                    args.data.display(),
                    data.shape()
                )));
            }
            let picture = PathBuf::from(format!("{name}-{number:02}.png"));
            show(&args.out.join(&picture), shape, &bytes)?;
            drawn.push(Drawn {
                model: name,
                prompt: prompt.clone(),
                forgotten,
                memorized: clusters.memorized(&bytes),
                count,
                picture,
            });
        }
    }
    report(args, &data, &clusters, &drawn)
}

fn no_prompt() -> Failure {
    Failure::input("say with --prompt what the images to forget are drawn for")
}

/// The forgotten images against all others.
fn clusters(args: &EvaluateArgs, data: &Dataset) -> Result<Clusters, Failure> {
    let selection = match args.forget.as_str() {
        "" if data::is_published(&args.data) => format!("cluster:{MEMORIZED}"),
        typed => {
            check_forget(typed)?;
            typed.to_string()
        }
    };
    let rows = model::select(&selection, data)?;
    let mut memorized = vec![false; data.len()];
    for row in rows {
        memorized[row] = true;
    }
    let len = data.shape().bytes();
    let mut images = vec![0; data.len() * len];
    for (row, image) in images.chunks_exact_mut(len).enumerate() {
        data.read(row, image)?;
    }
    Clusters::of(&images, len, &memorized).ok_or_else(|| {
        Failure::input(format!(
            "{}: all images are to be forgotten; there is nothing to compare samples with",
            args.data.display()
        ))
    })
}

fn show(path: &Path, shape: ImageShape, samples: &[u8]) -> Result<(), Failure> {
    let shape = [shape.height, shape.width, shape.channels];
    let grid = Grid {
        shape,
        columns: 4,
        zoom: Grid::zoom_for(shape),
    };
    model::write(path, &grid.png(samples)?)
}

fn report(
    args: &EvaluateArgs,
    data: &Dataset,
    clusters: &Clusters,
    drawn: &[Drawn],
) -> Result<(), Failure> {
    let samples: Vec<Value> = drawn
        .iter()
        .map(|one| {
            json!({
                "model": one.model,
                "prompt": one.prompt,
                "forgotten": one.forgotten,
                "samples": one.count,
                "memorized": one.memorized,
                "picture": one.picture.display().to_string(),
            })
        })
        .collect();
    let forgets = |one: &&Drawn| one.model == "model" && one.forgotten;
    let success = drawn.iter().filter(forgets).all(|one| one.memorized == 0);
    let json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": args.model.display().to_string(),
        "baseline": args.baseline.as_ref().map(|path| path.display().to_string()),
        "data_digest": data.digest()?,
        "cluster_agreement": clusters.agreement,
        "steps": args.steps,
        "guidance": args.guidance.unwrap_or(7.5),
        "seed": args.seed,
        "prompts": samples,
        "success": success,
    });
    let text = serde_json::to_string_pretty(&json).expect("JSON has no unwritable values");
    model::write(
        &args.out.join("metrics.json"),
        format!("{text}\n").as_bytes(),
    )?;
    if args.json {
        say!("{json}");
        return Ok(());
    }
    let headings = ["model", "prompt", "memorized", "of"];
    let table = Table {
        headings: headings.map(String::from).to_vec(),
        rows: drawn
            .iter()
            .map(|one| {
                vec![
                    one.model.to_string(),
                    latent::shortened(&one.prompt),
                    one.memorized.to_string(),
                    one.count.to_string(),
                ]
            })
            .collect(),
    };
    say!("{}", table.plain().trim_end());
    Ok(())
}
