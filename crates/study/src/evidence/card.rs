//! The model card of a written folder: `README.md` as Hugging Face reads it.
//!
//! A card that came with the base model would claim that this is the base model, so it moves to `README.base.md`, or to the
//! first free of `README.base2.md` and so on where the base model has such a card of its own; its license and what else
//! its head says of the terms are kept.

use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::chain::{self, Chain};
use retrack_checkpoint::folder::Kind;
use retrack_checkpoint::words::counted;
use retrack_eval::report::Verdict;
use retrack_networks::lora;
use retrack_unlearn::recipe::Recipe;
use serde_json::Value;

use super::Run;
use crate::failure::Failure;
use crate::model;

/// The card's name in a model folder.
pub const NAME: &str = "README.md";

/// Keys of the base card's head that hold for what is made from the model too.
const KEPT: [&str; 5] = [
    "license",
    "license_name",
    "license_link",
    "datasets",
    "language",
];
/// A card is a page; what is longer is not read.
const LONGEST: u64 = 1 << 20;

/// The method's name in sentences.
pub fn method_name(settings: &Recipe) -> &'static str {
    settings.method.about().title
}

/// Where a base model's card goes, in a folder of these files.
fn base_name(has: impl Fn(&Path) -> bool) -> PathBuf {
    let names = std::iter::once("README.base.md".to_string())
        .chain((2..).map(|number| format!("README.base{number}.md")));
    let mut free = names.map(PathBuf::from).filter(|name| !has(name));
    free.next().expect("numbers do not end")
}

/// The cards of a folder that is made from these files.
pub fn names(files: &[PathBuf]) -> Vec<PathBuf> {
    let has = |name: &Path| files.iter().any(|file| file == name);
    let mut names = vec![PathBuf::from(NAME)];
    if has(Path::new(NAME)) {
        names.push(base_name(has));
    }
    names
}

/// The base model's card, where it is kept.
pub struct BaseCard {
    name: PathBuf,
    /// What its head says under the keys that are kept.
    head: Vec<(String, Vec<String>)>,
}

/// Moves the base model's card, if there is one, out of the way of the new one, in a complete model folder that is not in
/// its place yet.
///
/// # Errors
/// The system's.
pub fn keep_base(folder: &Path) -> Result<Option<BaseCard>, Failure> {
    let path = folder.join(NAME);
    if !path.is_file() {
        return Ok(None);
    }
    let mut head = Vec::new();
    let size = path.metadata().map_or(0, |metadata| metadata.len());
    if size <= LONGEST {
        let text = fs::read(&path).map_err(|error| Failure::read(&path, error))?;
        head = kept(&String::from_utf8_lossy(&text));
    }
    let name = base_name(|name| folder.join(name).exists());
    let base = folder.join(&name);
    #[expect(clippy::disallowed_methods, reason = "nobody sees the folder yet")]
    fs::rename(&path, &base).map_err(|error| Failure::write(&base, error))?;
    Ok(Some(BaseCard { name, head }))
}

/// Writes the card into a complete model folder that is not in its place yet, whose base's card is kept.
///
/// # Errors
/// The system's.
pub fn write(
    folder: &Path,
    run: &Run,
    base: Option<&BaseCard>,
    verdict: Option<&Verdict>,
) -> Result<(), Failure> {
    // Of a run that goes on with earlier requests they are in the folder already, and its own among them.
    let chain = Chain::read(folder).ok().flatten();
    let requests = chain.map_or(0, |chain| chain.requests.len());
    let card = card(run, base, verdict, requests);
    model::write_for(
        &folder.join(NAME),
        &run.args.out.join(NAME),
        card.as_bytes(),
    )
}

