//! ReTrack (arXiv 2509.13007): the trajectory of a forgotten image is led to its neighbors.

use std::sync::Arc;

use super::redirect::{Redirection, to_all, to_nearest};
use super::{
    About, Citation, Losses, Objective, Parameter, Pass, PassError, Range, Strengths, Sums, Term,
};
use crate::batch::{Batch, Candidates, Draws};
use crate::level::Gate;

/// lambda E_forget[ sum_k p_k |e_theta(x_t) - v_k|^2 ] + (1 - lambda) E_retain[ |e_theta(x_t) - e|^2 ]
///
/// with v_k = (x_t - g n_k) / s over the nearest retained neighbors n_k of the forgotten image, or over all retained
/// images, and p = softmax_k(-|v_k|^2 / 2).
///
/// The sum over k is never built. Its gradient is that of |e_theta - sum_k p_k v_k|^2, and v is affine
/// in n, so the target is the one that belongs to the clean image sum_k p_k n_k, for every prediction
/// type; the rest, sum_k p_k |v_k - mean|^2, is a constant that the reported loss includes.
///
/// The published method leads every draw of a forgotten image away, however little the network still knows of it, and at
/// the first times to an error a thousand times that of an image that no model knows. With a [`Gate`] only those draws are
/// led that the network denoises better than that, and no farther than the gate's reach: to the clean image
/// x + c (sum_k p_k n_k - x) with the largest c up to 1 that keeps to it. Those that it denoises worse are brought back by
/// |e_theta - e|^2, and the others are left alone. Where c is 1 the neighbors lie near, and a model that never saw the image
/// would go to them as well: such draws are led a little farther, and not brought back.
#[derive(Debug, Clone)]
pub struct ReTrack {
    /// Weight of forgetting, from 0 to 1.
    pub lambda: f64,
    /// How far images are led; `None`: always, and all the way, as published.
    pub gate: Option<Arc<Gate>>,
}

const ABOUT: About = About {
    name: "retrack",
    title: "ReTrack",
    summary: "Lead the image's trajectory to its retained neighbors (arXiv 2509.13007)",
    citation: Some(Citation {
        line: "arXiv:2509.13007 (ReTrack)",
        bibtex: Some(
            "@misc{shi2025retrack,
  title = {ReTrack: Data Unlearning in Diffusion Models through Redirecting the Denoising Trajectory},
  author = {Shi, Qitan and Jin, Cheng and Zhang, Jiawei and Gu, Yuantao},
  eprint = {2509.13007},
  archivePrefix = {arXiv},
  year = {2025}
}",
        ),
    }),
    parameters: &[Parameter {
        name: "lambda",
        default: 0.005,
        range: Range::Closed(0.0, 1.0),
        meaning: "Weight of forgetting against keeping",
    }],
    gentler: Some("lambda"),
};

impl Objective for ReTrack {
    fn about() -> &'static About {
        &ABOUT
    }

    fn new(strengths: &Strengths) -> Self {
        Self {
            lambda: strengths["lambda"],
            gate: None,
        }
    }

    fn draws(&self) -> Draws {
        Draws {
            retain: true,
            forget: true,
            neighbors: true,
            ..Draws::default()
        }
    }

    fn streams(&self) -> usize {
        2
    }

    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, PassError> {
        let (forgetting, spread) = self.forgetting(pass, batch, self.lambda)?;
        let keeping = self.keeping(pass, batch, 1.0 - self.lambda);
        let [forget_loss, retain_loss] = pass.backward([forgetting, keeping], &mut sums.main)?;
        let forget_loss = forget_loss + spread;

        Ok(Losses {
            loss: self.lambda * forget_loss + (1.0 - self.lambda) * retain_loss,
            retain: Some(retain_loss),
            forget: Some(forget_loss),
            ..Losses::default()
        })
    }
}

