//! Methods x seeds x forgotten images, with the original model as reference, in one table.
//!
//! `OUT/experiment.json` says what is compared; `OUT/models/RUN` are the unlearned models, `OUT/results/RUN.json` what
//! was measured. A run that has its result is not repeated, so an experiment that was stopped goes on.

mod caption;
mod folder;
mod identity;
mod outcome;
mod pace;
mod plan;
mod report;
mod run;
mod summary;
mod targets;

use std::path::{Path, PathBuf};
use std::time::Instant;

use retrack_checkpoint::words::counted;
use retrack_eval::report::Verdict;
use retrack_eval::score::Table;
use retrack_unlearn::objective::Method;
use retrack_unlearn::recipe::Layer;
use serde_json::json;

use self::caption::caption;
use self::folder::{Folder, goes_on, result};
use self::identity::identity;
use self::pace::Pace;
use self::plan::{Missing, Plan, Run};
use self::report::Found;
use self::run::Runs;
use self::targets::Targets;
use crate::chain::Recorded;
use crate::evaluation::{GUIDANCE, Protocol, once};
use crate::evidence::Private;
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{as_path, outside_all};
use crate::measuring::Measuring;
use crate::names::DtypeName;
use crate::observer::Observer;
use crate::opened::{self, Opened};
use crate::settings::Experiment;
use crate::situation::{self, Situation};
use crate::source::{DataSource, PromptOptions};
use crate::task::Task;
use crate::unlearn::convert;
use crate::{interrupt, machine, progress};

/// Steps between the checkpoints of a run.
const CHECKPOINT_EVERY: usize = 10;

/// What is to be compared. `None` and empty lists: as the preset or the model says.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The name of published settings.
    pub preset: String,
    /// A TOML file whose values replace the preset's.
    pub config: Option<PathBuf>,
    /// A diffusers pipeline or UNet2DModel folder.
    pub model: PathBuf,
    /// A model trained from scratch without the forgotten images, measured as a reference.
    pub retrained: Option<PathBuf>,
    /// The images.
    pub data: DataSource,
    /// Selections, one run each.
    pub forget: Vec<String>,
    /// The methods that are compared.
    pub methods: Vec<Method>,
    /// One run each.
    pub seeds: Option<Vec<u64>>,
    /// How models are measured.
    pub measuring: Measuring,
    /// The texts of a text-to-image model.
    pub prompts: PromptOptions,
    /// Where models, results, the table and the report go.
    pub out: PathBuf,
    /// Element type of the written weights.
    pub dtype: Option<DtypeName>,
    /// Whether the verdict is to say that the image is found no more: refused where no metric looks for it.
    pub must_look: bool,
    /// Says which runs there would be, and stops.
    pub dry_run: bool,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// What was found.
#[derive(Debug)]
pub struct Compared {
    /// A row for each method and reference.
    pub table: Table,
    /// What its numbers rest on, in sentences.
    pub caption: String,
    /// What the report comes to.
    pub verdict: Verdict,
    /// What a reader should know, which was said already.
    pub notes: Vec<String>,
    /// Runs and metrics that came to nothing, each with its reason.
    pub failed: Vec<String>,
    /// The methods with which a forgotten image is still found.
    pub still_found: Vec<String>,
}

