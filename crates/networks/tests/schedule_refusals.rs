//! What is said of a scheduler's configuration that cannot be used: the key that is at fault, with its value.

use retrack_networks::schedule::{Sampler, SchedulerConfig, SchedulerKind};
use serde_json::{Value, json};

fn read(config: &Value) -> Result<SchedulerConfig, String> {
    SchedulerConfig::from_json(config).map_err(|error| error.to_string())
}

fn refused(config: &Value) -> String {
    read(config).expect_err(&config.to_string())
}

fn sampling(config: &Value, steps: usize) -> Result<Sampler, String> {
    let config = read(config)?;
    Sampler::new(config.kind, &config, steps).map_err(|error| error.to_string())
}

/// Every key that a message puts in front with a value is in the file with that value.
fn assert_names_what_is_there(config: &Value, text: &str) {
    let mut named = 0;
    for (at, _) in text.match_indices("`: ") {
        let key = text[..at].rsplit('`').next().unwrap();
        let value = &config[key];
        assert!(!value.is_null(), "{config} has no {key}: {text}");
        let shown = match value {
            Value::Array(items) => format!("a list of {} values", items.len()),
            other => other.to_string(),
        };
        let said = &text[at + 3..];
        assert!(
            said.starts_with(&shown) || said.starts_with("number "),
            "{config}: {text}"
        );
        named += 1;
    }
    assert!(named > 0, "{text}");
}

#[test]
fn betas_without_signal_are_blamed_by_the_keys_that_are_there_and_rescaling_only_where_it_is_asked_for()
 {
    for config in [
        json!({ "beta_end": 0.5 }),
        json!({ "beta_start": 0.5 }),
        json!({ "num_train_timesteps": 100_000 }),
        json!({ "num_train_timesteps": 50_000, "beta_end": 0.02, "rescale_betas_zero_snr": false }),
        json!({ "beta_schedule": "scaled_linear", "beta_start": 0.3, "beta_end": 0.9 }),
        json!({ "num_train_timesteps": 40, "trained_betas": vec![0.999; 40] }),
        json!({ "beta_end": 0.5, "rescale_betas_zero_snr": true }),
        json!({ "beta_end": 0.5, "prediction_type": "v_prediction", "timestep_spacing": "trailing" }),
    ] {
        let text = refused(&config);
        assert!(
            text.contains("nothing of the image is left") && !text.contains("rescale"),
            "{text}"
        );
        assert_names_what_is_there(&config, &text);
    }
    // As the remedies say.
    for config in [
        json!({ "num_train_timesteps": 10_000 }),
        json!({ "num_train_timesteps": 40, "trained_betas": vec![0.9; 40] }),
        json!({ "num_train_timesteps": 100_000, "beta_end": 0.0002 }),
    ] {
        assert!(read(&config).is_ok(), "{config}");
    }
}

#[test]
fn rescaled_betas_are_refused_where_they_leave_no_signal_to_start_from_and_the_remedy_works() {
    let mut config = json!({ "rescale_betas_zero_snr": true, "timestep_spacing": "trailing" });
    let text = sampling(&config, 50).unwrap_err();
    assert!(
        text.contains("`rescale_betas_zero_snr`: true leaves no signal at timestep 999"),
        "{text}"
    );
    assert!(
        text.contains("set `timestep_spacing` to \"leading\""),
        "{text}"
    );
    config["timestep_spacing"] = json!("leading");
    assert!(sampling(&config, 50).is_ok());
    let text = sampling(&config, 1000).unwrap_err();
    assert!(text.ends_with("use fewer steps"), "{text}");

    // PNDM divides by the signal whatever is predicted.
    let pndm = json!({
        "_class_name": "PNDMScheduler", "skip_prk_steps": true, "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": true, "timestep_spacing": "trailing"
    });
    let text = sampling(&pndm, 10).unwrap_err();
    assert!(text.contains("where PNDM cannot start"), "{text}");
    let small = json!({ "num_train_timesteps": 2, "trained_betas": [0.9, 3.5e-8], "rescale_betas_zero_snr": true });
    let text = refused(&small);
    assert!(text.contains("`rescale_betas_zero_snr`: true"), "{text}");
    assert!(read(&json!({ "num_train_timesteps": 2, "trained_betas": [0.9, 3.5e-8] })).is_ok());
}

