//! SISS (Alberti et al. 2025, arXiv 2503.01034): one noisy image stands for both a retained and a forgotten one.

use retrack_networks::gradients::GradientSet;
use retrack_networks::process::Process;

use super::{
    About, Citation, Losses, NotFinite, Objective, Parameter, Pass, PassError, Range, Strengths,
    Sums, half_square_excess,
};
use crate::batch::{Batch, Draws, Noised};

/// g_main - (rescale / |g_corr|) g_corr
///
/// with g_main the gradient of E[ w_r |e_theta(x_t) - e_r|^2 ] and g_corr that of
/// E[ w_f |e_theta(x_t) - e_f|^2 ], where x_t is made from the retained image with probability
/// 1 - lambda and else from the forgotten one, and e_a = (x_t - g a) / s. The importance weights
///
/// w_r = 1 / ((1 - lambda) + lambda exp(d_r - d_f)), w_f = 1 / ((1 - lambda) exp(d_f - d_r) + lambda),
/// d_a = |x_t - g a|^2 / (2 s^2)
///
/// make both losses those of images that are all retained or all forgotten.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Siss {
    /// Share of forgotten images among the noisy ones, above 0 and below 1.
    pub lambda: f64,
    /// Length of the correction.
    pub rescale: f64,
}

const ABOUT: About = About {
    name: "siss",
    title: "SISS",
    summary: "Subtracted importance-sampled scores (ICLR 2025)",
    citation: Some(Citation {
        line: "SISS: subtracted importance-sampled scores, ICLR 2025",
        bibtex: None,
    }),
    parameters: &[
        Parameter {
            name: "lambda",
            default: 0.5,
            // At 0 or 1 the weight of the side that is never drawn has no bound.
            range: Range::Open(0.0, 1.0),
            meaning: "Weight of forgetting against keeping",
        },
        Parameter {
            name: "rescale",
            default: 5.0,
            range: Range::AtLeast(0.0),
            meaning: "Length of the subtracted gradient",
        },
    ],
    gentler: Some("lambda"),
};

impl Objective for Siss {
    fn about() -> &'static About {
        &ABOUT
    }

    fn new(strengths: &Strengths) -> Self {
        Self {
            lambda: strengths["lambda"],
            rescale: strengths["rescale"],
        }
    }

    fn draws(&self) -> Draws {
        Draws {
            retain: true,
            forget: true,
            mixture: Some(1.0 - self.lambda),
            ..Draws::default()
        }
    }

    fn two_gradients(&self) -> bool {
        true
    }

    fn reports_retain(&self) -> bool {
        false
    }

    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, PassError> {
        let retain = batch.retain.as_ref().expect("drawn");
        let forget = batch.forget.as_ref().expect("drawn");
        let mask = batch.mixture_mask.as_ref().expect("drawn");
        let mixed = mix(retain, forget, mask);
        let weights: Vec<[f64; 2]> = (0..mixed.len())
            .map(|image| {
                let excess = distance_difference(pass.process, &mixed, retain, forget, image);
                importance(self.lambda, excess)
            })
            .collect();
        let weights = [0, 1].map(|side| weights.iter().map(|w| w[side]).collect::<Vec<f64>>());
        let noisy = mixed.noisy(pass.process, pass.device);
        let target_of = |clean| {
            let noisy = noisy.clone();
            pass.process.target_of_clean(noisy, clean, &mixed.timesteps)
        };

        // One prediction serves both losses, but a graph of Burn's serves one backward pass: the
        // prediction is made twice, with the same dropout.
        let masks = pass.dropout.clone();
        let target = target_of(retain.clean(pass.device));
        let term = pass.squared_error(&mixed, target, Some(&weights[0]), 1.0);
        let [loss] = pass.backward([term], &mut sums.main)?;
        if let (Some(draw), Some(masks)) = (&pass.dropout, masks) {
            draw.swap(&masks);
        }
        let target = target_of(forget.clean(pass.device));
        let term = pass.squared_error(&mixed, target, Some(&weights[1]), 1.0);
        let [correction] = pass.backward([term], &mut sums.correction)?;

        Ok(Losses {
            loss,
            correction: Some(correction),
            ..Losses::default()
        })
    }

    fn combine(&self, sums: Sums) -> Result<GradientSet, NotFinite> {
        let (main, correction) = sums.both();
        let factor = -self.rescale / super::squared_length_of(&correction)?.sqrt();
        Ok(super::corrected(main, correction, factor))
    }
}

/// The forgotten images with their noise and timesteps, some replaced by the retained image of their
/// slot.
fn mix(retain: &Noised, forget: &Noised, mask: &[bool]) -> Noised {
    let mut mixed = forget.clone();
    let len = mixed.image_len();
    let slots = mixed
        .clean
        .chunks_exact_mut(len)
        .zip(retain.clean.chunks_exact(len));
    for ((slot, retained), _) in slots.zip(mask).filter(|(_, retained)| **retained) {
        slot.copy_from_slice(retained);
    }
    if let (Some(labels), Some(retained)) = (&mut mixed.labels, &retain.labels) {
        for ((label, &retained), &mask) in labels.iter_mut().zip(retained).zip(mask) {
            if mask {
                *label = retained;
            }
        }
    }
    mixed
}