/// Unlearns with each method and seed, measures all models and the references, and writes table and report; `None` after
/// a dry run.
///
/// # Errors
/// Whatever is wrong with what was given, a signal, files that cannot be written. A run whose training comes to nothing is
/// no error, nor is a metric that fails: they are [listed](Compared::failed).
pub fn compare(
    asked: &Comparison,
    observer: &mut dyn Observer,
) -> Result<Option<Compared>, Failure> {
    asked.check_folders()?;
    let device = machine::device(&asked.device)?;
    let preset = Experiment::resolve(&asked.preset, asked.config.as_deref())?;
    let mut opened = opened::open(&asked.model)?;
    let wider = convert(asked.dtype, &mut *opened)?;
    let prompts = opened.prompts(&asked.prompts, &asked.data.path)?;
    let protocol = asked.protocol(preset.protocol, &opened, prompts.is_some())?;
    let method = |method: &Method| method.name().to_string();
    once(Field::Methods, &asked.methods, method)?;
    let targets = Targets::choose(asked, preset.forget, &opened, prompts.is_some())?;
    let seeds = asked.seeds.clone().unwrap_or(preset.seeds);
    once(Field::Seeds, &seeds, u64::to_string)?;
    targets.check()?;

    let data = opened.open_data(&asked.data)?;
    let judges = protocol.judges(&data, &device)?;
    let prompts = match prompts {
        Some(prompts) => Some(prompts.captioned(&asked.prompts, &data, &judges)?),
        None => None,
    };
    let prompts = prompts.as_ref();
    let recorded = Recorded::measured(&asked.model);
    // Before anything is written: a selection of nothing, a folder that cannot be copied, a disk that is too small.
    let targets = targets.find(&data)?;
    let subject = |place: usize| {
        let forget = std::slice::from_ref(&targets.forget[place]);
        let subject = protocol.subject(&data, forget, prompts, &judges, recorded.as_ref());
        subject.map(|subject| (place, subject))
    };
    let mut current = subject(0)?;
    let classes = protocol.classes(&opened, &current.1)?.is_some();
    let metrics = protocol.tried(&current.1, opened.scheduler(), asked.must_look)?;
    let copied = opened.folder().check_copy()? + wider;
    let identity = identity(asked, &opened, &data, &targets, &protocol, prompts)?;
    let plan = Plan::new(asked, &seeds, targets.forget.len());
    let (there, missing) = plan.split(&asked.out);
    let needed = Missing::of(&missing, asked, &targets.forget, &opened, &data, copied)?;
    needed.check_retained(&opened, &data, &targets.rows)?;
    let needs = needed.needs;
    if asked.dry_run {
        goes_on(&asked.out, &identity)?;
        let names = |runs: &[&Run]| runs.iter().map(|run| run.name()).collect::<Vec<_>>();
        let mut plan = identity.clone();
        plan["runs"] = json!({"there": names(&there), "missing": names(&missing)});
        plan["needs"] = needs.json(&asked.out);
        progress::note(needs.text(&asked.out));
        observer.planned(&plan);
    }
    needs.check(&asked.out, 0, situation::advice(Situation::StepTooLarge))?;
    if asked.dry_run {
        return Ok(None);
    }

    let mut folder = Folder::begin(&asked.out, &identity)?;
    let complete = match there.len() {
        0 => String::new(),
        some => format!(", {some} of them complete already"),
    };
    progress::note(format!("{}{complete}", counted(plan.runs.len(), "run")));
    interrupt::at_once(complete_runs_are_kept());
    let runs = Runs {
        asked,
        protocol: &protocol,
        prompts,
        data: &data,
        targets: &targets,
        device: &device,
    };
    let mut outcomes = Vec::with_capacity(plan.runs.len());
    let mut pace = Pace::default();
    for (index, run) in plan.runs.iter().enumerate() {
        let start = Instant::now();
        let is_missing = |run: &&Run| !result(&asked.out, run).exists();
        let missing = plan.runs[index..].iter().filter(is_missing);
        let missing: Vec<bool> = missing.map(Run::trains).collect();
        let makes = is_missing(&run);
        let place = format!("{}/{}  {}", index + 1, plan.runs.len(), run.name());
        progress::note(match makes {
            true => format!("{place}{}", pace.text(&missing)),
            false => format!("{place} is complete"),
        });
        let _stage = progress::stage(index + 1, plan.runs.len());
        if current.0 != run.forget {
            current = subject(run.forget)?;
        }
        outcomes.push(runs.outcome(run, &current.1, &mut folder, observer)?);
        if makes {
            pace.add(run.trains(), start.elapsed());
        }
    }

    let caption = |forget: &[String]| caption(&protocol, &metrics, forget, &seeds, classes);
    let found = Found {
        asked,
        lines: &plan.lines,
        seeds: seeds.len(),
        shown: &targets.shown,
        identity: identity::shown(identity),
        caption: caption(&targets.shown),
        outcomes: &outcomes,
    };
    let compared = found.write(&mut folder)?;
    Ok(Some(Compared {
        caption: caption(&targets.forget),
        ..compared
    }))
}

impl Comparison {
    /// Refuses an output folder that holds what is read, or lies in it.
    fn check_folders(&self) -> Result<(), Failure> {
        let forget = self.forget.iter().map(|one| ("selection", as_path(one)));
        let inputs = [
            ("data", Some(self.data.path.as_path())),
            ("model", Some(&self.model)),
            ("model", self.retrained.as_deref()),
            ("settings", self.config.as_deref()),
        ];
        let inputs = inputs.into_iter().chain(self.measuring.inputs());
        let inputs = inputs.chain(self.prompts.inputs());
        outside_all(&self.out, inputs.chain(forget))
    }

    /// What is measured of this model, and how.
    ///
    /// # Errors
    /// Numbers that make no sense.
    fn protocol(
        &self,
        preset: Protocol,
        opened: &Opened,
        text_to_image: bool,
    ) -> Result<Protocol, Failure> {
        let most = preset.sampling_steps;
        let protocol = Protocol {
            guidance: text_to_image.then(|| self.prompts.guidance.unwrap_or(GUIDANCE)),
            sampling_steps: opened.steps(preset.scheduler, most),
            ..self.measuring.over(preset)
        };
        protocol.check()?;
        if protocol.sampling_steps < most {
            progress::note(format!(
                "samples are drawn in {} steps: the model's schedule allows no more",
                protocol.sampling_steps
            ));
        }
        progress::detail(format_args!("measuring {}", json!(protocol)));
        Ok(protocol)
    }

    /// What is to be unlearned by a method, from `forget` into `out`. `seed`: other than the preset's.
    fn task(&self, forget: &str, out: &Path, method: Method, seed: Option<u64>) -> Task {
        Task {
            recipe: Layer {
                method: Some(method),
                seed,
                ..Layer::default()
            },
            preset: Some(self.preset.clone()),
            config: self.config.clone(),
            checkpoint_every: Some(CHECKPOINT_EVERY),
            dtype: self.dtype,
            no_report: true,
            // One for all runs, and outside of a folder that may be passed on.
            key: Private::place(&self.out).ok(),
            prompt: self.prompts.prompt.clone(),
            captions: self.prompts.captions.clone(),
            ..Task::new(&self.model, &self.data, forget, out, &self.device)
        }
    }
}

/// What is there if a signal ends the experiment between its runs.
fn complete_runs_are_kept() -> String {
    let how = interrupt::how_to_go_on();
    format!("the runs that are complete are kept: {how}")
}
