//! Progress on a terminal: what is measured, passes done, time left.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moescope_record::bench::{Progress, Stage};

use super::summary;
use crate::ui;

/// Drawn between passes only: a thread that draws would take part in the samples.
pub(super) struct Bar {
    bar: ProgressBar,
    sampling: bool,
}

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let style =
            ProgressStyle::with_template("{msg:<36} {wide_bar} {pos}/{len} passes {prefix}");
        // The template is fixed and valid; the default style is the harmless fallback.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar, sampling: false }
    }

    pub(super) fn show(&mut self, now: &Progress<'_>) {
        let stage = match now.stage {
            Stage::Cold => "cold",
            Stage::WarmUp => "warming up",
            Stage::Sample => "sampling",
        };
        let left = now.left.map(|left| format!("{} left", words(left)));
        if now.stage == Stage::Sample && !std::mem::replace(&mut self.sampling, true) {
            let left = left.as_deref().unwrap_or_default();
            self.bar.suspend(|| {
                ui::note(format!("all rows are warm; sampling in turns, about {left}"))
            });
        }
        self.bar.set_length(now.total);
        self.bar.set_position(now.done);
        self.bar.set_message(format!("{stage} {}", summary::test(now.configuration)));
        self.bar.set_prefix(left.unwrap_or_default());
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A time in its largest two units.
fn words(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        for (seconds, text) in
            [(0.0, "0 s"), (0.2, "1 s"), (61.0, "1 min 1 s"), (7320.0, "2 h 2 min")]
        {
            assert_eq!(words(Duration::from_secs_f64(seconds)), text);
        }
    }
}
