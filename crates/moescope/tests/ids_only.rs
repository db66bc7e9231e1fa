//! Runs of another engine with expert ids alone: every command says what they allow, and what is missing.

use std::path::Path;

use moescope_analysis::synthetic::Synthetic;
use moescope_trace::{RoutingColumns, RunWriter, TokenColumns};

use crate::common::{moescope, stderr, stdout, succeed};

/// Three layers of 16 experts, two per token; no weights, no times, no token ids, no text, no hash of the
/// prompts and no size of the model.
fn write(dir: &Path, seed: u64) {
    let made = Synthetic {
        domains: 2,
        sequences: 6,
        prompt: 30,
        generated: 10,
        layers: 3,
        experts: 16,
        top_k: 2,
        weights: false,
        seed,
        ..Synthetic::default()
    };
    let data = made.generate().unwrap();
    let mut manifest = data.manifest.clone();
    manifest.settings.timing_mode = moescope_trace::manifest::TimingMode::None;
    manifest.model.weights = moescope_trace::manifest::Weights::Trained;
    let mut writer = RunWriter::create(dir, manifest, false).unwrap();
    let of_token = |of: &dyn Fn(usize) -> u32| -> Vec<u32> {
        data.sequences.iter().flat_map(|s| s.start..s.end).map(of).collect()
    };
    let sequence = of_token(&|token| (token / 40) as u32);
    let position = of_token(&|token| (token % 40) as u32);
    let domain = |sequence: &u32| {
        data.domains[usize::from(data.sequences[*sequence as usize].domain)].clone()
    };
    writer
        .write_tokens(&TokenColumns {
            step: vec![0; data.len()],
            phase: data.tokens.phase.clone(),
            text: vec![String::new(); data.len()],
            domain: sequence.iter().map(domain).collect(),
            logprob: vec![None; data.len()],
            token_id: vec![0; data.len()],
            sequence: sequence.clone(),
            position: position.clone(),
        })
        .unwrap();
    for layer in &data.layers {
        writer
            .write_routing(&RoutingColumns {
                sequence: sequence.clone(),
                position: position.clone(),
                layer: vec![layer.layer; data.len()],
                top_k: layer.top_k,
                experts: layer.ids.clone(),
                experts_total: layer.experts,
                ..RoutingColumns::default()
            })
            .unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn every_command_on_ids_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (base, new) = (dir.path().join("base"), dir.path().join("new"));
    write(&base, 1);
    write(&new, 2);

    // analyze: every metric has a line or is named with what is missing.
    let output = succeed(moescope().arg("analyze").arg(&base));
    let (text, notes) = (stdout(&output), stderr(&output));
    for metric in moescope_analysis::METRICS {
        let line = text.lines().any(|line| line.split_whitespace().next() == Some(metric.name));
        let note = notes.contains(&format!(" {}: not recorded: ", metric.name));
        assert!(line != note, "{}: a line {line}, a note {note}\n{notes}", metric.name);
    }
    for missing in ["token ids", "router entropy", "end-to-end times", "run with --saliency"] {
        assert!(notes.contains(missing), "{missing}: {notes}");
    }
    for by in ["domain", "phase"] {
        let metric = ["--metric", "coactivation_lift", "--metric", "path_information"];
        let output = succeed(moescope().arg("analyze").arg(&base).args(metric).args(["--by", by]));
        assert!(stdout(&output).contains("path_information"), "{by}: {}", stdout(&output));
    }

    // simulate: hit rates, and speeds where the model's size is given.
    let output = succeed(moescope().arg("simulate").arg(&base).args(["--gpus", "4"]));
    assert!(stderr(&output).contains("does not say how large its model is"), "{}", stderr(&output));
    assert!(stdout(&output).contains("experts in order"), "{}", stdout(&output));
    let sizes = ["--expert-bytes", "1MiB", "--dense-bytes", "10MiB", "--format", "json"];
    let json = stdout(&succeed(moescope().arg("simulate").arg(&base).args(sizes)));
    assert!(json.contains("predicted_tokens_per_second"), "{json}");

    // compare: what needs no tokens, and why the rest is missing.
    let text = stdout(&succeed(moescope().arg("compare").arg(&base).arg(&new)));
    assert!(text.contains("token ids were not recorded"), "{text}");
    assert!(text.contains("shift") && text.contains("not compared: speed"), "{text}");

    // report: a page.
    let page = dir.path().join("report");
    succeed(moescope().arg("report").arg(&base).arg(&new).arg("-o").arg(&page));
    let markdown = std::fs::read_to_string(page.join("report.md")).unwrap();
    assert!(markdown.contains("not recorded"), "{markdown}");
}

#[test]
fn made_up_runs() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let small = ["--decisions", "20000", "--layers", "2", "--experts", "8", "--top-k", "2"];
    let mut command = moescope();
    let output =
        succeed(command.arg("synthetic").args(small).arg("--saliency").arg("-o").arg(&run));
    assert!(stdout(&output).is_empty());
    // 8 domains of two sequences of 512 tokens, two choices at two layers.
    assert!(stderr(&output).contains("32,768 decisions"), "{}", stderr(&output));
    let output = succeed(moescope().arg("analyze").arg(&run).args(["--metric", "saliency_reap"]));
    assert!(stdout(&output).contains("saliency_reap"), "{}", stdout(&output));
    // Nothing is replaced.
    let mut again = moescope();
    crate::common::fail(again.arg("synthetic").arg("-o").arg(&run), &["is there already"]);
    let mut none = moescope();
    none.arg("synthetic").args(["--layers", "0"]).arg("-o").arg(dir.path().join("none"));
    crate::common::fail(&mut none, &["at least one"]);
    let mut many = moescope();
    many.arg("synthetic").args(["--experts", "4"]).arg("-o").arg(dir.path().join("many"));
    crate::common::fail(&mut many, &["8 of 4 experts"]);
}
