//! What is written comes back, through vectors and through lazy frames.

use moescope_trace::{Lists, Phase, RoutingColumns, RoutingFields, Run, RunWriter, TokenColumns};
use polars::prelude::*;
use proptest::prelude::*;

use crate::common::*;

#[test]
fn all_tables() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    writer.write_tokens(&tokens(0, 0, 3)).unwrap();
    writer.write_tokens(&tokens(1, 0, 2)).unwrap();
    writer.write_routing(&routing(0, 0, 3)).unwrap();
    writer.write_routing(&routing(1, 0, 2)).unwrap();
    writer.write_steps(&steps(0, 3)).unwrap();
    writer.write_layers(&layers()).unwrap();
    writer.manifest_mut().sequences = 2;
    assert_eq!(writer.finish().unwrap(), path);
    assert_eq!(names(&path), ["layers", "manifest.json", "routing", "steps", "tokens"]);
    assert_eq!(names(&path.join("tokens")), ["part-00000.parquet", "part-00001.parquet"]);

    let run = Run::open(&path).unwrap();
    assert!(!run.is_partial());
    assert_eq!(run.path(), path);
    let mut expected = manifest();
    expected.sequences = 2;
    assert_eq!(*run.manifest(), expected);

    let table = run.read_tokens().unwrap();
    assert_eq!(table.sequence, [0, 0, 0, 1, 1]);
    assert_eq!(table.position, [0, 1, 2, 0, 1]);
    assert_eq!(table.step, [0, 1, 2, 0, 1]);
    assert_eq!(table.phase[1..3], [Phase::Prefill, Phase::Decode]);
    assert_eq!(table.token_id, [100, 101, 102, 100, 101]);
    assert_eq!(table.text[2], "token 2");
    assert_eq!(table.domains, ["domain-0", "domain-1"]);
    assert_eq!(table.domain, [0, 0, 0, 1, 1]);
    assert_eq!(table.domain_of(4), "domain-1");
    assert_eq!(table.logprob, [None, Some(-0.5), Some(-1.0), None, Some(-0.5)]);

    let table = run.read_routing().unwrap();
    assert_eq!(table.rows(), 10);
    assert_eq!(table.top_k(), Some(2));
    assert_eq!(table.layer, [1, 1, 1, 3, 3, 3, 1, 1, 3, 3]);
    assert_eq!(table.experts_of(5), [5, 6]);
    assert_eq!(table.weights_of(5), Some(&[0.75, 0.25][..]));
    assert_eq!(table.entropy, Some(vec![1.5; 10]));
    assert_eq!(table.margin, Some(vec![0.125; 10]));
    assert_eq!((table.probs_of(0), table.output_norms_of(0)), (None, None));

    assert_eq!(run.read_steps().unwrap(), steps(0, 3));

    let table = run.read_layers().unwrap().unwrap();
    assert_eq!(table.components, ["attention", "experts", "head"]);
    assert_eq!(table.component_of(2), "head");
    assert_eq!(table.layer, [0, 0, u16::MAX]);
    assert_eq!(table.duration_ns, [10, 20, 30]);
}

