//! Bad input: exit code 2, one message that names the file and the remedy, nothing written.

mod support;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use support::{Folder, PHOTOS, SIDE, noise, photo_png, png};

const UNLEARN: &str =
    "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 1 --out out";
const CONFIG: &str = "model/unet/config.json";
const WEIGHTS: &str = "model/unet/diffusion_pytorch_model.safetensors";

fn with_config(folder: &Folder, key: &str, value: Value) {
    let mut config = folder.read_json(CONFIG);
    config[key] = value;
    folder.write(CONFIG, config.to_string());
}

/// Writes the model's weights again with only the tensors that `keep` keeps.
fn with_tensors(folder: &Folder, keep: impl Fn(&str) -> bool) {
    let content = folder.read(WEIGHTS);
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let kept = tensors.iter().filter(|(name, _)| keep(name));
    let content = safetensors::serialize(kept, None).unwrap();
    folder.write(WEIGHTS, content);
}

#[test]
fn a_missing_model_folder_is_named() {
    let folder = Folder::with_model_and_photos();
    let line = UNLEARN.replace("--model model", "--model absent/model");
    folder.refused(&line, &["absent/model: no such folder", "hf download"]);
    let line = UNLEARN.replace("--model model", "--model photos");
    folder.refused(&line, &["photos", "model_index.json"]);
}

#[test]
fn a_block_type_that_is_not_known_is_named_with_those_that_are() {
    let folder = Folder::with_model_and_photos();
    with_config(
        &folder,
        "down_block_types",
        json!(["DownBlock2D", "SkipDownBlock2D"]),
    );
    let says = [
        CONFIG,
        "`down_block_types`",
        "SkipDownBlock2D",
        "AttnDownBlock2D",
    ];
    folder.refused(UNLEARN, &says);
    folder.refused("inspect model", &says);
    folder.refused("sample --model model --count 1 --out x.png", &says);
}

#[test]
fn configurations_that_change_the_mathematics_are_refused_and_others_warned_of() {
    let folder = Folder::with_model_and_photos();
    with_config(&folder, "act_fn", "gelu".into());
    folder.refused(UNLEARN, &[CONFIG, "`act_fn`", "gelu"]);
    with_config(&folder, "act_fn", "silu".into());
    with_config(&folder, "my_note", "harmless".into());
    let said = folder.done(&format!("{UNLEARN} --dry-run"));
    assert!(
        said.stderr.contains("warning: ") && said.stderr.contains("`my_note`"),
        "{}",
        said.stderr
    );
}

