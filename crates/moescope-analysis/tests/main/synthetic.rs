//! Synthetic runs, the long table and its summary.

use moescope_analysis::METRICS;
use moescope_analysis::synthetic::Synthetic;
use moescope_analysis::{
    Index, RunData, TABLE_COLUMNS, analyze_data, analyze_metrics, summarise, write_parquet,
};
use moescope_trace::{Phase, Run};
use polars::prelude::*;

use crate::support::FAST;

const SMALL: Synthetic = Synthetic {
    domains: 3,
    sequences: 8,
    prompt: 40,
    generated: 24,
    layers: 3,
    experts: 16,
    top_k: 2,
    zipf: 0.8,
    own: 0.3,
    kept: 0.5,
    vocabulary: 40,
    weights: true,
    output_norms: true,
    seed: 7,
};

#[test]
fn has_the_properties_it_was_made_with() {
    let data = SMALL.generate().unwrap();
    assert_eq!(data.len(), SMALL.tokens());
    assert_eq!(SMALL.decisions(), data.layers.iter().map(|layer| layer.ids.len()).sum::<usize>());
    for layer in &data.layers {
        assert!(layer.ids.chunks(2).all(|pair| pair[0] != pair[1] && pair[0].max(pair[1]) < 16));
    }
    let decode = data.tokens.phase.iter().filter(|&&phase| phase == Phase::Decode).count();
    assert_eq!(decode, 24 * 24);
    assert_eq!(SMALL.generate().unwrap().layers[2].ids, data.layers[2].ids);

    let value = |made: Synthetic, metric: &str, index| {
        let analysis = analyze_data(&made.generate().unwrap(), &FAST);
        analysis.row(metric, Some(0), index, None, None).unwrap().value
    };
    let uniform = Synthetic { zipf: 0.0, own: 0.0, kept: 0.0, ..SMALL };
    assert!(value(uniform, "normalised_entropy", None) > 0.99);
    assert!(value(SMALL, "gini", None) > value(uniform, "gini", None) + 0.1);
    let lag = Some(Index::Lag(1));
    assert!((value(uniform, "reuse", lag) - 2.0 / 16.0).abs() < 0.02);
    // Half are kept, and some are drawn again by chance.
    assert!((0.5..0.65).contains(&value(SMALL, "reuse", lag)));
    assert!(SMALL_K_ABOVE_E.generate().is_err());
}

const SMALL_K_ABOVE_E: Synthetic = Synthetic { top_k: 17, ..SMALL };

#[test]
fn is_written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    SMALL.write(&path).unwrap();
    let (read, made) =
        (RunData::load(&Run::open(&path).unwrap()).unwrap(), SMALL.generate().unwrap());
    assert_eq!(read.sequences, made.sequences);
    assert_eq!(read.tokens.token_id, made.tokens.token_id);
    assert_eq!(read.tokens.texts.as_ref().unwrap().of(5), format!("t{}", made.tokens.token_id[5]));
    assert_eq!(read.steps, made.steps);
    for (read, made) in read.layers.iter().zip(&made.layers) {
        assert_eq!(
            (&read.ids, &read.weights, &read.margin, &read.output_norms),
            (&made.ids, &made.weights, &made.margin, &made.output_norms)
        );
    }
    // Ids alone.
    let path = dir.path().join("ids");
    let ids = Synthetic { weights: false, output_norms: false, ..SMALL };
    ids.write(&path).unwrap();
    let read = RunData::load(&Run::open(&path).unwrap()).unwrap();
    assert!(read.layers[0].weights.is_none() && read.layers[0].entropy.is_none());
    assert_eq!(read.layers[1].ids, made.layers[1].ids);
}

