//! A text-to-image model: what it draws for the prompt of the forgotten images and for others.

use std::path::Path;

use burn::tensor::Device;
use retrack_data::{modified_prompts, original_prompt};
use retrack_eval::distance::mean;
use retrack_networks::schedule::SchedulerKind;
use retrack_unlearn::texts;

use super::{AGREEMENT, Drawn, Evaluation, Missing, Protocol, Subject, check_shape, once, phases};
use crate::failure::Failure;
use crate::latent::{self, Opened, PromptedSamples};
use crate::names::Metric;
use crate::progress;
use crate::source::PromptOptions;

/// The published guidance.
pub const GUIDANCE: f64 = 7.5;

/// What a text-to-image model is to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    /// What the forgotten images are drawn for.
    pub forgotten: String,
    /// What is to be drawn as before.
    pub others: Vec<String>,
}

impl Prompts {
    /// As typed, or as data in the published layout says it.
    ///
    /// # Errors
    /// No prompt of the forgotten images, another one twice, files of the layout that cannot be read.
    pub fn read(typed: &PromptOptions, source: &Path) -> Result<Self, Failure> {
        let published = retrack_data::is_published(source);
        let original = match &typed.prompt {
            Some(prompt) => Some(prompt.clone()),
            None if published => original_prompt(source)?,
            None => None,
        };
        let forgotten = original.ok_or_else(|| {
            Failure::input("say with --prompt what the images to forget are drawn for")
        })?;
        once("--modified-prompt", &typed.modified_prompt, String::clone)?;
        let others = match typed.modified_prompt.as_slice() {
            [] if published => modified_prompts(source)?,
            typed => typed.to_vec(),
        };
        Ok(Self { forgotten, others })
    }

    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Stands for them where they are not to be read.
    pub fn digest(&self) -> String {
        let all: Vec<String> = self.all().map(|(prompt, _)| prompt.clone()).collect();
        texts::digest(&all)
    }

    /// Each with whether it is the forgotten images'.
    fn all(&self) -> impl Iterator<Item = (&String, bool)> {
        std::iter::once((&self.forgotten, true)).chain(self.others.iter().map(|one| (one, false)))
    }
}

/// The phases of drawing, by name: one for each prompt.
pub(super) fn drawn(prompts: &Prompts) -> Vec<String> {
    let names = prompts.all().map(|(prompt, _)| {
        let prompt = latent::shortened(prompt);
        format!("drawing \"{prompt}\"")
    });
    names.collect()
}

/// Draws for all prompts and measures what came out.
pub(super) fn evaluate(
    protocol: &Protocol,
    prompts: &Prompts,
    path: &Path,
    subject: &Subject,
    seed: u64,
    device: &Device,
) -> Result<Evaluation, Failure> {
    let Opened::Text(opened) = latent::open(path)? else {
        return Err(Failure::input(format!(
            "{}: not a text-to-image model, as --model is",
            path.display()
        )));
    };
    let skipped = protocol.lacks(subject, &opened.model.scheduler);
    let metrics = protocol.without(&skipped);
    let mut found = Evaluation {
        skipped,
        ..Evaluation::default()
    };
    let network = opened.model.network(device)?;
    let phases = phases(&metrics, Some(prompts)).len();
    let first = 1 + phases - metrics.len();
    for (number, (prompt, forgotten)) in prompts.all().filter(|_| !metrics.is_empty()).enumerate() {
        let _phase = progress::phase(1 + number, phases);
        let samples = PromptedSamples {
            count: protocol.samples,
            steps: protocol.sampling_steps,
            scheduler: protocol.scheduler.map(SchedulerKind::from),
            seed,
            batch_size: 1,
            prompt,
            negative_prompt: "",
            guidance: protocol.guidance.unwrap_or(GUIDANCE),
        };
        let title = latent::shortened(prompt);
        let samples = match samples.draw(&opened, &network, device, &title) {
            Ok((samples, shape)) => {
                check_shape(shape, subject.data, path)?;
                samples
            }
            // All metrics rest on the samples of all prompts.
            Err(failure) if failure.is_failed() => {
                found.drawn.clear();
                found.failed = metrics
                    .into_iter()
                    .map(|metric| Missing {
                        metric,
                        reason: failure.message.clone(),
                    })
                    .collect();
                return Ok(found);
            }
            Err(failure) => return Err(failure),
        };
        found.drawn.push(Drawn {
            prompt: Some(prompt.clone()),
            forgotten,
            samples,
        });
    }
    for (number, metric) in metrics.into_iter().enumerate() {
        let _phase = progress::phase(first + number, phases);
        let _activity = progress::activity(&metric.name());
        let known = found.scores.len();
        let measured = measure(metric, subject, &mut found);
        found.keep(metric, measured, known);
    }
    Ok(found)
}

