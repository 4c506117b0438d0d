//! Fine-tuning on the retained images alone (the paper's "Vanilla").

use super::{About, Losses, Objective, Pass, PassError, Strengths, Sums};
use crate::batch::{Batch, Draws};

/// E_retain[ |e_theta - e|^2 ]: the forgotten images fade because nothing repeats them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finetune;

const ABOUT: About = About {
    name: "finetune",
    title: "fine-tuning on the retained images",
    summary: "Train on the retained images alone",
    citation: None,
    parameters: &[],
    gentler: None,
};

impl Objective for Finetune {
    fn about() -> &'static About {
        &ABOUT
    }

    fn new(_: &Strengths) -> Self {
        Self
    }

    fn draws(&self) -> Draws {
        Draws {
            retain: true,
            ..Draws::default()
        }
    }

    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, PassError> {
        let retain = batch.retain.as_ref().expect("drawn");
        let target = retain.target(pass.process, pass.device);
        let term = pass.squared_error(retain, target, None, 1.0);
        let [loss] = pass.backward([term], &mut sums.main)?;
        Ok(Losses {
            loss,
            retain: Some(loss),
            ..Losses::default()
        })
    }
}
