//! What metrics say at the command line: their help, README's table, and which option a metric lacks.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use retrack_eval::metric::{Metric, Models, Need};
use retrack_eval::metrics::{METRICS, named};
use retrack_eval::score::Table;

/// What one thing that metrics need is called here.
struct Words {
    /// In a metric's help.
    help: &'static str,
    /// In README's table.
    readme: &'static str,
    /// Where it was not given.
    lack: &'static str,
}

/// Nothing for what is there without an option.
fn words(need: Need) -> Option<Words> {
    let option = |help, readme, lack| Words { help, readme, lack };
    Some(match need {
        Need::Samples | Need::Denoised => return None,
        Need::Threshold => option("nearer than --threshold", "", ""),
        Need::Sscd => option(
            "--sscd",
            "`--sscd`: SSCD as ONNX",
            "give --sscd FILE: sscd_disc_mixup as ONNX, converted from the published \
             sscd_disc_mixup.torchscript.pt",
        ),
        Need::Clip => option(
            "--clip",
            "`--clip`",
            "give --clip DIR: a folder of CLIP as transformers saves it, such as \
             openai/clip-vit-base-patch16",
        ),
        Need::Inception => option(
            "--inception",
            "`--inception`",
            "give --inception FILE: pt_inception-2015-12-05-6726825d.pth, as torch-fidelity \
             downloads it",
        ),
        Need::Controls => option(
            "--controls",
            "`--controls`",
            "give --controls SRC: images like the training images that the model never saw",
        ),
    })
}

/// What to do where it was not given.
pub fn lack(need: Need) -> Option<&'static str> {
    words(need).map(|words| words.lack)
}

/// A metric's line of help.
fn help(metric: &dyn Metric) -> String {
    let about = metric.about();
    let summary = match about.models {
        Models::Prompts => format!("Text-to-image: {}", about.summary),
        Models::Pixels | Models::All => {
            let (first, rest) = about.summary.split_at(about.summary.len().min(1));
            format!("{}{rest}", first.to_uppercase())
        }
    };
    let needs = about.needs.iter().filter_map(|need| words(*need));
    let takes = about.takes.iter().filter_map(|need| words(*need));
    let takes = takes.map(|words| format!("{}, if given", words.help));
    let needs = needs.map(|words| words.help.to_string()).chain(takes);
    let needs: Vec<String> = needs.collect();
    match needs.as_slice() {
        [] => summary,
        needs => format!("{summary} ({})", needs.join(", ")),
    }
}

/// How the name of a metric is read where it is typed.
pub fn parser() -> impl TypedValueParser<Value = &'static dyn Metric> {
    let values = METRICS
        .iter()
        .map(|&metric| PossibleValue::new(metric.name()).help(help(metric)));
    PossibleValuesParser::new(values).map(|name| named(&name).expect("one of the values"))
}

/// README's table of the metrics.
pub fn readme() -> String {
    let rows = METRICS.iter().map(|metric| {
        let about = metric.about();
        let meaning = match about.meaning {
            "" => about.summary,
            meaning => meaning,
        };
        let kind = match about.models {
            Models::Prompts => "text-to-image: ",
            Models::Pixels | Models::All => "",
        };
        let needs = about.needs.iter().filter_map(|need| words(*need));
        let needs = needs.map(|words| words.readme).chain([about.condition]);
        let needs = needs.filter(|words| !words.is_empty()).map(String::from);
        let takes = about.takes.iter().filter_map(|need| words(*need));
        let takes = takes.map(|words| format!("{}, if given", words.readme));
        let needs: Vec<String> = needs.chain(takes).collect();
        vec![
            format!("`{}`", about.name),
            format!("{kind}{meaning}"),
            needs.join(", "),
        ]
    });
    let table = Table {
        headings: ["metric", "what it says", "needs"]
            .map(String::from)
            .to_vec(),
        rows: rows.collect(),
    };
    table.markdown()
}
