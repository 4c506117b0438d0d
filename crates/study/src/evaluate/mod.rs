//! What a model still knows, beside the model that it was made from.

mod found;
mod other_run;

use std::path::{Path, PathBuf};
use std::time::Instant;

use retrack_checkpoint::lock::Lock;
use retrack_checkpoint::words::{counted, listed};
use retrack_checkpoint::written::{Command, Output};
use retrack_eval::examined::each_once;
use retrack_eval::metric::{Metric, Need};
use retrack_eval::metrics;
use retrack_eval::report::{Fact, Verdict};
use retrack_eval::score::Table;
use retrack_eval::subject::Subject;
use retrack_networks::schedule::{SchedulerConfig, SchedulerKind};
use serde_json::{Value, json};

use self::found::{Found, SHOWN};
use crate::chain::Recorded;
use crate::evaluation::{self, GUIDANCE, Prompts, Protocol};
use crate::evidence;
use crate::evidence::comparison::{self, About, Column};
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{as_path, outside_all};
use crate::measuring::Measuring;
use crate::names::SamplerName;
use crate::opened::{self, Opened};
use crate::source::{DataSource, PromptOptions, record_resize};
use crate::{interrupt, machine, model, progress, sealed};

const METRICS: &str = "metrics.json";

/// A model to measure, and where what is found goes.
#[derive(Debug, Clone)]
pub struct Evaluate {
    /// A diffusers pipeline or UNet2DModel folder.
    pub model: PathBuf,
    /// The model before unlearning, measured beside it with the same seeds.
    pub baseline: Option<PathBuf>,
    /// The images.
    pub data: DataSource,
    /// Selections of what was to be forgotten. Empty where data in the published layout says it.
    pub forget: Vec<String>,
    /// The file of keys that opens the sealed images beside `model`. `None`: the data set is taken as it is.
    pub sealed: Option<PathBuf>,
    /// The texts of a text-to-image model.
    pub prompts: PromptOptions,
    /// How models are measured.
    pub measuring: Measuring,
    /// Denoising steps of a sample.
    pub sampling_steps: Option<usize>,
    /// The sampler; `None`: the model's own.
    pub scheduler: Option<SamplerName>,
    /// Decides all random numbers.
    pub seed: u64,
    /// Where the report goes.
    pub out: PathBuf,
    /// Shows samples that may be a forgotten image, and names files and prompts.
    pub show_forgotten: bool,
    /// Whether the report is to say that the image is found no more: refused where nothing looks for it.
    pub must_look: bool,
    /// Replaces an earlier evaluation in `out`.
    pub force: bool,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// What was found, and where it was written.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// A row for each score, a column for each model.
    pub table: Table,
    /// What the report comes to.
    pub verdict: Verdict,
    /// Notes of the verdict that were said on the way.
    pub said: Vec<String>,
    /// Of a model that denoises pixels: what counts as a forgotten image.
    pub rule: Option<String>,
    /// The report's page.
    pub page: PathBuf,
    /// All of it for programs, as the file beside the page holds it.
    pub json: Value,
    /// What was tried and did not work, as sentences.
    pub failed: Vec<String>,
}

impl Evaluate {
    /// What is measured and how, of this model.
    fn protocol(&self, opened: &Opened, text_to_image: bool) -> Protocol {
        let measuring = self.measuring.clone();
        let defaults = Defaults::of(text_to_image, opened.scheduler());
        let scheduler = self.scheduler.or(defaults.scheduler);
        let steps = self.sampling_steps;
        Protocol {
            metrics: measuring
                .metrics
                .unwrap_or_else(|| metrics::defaults(text_to_image)),
            samples: measuring.samples.unwrap_or(defaults.samples),
            scheduler,
            sampling_steps: steps.unwrap_or(opened.steps(scheduler, model::STEPS)),
            threshold: measuring.threshold,
            inception: measuring.inception,
            sscd: measuring.sscd,
            clip: measuring.clip,
            controls: measuring.controls,
            controls_split: measuring.controls_split,
            guidance: text_to_image.then(|| self.prompts.guidance.unwrap_or(GUIDANCE)),
            class: measuring.class,
            relearn_steps: measuring.relearn_steps,
        }
    }