#[test]
fn lazy_frames_have_the_documented_types() {
    let (_dir, path) = scratch();
    small_run(&path);
    let run = Run::open(&path).unwrap();
    let routing = run.routing().unwrap().collect().unwrap();
    let list = |inner| DataType::List(Box::new(inner));
    let expected: Vec<(&str, DataType)> = vec![
        ("sequence", DataType::UInt32),
        ("position", DataType::UInt32),
        ("layer", DataType::UInt16),
        ("experts", list(DataType::UInt16)),
        ("weights", list(DataType::Float32)),
        ("entropy", DataType::Float32),
        ("margin", DataType::Float32),
    ];
    let found: Vec<(&str, DataType)> = routing
        .columns()
        .iter()
        .map(|column| (column.name().as_str(), column.dtype().clone()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(routing.height(), 8);

    let tokens = run.tokens().unwrap().collect().unwrap();
    for name in ["phase", "text", "domain"] {
        assert_eq!(tokens.column(name).unwrap().dtype(), &DataType::String, "{name}");
    }
    let late = run.steps().unwrap().filter(col("step").gt(lit(1))).collect().unwrap();
    assert_eq!(late.height(), 2);
    assert!(run.layers().unwrap().is_none());
    assert!(run.read_layers().unwrap().is_none());
}

/// Parts with and without the optional columns, as when recording options differ between batches.
#[test]
fn optional_columns_come_and_go_between_parts() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    let mut bare = routing(0, 0, 1);
    bare.weights.clear();
    bare.entropy.clear();
    bare.margin.clear();
    let mut full = routing(0, 1, 1);
    full.experts_total = usize::from(EXPERTS);
    full.probs = Some((0..16).map(|value| value as f32).collect());
    full.output_norms = Some(vec![1.0, 2.0, 3.0, 4.0]);
    for part in [&bare, &full, &bare] {
        writer.write_routing(part).unwrap();
    }
    writer.finish().unwrap();

    let run = Run::open(&path).unwrap();
    let table = run.read_routing_with(RoutingFields::ALL).unwrap();
    assert_eq!(table.rows(), 6);
    assert!(table.weights_of(0).unwrap().iter().all(|weight| weight.is_nan()));
    assert_eq!(table.weights_of(2), Some(&[0.75, 0.25][..]));
    assert!(table.weights_of(5).unwrap().iter().all(|weight| weight.is_nan()));
    let entropy = table.entropy.as_ref().unwrap();
    assert!(entropy[1].is_nan() && entropy[2] == 1.5 && entropy[4].is_nan());
    assert_eq!(table.probs_of(0), None);
    assert_eq!(table.probs_of(3).unwrap()[..2], [8.0, 9.0]);
    assert_eq!(table.probs_of(4), None);
    assert_eq!(table.output_norms_of(3), Some(&[3.0, 4.0][..]));

    // Not asked for: not read.
    let table = run.read_routing().unwrap();
    assert_eq!((table.probs, table.output_norms), (None, None));

    let frame = run.routing().unwrap().collect().unwrap();
    assert_eq!(frame.height(), 6);
    assert_eq!(frame.column("probs").unwrap().null_count(), 4);
    assert_eq!(frame.column("weights").unwrap().null_count(), 4);
    let layers = frame.column("layer").unwrap().u16().unwrap();
    assert_eq!(layers.iter().flatten().collect::<Vec<_>>(), [1, 3, 1, 3, 1, 3]);
}

#[test]
fn nothing_but_experts_recorded() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    let mut bare = routing(0, 0, 2);
    bare.weights.clear();
    bare.entropy.clear();
    bare.margin.clear();
    writer.write_routing(&bare).unwrap();
    writer.finish().unwrap();
    let table = Run::open(&path).unwrap().read_routing_with(RoutingFields::ALL).unwrap();
    assert_eq!((&table.weights, &table.entropy, &table.margin), (&None, &None, &None));
    assert_eq!((table.probs, table.output_norms), (None, None));
    assert_eq!(table.experts, bare.experts);
}

/// Layers with different K: the lists are ragged.
#[test]
fn top_k_may_differ_between_layers() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    writer.write_routing(&routing(0, 0, 2)).unwrap();
    let one = RoutingColumns {
        sequence: vec![0, 0],
        position: vec![0, 1],
        layer: vec![5, 5],
        top_k: 1,
        experts: vec![7, 6],
        weights: vec![1.0, 1.0],
        ..Default::default()
    };
    writer.write_routing(&one).unwrap();
    writer.finish().unwrap();
    let table = Run::open(&path).unwrap().read_routing().unwrap();
    assert_eq!(table.top_k(), None);
    assert_eq!(table.lists, Lists::Offsets(vec![0, 2, 4, 6, 8, 9, 10]));
    assert_eq!(table.experts_of(3).len(), 2);
    assert_eq!(table.experts_of(5), [6]);
    assert_eq!(table.weights_of(4), Some(&[1.0][..]));
}

