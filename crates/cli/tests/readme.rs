//! What README says of the program, against the program.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

const REWRITE: &str = "RETRACK_REWRITE=1 cargo test --workspace --test readme";

/// Compares what lies in a file between `<!-- NAME -->` and `<!-- end of NAME -->` with what should, or writes it there.
fn generated(file: &str, name: &str, wanted: &str) {
    // Tests run side by side, and both may write.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file);
    let text = fs::read_to_string(&path).unwrap();
    let [begin, end] = [
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->\n"),
    ];
    let (before, rest) = text.split_once(&begin).unwrap();
    let (found, after) = rest.split_once(&end).unwrap();
    if env::var_os("RETRACK_REWRITE").is_some() {
        fs::write(&path, [before, &begin, wanted, &end, after].concat()).unwrap();
    } else {
        assert_eq!(found, wanted, "{file} is stale; this writes it: {REWRITE}");
    }
}

#[test]
fn its_table_of_metrics_is_the_programs() {
    generated("README.md", "metrics", &retrack_cli::metrics_table());
}

/// Whether a family goes through a command: the file and the name of a test that shows it, or why not.
enum Cell {
    Yes(&'static str, &'static str),
    No(&'static str),
}
use Cell::{No, Yes};

/// What a model folder may hold: the network's class, how people call it, and what is done with it.
struct Family {
    class: &'static str,
    name: &'static str,
    cells: [Cell; COMMANDS.len()],
}

const COMMANDS: [&str; 5] = [
    "sample",
    "unlearn",
    "`--train lora`, merge",
    "evaluate",
    "single file",
];
const FILES: &str = "diffusers turns it into a folder";
const LATENTS: &str =
    "the_memorized_cluster_of_a_published_prompt_is_unlearned_and_nothing_else_changes";

const FAMILIES: [Family; 4] = [
    Family {
        class: "UNet2DModel",
        name: "DDPM and its like (`UNet2DModel`)",
        cells: [
            Yes("unlearn", "the_new_model_can_be_inspected_and_sampled"),
            Yes("unlearn", "every_method_runs_and_changes_the_model"),
            No("adapters are of text-to-image networks"),
            Yes(
                "evaluate",
                "samples_that_show_any_of_several_images_count_whichever_they_show",
            ),
            No("it has none"),
        ],
    },
    Family {
        class: "UNet2DConditionModel",
        name: "Stable Diffusion 1.x, 2.x (`StableDiffusionPipeline`)",
        cells: [
            Yes(
                "text_to_image",
                "samples_follow_from_prompt_seed_and_guidance",
            ),
            Yes("text_to_image", LATENTS),
            Yes(
                "adapters",
                "an_adapter_is_trained_resumed_and_written_beside_the_untouched_model",
            ),
            Yes(
                "evaluate_latents",
                "membership_compares_latents_each_denoised_for_its_own_text",
            ),
            No(FILES),
        ],
    },
    Family {
        class: "UNet2DConditionModel",
        name: "SDXL, turbo and distilled (`StableDiffusionXLPipeline`)",
        cells: [
            Yes(
                "text_to_image",
                "sdxl_tells_no_negative_prompt_from_an_empty_one_and_samples_by_euler",
            ),
            Yes("text_to_image", LATENTS),
            Yes("families", "sdxl_is_adapted_and_merged"),
            Yes("families", "sdxl_is_measured"),
            No(FILES),
        ],
    },
    Family {
        class: "SD3Transformer2DModel",
        name: "Stable Diffusion 3, 3.5 (`StableDiffusion3Pipeline`)",
        cells: [
            Yes("families", "stable_diffusion_3_is_adapted_and_merged"),
            Yes("text_to_image", LATENTS),
            Yes("families", "stable_diffusion_3_is_adapted_and_merged"),
            Yes("families", "stable_diffusion_3_is_measured"),
            No(FILES),
        ],
    },
];

#[test]
fn its_table_of_families_names_all_and_what_it_says_has_a_test() {
    let mut table = format!("| | {} |\n", COMMANDS.join(" | "));
    table += &format!("|---|{}\n", "---|".repeat(COMMANDS.len()));
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for family in &FAMILIES {
        table += &format!("| {} |", family.name);
        for cell in &family.cells {
            match cell {
                No(reason) => table += &format!(" no: {reason} |"),
                Yes(file, test) => {
                    let text = fs::read_to_string(tests.join(format!("{file}.rs"))).unwrap();
                    assert!(text.contains(&format!("fn {test}(")), "{file}: no {test}");
                    table += " yes |";
                }
            }
        }
        table.push('\n');
    }
    for (class, _) in retrack_checkpoint::folder::CLASSES {
        let named = FAMILIES.iter().any(|family| family.class == *class);
        assert!(named, "{class} is in no row");
    }
    generated("README.md", "families", &table);
}
