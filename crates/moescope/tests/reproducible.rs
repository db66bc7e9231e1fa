//! The same seed and device give the same tokens and the same routing.

use std::path::Path;

use moescope_trace::{Run, RunTables};
use serde_json::json;

use crate::common::{prompts, run_command, succeed};

fn record(prompts: &Path, output: &Path, options: &[&str]) -> RunTables {
    succeed(run_command(prompts, output).args(["--max-tokens", "24"]).args(options));
    Run::open(output).unwrap().read().unwrap()
}

#[test]
fn a_seed_fixes_tokens_and_routing() {
    let dir = tempfile::tempdir().unwrap();
    let text = "def total(items):\n    return sum(item.price for item in items)\n".repeat(4);
    let prompts = prompts(
        dir.path(),
        &[
            json!({"id": "a", "domain": "python", "text": text}),
            json!({"id": "b", "domain": "prose", "text": "The house by the river was empty."}),
        ],
    );
    let sampled = ["--temperature", "1", "--top-p", "0.95", "--seed"];
    let with_seed = |name: &str, seed: &str| {
        record(&prompts, &dir.path().join(name), &[&sampled[..], &[seed]].concat())
    };
    let (first, again, other) = (with_seed("1", "5"), with_seed("2", "5"), with_seed("3", "6"));
    assert_eq!(first.tokens.token_id, again.tokens.token_id);
    assert_eq!(first.routing.experts, again.routing.experts);
    assert_eq!(first.routing.weights, again.routing.weights);
    assert_ne!(first.tokens.token_id, other.tokens.token_id, "another seed draws other tokens");
}
