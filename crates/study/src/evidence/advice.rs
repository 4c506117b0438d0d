//! What a verdict advises.

use retrack_unlearn::recipe::Recipe;

use crate::settings;
use crate::situation::{self, Situation};
use crate::task::Task;

/// What to do next. It names options of the command that gives it, or whole other commands.
#[derive(Debug, Clone, Default)]
pub struct Advice {
    /// Where the image is still found, a sentence.
    pub found: String,
    /// Where the tests cannot tell.
    pub unclear: String,
    /// Where the model came out broken.
    pub broken: String,
    /// What forgets less strongly: "fewer steps or a lower learning rate". In words, because a demo shows it too.
    pub softer: String,
}

impl Advice {
    /// Of an unlearning run.
    pub fn of_unlearning(args: &Task, settings: &Recipe) -> Self {
        let calibrated = settings::calibrates(args);
        let stronger = match settings.objective().draws().forget {
            true if calibrated && settings.steps == 0 => "with --always".into(),
            true if calibrated => "with --no-calibrate, which leads farther".into(),
            true => format!(
                "with more --steps than {} or a higher --lr than {:e}",
                settings.steps, settings.learning_rate
            ),
            false => "with --method retrack, because fine-tuning alone seldom forgets".into(),
        };
        let gentler = settings.method.about().gentler.unwrap_or("learning rate");
        Self {
            found: format!(
                "unlearn again {stronger}, into another --out; what stays retained and is nearly a copy teaches the \
                 image back and belongs into --forget."
            ),
            unclear: match calibrated && settings.steps == 0 {
                true => format!(
                    "the model was written as it was given. `retrack evaluate --model {} --samples 2000`, with the --data \
                     and --forget of this run and an --out that is new, looks for the image among more samples; --always \
                     leads it away all the same.",
                    args.model.display()
                ),
                false => format!(
                    "draw more samples of both models: `retrack evaluate --model {} --baseline {} --samples 2000`, with \
                     the --data and --forget of this run and an --out that is new.",
                    args.out.display(),
                    args.model.display()
                ),
            },
            broken: format!("{}.", situation::advice(Situation::Diverged)),
            softer: match calibrated {
                true => String::new(),
                false => format!("fewer steps or a lower {gentler}"),
            },
        }
    }

    /// Of a model that was evaluated. `injected`: it was tried to bring images back from noise, or that cannot be tried.
    pub fn of_evaluation(injected: bool) -> Self {
        let unclear = match injected {
            true => "draw more with a larger --samples.",
            false => "draw more with a larger --samples, or add injection to --metrics.",
        };
        Self {
            found: "run `retrack unlearn` with more --steps or a higher --lr than this model was made with, or once more \
                    with this model as its --model, and evaluate again."
                .into(),
            unclear: unclear.into(),
            broken: String::new(),
            softer: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_measured_what_comes_back_from_noise_is_not_told_to_measure_it() {
        assert!(Advice::of_evaluation(false).unclear.contains("injection"));
        assert!(!Advice::of_evaluation(true).unclear.contains("injection"));
    }
}
