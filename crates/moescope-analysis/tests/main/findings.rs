//! Sentences about confidence, prediction, time and memory.

use moescope_analysis::rng::Rng;
use moescope_analysis::{Analysis, Finding, Options, RunData, analyze_data, compare, findings};
use moescope_trace::Phase::{Decode, Prefill};
use moescope_trace::manifest::{DeviceType, TimingMode};

use crate::support::{FAST, SMALL, Shape, run, steps, uniform, uniformly};

/// A run of SMALL's shape in which sequence n has a prefill pass and a decode pass.
fn timed(prefill_ns: u64, decode_ns: impl Fn(u64) -> u64) -> RunData {
    let mut data = uniform(SMALL, 1);
    let mut passes = Vec::new();
    for (n, sequence) in data.sequences.iter().enumerate() {
        let tokens = (sequence.end - sequence.start) as u32;
        passes.push((Prefill, tokens - 5, prefill_ns + n as u64 * 1000));
        for at in 0..5 {
            passes.push((Decode, 1, decode_ns((n * 5 + at) as u64)));
        }
        for token in sequence.start..sequence.end {
            let from_end = sequence.end - token;
            let (phase, step) =
                if from_end > 5 { (Prefill, 0) } else { (Decode, 6 - from_end as u32) };
            data.tokens.phase[token] = phase;
            data.tokens.step[token] = n as u32 * 6 + step;
        }
    }
    data.steps = steps(&passes);
    data.manifest.settings.timing_mode = TimingMode::EndToEnd;
    data.manifest.device.backend = "flex".to_owned();
    data.manifest.device.adapter = "Some CPU".to_owned();
    data.check().unwrap();
    data
}

fn about<'a>(found: &'a [Finding], figure: &str) -> Vec<&'a Finding> {
    found.iter().filter(|finding| finding.figure == Some(figure)).collect()
}

#[test]
fn prefill_and_decode() {
    let analysis = analyze_data(&timed(7_000_000, |_| 1_000_000), &FAST);
    let throughput = |phase| analysis.row("throughput", None, None, None, Some(phase)).unwrap();
    assert!(throughput("prefill").interval.is_some());
    assert!((throughput("decode").value - 1000.0).abs() < 1e-6);
    let found = findings(&[analysis], &[]);
    let speed = about(&found, "throughput");
    assert_eq!(speed.len(), 1);
    assert_eq!(
        speed[0].headline,
        "Prompts are read at 4,984 tokens/s and text is generated at 1,000 tokens/s"
    );
    assert!(speed[0].detail.contains("on flex, Some CPU"), "{speed:?}");
    assert_eq!(speed[0].effect, 0.0, "it is held against nothing");
    assert!(about(&found, "latency").is_empty(), "an even latency has no tail: {found:?}");
}

#[test]
fn a_tail() {
    // Every 25th pass takes 10 ms instead of 1 ms.
    let decode = |n| if n % 25 == 24 { 10_000_000 } else { 1_000_000 + n };
    let analysis = analyze_data(&timed(7_000_000, decode), &FAST);
    let found = findings(&[analysis], &[]);
    let tail = about(&found, "latency");
    assert_eq!(tail.len(), 1);
    assert_eq!(
        tail[0].headline,
        "One decode pass in a hundred takes 10.0 ms or more, 10 times the median of 1.00 ms"
    );
    assert!(tail[0].detail.ends_with("of 225 decode passes."), "{tail:?}");
}

fn pair(a: RunData, b: RunData) -> Vec<Finding> {
    let (a, b) = (RunData { name: "A".to_owned(), ..a }, RunData { name: "B".to_owned(), ..b });
    let comparison = compare(&a, &b, &FAST);
    findings(&[analyze_data(&a, &FAST), analyze_data(&b, &FAST)], &[comparison])
}

#[test]
fn speeds_on_one_device() {
    let found = pair(timed(7_000_000, |_| 1_000_000), timed(7_000_000, |_| 800_000));
    let ratio = found.iter().find(|finding| finding.headline.contains("as fast")).unwrap();
    assert_eq!(
        ratio.headline,
        "Decode is 1.25 times as fast in B as in A: 1,250 tokens/s against 1,000 tokens/s"
    );
    // Equal speeds are no finding.
    let found = pair(timed(7_000_000, |n| 1_000_000 + n), timed(7_000_000, |n| 1_000_000 + n));
    assert!(found.iter().all(|finding| !finding.headline.contains("as fast")), "{found:?}");
}

