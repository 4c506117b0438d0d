//! The shipped model forgets its T-shirt: `cargo run --release -p retrack-study --example unlearn -- OUT [STEPS]`.

use std::path::{Path, PathBuf};

use retrack_study::source::DataSource;
use retrack_study::task::Task;
use retrack_study::unlearn::unlearn;

fn main() {
    let mut words = std::env::args().skip(1);
    let out = PathBuf::from(words.next().unwrap_or_else(|| "forgotten".into()));
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let data = DataSource::at(&assets.join("digits.parquet"));
    let mut task = Task::new(&assets.join("base-model"), &data, "label:10", &out, "cpu");
    task.preset = Some("demo".into());
    task.recipe.steps = words.next().map(|steps| steps.parse().expect("a number"));

    // `()` looks away; an observer sees every step.
    let run = unlearn(&task, &mut ()).unwrap_or_else(|failure| panic!("{}", failure.message));
    let report = run.expect("no dry run").report.expect("one was made");
    println!("{}. {}", report.verdict.headline, report.verdict.sentence);
    println!("the model: {}", out.display());
}
