//! Gradient ascent on the forgotten images ("NegGrad").

use super::{About, Losses, Objective, Pass, PassError, Strengths, Sums};
use crate::batch::{Batch, Draws};

/// -E_forget[ |e_theta - e|^2 ]: the network unlearns to predict, with nothing that holds the rest in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NegGrad;

const ABOUT: About = About {
    name: "neggrad",
    title: "NegGrad",
    summary: "Ascend the forgotten images' loss",
    citation: None,
    parameters: &[],
    gentler: None,
};

impl Objective for NegGrad {
    fn about() -> &'static About {
        &ABOUT
    }

    fn new(_: &Strengths) -> Self {
        Self
    }

    fn draws(&self) -> Draws {
        Draws {
            forget: true,
            ..Draws::default()
        }
    }

    fn reports_retain(&self) -> bool {
        false
    }

    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, PassError> {
        let forget = batch.forget.as_ref().expect("drawn");
        let target = forget.target(pass.process, pass.device);
        let term = pass.squared_error(forget, target, None, -1.0);
        let [error] = pass.backward([term], &mut sums.main)?;
        Ok(Losses {
            loss: -error,
            forget: Some(error),
            ..Losses::default()
        })
    }
}
