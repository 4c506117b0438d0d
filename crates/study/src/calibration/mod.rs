//! Forgetting to *unknown*: a model that was never shown an image denoises it like any image of its kind that it does not
//! know, neither better (*known*) nor worse (*avoided*). Look-alikes of the forgotten image, made by small changes, are such
//! images: what the model makes of them before the run is the [`Level`](retrack_unlearn::level::Level) to which the
//! forgotten image is led, and what it makes of others of them afterwards shows whether it arrived.
//!
//! A changed picture is denoised somewhat better or worse than one that is as it was taken, whether the model knows it or not.
//! How much shows in look-alikes of retained images, beside these: known is what is denoised better than by that.
//!
//! Three sets of look-alikes serve three purposes, and no image and no noise serves two: the level, the decision when to
//! stop, and what is reported.
//!
//! Whoever has images that the model never saw gives them as [controls](retrack_eval::controls): they take the place of look-alikes
//! in the first two.
//!
//! A network of latents sees look-alikes as it sees images: they are changed as pictures, then encoded. They have the class or
//! the text of their image. Guidance plays no part: what is led and compared is the denoiser told the text, and what it makes
//! of no text, which sampling with guidance uses too, is neither looked at nor led.

mod course;
mod errors;
mod look_alikes;
mod standing;
mod table;
mod usual;
mod viewer;

pub use self::course::{Calibrated, Ending, FILE, ROUND, ROUNDS, Record, Requests, Round};
pub use self::look_alikes::{CONTROLS, LookAlikes, Pictures, Purpose, REPORTED, kept, with_first};
pub use self::standing::{Place, Standing};
pub use self::table::TABLE;
pub use self::usual::Ordinary;
pub use self::viewer::{Context, Viewer};
