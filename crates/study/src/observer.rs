//! Who has a run made, and what is told of it as values rather than words.

use retrack_unlearn::trainer::StepReport;
use serde_json::Value;

/// Sees a run from outside. `()` looks away.
pub trait Observer {
    /// What a dry run would do, and what it needs.
    fn planned(&mut self, plan: &Value) {
        let _ = plan;
    }

    /// A step that was taken and recorded.
    fn step(&mut self, step: &StepReport) {
        let _ = step;
    }
}

impl Observer for () {}
