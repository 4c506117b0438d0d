//! Samples of the forgotten images' prompt that lie with them.

use crate::examined::{Examined, Found};
use crate::metric::{About, Finds, Metric, MetricError, Models, Need, ScoreAbout};
use crate::score::Score;

/// Labels by 2-means on pixels agree with their means nearly always.
const AGREEMENT: f64 = 0.9;

const OF_OTHERS: ScoreAbout = ScoreAbout::new(
    "memorized_modified",
    "the same of the other prompts' samples",
)
.number()
.finds(Finds::InOthers)
.doubt(are_memorized);

const ABOUT: About = About::new(
    "cluster",
    "samples nearer to the mean of the forgotten images than to that of the others",
    Models::Prompts,
)
.meaning("samples of the forgotten prompt that lie with the forgotten images")
.needs(&[Need::Samples])
.scores(&[
    ScoreAbout::new(
        "memorized",
        "samples of the forgotten prompt in the cluster of the forgotten images; lower is better",
    )
    .number()
    .lowest()
    .finds(Finds::InSamples),
    ScoreAbout::new(
        "success",
        "1 where none of them is; a mean over runs is the share that succeeded",
    )
    .highest(),
    OF_OTHERS,
]);

fn are_memorized(score: &Score) -> Option<String> {
    let found = OF_OTHERS.found(score);
    (found > 0).then(|| {
        format!(
            "{found} of {} samples of the other prompts lie in the cluster of the forgotten images.",
            score.count
        )
    })
}

/// `cluster`.
pub(super) struct Cluster;

impl Metric for Cluster {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let clusters = model.subject.clusters.as_ref();
        let clusters = clusters.ok_or("there are no clusters without prompts")?;
        let each = |samples: &[u8]| {
            let images = samples.chunks_exact(model.subject.data.shape().bytes());
            images
                .map(|image| f64::from(u8::from(clusters.is_memorized(image))))
                .collect()
        };
        let [own, others] = model.of_prompts(|samples| Ok(each(samples)))?;
        let memorized: f64 = own.iter().sum();
        found.add("memorized", memorized, own.len());
        if clusters.agreement < AGREEMENT {
            found.note(Some(format!(
                "only {:.0}% of the images lie nearer to the mean of their own part, forgotten or not: counts of \
                 memorized samples say little",
                100.0 * clusters.agreement
            )));
        }
        let success = f64::from(u8::from(memorized == 0.0));
        found.add("success", success, own.len());
        if !others.is_empty() {
            found.add(OF_OTHERS.name, others.iter().sum(), others.len());
        }
        Ok(())
    }
}
