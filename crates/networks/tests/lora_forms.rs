//! Adapters in the forms in which they lie on disks, against what diffusers 0.42.1 and PEFT 0.21.2 make of the same model
//! folders with them: `fixtures/parity/lora_forms`.

mod support;

use std::collections::BTreeMap;

use retrack_checkpoint::folder::{Library, ModelFolder, Weights};
use retrack_networks::lora::{AdapterFile, Adapters, Component, Layers, LoraError};
use support::{Case, root};

const SD1: &str = "pipeline_sd1";
const SDXL: &str = "pipeline_sdxl";

/// The weights of a fixture's pipeline by network.
fn weights(pipeline: &str) -> BTreeMap<Component, Weights> {
    let folder = ModelFolder::open(root().join(pipeline).join("model")).unwrap();
    let mut all: BTreeMap<_, _> = [(Component::Network, folder.weights().unwrap())].into();
    for component in [Component::TextEncoder, Component::TextEncoder2] {
        if let Ok(part) = folder.part(component.folder(), "text encoder") {
            all.insert(component, part.weights(Library::Transformers).unwrap());
        }
    }
    all
}

/// What a file adds to each, and for how many layers it is of another strength than the file says.
fn adapters(
    file: &str,
    weights: &BTreeMap<Component, Weights>,
) -> Result<(BTreeMap<Component, Adapters>, usize), LoraError> {
    let layers = weights.iter();
    let layers: Vec<Layers> = layers
        .map(|(of, weights)| Layers::of(*of, weights))
        .collect();
    let file = AdapterFile::open(&root().join("lora_forms").join(file))?;
    let others = file.other_alphas();
    Ok((file.resolve("model".as_ref(), &layers)?, others))
}

/// Compares every weight that an adapter changes, and that it changes no other. For how many layers diffusers takes
/// another alpha than the file has for them.
fn merges(form: &str, file: &str, pipeline: &str) -> usize {
    let case = Case::read("lora_forms");
    // Files have `text_model.` before all of a text encoder's names, modules of transformers 5 not always.
    let short = |key: &str| key.replace("/text_model.", "/");
    let of_form = case.keys().into_iter();
    let of_form = of_form.filter(|key| key.starts_with(&format!("{form}/")));
    let mut expected: BTreeMap<String, String> = of_form.map(|key| (short(&key), key)).collect();
    assert!(!expected.is_empty(), "{form}");
    let weights = weights(pipeline);
    let found = adapters(file, &weights);
    let (adapters, others) = found.unwrap_or_else(|error| panic!("{form}: {error}"));
    for (component, weights) in &weights {
        for (name, tensor) in weights.iter() {
            let before = tensor.read().unwrap().to_f32();
            let found = match adapters.get(component) {
                Some(adapters) => adapters.added_to(name, before.clone()),
                None => before.clone(),
            };
            let key = short(&format!("{form}/{}/{name}", component.folder()));
            let Some(stored) = expected.remove(&key) else {
                assert!(found == before, "{key} is changed, and not by diffusers");
                continue;
            };
            let expected = case.floats(&stored);
            let far = found.iter().zip(&expected).map(|(f, e)| (f - e).abs());
            let far = far.fold(0.0, f32::max);
            assert!(far < 1e-6, "{key}: {far}");
        }
    }
    assert!(expected.is_empty(), "not changed: {expected:?}");
    others
}

#[test]
fn factors_in_attention_processors_merge_as_diffusers_merges_them() {
    merges("processors", "processors.safetensors", SD1);
    // Of which `load_lora_weights` takes nothing; the network's own `load_lora_adapter` does.
    merges("processors_bare", "processors_bare.safetensors", SD1);
}

#[test]
fn what_save_lora_adapter_writes_merges_with_its_settings() {
    // As diffusers reads them with `use_safetensors=True`. Without, it passes the settings over and every scale is 1.
    merges("saved", "saved.safetensors", SD1);
}

#[test]
fn what_pefts_save_pretrained_writes_merges_with_the_settings_beside_it() {
    // Ranks and alphas by patterns, alpha / sqrt(rank), a 3x3 convolution.
    merges("peft", "peft/adapter_model.safetensors", SD1);
    merges("peft_dora", "peft_dora/adapter_model.safetensors", SD1);
    merges("peft_text", "peft_text/adapter_model.safetensors", SD1);
}

#[test]
fn magnitudes_in_diffusers_files_merge_with_settings_and_without() {
    merges("dora", "dora.safetensors", SD1);
    merges("dora_saved", "dora_saved.safetensors", SD1);
}

#[test]
fn kohyas_names_are_found_in_the_model_with_their_alphas() {
    // Linear layers, 1x1 and 3x3 convolutions.
    assert_eq!(merges("kohya", "kohya.safetensors", SD1), 0);
    assert_eq!(merges("kohya_plain", "kohya_plain.safetensors", SD1), 0);
    assert_eq!(merges("kohya_xl", "kohya_xl.safetensors", SDXL), 0);
    assert_eq!(
        merges("kohya_xl_original", "kohya_xl_original.safetensors", SDXL),
        0
    );
}

#[test]
fn alphas_that_diffusers_does_not_find_are_replaced_as_there_and_counted() {
    // An attention layer's own, 6 where most have 1, and two layers without one, of rank 2.
    assert_eq!(merges("kohya_alphas", "kohya_alphas.safetensors", SD1), 3);
    assert!(merges("kohya_text", "kohya_text.safetensors", SD1) > 0);
    assert!(merges("kohya_text_xl", "kohya_text_xl.safetensors", SDXL) > 0);
}

#[test]
fn adapters_of_text_encoders_merge_in_all_their_forms() {
    for form in ["now", "middle"] {
        for (kind, pipeline) in [("sd1", SD1), ("sdxl", SDXL)] {
            let form = format!("text_{form}_{kind}");
            merges(&form, &format!("{form}.safetensors"), pipeline);
        }
    }
    merges("text_processors", "text_processors.safetensors", SD1);
}

#[test]
fn an_adapter_of_another_model_is_refused_with_the_layer() {
    for (file, pipeline, layer) in [
        ("kohya_xl.safetensors", SD1, "down_blocks_1_attentions_0"),
        (
            "kohya_xl_original.safetensors",
            SD1,
            "input_blocks_0_0 of its unet",
        ),
        ("text_now_sdxl.safetensors", SD1, "of its text_encoder"),
        ("kohya_text_xl.safetensors", SD1, "of its"),
        ("processors.safetensors", SDXL, "attn1.to_k of its unet"),
        (
            "peft/adapter_model.safetensors",
            SDXL,
            "proj_in of its unet",
        ),
        (
            "peft_text/adapter_model.safetensors",
            SDXL,
            "of its text_encoder",
        ),
    ] {
        let error = adapters(file, &weights(pipeline)).map(|_| ()).unwrap_err();
        let error = error.to_string();
        let all = [file, layer, "another model's"];
        assert!(
            all.iter().all(|part| error.contains(part)),
            "{file}: {error}"
        );
    }
}
