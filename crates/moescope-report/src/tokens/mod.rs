//! The token view: the text of a run with the experts of every token, as data for `templates/tokens.js`.
//!
//! The page holds the columns of [`moescope_analysis::Excerpt`] as base64; the script draws them. Token
//! texts are untrusted: they are made visible here, written as JSON that cannot end its element, and
//! put on the page as text only.

mod pack;
mod visible;

use moescope_analysis::{Excerpt, ExcerptSequence, LayerData, NO_EXPERT};
use moescope_trace::Phase;
use serde::Serialize;

use crate::data::{Data, Run};
use crate::format::{count, list, plural};
use crate::palette::{Ink, Rgb};
pub(crate) use visible::visible;

/// The script that draws the view.
pub(crate) const SCRIPT: &str = include_str!("../../templates/tokens.js");

/// Its hash for the page's content security policy: `openssl dgst -sha256 -binary templates/tokens.js |
/// base64`. The browser test fails when it is out of date, and the browser names the right one.
pub(crate) const SCRIPT_HASH: &str = "sha256-2aL6v00xwKs/AQr+Id5VFeqRRbj/jU5vMEE8OZUSD0k=";

/// Colours of the experts that come first most often; all others are grey. (Their number stands below each
/// token, so colour is not alone.)
const COLOURS: [Ink; 8] = [
    Ink::Series(0),
    Ink::Series(1),
    Ink::Series(2),
    Ink::Series(3),
    Ink::Series(4),
    Ink::Series(5),
    Ink::Series(7),
    Ink::Series(6),
];

/// The CSS of the colours on light and dark pages: `.c0` to `.c7` set `--c`.
pub(crate) fn style() -> String {
    let rules = |colour: fn(Ink) -> Rgb| -> String {
        let rule = |(n, ink)| {
            let (r, g, b) = colour(ink);
            format!(".c{n}{{--c:#{r:02x}{g:02x}{b:02x}}}")
        };
        COLOURS.into_iter().enumerate().map(rule).collect()
    };
    let (light, dark) = (rules(Ink::light), rules(Ink::dark));
    format!("{light}@media(prefers-color-scheme:dark){{{dark}}}")
}

/// What the page needs of the view.
#[derive(Serialize)]
pub(crate) struct TokenView {
    runs: Vec<RunTokens>,
    /// Which texts are here, for the reader.
    pub(crate) note: String,
}

/// Tokens of one run, as the script reads them.
#[derive(Serialize)]
struct RunTokens {
    name: String,
    sequences: Vec<SequenceView>,
    layers: Vec<LayerView>,
    /// Distinct texts, visible; none where not recorded.
    texts: Option<Vec<String>>,
    /// u32: index into `texts`, or the token id where there are none.
    text: String,
    /// u32.
    ids: String,
    /// u16, thousandths of a nat below zero; 65535 is none.
    logprobs: Option<String>,
    /// Bytes per expert: 1 or 2.
    expert_bytes: u8,
    /// Token by token, layer by layer, rank by rank; all bits set is none.
    experts: String,
    /// u8, in 254ths of `weight_full`; laid out as `experts`.
    weights: Option<String>,
    weight_full: f32,
    /// u16, thousandths of a nat, token by token, layer by layer.
    entropies: Option<String>,
}

#[derive(Serialize)]
struct SequenceView {
    id: u32,
    domain: String,
    /// Tokens `start..end` of the columns.
    start: usize,
    end: usize,
    /// First generated token, `end` where there is none.
    generated: usize,
    /// Tokens of the whole sequence.
    whole: usize,
}

#[derive(Serialize)]
struct LayerView {
    layer: u16,
    experts: usize,
    top_k: usize,
}

/// Runs with a view; the texts of more would fill the page with much the same.
const MAX_RUNS: usize = 4;

/// Bytes of columns (before base64) that all runs of a page share.
const BUDGET: usize = 3_000_000;

impl TokenView {
    /// The view over the first runs that have routed tokens; none where no run has.
    pub(crate) fn new(data: &Data<'_>) -> Option<Self> {
        let able: Vec<&Run<'_>> =
            data.runs.iter().filter(|run| has_tokens(run.excerpt())).collect();
        let runs: Vec<RunTokens> = able
            .iter()
            .take(MAX_RUNS)
            .map(|run| RunTokens::new(run, BUDGET / able.len().min(MAX_RUNS)))
            .collect();
        if runs.is_empty() {
            return None;
        }
        let note = note(data, &able, &runs);
        Some(Self { runs, note })
    }
}

