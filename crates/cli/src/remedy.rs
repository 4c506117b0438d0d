//! What a message advises, in words that fit the command at whose terminal it is shown: the same trouble has another way
//! out in each, and none may name an option that the command lacks.

use std::sync::OnceLock;

use retrack_study::field::Field;
use retrack_study::situation::Situation;

use crate::args::Command;
use crate::metric_words;

/// The commands that share code whose messages advise something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    Train,
    Unlearn,
    Experiment,
    Demo,
    Merge,
    Evaluate,
    Sample,
    Neighbors,
    Inspect,
    History,
    /// None of the situations below is one of theirs.
    Other,
}

/// Those with advice of their own, by name.
const SPEAKERS: [(Speaker, &str); 10] = [
    (Speaker::Train, "train"),
    (Speaker::Unlearn, "unlearn"),
    (Speaker::Experiment, "experiment"),
    (Speaker::Demo, "demo"),
    (Speaker::Merge, "merge"),
    (Speaker::Evaluate, "evaluate"),
    (Speaker::Sample, "sample"),
    (Speaker::Neighbors, "neighbors"),
    (Speaker::Inspect, "inspect"),
    (Speaker::History, "history"),
];

static SPEAKER: OnceLock<Speaker> = OnceLock::new();

/// Says once, at the start, which command speaks.
pub fn speak_for(command: &Command) {
    let speaker = match command {
        Command::Train(_) => Speaker::Train,
        Command::Unlearn(_) => Speaker::Unlearn,
        Command::Experiment(_) => Speaker::Experiment,
        Command::Demo(_) => Speaker::Demo,
        Command::Merge(_) => Speaker::Merge,
        Command::Evaluate(_) => Speaker::Evaluate,
        Command::Sample(_) => Speaker::Sample,
        Command::Neighbors(_) => Speaker::Neighbors,
        Command::Inspect(_) => Speaker::Inspect,
        Command::History(_) => Speaker::History,
        _ => Speaker::Other,
    };
    let _ = SPEAKER.set(speaker);
}

/// What to do, as the end of a sentence; `None`: in words that fit anywhere.
pub fn advice(situation: Situation) -> Option<&'static str> {
    advice_of(situation, SPEAKER.get().copied().unwrap_or(Speaker::Other))
}

/// What the command with this name advises; `None`: as above.
pub fn advice_by(command: &str, situation: Situation) -> Option<&'static str> {
    let speaker = SPEAKERS.into_iter().find(|(_, name)| *name == command);
    advice_of(
        situation,
        speaker.map_or(Speaker::Other, |(speaker, _)| speaker),
    )
}

/// What may have been advised in a situation by the commands that write an unlearning run's report.
pub fn advised_by_runs(situation: Situation) -> Vec<&'static str> {
    [Speaker::Unlearn, Speaker::Demo]
        .map(|speaker| advice_of(situation, speaker).unwrap_or_else(|| situation.advice()))
        .to_vec()
}

/// The option that sets a field.
pub fn option(field: Field) -> String {
    let name = match field {
        Field::LearningRate => "lr",
        Field::MustLook => "fail_if_found",
        field => field.name(),
    };
    format!("--{}", name.replace('_', "-"))
}

