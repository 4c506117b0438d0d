//! `retrack demo`: a small model that memorized a T-shirt among digits forgets it.

use retrack_eval::frequency::Frequency;
use retrack_study::demo::{self, Assets, Demo, PROBES, Shown};
use retrack_study::evidence;
use retrack_study::failure::Failure;
use retrack_study::interrupt;

use crate::args::DemoArgs;
use crate::progress::{self, Printed, say};

/// The data and the model that are shipped.
const ASSETS: Assets = Assets {
    data: include_bytes!("../../assets/digits.parquet"),
    index: include_bytes!("../../assets/base-model/model_index.json"),
    scheduler: include_bytes!("../../assets/base-model/scheduler/scheduler_config.json"),
    config: include_bytes!("../../assets/base-model/unet/config.json"),
    weights: include_bytes!("../../assets/base-model/unet/diffusion_pytorch_model.safetensors"),
};

pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    interrupt::begins_again("the same command with --force starts again");
    let demo = Demo {
        assets: ASSETS,
        out: args.out.clone(),
        force: args.force,
        count: args.count,
        seed: args.seed,
        device: args.machine.device.clone(),
    };
    let shown = demo::run(&demo, &mut Printed)?;
    if args.json {
        say!("{}", shown.json);
    } else {
        print(args, &shown);
    }
    match shown.verdict {
        Some(verdict) => evidence::fail_if_found(args.fail_if_found, &verdict),
        None => Ok(()),
    }
}

fn print(args: &DemoArgs, shown: &Shown) {
    let share =
        |f: &Frequency| format!("{} of {} ({:.1}%)", f.repeats, f.samples, 100.0 * f.share());
    let found = &shown.outcome;
    say!();
    say!("                                        before              after");
    say!(
        "T-shirts among samples                  {:<20}{}",
        share(&found.before),
        share(&found.after)
    );
    say!(
        "T-shirts restored from half-way noise   {:<20}{}",
        share(&found.restored_before),
        share(&found.restored_after)
    );
    say!(
        "mean distance to the nearest real digit {:<20.2}{:.2}",
        found.digits.real_before,
        found.digits.real_after
    );
    progress::tell(format_args!(
        "A digit moved by {:.2} on average between the two samples of a seed; samples of different seeds are \
         {:.2} apart.",
        found.digits.moved, found.digits.apart
    ));
    if let Some(verdict) = &shown.verdict {
        say!();
        progress::tell(evidence::printed(verdict, &[]));
    }
    say!();
    let out = &args.out;
    progress::tell(format_args!(
        "{}  the report: open it in a browser",
        out.join(evidence::PAGE).display()
    ));
    progress::tell(format_args!(
        "{}  samples before; after.png the same seeds after",
        out.join("before.png").display()
    ));
    progress::tell(format_args!(
        "{}  the T-shirt, its noised form, and {PROBES} attempts to restore it: before above, after below",
        out.join("half-way.png").display()
    ));
    progress::tell(format_args!(
        "{}  the new model, for diffusers or `retrack sample --model`",
        out.join("model").display()
    ));
    progress::tell(format_args!("This took {:.0} s.", found.seconds));
}
