//! How likely the forgotten images are to a model, by its probability flow.

use retrack_networks::random::Random;
use retrack_networks::schedule::SchedulerConfig;

use crate::distance::mean;
use crate::examined::{Examined, Found};
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
use crate::nll::{self, Likelihood, rademacher};
use crate::subject::Subject;

/// Forgotten images whose likelihood is computed, at most, together where the network takes so many.
const TOGETHER: usize = 16;

const ABOUT: About = About::new(
    "nll",
    "bits per dimension of the forgotten images",
    Models::All,
)
.meaning(
    "bits per dimension of the image (probability-flow ODE, as score_sde computes it, with the betas of the model's own \
     schedule); text-to-image: of its latents, told its text, as a density of these, without score_sde's 7 bits for bytes; \
     higher is forgotten",
)
.needs(&[Need::Denoised])
.scores(&[ScoreAbout::new(
    "nll",
    "bits per dimension of the forgotten images (text-to-image: of their latents); higher: forgotten",
)
.highest()]);

/// `nll`.
pub(super) struct Nll;

impl Metric for Nll {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn lacks(&self, _subject: &Subject, scheduler: &SchedulerConfig) -> Option<String> {
        let error = nll::check(&*scheduler.process()).err()?;
        Some(error.to_string())
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let denoised = model.denoised()?;
        let seen = denoised.images.forgotten(TOGETHER)?;
        let [height, width, channels] = denoised.images.shape();
        let tracked = model.device.clone().autodiff();
        let network = denoised.differentiable();
        let process = denoised.model.scheduler.process();
        let likelihood = Likelihood {
            network: &*network,
            process: &*process,
            device: &tracked,
            bytes: denoised.images.are_bytes(),
        };
        let together = denoised.together().min(seen.count).max(1);
        let timesteps = denoised.model.scheduler.num_train_timesteps;
        let steps = timesteps * seen.count.div_ceil(together);
        let task = model.watch.task("likelihood", steps, "timesteps");
        let random = Random::new(model.seed);
        let len = height * width * channels;
        let mut bits = Vec::with_capacity(seen.count);
        for first in (0..seen.count).step_by(together) {
            let last = (first + together).min(seen.count);
            let probe = rademacher(&random, first as u64..last as u64, len);
            let labels = seen.labels.as_ref().map(|labels| &labels[first..last]);
            let before = timesteps * (first / together);
            let likely = likelihood.bits_per_dim(
                &seen.values[first * len..last * len],
                [last - first, height, width, channels],
                labels,
                &probe,
                &mut |time| task.reach((before + (timesteps as f64 * time) as usize) as u64),
            )?;
            bits.extend(likely.bits_per_dim);
        }
        found.add("nll", mean(&bits), seen.count);
        found.note(model.subject.only_the_first("nll", TOGETHER));
        Ok(())
    }
}