/// More rows than a row group, and more groups than are read at once.
#[test]
fn many_row_groups() {
    let (_dir, path) = scratch();
    let rows = 1_500_001_u32;
    let columns = RoutingColumns {
        sequence: vec![0; rows as usize],
        position: (0..rows).collect(),
        layer: vec![1; rows as usize],
        top_k: 2,
        experts: (0..2 * rows).map(|value| (value % 8) as u16).collect(),
        weights: (0..2 * rows).map(|value| value as f32).collect(),
        ..Default::default()
    };
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    writer.write_routing(&columns).unwrap();
    writer.finish().unwrap();
    let table = Run::open(&path).unwrap().read_routing().unwrap();
    assert!(table.position == columns.position);
    assert!(table.experts == columns.experts);
    assert!(table.weights.as_ref() == Some(&columns.weights));
    assert_eq!(table.lists, Lists::Fixed(2));
}

#[test]
fn hostile_text_survives_unchanged() {
    let texts = [
        "<script>alert(1)</script>",
        "\u{1b}[31mred\u{1b}[0m\u{7}",
        "\0\u{1}\u{7f}\r\n\t",
        "\u{202e}txet ltr\u{202c} \u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        "`**md**` | [x](javascript:alert(1))",
        "\u{fffd}\u{feff}",
        "👩‍👩‍👧‍👦 日本語",
        "",
        "\"quoted\" \\ 'single' %s {}",
    ];
    let count = texts.len() as u32;
    let mut columns = tokens(0, 0, count);
    columns.text = texts.iter().map(ToString::to_string).collect();
    columns.domain = columns.text.clone();
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    writer.write_tokens(&columns).unwrap();
    writer.finish().unwrap();
    let run = Run::open(&path).unwrap();
    let table = run.read_tokens().unwrap();
    assert_eq!(table.text, texts);
    assert_eq!(table.domains, texts);
    let frame = run.tokens().unwrap().collect().unwrap();
    let column = frame.column("text").unwrap().str().unwrap();
    assert_eq!(column.iter().flatten().collect::<Vec<_>>(), texts);
}

/// A path with everything that scanners treat as a pattern.
#[test]
fn odd_paths() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("a b/layer=3/x[1]*?{y}/ü%20");
    small_run(&path);
    let run = Run::open(&path).unwrap();
    assert_eq!(run.read().unwrap().tokens.rows(), 4);
    let frame = run.tokens().unwrap().collect().unwrap();
    assert_eq!((frame.height(), frame.width()), (4, 8));
}

fn any_tokens() -> impl Strategy<Value = TokenColumns> {
    let row = (
        any::<(u32, u32, u32, bool, u32)>(),
        ".{0,6}",
        "[a-c]{1,2}",
        proptest::option::of(-100.0f32..0.0),
    );
    proptest::collection::vec(row, 0..20).prop_map(|rows| {
        let mut columns = TokenColumns::default();
        for ((sequence, position, step, decode, token_id), text, domain, logprob) in rows {
            columns.sequence.push(sequence);
            columns.position.push(position);
            columns.step.push(step);
            columns.phase.push(if decode { Phase::Decode } else { Phase::Prefill });
            columns.token_id.push(token_id);
            columns.text.push(text);
            columns.domain.push(domain);
            columns.logprob.push(logprob);
        }
        columns
    })
}

