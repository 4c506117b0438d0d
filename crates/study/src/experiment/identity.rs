//! What an experiment is: everything that decides its numbers, as its folder records it.

use retrack_checkpoint::folder::Dtype;
use retrack_data::Dataset;
use retrack_unlearn::texts;
use serde_json::{Value, json};

use super::Comparison;
use super::targets::Found;
use crate::evaluation::{Prompts, Protocol};
use crate::evidence;
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::digests;
use crate::opened::{self, Opened};
use crate::source::record_resize;

/// Where the digest of the prompts is, which may say whose the forgotten images are.
const PROMPTS_DIGEST: &str = "prompts_digest";

/// What is compared on what, and how it is measured.
///
/// # Errors
/// A retrained model of another kind, files that cannot be read.
pub(super) fn identity(
    asked: &Comparison,
    opened: &Opened,
    data: &Dataset,
    targets: &Found,
    protocol: &Protocol,
    prompts: Option<&Prompts>,
) -> Result<Value, Failure> {
    let mut identity = json!({
        "command": "experiment",
        "version": env!("CARGO_PKG_VERSION"),
        "preset": asked.preset,
        "weights_sha256": weights(asked, opened)?,
        "data_digest": data.digest()?,
        "split": asked.data.reading.split,
        "alpha": data.alpha(),
        // What is left behind names no file of the data.
        "forget": targets.shown,
        "protocol": protocol,
        "device": asked.device,
    });
    record_resize(&mut identity, data.resize());
    if evidence::names_files(&targets.forget) {
        identity["forget_rows"] = json!(targets.rows);
    }
    if let Some(dtype) = asked.dtype {
        identity["dtype"] = Dtype::from(dtype).to_string().into();
    }
    if let Some(prompts) = prompts {
        identity["prompts"] = prompts.count().into();
        identity[PROMPTS_DIGEST] = prompts.digest().into();
    }
    let captions = prompts.and_then(|prompts| prompts.captions.as_ref());
    if let Some(captions) = captions {
        identity["captions_digest"] = texts::digest(captions).into();
    }
    let captions = prompts.and_then(|prompts| prompts.controls_captions.as_ref());
    if let Some(captions) = captions {
        identity["controls_captions_digest"] = texts::digest(captions).into();
    }
    Ok(identity)
}

/// The same as it is shown to others: who guesses a prompt could test it.
pub(super) fn shown(mut identity: Value) -> Value {
    if let Value::Object(keys) = &mut identity {
        keys.remove(PROMPTS_DIGEST);
    }
    identity
}

/// Digests of the weights that the references are measured with.
fn weights(asked: &Comparison, opened: &Opened) -> Result<Value, Failure> {
    let mut weights = json!({"original": digests(opened.folder())?});
    if let Some(path) = &asked.retrained {
        let reference = opened::open(path)?;
        if reference.folder().class != opened.folder().class {
            return Err(Failure::input(format!(
                "{}: not a model of the same kind as {} ({}); give one that was trained alike",
                path.display(),
                Field::Model,
                asked.model.display()
            )));
        }
        weights["retrained"] = digests(reference.folder())?.into();
    }
    Ok(weights)
}
