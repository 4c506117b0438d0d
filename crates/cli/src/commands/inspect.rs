//! `retrack inspect`: what a folder holds.

use retrack_study::failure::Failure;
use retrack_study::inspect::inspect;
use serde_json::Value;

use crate::args::InspectArgs;
use crate::progress::say;

pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let facts = inspect(&args.path, &args.reading.reading())?;
    if args.json {
        say!("{}", Value::Object(facts));
        return Ok(());
    }
    let width = facts.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in &facts {
        let value = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        say!("{:<width$}  {value}", key.replace('_', " "));
    }
    Ok(())
}
