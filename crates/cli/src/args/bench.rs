//! `retrack bench` as it is typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use retrack_study::bench::{NetworkWork, SearchWork};

use super::{MachineArgs, heading};

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  retrack bench step --arch config.json --batch-size 8 --threads 2
  retrack bench neighbors --rows 50000 --bytes 3072

Weights and pixels are random. One untimed run comes first; times are the best and the median of --repeat others.")]
pub enum BenchCommand {
    /// One ReTrack step: both forwards, backward, clipping, AdamW
    Step(BenchNetworkArgs),
    /// The network's output, without autodiff
    Predict(BenchNetworkArgs),
    /// Whole images by the DDPM sampler
    Sample(BenchSampleArgs),
    /// Nearest neighbors of random bytes in memory
    Neighbors(BenchNeighborsArgs),
}

#[derive(Debug, Clone, ClapArgs)]
pub struct BenchNetworkArgs {
    /// The network: a UNet2DModel's config.json
    #[arg(long, value_name = "CONFIG.json")]
    pub arch: PathBuf,
    /// Images computed together; in `step` of each stream, retained and forgotten
    #[arg(long, value_name = "B")]
    pub batch_size: usize,
    /// Timed runs
    #[arg(long, default_value_t = 5, value_name = "R")]
    pub repeat: usize,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct BenchSampleArgs {
    #[command(flatten)]
    pub network: BenchNetworkArgs,
    /// Denoising steps
    #[arg(long, default_value_t = 50, value_name = "S")]
    pub steps: usize,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct BenchNeighborsArgs {
    /// Images to search
    #[arg(long, value_name = "N")]
    pub rows: usize,
    /// Bytes of an image
    #[arg(long, value_name = "D")]
    pub bytes: usize,
    /// Images whose neighbors are looked for together
    #[arg(long, default_value_t = 1, value_name = "Q")]
    pub queries: usize,
    /// How many of each
    #[arg(long, default_value_t = 10, value_name = "K")]
    pub neighbors: usize,
    /// Timed runs
    #[arg(long, default_value_t = 5, value_name = "R")]
    pub repeat: usize,
    /// Threads on the CPU [default: all cores]
    #[arg(long, value_name = "T", help_heading = heading::MACHINE)]
    pub threads: Option<usize>,
}

impl BenchNetworkArgs {
    /// What is timed.
    pub fn work(&self) -> NetworkWork {
        let args = self.clone();
        NetworkWork {
            arch: args.arch,
            batch_size: args.batch_size,
            repeat: args.repeat,
            device: args.machine.device,
        }
    }
}

impl BenchNeighborsArgs {
    /// What is timed.
    pub fn work(&self) -> SearchWork {
        SearchWork {
            rows: self.rows,
            bytes: self.bytes,
            queries: self.queries,
            neighbors: self.neighbors,
            repeat: self.repeat,
        }
    }
}
