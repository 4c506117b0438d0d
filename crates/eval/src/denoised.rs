//! What a model's network denoises: the images that are measured as it takes them, pixels or an autoencoder's latents.

use burn::module::Module;
use retrack_data::pixels::to_unit;
use retrack_networks::model::Model;
use retrack_networks::network::Network;

use crate::metric::MetricError;
use crate::subject::Subject;

/// Controls that forgotten images are compared with, about.
pub const CONTROLS: usize = 200;

/// Images as a network takes them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// How many they are.
    pub count: usize,
    /// One image after another, each of [`Images::shape`].
    pub values: Vec<f32>,
    /// Of each its class, or the number of its text, where the network is told either.
    pub labels: Option<Vec<i64>>,
}

impl Values {
    /// The first `most` of them, which are of so many values each.
    fn first(&self, most: usize, image_len: usize) -> Self {
        let count = self.count.min(most);
        Self {
            count,
            values: self.values[..count * image_len].to_vec(),
            labels: self.labels.as_ref().map(|all| all[..count].to_vec()),
        }
    }
}

/// The images that are measured, as a network takes them.
pub trait Images {
    /// Height, width and channels of what the network denoises.
    fn shape(&self) -> [usize; 3];

    /// Whether the values are bytes, scaled to [-1, 1]; otherwise they are latents.
    fn are_bytes(&self) -> bool;

    /// The first `most` forgotten images.
    ///
    /// # Errors
    /// An image without a class that the network has.
    fn forgotten(&self, most: usize) -> Result<Values, MetricError>;

    /// [About so many](CONTROLS) images that the model never saw.
    ///
    /// # Errors
    /// There are none, or one cannot be read or has no class that the network has.
    fn controls(&self) -> Result<Values, MetricError>;
}

/// A model's network, and what it denoises.
pub struct Denoised<'a> {
    /// The denoiser as it was opened.
    pub model: &'a Model,
    /// Its network, without autodiff. It knows the texts that labels are the numbers of.
    pub network: Network,
    /// What is measured.
    pub images: Box<dyn Images + 'a>,
}

impl Denoised<'_> {
    /// The same network for derivatives by its input, not by its parameters: it shares the weights.
    pub fn differentiable(&self) -> Network {
        self.network.clone().train().no_grad()
    }

    /// How many images pass through the network together.
    pub fn together(&self) -> usize {
        let [height, width, _] = self.images.shape();
        self.network.looks_at_once([height, width])
    }
}

/// Images whose network takes their pixels. They are read when they are asked for.
pub struct Pixels<'a, 'b> {
    /// What was forgotten, and the controls.
    pub subject: &'a Subject<'b>,
    /// How many classes the network has, if any.
    pub known: Option<usize>,
    /// The class of each forgotten image, of a network with classes.
    pub classes: Option<Vec<i64>>,
}

impl Images for Pixels<'_, '_> {
    fn shape(&self) -> [usize; 3] {
        self.subject.shape()
    }

    fn are_bytes(&self) -> bool {
        true
    }

    fn forgotten(&self, most: usize) -> Result<Values, MetricError> {
        let images: Vec<&[u8]> = self.subject.images().take(most).collect();
        let count = images.len();
        Ok(Values {
            count,
            values: images.concat().into_iter().map(to_unit).collect(),
            labels: self.classes.as_ref().map(|all| all[..count].to_vec()),
        })
    }

    fn controls(&self) -> Result<Values, MetricError> {
        let controls = self.subject.judges.controls()?;
        let rows = controls.some(CONTROLS);
        let controls = controls.data();
        let mut image = vec![0; controls.shape().bytes()];
        let mut values = Vec::with_capacity(rows.len() * image.len());
        for &row in &rows {
            controls.read(row, &mut image)?;
            values.extend(image.iter().map(|&byte| to_unit(byte)));
        }
        let labels = match (&self.classes, self.subject.class) {
            (None, _) => None,
            (Some(_), Some(class)) => Some(vec![class; rows.len()]),
            (Some(_), None) => {
                if let Some(known) = self.known {
                    controls.check_labels(&rows, known)?;
                }
                let labels = rows.iter().filter_map(|&row| controls.label(row));
                Some(labels.collect())
            }
        };
        Ok(Values {
            count: rows.len(),
            values,
            labels,
        })
    }
}

/// Images that an autoencoder encoded before.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Height, width and channels of each.
    pub shape: [usize; 3],
    /// The first forgotten images, as many as are looked at.
    pub forgotten: Values,
    /// Those of the controls, if there are any.
    pub controls: Option<Values>,
}

impl Images for Latents {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn are_bytes(&self) -> bool {
        false
    }

    fn forgotten(&self, most: usize) -> Result<Values, MetricError> {
        Ok(self.forgotten.first(most, self.shape.iter().product()))
    }

    fn controls(&self) -> Result<Values, MetricError> {
        let controls = self.controls.clone();
        controls.ok_or("the controls were not encoded".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_latents_come_with_their_texts() {
        let latents = Latents {
            shape: [1, 1, 2],
            forgotten: Values {
                count: 3,
                values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
                labels: Some(vec![7, 8, 9]),
            },
            controls: None,
        };
        let two = latents.forgotten(2).unwrap();
        assert_eq!(two.values, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!((two.count, two.labels), (2, Some(vec![7, 8])));
        assert_eq!(latents.forgotten(9).unwrap(), latents.forgotten);
        assert!(latents.controls().is_err());
    }
}
