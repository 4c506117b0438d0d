//! Forgetting to *unknown*: a model that was never shown an image denoises it like any image of its kind that it does not
//! know, neither better (*known*) nor worse (*avoided*). Look-alikes of the forgotten image, made by small changes, are such
//! images: what the model makes of them before the run is the [`Level`](retrack_unlearn::level::Level) to which the
//! forgotten image is led, and what it makes of others of them afterwards shows whether it arrived.
//!
//! Two sets of look-alikes serve two purposes, and no image and no noise serves both: the level, and the decision when to stop.

mod course;
mod look_alikes;
mod standing;

pub use self::course::{Calibrated, Ending, FILE, ROUND, ROUNDS, Record, Round};
pub use self::look_alikes::{LookAlikes, Purpose};
pub use self::standing::{Context, Place, Standing, Viewer};
