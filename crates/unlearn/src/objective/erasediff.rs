//! EraseDiff (Wu et al. 2024, arXiv 2401.05779): the forgotten images' prediction is led to uniform noise.

use retrack_networks::gradients::GradientSet;

use super::{
    About, Citation, Losses, NotFinite, Objective, Parameter, Pass, PassError, Range, Strengths,
    Sums,
};
use crate::batch::{Batch, Draws};

/// g_main + max(eta - <g_main, g_corr> / |g_corr|^2, 0) g_corr
///
/// with g_main the gradient of E_retain[ |e_theta - e|^2 ] and g_corr that of
/// E_forget[ |output - u|^2 ], u uniform in [0, 1). The factor keeps the inner product of the step with
/// g_corr at eta |g_corr|^2 or above, so that every step also lowers the second loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EraseDiff {
    /// How much of the correction's own gradient a step follows at least.
    pub eta: f64,
}

const ABOUT: About = About {
    name: "erasediff",
    title: "EraseDiff",
    summary: "Push the forgotten images towards uniform noise (arXiv 2401.05779)",
    citation: Some(Citation {
        line: "arXiv:2401.05779 (EraseDiff)",
        bibtex: None,
    }),
    parameters: &[Parameter {
        name: "eta",
        default: 1e-3,
        range: Range::AtLeast(0.0),
        meaning: "How strongly the forgetting gradient is kept",
    }],
    gentler: None,
};

impl Objective for EraseDiff {
    fn about() -> &'static About {
        &ABOUT
    }

    fn new(strengths: &Strengths) -> Self {
        Self {
            eta: strengths["eta"],
        }
    }

    fn draws(&self) -> Draws {
        Draws {
            retain: true,
            forget: true,
            uniform: true,
            ..Draws::default()
        }
    }

    fn two_gradients(&self) -> bool {
        true
    }

    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, PassError> {
        let retain = batch.retain.as_ref().expect("drawn");
        let target = retain.target(pass.process, pass.device);
        let term = pass.squared_error(retain, target, None, 1.0);
        let [loss] = pass.backward([term], &mut sums.main)?;

        let forget = batch.forget.as_ref().expect("drawn");
        let uniform = batch.uniform.as_ref().expect("drawn");
        // The output itself is compared, whatever it stands for.
        let target = forget.tensor(uniform.clone(), pass.device);
        let term = pass.squared_error(forget, target, None, 1.0);
        let [correction] = pass.backward([term], &mut sums.correction)?;

        Ok(Losses {
            loss,
            retain: Some(loss),
            correction: Some(correction),
            ..Losses::default()
        })
    }

    fn combine(&self, sums: Sums) -> Result<GradientSet, NotFinite> {
        let (main, correction) = sums.both();
        let alignment = main.dot(&correction) / super::squared_length_of(&correction)?;
        // A correction of zero length makes this NaN, which `max` drops: nothing to correct.
        let factor = (self.eta - alignment).max(0.0);
        Ok(super::corrected(main, correction, factor))
    }
}
