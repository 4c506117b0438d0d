//! What the numbers of an experiment's table rest on, in words.

use retrack_checkpoint::words::counted;
use retrack_eval::metric::Metric;

use crate::evaluation::Protocol;

/// What the numbers of a table rest on. `metrics`: those that are measured; `classes`: the model has some.
pub(super) fn caption(
    protocol: &Protocol,
    metrics: &[&'static dyn Metric],
    forget: &[String],
    seeds: &[u64],
    classes: bool,
) -> String {
    let scheduler = protocol.scheduler.map_or_else(
        || "the model's own scheduler".to_string(),
        |name| {
            let name = serde_json::to_value(name).expect("a name");
            name.as_str().unwrap_or_default().to_uppercase()
        },
    );
    let looks = metrics.iter().any(|metric| metric.looks_for_the_image());
    let counts = match (protocol.guidance, protocol.threshold) {
        (Some(_), _) => String::new(),
        _ if !looks => String::new(),
        (None, Some(threshold)) => format!(
            " A picture counts as a forgotten image when it is nearer to it than {threshold} (Euclidean, pixels in [0, 1])."
        ),
        (None, None) => " A picture counts as a forgotten image when its distance to it is less than half of that image's \
                         distance to its nearest retained image that is no copy."
            .into(),
    };
    let draws = protocol.draws(metrics);
    let class = match protocol.class {
        _ if !draws => String::new(),
        Some(class) => format!(" Samples are of class {class}."),
        None if classes => " Samples are of the forgotten images' classes.".into(),
        None => String::new(),
    };
    let drawn = match draws {
        true => format!(
            " {} a run, {scheduler} with {}.",
            counted(protocol.samples, "sample"),
            counted(protocol.sampling_steps, "step"),
        ),
        false => String::new(),
    };
    format!(
        "Mean ± standard deviation over runs: seeds {}, forgotten {}.{drawn}{counts}{class}\n",
        seeds
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        forget.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use retrack_eval::metrics::named;

    use super::*;
    use crate::settings::Experiment;

    #[test]
    fn a_caption_speaks_of_samples_where_a_metric_draws_some_and_of_copies_where_one_looks_for_them()
     {
        let preset = Experiment::resolve("cifar10", None).unwrap().protocol;
        let said = |names: &[&str], protocol: &Protocol| {
            let metrics: Vec<_> = names.iter().filter_map(|name| named(name)).collect();
            let protocol = Protocol {
                metrics: metrics.clone(),
                ..protocol.clone()
            };
            caption(&protocol, &metrics, &["row:1".into()], &[0], true)
        };
        for metrics in [&["nll"][..], &["nll", "membership"]] {
            let said = said(metrics, &preset);
            assert_eq!(
                said,
                "Mean ± standard deviation over runs: seeds 0, forgotten row:1.\n"
            );
        }
        let injection = said(&["injection", "nll"], &preset);
        assert!(
            injection.contains("A picture counts") && !injection.contains("DDIM"),
            "{injection}"
        );
        assert!(!injection.contains("ample"), "{injection}");
        let fid = said(&["nll", "fid"], &preset);
        assert!(
            fid.contains("50000 samples a run, DDIM with 50 steps."),
            "{fid}"
        );
        assert!(
            fid.contains("Samples are of the forgotten") && !fid.contains("A picture"),
            "{fid}"
        );
        let prompted = Protocol {
            guidance: Some(7.5),
            ..preset
        };
        let prompted = said(&["sscd"], &prompted);
        assert!(prompted.contains("samples a run, DDIM"), "{prompted}");
    }
}