#[test]
fn speeds_on_different_devices() {
    let mut other = timed(70_000_000, |_| 50_000_000);
    other.manifest.device.backend = "wgpu".to_owned();
    other.manifest.device.adapter = "llvmpipe".to_owned();
    other.manifest.device.device_type = DeviceType::Software;
    let found = pair(timed(7_000_000, |_| 1_000_000), other);
    assert!(found[0].caveat && found[0].headline.contains("software adapter"), "{found:?}");
    let speed = found.iter().find(|finding| finding.headline.contains("different")).unwrap();
    assert_eq!(
        speed.headline,
        "Decode runs at 1,000 tokens/s in A and at 20.0 tokens/s in B [software adapter], on \
         different devices"
    );
    assert!(speed.detail.contains("B: wgpu, llvmpipe"), "{speed:?}");
}

#[test]
fn confidence_with_depth() {
    let mut data = uniform(Shape { layers: 4, ..SMALL }, 1);
    for layer in &mut data.layers {
        let level = 2.5 - f32::from(layer.layer) * 0.5;
        let entropy = (0..1800u16).map(|token| level + f32::from(token % 7) * 0.01);
        layer.entropy = Some(entropy.collect());
    }
    let found = findings(&[analyze_data(&data, &FAST)], &[]);
    let depth = about(&found, "confidence");
    assert_eq!(depth.len(), 1);
    // (2.5 + 0.03) / ln 16 and (1 + 0.03) / ln 16
    assert_eq!(
        depth[0].headline,
        "The router gets surer with depth: its entropy falls from 91 % of the maximum at layer 0 to \
         37 % at layer 3"
    );
}

#[test]
fn domains_that_are_hard_to_predict() {
    let mut data = uniform(SMALL, 1);
    let of_domain = [-1.0, -2.0, -4.0];
    data.tokens.logprob =
        Some((0..1800).map(|t| of_domain[t / 600] + (t % 7) as f32 * 0.01).collect());
    let analysis = analyze_data(&data, &FAST);
    let found = findings(&[analysis], &[]);
    assert_eq!(
        found[0].headline,
        "\"english\" is the easiest domain at -0.97 nats per token, \"japanese\" the hardest at -3.97"
    );
    assert_eq!(found[0].figure, Some("predictability"));
}

#[test]
fn memory() {
    let mut data = timed(7_000_000, |_| 1_000_000);
    data.manifest.model.bytes = 1 << 20;
    data.steps.bytes_in_use =
        (0..data.steps.rows() as u64).map(|n| Some((4 << 20) + n * 8192)).collect();
    let found = findings(&[analyze_data(&data, &FAST)], &[]);
    let memory: Vec<&str> =
        about(&found, "memory").iter().map(|finding| finding.headline.as_str()).collect();
    assert_eq!(memory.len(), 2, "{found:?}");
    assert!(
        memory[0]
            .starts_with("At most 6.10 MiB of device memory is in use, 6.1 times the 1.00 MiB")
    );
    assert!(memory[1].starts_with("Device memory in use grows by"), "{memory:?}");
}

#[test]
fn several_runs_share_one_sentence() {
    let names = ["one", "two"];
    let analyses: Vec<Analysis> = names
        .iter()
        .map(|name| {
            let data = timed(7_000_000, |_| 1_000_000);
            analyze_data(&RunData { name: (*name).to_owned(), ..data }, &FAST)
        })
        .collect();
    let found = findings(&analyses, &[]);
    let speed = about(&found, "throughput");
    assert_eq!(speed.len(), 1);
    assert!(
        speed[0].headline.contains(" in one") && speed[0].detail.contains(" In two: "),
        "{speed:?}"
    );
}

#[test]
fn results_are_ranked() {
    let mut data = timed(70_000_000, |n| if n % 25 == 24 { 10_000_000 } else { 1_000_000 });
    data.partial = true;
    let found = findings(&[analyze_data(&data, &FAST)], &[]);
    assert!(found[0].caveat);
    let effects: Vec<f64> =
        found.iter().filter(|finding| !finding.caveat).map(|finding| finding.effect).collect();
    assert!(effects.len() >= 2 && effects.is_sorted_by(|a, b| a >= b), "{effects:?}");
    assert!(found.iter().all(|finding| finding.headline.contains("partial")), "{found:?}");
}

