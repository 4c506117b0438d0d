//! `retrack history`: the requests that a model was made by, and whether they are what made it.

use std::path::Path;

use retrack_checkpoint::chain::{Chain, NAME, Request, Weights};
use retrack_checkpoint::folder::ModelFolder;
use retrack_checkpoint::words::counted;
use retrack_data::digest::sha256;
use serde_json::{Value, json};

use super::weights;
use crate::failure::Failure;
use crate::folders::digests;
use crate::situation::{self, Situation};
use crate::{interrupt, progress};

/// The requests of a model, and what does not fit.
#[derive(Debug, Clone)]
pub struct History {
    /// As it lies in the folder.
    pub chain: Chain,
    /// What does not fit: sentences.
    pub problems: Vec<String>,
}

/// Reads and checks the chain of the model in `folder`.
///
/// # Errors
/// A folder that holds no model or no chain, or a file that is none. What does not fit is no error.
pub fn history(folder: &Path) -> Result<History, Failure> {
    interrupt::kept("nothing was changed");
    let record = folder.join(NAME);
    let record = record.display();
    let chain = Chain::read(folder).map_err(|error| {
        Failure::input(format!(
            "{error}; {}",
            situation::advice(Situation::BrokenChain)
        ))
    })?;
    let model = ModelFolder::open(folder)?;
    let Some(chain) = chain else {
        return Err(Failure::input(format!(
            "{record}: not there: no request made this model, or one of a version that kept no record; {}",
            situation::advice(Situation::NoHistory)
        )));
    };
    let reading = progress::activity("reading the weights");
    let now = weights(&model, &digests(&model)?)?;
    drop(reading);
    let mut problems = Vec::new();
    for number in chain.misfits() {
        problems.push(format!(
            "{record}: request {number} began with other weights than request {} wrote: the record was changed, or a request \
             is missing",
            number - 1
        ));
    }
    for (request, number) in chain.requests.iter().zip(1..) {
        if request.changed_before {
            problems.push(format!(
                "{record}: something else had changed the weights before request {number}, which may have taught again what \
                 was forgotten"
            ));
        }
    }
    for name in chain.changed(&now) {
        problems.push(format!(
            "{}: not what the last request wrote, by its SHA-256",
            folder.join(name).display()
        ));
    }
    Ok(History { chain, problems })
}

impl History {
    /// For programs: the file's content, and what does not fit.
    pub fn json(&self) -> Value {
        json!({
            "intact": self.problems.is_empty(),
            "problems": self.problems,
            "requests": self.chain.requests,
        })
    }

    /// What the check found, in a sentence for people; nothing where something does not fit.
    pub fn sentence(&self) -> Option<String> {
        let requests = counted(self.chain.requests.len(), "request");
        self.problems.is_empty().then(|| {
            format!(
                "intact: {requests}, each begun with the weights that the one before wrote; the folder's are the last one's"
            )
        })
    }

    /// For people: a line for each request, and one with what its tests found. At most 80 columns, but for a verdict.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![line([
            "#",
            "date (UTC)",
            "images",
            "method",
            "steps",
            "weights before, after",
        ])];
        for (request, number) in self.chain.requests.iter().zip(1..) {
            lines.push(line([
                &number.to_string(),
                &request.date,
                &request.images.len().to_string(),
                &method(request),
                &request
                    .steps()
                    .map_or("-".into(), |steps| steps.to_string()),
                &format!("{}, {}", short(&request.before), short(&request.after)),
            ]));
            let again = match request.again.len() {
                0 => None,
                some => Some(format!(
                    "come back and forgotten again: {} of earlier requests",
                    counted(some, "image")
                )),
            };
            for more in request.verdict.iter().cloned().chain(again) {
                lines.push(format!("     {more}"));
            }
        }
        lines
    }
}

fn line([number, date, images, method, steps, weights]: [&str; 6]) -> String {
    format!("{number:>3}  {date:<16}  {images:>6}  {method:<14}  {steps:>5}  {weights}")
}

fn method(request: &Request) -> String {
    let method = request.method().unwrap_or(&request.command).to_owned();
    match request.adapter_rank {
        Some(_) => method + ", lora",
        None => method,
    }
}

/// The first digits of a digest: of the only file, or of all of them with their names.
fn short(weights: &Weights) -> String {
    let digest = match weights.first_key_value() {
        Some((_, digest)) if weights.len() == 1 => digest.clone(),
        _ => {
            let lines = weights
                .iter()
                .map(|(name, digest)| format!("{name} {digest}\n"));
            let all: String = lines.collect();
            retrack_checkpoint::hex::hex(&sha256(all.as_bytes()))
        }
    };
    digest.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_fits_eighty_columns() {
        let weights = |of: &str| -> Weights { [("unet/w".to_string(), of.repeat(64))].into() };
        let request = Request {
            date: "2026-11-28 08:30".into(),
            settings: json!({"method": "erasediff", "steps": 10_000}),
            adapter_rank: Some(4),
            images: vec!["a".repeat(64); 10_000],
            again: vec!["b".repeat(64); 100],
            before: weights("1"),
            after: weights("2"),
            verdict: Some("Unknown: the forgotten images are no longer found".into()),
            ..Request::default()
        };
        let history = History {
            chain: Chain {
                requests: vec![request; 100],
                ..Chain::new("c".repeat(64))
            },
            problems: Vec::new(),
        };
        let lines = history.lines();
        assert_eq!(lines.len(), 1 + 3 * 100);
        for line in &lines {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert_eq!(
            lines[298],
            "100  2026-11-28 08:30   10000  erasediff, lora  10000  11111111, 22222222"
        );
    }
}
