//! What a sampler does to the clean image that it predicts.

use burn::tensor::Tensor;

/// How the predicted clean image is kept in range within a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// Left as it is.
    None,
    /// `clip_sample`: to plus and minus this value.
    Range(f64),
    /// `thresholding`: to plus and minus the quantile `ratio` of the image's own absolute values, held between 1 and
    /// `max`, then divided by it (Saharia et al. 2022, arXiv 2205.11487, section 2.3).
    Dynamic {
        /// Which quantile, 0 to 1.
        ratio: f64,
        /// The largest bound.
        max: f64,
    },
}

impl Clip {
    /// # Shapes
    ///
    /// `clean`: `[batch, ..]` in any layout, and so is the result.
    pub fn apply(self, clean: Tensor<4>) -> Tensor<4> {
        match self {
            Self::None => clean,
            Self::Range(range) => clean.clamp(-range, range),
            Self::Dynamic { ratio, max } => {
                let bound = quantile(clean.clone().abs(), ratio)
                    .clamp_min(1.0)
                    .clamp_max(max);
                clean.max_pair(bound.clone().neg()).min_pair(bound.clone()) / bound
            }
        }
    }
}

/// The quantile of each image's values, interpolated between its two neighbors in order: `[batch, 1, 1, 1]`.
fn quantile(images: Tensor<4>, ratio: f64) -> Tensor<4> {
    let batch = images.dims()[0];
    let values = images.shape().num_elements() / batch;
    let sorted = images.reshape([batch, values]).sort(1);
    let rank = ratio * (values - 1) as f64;
    let below = rank.floor() as usize;
    let above = (below + 1).min(values - 1);
    let low = sorted.clone().narrow(1, below, 1);
    let high = sorted.narrow(1, above, 1);
    (low.clone() + (high - low).mul_scalar(rank.fract())).reshape([batch, 1, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn images(values: &[f32], shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::default())
    }

    #[test]
    fn dynamic_thresholding_takes_the_quantile_of_each_image() {
        // Ordered absolute values 0, 1, 2, 4: the quantile 0.5 lies half-way between 1 and 2.
        // The second image's is 0.5, which is held at 1.
        let clean = images(&[-4.0, 1.0, 0.0, 2.0, 0.5, -0.5, 0.5, -2.0], [2, 2, 2, 1]);
        let clip = Clip::Dynamic {
            ratio: 0.5,
            max: 9.0,
        };
        let clipped: Vec<f32> = clip.apply(clean).into_data().try_to_vec().unwrap();
        assert_eq!(clipped, [-1.0, 1.0 / 1.5, 0.0, 1.0, 0.5, -0.5, 0.5, -1.0]);
    }

    #[test]
    fn the_threshold_stays_below_its_maximum() {
        let clip = Clip::Dynamic {
            ratio: 1.0,
            max: 2.0,
        };
        let clipped: Vec<f32> = clip
            .apply(images(&[-8.0, 1.0], [1, 1, 2, 1]))
            .into_data()
            .try_to_vec()
            .unwrap();
        assert_eq!(clipped, [-1.0, 0.5]);
    }
}
