//! How a model denoises forgotten images beside look-alikes.

use retrack_data::Dataset;
use retrack_eval::subject::Subject;
use retrack_networks::denoiser::Denoiser;

use crate::calibration::{Pictures, Purpose, REPORTED, Standing, Viewer, kept};
use crate::chain::Recorded;
use crate::failure::Failure;

/// What look-alikes of the first forgotten images are made of; nothing unless anything `looks` for these.
///
/// # Errors
/// An image that cannot be read.
pub(super) fn pictures<'a>(
    subject: &Subject<'a>,
    looks: bool,
    seed: u64,
) -> Result<Pictures<'a>, Failure> {
    let data = subject.data;
    let rows = &subject.forgotten.rows;
    let pictures = match looks {
        true => {
            let rows = &rows[..rows.len().min(REPORTED)];
            let kept = kept(data, &subject.forgotten.others)?;
            Pictures::read(data, rows, kept, &[Purpose::Report], seed)?
        }
        false => Pictures::read(data, &[], Vec::new(), &[], seed)?,
    };
    Ok(pictures.without_mirrors_of(&subject.split.mirrored()))
}

/// Where they stand to a network. `recorded`: the requests of its model.
///
/// # Errors
/// An image that does not fit the network or cannot be read.
pub(super) fn standings(
    viewer: &Viewer,
    network: &dyn Denoiser,
    data: &Dataset,
    recorded: Option<&Recorded>,
) -> Result<Vec<Standing>, Failure> {
    let standings = viewer.reported(network, &viewer.ordinary(network)?)?;
    let Some(recorded) = recorded else {
        return Ok(standings);
    };
    let judged = standings.into_iter().enumerate().map(|(image, standing)| {
        let led = recorded.led(data, viewer.look_alikes.rows[image])?;
        viewer.with_led(network, image, standing, led)
    });
    judged.collect()
}
