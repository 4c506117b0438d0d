//! What a report says of its own numbers, made again for `retrack verify`: a page whose numbers are right and whose
//! verdict, tables or pictures are somebody's invention is not the page of its run.

use retrack_eval::pictures::apart;
use retrack_eval::report::{Fact, Outcome, Report, Request};
use serde::Serialize;
use serde_json::Value;

use super::{Evidence, Run};
use crate::evidence::card;
use crate::evidence::probe::{Measurement, Probe};
use crate::failure::Failure;
use crate::reopened::WeightFacts;

/// Pixels of a picture, 0 to 255, may differ by this, as the root of their mean square: another processor rounds
/// otherwise.
const PIXELS: f64 = 2.0;
/// Numbers may differ by this share: what is read of a decimal number is not always the nearest one.
const DIGITS: f64 = 1e-9;

impl<'a> Evidence<'a> {
    /// The measurements of a run whose report is there. `before`: with the numbers that are recorded.
    pub fn again(run: &'a Run<'a>, probe: Probe<'a>, before: Measurement) -> Self {
        Self {
            run,
            probe,
            before,
            after: None,
            every: 1,
            seconds: 0.0,
        }
    }

    /// The parts of a report that do not say what its numbers say, and the pictures that are not what the models draw:
    /// sentences. `after`: with the numbers that are recorded. `weights`: as recorded. `events`: those of the run.
    /// `diverged`: what may be advised where a training diverged.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn differences(
        &self,
        recorded: &Report,
        after: &Measurement,
        weights: Option<&WeightFacts>,
        events: &[Value],
        diverged: &[&str],
    ) -> Result<Vec<String>, Failure> {
        let mut again = Report {
            title: self.title(),
            verdict: self.verdict(&after.numbers, weights),
            request: recorded.request.clone().map(|request| Request {
                picture: None,
                ..request
            }),
            samples: None,
            restoration: Vec::new(),
            metrics: vec![self.scores(&after.numbers)],
            comparisons: vec![self.errors(&after.numbers)],
            curves: self.curves(events, &after.numbers),
            pictures: Default::default(),
            ..recorded.clone()
        };
        if let Some(neighbors) = &mut again.neighbors {
            let known = |row: &usize| *row < self.run.data.len();
            let groups = neighbors.groups.iter();
            if !groups
                .flat_map(|group| group.rows.iter().chain([&group.of]))
                .all(known)
            {
                return Ok(vec![
                    "the neighbors' rows are not in the data set".to_string(),
                ]);
            }
            neighbors.picture = None;
        }
        self.show(&mut again, after)?;
        if self.may_advise(&recorded.verdict.next, &again, diverged) {
            again.verdict.next.clone_from(&recorded.verdict.next);
        }

        let mut found = Vec::new();
        let mut differs = |what: &str| found.push(format!("run/report.json: {what}"));
        let not_of_numbers = "is not what the run's numbers say";
        for (what, alike) in [
            ("the title", recorded.title == again.title),
            ("the verdict", alike(&recorded.verdict, &again.verdict)),
            (
                "what is said of the samples",
                alike(&recorded.samples, &again.samples),
            ),
            (
                "what came back from noise",
                alike(&recorded.restoration, &again.restoration),
            ),
            (
                "the table of scores",
                alike(&recorded.metrics, &again.metrics),
            ),
            (
                "the chart of the errors",
                alike(&recorded.comparisons, &again.comparisons),
            ),
            (
                "a curve over the steps",
                alike(&recorded.curves, &again.curves),
            ),
        ] {
            if !alike {
                differs(&format!("{what} {not_of_numbers}"));
            }
        }
        let mut facts = self.counts();
        facts.push(Fact::new("Method", card::method_name(self.run.settings)));
        let request = recorded.request.as_ref();
        let said = request.map_or(&[][..], |request| &request.facts);
        let made = [
            Fact::new("Seed", self.run.settings.seed),
            Fact::new("Data set, SHA-256", self.run.data.digest()?),
        ];
        let weights = weights.map(|weights| Fact::new("Weights", weights.sentence()));
        let made: Vec<Fact> = made.into_iter().chain(weights).collect();
        for (facts, said) in [(facts, said), (made, &recorded.provenance.facts)] {
            for fact in facts {
                let same = said.iter().filter(|one| one.name == fact.name);
                if same.collect::<Vec<_>>() != [&fact] {
                    differs(&format!("\"{}\" is not \"{}\"", fact.name, fact.value));
                }
            }
        }
        let picture = |report: &Report| report.request.as_ref()?.picture.clone();
        let neighbors = |report: &Report| report.neighbors.as_ref()?.picture.clone();
        let names = |report: &Report| report.pictures.keys().cloned().collect::<Vec<_>>();
        if picture(recorded) != picture(&again)
            || neighbors(recorded) != neighbors(&again)
            || names(recorded) != names(&again)
        {
            differs("other pictures than the run's");
        }
        for (name, then) in &recorded.pictures {
            let Some(now) = again.pictures.get(name) else {
                continue;
            };
            let same = apart(&then.png, &now.png).is_some_and(|apart| apart <= PIXELS);
            if !same || (then.width, then.height) != (now.width, now.height) {
                differs(&format!("the picture {name} is not what the models draw"));
            } else if (&then.caption, &then.alt) != (&now.caption, &now.alt) {
                differs(&format!("the caption of {name} {not_of_numbers}"));
            }
        }
        Ok(found)
    }

    /// Whether a run could advise this: it knew the output folder as it was typed, and was that of a demo or not.
    fn may_advise(&self, next: &str, again: &Report, diverged: &[&str]) -> bool {
        if again.verdict.outcome != Outcome::Inconclusive {
            return false;
        }
        let out = format!("--model {}", self.run.args.out.display());
        let unclear = again.verdict.next.split_once(&out);
        let is_unclear =
            unclear.is_some_and(|(head, tail)| next.starts_with(head) && next.ends_with(tail));
        match unclear {
            Some(_) => is_unclear,
            None => {
                !again.verdict.next.is_empty()
                    && diverged.iter().any(|advice| format!("{advice}.") == next)
            }
        }
    }
}

/// Whether two parts say the same, in the words of their JSON.
pub fn alike(then: &impl Serialize, now: &impl Serialize) -> bool {
    let then = serde_json::to_value(then).expect("plain data");
    let now = serde_json::to_value(now).expect("plain data");
    same(&then, &now)
}

fn same(then: &Value, now: &Value) -> bool {
    match (then, now) {
        (Value::Number(then), Value::Number(now)) => {
            let [then, now] = [then, now].map(|number| number.as_f64().unwrap_or(f64::NAN));
            then == now || (then - now).abs() <= DIGITS * then.abs()
        }
        (Value::Array(then), Value::Array(now)) => {
            then.len() == now.len() && then.iter().zip(now).all(|(then, now)| same(then, now))
        }
        (Value::Object(then), Value::Object(now)) => {
            then.len() == now.len()
                && then
                    .iter()
                    .all(|(key, then)| now.get(key).is_some_and(|now| same(then, now)))
        }
        (then, now) => then == now,
    }
}