fn measure(metric: Metric, subject: &Subject, found: &mut Evaluation) -> Result<(), Failure> {
    match metric {
        Metric::Cluster => {
            let clusters = subject.clusters.as_ref().expect("made with the prompts");
            let each = |samples: &[u8]| {
                let images = samples.chunks_exact(subject.data.shape().bytes());
                images
                    .map(|image| f64::from(u8::from(clusters.is_memorized(image))))
                    .collect()
            };
            let [own, others] = of_prompts(&found.drawn, |samples| Ok(each(samples)))?;
            let memorized: f64 = own.iter().sum();
            found.add("memorized", memorized, own.len());
            if clusters.agreement < AGREEMENT {
                found.notes.push(format!(
                    "only {:.0}% of the images lie nearer to the mean of their own part, forgotten or not: counts of \
                     memorized samples say little",
                    100.0 * clusters.agreement
                ));
            }
            let success = f64::from(u8::from(memorized == 0.0));
            found.add("success", success, own.len());
            if !others.is_empty() {
                let count = others.len();
                found.add("memorized_modified", others.iter().sum(), count);
            }
        }
        Metric::Sscd => {
            let sscd = subject.judges.sscd.as_ref();
            let sscd = sscd.ok_or_else(|| Failure::failed("SSCD was not read"))?;
            let shape = subject.data.shape();
            let shape = [shape.height, shape.width, shape.channels];
            let known = subject.known()?;
            // Of one memorized picture several forms may be forgotten: the nearest counts.
            let nearest = |samples: &[u8]| {
                let drawn = sscd.embed(samples, shape).map_err(Failure::failed)?;
                Ok(drawn.iter().map(|one| one.most_similar(known)).collect())
            };
            let scores = of_prompts(&found.drawn, nearest)?;
            found.add_means("sscd", &scores);
            found.notes.extend(subject.only_known());
        }
        Metric::ClipIqa => {
            let clip = subject.judges.clip.as_ref();
            let clip = clip.ok_or_else(|| Failure::failed("CLIP was not read"))?;
            let shape = subject.data.shape();
            let shape = [shape.height, shape.width, shape.channels];
            let score = |samples: &[u8]| clip.scores(samples, shape).map_err(Failure::failed);
            let scores = of_prompts(&found.drawn, score)?;
            found.add_means("clip_iqa", &scores);
        }
        Metric::Frequency
        | Metric::Injection
        | Metric::Nll
        | Metric::Membership
        | Metric::Copies
        | Metric::Digits
        | Metric::Fid
        | Metric::Is => unreachable!("lacks a model of images"),
    }
    Ok(())
}

/// A number of each sample: of the forgotten images' prompt, and of all others.
fn of_prompts(
    drawn: &[Drawn],
    mut each: impl FnMut(&[u8]) -> Result<Vec<f64>, Failure>,
) -> Result<[Vec<f64>; 2], Failure> {
    let mut own = Vec::new();
    let mut others = Vec::new();
    for one in drawn {
        let part = if one.forgotten { &mut own } else { &mut others };
        part.extend(each(&one.samples)?);
    }
    Ok([own, others])
}

impl Evaluation {
    fn add_means(&mut self, name: &str, [own, others]: &[Vec<f64>; 2]) {
        self.add(name, mean(own), own.len());
        if !others.is_empty() {
            let name = format!("{name}_modified");
            self.add(&name, mean(others), others.len());
        }
    }
}
