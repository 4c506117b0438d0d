//! One model: how good the samples are that are not the forgotten image.

use std::path::{Path, PathBuf};

use retrack_eval::digits::{self, DigitClassifier, SIDE};
use retrack_eval::frechet::{
    FeatureStatistics, SAMPLES_A_FEATURE, frechet_distance, small_sample_bias,
};
use retrack_eval::inception::{self, Description, Inception};
use retrack_eval::inception_score::{self, InceptionScore};
use retrack_eval::statistics_file::StatisticsFile;
use retrack_networks::folder::sha256_file;

use super::examined::{Examined, Measured};
use crate::failure::Failure;
use crate::{machine, progress};

impl<'a> Examined<'a> {
    pub(super) fn digits(&mut self) -> Measured {
        let shape = self.subject.data.shape();
        if [shape.height, shape.width, shape.channels] != [SIDE, SIDE, 1] {
            return Ok(Err(format!("made for {SIDE} x {SIDE} gray digits")));
        }
        let classifier = DigitClassifier::shipped(self.device);
        let retained = match self.subject.digits.get() {
            Some(retained) => retained,
            None => {
                let images = self.subject.read(&self.subject.split.retain)?;
                let found = classifier.digits(&images, self.device);
                let statistics = FeatureStatistics::of(digits::FEATURES, &found.features);
                self.subject.digits.get_or_init(|| statistics)
            }
        };
        let found = classifier.digits(&self.others, self.device);
        let count = self.others.len() / shape.bytes();
        if let Err(lack) = self.frechet("digit_frechet", &found.features, retained) {
            return Ok(Err(lack));
        }
        match InceptionScore::of_probabilities(&found.probabilities, digits::DIGITS, 1) {
            Ok(score) => self.add("digit_score", score.mean, count),
            Err(error) => return Ok(Err(error.to_string())),
        }
        Ok(Ok(()))
    }

    /// Adds the distance of the samples with these features to the retained images.
    fn frechet(
        &mut self,
        name: &str,
        features: &[f32],
        retained: &FeatureStatistics,
    ) -> Result<(), String> {
        let samples = FeatureStatistics::of(retained.dimensions(), features);
        let distance = frechet_distance(&samples, retained).map_err(|error| error.to_string())?;
        self.add(name, distance, samples.count() as usize);
        if samples.is_small() || retained.is_small() {
            let bias = match small_sample_bias(features, retained, distance) {
                Ok(bias) => format!(" by about {bias:.3}"),
                Err(_) => String::new(),
            };
            self.found.notes.push(format!(
                "{name} is of {} samples against {} images, few for {} features: it is too large{bias}, and comparable \
                 only with numbers of as many; from {} on little of it is bias",
                samples.count(),
                retained.count(),
                samples.dimensions(),
                SAMPLES_A_FEATURE * samples.dimensions() as u64,
            ));
        }
        Ok(())
    }

    fn inception(&self) -> Result<&'a (Inception, PathBuf), String> {
        let lack = "give --inception FILE: pt_inception-2015-12-05-6726825d.pth, as torch-fidelity downloads it";
        self.subject.judges.inception.as_ref().ok_or(lack.into())
    }

    fn describe(&self, inception: &Inception, images: &[u8]) -> Result<Description, Failure> {
        let shape = self.subject.data.shape();
        inception
            .describe(images, [shape.height, shape.width, shape.channels])
            .map_err(Failure::input)
    }

    /// Of the retained images, by Inception: kept between runs where there are many, because it takes a fifth of a
    /// second an image. The statistics of few would say much of each.
    fn retained(
        &self,
        inception: &Inception,
        path: &Path,
    ) -> Result<&'a FeatureStatistics, Failure> {
        let subject = self.subject;
        if let Some(retained) = subject.features.get() {
            return Ok(retained);
        }
        let rows = &subject.split.retain;
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
            return Ok(subject.features.get_or_init(|| kept));
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
        Ok(subject.features.get_or_init(|| statistics))
    }

    pub(super) fn fid(&mut self) -> Measured {
        let (inception, path) = match self.inception() {
            Ok(found) => found,
            Err(lack) => return Ok(Err(lack)),
        };
        let retained = self.retained(inception, path)?;
        let found = self.describe(inception, &self.others)?;
        Ok(self.frechet("fid", &found.features, retained))
    }

    pub(super) fn inception_score(&mut self) -> Measured {
        let inception = match self.inception() {
            Ok((inception, _)) => inception,
            Err(lack) => return Ok(Err(lack)),
        };
        let logits = self.describe(inception, &self.others)?.logits;
        let count = self.others.len() / self.subject.data.shape().bytes();
        match InceptionScore::of_logits(&logits, inception::CLASSES, inception_score::SPLITS) {
            Ok(score) => self.add("inception_score", score.mean, count),
            Err(error) => return Ok(Err(error.to_string())),
        }
        Ok(Ok(()))
    }
}
