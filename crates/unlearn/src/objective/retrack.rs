//! ReTrack (arXiv 2509.13007): the trajectory of a forgotten image is led to its neighbors.

use super::redirect::{to_all, to_nearest};
use super::{
    About, Citation, Losses, Objective, Parameter, Pass, PassError, Range, Strengths, Sums,
};
use crate::batch::{Batch, Candidates, Draws};

/// lambda E_forget[ sum_k p_k |e_theta(x_t) - v_k|^2 ] + (1 - lambda) E_retain[ |e_theta(x_t) - e|^2 ]
///
/// with v_k = (x_t - g n_k) / s over the nearest retained neighbors n_k of the forgotten image, or over all retained
/// images, and p = softmax_k(-|v_k|^2 / 2).
///
/// The sum over k is never built. Its gradient is that of |e_theta - sum_k p_k v_k|^2, and v is affine
/// in n, so the target is the one that belongs to the clean image sum_k p_k n_k, for every prediction
/// type; the rest, sum_k p_k |v_k - mean|^2, is a constant that the reported loss includes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReTrack {
    /// Weight of forgetting, from 0 to 1.
    pub lambda: f64,
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

    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, PassError> {
        let forget = batch.forget.as_ref().expect("drawn");
        let redirections = match batch.neighbors.as_ref().expect("drawn") {
            Candidates::Nearest(neighbors) => neighbors
                .iter()
                .enumerate()
                .map(|(image, neighbors)| {
                    let neighbors = neighbors.chunks_exact(forget.image_len());
                    to_nearest(pass.schedule, forget, image, neighbors)
                })
                .collect(),
            Candidates::InMemory(all) => (0..forget.len())
                .map(|image| to_nearest(pass.schedule, forget, image, all.iter().copied()))
                .collect(),
            Candidates::All { data, rows } => {
                to_all(pass.schedule, forget, data, rows, pass.device)?
            }
        };
        let mut clean = Vec::with_capacity(forget.clean.len());
        let mut spread = 0.0;
        for redirection in redirections {
            clean.extend(redirection.clean);
            spread += redirection.spread / forget.len() as f64;
        }
        let clean = forget.tensor(clean, pass.device);
        let noisy = forget.noisy(pass.schedule, pass.device);
        let target = pass.schedule.target(noisy, clean, &forget.timesteps);
        let error = pass.squared_error(forget, target, None, self.lambda, &mut sums.main)?;
        let forget_loss = error + spread;

        let retain = batch.retain.as_ref().expect("drawn");
        let target = retain.target(pass.schedule, pass.device);
        let retain_loss =
            pass.squared_error(retain, target, None, 1.0 - self.lambda, &mut sums.main)?;

        Ok(Losses {
            loss: self.lambda * forget_loss + (1.0 - self.lambda) * retain_loss,
            retain: Some(retain_loss),
            forget: Some(forget_loss),
            ..Losses::default()
        })
    }
}
