//! Progress: what is measured, passes done, time left; as a bar on a terminal, as a line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moescope_record::bench::{Progress, Stage};

use super::summary;
use crate::ui;

/// Time between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(30);

/// Drawn between passes only: a thread that draws would take part in the samples.
pub(super) struct Bar {
    bar: ProgressBar,
    begun: bool,
    sampling: bool,
    /// When a line was last written.
    written: Instant,
}

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let style =
            ProgressStyle::with_template("{msg:<36} {wide_bar} {pos}/{len} passes {prefix}");
        // The template is fixed and valid; the default style is the harmless fallback.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar, begun: false, sampling: false, written: Instant::now() }
    }

    pub(super) fn show(&mut self, now: &Progress<'_>) {
        let left = now.left.map(left).unwrap_or_default();
        if !std::mem::replace(&mut self.begun, true) {
            self.bar.suspend(|| ui::note("first passes, row after row"));
        }
        if now.stage == Stage::Sample && !std::mem::replace(&mut self.sampling, true) {
            self.bar.suspend(|| {
                ui::note(format!("all rows are warm; sampling in turns, about {left}"))
            });
            self.written = Instant::now();
        }
        if self.bar.is_hidden() {
            if self.written.elapsed() >= EVERY {
                ui::note(line(now));
                self.written = Instant::now();
            }
            return;
        }
        self.bar.set_length(now.total);
        self.bar.set_position(now.done);
        self.bar.set_message(doing(now));
        self.bar.set_prefix(left);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What comes next.
fn doing(now: &Progress<'_>) -> String {
    let test = summary::test(now.configuration);
    match now.stage {
        Stage::Cold => format!("cold {test}"),
        Stage::Fill { tokens } => {
            format!("filling {tokens} of {} {test}", now.configuration.depth)
        }
        Stage::WarmUp => format!("warming up {test}"),
        Stage::Sample => format!("sampling {test}"),
        Stage::Energy => format!("counting energy {test}"),
    }
}

/// All of it in a line.
fn line(now: &Progress<'_>) -> String {
    let left = now.left.map(|time| format!(", about {}", left(time))).unwrap_or_default();
    format!("{}: {} of {} passes{left}", doing(now), now.done, now.total)
}

fn left(time: Duration) -> String {
    format!("{} left", words(time))
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

    #[test]
    fn a_line_says_it_all() {
        let configuration = moescope_trace::bench::Configuration {
            workload: "text".into(),
            prompt: 0,
            generate: 8,
            depth: 4096,
            batch: 1,
        };
        let mut now = Progress {
            stage: Stage::Fill { tokens: 1024 },
            arm: 0,
            configuration: &configuration,
            done: 0,
            total: 20,
            left: None,
        };
        assert_eq!(line(&now), "filling 1024 of 4096 tg8 @ d4096: 0 of 20 passes");
        (now.stage, now.done, now.left) = (Stage::Sample, 12, Some(Duration::from_secs(90)));
        assert_eq!(line(&now), "sampling tg8 @ d4096: 12 of 20 passes, about 1 min 30 s left");
    }
}