/// What a command's options offer; `None` where none of them helps.
fn advice_of(situation: Situation, speaker: Speaker) -> Option<&'static str> {
    use Speaker::{Demo, Evaluate, Experiment, Inspect, Merge, Neighbors, Sample, Train, Unlearn};
    let advice = match (situation, speaker) {
        (Situation::Diverged, Train | Unlearn) => "start again with a lower --lr or fewer --steps",
        (Situation::Diverged, Experiment) => {
            "start again in another folder, with a lower learning_rate or fewer steps in a TOML file that --config \
                 names"
        }
        (Situation::StepTooLarge, Train | Unlearn) => {
            "give a smaller --batch-size and a larger --accumulate, whose product decides the result"
        }
        (Situation::StepTooLarge, Experiment) => {
            "give --config a TOML file with a smaller batch_size and a larger accumulate, whose product decides the \
                 result"
        }
        (Situation::SamplesTooLarge, Sample) => "give a smaller --count or --batch-size",
        (Situation::SamplesTooLarge, Evaluate | Experiment) => "give a smaller --samples",
        (Situation::SamplesTooLarge, Demo) => "give a smaller --count",
        (Situation::DiskFull, Train | Unlearn) => {
            "free some space, or copy the output folder to another disk and go on there with --resume"
        }
        (Situation::DiskFull, Experiment) => {
            "free some space, or copy the output folder to another disk and start the same command with that --out"
        }
        (Situation::NotEmpty, Train | Unlearn | Demo | Merge) => {
            "choose another, or give --force to replace what retrack wrote there"
        }
        (Situation::HoldsInterrupted, Train | Unlearn) => {
            "give --resume to continue it or --force to replace it"
        }
        (Situation::HoldsInterrupted, Merge) => {
            "give --force to replace it, or choose another output folder"
        }
        (Situation::NothingToResume, Train | Unlearn) => "leave --resume out",
        (Situation::NothingLeft, Train | Unlearn) => {
            "for another run choose another --out, or give --force to replace this one"
        }
        (Situation::Unfinished, _) => {
            "finish it with `retrack unlearn --resume` and the options that began it"
        }
        (Situation::NoModelYet, _) => {
            "finish it with `retrack unlearn --resume` or `retrack train --resume` and the options that began it"
        }
        (Situation::NothingToVerify, _) => {
            "give the folder that `retrack unlearn` wrote (of a demo, its model folder). Runs of `retrack unlearn \
             --no-report` cannot be verified"
        }
        (Situation::LoneAdapter, _) => {
            "`retrack merge --model DIR --adapter {} --out DIR` folds it into the model that it was trained for"
        }
        (Situation::WeightsAlone, _) => {
            "give the model's folder (an adapter is for `retrack merge --model DIR --adapter FILE --out DIR`)"
        }
        (Situation::MissingTensor, _) => "--help lists the keys",
        (Situation::FixedTypes, Unlearn | Merge | Experiment) => {
            "leave --dtype out, or save the model as one .safetensors file first"
        }
        (Situation::NoSizes, Train) => {
            "docs/train.md has an example, and `--arch small` needs no file"
        }
        (Situation::NothingLooks, _) => {
            "leave it out, and give it to `retrack evaluate` afterwards"
        }
        (Situation::NoClass, Sample) => "say which with --class",
        (Situation::NoLabel, Evaluate) => {
            "say with --class which one all samples and attempts are of"
        }
        (Situation::ForeignScheduler, Sample | Evaluate) => "--scheduler chooses another",
        (Situation::ForeignScheduler, Experiment) => {
            "`scheduler` under [experiment] in a TOML file that --config names chooses another"
        }
        (Situation::NearCopy, Train) => "add them to --exclude to leave them out, too",
        (Situation::NearCopy, Unlearn) => {
            "--with-copies forgets them too, --keep-copies retains them"
        }
        (Situation::NearCopy, Experiment) => {
            "to forget them too, list all in a file and give it as --forget @list.txt"
        }
        (Situation::Transparent, Train) => {
            "to train on them over white or black, give --alpha white or --alpha black"
        }
        (Situation::Transparent, Demo | Merge | Sample | Speaker::History) => return None,
        (Situation::Transparent, _) => {
            "if the model was trained on them over white or black, give --alpha white or --alpha black"
        }
        (Situation::Sizes, Train | Unlearn | Experiment | Evaluate | Neighbors | Inspect) => {
            "--resize {} makes their shorter side so long and keeps the middle; or crop or resize them first"
        }
        (Situation::OtherSize, Unlearn | Experiment | Evaluate) => {
            "give the data it was trained on, scaled as it was: --resize {} scales it as training scripts usually do"
        }
        (Situation::TooManyNeighbors, Experiment) => {
            "ask for fewer by a smaller `neighbors` in a TOML file that --config names"
        }
        (Situation::Lacks(need), Evaluate | Experiment) => return metric_words::lack(need),
        (Situation::TooManyNeighbors, Unlearn | Neighbors) => "give a smaller --neighbors",
        (Situation::BeyondHalf, Experiment) => {
            "start again in another folder with --dtype bf16 or --dtype f32"
        }
        (Situation::BeyondItsType, Experiment) => "start again in another folder with --dtype f32",
        (Situation::BeyondFixedType, Experiment) => {
            "start again in another folder, with a base model that is saved in f32 or with a lower learning_rate in a \
             TOML file that --config names"
        }
        (Situation::BeyondHalf, Unlearn) => {
            "the trained network is kept: give the same command with --resume and --dtype bf16 or --dtype f32"
        }
        (Situation::BeyondItsType, Unlearn) => {
            "the trained network is kept: give the same command with --resume and --dtype f32"
        }
        (Situation::BeyondFixedType, Unlearn) => {
            "save the base model as one .safetensors file and start again with --dtype f32, or with a lower --lr"
        }
        (Situation::BrokenChain, Unlearn) => {
            "put back the file as it was, or move it away, which begins a new record: images of earlier requests are then \
             retained where they still lie in the data, unless --forget names them again"
        }
        (Situation::BrokenChain, Speaker::History) => {
            "put back the file as it was: there is nothing else that says what was forgotten"
        }
        (Situation::ForgetsByAdapter, _) => {
            "fold it in with `retrack merge --model DIR --out DIR` and give the folder that this writes"
        }
        (Situation::Repeated, Unlearn) => {
            "`retrack evaluate` says whether it is back, and --always, without --no-calibrate, forgets it again"
        }
        (Situation::Repeated, Experiment) => {
            "`retrack evaluate` says whether it is back; compare methods on a model that was not made to forget it"
        }
        (Situation::SealedApart, Unlearn) => {
            "--keep-sealed KEYFILE measures by them, and goes on keeping them"
        }
        (Situation::SealedApart, _) => {
            "`retrack unlearn --keep-sealed` measures by them, and goes on keeping them"
        }
        (Situation::NoClass, _) => "`retrack sample --class` draws them one class at a time",
        (Situation::ForeignScheduler, _) => "`retrack sample --scheduler` can choose another",
        (Situation::BeyondHalf | Situation::BeyondItsType | Situation::BeyondFixedType, _) => {
            "`retrack unlearn --dtype f32` can hold it"
        }
        _ => return None,
    };
    Some(advice)
}