    /// What was selected is not in the data: there may be a sealed copy of it.
    fn or_sealed(&self, failure: Failure) -> Failure {
        match (&self.sealed, sealed::beside(&self.model)) {
            (None, Some(path)) if failure.code == 2 => Failure {
                message: format!(
                    "{}. If it left the data: {} holds what this model forgot, and {} KEYFILE looks for that",
                    failure.message,
                    path.display(),
                    Field::Sealed
                ),
                ..failure
            },
            _ => failure,
        }
    }

    /// Everything that decides the numbers.
    fn resolved(
        &self,
        protocol: &Protocol,
        subject: &Subject,
        classes: Option<&[i64]>,
    ) -> Result<Value, Failure> {
        let mut json = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "data_digest": subject.data.digest()?,
            "split": self.data.reading.split,
            "alpha": subject.data.alpha(),
            "forgotten_rows": subject.split.forget.len(),
            "duplicate_rows": subject.split.duplicates.len(),
            "near_copies": subject.split.near.len(),
            "protocol": protocol,
            "seed": self.seed,
        });
        record_resize(&mut json, subject.data.resize());
        if protocol.guidance.is_none() {
            json["thresholds"] = json!(subject.thresholds);
        }
        if let earlier @ 1.. = subject.split.earlier.len() {
            json["earlier_rows"] = earlier.into();
        }
        if let Some(classes) = classes {
            json["classes"] = json!(each_once(classes));
        }
        if let Some(clusters) = &subject.clusters {
            json["cluster_agreement"] = clusters.agreement.into();
        }
        Ok(json)
    }

    /// What a reader of the report should know of how it was made. `sampling`: by what samples were drawn, if any were.
    fn facts(
        &self,
        forget: &[String],
        subject: &Subject,
        sampling: Option<String>,
        class: Option<String>,
        prompts: Option<&Prompts>,
        columns: &[Found],
    ) -> Vec<Fact> {
        let forgotten = subject.looked_for();
        let mut facts = vec![
            Fact::new(
                "Selected by",
                match self.show_forgotten {
                    true => forget.join(", "),
                    false => evidence::selected(forget, &subject.split.forget),
                },
            ),
            Fact::new(
                "Looked for",
                match (subject.split.forget.len(), forgotten.len()) {
                    (rows, distinct) if rows == distinct => counted(rows, "image"),
                    (rows, distinct) => format!("{}, {distinct} distinct", counted(rows, "row")),
                },
            ),
            Fact::new("Data set", self.data.path.display()),
        ];
        facts.push(Fact::new("What counts as one", forgotten.rule()));
        if let returned @ 1.. = subject.data.returned().len() {
            facts.push(Fact::new(
                "Put back from the sealed copy",
                counted(returned, "row"),
            ));
        }
        if let near @ 1.. = subject.split.near.len() {
            let near = match near {
                1 => "1 near copy in the data set; what shows it counts, too".to_owned(),
                many => format!("{many} near copies in the data set; what shows one counts, too"),
            };
            facts.push(Fact::new("Near copies", near));
        }
        if let earlier @ 1.. = subject.split.earlier.len() {
            facts.push(Fact::new(
                "Kept out of what is retained",
                format!(
                    "{} of images that the model's other requests forgot",
                    counted(earlier, "row")
                ),
            ));
        }
        facts.extend(sampling.map(|how| Fact::new("Samples are drawn by", how)));
        facts.extend(class.map(|class| Fact::new("Class of the samples", class)));
        if let Some(prompts) = prompts.filter(|_| self.show_forgotten) {
            facts.push(Fact::new("Their prompt", &prompts.forgotten));
        }
        let paths = columns.iter();
        facts.extend(paths.map(|found| Fact::new(found.name, found.path.display())));
        facts
    }
}

