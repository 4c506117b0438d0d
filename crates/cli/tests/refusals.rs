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
fn tensors_of_other_names_are_listed_with_those_that_are_missing() {
    let folder = Folder::with_model_and_photos();
    // Names of the same length, so that the header keeps its own.
    let mut bytes = folder.read(WEIGHTS);
    for (old, new) in [
        ("\"conv_in.bias\"", "\"conv_in.bise\""),
        ("\"conv_out.bias\"", "\"conv_out.bise\""),
    ] {
        let at = bytes
            .windows(old.len())
            .position(|w| w == old.as_bytes())
            .unwrap();
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    }
    folder.write(WEIGHTS, bytes);
    folder.refused(
        UNLEARN,
        &[
            "missing tensor conv_in.bias",
            "missing tensor conv_out.bias",
            "unexpected tensor conv_in.bise",
            "unexpected tensor conv_out.bise",
        ],
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
            "give a smaller --neighbors",
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
    folder.refused(&with("model"), &["model: this is the folder of a model"]);
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
        ("--steps 0", vec!["number of steps is 0", "at least 1"]),
        ("--batch-size 0", vec!["the batch size is 0"]),
        ("--neighbors 0", vec!["number of neighbors is 0"]),
        ("--threads 99999999", vec!["--threads is 99999999"]),
        (
            "--accumulate 18446744073709551615",
            vec!["more than any run can do"],
        ),
        (
            "--batch-size 18446744073709551615",
            vec!["more than any run can do"],
        ),
        (
            "--batch-size 99999999999",
            vec!["of memory", "available", "smaller --batch-size"],
        ),
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
        "state = \"f16\"",
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
        ("--count 99999999999", "give a smaller --count"),
        ("--count 18446744073709551615", "give a smaller --count"),
        ("--count 1 --batch-size 0", "--batch-size"),
        ("--count 1 --steps 0", "steps"),
        ("--count 1 --steps 1001", "1000"),
        ("--count 1 --class 2", "no classes"),
        ("--count 1 --scheduler heun", "heun"),
        ("--count 1 --scheduler flow-match-euler", "betas"),
    ] {
        folder.refused(&format!("{sample} {options}"), &[says]);
    }
    folder.refused("sample --model model --count 1 --out file", &["file: "]);
    for out in ["model", "photos"] {
        let says = [out, "choose"];
        folder.refused(
            &format!("sample --model model --count 1 --out {out}"),
            &says,
        );
    }
    with_config(&folder, "sample_size", Value::Null);
    folder.refused(&format!("{sample} --count 1"), &[CONFIG, "`sample_size`"]);
}

#[test]
fn a_single_sample_that_fits_no_memory_is_refused_with_what_makes_it_large() {
    let folder = Folder::with_model_and_photos();
    with_config(&folder, "sample_size", 16_384.into());
    let says = format!("its size is `sample_size` in {CONFIG}");
    folder.refused(
        "sample --model model --out x.png --count 1",
        &["of memory", &says],
    );
}

