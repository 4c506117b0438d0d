//! What README says of the program, against the program.

use std::path::Path;
use std::{env, fs};

const REWRITE: &str = "RETRACK_REWRITE=1 cargo test --workspace --test readme";

/// Compares what lies in a file between `<!-- NAME -->` and `<!-- end of NAME -->` with what should, or writes it there.
fn generated(file: &str, name: &str, wanted: &str) {
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