fn has_tokens(excerpt: &Excerpt) -> bool {
    !excerpt.sequences.is_empty() && !excerpt.layers.is_empty()
}

/// Which sequences are shown of how many, and what was not recorded.
fn note(data: &Data<'_>, able: &[&Run<'_>], shown: &[RunTokens]) -> String {
    let mut sentences = Vec::new();
    for (run, view) in able.iter().zip(shown) {
        let tokens: usize =
            view.sequences.iter().map(|sequence| sequence.end - sequence.start).sum();
        let cut = view.sequences.iter().filter(|s| s.end - s.start < s.whole).count() as u64;
        let mut sentence = if tokens as u64 == run.tokens {
            format!("{}: all {}", run.tagged(), plural(run.tokens, "token"))
        } else {
            format!(
                "{}: {} of {} in {} of {}, the domains in turn",
                run.tagged(),
                count(tokens as u64),
                plural(run.tokens, "token"),
                count(view.sequences.len() as u64),
                plural(run.sequences, "sequence")
            )
        };
        if cut > 0 {
            sentence.push_str(&format!("; of {} only the beginning", plural(cut, "sequence")));
        }
        let missing: Vec<String> = [
            (view.texts.is_none(), "texts (token ids are shown)"),
            (view.weights.is_none(), "weights"),
            (view.entropies.is_none(), "router entropy"),
        ]
        .into_iter()
        .filter(|&(missing, _)| missing)
        .map(|(_, what)| what.to_owned())
        .collect();
        if !missing.is_empty() {
            sentence.push_str(&format!("; not recorded: {}", list(&missing)));
        }
        sentences.push(sentence + ".");
    }
    if able.len() > shown.len() {
        let (shown, all) = (shown.len(), data.runs.len());
        sentences.push(format!("The first {shown} of {all} runs are here."));
    }
    sentences.join(" ")
}

impl RunTokens {
    fn new(run: &Run<'_>, budget: usize) -> Self {
        let excerpt = run.excerpt();
        let layers = &excerpt.layers;
        // All bits set is no expert, so a byte serves 255 experts.
        let wide = layers.iter().any(|layer| layer.experts > usize::from(u8::MAX));
        let expert_bytes = if wide { 2 } else { 1 };
        let ranks: usize = layers.iter().map(|layer| layer.top_k).sum();
        let weighted = layers.iter().all(|layer| layer.weights.is_some());
        let entropic = layers.iter().all(|layer| layer.entropy.is_some());
        // Text, id and log-probability are ten bytes.
        let per_token = 10
            + ranks * (usize::from(expert_bytes) + usize::from(weighted))
            + 2 * layers.len() * usize::from(entropic);
        let sequences = fitting(&excerpt.sequences, (budget / per_token).max(1));
        let tokens = sequences.last().map_or(0, |sequence| sequence.end);

        let experts =
            || (0..tokens).flat_map(|at| layers.iter().flat_map(move |l| l.experts_of(at)));
        let experts = match wide {
            true => pack::words(experts().copied()),
            // `NO_EXPERT` has all bits set, and so has its lowest byte.
            false => pack::base64(&experts().map(|&e| e as u8).collect::<Vec<u8>>()),
        };
        const { assert!(NO_EXPERT == u16::MAX) };
        let weights =
            || (0..tokens).flat_map(|at| layers.iter().flat_map(move |l| weights_of(l, at)));
        let weight_full =
            weights().copied().filter(|w| w.is_finite()).fold(f32::MIN_POSITIVE, f32::max);
        let entropies = || {
            let of =
                |layer: &LayerData, at: usize| layer.entropy.as_ref().map_or(f32::NAN, |e| e[at]);
            (0..tokens).flat_map(move |at| layers.iter().map(move |layer| of(layer, at)))
        };
        let columns = &excerpt.tokens;
        let (texts, text) = texts(excerpt, tokens);
        Self {
            name: run.tagged(),
            layers: layers
                .iter()
                .map(|l| LayerView { layer: l.layer, experts: l.experts, top_k: l.top_k })
                .collect(),
            text: pack::double_words(text.into_iter()),
            texts,
            ids: pack::double_words(columns.token_id[..tokens].iter().copied()),
            logprobs: columns
                .logprob
                .as_ref()
                .map(|values| pack::thousandths(values[..tokens].iter().map(|value| -value))),
            expert_bytes,
            experts,
            weights: weighted.then(|| pack::shares(weights().copied(), weight_full)),
            weight_full,
            entropies: entropic.then(|| pack::thousandths(entropies())),
            sequences: sequences
                .iter()
                .map(|sequence| SequenceView {
                    id: sequence.id,
                    domain: run.domain(sequence.domain),
                    start: sequence.start,
                    end: sequence.end,
                    generated: (sequence.start..sequence.end)
                        .find(|&at| columns.phase[at] == Phase::Decode)
                        .unwrap_or(sequence.end),
                    whole: sequence.whole,
                })
                .collect(),
        }
    }
}

