//! What a pass costs against how many experts it has to read.

use moescope_analysis::chance::expected_distinct;
use moescope_trace::Phase;
use moescope_trace::manifest::TimingMode;

use super::curves::doubling_axis;
use super::{Caption, Figure, devices_note};
use crate::canvas::{Axis, Canvas, Key, Marker, Panel, Place, lay_out, legend, run_keys};
use crate::data::{Data, Run};
use crate::format::{count, duration, number, percent, time_unit};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "distinct-experts",
    title: "Distinct experts of a pass, and its time per token",
    section: sections::SPEED,
    applicable: |data| {
        data.needs_routing("tokens")?;
        let any = |run: &Run<'_>| PHASES.iter().any(|(phase, _)| !passes(run, *phase).is_empty());
        match data.runs.iter().any(any) {
            true if shown(data).is_empty() => {
                Err("every pass selects the same number of experts".into())
            }
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

/// A timed forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pass {
    tokens: f64,
    /// Experts that any of its tokens selected, mean over layers.
    distinct: f64,
    ns_per_token: f64,
}

/// The timed passes of a phase, those with the fewest experts first.
fn passes(run: &Run<'_>, phase: Phase) -> Vec<Pass> {
    if run.manifest.settings.timing_mode == TimingMode::None {
        return Vec::new();
    }
    let steps = run.steps;
    let mut passes: Vec<Pass> = run
        .distinct()
        .iter()
        .enumerate()
        .filter(|&(row, distinct)| {
            distinct.is_finite()
                && steps.phase[row] == phase
                && steps.duration_ns[row] > 0
                && steps.tokens[row] > 0
        })
        .map(|(row, &distinct)| {
            let tokens = f64::from(steps.tokens[row]);
            let ns_per_token = steps.duration_ns[row] as f64 / tokens;
            Pass { tokens, distinct: f64::from(distinct), ns_per_token }
        })
        .collect();
    passes.sort_by(|a, b| {
        a.distinct.total_cmp(&b.distinct).then(a.ns_per_token.total_cmp(&b.ns_per_token))
    });
    passes
}

/// A phase whose passes differ in the experts they need, and its passes by run. Decoding one sequence, each
/// needs k.
type OfPhase = (Phase, &'static str, Vec<Vec<Pass>>);

fn shown(data: &Data<'_>) -> Vec<OfPhase> {
    let of_phase = |(phase, name)| {
        let runs: Vec<Vec<Pass>> = data.runs.iter().map(|run| passes(run, phase)).collect();
        let all = || runs.iter().flatten().map(|pass| pass.distinct);
        let spread = all().fold(0.0, f64::max) - all().fold(f64::INFINITY, f64::min);
        (spread > 0.01).then_some((phase, name, runs))
    };
    PHASES.into_iter().filter_map(of_phase).collect()
}

/// Distinct experts per layer of T tokens under uniform routing, mean over layers.
fn by_chance(run: &Run<'_>, tokens: f64) -> f64 {
    let layers = run.layers().iter().filter(|layer| layer.experts > 0);
    let expected: Vec<f64> = layers
        .map(|layer| expected_distinct(layer.experts.into(), layer.top_k.into(), tokens))
        .collect();
    expected.iter().sum::<f64>() / expected.len().max(1) as f64
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let shown = shown(data);
    let has_passes = |run: &Run<'_>| {
        shown.iter().any(|(_, _, runs)| runs.get(run.place()).is_some_and(|all| !all.is_empty()))
    };
    let mut keys = run_keys(canvas, data, has_passes);
    keys.push((Key::Reference, "chance: uniform routing of as many tokens".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let (places, height) = lay_out(canvas, top, shown.len() + 1, 300.0, 250.0);
    experts_of_tokens(canvas, data, places[0], &shown);
    for ((_, name, runs), place) in shown.iter().zip(&places[1..]) {
        time_of_experts(canvas, *place, name, runs);
    }
    top + height
}

/// Marks of runs on a panel, thinned.
fn marks(canvas: &Canvas<'_>, runs: &[Vec<Pass>], at: impl Fn(&Pass) -> (f64, f64)) {
    for (n, passes) in runs.iter().enumerate() {
        for pass in passes.iter().step_by(passes.len().div_ceil(MARKS).max(1)) {
            let (x, y) = at(pass);
            canvas.marker(x, y, 4.5, Marker::series(n), Ink::series(n));
        }
    }
}

/// How many experts passes of so many tokens select, beside what chance gives.
fn experts_of_tokens(canvas: &Canvas<'_>, data: &Data<'_>, place: Place, shown: &[OfPhase]) {
    let all = || shown.iter().flat_map(|(_, _, runs)| runs.iter().flatten());
    let (fewest, most) = all().fold((f64::INFINITY, 1.0), |(low, high): (f64, f64), pass| {
        (low.min(pass.tokens), high.max(pass.tokens))
    });
    let experts = data.runs.iter().map(Run::most_experts).max().unwrap_or(1);
    let x_axis = doubling_axis("tokens of the pass", fewest * 0.9, most * 1.1, 8);
    let y_axis = Axis::linear("distinct experts per layer", 0.0, f64::from(experts), 4);
    let panel = Panel::draw(canvas, place, "Experts of a pass", &x_axis, &y_axis);
    for (_, _, runs) in shown {
        marks(canvas, runs, |pass| (panel.x.at(pass.tokens), panel.y.at(pass.distinct)));
    }
    const STEPS: u32 = 60;
    let timed =
        data.runs.iter().find(|run| shown.iter().any(|(_, _, runs)| !runs[run.place()].is_empty()));
    if let Some(run) = timed {
        let tokens =
            |n: u32| x_axis.low * (x_axis.high / x_axis.low).powf(f64::from(n) / f64::from(STEPS));
        let level: Vec<(f64, f64)> =
            (0..=STEPS).map(|n| (tokens(n), by_chance(run, tokens(n)))).collect();
        panel.reference(canvas, &level);
    }
}

/// What passes of so many experts take per token.
fn time_of_experts(canvas: &Canvas<'_>, place: Place, name: &str, runs: &[Vec<Pass>]) {
    let all = || runs.iter().flatten();
    let mut times: Vec<f64> = all().map(|pass| pass.ns_per_token).collect();
    times.sort_by(f64::total_cmp);
    let unit = time_unit(times[times.len() / 2]);
    // The slowest in two hundred would squeeze the rest; they stand at the edge.
    let slow = times[(times.len() - 1) * 199 / 200] / unit.factor;
    let fast = times[0] / unit.factor;
    let low = all().map(|pass| pass.distinct).fold(f64::INFINITY, f64::min);
    let high = all().map(|pass| pass.distinct).fold(0.0, f64::max);
    let air = ((high - low) * 0.05).max(0.5);
    let title = "distinct experts per layer";
    let x_axis = Axis::tight(title, (low - air).max(0.0), high + air, (place.w / 60.0) as usize);
    let title = format!("{} per token", unit.name);
    let y_axis = if slow > 6.0 * fast {
        Axis::log(&format!("{title}, logarithmic"), fast * 0.9, slow * 1.1, 6)
    } else {
        Axis::linear(&title, 0.0, slow, 4)
    };
    let panel = Panel::draw(canvas, place, name, &x_axis, &y_axis);
    marks(canvas, runs, |pass| {
        (panel.x.at(pass.distinct), panel.y.at(pass.ns_per_token / unit.factor))
    });
}

/// Of the passes with the fewest and with the most experts, a third each: mean number of experts, median time
/// per token.
fn thirds(passes: &[Pass]) -> Option<[(f64, f64); 2]> {
    let third = passes.len() / 3;
    let part = |part: &[Pass]| {
        let mut times: Vec<f64> = part.iter().map(|pass| pass.ns_per_token).collect();
        times.sort_by(f64::total_cmp);
        let mean = part.iter().map(|pass| pass.distinct).sum::<f64>() / part.len() as f64;
        (mean, times[times.len() / 2])
    };
    (third > 0).then(|| [part(&passes[..third]), part(&passes[passes.len() - third..])])
}

/// Pairs of passes of nearly as many tokens, and in how many of them the one with more experts took longer per
/// token. If experts cost nothing it would be one half.
fn alike(passes: &[Pass]) -> (usize, usize) {
    /// Tokens of the longer over those of the shorter.
    const NEARLY: f64 = 1.05;
    let mut by_length = passes.to_vec();
    by_length.sort_by(|a, b| a.tokens.total_cmp(&b.tokens));
    let (mut pairs, mut longer) = (0, 0);
    // Pairs share no pass, so that they are independent.
    for pair in by_length.chunks_exact(2) {
        let (few, many) = if pair[0].distinct < pair[1].distinct {
            (pair[0], pair[1])
        } else {
            (pair[1], pair[0])
        };
        let told_apart = many.distinct > few.distinct && many.ns_per_token != few.ns_per_token;
        if told_apart && pair[1].tokens <= NEARLY * pair[0].tokens {
            pairs += 1;
            longer += usize::from(many.ns_per_token > few.ns_per_token);
        }
    }
    (pairs, longer)
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "A mark is a forward pass. First, how many different experts its tokens selected, mean over layers, \
         beside what uniform routing of as many tokens would give. Then its time per token. It can't tell \
         what an expert costs: a pass of more tokens selects more experts, spreads what every pass costs over \
         more tokens and attends over more of them, all at once. Pairs of passes of nearly the same length come \
         closer; batches of `moescope bench -b` change the experts of a decode pass and little else. Decoding \
         one sequence, every pass needs k: that is not drawn.",
    );
    for (phase, name, runs) in shown(data) {
        for (run, passes) in data.runs.iter().zip(&runs) {
            let Some([few, many]) = thirds(passes) else { continue };
            let (pairs, longer) = alike(passes);
            let alike = match pairs {
                0 => String::new(),
                _ => format!(
                    " In {} pairs of passes of nearly the same length, the one with more experts took longer \
                     per token in {} ({} would if experts cost nothing).",
                    count(pairs as u64),
                    percent(longer as f64 / pairs as f64),
                    percent(0.5)
                ),
            };
            let what = match phase {
                Phase::Prefill => "of tokens of the prompt",
                Phase::Decode => "of generated tokens",
            };
            caption.fact(
                run,
                format!(
                    "{}, {}: {} per token {what} in the third of the passes with the fewest experts ({} on \
                     average), {} in the third with the most ({}).{alike}",
                    run.tagged(),
                    name.to_lowercase(),
                    duration(few.1),
                    number(few.0),
                    duration(many.1),
                    number(many.0)
                ),
            );
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
        .number("Median time per token")
        .number("Most third, experts")
        .number("Median time per token")
        .number("Pairs of like length")
        .number("More experts, longer");
    for (_, name, runs) in shown(data) {
        for (run, passes) in data.runs.iter().zip(&runs) {
            let Some([few, many]) = thirds(passes) else { continue };
            let (pairs, longer) = alike(passes);
            table.row(vec![
                run.tagged(),
                name.into(),
                count(passes.len() as u64),
                number(few.0),
                duration(few.1),
                number(many.0),
                duration(many.1),
                count(pairs as u64),
                count(longer as u64),
            ]);
        }
    }
    table.trimmed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_of_like_length_and_share_no_pass() {
        let pass =
            |tokens: f64, distinct: f64, ns_per_token: f64| Pass { tokens, distinct, ns_per_token };
        let passes = [
            // More experts, longer.
            pass(100.0, 10.0, 5.0),
            pass(104.0, 12.0, 6.0),
            // More experts, shorter.
            pass(200.0, 20.0, 5.0),
            pass(201.0, 18.0, 7.0),
            // Too different in length; equal in experts.
            pass(300.0, 20.0, 5.0),
            pass(330.0, 22.0, 9.0),
            pass(400.0, 20.0, 5.0),
            pass(400.0, 20.0, 9.0),
            // Without a partner.
            pass(900.0, 20.0, 5.0),
        ];
        assert_eq!(alike(&passes), (2, 1));
    }
}
