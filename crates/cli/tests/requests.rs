//! One request after another: what each knows of those before it, and `retrack history`.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Folder, PHOTOS, SIDE, noise, png};

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
const RETRAINED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/retrained");
/// Two steps of the published method.
const SHORT: &str = "--data photos --steps 2 --batch-size 4 --neighbors 4";

fn unlearn(model: &str, forget: &str, out: &str, more: &str) -> String {
    format!("unlearn --model {model} --forget {forget} --out {out} {SHORT} {more}")
}

fn requests(folder: &Folder, model: &str) -> Vec<Value> {
    let chain = folder.read_json(&format!("{model}/retrack.json"));
    chain["requests"].as_array().unwrap().clone()
}

/// With `one`, which forgot the fourth photo.
fn after_one_request() -> Folder {
    let folder = Folder::with_model_and_photos();
    folder.done(&unlearn("model", "photos/03.png", "one", ""));
    folder
}

#[test]
fn a_written_folder_says_what_made_it_and_names_no_image() {
    let folder = after_one_request();
    let text = String::from_utf8(folder.read("one/retrack.json")).unwrap();
    assert!(
        !text.contains("03.png") && !text.contains("photos"),
        "{text}"
    );
    let chain: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(chain["format"], 1);
    let [request] = &requests(&folder, "one")[..] else {
        panic!("{chain}");
    };
    let report = folder.read_json("one/run/report.json");
    assert_eq!(request["images"], report["request"]["keyed_digests"]);
    assert_eq!(request["verdict"], report["verdict"]["headline"]);
    assert_eq!(request["command"], "unlearn");
    assert_eq!(request["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(request["settings"]["method"], "retrack");
    assert_eq!(request["settings"]["steps"], 2);
    for (place, model) in [("before", "model"), ("after", "one")] {
        let bytes = folder.read(&format!("{model}/{WEIGHTS}"));
        let digest = retrack_checkpoint::written::digest(&bytes);
        assert_eq!(request[place], json!({ WEIGHTS: digest }));
    }
    let list = folder.read_json("one/.retrack-files.json");
    assert!(list["files"]["retrack.json"].is_array(), "{list}");
    folder.done("verify one");
    folder.write(
        "one/retrack.json",
        text.replace("\"steps\": 2", "\"steps\": 3"),
    );
    let said = folder.ends("verify one", 1);
    assert!(
        said.stdout.contains("retrack.json: SHA-256"),
        "{}",
        said.stdout
    );

    // Without a report, too, and of an image that the model does not know.
    folder.done(&unlearn("model", "row:3", "bare", "--no-report"));
    assert_eq!(requests(&folder, "bare")[0]["verdict"], Value::Null);
    folder.done("history bare");
    folder.done("unlearn --model model --data photos --forget row:3 --batch-size 4 --out same");
    let request = &requests(&folder, "same")[0];
    assert_eq!(request["calibrated"], true);
    assert_eq!(request["before"], request["after"]);
    assert!(
        request["verdict"]
            .as_str()
            .unwrap()
            .contains("not shown to be memorized")
    );
}

#[test]
fn a_later_request_keeps_out_what_an_earlier_one_forgot() {
    let folder = Folder::with_model_and_photos();
    // The nearest to row 5 are the image of the first request and two copies of it; one lies elsewhere in the data.
    let pairs = noise(5, SIDE * SIDE)
        .into_iter()
        .zip(noise(200, SIDE * SIDE));
    let near: Vec<u8> = pairs.map(|(a, b)| a / 2 + b / 2).collect();
    folder.write("photos/03.png", png(near.clone()));
    folder.write("photos/99.png", png(near));
    folder.done(&unlearn("model", "row:3", "one", ""));
    let key = folder.read("one.digest-key");
    let neighbors = |out: &str| -> Vec<u64> {
        let report = folder.read_json(&format!("{out}/run/report.json"));
        let rows = report["neighbors"]["groups"][0]["rows"].as_array().unwrap();
        rows.iter().map(|row| row.as_u64().unwrap()).collect()
    };
    // From the first model nothing says so.
    folder.done(&unlearn("model", "row:5", "alone", ""));
    assert_eq!(neighbors("alone")[..2], [3, PHOTOS as u64]);
    assert_eq!(
        folder.read_json("alone/run/config.json")["retained"],
        PHOTOS
    );

    let said = folder.done(&unlearn("one", "row:5", "two", "--json"));
    assert!(
        said.stderr.contains(
            "kept out of what is retained: 1 of 1 image that 1 earlier request forgot (2 rows)"
        ),
        "{}",
        said.stderr
    );
    assert_eq!(said.json()["earlier"]["rows"], 2);
    let rows = neighbors("two");
    assert!(
        !rows.contains(&3) && !rows.contains(&(PHOTOS as u64)),
        "{rows:?}"
    );
    let config = folder.read_json("two/run/config.json");
    assert_eq!(config["forget_rows"], json!([5]));
    assert_eq!(config["earlier_rows"], json!([3, PHOTOS]));
    assert_eq!(config["retained"], PHOTOS - 2);
    let plan = &folder.read_json("two/run/report.json")["check"]["plan"];
    for rows in ["controls", "kept"] {
        let rows = plan[rows].as_array().unwrap();
        assert!(!rows.is_empty() && !rows.contains(&json!(3)), "{plan}");
    }
    folder.done("verify two");

    let card = |out: &str| String::from_utf8(folder.read(&format!("{out}/README.md"))).unwrap();
    assert!(!card("one").contains("retrack.json"));
    assert!(
        card("two").contains("`retrack.json` lists all 2 requests"),
        "{}",
        card("two")
    );

    // One key for all.
    assert!(folder.read("two.digest-key") == key);
    let [one, two] = &requests(&folder, "two")[..] else {
        panic!("not two requests");
    };
    assert_eq!(one["after"], two["before"]);
    assert_ne!(one["images"], two["images"]);
    let said = folder.done("history two");
    assert!(
        said.stdout.contains("intact: 2 requests"),
        "{}",
        said.stdout
    );
    for line in said.stdout.lines().take(5) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(
        said.stdout.matches("  retrack  ").count(),
        2,
        "{}",
        said.stdout
    );
    let said = folder.done("history two --json").json();
    assert_eq!(said["intact"], true);
    assert_eq!(said["requests"].as_array().unwrap().len(), 2);

    // An image of an earlier request is no other model's.
    let evaluate = "evaluate --model two --data photos --metrics injection --out";
    let said = folder.done(&format!("{evaluate} looked --forget row:3"));
    assert!(!said.stderr.contains("did not forget"), "{}", said.stderr);
    // What another request forgot is not retained.
    assert!(
        said.stderr
            .contains("1 row of images that the model's other requests forgot"),
        "{}",
        said.stderr
    );
    assert_eq!(folder.read_json("looked/metrics.json")["earlier_rows"], 1);
    let said = folder.done(&format!("{evaluate} other --forget row:9"));
    assert!(
        said.stderr.contains("did not forget row 9"),
        "{}",
        said.stderr
    );

    // A near copy that came into the data meanwhile is set aside, too.
    let copy: Vec<u8> = noise(5, SIDE * SIDE)
        .into_iter()
        .map(|value| value / 4 * 4 + 2)
        .collect();
    folder.write("photos/98.png", png(copy));
    folder.done(&unlearn("two", "row:6", "beside", ""));
    let check = &folder.read_json("beside/run/report.json")["check"];
    assert_eq!(check["earlier_near_rows"], json!([PHOTOS]));
    let config = folder.read_json("beside/run/config.json");
    assert_eq!(config["retained"], PHOTOS + 2 - 5);
    folder.done("verify beside");
    fs::remove_file(folder.path("photos/98.png")).unwrap();

    // Once it left the data there is nothing to keep out.
    fs::remove_file(folder.path("photos/03.png")).unwrap();
    fs::remove_file(folder.path("photos/99.png")).unwrap();
    let said = folder.done(&unlearn("two", "photos/08.png", "three", "--json"));
    assert_eq!(said.json()["earlier"]["images"], 1);
    let config = folder.read_json("three/run/config.json");
    assert_eq!(config["earlier_rows"], json!([4]));
}

#[test]
fn what_was_forgotten_before_is_forgotten_again_only_where_that_is_asked_for() {
    let folder = after_one_request();
    folder.refused(
        &unlearn("one", "photos/03.png", "two", ""),
        &[
            "03.png was forgotten by request 1 of 20",
            "retrack evaluate",
            "--always",
        ],
    );
    let said = folder.done(&unlearn("one", "rows:3-5", "two", "--json"));
    assert!(
        said.stderr
            .contains("1 of 3 selected rows were forgotten before"),
        "{}",
        said.stderr
    );
    assert_eq!(said.json()["forgotten_rows"], 2);
    assert_eq!(said.json()["earlier"]["images"], 1);
    assert_eq!(
        requests(&folder, "two")[1]["images"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    folder.done(&unlearn("two", "photos/03.png", "three", "--always"));
    let requests = requests(&folder, "three");
    assert_eq!(requests[2]["images"], requests[0]["images"]);
    folder.refused(
        &unlearn("three", "rows:3-5", "four", ""),
        &[
            "all 3 selected images were forgotten before",
            "03.png was forgotten by request 3",
        ],
    );
    folder.done("history three");

    // Not in the data any more, as it was to be.
    fs::rename(folder.path("photos/03.png"), folder.path("held.png")).unwrap();
    folder.refused(
        &unlearn("three", "held.png", "four", "--always"),
        &[
            "held.png: not in the data set",
            "forgotten by request 3",
            "put it back",
        ],
    );
    folder.write("held.png", png(noise(77, SIDE * SIDE)));
    folder.refused(
        &unlearn("three", "held.png", "four", ""),
        &["no image of the data set has exactly the pixels of held.png"],
    );
}

#[test]
fn a_broken_chain_is_refused_by_name_and_checked_by_history() {
    let folder = after_one_request();
    folder.done(&unlearn("one", "row:5", "two", ""));
    let chain = String::from_utf8(folder.read("two/retrack.json")).unwrap();
    for (broken, why) in [
        ("{\"format\": 1".to_string(), "EOF"),
        (
            chain.replace("\"format\": 1", "\"format\": 7"),
            "its format is 7",
        ),
        (chain.replace("\"images\"", "\"pictures\""), "pictures"),
        ("{}".into(), "it has no format"),
    ] {
        folder.write("two/retrack.json", &broken);
        let says = ["two/retrack.json", why, "move it away", "--forget"];
        folder.refused(&unlearn("two", "row:6", "three", ""), &says);
        folder.refused("history two", &["two/retrack.json", why, "put back"]);
    }
    // A request was taken out.
    let mut misfit: Value = serde_json::from_str(&chain).unwrap();
    let other = "0".repeat(64);
    misfit["requests"][0]["after"][WEIGHTS] = other.into();
    folder.write("two/retrack.json", misfit.to_string());
    folder.refused(
        &unlearn("two", "row:6", "three", ""),
        &[
            "two/retrack.json: request 2 began with other weights",
            "move it away",
        ],
    );
    let said = folder.ends("history two", 1);
    assert!(
        said.stdout
            .contains("request 2 began with other weights than request 1 wrote"),
        "{}",
        said.stdout
    );
    assert!(
        said.stderr.contains("1 thing does not fit"),
        "{}",
        said.stderr
    );
    // As the message says.
    fs::remove_file(folder.path("two/retrack.json")).unwrap();
    folder.done(&unlearn("two", "row:6", "three", ""));
    assert_eq!(requests(&folder, "three").len(), 1);
}

#[test]
fn weights_that_something_else_changed_are_named_and_the_record_says_so() {
    let folder = after_one_request();
    let written = folder.read(&format!("one/{WEIGHTS}"));
    folder.write(
        &format!("one/{WEIGHTS}"),
        folder.read(&format!("model/{WEIGHTS}")),
    );
    let said = folder.ends("history one", 1);
    let file = format!("one/{WEIGHTS}");
    assert!(
        said.stdout
            .contains(&format!("{file}: not what the last request wrote")),
        "{}",
        said.stdout
    );
    let said = folder.done(&unlearn("one", "row:5", "two", ""));
    for part in [&*file, "something else changed the model", "put back"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let request = &requests(&folder, "two")[1];
    assert_eq!(request["changed_before"], true);
    let said = folder.ends("history two --json", 1).json();
    assert_eq!(said["intact"], false);
    assert!(
        said["problems"][0]
            .as_str()
            .unwrap()
            .contains("before request 2"),
        "{said}"
    );
    // It is known, and stops nobody.
    folder.done(&unlearn("two", "row:6", "three", ""));
    folder.write(&format!("one/{WEIGHTS}"), written);
    folder.done("history one");
}

#[test]
fn without_its_key_a_chain_does_not_go_on() {
    let folder = after_one_request();
    fs::rename(folder.path("one.digest-key"), folder.path("kept")).unwrap();
    let line = unlearn("one", "row:5", "two", "");
    folder.refused(
        &line,
        &[
            "one.digest-key",
            "not found",
            "1 image cannot be known again",
            "--key",
            "one/retrack.json away",
        ],
    );
    folder.refused(&format!("{line} --no-report"), &["one.digest-key", "--key"]);
    folder.write("other", "1".repeat(64));
    folder.refused(
        &format!("{line} --key other"),
        &["other: not the key", "--key"],
    );
    folder.refused(&format!("{line} --key nowhere"), &["not found", "--key"]);
    folder.write("two.digest-key", "1".repeat(64));
    folder.refused(&line, &["two.digest-key: not the key", "--key"]);
    fs::remove_file(folder.path("two.digest-key")).unwrap();
    folder.done(&format!("{line} --key kept"));
    assert!(!folder.path("two.digest-key").exists());
    folder.done("verify two --key kept");
    // It is lost: a new record begins under a new key.
    fs::rename(folder.path("one/retrack.json"), folder.path("old.json")).unwrap();
    folder.done(&unlearn("one", "row:5", "new", ""));
    assert_eq!(requests(&folder, "new").len(), 1);
    assert_ne!(
        folder.read_json("new/retrack.json")["key"],
        folder.read_json("old.json")["key"]
    );
}

#[test]
fn a_request_that_was_killed_and_resumed_writes_the_same_record() {
    let folder = after_one_request();
    let line = format!(
        "{} --no-report --checkpoint-every 1",
        unlearn("one", "row:5", "two", "").replace("--steps 2", "--steps 12")
    );
    folder.kill_after_two_checkpoints(&line, "two");
    assert!(!folder.path("two/retrack.json").exists());
    // Another past is not gone on with.
    let chain = String::from_utf8(folder.read("one/retrack.json")).unwrap();
    folder.write(
        "one/retrack.json",
        chain.replace("\"version\": \"", "\"version\": \"9"),
    );
    folder.refused_anyhow(&format!("{line} --resume"), &["requests_sha256"]);
    folder.write("one/retrack.json", chain);
    folder.done(&format!("{line} --resume"));
    let record = |folder: &Folder| {
        let mut chain = folder.read_json("two/retrack.json");
        assert!(chain["requests"][1]["date"].take().is_string());
        chain
    };
    let resumed = record(&folder);
    folder.done("history two");
    folder.done(&format!("{line} --force"));
    assert_eq!(record(&folder), resumed);
}

#[test]
fn a_folder_without_a_record_is_said_to_have_none() {
    let folder = Folder::with_model_and_photos();
    folder.refused(
        "history model",
        &["model/retrack.json: not there", "retrack unlearn"],
    );
    folder.refused("history photos", &["photos"]);
    folder.refused("history nowhere", &["nowhere"]);
    // One of somebody else stays, and is found before any work.
    folder.write("out/retrack.json", "{}");
    folder.refused(&unlearn("model", "row:3", "out", ""), &["out"]);
    folder.write("model/retrack.json", "{}");
    folder.refused(
        &unlearn("model", "row:3", "new", ""),
        &["model/retrack.json", "no format"],
    );
}

#[test]
fn what_an_adapter_forgot_goes_on_once_it_is_merged() {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..6 {
        folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
    }
    let line = |model: &str, row: usize, out: &str| {
        format!(
            "unlearn --model {model} --data photos --forget row:{row} --prompt toast --neighbors 3 --batch-size 1 --lr 0.01 \
             --accumulate 1 --steps 2 --no-report --out {out}"
        )
    };
    folder.done(&format!(
        "{} --train lora --rank 2",
        line("model", 0, "one")
    ));
    let request = &requests(&folder, "one")[0];
    assert_eq!(request["adapter_rank"], 2);
    let adapter = "pytorch_lora_weights.safetensors";
    assert!(request["before"][adapter].is_null() && request["after"][adapter].is_string());
    assert_eq!(request["before"][WEIGHTS], request["after"][WEIGHTS]);
    folder.done("history one");
    let says = [
        "one: what the last request forgot is in the adapter",
        "retrack merge",
    ];
    folder.refused(&line("one", 1, "two"), &says);
    folder.refused(&format!("{} --train lora", line("one", 1, "two")), &says);

    for (merge, merged) in [
        ("--model one", "merged"),
        ("--model model --adapter one", "apart"),
    ] {
        folder.done(&format!("merge {merge} --out {merged}"));
        let requests = requests(&folder, merged);
        assert_eq!(requests.len(), 2, "{merge}");
        assert_eq!(requests[1]["command"], "merge");
        assert_eq!(requests[1]["before"], requests[0]["after"]);
        let said = folder.done(&format!("history {merged}"));
        assert!(
            said.stdout.contains("retrack, lora") && said.stdout.contains("merge"),
            "{}",
            said.stdout
        );
    }
    // The key came along.
    let said = folder.done(&format!("{} --json", line("merged", 1, "two")));
    assert_eq!(said.json()["earlier"]["images"], 1);
    assert_eq!(requests(&folder, "two").len(), 3);
    folder.done("history two");
    // Of a model without requests nothing begins here.
    folder.done(&format!(
        "merge --model model --adapter one/{adapter} --out again"
    ));
    assert!(folder.path("again/retrack.json").exists());
    // Another key is in its place, and stays.
    let other = format!("{}\n", "0".repeat(64));
    folder.write("third.digest-key", &other);
    let said = folder.done("merge --model one --out third");
    assert!(
        said.stderr.contains("third.digest-key: there already")
            && said.stderr.contains("one.digest-key"),
        "{}",
        said.stderr
    );
    assert_eq!(folder.read("third.digest-key"), other.as_bytes());
    fs::remove_file(folder.path("one/retrack.json")).unwrap();
    folder.done("merge --model one --out none");
    assert!(!folder.path("none/retrack.json").exists());
}

#[test]
fn a_text_to_image_model_goes_on_with_its_requests_and_is_verified() {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..8 {
        folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
    }
    let line = |model: &str, row: usize, out: &str| {
        format!(
            "unlearn --model {model} --data photos --forget row:{row} --forget-prompt jane --retain-prompt others \
             --neighbors 3 --steps 1 --accumulate 1 --batch-size 2 --json --out {out}"
        )
    };
    folder.done(&line("model", 2, "one"));
    let said = folder.done(&line("one", 5, "two")).json();
    assert_eq!(said["earlier"]["images"], 1);
    let config = folder.read_json("two/run/config.json");
    assert_eq!(config["earlier_rows"], json!([2]));
    assert_eq!(config["retained"], 6);
    let neighbors = &folder.read_json("two/run/report.json")["neighbors"]["groups"][0]["rows"];
    assert!(
        !neighbors.as_array().unwrap().contains(&json!(2)),
        "{neighbors}"
    );
    folder.done("verify two");
    folder.done("history two");
    let chain = String::from_utf8(folder.read("two/retrack.json")).unwrap();
    assert!(!chain.contains("jane"), "{chain}");
}

#[test]
fn an_image_of_an_earlier_request_that_came_back_is_forgotten_again_with_the_new_one() {
    let folder = Folder::new();
    let line = |model: &str, forget: &str, out: &str| {
        format!(
            "unlearn --model {model} --data {RETRAINED}/digits/data.parquet --forget {forget} --out {out} --json"
        )
    };
    let with = format!("{RETRAINED}/digits/with");
    folder.done(&line(&with, "label:1", "one"));
    // A row of another label, which the model does not know.
    let said = folder.done(&line("one", "row:0", "two")).json();
    assert_eq!(said["earlier"]["images"], 1, "{said:#}");
    assert_eq!(said["earlier"]["came_back"], 0, "{said:#}");
    assert_eq!(said["steps"], 0, "{said:#}");
    let sentence = said["verdict"]["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("The image of an earlier request that still lies in the data was not known before and is not known"),
        "{sentence}"
    );
    folder.done("verify two");

    // Something taught it again.
    folder.write(
        &format!("two/{WEIGHTS}"),
        fs::read(format!("{with}/{WEIGHTS}")).unwrap(),
    );
    let said = folder.done(&line("two", "row:2", "three"));
    assert!(
        said.stderr
            .contains("1 image of earlier requests had come back"),
        "{}",
        said.stderr
    );
    let said = said.json();
    assert_eq!(said["earlier"]["came_back"], 1, "{said:#}");
    assert!(said["steps"].as_u64().unwrap() > 0);
    let sentence = said["verdict"]["sentence"].as_str().unwrap();
    assert!(
        sentence.contains(
            "2 images of earlier requests still lie in the data: 1 known before, 0 after"
        ),
        "{sentence}"
    );
    let requests = requests(&folder, "three");
    assert_eq!(requests[2]["again"], requests[0]["images"]);
    let config = folder.read_json("three/run/config.json");
    assert_eq!(config["forget_rows"], json!([2]));
    folder.done("verify three");
}
