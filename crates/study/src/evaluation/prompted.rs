//! A text-to-image model: what it draws for the prompt of the forgotten images and for others.

use std::path::Path;

use retrack_data::{Dataset, modified_prompts, original_prompt};
use retrack_eval::examined::Drawn;
use retrack_eval::judges::Judges;
use retrack_networks::diffusion::Diffusion;
use retrack_networks::network::Network;
use retrack_networks::schedule::SchedulerKind;
use retrack_unlearn::texts;

use super::{Drawing, check_shape, once};
use crate::failure::Failure;
use crate::field::Field;
use crate::opened;
use crate::progress;
use crate::samples::{Of, Prompt, Samples};
use crate::source::PromptOptions;

/// The published guidance.
pub const GUIDANCE: f64 = 7.5;

/// What a text-to-image model is to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    /// What the forgotten images are drawn for.
    pub forgotten: String,
    /// What is to be drawn as before.
    pub others: Vec<String>,
    /// What each row of the data set shows, where that was given.
    pub captions: Option<Vec<String>>,
    /// The same of the controls.
    pub controls_captions: Option<Vec<String>>,
}

impl Prompts {
    /// As typed, or as data in the published layout says it.
    ///
    /// # Errors
    /// No prompt of the forgotten images, another one twice, files of the layout that cannot be read.
    pub fn read(typed: &PromptOptions, source: &Path) -> Result<Self, Failure> {
        let published = retrack_data::is_published(source);
        let original = match &typed.prompt {
            Some(prompt) => Some(prompt.clone()),
            None if published => original_prompt(source)?,
            None => None,
        };
        let forgotten = original.ok_or_else(|| {
            Failure::input(format!(
                "say with {} what the images to forget are drawn for",
                Field::Prompt
            ))
        })?;
        once(Field::ModifiedPrompt, &typed.modified_prompt, String::clone)?;
        let others = match typed.modified_prompt.as_slice() {
            [] if published => modified_prompts(source)?,
            typed => typed.to_vec(),
        };
        Ok(Self {
            forgotten,
            others,
            captions: None,
            controls_captions: None,
        })
    }

    /// With what each image shows, as far as it was given. Controls that no metric asks for need no texts.
    ///
    /// # Errors
    /// Captions that cannot be read, an image that has none among them.
    pub fn captioned(
        self,
        typed: &PromptOptions,
        data: &Dataset,
        judges: &Judges,
    ) -> Result<Self, Failure> {
        let captions = typed.captions.as_deref();
        let controls = typed.controls_captions.as_deref();
        let controls = controls.zip(judges.controls.as_ref());
        Ok(Self {
            captions: captions
                .map(|from| opened::read_captions(data, from))
                .transpose()?,
            controls_captions: controls
                .map(|(from, controls)| opened::read_captions(controls.data(), from))
                .transpose()?,
            ..self
        })
    }

    /// What the network is told where an image is denoised, for a reader. `compares`: with controls, too.
    pub fn told(&self, compares: bool) -> String {
        let own = |captions: &Option<Vec<String>>| match captions {
            Some(_) => "each image's own prompt",
            None => "the forgotten images' prompt, whatever the image",
        };
        let (images, controls) = (own(&self.captions), own(&self.controls_captions));
        match compares && controls != images {
            true => format!("{images}; controls: {controls}"),
            false => images.to_owned(),
        }
    }

    /// What the network is told of an image of the data set: its caption, or the forgotten images' prompt.
    pub fn of_row(&self, row: usize) -> &str {
        let captions = self.captions.as_ref();
        captions.map_or(&self.forgotten, |captions| &captions[row])
    }

    /// The same of a control.
    pub fn of_control(&self, row: usize) -> &str {
        let captions = self.controls_captions.as_ref();
        captions.map_or(&self.forgotten, |captions| &captions[row])
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Stands for them where they are not to be read.
    pub fn digest(&self) -> String {
        let all: Vec<String> = self.all().map(|(prompt, _)| prompt.clone()).collect();
        texts::digest(&all)
    }

    /// Each with whether it is the forgotten images'.
    fn all(&self) -> impl Iterator<Item = (&String, bool)> {
        std::iter::once((&self.forgotten, true)).chain(self.others.iter().map(|one| (one, false)))
    }
}

/// The phases of drawing, by name: one for each prompt.
pub(super) fn drawn(prompts: &Prompts) -> Vec<String> {
    let names = prompts.all().map(|(prompt, _)| {
        let prompt = opened::shortened(prompt);
        format!("drawing \"{prompt}\"")
    });
    names.collect()
}

impl Drawing<'_> {
    /// Draws for all prompts, each in one of the first phases.
    pub(super) fn prompts(
        &self,
        prompts: &Prompts,
        opened: &dyn Diffusion,
        network: &Network,
    ) -> Result<Vec<Drawn>, Failure> {
        let protocol = self.protocol;
        let mut all = Vec::new();
        for (number, (prompt, forgotten)) in prompts.all().enumerate() {
            let _phase = progress::phase(1 + number, self.phases);
            let samples = Samples {
                count: protocol.samples,
                steps: protocol.sampling_steps,
                scheduler: protocol.scheduler.map(SchedulerKind::from),
                seed: self.seed,
                batch_size: 1,
                of: Of::Prompt(Prompt {
                    prompt,
                    negative: None,
                    guidance: protocol.guidance.unwrap_or(GUIDANCE),
                }),
            };
            let title = opened::shortened(prompt);
            let (samples, shape) = samples.draw(opened, network, self.device, &title)?;
            check_shape(shape, self.data, self.path)?;
            all.push(Drawn {
                prompt: Some(prompt.clone()),
                forgotten,
                samples,
            });
        }
        Ok(all)
    }
}
