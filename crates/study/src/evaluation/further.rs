//! Copies of a model that are trained further, in memory alone.

use burn::tensor::Device;
use retrack_data::Dataset;
use retrack_eval::metric::MetricError;
use retrack_eval::relearn::{BATCH_SIZE, Further, Lesson, Look, RATE};
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use retrack_unlearn::feed::{BatchSize, Feed};
use retrack_unlearn::objective::Finetune;
use retrack_unlearn::optimizer::{AdamW, AdamWConfig, LearningRate};
use retrack_unlearn::trainer::Trainer;

/// A model that denoises pixels, of which copies are trained.
pub(super) struct Copies<'a> {
    /// As it was opened.
    pub model: &'a Model,
    /// All images, and which of them are retained.
    pub data: &'a Dataset,
    pub retained: &'a [usize],
    /// Decides the order, the noise and the times: the same for whatever is learned.
    pub seed: u64,
    /// Without autodiff.
    pub device: &'a Device,
}

impl Further for Copies<'_> {
    fn train(&self, lesson: Lesson, steps: usize, look: Look) -> Result<(), MetricError> {
        let classes = self.model.config.num_class_embeds;
        let one;
        let (data, rows) = match lesson {
            Lesson::Retained if self.retained.is_empty() => {
                return Err("nothing is retained that it could be trained on".into());
            }
            Lesson::Retained => {
                if let Some(classes) = classes {
                    self.data.check_labels(self.retained, classes)?;
                }
                (self.data, self.retained)
            }
            Lesson::Image { pixels, class } => {
                let labels = class.into_iter().collect();
                one = Dataset::from_pixels(self.data.shape(), pixels.to_vec(), labels)?;
                (&one, &[0][..])
            }
        };
        let tracked = self.device.clone().autodiff();
        let process = self.model.scheduler.process();
        let size = BatchSize {
            images: BATCH_SIZE,
            accumulate: 1,
        };
        let random = Random::new(self.seed);
        let feed = Feed::new(
            data,
            rows,
            &[],
            random,
            size,
            process.clone(),
            classes.is_some(),
        );
        let adam = AdamWConfig {
            betas: [0.9, 0.999],
            weight_decay: 0.0,
            ..AdamWConfig::default()
        };
        let mut trainer = Trainer::new(
            self.model.network(&tracked)?,
            process,
            tracked,
            Box::new(Finetune),
            AdamW::new(adam),
            LearningRate::Constant { rate: RATE },
        );
        while !look(trainer.step, trainer.network())? && trainer.step < steps {
            trainer.step(&feed)?;
        }
        Ok(())
    }
}