#[test]
fn all_missing_and_surplus_tensors_are_listed() {
    let folder = Folder::with_model_and_photos();
    let whole = folder.read(WEIGHTS);
    with_tensors(&folder, |name| {
        name != "conv_in.bias" && name != "mid_block.resnets.0.conv1.weight"
    });
    folder.refused(
        UNLEARN,
        &[
            "model: ",
            "conv_in.bias",
            "mid_block.resnets.0.conv1.weight",
        ],
    );
    folder.write(WEIGHTS, &whole[..whole.len() - 9]);
    folder.refused(UNLEARN, &[WEIGHTS]);
    folder.write(WEIGHTS, whole);
    with_config(&folder, "layers_per_block", 2.into());
    folder.refused(
        UNLEARN,
        &["model: ", "down_blocks.0.resnets.1.conv1.weight"],
    );
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    let folder = Folder::with_model_and_photos();
    let mut content = folder.read(WEIGHTS);
    let last = content.len() - 4;
    content[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    folder.write(WEIGHTS, content);
    folder.refused(UNLEARN, &[WEIGHTS, "NaN"]);
    folder.write(
        WEIGHTS,
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 87732\n",
    );
    folder.refused(UNLEARN, &[WEIGHTS, "git lfs pull"]);
}

#[test]
fn a_selection_of_nothing_says_what_there_is() {
    let folder = Folder::with_model_and_photos();
    let images = folder.idx(12, SIDE, 3);
    folder.write("elsewhere/me.png", png(noise(99, SIDE * SIDE)));
    folder.write("empty.txt", "# nobody\n");
    folder.write("odd.txt", "row:1\nnobody.png\n");
    for (data, selection, says) in [
        ("photos", "row:16", vec!["row:16", "16 rows, 0 to 15"]),
        ("photos", "rows:14-20", vec!["rows:14-20", "0 to 15"]),
        ("photos", "rows:5-2", vec!["did you mean rows:2-5"]),
        ("photos", "row:x", vec!["row:x", "not a row number"]),
        ("photos", "label:1", vec!["label 1"]),
        (&images, "label:7", vec!["no row has label 7"]),
        ("photos", "photos/77.png", vec!["photos/77.png"]),
        (
            "photos",
            "elsewhere/me.png",
            vec!["elsewhere/me.png", "nearest is row"],
        ),
        ("photos", "@absent.txt", vec!["absent.txt: no such file"]),
        (
            "photos",
            "@empty.txt",
            vec!["empty.txt: the list selects nothing"],
        ),
        ("photos", "@odd.txt", vec!["odd.txt, line 2", "nobody.png"]),
    ] {
        let line = UNLEARN
            .replace("--data photos", &format!("--data {data}"))
            .replace("row:3", selection);
        folder.refused(&line, &says);
    }
}

#[test]
fn a_selection_of_everything_is_refused() {
    let folder = Folder::with_model_and_photos();
    let line = UNLEARN.replace("row:3", &format!("rows:0-{}", PHOTOS - 1));
    folder.refused(&line, &["all 16 images", "nothing would be retained"]);
    // So is everything but its copies.
    for row in 0..PHOTOS {
        folder.write(&format!("photos/{row:02}.png"), photo_png(0));
    }
    for method in ["retrack", "finetune"] {
        folder.refused(&format!("{UNLEARN} --method {method}"), &["retained"]);
    }
}

#[test]
fn more_neighbors_than_retained_images_are_refused() {
    let folder = Folder::with_model_and_photos();
    let line = UNLEARN.replace("--neighbors 4", "--neighbors 16");
    folder.refused(
        &line,
        &[
            "16 neighbors",
            "only 15 images are retained",
            "ask for fewer",
        ],
    );
    // A method that needs none does not ask.
    folder.done(&format!("{line} --method finetune"));
}

#[test]
fn data_of_another_size_are_refused_with_both_sizes() {
    let folder = Folder::with_model_and_photos();
    let images = folder.idx(20, 28, 2);
    let line = UNLEARN.replace("--data photos", &format!("--data {images}"));
    folder.refused(&line, &[&images, "28 x 28", "8 x 8"]);
    folder.write("photos/zz.png", png(noise(50, 100)));
    folder.refused(UNLEARN, &["00.png is 8 x 8", "zz.png is 10 x 10"]);
}

#[test]
fn data_that_cannot_be_read_are_named() {
    let folder = Folder::with_model_and_photos();
    let with = |data: &str| UNLEARN.replace("--data photos", &format!("--data {data}"));
    folder.refused(&with("absent"), &["absent: no such file or folder"]);
    folder.refused(&with("model"), &["model", "expected a folder of images"]);
    let photo = folder.read("photos/07.png");
    folder.write("photos/07.png", &photo[..photo.len() / 2]);
    folder.refused(UNLEARN, &["photos/07.png"]);
    folder.write("photos/07.png", "<!DOCTYPE html><html></html>");
    folder.refused(UNLEARN, &["photos/07.png", "web page"]);
    folder.write("photos/07.png", "");
    folder.refused(UNLEARN, &["photos/07.png", "empty"]);
    let images = folder.idx(12, SIDE, 3);
    let mut content = folder.read(&images);
    content.truncate(100);
    folder.write(&images, content);
    folder.refused(&with(&images), &[&images]);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let folder = Folder::with_model_and_photos();
    for (options, says) in [
        (
            "--preset cifar100",
            vec!["--preset cifar100", "mnist-tshirt", "cifar10", "celeba-hq"],
        ),
        (
            "--method forgetmenot",
            vec!["--method", "forgetmenot", "retrack", "siss"],
        ),
        ("--threads 0", vec!["--threads", "at least 1"]),
        ("--device tpu", vec!["--device tpu", "cpu"]),
        ("--device cpu:x", vec!["--device cpu:x"]),
        ("--steps 0", vec!["steps is 0", "at least 1"]),
        ("--batch-size 0", vec!["batch size is 0"]),
        ("--neighbors 0", vec!["neighbors is 0"]),
        ("--accumulate 0", vec!["accumulation is 0"]),
        ("--lr -1", vec!["learning rate is -1"]),
        ("--lr=-1", vec!["learning rate is -1"]),
        ("--lr nan", vec!["learning rate is NaN"]),
        ("--lambda 1.5", vec!["lambda is 1.5", "0 to 1"]),
        ("--method siss --rescale nan", vec!["rescale"]),
        ("--method erasediff --eta inf", vec!["eta"]),
        ("--method erasediff --eta=-1", vec!["eta"]),
        ("--checkpoint-every 0", vec!["--checkpoint-every"]),
    ] {
        let mut line = UNLEARN.to_string();
        for name in ["--neighbors", "--steps"] {
            if options.starts_with(name) {
                let start = line.find(name).unwrap();
                let end = start + line[start..].find(" --").unwrap();
                line.replace_range(start..end, "");
            }
        }
        folder.refused(&format!("{line} {options}"), &says);
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_was_not_built_in_says_how_to_build_it() {
    let folder = Folder::with_model_and_photos();
    folder.tiny_arch(json!({}));
    for line in [
        UNLEARN,
        "sample --model model --count 1 --out x.png",
        "train --data photos --arch tiny.json --steps 1 --out out",
    ] {
        folder.refused(
            &format!("{line} --device cuda"),
            &["--device cuda", "--features cuda"],
        );
    }
}

#[test]
fn a_settings_file_is_read_strictly() {
    let folder = Folder::with_model_and_photos();
    folder.write("mine.toml", "steps = 3\nlearnig_rate = 1e-3\n");
    folder.refused(
        &format!("{UNLEARN} --config mine.toml"),
        &["mine.toml", "learnig_rate", "learning_rate"],
    );
    folder.write("mine.toml", "[adamw]\nbeta = 3\n");
    folder.refused(
        &format!("{UNLEARN} --config mine.toml"),
        &["mine.toml", "beta"],
    );
    folder.write("mine.toml", "batch_size = \"many\"\n");
    folder.refused(
        &format!("{UNLEARN} --config mine.toml"),
        &["mine.toml", "batch_size", "many"],
    );
    folder.write("mine.toml", "method = \"forgetmenot\"\n");
    folder.refused(
        &format!("{UNLEARN} --config mine.toml"),
        &["mine.toml", "forgetmenot"],
    );
    for adamw in [
        "betas = [1.0, 0.999]",
        "betas = [0.9, -1.0]",
        "epsilon = -1.0",
        "max_grad_norm = 0.0",
        "weight_decay = nan",
    ] {
        folder.write("mine.toml", format!("[adamw]\n{adamw}\n"));
        let key = adamw.split(' ').next().unwrap();
        folder.refused(&format!("{UNLEARN} --config mine.toml"), &[key]);
    }
    folder.refused(
        &format!("{UNLEARN} --config absent.toml"),
        &["absent.toml: cannot read"],
    );
}

#[test]
fn tensors_that_predict_and_gradient_need_are_named() {
    let folder = Folder::with_model_and_photos();
    let write = |name: &str, tensors: &[(&str, Vec<usize>, usize)]| {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, shape, size)| vec![0; shape.iter().product::<usize>() * size])
            .collect();
        let views = tensors
            .iter()
            .zip(&bytes)
            .map(|((key, shape, size), bytes)| {
                let dtype = if *size == 8 {
                    safetensors::Dtype::I64
                } else {
                    safetensors::Dtype::F32
                };
                let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes);
                (*key, view.unwrap())
            });
        folder.write(name, safetensors::serialize(views, None).unwrap());
    };
    let predict = "predict --model model --input in.safetensors --output out.safetensors";
    folder.refused(predict, &["in.safetensors: cannot read"]);
    folder.write("in.safetensors", "not tensors");
    folder.refused(predict, &["in.safetensors"]);
    let image = vec![2, 1, 8, 8];
    write("in.safetensors", &[("sample", image.clone(), 4)]);
    folder.refused(
        predict,
        &["in.safetensors: `timestep` is missing", "--help"],
    );
    write(
        "in.safetensors",
        &[("sample", vec![8, 8], 4), ("timestep", vec![2], 8)],
    );
    folder.refused(predict, &["in.safetensors: `sample` has shape [8, 8]"]);
    write(
        "in.safetensors",
        &[("sample", image.clone(), 4), ("timestep", vec![3], 8)],
    );
    folder.refused(
        predict,
        &["in.safetensors: `timestep` has shape [3]", "give [2]"],
    );
    write(
        "in.safetensors",
        &[("sample", vec![2, 3, 8, 8], 4), ("timestep", vec![2], 8)],
    );
    folder.refused(predict, &["3 channels", "takes 1"]);
    write(
        "in.safetensors",
        &[("sample", vec![2, 1, 9, 8], 4), ("timestep", vec![2], 8)],
    );
    folder.refused(predict, &["9"]);
    write(
        "in.safetensors",
        &[
            ("sample", image.clone(), 4),
            ("timestep", vec![2], 8),
            ("class_labels", vec![2], 8),
        ],
    );
    folder.refused(predict, &["no classes"]);

    let gradient =
        "gradient --model model --method retrack --input in.safetensors --output out.safetensors";
    let mut tensors = vec![
        ("forget", image.clone(), 4),
        ("forget_noise", image.clone(), 4),
        ("forget_timestep", vec![2], 8),
        ("retain", image.clone(), 4),
        ("retain_noise", image.clone(), 4),
        ("retain_timestep", vec![2], 8),
        ("neighbors", vec![2, 3, 1, 8, 8], 4),
    ];
    write("in.safetensors", &tensors);
    folder.done(gradient);
    folder.write("out.safetensors", "");
    for missing in 0..tensors.len() {
        let (key, shape, size) = tensors.remove(missing);
        write("in.safetensors", &tensors);
        folder.refused(
            gradient,
            &["in.safetensors", &format!("`{key}` is missing")],
        );
        tensors.insert(missing, (key, shape, size));
    }
    tensors[6].1 = vec![1, 3, 1, 8, 8];
    write("in.safetensors", &tensors);
    folder.refused(gradient, &["in.safetensors", "`neighbors`"]);
    tensors[6].1 = vec![2, 3, 3, 8, 8];
    write("in.safetensors", &tensors);
    folder.refused(gradient, &["in.safetensors", "`neighbors`"]);
    folder.refused(
        &gradient.replace("retrack", "retrack --lambda nan"),
        &["--lambda"],
    );
}

