//! Whether a model still denoises forgotten images better than images that it has never seen.

use retrack_networks::random::Random;

use crate::auc::Bootstrap;
use crate::examined::{Examined, Found, LOOKED_AT};
use crate::membership::{Scoring, Timesteps};
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
use crate::score::Score;

/// Timesteps and noises under which an image's denoising loss is taken.
const DRAWS: usize = 128;

/// The score that says whether a model knows or avoids the forgotten images.
pub const AUC: &str = "membership_auc";

const ABOUT: About = About::new(
    "membership",
    "denoising loss of the forgotten images against images never seen",
    Models::All,
)
.meaning("AUC of its denoising loss against images never seen; one half: nothing tells them apart")
.needs(&[Need::Denoised, Need::Controls])
.scores(&[
    ScoreAbout::new(
        AUC,
        "0.5: not told from images never seen; 1: known; 0: avoided",
    ),
    ScoreAbout::new(
        "forgotten_loss",
        "denoising error of the forgotten images; higher: forgotten",
    )
    .highest(),
]);

/// `membership`.
pub(super) struct Membership;

impl Metric for Membership {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let denoised = model.denoised()?;
        found.note(model.subject.judges.controls()?.note());
        let unseen = denoised.images.controls()?;
        let forgotten = denoised.images.forgotten(LOOKED_AT)?;
        let labels = forgotten.labels.as_deref().zip(unseen.labels.as_deref());
        let process = denoised.model.scheduler.process();
        let random = Random::new(model.seed);
        let scoring = Scoring {
            network: &*denoised.network,
            process: &*process,
            random,
            device: model.device,
            shape: denoised.images.shape(),
            draws: DRAWS,
            timesteps: Timesteps::Uniform,
            batch_size: denoised.together(),
        };
        let images = forgotten.count + unseen.count;
        let task = model.watch.task("membership", images * DRAWS, "losses");
        let bootstrap = Bootstrap {
            resamples: 1000,
            level: 0.95,
            random,
        };
        let compared = scoring.compare(
            &forgotten.values,
            &unseen.values,
            labels.map(|(own, others)| [own, others]),
            &bootstrap,
            &mut |done| task.reach(done as u64),
        )?;
        let auc = Score::new(AUC, compared.auc, images).with_interval(compared.interval);
        found.scores.push(auc);
        found.add("forgotten_loss", compared.forgotten_loss, compared.draws);
        found.note(model.subject.only_the_first("membership", LOOKED_AT));
        Ok(())
    }
}
