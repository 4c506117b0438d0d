//! Whether a model still denoises forgotten images better than images that it has never seen.

use retrack_data::pixels::to_unit;
use retrack_networks::random::Random;

use crate::auc::Bootstrap;
use crate::examined::{Examined, Found, LOOKED_AT};
use crate::membership::{Scoring, Timesteps};
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
use crate::score::Score;

/// Images never seen that forgotten ones are compared with, about.
const CONTROLS: usize = 200;
/// Timesteps and noises under which an image's denoising loss is taken.
const DRAWS: usize = 128;

/// The score that says whether a model knows or avoids the forgotten images.
pub const AUC: &str = "membership_auc";

const ABOUT: About = About::new(
    "membership",
    "denoising loss of the forgotten images against images never seen",
    Models::Pixels,
)
.meaning("AUC of its denoising loss against images never seen; one half: nothing tells them apart")
.needs(&[Need::Controls])
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
        let pixels = model.pixels()?;
        let controls = model.subject.judges.controls()?;
        found.note(controls.note());
        let stride = controls.rows().len().div_ceil(CONTROLS).max(1);
        let rows: Vec<usize> = controls.rows().iter().copied().step_by(stride).collect();
        let controls = controls.data();
        let mut image = vec![0; controls.shape().bytes()];
        let mut unseen = Vec::new();
        for &row in &rows {
            controls.read(row, &mut image)?;
            unseen.extend(image.iter().map(|&byte| to_unit(byte)));
        }
        let (count, forgotten) = model.forgotten(LOOKED_AT);
        let labels = match (&pixels.classes, model.subject.class) {
            (None, _) => None,
            (Some(classes), Some(class)) => Some((&classes[..count], vec![class; rows.len()])),
            (Some(classes), None) => {
                if let Some(known) = pixels.model.config.num_class_embeds {
                    controls.check_labels(&rows, known)?;
                }
                let of_controls = rows.iter().filter_map(|&row| controls.label(row));
                Some((&classes[..count], of_controls.collect()))
            }
        };
        let labels = labels.as_ref().map(|(own, others)| [*own, &others[..]]);
        let process = pixels.model.scheduler.process();
        let random = Random::new(model.seed);
        let scoring = Scoring {
            network: &*pixels.network,
            process: &*process,
            random,
            device: model.device,
            shape: model.shape(),
            draws: DRAWS,
            timesteps: Timesteps::Uniform,
            batch_size: 64,
        };
        let images = count + rows.len();
        let task = model.watch.task("membership", images * DRAWS, "losses");
        let bootstrap = Bootstrap {
            resamples: 1000,
            level: 0.95,
            random,
        };
        let compared = scoring.compare(&forgotten, &unseen, labels, &bootstrap, &mut |done| {
            task.reach(done as u64)
        })?;
        let auc = Score::new(AUC, compared.auc, images).with_interval(compared.interval);
        found.scores.push(auc);
        found.add("forgotten_loss", compared.forgotten_loss, compared.draws);
        found.note(model.subject.only_the_first("membership", LOOKED_AT));
        Ok(())
    }
}
