//! What a pass costs against how many experts it has to read.

use moescope_trace::Phase;
use moescope_trace::manifest::TimingMode;

use super::{Caption, Figure, devices_note};
use crate::canvas::{Axis, Canvas, Marker, Panel, lay_out, legend, run_keys};
use crate::data::{Data, Run};
use crate::format::{count, duration, number, time_unit};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "distinct-experts",
    title: "Time per pass against distinct experts",
    section: sections::SPEED,
    applicable: |data| {
        data.needs_routing("tokens")?;
        let any = |(phase, _): &(Phase, &str)| {
            data.runs.iter().any(|run| !passes(run, *phase).is_empty())
        };
        match PHASES.iter().any(any) {
            true => Ok(()),
            false => Err("no times of passes with recorded routing".into()),
        }
    },
    caption,
    draw,
    table,
};

const PHASES: [(Phase, &str); 2] = [(Phase::Prefill, "Prefill"), (Phase::Decode, "Decode")];

/// Marks per run and panel.
const MARKS: usize = 250;

/// (distinct experts per layer, nanoseconds) of every timed pass of a phase, in order of experts.
fn passes(run: &Run<'_>, phase: Phase) -> Vec<(f64, f64)> {
    if run.manifest.settings.timing_mode == TimingMode::None {
        return Vec::new();
    }
    let steps = run.steps;
    let mut passes: Vec<(f64, f64)> = run
        .distinct()
        .iter()
        .enumerate()
        .filter(|&(row, distinct)| {
            distinct.is_finite() && steps.phase[row] == phase && steps.duration_ns[row] > 0
        })
        .map(|(row, &distinct)| (f64::from(distinct), steps.duration_ns[row] as f64))
        .collect();
    passes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    passes
}

/// Whether passes of a phase differ in the experts they need: decoding one sequence, each needs k.
fn varies(data: &Data<'_>, phase: Phase) -> bool {
    let all = || data.runs.iter().flat_map(|run| passes(run, phase)).map(|pass| pass.0);
    all().fold(0.0, f64::max) - all().fold(f64::INFINITY, f64::min) > 0.01
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let keys = run_keys(canvas, data, |run| {
        PHASES.iter().any(|(phase, _)| varies(data, *phase) && !passes(run, *phase).is_empty())
    });
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let shown: Vec<_> = PHASES
        .iter()
        .filter(|(phase, _)| varies(data, *phase))
        .map(|&(phase, name)| {
            (name, data.runs.iter().map(|run| passes(run, phase)).collect::<Vec<_>>())
        })
        .collect();
    let (places, height) = lay_out(canvas, top, shown.len(), 300.0, 250.0);
    for ((name, runs), place) in shown.into_iter().zip(places) {
        let all = || runs.iter().flatten();
        let mut times: Vec<f64> = all().map(|pass| pass.1).collect();
        times.sort_by(f64::total_cmp);
        let unit = time_unit(times[times.len() / 2]);
        // The slowest in two hundred would squeeze the rest; they stand at the edge.
        let slow = times[(times.len() - 1) * 199 / 200] / unit.factor;
        let fast = times[0] / unit.factor;
        let low = all().map(|pass| pass.0).fold(f64::INFINITY, f64::min);
        let high = all().map(|pass| pass.0).fold(0.0, f64::max);
        let air = ((high - low) * 0.05).max(0.5);
        let title = "distinct experts per layer";
        let x_axis =
            Axis::tight(title, (low - air).max(0.0), high + air, (place.w / 60.0) as usize);
        let title = format!("{} per pass", unit.name);
        let y_axis = if slow > 6.0 * fast {
            Axis::log(&format!("{title}, logarithmic"), fast * 0.9, slow * 1.1, 6)
        } else {
            Axis::linear(&title, 0.0, slow, 4)
        };
        let panel = Panel::draw(canvas, place, name, &x_axis, &y_axis);
        for (n, passes) in runs.iter().enumerate() {
            for &(distinct, ns) in passes.iter().step_by(passes.len().div_ceil(MARKS).max(1)) {
                let (x, y) = (panel.x.at(distinct), panel.y.at(ns / unit.factor));
                canvas.marker(x, y, 4.5, Marker::series(n), Ink::series(n));
            }
        }
    }
    top + height
}

/// Median time of the third of the passes with the fewest and with the most distinct experts.
fn thirds(passes: &[(f64, f64)]) -> Option<[(f64, f64); 2]> {
    let third = passes.len() / 3;
    let part = |part: &[(f64, f64)]| {
        let mut times: Vec<f64> = part.iter().map(|pass| pass.1).collect();
        times.sort_by(f64::total_cmp);
        let mean = part.iter().map(|pass| pass.0).sum::<f64>() / part.len() as f64;
        (mean, times[times.len() / 2])
    };
    (third > 0).then(|| [part(&passes[..third]), part(&passes[passes.len() - third..])])
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "A mark is a forward pass: how many different experts its tokens selected, mean over layers, and how \
         long it took. Where weights have to be read from memory, more experts take longer; a prefill pass of \
         more tokens also computes more. Decoding one sequence, every pass needs k: that is not drawn.",
    );
    for run in &data.runs {
        for (phase, name) in PHASES {
            if let Some([few, many]) = thirds(&passes(run, phase))
                && many.0 > few.0 * 1.02
            {
                caption.fact(run, format!(
                    "{}, {}: the third of the passes with the fewest experts ({} on average) took {} \
                     (median), the third with the most ({}) {}.",
                    run.tagged(),
                    name.to_lowercase(),
                    number(few.0),
                    duration(few.1),
                    number(many.0),
                    duration(many.1)
                ));
            }
        }
    }
    caption.note(&devices_note(data))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .text("Phase")
        .number("Passes")
        .number("Fewest third, experts")
        .number("Median time")
        .number("Most third, experts")
        .number("Median time");
    for run in &data.runs {
        for (phase, name) in PHASES {
            let passes = passes(run, phase);
            let Some([few, many]) = thirds(&passes) else { continue };
            table.row(vec![
                run.tagged(),
                name.into(),
                count(passes.len() as u64),
                number(few.0),
                duration(few.1),
                number(many.0),
                duration(many.1),
            ]);
        }
    }
    table.trimmed()
}