#[test]
fn a_network_that_cannot_be_trained_is_named() {
    let folder = Folder::new();
    folder.photos("photos");
    let train = "train --data photos --arch tiny.json --steps 1 --out out";
    folder.refused(
        train,
        &["tiny.json: neither a file nor a network known by name"],
    );
    folder.write("tiny.json", "{ not json");
    folder.refused(train, &["tiny.json"]);
    for (more, says) in [
        (json!({ "sample_size": 16 }), "`sample_size`"),
        (json!({ "out_channels": 2 }), "`out_channels`"),
        (json!({ "num_class_embeds": 3 }), "no labels"),
        (json!({ "norm_num_groups": 3 }), "norm_num_groups"),
        (json!({ "time_embedding_type": "fourier" }), "timestep 0"),
        (json!({ "freq_shift": 4 }), "`freq_shift`"),
        (
            json!({ "mid_block_scale_factor": 0 }),
            "`mid_block_scale_factor`",
        ),
        (json!({ "layers_per_block": 1_000_000 }), "layers"),
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

/// Makes a pipe that nobody writes to: opening it would wait for ever.
#[cfg(unix)]
fn pipe(folder: &Folder, name: &str) {
    let path = folder.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_and_devices_in_place_of_files_are_refused_without_waiting() {
    let folder = Folder::with_model_and_photos();
    folder.tiny_arch(json!({}));
    for name in [
        "pipes/a.png",
        "x.parquet",
        "a-images-idx3-ubyte",
        "x.bin",
        "pipe",
    ] {
        pipe(&folder, name);
    }
    let with = |old: &str, new: &str| UNLEARN.replace(old, new);
    let says = ["not a regular file"];
    for data in ["pipes", "x.parquet", "a-images-idx3-ubyte", "x.bin"] {
        folder.refused(&with("--data photos", &format!("--data {data}")), &says);
    }
    for file in ["pipe", "/dev/zero"] {
        folder.refused(&with("row:3", &format!("@{file}")), &says);
        folder.refused(&format!("{UNLEARN} --config {file}"), &says);
        for line in [
            "train --data photos --arch FILE --steps 1 --out out",
            "predict --model model --input FILE --output out.safetensors",
            "bench step --arch FILE --batch-size 1",
        ] {
            folder.refused(&line.replace("FILE", file), &says);
        }
    }
    pipe(&folder, "model/extra");
    folder.refused(UNLEARN, &["model/extra", "not a regular file"]);
}

#[cfg(unix)]
#[test]
fn links_in_a_circle_are_named() {
    use std::os::unix::fs::symlink;
    let folder = Folder::with_model_and_photos();
    symlink("b", folder.path("a")).unwrap();
    symlink("a", folder.path("b")).unwrap();
    for option in ["--model", "--data", "--out"] {
        let start = UNLEARN.find(option).unwrap() + option.len() + 1;
        let end = start + UNLEARN[start..].find(' ').unwrap_or(UNLEARN.len() - start);
        let line = format!("{}a{}", &UNLEARN[..start], &UNLEARN[end..]);
        folder.refused(&line, &["a: ", "links"]);
    }
    folder.write("loop/a.png", photo_png(0));
    symlink(".", folder.path("loop/again")).unwrap();
    folder.refused(
        &UNLEARN.replace("--data photos", "--data loop"),
        &["nested too deep", "link"],
    );
    symlink("q", folder.path("model/p")).unwrap();
    symlink("p", folder.path("model/q")).unwrap();
    folder.refused(UNLEARN, &["model/p"]);
}

#[test]
fn an_output_folder_that_cannot_be_is_named_before_the_work() {
    let folder = Folder::with_model_and_photos();
    folder.tiny_arch(json!({}));
    folder.write("file", "");
    let long = "x".repeat(300);
    let evaluate = "evaluate --model model --data photos --forget row:3 --threshold 1 --samples 2";
    let experiment = "experiment demo --model model --data photos --forget row:3 --methods finetune --seeds 0 --samples 2";
    let unlearn = UNLEARN.replace(" --out out", "");
    let train = "train --data photos --arch tiny.json --steps 1";
    for line in [evaluate, experiment, &unlearn, train] {
        for out in ["file", "file/below", &long] {
            folder.refused(&format!("{line} --out {out}"), &[out, "choose another"]);
        }
        folder.refused(
            &format!("{line} --out photos/new"),
            &["photos/new", "overlaps the data folder"],
        );
    }
}

#[test]
fn an_experiment_of_nothing_leaves_nothing() {
    let folder = Folder::with_model_and_photos();
    let line =
        "experiment demo --model model --data photos --methods finetune --samples 2 --out out";
    folder.refused(
        &format!("{line} --forget row:3 --forget row:99"),
        &["row 99"],
    );
    folder.write("none.toml", "[experiment]\nseeds = []\n");
    folder.refused(
        &format!("{line} --forget row:3 --config none.toml"),
        &["`seeds`"],
    );
}

#[test]
fn a_configuration_of_an_absurd_network_is_refused_before_it_takes_memory() {
    let folder = Folder::with_model_and_photos();
    for (key, value) in [
        ("block_out_channels", json!([1_048_576, 1_048_576])),
        ("num_class_embeds", json!(1_048_576)),
        ("layers_per_block", json!(500)),
    ] {
        let whole = folder.read(CONFIG);
        with_config(&folder, key, value);
        folder.refused(UNLEARN, &["model"]);
        folder.write(CONFIG, whole);
    }
    folder.tiny_arch(json!({ "block_out_channels": [1_048_576, 1_048_576] }));
    folder.refused(
        "train --data photos --arch tiny.json --steps 1 --batch-size 1 --out out",
        &["disk", "free some space"],
    );
}

#[test]
fn names_from_outside_send_nothing_to_the_terminal() {
    let folder = Folder::with_model_and_photos();
    let line = UNLEARN.replace("--data photos", "--data no\u{1b}[2Jsuch");
    folder.refused(&line, &["no\\u{1b}[2Jsuch"]);
}

#[test]
fn a_name_that_is_there_twice_is_refused_where_tensors_are_read() {
    let folder = Folder::with_model_and_photos();
    let sample = r#""sample":{"dtype":"F32","shape":[1,1,8,8],"data_offsets":[0,256]}"#;
    let header = format!("{{{sample},{sample}}}");
    let length = (header.len() as u64).to_le_bytes();
    folder.write(
        "in.safetensors",
        [&length, header.as_bytes(), &[0; 256]].concat(),
    );
    folder.refused(
        "predict --model model --input in.safetensors --output out.safetensors",
        &["in.safetensors", "there twice"],
    );
}

#[test]
fn a_picture_below_a_file_is_refused_before_anything_is_drawn() {
    let folder = Folder::with_model_and_photos();
    folder.write("mk.py", "print()");
    let line = "sample --model model --count 100000 --out";
    for out in ["mk.py/a.png", "mk.py/below/a.png"] {
        let says = format!("{out}: mk.py is a file, and a folder is needed there");
        folder.refused(&format!("{line} {out}"), &[&says]);
    }
    folder.refused(
        "neighbors --data photos --forget row:3 --neighbors 2 --out mk.py/a.png",
        &["mk.py is a file"],
    );
    folder.refused(&format!("{line} mk.py/samples"), &["mk.py/samples: "]);
}

#[test]
fn a_schedule_that_a_sampler_cannot_walk_is_named_with_its_file() {
    let folder = Folder::with_model_and_photos();
    folder.refused(
        "sample --model model --scheduler pndm --count 1 --out x.png",
        &[
            "model/scheduler/scheduler_config.json: not a schedule for PNDMScheduler: ",
            "`skip_prk_steps`",
            "DDIM",
        ],
    );
}