fn any_routing() -> impl Strategy<Value = RoutingColumns> {
    (0..20usize, 1..9usize, 1..20usize, any::<[bool; 5]>(), any::<u32>()).prop_map(
        |(rows, top_k, experts_total, [weights, entropy, margin, probs, norms], seed)| {
            let number = |index: usize| (seed as usize).wrapping_mul(31).wrapping_add(index * 7);
            let floats = |on: bool, len: usize| -> Vec<f32> {
                (0..if on { len } else { 0 }).map(|index| number(index) as f32).collect()
            };
            RoutingColumns {
                sequence: (0..rows).map(|index| number(index) as u32).collect(),
                position: (0..rows).map(|index| number(index + 1) as u32).collect(),
                layer: (0..rows).map(|index| number(index) as u16).collect(),
                top_k,
                experts: (0..rows * top_k).map(|index| number(index) as u16).collect(),
                weights: floats(weights, rows * top_k),
                entropy: floats(entropy, rows),
                margin: floats(margin, rows),
                probs: probs.then(|| floats(true, rows * experts_total)),
                experts_total,
                output_norms: norms.then(|| floats(true, rows * top_k)),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_run_comes_back(
        token_parts in proptest::collection::vec(any_tokens(), 0..4),
        routing_parts in proptest::collection::vec(any_routing(), 0..4),
    ) {
        let (_dir, path) = scratch();
        let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
        for part in &token_parts {
            writer.write_tokens(part).unwrap();
        }
        for part in &routing_parts {
            writer.write_routing(part).unwrap();
        }
        writer.finish().unwrap();
        let run = Run::open(&path).unwrap();

        let table = run.read_tokens().unwrap();
        let mut row = 0;
        for part in &token_parts {
            for index in 0..part.rows() {
                prop_assert_eq!(table.sequence[row], part.sequence[index]);
                prop_assert_eq!(table.position[row], part.position[index]);
                prop_assert_eq!(table.step[row], part.step[index]);
                prop_assert_eq!(table.phase[row], part.phase[index]);
                prop_assert_eq!(table.token_id[row], part.token_id[index]);
                prop_assert_eq!(&table.text[row], &part.text[index]);
                prop_assert_eq!(table.domain_of(row), &part.domain[index]);
                prop_assert_eq!(table.logprob[row], part.logprob[index]);
                row += 1;
            }
        }
        prop_assert_eq!(table.rows(), row);
        prop_assert_eq!(run.tokens().unwrap().collect().unwrap().height(), row);

        let table = run.read_routing_with(RoutingFields::ALL).unwrap();
        let mut row = 0;
        // The flat values of a row of a part; NaN or nothing where the part has none.
        let same = |found: Option<&[f32]>, part: &[f32], width: usize, index: usize| match found {
            Some(found) if !part.is_empty() => found == &part[index * width..(index + 1) * width],
            Some(found) => found.iter().all(|value| value.is_nan()),
            None => part.is_empty(),
        };
        for part in &routing_parts {
            let k = part.top_k;
            for index in 0..part.rows() {
                prop_assert_eq!(table.sequence[row], part.sequence[index]);
                prop_assert_eq!(table.position[row], part.position[index]);
                prop_assert_eq!(table.layer[row], part.layer[index]);
                prop_assert_eq!(table.experts_of(row), &part.experts[index * k..(index + 1) * k]);
                prop_assert!(same(table.weights_of(row), &part.weights, k, index));
                let entropy = table.entropy.as_ref().map(|values| &values[row..=row]);
                prop_assert!(same(entropy, &part.entropy, 1, index));
                let margin = table.margin.as_ref().map(|values| &values[row..=row]);
                prop_assert!(same(margin, &part.margin, 1, index));
                let norms = part.output_norms.as_deref().unwrap_or(&[]);
                prop_assert!(same(table.output_norms_of(row), norms, k, index));
                let probs = part.probs.as_deref().unwrap_or(&[]);
                prop_assert!(same(table.probs_of(row), probs, part.experts_total, index));
                row += 1;
            }
        }
        prop_assert_eq!(table.rows(), row);
        prop_assert_eq!(run.routing().unwrap().collect().unwrap().height(), row);
    }
}
