//! An objective of one's own, outside the list: the shipped model learns to predict no noise at all in its T-shirt.
//!
//! `cargo run --release -p retrack-study --example own_objective -- OUT [STEPS]`

use std::path::{Path, PathBuf};

use retrack_study::source::DataSource;
use retrack_study::task::Task;
use retrack_study::unlearn::unlearn;
use retrack_unlearn::batch::{Batch, Draws};
use retrack_unlearn::objective::{
    About, Losses, Method, Objective, Parameter, Pass, PassError, Range, Strengths, Sums,
};

/// E_retain[ |e_theta - e|^2 ] + weight E_forget[ |e_theta|^2 ].
#[derive(Debug)]
struct Blank {
    weight: f64,
}

const ABOUT: About = About {
    name: "blank",
    title: "no noise in the forgotten images",
    summary: "Train on the retained images, and to predict no noise in the forgotten ones",
    citation: None,
    parameters: &[Parameter {
        name: "weight",
        default: 0.1,
        range: Range::AtLeast(0.0),
        meaning: "Share of the forgotten images' loss",
    }],
    gentler: Some("weight"),
};

impl Objective for Blank {
    fn about() -> &'static About {
        &ABOUT
    }

    fn new(strengths: &Strengths) -> Self {
        let weight = strengths["weight"];
        Self { weight }
    }

    fn draws(&self) -> Draws {
        Draws {
            retain: true,
            forget: true,
            ..Draws::default()
        }
    }

    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, PassError> {
        let retain = batch.retain.as_ref().expect("drawn");
        let noise = retain.target(pass.process, pass.device);
        let keep = pass.squared_error(retain, noise, None, 1.0);
        let forget = batch.forget.as_ref().expect("drawn");
        let nothing = forget.clean(pass.device).zeros_like();
        let leave = pass.squared_error(forget, nothing, None, self.weight);
        let [kept, left] = pass.backward([keep, leave], &mut sums.main)?;
        Ok(Losses {
            loss: kept + self.weight * left,
            retain: Some(kept),
            forget: Some(left),
            ..Losses::default()
        })
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let out = PathBuf::from(words.next().unwrap_or_else(|| "forgotten".into()));
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let data = DataSource::at(&assets.join("digits.parquet"));
    let mut task = Task::new(&assets.join("base-model"), &data, "label:10", &out, "cpu");
    task.preset = Some("demo".into());
    task.recipe.method = Some(Method::of::<Blank>());
    task.recipe.steps = words.next().map(|steps| steps.parse().expect("a number"));

    let run = unlearn(&task, &mut ()).unwrap_or_else(|failure| panic!("{}", failure.message));
    let report = run.expect("no dry run").report.expect("one was made");
    println!("{}. {}", report.verdict.headline, report.verdict.sentence);
}
