//! One model: how good the samples are that are not the forgotten image.

use std::path::{Path, PathBuf};

use retrack_checkpoint::folder::sha256_file;
use retrack_checkpoint::words::counted;
use retrack_eval::digits::{self, DigitClassifier};
use retrack_eval::frechet::{
    FeatureStatistics, SAMPLES_A_FEATURE, frechet_distance, small_sample_bias,
};
use retrack_eval::inception::{self, Description, Inception};
use retrack_eval::inception_score::{self, InceptionScore};
use retrack_eval::statistics_file::StatisticsFile;

use super::examined::Examined;
use crate::failure::Failure;
use crate::{machine, progress};

impl<'a> Examined<'a, '_> {
    pub(super) fn digits(&mut self) -> Result<(), Failure> {
        let classifier = DigitClassifier::shipped(self.device);
        let classes = self.drawn_classes();
        let (of, retained) = match self.subject.digits.get() {
            Some(retained) => retained,
            None => {
                let images = self.subject.read(&self.subject.like(&classes))?;
                let found = classifier.digits(&images, self.device);
                let statistics = FeatureStatistics::of(digits::FEATURES, &found.features);
                self.subject
                    .digits
                    .get_or_init(|| (classes.clone(), statistics))
            }
        };
        same_classes(of, &classes)?;
        let found = classifier.digits(self.others()?, self.device);
        let count = self.others.len() / self.subject.data.shape().bytes();
        self.frechet("digit_frechet", &found.features, retained)?;
        let score = InceptionScore::of_probabilities(&found.probabilities, digits::DIGITS, 1);
        self.add("digit_score", score.map_err(Failure::failed)?.mean, count);
        Ok(())
    }

    /// The samples that quality is judged by.
    fn others(&self) -> Result<&[u8], Failure> {
        if self.others.is_empty() {
            return Err(Failure::failed(
                "every sample counts as a forgotten image, and none is left to judge",
            ));
        }
        Ok(&self.others)
    }

    /// Adds the distance of the samples with these features to the retained images.
    fn frechet(
        &mut self,
        name: &str,
        features: &[f32],
        retained: &FeatureStatistics,
    ) -> Result<(), Failure> {
        let samples = FeatureStatistics::of(retained.dimensions(), features);
        let distance = frechet_distance(&samples, retained).map_err(Failure::failed)?;
        self.add(name, distance, samples.count() as usize);
        if samples.is_small() || retained.is_small() {
            let bias = match small_sample_bias(features, retained, distance) {
                Ok(bias) => format!(" by about {bias:.3}"),
                Err(_) => String::new(),
            };
            self.found.notes.push(format!(
                "{name} is of {} against {}, few for {} features: it is too large{bias}, and comparable \
                 only with numbers of as many; from {} on little of it is bias",
                counted(samples.count() as usize, "sample"),
                counted(retained.count() as usize, "image"),
                samples.dimensions(),
                SAMPLES_A_FEATURE * samples.dimensions() as u64,
            ));
        }
        Ok(())
    }

    fn inception(&self) -> Result<&'a (Inception, PathBuf), Failure> {
        let inception = self.subject.judges.inception.as_ref();
        inception.ok_or_else(|| Failure::failed("Inception was not read"))
    }

    fn describe(&self, inception: &Inception, images: &[u8]) -> Result<Description, Failure> {
        let shape = self.subject.data.shape();
        inception
            .describe(images, [shape.height, shape.width, shape.channels])
            .map_err(Failure::failed)
    }

    /// Of the retained images, by Inception: kept between runs where there are many, because it takes a fifth of a
    /// second an image. The statistics of few would say much of each.
    fn retained(
        &self,
        inception: &Inception,
        path: &Path,
    ) -> Result<&'a FeatureStatistics, Failure> {
        let subject = self.subject;
        let classes = self.drawn_classes();
        if let Some((of, retained)) = subject.features.get() {
            same_classes(of, &classes)?;
            return Ok(retained);
        }
        let rows = &subject.like(&classes);
        let file = match machine::cache_folder().filter(|_| rows.len() >= inception::FEATURES) {
            Some(folder) => {
                let (data, network) = (subject.data.digest()?, sha256_file(path)?);
                let dimensions = inception::FEATURES;
                Some(StatisticsFile::new(
                    &folder, &data, rows, &network, dimensions,
                ))
            }
            None => None,
        };
        if let Some(kept) = file.as_ref().and_then(StatisticsFile::read) {
            return Ok(&subject.features.get_or_init(|| (classes, kept)).1);
        }
        let mut statistics = FeatureStatistics::new(inception::FEATURES);
        let bar = progress::bar("retained", rows.len(), "images");
        for rows in rows.chunks(256) {
            let images = subject.read(rows)?;
            statistics.add(&self.describe(inception, &images)?.features);
            bar.inc(rows.len() as u64);
        }
        drop(bar);
        if let Some(file) = file
            && let Err(error) = file.write(&statistics)
        {
            progress::warn(format!(
                "{}: cannot keep the retained images' statistics for the next run: {error}",
                file.path().display()
            ));
        }
        Ok(&subject.features.get_or_init(|| (classes, statistics)).1)
    }

    pub(super) fn fid(&mut self) -> Result<(), Failure> {
        let (inception, path) = self.inception()?;
        let retained = self.retained(inception, path)?;
        let found = self.describe(inception, self.others()?)?;
        self.frechet("fid", &found.features, retained)
    }

    pub(super) fn inception_score(&mut self) -> Result<(), Failure> {
        let (inception, _) = self.inception()?;
        let logits = self.describe(inception, self.others()?)?.logits;
        let count = self.others.len() / self.subject.data.shape().bytes();
        let score = InceptionScore::of_logits(&logits, inception::CLASSES, inception_score::SPLITS);
        let score = score.map_err(Failure::failed)?;
        self.add("inception_score", score.mean, count);
        Ok(())
    }
}

/// Retained images were described for another model's samples.
fn same_classes(described: &[i64], drawn: &[i64]) -> Result<(), Failure> {
    if described == drawn {
        return Ok(());
    }
    Err(Failure::failed(
        "the models that are compared have other classes, so their samples are like other retained images",
    ))
}
