//! The texts of a run's images.

use std::collections::BTreeMap;

use retrack_data::{Dataset, Split, original_prompt};
use retrack_unlearn::texts::{Prompts, Texts};

use crate::failure::Failure;
use crate::field::Field;
use crate::opened;
use crate::task::Task;

/// Refuses what only text-to-image models take.
///
/// # Errors
/// Some of it is given.
pub fn refuse(args: &Task) -> Result<(), Failure> {
    let texts = [
        (Field::Prompt, &args.prompt),
        (Field::ForgetPrompt, &args.forget_prompt),
        (Field::RetainPrompt, &args.retain_prompt),
        (Field::Captions, &args.captions),
    ];
    if args.train.is_some() || args.rank.is_some() {
        return Err(Failure::input(format!(
            "{}: adapters are for text-to-image models; leave {} and {} out",
            args.model.display(),
            Field::Train,
            Field::Rank
        )));
    }
    if let Some((field, _)) = texts.iter().find(|(_, text)| text.is_some()) {
        return Err(Failure::input(format!(
            "{}: this model takes no text; leave {field} out",
            args.model.display()
        )));
    }
    Ok(())
}

/// Which image has which text: what was typed, or what the data says of itself. `recorded`: what rows were called when they
/// were forgotten.
///
/// # Errors
/// Captions that cannot be read, an image without a text.
pub fn read(
    args: &Task,
    data: &Dataset,
    split: &Split,
    recorded: &BTreeMap<usize, String>,
) -> Result<Texts, Failure> {
    let mut prompts = Prompts {
        forget: args.forget_prompt.clone(),
        retain: args.retain_prompt.clone(),
        captions: match &args.captions {
            Some(from) => Some(opened::read_captions(data, from)?),
            None => None,
        },
        all: match &args.prompt {
            Some(prompt) => Some(prompt.clone()),
            None if retrack_data::is_published(&args.data.path) => {
                original_prompt(&args.data.path)?
            }
            None => None,
        },
        recorded: recorded.clone(),
    };
    let mut assigned = Texts::assign(&prompts, split, data.len());
    // Captions that nobody named are for images that would have no text.
    if assigned.is_err()
        && prompts.captions.is_none()
        && let Some(own) = opened::read_own_captions(data)?
    {
        prompts.captions = Some(own);
        assigned = Texts::assign(&prompts, split, data.len());
    }
    assigned.map_err(|missing| {
        let own = match missing.forgotten {
            true => Field::ForgetPrompt,
            false => Field::RetainPrompt,
        };
        Failure::input(format!(
            "{} has no prompt; give one for all images with {}, one for each with {}, or {own}",
            data.name(missing.row),
            Field::Prompt,
            Field::Captions
        ))
    })
}