/// `requests`: all that the model was made by, this one with them.
fn card(
    run: &Run,
    base_card: Option<&BaseCard>,
    verdict: Option<&Verdict>,
    requests: usize,
) -> String {
    let head = base_card.map_or(&[][..], |base| &base.head[..]);
    let task = match run.text_to_image {
        true => "text-to-image",
        false => "unconditional-image-generation",
    };
    let mut text = format!("---\nlibrary_name: diffusers\npipeline_tag: {task}\n");
    for (key, values) in head {
        match &values[..] {
            [value] => text.push_str(&format!("{key}: {}\n", quoted(value))),
            values => {
                let items: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                text.push_str(&format!("{key}: [{}]\n", items.join(", ")));
            }
        }
    }
    let adapter = run.args.adapter_rank().ok().flatten();
    if let Some(base) = hub_name(run) {
        let relation = match adapter {
            Some(_) => "adapter",
            None => "finetune",
        };
        text.push_str(&format!(
            "base_model: {}\nbase_model_relation: {relation}\n",
            quoted(&base)
        ));
    }
    let lora = adapter.map_or("", |_| ", lora");
    text.push_str(&format!(
        "tags: [diffusion, machine-unlearning, retrack{lora}]\n---\n\n"
    ));

    let (settings, split) = (run.settings, run.split);
    let left = split.forget.len() + split.duplicates.len();
    let base = run
        .args
        .model
        .file_name()
        .unwrap_or(run.args.model.as_os_str())
        .to_string_lossy();
    let name = method_name(settings);
    text.push_str(&format!(
        "# A diffusion model that was made to forget {}\n\nMade from the model {} with [retrack](https://arxiv.org/abs/2509.13007) {}: {} of its training data \
         {} unlearned by {name}, without training again from scratch.\n\n",
        counted(left, "image"),
        code(&base),
        env!("CARGO_PKG_VERSION"),
        counted(left, "image"),
        if left == 1 { "was" } else { "were" },
    ));
    if let Some(verdict) = verdict {
        text.push_str(&format!(
            "What the run's own tests found: **{}.** {}\n\n",
            verdict.headline, verdict.sentence
        ));
        for note in &verdict.notes {
            text.push_str(&format!("- {note}\n"));
        }
        if !verdict.notes.is_empty() {
            text.push('\n');
        }
    }
    if requests > 1 {
        text.push_str(&format!(
            "The model that it was made from had forgotten other images before: `{}` lists all {requests} requests.\n\n",
            chain::NAME
        ));
    }
    if adapter.is_some() {
        text.push_str(&format!(
            "The model's own weights here are the base model's, which know what was to be forgotten. What forgets is \
             the adapter in `{}`: take both together.\n\n",
            lora::FILE_NAME
        ));
    }
    text.push_str("## How it was made\n\n| setting | value |\n| --- | --- |\n");
    let trained = match adapter {
        Some(rank) => format!("low-rank adapters of the attention layers, rank {rank}"),
        None => "all weights of the denoiser".into(),
    };
    let mut rows = vec![
        ("method".to_string(), name.to_string()),
        ("trained".into(), trained),
        ("steps".into(), settings.steps.to_string()),
        (
            "images a step and stream".into(),
            (settings.batch_size * settings.accumulate).to_string(),
        ),
        ("learning rate".into(), settings.learning_rate.to_string()),
        ("seed".into(), settings.seed.to_string()),
        ("retained images".into(), split.retain.len().to_string()),
    ];
    let strengths = settings.strengths.iter();
    rows.extend(strengths.map(|(name, value)| (name.into(), Value::from(value).to_string())));
    if run.neighbors.is_some() {
        let neighbors = serde_json::to_value(settings.neighbors).unwrap_or_default();
        rows.push(("neighbors".into(), neighbors.to_string()));
    }
    for (key, value) in rows {
        text.push_str(&format!("| {key} | {value} |\n"));
    }
    if let Some(Value::Object(weights)) = run.config.get("weights_sha256") {
        text.push_str("\nThe base model's weights, by SHA-256:\n\n");
        for (path, digest) in weights {
            text.push_str(&format!(
                "- {}: {}\n",
                code(path),
                code(digest.as_str().unwrap_or_default())
            ));
        }
    }
    let (image, it) = if left == 1 {
        ("image", "it")
    } else {
        ("images", "them")
    };
    let tested = match verdict {
        Some(_) => {
            "What the run's own tests found stands above and in its report, which also says how much other images changed. \
             That is no proof"
        }
        None => {
            "This run tested nothing: neither whether the model still repeats what was to be forgotten, nor how much other \
             images changed. There is no proof"
        }
    };
    text.push_str(&format!(
        "\n## Limits\n\n\
         This is *approximate* unlearning. {tested} that no trace is left in the weights. Who has the weights, and \
         especially who has the forgotten {image}, may learn more than samples show: that the {image} once trained the \
         model, or that this one avoids {it}. Uses and limits of the base model hold for this one too.\n\n\
         The base model itself is unchanged and still knows the {image}.\n\n",
    ));
    if let Some(BaseCard { name, .. }) = base_card {
        text.push_str(&format!(
            "The base model's card is kept in `{}`.\n\n",
            name.display()
        ));
    }
    text.push_str(&format!("## Use\n\n```python\n{}```\n", script(run)));
    if let Some(citation) = settings.method.about().citation {
        text.push_str(&format!("\n## Citation\n\n{}\n", citation.line));
        if let Some(bibtex) = citation.bibtex {
            text.push_str(&format!("\n```bibtex\n{bibtex}\n```\n"));
        }
    }
    text
}