/// d_r - d_f of one image.
///
/// At small t both distances are in the millions. x_t is made from one of the two images, whose
/// distance is |e|^2 / 2 whatever t; so each is computed as what it exceeds that by.
fn distance_difference(
    process: &dyn Process,
    mixed: &Noised,
    retain: &Noised,
    forget: &Noised,
    image: usize,
) -> f64 {
    let [clean, noise] = [&mixed.clean, &mixed.noise].map(|values| mixed.image(values, image));
    let t = mixed.timesteps[image];
    let [retained, forgotten] = [retain, forget].map(|images| {
        let other = mixed.image(&images.clean, image);
        half_square_excess(process, t, clean, noise, other)
    });
    retained - forgotten
}

/// `[w_r, w_f]` for a difference d_r - d_f, which may be too large for its exponential.
fn importance(lambda: f64, difference: f64) -> [f64; 2] {
    let logit = difference + (lambda / (1.0 - lambda)).ln();
    [sigmoid(-logit) / (1.0 - lambda), sigmoid(logit) / lambda]
}

/// 1 / (1 + exp(-x)): an infinite exponential gives 0.
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use burn::tensor::{Device, Tensor};
    use retrack_networks::denoiser::{Denoiser, InputError};
    use retrack_networks::process::Time;
    use retrack_networks::random::{Draw, Random, Stream};
    use retrack_networks::schedule::SchedulerConfig;

    use super::*;

    #[test]
    fn weights_are_those_of_the_definition_where_it_can_be_computed() {
        for lambda in [0.1, 0.5, 0.9] {
            for difference in [-30.0, -1.0, 0.0, 0.3, 25.0] {
                let ratio = f64::exp(difference);
                let w_r = 1.0 / ((1.0 - lambda) + lambda * ratio);
                let w_f = 1.0 / ((1.0 - lambda) / ratio + lambda);
                let [r, f] = importance(lambda, difference);
                assert!((r / w_r - 1.0).abs() < 1e-12, "{lambda} {difference}");
                assert!((f / w_f - 1.0).abs() < 1e-12, "{lambda} {difference}");
            }
        }
    }

    #[test]
    fn distances_in_the_millions_decide_for_one_side() {
        assert_eq!(importance(0.25, 4e6), [0.0, 4.0]);
        assert_eq!(importance(0.25, -4e6), [1.0 / 0.75, 0.0]);
    }

    /// Predicts what it is given and notes which dropout it was given with.
    #[derive(Default)]
    struct Recorder(RefCell<Vec<f32>>);

    impl Denoiser for Recorder {
        fn predict(
            &self,
            x: Tensor<4>,
            _: &[Time],
            _: Option<&[i64]>,
            dropout: Option<&mut Draw>,
        ) -> Result<Tensor<4>, InputError> {
            self.0.borrow_mut().extend(dropout.unwrap().uniform(1));
            Ok(x)
        }

        fn gradients(&self, _: Tensor<1>) -> GradientSet {
            GradientSet(Vec::new())
        }
    }

    #[test]
    fn both_losses_of_a_micro_batch_share_their_dropout() {
        let network = Recorder::default();
        let images = noised(1.0, 0);
        let batch = Batch {
            retain: Some(images.clone()),
            forget: Some(images),
            mixture_mask: Some(vec![true, false]),
            ..Batch::default()
        };
        let pass = Pass {
            network: &network,
            process: &*SchedulerConfig::default().process(),
            device: &Device::flex(),
            dropout: Some(RefCell::new(Random::new(1).stream(Stream::Dropout, 0))),
        };
        let siss = Siss {
            lambda: 0.5,
            rescale: 5.0,
        };
        for _ in 0..2 {
            siss.backward(&pass, &batch, &mut Sums::default()).unwrap();
        }
        let draws = network.0.take();
        assert_eq!(draws.len(), 4);
        assert_eq!(draws[0], draws[1]);
        assert_eq!(draws[2], draws[3]);
        assert_ne!(draws[1], draws[2]);
    }

    fn noised(first: f32, label: i64) -> Noised {
        Noised {
            shape: [2, 1, 1, 2],
            clean: vec![first, first + 1.0, first + 2.0, first + 3.0],
            noise: vec![10.0 * first; 4],
            timesteps: vec![Time::new(f64::from(first)); 2],
            labels: Some(vec![label; 2]),
        }
    }

    #[test]
    fn a_slot_of_the_mixture_is_the_retained_image_with_the_forgotten_ones_noise() {
        let (retain, forget) = (noised(1.0, 3), noised(5.0, 4));
        let mixed = mix(&retain, &forget, &[false, true]);
        assert_eq!(mixed.clean, [5.0, 6.0, 3.0, 4.0]);
        assert_eq!(mixed.noise, forget.noise);
        assert_eq!(mixed.timesteps, forget.timesteps);
        assert_eq!(mixed.labels, Some(vec![4, 3]));
    }
}
