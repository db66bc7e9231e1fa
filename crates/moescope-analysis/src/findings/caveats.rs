//! What a reader must know before any number.

use moescope_trace::manifest::{DeviceType, Injected, TimingMode, Weights};

use super::Finding;
use super::words::{counted, thousands};
use crate::analysis::Analysis;
use crate::bootstrap::MIN_UNITS;

pub(super) fn caveats(analyses: &[Analysis]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (run, analysis) in analyses.iter().enumerate() {
        let (name, manifest) = (&analysis.name, &analysis.manifest);
        let asked = manifest.sequences as usize;
        let caveat = |headline: String, detail: &str, weight: f64| Finding {
            headline,
            detail: detail.to_owned(),
            figure: None,
            run: Some(run),
            layer: None,
            effect: weight,
            caveat: true,
        };
        if analysis.partial {
            findings.push(caveat(
                format!(
                    "{name} is a partial run: {} of {} are there",
                    thousands(analysis.sequences as u64),
                    counted(asked, "sequence")
                ),
                "It ended early or is still under way. What is there is whole; what is missing may \
                 be another mix of domains.",
                4.0,
            ));
        }
        if manifest.model.weights == Weights::Random {
            findings.push(caveat(
                format!("{name} has random weights"),
                "Its speed and memory mean something; its routing and text do not, and no finding \
                 is drawn from them.",
                3.0,
            ));
        }
        for fault in manifest.model.injected.map_or_else(Vec::new, Injected::labels) {
            findings.push(caveat(
                format!("{name} has an {fault}"),
                "It was put into the forward pass on purpose: no number of this run is one of the model.",
                5.0,
            ));
        }
        if let Some(layers) = manifest.model.layers_kept {
            findings.push(caveat(
                format!("{name} ran {} of the model's {} layers", layers.kept, layers.of),
                "They have their true width, so their times are those of the whole model's layers; times \
                 and memory of the run are not those of the model, and its text means nothing.",
                2.8,
            ));
        }
        if manifest.model.rumour {
            findings.push(caveat(
                format!("{name} has the shapes of a model that nobody has published"),
                "They are a guess from a rumour: so are its speed and memory.",
                2.6,
            ));
        }
        if manifest.device.device_type == DeviceType::Software {
            findings.push(caveat(
                format!("{name} ran on a software adapter ({})", manifest.device.adapter),
                "A graphics interface emulated on the processor: its routing is that of a GPU \
                 run, its speed says nothing about a GPU.",
                2.0,
            ));
        }
        if manifest.settings.timing_mode == TimingMode::Profiled {
            findings.push(caveat(
                format!("{name} was profiled, so it has no end-to-end times"),
                "Waiting for the device after every component makes a pass longer than it is.",
                1.0,
            ));
        }
        if analysis.sequences < MIN_UNITS && analysis.tokens > 0 {
            findings.push(caveat(
                format!("{name} has {} only", counted(analysis.sequences, "sequence")),
                "That is too few to tell what comes of the text and what of the model: there are no \
                 intervals, and nothing is claimed about routing.",
                0.5,
            ));
        }
    }
    findings
}