#[test]
fn the_long_table_as_parquet() {
    let analysis = analyze_data(&SMALL.generate().unwrap(), &FAST);
    let rows: Vec<_> = analysis.rows.iter().map(|row| (&analysis, row)).collect();
    let mut bytes = Vec::new();
    write_parquet(&rows, &mut bytes).unwrap();
    let frame = ParquetReader::new(std::io::Cursor::new(bytes)).finish().unwrap();
    let names: Vec<&str> = frame.get_column_names().iter().map(|name| name.as_str()).collect();
    assert_eq!(names, TABLE_COLUMNS);
    assert_eq!(frame.height(), analysis.rows.len());
    let text = |name: &str, at: usize| {
        frame.column(name).unwrap().str().unwrap().get(at).map(str::to_owned)
    };
    let float = |name: &str, at: usize| frame.column(name).unwrap().f64().unwrap().get(at);
    let whole = |name: &str, at: usize| frame.column(name).unwrap().u32().unwrap().get(at);
    for (at, row) in analysis.rows.iter().enumerate() {
        assert_eq!(text("metric", at).as_deref(), Some(row.metric));
        assert_eq!(whole("layer", at), row.layer.map(u32::from));
        assert_eq!(text("domain", at), row.domain);
        assert_eq!(text("phase", at).as_deref(), row.phase);
        assert_eq!(float("value", at), Some(row.value));
        assert_eq!(float("low", at), row.interval.map(|interval| interval.0));
        assert_eq!(float("high", at), row.interval.map(|interval| interval.1));
        assert_eq!(float("chance", at), row.chance);
    }
    let pair = analysis.rows.iter().position(|row| row.metric == "coactivation_lift").unwrap();
    let Some(Index::Pair(i, j)) = analysis.rows[pair].index else { panic!("no pair") };
    assert_eq!(text("index_kind", pair).as_deref(), Some("pair"));
    assert_eq!(whole("index_first", pair), Some(u32::from(i)));
    assert_eq!(whole("index_second", pair), Some(u32::from(j)));
    assert_eq!(text("index", pair), Some(format!("{i}, {j}")));
}

#[test]
fn a_metric_in_a_line() {
    let analysis = analyze_data(&SMALL.generate().unwrap(), &FAST);
    let of = |metric: &str| {
        let rows =
            analysis.rows_of(metric).filter(|row| row.domain.is_none() && row.phase.is_none());
        summarise(rows)
    };
    let gini = of("gini");
    let values: Vec<f64> = analysis.by_layer("gini").map(|(_, row)| row.value).collect();
    assert_eq!((gini.len(), gini[0].rows), (1, 3));
    assert!((gini[0].mean - values.iter().sum::<f64>() / 3.0).abs() < 1e-12);
    assert_eq!(gini[0].highest.value, values.iter().copied().fold(0.0, f64::max));
    assert_eq!(gini[0].lowest.value, values.iter().copied().fold(1.0, f64::min));
    let lags: Vec<_> = of("reuse").iter().map(|line| line.index).collect();
    assert_eq!(lags, [1, 4, 16].map(|lag| Some(Index::Lag(lag))));
    // A cache that three layers share has sizes of 3, 6, ..., none of them a power of four.
    let sizes: Vec<_> = of("hit_rate_global_lru").iter().map(|line| line.index).collect();
    assert_eq!(sizes, [3, 12, 48].map(|size| Some(Index::Size(size))));
    // 16 experts in 3 layers, without an expected value of their own.
    assert_eq!((of("utilisation").len(), of("utilisation")[0].rows), (1, 48));
    assert_eq!(of("tokens")[0].chance, None);
}

#[test]
fn some_metrics_are_as_they_are_among_all() {
    let data = SMALL.generate().unwrap();
    let all = analyze_data(&data, &FAST);
    for metric in METRICS {
        let alone = analyze_metrics(&data, &FAST, [metric]);
        assert!(alone.rows_of(metric.name).eq(all.rows_of(metric.name)), "{}", metric.name);
        // Dead experts bring the number of tokens along.
        let others = alone.rows.iter().filter(|row| row.metric != metric.name);
        assert!(others.clone().all(|row| row.metric == "tokens"), "{}", metric.name);
        assert_eq!(others.count() > 0, metric.name == "dead_experts", "{}", metric.name);
    }
}