#[test]
fn samples_that_cannot_be_drawn_are_refused() {
    let folder = Folder::with_model_and_photos();
    folder.write("file", "");
    let sample = "sample --model model --out x.png";
    for (options, says) in [
        ("--count 0", "--count"),
        ("--count 1 --batch-size 0", "--batch-size"),
        ("--count 1 --steps 0", "steps"),
        ("--count 1 --steps 1001", "1000"),
        ("--count 1 --class 2", "no classes"),
        ("--count 1 --scheduler euler", "euler"),
    ] {
        folder.refused(&format!("{sample} {options}"), &[says]);
    }
    folder.refused("sample --model model --count 1 --out file", &["file: "]);
    with_config(&folder, "sample_size", Value::Null);
    folder.refused(&format!("{sample} --count 1"), &[CONFIG, "`sample_size`"]);
}

#[test]
fn a_network_that_cannot_be_trained_is_named() {
    let folder = Folder::new();
    folder.photos("photos");
    let train = "train --data photos --arch tiny.json --steps 1 --out out";
    folder.refused(train, &["tiny.json: cannot read"]);
    folder.write("tiny.json", "{ not json");
    folder.refused(train, &["tiny.json"]);
    for (more, says) in [
        (json!({ "sample_size": 16 }), "`sample_size`"),
        (json!({ "out_channels": 2 }), "`out_channels`"),
        (json!({ "num_class_embeds": 3 }), "no labels"),
        (json!({ "norm_num_groups": 3 }), "norm_num_groups"),
        (
            json!({ "block_out_channels": [8, 8, 8] }),
            "down_block_types",
        ),
    ] {
        folder.tiny_arch(more);
        folder.refused(train, &["tiny.json", says]);
    }
    folder.tiny_arch(json!({}));
    for option in [
        "--steps 0",
        "--batch-size 0",
        "--accumulate 0",
        "--lr nan",
        "--checkpoint-every 0",
    ] {
        let name = option.split(' ').next().unwrap();
        let line = train.replace(
            "--steps 1",
            if name == "--steps" { "" } else { "--steps 1" },
        );
        folder.refused(&format!("{line} {option}"), &[name]);
    }
}

#[test]
fn inspect_says_what_it_cannot_find() {
    let folder = Folder::new();
    folder.refused("inspect absent", &["absent: no such file or folder"]);
    folder.write("letters/dear.txt", "Dear all");
    folder.refused("inspect letters", &["letters"]);
}