/// Measures a model, and the one that it was made from where that is given, and writes the report.
///
/// # Errors
/// Whatever is wrong with what was given; nothing that could be measured; files that cannot be written. A metric that was
/// tried and failed is none: it is in what was found.
pub fn evaluate(args: &Evaluate) -> Result<Evaluated, Failure> {
    let start = Instant::now();
    let forget = args.forget.iter().map(|one| ("selection", as_path(one)));
    let inputs = [
        ("data", Some(args.data.path.as_path())),
        ("model", Some(&args.model)),
        ("model", args.baseline.as_deref()),
    ];
    let inputs = inputs.into_iter().chain(args.measuring.inputs());
    let inputs = inputs.chain(args.prompts.inputs());
    outside_all(&args.out, inputs.chain(forget))?;
    let device = machine::device(&args.device)?;
    let opened = opened::open(&args.model)?;
    let prompts = opened.prompts(&args.prompts, &args.data.path)?;
    let forget = opened.selection(&args.forget, &args.data.path)?;
    let protocol = args.protocol(&opened, prompts.is_some());
    protocol.check()?;
    progress::detail(format_args!("measuring {}", json!(protocol)));
    let _lock = Lock::take(&args.out)?;
    let mut output = Output::open(&args.out, Command::Evaluate, args.force, is_ours)?;
    output.remove_temporaries();
    interrupt::kept("nothing is kept: the same command starts again");
    if let Some(baseline) = &args.baseline {
        opened::open(baseline)?;
    }
    let data = opened.open_data(&args.data)?;
    let data = match &args.sealed {
        Some(key) => {
            let archive = sealed::open(key, &args.model)?;
            sealed::with_forgotten(data, &archive, &args.model)?
        }
        None => data,
    };
    let judges = protocol.judges(&data, &device)?;
    let prompts = match prompts {
        Some(prompts) => Some(prompts.captioned(&args.prompts, &data, &judges)?),
        None => None,
    };
    let recorded = Recorded::measured(&args.model);
    let subject = protocol
        .subject(&data, &forget, prompts.as_ref(), &judges, recorded.as_ref())
        .map_err(|failure| args.or_sealed(failure))?;
    if let near @ 1.. = subject.split.near.len() {
        progress::note(match near {
            1 => "1 near copy of what was to be forgotten is in the data set: what shows it counts, too".to_owned(),
            many => format!(
                "{many} near copies of what was to be forgotten are in the data set: what shows one counts, too"
            ),
        });
    }
    if let Some(warning) = other_run::other_run(args, &data, &subject.split)? {
        progress::warn(warning);
    }
    let classes = protocol.classes(&opened, &subject)?;
    let metrics = protocol.tried(&subject, opened.scheduler(), args.must_look)?;
    let phases = evaluation::phases(&metrics, prompts.as_ref());
    // Its values are not needed while others' are measured.
    let kind = protocol
        .scheduler
        .map_or(opened.scheduler().kind, SchedulerKind::from);
    drop(opened);
    let models = 1 + usize::from(args.baseline.is_some());
    let measure = |number: usize, name: &str, path: &Path| {
        progress::note(format!(
            "{number}/{models}  {name} {} in {}: {}",
            path.display(),
            counted(phases.len(), "phase"),
            phases.join(", ")
        ));
        let _stage = progress::stage(number, models);
        protocol.evaluate(path, &subject, prompts.as_ref(), args.seed, &device)
    };
    let mut columns: Vec<Found> = Vec::new();
    if let Some(baseline) = &args.baseline {
        columns.push(Found {
            name: "baseline",
            path: baseline,
            evaluation: measure(1, "baseline", baseline)?,
        });
    }
    columns.push(Found {
        name: "model",
        path: &args.model,
        evaluation: measure(models, "model", &args.model)?,
    });

    // From here on the files must fit together.
    interrupt::finish_first("once the result is written");
    let mut files = Vec::new();
    let mut json = args.resolved(&protocol, &subject, classes.as_deref())?;
    for found in &columns {
        json[found.name] = found.record(&protocol, &subject, args.show_forgotten, &mut files)?;
    }
    let most = SHOWN * data.shape().bytes();
    for Found { evaluation, .. } in &mut columns {
        for drawn in &mut evaluation.drawn {
            drawn.samples.truncate(most);
        }
    }
    let sampling = protocol.draws(&metrics).then(|| {
        format!(
            "{} in {}",
            format!("{kind:?}").to_uppercase(),
            counted(protocol.sampling_steps, "step")
        )
    });
    let class = classes.as_ref().map(|classes| {
        let whose = match protocol.class {
            Some(_) => format!("as {} says", Field::Class),
            None => "the forgotten images' own".into(),
        };
        format!("{} ({whose})", listed(each_once(classes)))
    });
    if let Some(class) = &class {
        progress::note(format!("class of the samples: {class}"));
    }
    let mut facts = args.facts(
        &forget,
        &subject,
        sampling,
        class,
        prompts.as_ref(),
        &columns,
    );
    let denoises =
        |metric: &&'static dyn Metric| metric.needs(Need::Denoised) || metric.looks_for_the_image();
    if let Some(prompts) = &prompts
        && metrics.iter().any(denoises)
    {
        let told = prompts.told(metrics.iter().any(|metric| metric.denoises_controls()));
        facts.push(Fact::new("Images are denoised for", told));
    }
    let about = About {
        configuration: json.clone(),
        facts,
        device: &args.device,
        seconds: start.elapsed().as_secs_f64(),
        notes: found::notes(&columns, prompts.is_some()),
    };
    about.notes.iter().for_each(progress::warn);
    let said = about.notes.clone();
    let forgotten = subject.looked_for();
    let sides: Vec<Column> = columns
        .iter()
        .map(|found| Column {
            name: found.name,
            scores: &found.evaluation.scores,
            drawn: &found.evaluation.drawn,
            standings: &found.evaluation.standings,
            relearned: found.evaluation.relearned.as_ref(),
            known_controls: found.evaluation.known_controls,
        })
        .collect();
    let report = comparison::evaluated(&sides, &forgotten, args.show_forgotten, about)?;
    let page = args.out.join(evidence::PAGE);
    json["verdict"] = json!(report.verdict);
    json["report"] = page.display().to_string().into();
    let text = serde_json::to_string_pretty(&json).expect("JSON has no unwritable values");
    files.push((METRICS.into(), format!("{text}\n").into_bytes()));
    files.extend(evidence::forms(&report));
    output.put(&files)?;
    // Pictures of an earlier evaluation may show what this one covers, or a model that it does not have.
    output.remove_earlier()?;
    Ok(Evaluated {
        table: found::table(&columns),
        verdict: report.verdict,
        said,
        rule: prompts.is_none().then(|| forgotten.rule()),
        page,
        json,
        failed: columns.iter().flat_map(found::failures).collect(),
    })
}

/// How it is measured where nothing is said.
struct Defaults {
    samples: usize,
    scheduler: Option<SamplerName>,
}

impl Defaults {
    /// Of a text-to-image model the published ones. One that was trained by flow matching has its own sampler alone.
    fn of(text_to_image: bool, scheduler: &SchedulerConfig) -> Self {
        match text_to_image {
            true => Self {
                samples: 16,
                scheduler: scheduler.flow.is_none().then_some(SamplerName::Ddpm),
            },
            false => Self {
                samples: 256,
                scheduler: None,
            },
        }
    }
}

/// Whether an evaluation writes a file of this name.
fn is_ours(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let picture = ["baseline", "model"]
        .into_iter()
        .find_map(|model| name.strip_prefix(model)?.strip_suffix(".png"));
    let is_picture = |rest: &str| {
        let number = rest.strip_prefix('-').unwrap_or("0");
        (rest.is_empty() || rest.starts_with('-'))
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    [METRICS, evidence::PAGE, evidence::CONTENT].contains(&&*name)
        || picture.is_some_and(is_picture)
}
