//! What `train` shows on its way: samples of the averaged network, and the loss as a curve.

use std::path::{Path, PathBuf};

use crate::run::{EventLog, LOSS_CURVE, samples_name};
use burn::module::Module;
use burn::tensor::Device;
use retrack_eval::pictures::Grid;
use retrack_eval::report::{Axis, LineChart, Series};
use retrack_networks::family::PixelConfig;
use retrack_networks::network::Network;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{Sampler, SchedulerConfig};
use retrack_unlearn::trainer::Trainer;

use crate::failure::Failure;
use crate::model;
use crate::progress;
use crate::session::Look;

/// As `retrack sample` draws where nothing is said: the model's own scheduler (DDPM), so many steps.
const SAMPLING_STEPS: usize = model::STEPS;
/// Part of a run's work that samples may take.
const SHARE: f64 = 0.05;
/// A training step takes about three times what a prediction of its images takes.
const STEP: f64 = 3.0;
/// How often samples are drawn, at most, and how many each time.
const TIMES: usize = 10;
const SAMPLES: usize = 64;
/// Fewer say nothing.
const FEWEST: usize = 4;
/// Points of the curve, at most; each is the mean of as many steps.
const POINTS: usize = 100;
/// Images computed together.
const TOGETHER: usize = 16;

/// When samples are drawn and how many, which the run's settings alone decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Steps after which samples are drawn.
    pub at: Vec<usize>,
    /// Samples of each model.
    pub samples: usize,
}

impl Plan {
    /// No samples.
    pub fn none() -> Self {
        Self {
            at: Vec::new(),
            samples: 0,
        }
    }

    /// Of a run of so many steps of so many images.
    pub fn new(steps: usize, images: usize) -> Self {
        let work = STEP * steps as f64 * images as f64;
        let affordable = (SHARE * work / SAMPLING_STEPS as f64) as usize;
        if affordable < FEWEST {
            return Self::none();
        }
        let times = (affordable / 16).clamp(1, TIMES).min(steps);
        let side = (affordable / times).min(SAMPLES).isqrt();
        Self {
            at: (1..=times).map(|time| steps * time / times).collect(),
            samples: side * side,
        }
    }
}

/// Draws pictures into a run's folder.
pub struct TrainingView<'a> {
    /// The model's folder.
    pub folder: PathBuf,
    /// How much is measured.
    pub plan: Plan,
    /// The configuration.
    pub config: &'a PixelConfig,
    /// The sampler; `None`: the model's own.
    pub scheduler: &'a SchedulerConfig,
    /// Decides all random numbers.
    pub seed: u64,
    /// Where it is computed.
    pub device: Device,
}

impl Look for TrainingView<'_> {
    fn look(
        &mut self,
        trainer: &Trainer,
        _: bool,
        log: &mut EventLog,
    ) -> Result<Vec<(&'static str, f64)>, Failure> {
        if self.plan.at.contains(&trainer.step) {
            let network = trainer.network().clone();
            let network = match &trainer.ema {
                Some(ema) => ema.apply(network),
                None => network,
            };
            let values = self.samples(&network.valid())?;
            match model::to_bytes(&values, "samples") {
                Ok(bytes) => {
                    let png = self.picture(&bytes)?;
                    model::write(&self.folder.join(samples_name(trainer.step)), &png)?;
                    log.picture(trainer.step, "samples", &png)?;
                }
                // The run goes on: it may recover, and what it has learned is not lost for want of a picture.
                Err(failure) => progress::warn(format!(
                    "step {}: {}; no picture of them is drawn",
                    trainer.step, failure.message
                )),
            }
            self.draw_loss()?;
        }
        Ok(Vec::new())
    }
}