/// What draws an image with diffusers: by the folder's own pipeline, where there is one that can.
fn script(run: &Run) -> String {
    const FOLDER: &str = "\"this folder\"";
    let whole = run.folder.kind != Kind::Bare;
    if run.text_to_image {
        let adapter = match run.args.adapter_rank() {
            Ok(Some(_)) => format!(
                "pipeline.load_lora_weights({FOLDER})  # without it the model has forgotten nothing\n"
            ),
            _ => String::new(),
        };
        // transformers leaves its part in the element type of its file, diffusers makes f32 of the others: without one
        // type for all, parts of different types do not meet.
        return format!(
            "import torch\nfrom diffusers import DiffusionPipeline\n\npipeline = \
             DiffusionPipeline.from_pretrained({FOLDER}, torch_dtype=torch.float32)\n\
             {adapter}image = pipeline(\"a prompt\").images[0]\n"
        );
    }
    if whole && !run.labels {
        return format!(
            "from diffusers import DiffusionPipeline\n\npipeline = DiffusionPipeline.from_pretrained({FOLDER})\n\
             image = pipeline().images[0]\n"
        );
    }
    let opened = match (whole, &run.folder.scheduler) {
        (true, _) => format!(
            "from diffusers import DiffusionPipeline\n\npipeline = DiffusionPipeline.from_pretrained({FOLDER})\n\
             unet, scheduler = pipeline.unet, pipeline.scheduler\n"
        ),
        (false, scheduler) => {
            let scheduler = match scheduler {
                Some(_) => format!("DDPMScheduler.from_pretrained({FOLDER})"),
                None => "DDPMScheduler()".into(),
            };
            format!(
                "from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel\n\n\
                 unet = UNet2DModel.from_pretrained({FOLDER})\nscheduler = {scheduler}\n"
            )
        }
    };
    if !run.labels {
        return format!(
            "{opened}image = DDPMPipeline(unet=unet, scheduler=scheduler)().images[0]\n"
        );
    }
    // diffusers has no pipeline that tells a UNet2DModel the class.
    let opened = opened.replace("DDPMPipeline, ", "");
    let shape = run.data.shape();
    format!(
        "import torch\n{opened}scheduler.set_timesteps(50)\n\
         label = torch.tensor([0])  # the class\n\
         image = torch.randn(1, {}, {}, {})\n\
         with torch.no_grad():\n    for t in scheduler.timesteps:\n        \
         prediction = unet(image, t, class_labels=label).sample\n        \
         image = scheduler.step(prediction, t, image).prev_sample\n\
         pixels = (image / 2 + 0.5).clamp(0, 1)\n",
        shape.channels, shape.height, shape.width
    )
}

/// The base model's name on the Hub, where its own files say it. A local path is no such name.
fn hub_name(run: &Run) -> Option<String> {
    let name = run.folder.config.get("_name_or_path")?.as_str()?;
    let (owner, model) = name.split_once('/')?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    (plain(owner) && plain(model)).then(|| name.to_string())
}

/// What the head of a card says under the keys that are kept: plain values and lists of them, as YAML writes them in
/// the simplest way. Anything else is left out rather than misread.
fn kept(card: &str) -> Vec<(String, Vec<String>)> {
    let mut lines = card.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut open = false;
    for line in lines.take(200) {
        if line.trim_end() == "---" {
            found.retain(|(_, values)| !values.is_empty());
            return found;
        }
        if let Some(item) = line.trim_start().strip_prefix("- ") {
            if open && let (Some((_, values)), Some(value)) = (found.last_mut(), plain(item)) {
                values.push(value);
            }
            continue;
        }
        open = false;
        if line.starts_with([' ', '\t', '#']) {
            continue;
        }
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        if !KEPT.contains(&key) {
            continue;
        }
        open = value.trim().is_empty();
        found.push((key.into(), plain(value).into_iter().collect()));
    }
    // No end: not a head.
    Vec::new()
}

/// A plain or quoted scalar without the parts of YAML that mean something else.
fn plain(text: &str) -> Option<String> {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return (!inner.contains(['\\', '"', '\''])).then(|| inner.into());
        }
    }
    let text = text.split(" #").next().unwrap_or_default().trim();
    let special = |letter: char| "[]{},&*!|>'\"%@`#".contains(letter);
    (!text.is_empty() && !text.contains(special) && !text.contains(": ")).then(|| text.into())
}

/// A JSON string is a YAML one, whatever is in it.
fn quoted(text: &str) -> String {
    // YAML takes these for ends of lines, JSON does not.
    let text: String = text
        .chars()
        .filter(|letter| !matches!(letter, '\u{85}' | '\u{2028}' | '\u{2029}'))
        .collect();
    Value::from(text).to_string()
}

/// Text as code in Markdown: nothing in it can end that, or the line.
fn code(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|letter| match letter {
            '`' => '\'',
            letter if letter.is_control() => ' ',
            letter => letter,
        })
        .collect();
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_of_a_card_are_kept_and_nothing_else() {
        let card = "---\nlicense: apache-2.0 # permissive\ntags:\n- evil\ndatasets:\n  - cifar10\n- \"mnist\"\n\
                    language: [en]\nlicense_link: 'https://x.org/a'\nlicense_name: !!python/object x\n---\n# Base\n";
        let found = kept(card);
        let value = |key: &str| {
            found
                .iter()
                .find(|(known, _)| known == key)
                .map(|(_, values)| values.clone())
        };
        assert_eq!(value("license").unwrap(), ["apache-2.0"]);
        assert_eq!(value("datasets").unwrap(), ["cifar10", "mnist"]);
        assert_eq!(value("license_link").unwrap(), ["https://x.org/a"]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(kept("# No head\nlicense: mit\n").is_empty());
        assert!(kept("---\nlicense: mit\n").is_empty());
    }

    #[test]
    fn values_stay_in_their_place() {
        assert_eq!(
            quoted("a\"\n---\nlicense: x\u{2028}"),
            r#""a\"\n---\nlicense: x""#
        );
        assert_eq!(code("a`\n# b"), "`a' # b`");
    }
}