/// A planted repetition is found, with the figure that shows it; the largest effect comes first.
#[test]
fn a_text_that_repeats_itself() {
    // Each sequence keeps to two of eight experts.
    let shape = Shape { experts: 8, top_k: 2, ..SMALL };
    let data = run(shape, 1, |sequence, _, _, _, chosen| {
        let first = (sequence * 2 % 8) as u16;
        chosen.extend([first, first + 1]);
    });
    let found = findings(&[analyze_data(&data, &FAST)], &[]);
    let figures: Vec<&str> = found.iter().filter_map(|finding| finding.figure).collect();
    for figure in ["hit-rate", "reuse", "path"] {
        assert_eq!(figures.iter().filter(|id| **id == figure).count(), 1, "{figure}: {found:?}");
    }
    let reuse = about(&found, "reuse");
    assert!(reuse[0].headline.contains("uses 100 % of a token's experts again"), "{reuse:?}");
    assert!((reuse[0].effect - 4f64.ln()).abs() < 1e-9);
    assert!(found.is_sorted_by(|a, b| (a.caveat && !b.caveat) || a.effect >= b.effect));
}

/// A planted pair is found with its run and layer, and held against what its popularity gives.
#[test]
fn experts_that_run_together() {
    // In layer 1 of the second run experts 3 and 9 come together in a third of the tokens.
    let pair = |layer: u16, rng: &mut Rng, chosen: &mut Vec<u16>| {
        if layer == 1 && rng.below(3) == 0 {
            chosen.extend([3, 9]);
        }
        uniformly(rng, SMALL.experts, SMALL.top_k, chosen);
    };
    let planted = run(SMALL, 1, |_, layer, _, rng, chosen| pair(layer, rng, chosen));
    let runs = [("even", uniform(SMALL, 2)), ("planted", planted)];
    let analyses = runs.map(|(name, data)| {
        analyze_data(&RunData { name: name.to_owned(), ..data }, &Options::default())
    });
    let found = findings(&analyses, &[]);
    let pairs = about(&found, "coactivation");
    assert_eq!(pairs.len(), 1, "{found:?}");
    let Finding { headline, detail, run, layer, effect, .. } = pairs[0];
    assert!(
        headline.starts_with("Experts 3 and 9 of layer 1 run for the same token ")
            && headline.ends_with(" times as often as their popularity gives in planted"),
        "{headline}"
    );
    assert_eq!((*run, *layer), (Some(1), Some(1)));
    // Of T tokens T/3 hold the pair, and each of the two is in 1/3 + 2/3 * 2/16 of them; chance is 16/30.
    let share = 1.0 / 3.0 + 2.0 / 3.0 / 8.0;
    let lift = (1.0 / 3.0 + 2.0 / 3.0 / 120.0) / (share * share);
    assert!((effect - (lift * 30.0 / 16.0_f64).ln()).abs() < 0.15, "{effect} {lift}");
    assert!(
        detail.contains("95 % interval") && detail.contains("chosen on the other half"),
        "{detail}"
    );
}

/// Every result says where it is to be seen.
fn assert_placed(found: &[Finding], runs: usize) {
    for finding in found.iter().filter(|finding| !finding.caveat) {
        assert!(finding.figure.is_some(), "{} links to no figure", finding.headline);
        assert!(finding.run.is_some_and(|run| run < runs), "{}", finding.headline);
        let layer = finding.layer.map(|layer| format!("ayer {layer}"));
        assert!(
            layer.is_none_or(|layer| finding.headline.contains(&layer)),
            "{} is not about layer {:?}",
            finding.headline,
            finding.layer
        );
    }
}

#[test]
fn every_result_links_to_a_figure() {
    let shape = Shape { experts: 8, top_k: 2, ..SMALL };
    let planted = |seed| {
        let mut data = run(shape, seed, |domain, _, _, rng, chosen| {
            if rng.below(2) == 0 {
                chosen.push(domain as u16);
            }
            uniformly(rng, shape.experts, shape.top_k, chosen);
        });
        data.tokens.logprob = Some((0..1800).map(|t| -1.0 - (t / 600) as f32).collect());
        data
    };
    let (a, b) =
        (planted(1), timed(7_000_000, |n| if n % 25 == 24 { 10_000_000 } else { 1_000_000 }));
    let found = pair(a.clone(), planted(2));
    assert_placed(&found, 2);
    assert!(found.iter().any(|finding| finding.figure == Some("specialisation")), "{found:?}");
    assert_placed(&findings(&[analyze_data(&a, &FAST), analyze_data(&b, &FAST)], &[]), 2);
}