impl TrainingView<'_> {
    /// The same noise each time, classes one after another.
    fn samples(&self, network: &Network) -> Result<Vec<f32>, Failure> {
        let Some([height, width]) = self.config.sample_size else {
            unreachable!("set from the data")
        };
        let sampler = Sampler::new(self.scheduler.kind, self.scheduler, SAMPLING_STEPS)?;
        let device = self.device.clone().without_autodiff();
        let generator = Generator {
            network: &**network,
            sampler: &sampler,
            random: Random::new(self.seed),
            shape: [height, width, self.config.out_channels],
            device: &device,
        };
        let mut values = Vec::new();
        for first in (0..self.plan.samples).step_by(TOGETHER) {
            let last = (first + TOGETHER).min(self.plan.samples);
            let labels = self.config.num_class_embeds.map(|classes| {
                (first..last)
                    .map(|sample| (sample % classes) as i64)
                    .collect::<Vec<_>>()
            });
            let images =
                generator.images(first as u64..last as u64, labels.as_deref(), &mut || {})?;
            values.extend(images);
        }
        Ok(values)
    }

    fn picture(&self, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let [height, width] = self.config.sample_size.expect("set from the data");
        let shape = [height, width, self.config.out_channels];
        let grid = Grid {
            shape,
            columns: self.plan.samples.isqrt(),
            zoom: Grid::zoom_for(shape),
        };
        Ok(grid.png(bytes)?)
    }

    /// Where the pictures will be, for people.
    pub fn announce(&self, out: &Path) -> String {
        let run = out.join("run");
        let loss = run.join(LOSS_CURVE);
        match self.plan.at.first() {
            Some(first) => format!(
                "on the way: {} samples every {first} steps, {}; the loss, {}",
                self.plan.samples,
                run.join("samples-*.png").display(),
                loss.display()
            ),
            None => format!("the loss: {}", loss.display()),
        }
    }

    /// Draws the losses that are recorded so far.
    pub fn draw_loss(&self) -> Result<(), Failure> {
        let events = crate::evidence::read_events(&self.folder.join("events.jsonl"))?;
        let losses: Vec<[f64; 2]> = events
            .iter()
            .filter_map(|event| Some([event["step"].as_f64()?, event["loss"].as_f64()?]))
            .collect();
        if losses.is_empty() {
            return Ok(());
        }
        let svg = curve(&losses).svg();
        model::write(&self.folder.join(LOSS_CURVE), svg.as_bytes())
    }
}

/// Means over stretches of steps: a single step's loss depends most of all on its timesteps.
fn curve(losses: &[[f64; 2]]) -> LineChart {
    let stretch = losses.len().div_ceil(POINTS);
    let points: Vec<[f64; 2]> = losses
        .chunks(stretch)
        .map(|chunk| {
            let mean = chunk.iter().map(|point| point[1]).sum::<f64>() / chunk.len() as f64;
            [chunk[chunk.len() - 1][0], mean]
        })
        .collect();
    let values = || points.iter().map(|point| point[1]);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(0.0, f64::max);
    let of = match stretch {
        1 => "squared error, summed over an image".into(),
        stretch => format!("squared error of an image, mean of {stretch} steps"),
    };
    LineChart {
        title: "Loss".into(),
        note: String::new(),
        x: Axis::linear("step"),
        y: Axis {
            name: of,
            log: low > 0.0 && high > 8.0 * low,
        },
        series: vec![Series {
            name: "loss".into(),
            points,
        }],
    }
}

/// Whether a picture can show so many channels.
pub fn can_show(config: &PixelConfig) -> bool {
    matches!(config.out_channels, 1 | 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_take_a_twentieth_of_the_run_and_its_end_is_among_them() {
        for (steps, images) in [(10_000, 128), (3000, 32), (1000, 16), (200, 8), (7, 512)] {
            let plan = Plan::new(steps, images);
            let work = (plan.at.len() * plan.samples * SAMPLING_STEPS) as f64;
            assert!(work <= SHARE * STEP * (steps * images) as f64, "{plan:?}");
            assert_eq!(plan.at.last(), Some(&steps), "{plan:?}");
            assert!(plan.samples >= FEWEST && plan.at.len() <= TIMES, "{plan:?}");
        }
        assert_eq!(Plan::new(10_000, 128).samples, SAMPLES);
        assert!(Plan::new(30, 4).at.is_empty());
    }
}