#[test]
fn of_betas_one_by_one_the_wrong_one_or_their_number_is_named() {
    for (config, says) in [
        (
            json!({ "trained_betas": [0.1, 0.2] }),
            "a list of 2 values is not valid; expected 1000, as many as `num_train_timesteps`, whose default",
        ),
        (
            json!({ "num_train_timesteps": 3, "trained_betas": [0.1, 0.2] }),
            "a list of 2 values is not valid; expected 3, as many as `num_train_timesteps`",
        ),
        (
            json!({ "num_train_timesteps": 2, "trained_betas": [0.1, 1.0] }),
            "number 2, 1.0 is not valid",
        ),
        (
            json!({ "num_train_timesteps": 2, "trained_betas": ["NaN", 0.1] }),
            "number 1, \"NaN\" is not valid",
        ),
        (
            json!({ "num_train_timesteps": 2, "trained_betas": [1e-9, 0.1] }),
            "number 1, 1e-9 is not valid",
        ),
        (
            json!({ "trained_betas": 0.1 }),
            "0.1 is not valid; expected a list",
        ),
        (
            json!({ "trained_betas": {} }),
            "an object is not valid; expected a list",
        ),
    ] {
        let text = refused(&config);
        assert!(text.contains(&format!("`trained_betas`: {says}")), "{text}");
    }
    // In f32 they would be 0 and 1.
    for (key, value) in [("beta_start", 1e-9), ("beta_end", 0.999_999_99)] {
        let text = refused(&json!({ key: value }));
        assert!(
            text.contains(&format!("`{key}`: ")) && text.contains("f32"),
            "{text}"
        );
    }
}

#[test]
fn an_offset_is_blamed_with_what_helps() {
    let offset = |steps_offset: usize| json!({ "_class_name": "DDIMScheduler", "steps_offset": steps_offset });
    let text = sampling(&offset(1), 1000).unwrap_err();
    assert!(
        text.contains("`steps_offset` 1 (which a pipeline of latents always has)"),
        "{text}"
    );
    assert!(
        text.ends_with("use fewer steps") && sampling(&offset(1), 500).is_ok(),
        "{text}"
    );
    let text = sampling(&offset(999), 2).unwrap_err();
    assert!(
        text.ends_with("use fewer steps") && sampling(&offset(999), 1).is_ok(),
        "{text}"
    );
    let text = sampling(&offset(1000), 1).unwrap_err();
    assert!(
        text.contains("put a `steps_offset` of 999 at most"),
        "{text}"
    );
}

#[test]
fn a_key_that_is_missing_is_not_blamed_as_if_it_was_there() {
    let pndm = json!({ "_class_name": "PNDMScheduler" });
    let text = sampling(&pndm, 10).unwrap_err();
    assert!(
        text.contains("`skip_prk_steps`: false, or no such key,"),
        "{text}"
    );
    let ddpm = read(&json!({})).unwrap();
    let text = Sampler::new(SchedulerKind::Pndm, &ddpm, 10)
        .unwrap_err()
        .to_string();
    assert!(text.contains("or no such key"), "{text}");
}

#[test]
fn a_file_that_says_twice_that_the_clean_image_is_predicted_is_read() {
    let old = json!({ "predict_epsilon": false });
    let text = refused(&old);
    assert!(text.contains("`predict_epsilon`: false"), "{text}");
    assert!(read(&json!({ "predict_epsilon": false, "prediction_type": "sample" })).is_ok());
    assert!(read(&json!({ "prediction_type": "sample" })).is_ok());
    for prediction in ["epsilon", "v_prediction"] {
        let both = json!({ "predict_epsilon": false, "prediction_type": prediction });
        assert!(refused(&both).contains("`predict_epsilon`: false"));
    }
}

/// Every key that a sampler here reads, with values of other types and beyond every range.
#[test]
fn whatever_value_a_key_has_it_is_read_or_named_with_that_value() {
    const KEYS: [&str; 21] = [
        "_class_name",
        "beta_end",
        "beta_schedule",
        "beta_start",
        "clip_sample",
        "clip_sample_range",
        "dynamic_thresholding_ratio",
        "num_train_timesteps",
        "predict_epsilon",
        "prediction_type",
        "rescale_betas_zero_snr",
        "sample_max_value",
        "set_alpha_to_one",
        "skip_prk_steps",
        "steps_offset",
        "thresholding",
        "timestep_spacing",
        "timestep_type",
        "trained_betas",
        "use_flow_sigmas",
        "variance_type",
    ];
    let values = [
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(0.5),
        json!(2.5),
        json!(1e300),
        json!(100_000),
        json!(u64::MAX),
        json!(""),
        json!("-Infinity"),
        json!("sigmoid"),
        json!([]),
        json!([0.5]),
        json!({}),
    ];
    let mut refusals = 0;
    for base in [
        json!({}),
        json!({ "_class_name": "PNDMScheduler", "thresholding": true }),
        json!({
            "_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "use_beta_sigmas": false, "sigma_max": null,
            "interpolation_type": "linear", "timestep_type": "discrete", "lambda_min_clipped": "-Infinity"
        }),
    ] {
        for key in KEYS {
            for value in &values {
                let mut config = base.clone();
                config[key] = value.clone();
                if let Err(text) = read(&config) {
                    let begins = format!("scheduler config: `{key}`: ");
                    assert!(text.starts_with(&begins), "{config}: {text}");
                    if key != "_class_name" && !value.is_array() && !value.is_object() {
                        assert_names_what_is_there(&config, &text);
                    }
                    refusals += 1;
                }
            }
        }
    }
    assert!(refusals > 400, "{refusals}");
}