fn weights_of(layer: &LayerData, token: usize) -> &[f32] {
    let k = layer.top_k;
    layer.weights.as_ref().map_or(&[], |weights| &weights[token * k..(token + 1) * k])
}

/// The first sequences of at most `most` tokens together; of the first one at least its beginning.
fn fitting(sequences: &[ExcerptSequence], most: usize) -> Vec<ExcerptSequence> {
    let mut fitting: Vec<ExcerptSequence> =
        sequences.iter().take_while(|sequence| sequence.end <= most).copied().collect();
    if let (true, Some(first)) = (fitting.is_empty(), sequences.first()) {
        fitting.push(ExcerptSequence { end: first.end.min(most), ..*first });
    }
    fitting
}

/// Distinct texts as shown and the index of each token; without texts, the token ids.
fn texts(excerpt: &Excerpt, tokens: usize) -> (Option<Vec<String>>, Vec<u32>) {
    let columns = &excerpt.tokens;
    let Some(recorded) = &columns.texts else {
        return (None, columns.token_id[..tokens].to_vec());
    };
    let mut distinct: Vec<String> = Vec::new();
    let mut known = std::collections::HashMap::new();
    let indices = (0..tokens)
        .map(|at| {
            *known.entry(recorded.of(at)).or_insert_with(|| {
                distinct.push(visible(recorded.of(at)));
                distinct.len() as u32 - 1
            })
        })
        .collect();
    (Some(distinct), indices)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use moescope_analysis::{Options, RunData, TokenTexts, analyze_data};

    use super::*;

    fn view(change: impl Fn(&mut RunData)) -> TokenView {
        let ids = (0..40).map(|n| n % 4).collect();
        let layer = LayerData::from_ids(7, 300, 2, ids);
        let mut run = RunData::from_ids("run", &[("a", 12), ("b", 8)], vec![layer]).unwrap();
        change(&mut run);
        run.check().unwrap();
        let analyses = [analyze_data(&run, &Options { resamples: 0, ..Options::default() })];
        TokenView::new(&Data::new(&analyses, &[])).unwrap()
    }

    #[test]
    fn what_was_not_recorded_is_said() {
        let bare = view(|_| {});
        assert_eq!(
            bare.note,
            "run: all 20 tokens; not recorded: texts (token ids are shown), weights and router entropy."
        );
        let tokens = &bare.runs[0];
        assert!(tokens.texts.is_none() && tokens.weights.is_none() && tokens.entropies.is_none());
        // Without texts the tokens are their ids.
        assert_eq!(tokens.text, tokens.ids);
        // More experts than a byte holds.
        assert_eq!((tokens.expert_bytes, tokens.experts.len()), (2, 80usize.div_ceil(3) * 4));
        let full = view(|run| {
            run.tokens.texts = TokenTexts::collect(["x"; 20].into_iter());
            run.layers[0].weights = Some(vec![0.5; 40]);
            run.layers[0].entropy = Some(vec![1.5; 20]);
        });
        assert_eq!(full.note, "run: all 20 tokens.");
        assert_eq!(full.runs[0].entropies, Some(pack::words([1500; 20].into_iter())));
    }

    #[test]
    fn a_budget_takes_whole_sequences_but_at_least_a_beginning() {
        let sequence =
            |start, end| ExcerptSequence { id: 0, domain: 0, start, end, whole: end - start };
        let all = [sequence(0, 30), sequence(30, 50), sequence(50, 90)];
        assert_eq!(fitting(&all, 89), all[..2]);
        assert_eq!(fitting(&all, 20), [ExcerptSequence { end: 20, ..all[0] }]);
    }
}