impl ReTrack {
    /// What is minimized of the forgotten images, times `factor`, and what the reported loss exceeds the term's number by.
    ///
    /// # Errors
    /// An image that cannot be read.
    ///
    /// # Panics
    /// A batch without forgotten images and neighbors.
    pub fn forgetting<'a>(
        &'a self,
        pass: &'a Pass,
        batch: &'a Batch,
        factor: f64,
    ) -> Result<(Term<'a>, f64), PassError> {
        let forget = batch.forget.as_ref().expect("drawn");
        let redirections: Vec<Redirection> = match batch.neighbors.as_ref().expect("drawn") {
            Candidates::Nearest(neighbors) => neighbors
                .iter()
                .enumerate()
                .map(|(image, neighbors)| {
                    let neighbors = neighbors.chunks_exact(forget.image_len());
                    to_nearest(pass.process, forget, image, neighbors)
                })
                .collect(),
            Candidates::InMemory(all) => (0..forget.len())
                .map(|image| to_nearest(pass.process, forget, image, all.iter().copied()))
                .collect(),
            Candidates::All { data, rows } => {
                to_all(pass.process, forget, data, rows, pass.device)?
            }
        };
        let mut clean = Vec::with_capacity(forget.clean.len());
        let mut spread = 0.0;
        let mut shortened = vec![false; forget.len()];
        for (image, mut redirection) in redirections.into_iter().enumerate() {
            if let Some(gate) = &self.gate {
                let (row, time) = (batch.forget_rows[image], forget.timesteps[image]);
                let farthest = gate.farthest(row, time);
                shortened[image] = redirection.stop_at(farthest, pass.process, forget, image);
            }
            clean.extend(redirection.clean);
            spread += redirection.spread / forget.len() as f64;
        }
        let clean = forget.tensor(clean, pass.device);
        let noisy = forget.noisy(pass.process, pass.device);
        let target = pass
            .process
            .target_of_clean(noisy, clean, &forget.timesteps);
        let term = match &self.gate {
            None => pass.squared_error(forget, target, None, factor),
            Some(gate) => {
                let side = move |image: usize, error: f64| {
                    let (row, time) = (batch.forget_rows[image], forget.timesteps[image]);
                    gate.side(row, time, error, !shortened[image])
                };
                pass.gated_error(forget, target, side, factor)
            }
        };
        Ok((term, spread))
    }

    /// What is minimized of the retained images, times `factor`.
    ///
    /// # Panics
    /// A batch without retained images.
    pub fn keeping<'a>(&self, pass: &'a Pass, batch: &'a Batch, factor: f64) -> Term<'a> {
        let retain = batch.retain.as_ref().expect("drawn");
        let target = retain.target(pass.process, pass.device);
        pass.squared_error(retain, target, None, factor)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use retrack_networks::denoiser::{Denoiser, InputError};
    use retrack_networks::gradients::GradientSet;
    use retrack_networks::process::{Process, Target, Time};
    use retrack_networks::random::{Draw, Random, Stream};
    use retrack_networks::schedule::ScheduleError;

    use super::*;
    use crate::batch::Noised;

    /// Straight lines from images to noise, `x_t = (1 - t) x + t e`, along which a network predicts `e - x`
    /// (Lipman et al. 2022, arXiv 2210.02747; Liu et al. 2022, arXiv 2209.03003).
    #[derive(Debug)]
    struct Straight;

    impl Process for Straight {
        fn signal(&self, time: Time) -> f64 {
            1.0 - time.value()
        }

        fn noise(&self, time: Time) -> f64 {
            time.value()
        }

        fn target(&self, _: Time) -> Target {
            Target {
                clean: -1.0,
                noise: 1.0,
            }
        }

        fn check(&self, _: &[f64]) -> Result<Vec<Time>, ScheduleError> {
            unimplemented!("nothing comes from outside")
        }

        fn draw(&self, part: usize, parts: usize, draw: &mut Draw) -> Time {
            let within = f64::from(draw.uniform(1)[0]);
            Time::new((part as f64 + within) / parts as f64)
        }

        fn quantile(&self, part: usize, parts: usize) -> Time {
            Time::new(part as f64 / parts as f64)
        }
    }

    /// Knows one image alone, towards which it leads whatever it is given.
    struct Knows(Vec<f32>);

    impl Denoiser for Knows {
        fn predict(
            &self,
            x: Tensor<4>,
            times: &[Time],
            _: Option<&[i64]>,
            _: Option<&mut Draw>,
        ) -> Result<Tensor<4>, InputError> {
            let shape = x.dims();
            let values = retrack_networks::parameters::to_host(x);
            let each = values.chunks_exact(self.0.len()).zip(times);
            // e - x with e = (x_t - (1 - t) x) / t
            let velocities = each.flat_map(|(noisy, time)| {
                let pairs = noisy.iter().zip(&self.0);
                pairs.map(|(&noisy, &known)| (noisy - known) / time.value() as f32)
            });
            let data = burn::tensor::TensorData::new(velocities.collect::<Vec<_>>(), shape);
            Ok(Tensor::from_data(data, &Device::flex()))
        }

        fn gradients(&self, _: Tensor<1>) -> GradientSet {
            GradientSet(Vec::new())
        }
    }

    #[test]
    fn forgotten_images_are_led_along_straight_lines_too() {
        let random = Random::new(3);
        let images = 6;
        let times = (0..images).map(|image| {
            let mut draw = random.at(Stream::ForgetTimestep, 0, image);
            Straight.draw(image as usize, 8, &mut draw)
        });
        let times: Vec<Time> = times.collect();
        let noised = |clean: [f32; 2]| Noised {
            shape: [images as usize, 1, 1, 2],
            clean: clean.repeat(images as usize),
            noise: random.noise(Stream::ForgetNoise, 0, 0..images, 2),
            timesteps: times.clone(),
            labels: None,
        };
        // The far one of the two neighbors explains none of these noisy images.
        let (near, far) = ([0.5, -0.25], [90.0, 90.0]);
        let loss = |known: [f32; 2]| {
            let neighbors = [near, far].concat();
            let batch = Batch {
                retain: Some(noised(near)),
                forget: Some(noised([0.5, 0.0])),
                neighbors: Some(Candidates::Nearest(vec![neighbors.into(); images as usize])),
                ..Batch::default()
            };
            let pass = Pass {
                network: &Knows(known.to_vec()),
                process: &Straight,
                device: &Device::flex(),
                dropout: None,
            };
            let retrack = ReTrack {
                lambda: 0.5,
                gate: None,
            };
            let losses = retrack.backward(&pass, &batch, &mut Sums::default());
            losses.unwrap().loss
        };
        assert!(loss(near) < 1e-6, "{}", loss(near));
        assert!(loss([0.5, 0.0]) > 1e-2, "{}", loss([0.5, 0.0]));
    }
}
