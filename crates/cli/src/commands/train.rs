//! `retrack train`: a DDPM from scratch.

use retrack_checkpoint::words::counted;
use retrack_study::failure::Failure;
use retrack_study::interrupt;
use retrack_study::train::{Training, train};

use crate::args::TrainArgs;
use crate::progress::{self, Printed};

pub fn run(args: &TrainArgs) -> Result<(), Failure> {
    interrupt::goes_on("the same command with --resume goes on");
    let training = Training {
        data: args.data.source(),
        arch: args.arch.clone(),
        out: args.out.clone(),
        exclude: args.exclude.clone(),
        steps: args.steps,
        batch_size: args.batch_size,
        accumulate: args.accumulate,
        learning_rate: args.lr,
        warmup: args.warmup,
        seed: args.seed,
        checkpoint_every: args.checkpoint_every,
        resume: args.resume,
        force: args.force,
        dry_run: args.dry_run,
        device: args.machine.device.clone(),
    };
    if let Some(trained) = train(&training, &mut Printed)? {
        progress::tell(format_args!(
            "trained on {} for {}; model in {}",
            counted(trained.images, "image"),
            counted(args.steps, "step"),
            args.out.display()
        ));
    }
    Ok(())
}
