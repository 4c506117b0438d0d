//! How far samples are from the retained images, in Inception's features (arXiv 1706.08500).

use std::path::Path;
use std::rc::Rc;

use retrack_checkpoint::folder::sha256_file;
use retrack_checkpoint::words::counted;
use retrack_networks::schedule::SchedulerConfig;

use crate::examined::{Examined, Found};
use crate::frechet::{FeatureStatistics, SAMPLES_A_FEATURE, frechet_distance, small_sample_bias};
use crate::inception::{FEATURES, Inception};
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
use crate::statistics_file::StatisticsFile;
use crate::subject::Subject;

const ABOUT: About = About::new(
    "fid",
    "Frechet Inception distance to the retained images",
    Models::Pixels,
)
.meaning("Frechet Inception distance to the retained images, equal to torch-fidelity's")
.needs(&[Need::Samples, Need::Inception])
.scores(&[ScoreAbout::new(
    "fid",
    "Frechet Inception distance to the retained images; lower is better",
)
.lowest()
.quality(0, "Frechet Inception distance to the retained images")]);

/// `fid`.
pub(super) struct Fid;

impl Metric for Fid {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn lacks(&self, subject: &Subject, _scheduler: &SchedulerConfig) -> Option<String> {
        subject.lacks_like()
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let (inception, path) = model.subject.judges.inception()?;
        let classes = model.drawn_classes();
        let retained = retained(model, inception, path, &classes)?;
        let samples = inception.describe(model.others()?, model.shape())?;
        add_frechet(found, "fid", &samples.features, &retained.1)
    }
}

/// Of the retained images of these classes, by Inception: kept between runs where there are many, because it takes a
/// fifth of a second an image. The statistics of few would say much of each.
fn retained(
    model: &Examined,
    inception: &Inception,
    path: &Path,
    classes: &[i64],
) -> Result<Rc<(Vec<i64>, FeatureStatistics)>, MetricError> {
    let subject = model.subject;
    let retained = subject.once("fid", || {
        let rows = subject.like(classes);
        let cache = subject.judges.cache.as_deref();
        let file = match cache.filter(|_| rows.len() >= FEATURES) {
            Some(folder) => {
                let (data, network) = (subject.data.digest()?, sha256_file(path)?);
                Some(StatisticsFile::new(
                    folder, &data, &rows, &network, FEATURES,
                ))
            }
            None => None,
        };
        if let Some(kept) = file.as_ref().and_then(StatisticsFile::read) {
            return Ok((classes.to_vec(), kept));
        }
        let mut statistics = FeatureStatistics::new(FEATURES);
        let task = model.watch.task("retained", rows.len(), "images");
        for rows in rows.chunks(256) {
            let images = subject.read(rows)?;
            statistics.add(&inception.describe(&images, model.shape())?.features);
            task.advance(rows.len() as u64);
        }
        drop(task);
        if let Some(file) = file
            && let Err(error) = file.write(&statistics)
        {
            model.watch.warn(&format!(
                "{}: cannot keep the retained images' statistics for the next run: {error}",
                file.path().display()
            ));
        }
        Ok((classes.to_vec(), statistics))
    })?;
    same_classes(&retained.0, classes)?;
    Ok(retained)
}

/// Retained images may have been described for another model's samples.
pub(super) fn same_classes(described: &[i64], drawn: &[i64]) -> Result<(), MetricError> {
    if described == drawn {
        return Ok(());
    }
    Err(
        "the models that are compared have other classes, so their samples are like other retained images"
            .into(),
    )
}

/// Adds the distance of the samples with these features to the retained images.
pub(super) fn add_frechet(
    found: &mut Found,
    name: &str,
    features: &[f32],
    retained: &FeatureStatistics,
) -> Result<(), MetricError> {
    let samples = FeatureStatistics::of(retained.dimensions(), features);
    let distance = frechet_distance(&samples, retained)?;
    found.add(name, distance, samples.count() as usize);
    if samples.is_small() || retained.is_small() {
        let bias = match small_sample_bias(features, retained, distance) {
            Ok(bias) => format!(" by about {bias:.3}"),
            Err(_) => String::new(),
        };
        found.note(Some(format!(
            "{name} is of {} against {}, few for {} features: it is too large{bias}, and comparable \
             only with numbers of as many; from {} on little of it is bias",
            counted(samples.count() as usize, "sample"),
            counted(retained.count() as usize, "image"),
            samples.dimensions(),
            SAMPLES_A_FEATURE * samples.dimensions() as u64,
        )));
    }
    Ok(())
}
