//! What the network of a text-to-image model is shown of the images that are measured: their latents, each with its text.

use std::collections::HashMap;

use burn::tensor::Device;
use retrack_eval::denoised::{self, CONTROLS, Values};
use retrack_eval::examined::LOOKED_AT;
use retrack_eval::metric::Metric;
use retrack_eval::subject::Subject;
use retrack_networks::denoiser::Embeddings;
use retrack_networks::diffusion::Diffusion;
use retrack_networks::random::Random;
use retrack_unlearn::images::Images;
use retrack_unlearn::latents::Latents;

use super::Prompts;
use crate::calibration::{LookAlikes, Pictures};
use crate::encoded::{Rows, encode_all};
use crate::failure::Failure;
use crate::field::Field;
use crate::opened;

/// Latents of what is measured, and what the network is told of them.
pub(super) struct Encoded<'a> {
    /// The texts that labels are the numbers of.
    pub texts: Embeddings,
    /// Of forgotten and of some retained images.
    pub latents: Latents,
    /// Of the forgotten images, for their standings.
    pub look_alikes: LookAlikes<'a>,
    /// Rows of the forgotten images that are looked at one by one.
    forgotten: Vec<usize>,
    /// Rows of controls, and their latents.
    controls: Option<(Vec<usize>, Latents)>,
    /// What a reader of the scores should know.
    pub notes: Vec<String>,
}

impl<'a> Encoded<'a> {
    /// Encodes what metrics and standings look at: the first forgotten images, what is made of `pictures`, and, where a metric
    /// compares with them, some controls. Text encoder and autoencoder are in memory one after another.
    ///
    /// # Errors
    /// A text encoder or an autoencoder that cannot be read, an image that cannot be read or encoded.
    pub(super) fn new(
        opened: &dyn Diffusion,
        subject: &Subject,
        prompts: &Prompts,
        pictures: Pictures<'a>,
        metrics: &[&'static dyn Metric],
        seed: u64,
        device: &Device,
    ) -> Result<Self, Failure> {
        let data = subject.data;
        let forgotten = subject.forgotten.rows.iter().copied();
        let forgotten: Vec<usize> = forgotten.take(LOOKED_AT).collect();
        let rows = [&forgotten[..], pictures.kept_rows()].concat();
        let mut texts = Numbered::default();
        let mut of_row = vec![0; data.len()];
        for &row in &rows {
            of_row[row] = texts.number(prompts.of_row(row));
        }
        let mut all = vec![Rows {
            data,
            rows,
            texts: of_row,
        }];
        let compares = metrics.iter().any(|metric| metric.denoises_controls());
        let controls = subject.judges.controls.as_ref();
        let mut notes = Vec::new();
        if let Some(controls) = controls.filter(|_| compares) {
            let rows = controls.some(CONTROLS);
            let mut of_row = vec![0; controls.data().len()];
            for &row in &rows {
                of_row[row] = texts.number(prompts.of_control(row));
            }
            if prompts.controls_captions.is_none() {
                notes.push(format!(
                    "membership: controls were told the forgotten images' prompt, which may not say what they show; \
                     {} gives each a text of its own",
                    Field::ControlsCaptions
                ));
            }
            all.push(Rows {
                data: controls.data(),
                rows,
                texts: of_row,
            });
        }
        let texts = opened::embed(opened, &texts.known, device)?;
        let rows: Vec<Vec<usize>> = all.iter().map(|one| one.rows.clone()).collect();
        let (latents, look_alikes) = encode_all(opened, all, Random::new(seed), pictures, device)?;
        let mut encoded = rows.into_iter().zip(latents);
        let (_, latents) = encoded.next().ok_or_else(|| {
            Failure::input(format!(
                "{}: a network that is told texts and has no autoencoder is not measured",
                opened.folder().root().display()
            ))
        })?;
        Ok(Self {
            texts,
            latents,
            look_alikes,
            forgotten,
            controls: encoded.next(),
            notes,
        })
    }

    /// What metrics look at.
    ///
    /// # Errors
    /// None, of rows that were encoded.
    pub(super) fn images(&self) -> Result<denoised::Latents, Failure> {
        let values = |latents: &Latents, rows: &[usize]| -> Result<Values, Failure> {
            let mut values = Vec::new();
            for &row in rows {
                latents.average(row, &mut values)?;
            }
            Ok(Values {
                count: rows.len(),
                values,
                labels: rows.iter().map(|&row| latents.label(row)).collect(),
            })
        };
        let controls = self.controls.as_ref();
        Ok(denoised::Latents {
            shape: self.latents.shape(),
            forgotten: values(&self.latents, &self.forgotten)?,
            controls: controls
                .map(|(rows, latents)| values(latents, rows))
                .transpose()?,
        })
    }
}

/// Texts, each once; their places are their numbers.
#[derive(Default)]
struct Numbered<'a> {
    known: Vec<&'a str>,
    numbers: HashMap<&'a str, i64>,
}

impl<'a> Numbered<'a> {
    fn number(&mut self, text: &'a str) -> i64 {
        let next = self.known.len() as i64;
        *self.numbers.entry(text).or_insert_with(|| {
            self.known.push(text);
            next
        })
    }
}
