//! The pictures of an unlearning run's report, and what stands in for those that may not be shown.

use retrack_checkpoint::words::{counted, listed};
use retrack_eval::report::*;

use super::Evidence;
use crate::evidence::pictures::{covered, grid, show_samples};
use crate::evidence::probe::{Measurement, Numbers};
use crate::failure::Failure;
use retrack_eval::examined::each_once;

impl Evidence<'_> {
    /// A grid of samples for TensorBoard, if they can be drawn.
    pub(super) fn picture(&self, of: &Measurement) -> Result<Option<Vec<u8>>, Failure> {
        let shape = self.run.data.shape();
        if !matches!(shape.channels, 1 | 3) || of.samples.is_empty() {
            return Ok(None);
        }
        // TensorBoard's files are passed on without a second look: covered in any case.
        let (shown, _) = covered(&of.samples, &of.sights, shape, false);
        let columns = (of.sights.len() as f64).sqrt().ceil() as usize;
        grid(&shown, shape, columns).map(Some)
    }

    /// The pictures, and what stands in for those that may not be shown.
    pub(super) fn show(&self, report: &mut Report, after: &Measurement) -> Result<(), Failure> {
        let shape = self.run.data.shape();
        let show = self.run.args.show_forgotten;
        if show && matches!(shape.channels, 1 | 3) {
            self.show_forgotten(report)?;
            self.show_neighbors(report)?;
        }
        if self.run.text_to_image {
            return Ok(());
        }
        let plan = &self.probe.plan;
        let forgotten = self.probe.forgotten;
        let mut hidden = 0;
        let mut names = Vec::new();
        for (name, title, measured) in [
            ("samples-before", "Before", &self.before),
            ("samples-after", "After", after),
        ] {
            let covered = show_samples(
                report,
                name,
                title,
                &measured.samples,
                &measured.sights,
                shape,
                show,
            )?;
            names.extend(covered.map(|_| name.to_string()));
            hidden += covered.unwrap_or(0);
        }
        report.samples = Some(Samples {
            note: format!(
                "{} of each model, drawn by {} in {} steps from the same noise, {}. {}{}",
                counted(plan.samples, "sample"),
                plan.sampler_name(),
                plan.sampling_steps,
                match plan.is_own_sampler(self.probe.scheduler) {
                    true => "as `retrack sample` draws with the model's own scheduler",
                    false => "in place of the model's own scheduler, which is not built here",
                },
                forgotten.rule(),
                self.classes_note() + &covered_note(hidden) + &broken_note([&self.before, after])
            ),
            pictures: names,
        });
        let mut restoration = self.restoration(after);
        if !matches!(shape.channels, 1 | 3) {
            restoration.withheld = None;
        } else if show {
            let rows = [
                &self.probe.noised()[..],
                &self.before.restored,
                &after.restored,
            ]
            .concat();
            let caption = "Noised above, restored by the model before in the middle, by the model after below";
            let alt = format!(
                "{caption}: {} attempts side by side. Before, {} count as the forgotten image; after, {}.",
                plan.tries, self.before.numbers.restored, after.numbers.restored
            );
            let name =
                report.add_picture("restored", caption, &alt, grid(&rows, shape, plan.tries)?);
            restoration.pictures.push(name);
            restoration.withheld = None;
        }
        report.restoration = vec![restoration];
        Ok(())
    }

    /// Of a network with classes: those that its samples are of.
    fn classes_note(&self) -> String {
        let rows = self.probe.forgotten.rows.iter();
        let labels = rows.take(self.probe.plan.samples);
        let labels: Vec<i64> = labels
            .map(|&row| self.run.data.label(row).unwrap_or(0))
            .collect();
        match (self.run.labels, &each_once(&labels)[..]) {
            (false, _) => String::new(),
            (true, [one]) => format!(" They are of class {one}, that of what is to be forgotten."),
            (true, several) => format!(
                " They are of the classes {}, those of what is to be forgotten.",
                listed(several)
            ),
        }
    }

    fn show_forgotten(&self, report: &mut Report) -> Result<(), Failure> {
        let (forgotten, shape) = (self.probe.forgotten, self.run.data.shape());
        let count = forgotten.len().min(16);
        let first = &forgotten.pixels[..count * shape.bytes()];
        let caption = format!("To be forgotten: {}", counted(count, "distinct image"));
        let name = report.add_picture("forgotten", &caption, &caption, grid(first, shape, 8)?);
        report.request.as_mut().expect("set above").picture = Some(name);
        Ok(())
    }

    fn restoration(&self, after: &Measurement) -> Restoration {
        let plan = &self.probe.plan;
        let forgotten = self.probe.forgotten;
        let of = |name: &str, numbers: &Numbers| Attempts {
            name: name.into(),
            restored: numbers.restored,
            tries: numbers.distances.len(),
            mean_distance: retrack_eval::distance::mean(&numbers.distances),
        };
        let row = |name: &str, kind, distances: &[f64]| DotRow {
            name: name.into(),
            kind,
            values: distances.to_vec(),
        };
        let (before, now) = (&self.before.numbers, &after.numbers);
        let look_alikes = [("look-alikes, before", before), ("look-alikes, after", now)]
            .into_iter()
            .filter(|(_, numbers)| !numbers.look_alike_distances.is_empty())
            .map(|(name, numbers)| row(name, Kind::Control, &numbers.look_alike_distances));
        let reach = forgotten
            .reach
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min);
        let marks = reach.is_finite().then(|| Mark {
            name: "nearest retained image".into(),
            value: reach,
        });
        Restoration {
            title: format!("Noised to timestep {} and denoised again", plan.timestep),
            note: format!(
                "The forgotten images were noised to timestep {} of {} and denoised by each model with the same noise \
                 (ancestral sampling, {} steps of the whole schedule). A model that memorized an image brings it back. \
                 {}{}",
                plan.timestep,
                self.probe.scheduler.num_train_timesteps,
                plan.restoring_steps,
                match plan.look_alikes {
                    true => "The same is done with look-alikes, which no model saw, and so late in the process that \
                             the model before hardly brings these back, if there is such a time. ",
                    false => "",
                },
                forgotten.rule()
            ),
            attempts: [("before", before), ("after", now)]
                .into_iter()
                // Where none led to an image there is no distance.
                .filter(|(_, numbers)| !numbers.distances.is_empty())
                .map(|(name, numbers)| of(name, numbers))
                .collect(),
            chart: DotChart {
                title: "Distance of each attempt to the image that it began with".into(),
                note: "Near zero, the image came back.".into(),
                x: Axis::linear("Euclidean distance, pixels in [0, 1]"),
                rows: [("before", Kind::Before, before), ("after", Kind::After, now)]
                    .into_iter()
                    .map(|(name, kind, numbers)| row(name, kind, &numbers.distances))
                    .chain(look_alikes)
                    .collect(),
                marks: marks.into_iter().collect(),
            },
            pictures: Vec::new(),
            withheld: Some(
                "The attempts begin with the forgotten image, so what they lead to is not shown. For a report with \
                 pictures, for the eyes of who may see them, run again with --show-forgotten."
                    .into(),
            ),
        }
    }

    fn show_neighbors(&self, report: &mut Report) -> Result<(), Failure> {
        let shape = self.run.data.shape();
        let Some(neighbors) = &mut report.neighbors else {
            return Ok(());
        };
        let mut image = vec![0; shape.bytes()];
        let (mut pixels, mut columns) = (Vec::new(), 1);
        for group in neighbors.groups.iter().take(8) {
            let row: Vec<usize> = std::iter::once(group.of)
                .chain(group.rows.iter().copied())
                .take(11)
                .collect();
            columns = row.len();
            for row in row {
                self.run.data.read(row, &mut image)?;
                pixels.extend_from_slice(&image);
            }
        }
        if pixels.is_empty() {
            return Ok(());
        }
        neighbors.picture = Some("neighbors".into());
        let caption = "Each row: a forgotten image first, then its nearest retained images";
        report.add_picture(
            "neighbors",
            caption,
            caption,
            grid(&pixels, shape, columns)?,
        );
        Ok(())
    }
}

/// Of samples that are no images.
fn broken_note(measured: [&Measurement; 2]) -> String {
    let broken = measured.map(|one| one.sights.len().saturating_sub(one.numbers.samples));
    match broken {
        [0, 0] => String::new(),
        [before, after] => format!(
            " Crossed out are samples that hold values that are not finite and so are no images: {before} before, {after} \
             after."
        ),
    }
}

fn covered_note(hidden: usize) -> String {
    match hidden {
        0 => String::new(),
        1 => " One is covered: it is nearer to a forgotten image than retained images are (--show-forgotten shows it)."
            .into(),
        many => format!(
            " {many} are covered: they are nearer to a forgotten image than retained images are (--show-forgotten shows \
             them)."
        ),
    }
}
