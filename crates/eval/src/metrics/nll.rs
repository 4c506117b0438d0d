//! How likely the forgotten images are to a model, by its probability flow.

use burn::module::Module;
use retrack_networks::random::Random;
use retrack_networks::schedule::SchedulerConfig;

use crate::distance::mean;
use crate::examined::{Examined, Found};
use crate::metric::{About, Metric, MetricError, Models, ScoreAbout};
use crate::nll::{self, Likelihood, rademacher};
use crate::subject::Subject;

/// Forgotten images whose likelihood is computed, together, at most.
const TOGETHER: usize = 16;

const ABOUT: About = About::new(
    "nll",
    "bits per dimension of the forgotten images",
    Models::Pixels,
)
.meaning(
    "bits per dimension of the image (probability-flow ODE, as score_sde computes it, with the betas of the model's own \
     schedule); higher is forgotten",
)
.scores(&[ScoreAbout::new(
    "nll",
    "bits per dimension of the forgotten images; higher: forgotten",
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
        let pixels = model.pixels()?;
        let (count, values) = model.forgotten(TOGETHER);
        let [height, width, channels] = model.shape();
        let tracked = model.device.clone().autodiff();
        let network = pixels.model.network(&tracked)?.no_grad();
        let process = pixels.model.scheduler.process();
        let likelihood = Likelihood {
            network: &*network,
            process: &*process,
            device: &tracked,
        };
        let timesteps = pixels.model.scheduler.num_train_timesteps;
        let task = model.watch.task("likelihood", timesteps, "timesteps");
        let random = Random::new(model.seed);
        let probe = rademacher(&random, 0..count as u64, values.len() / count.max(1));
        let labels = pixels.classes.as_ref().map(|classes| &classes[..count]);
        let shape = [count, height, width, channels];
        let likely = likelihood.bits_per_dim(&values, shape, labels, &probe, &mut |time| {
            task.reach((timesteps as f64 * time) as u64)
        })?;
        found.add("nll", mean(&likely.bits_per_dim), count);
        found.note(model.subject.only_the_first("nll", TOGETHER));
        Ok(())
    }
}
