//! What happened at each step of a run: one line in `events.jsonl`, and the same for TensorBoard.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::run::{ELAPSED, EVENTS, RunError, RunFolder};
use crate::tensorboard::EventWriter;
use retrack_checkpoint::durable;
use retrack_unlearn::trainer::StepReport;

/// The record of each step: `events.jsonl` and TensorBoard.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    lines: File,
    tensorboard: EventWriter,
}

impl EventLog {
    /// A new record, or one that goes on after `step` steps: what an interrupted run wrote beyond is
    /// dropped.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(run: &RunFolder, step: usize) -> Result<Self, RunError> {
        let path = run.folder().join(EVENTS);
        let io_error = |source| RunError::Io {
            path: path.clone(),
            source,
        };
        let (mut kept, mut dropped) = (Vec::new(), 0);
        if path.exists() {
            let file = BufReader::new(File::open(&path).map_err(io_error)?);
            for line in file.lines() {
                let line = line.map_err(io_error)?;
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                match event.get("step").and_then(Value::as_u64) {
                    Some(of) if of <= step as u64 => kept.push(line),
                    Some(_) => dropped += 1,
                    None => {}
                }
            }
        }
        if dropped > 0 {
            run.repeat(dropped)?;
        }
        durable::write(&path, |out| {
            kept.iter().try_for_each(|line| writeln!(out, "{line}"))
        })
        .map_err(io_error)?;
        let lines = OpenOptions::new().append(true).open(&path);
        let mut tensorboard = EventWriter::create(&run.folder())?;
        if step > 0 {
            tensorboard.resume_at(step as u64 + 1)?;
        }
        Ok(Self {
            lines: lines.map_err(io_error)?,
            path,
            tensorboard,
        })
    }

    /// Records one step of `run`, and what else was seen after it.
    ///
    /// # Errors
    /// The disk's.
    pub fn record(
        &mut self,
        run: &RunFolder,
        report: &StepReport,
        more: &[(&str, f64)],
    ) -> Result<(), RunError> {
        let losses = &report.losses;
        let mut event = json!({
            "step": report.step,
            "loss": losses.loss,
            "gradient_norm": report.gradient_norm,
            "learning_rate": report.learning_rate,
            "seconds": report.seconds,
            ELAPSED: run.seconds(),
        });
        let mut scalars = vec![
            ("loss", losses.loss as f32),
            ("gradient_norm", report.gradient_norm as f32),
            ("learning_rate", report.learning_rate as f32),
            ("seconds", report.seconds as f32),
        ];
        let terms = [
            ("retain_loss", losses.retain),
            ("forget_loss", losses.forget),
            ("correction_loss", losses.correction),
            ("watched_retain_loss", report.watched_retain),
            ("collapse_factor", report.collapsed),
        ];
        for (name, term) in terms {
            if let Some(term) = term {
                event[name] = term.into();
                scalars.push((name, term as f32));
            }
        }
        for &(name, value) in more {
            event[name] = value.into();
            scalars.push((name, value as f32));
        }
        writeln!(self.lines, "{event}").map_err(|source| RunError::Io {
            path: self.path.clone(),
            source,
        })?;
        self.tensorboard.scalars(report.step as u64, &scalars)?;
        self.tensorboard.flush()?;
        Ok(())
    }

    /// Adds to the record of `step`, which is the last one, what was seen after it and is not in it yet.
    ///
    /// # Errors
    /// The disk's.
    pub fn complete(&mut self, step: usize, more: &[(&str, f64)]) -> Result<(), RunError> {
        if more.is_empty() {
            return Ok(());
        }
        let io_error = |source| RunError::Io {
            path: self.path.clone(),
            source,
        };
        let text = fs::read_to_string(&self.path).map_err(io_error)?;
        let mut lines: Vec<&str> = text.lines().collect();
        let last = lines.pop().unwrap_or_default();
        let mut event: Value = serde_json::from_str(last).unwrap_or_default();
        if event.get("step").and_then(Value::as_u64) != Some(step as u64) {
            return Ok(());
        }
        let missing = more.iter().filter(|(name, _)| event.get(name).is_none());
        let missing: Vec<(&str, f64)> = missing.copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        for &(name, value) in &missing {
            event[name] = value.into();
        }
        durable::write(&self.path, |out| {
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            writeln!(out, "{event}")
        })
        .map_err(io_error)?;
        // The file that was open is replaced.
        let opened = OpenOptions::new().append(true).open(&self.path);
        self.lines = opened.map_err(io_error)?;
        let scalars: Vec<(&str, f32)> = missing
            .iter()
            .map(|&(name, value)| (name, value as f32))
            .collect();
        self.tensorboard.scalars(step as u64, &scalars)?;
        Ok(self.tensorboard.flush()?)
    }

    /// Records a picture, the bytes of a PNG file.
    ///
    /// # Errors
    /// The disk's.
    pub fn picture(&mut self, step: usize, tag: &str, png: &[u8]) -> Result<(), RunError> {
        self.tensorboard.image(step as u64, tag, png)?;
        Ok(self.tensorboard.flush()?)
    }
}
