//! Whole figures and whole pages, from made-up analyses.
//!
//! `MOESCOPE_GALLERY=DIR cargo test -p moescope-report` keeps the pages rendered here, to be looked at
//! in a browser after a change of a figure or the style.

#![allow(clippy::unwrap_used)]

mod bench;
mod contract;
mod drawing;
mod fixture;
mod hostile;
mod pages;

use std::path::PathBuf;

use moescope_analysis::Analysis;
use moescope_trace::manifest::{DeviceType, Weights};

use crate::{ReportOptions, ReportPaths, render};
use fixture::{Shape, analysis, comparisons, findings};

/// A report in a directory of its own; the guard removes it unless a gallery was asked for.
struct Rendered {
    paths: ReportPaths,
    _guard: Option<tempfile::TempDir>,
}

impl Rendered {
    fn html(&self) -> String {
        std::fs::read_to_string(&self.paths.html).unwrap()
    }

    fn markdown(&self) -> String {
        std::fs::read_to_string(&self.paths.markdown).unwrap()
    }
}

fn rendered(name: &str, analyses: &[Analysis]) -> Rendered {
    let (out_dir, guard) =
        match std::env::var_os("MOESCOPE_GALLERY").filter(|gallery| !gallery.is_empty()) {
            Some(gallery) => (PathBuf::from(gallery).join(name), None),
            None => {
                let guard = tempfile::tempdir().unwrap();
                (guard.path().join(name), Some(guard))
            }
        };
    let options = ReportOptions {
        title: None,
        command: ["moescope", "report", "runs/a", "runs/b c", "-o", "out"]
            .map(String::from)
            .to_vec(),
        out_dir,
        ..Default::default()
    };
    let paths = render(analyses, &comparisons(analyses), &findings(analyses), &options).unwrap();
    Rendered { paths, _guard: guard }
}

/// Every number of runs and every shape the figures must cope with.
fn shapes() -> Vec<(&'static str, Vec<Analysis>)> {
    let two = |shape: Shape| {
        let other = Shape {
            name: format!("{} (llvmpipe)", shape.name),
            seed: 2,
            speed: 0.58,
            device: DeviceType::Software,
            ..shape.clone()
        };
        vec![analysis(&shape), analysis(&other)]
    };
    let many = |count: usize| -> Vec<Analysis> {
        (0..count)
            .map(|n| {
                let mut shape = Shape::new(&format!("checkpoint-{:05}", n * 500), 6, 32, 4);
                (shape.seed, shape.speed) = (n as u64 + 1, 1.0 + 0.03 * n as f64);
                if n == 3 {
                    (shape.partial, shape.weights) = (true, Weights::Random);
                }
                analysis(&shape)
            })
            .collect()
    };
    vec![
        ("one", vec![analysis(&Shape::new("tiny-gemma4-moe", 6, 32, 4))]),
        ("two", two(Shape::new("tiny-gemma4-moe", 6, 32, 4))),
        ("five", many(5)),
        ("twenty", many(20)),
        ("gemma4-26b", two(Shape::new("gemma-4-26b-a4b", 30, 128, 8))),
        ("deepseek-v3", vec![analysis(&Shape::new("deepseek-v3", 61, 256, 8))]),
        ("one-layer", two(Shape::new("one-layer", 1, 8, 2))),
        ("dense", two(Shape::new("dense", 0, 0, 0))),
        (
            "one-domain",
            vec![analysis(&Shape {
                domains: vec!["text".into()],
                ..Shape::new("one-domain", 4, 16, 2)
            })],
        ),
        (
            "nothing-recorded",
            vec![{
                let mut bare = analysis(&Shape { prompts: 0, ..Shape::new("bare", 2, 8, 2) });
                bare.rows.clear();
                bare
            }],
        ),
    ]
}
