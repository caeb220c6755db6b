//! Progress on stderr: a bar where stderr is a terminal, a plain line every ten seconds where it is none.
//!
//! It is fed with totals as they stand; how often they are shown is decided here, so callers may feed it as often as they like.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use tidegate::core::event::Event;

use crate::report::grouped;
use crate::terminal::Terminal;

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two updates of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// Where the work stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Bytes of input read.
    pub(crate) bytes: u64,
    /// Rows read.
    pub(crate) rows: u64,
    /// Rows rejected.
    pub(crate) rejected: u64,
    /// Records acknowledged, or compared.
    pub(crate) records: u64,
    /// Records that the group has not committed yet.
    pub(crate) lag: Option<u64>,
    /// Whether the load waits for the group.
    pub(crate) held: bool,
}

impl Figures {
    /// Takes what an event says about them.
    pub(crate) fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Progress(progress) => {
                self.bytes = progress.bytes;
                self.rows = progress.rows;
                self.rejected = progress.rejected;
                self.records = progress.delivered;
                self.lag = progress.outstanding;
            }
            Event::Rereading { bytes } => self.bytes = *bytes,
            Event::Held { outstanding, .. } => (self.lag, self.held) = (Some(*outstanding), true),
            Event::Resumed { .. } => self.held = false,
            _ => {}
        }
    }
}

/// Shows [`Figures`].
#[derive(Debug)]
pub(crate) struct Progress {
    doing: &'static str,
    total_bytes: Option<u64>,
    shown: Shown,
    started: Instant,
    last: Option<Instant>,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines,
}

impl Progress {
    /// Progress of `doing` over an input of `total_bytes`, where that is known.
    pub(crate) fn new(terminal: Terminal, doing: &'static str, total_bytes: Option<u64>) -> Self {
        let shown = if !terminal.shows_progress() {
            Shown::Nothing
        } else if std::io::stderr().is_terminal() {
            Shown::Bar(bar(doing, total_bytes))
        } else {
            Shown::Lines
        };
        let started = Instant::now();
        // The first plain line comes after a whole interval: a short load has none.
        let last = matches!(shown, Shown::Lines).then_some(started);
        Self {
            doing,
            total_bytes,
            shown,
            started,
            last,
        }
    }

    /// Takes the figures and shows them when it is time.
    pub(crate) fn update(&mut self, figures: &Figures) {
        let interval = match self.shown {
            Shown::Nothing => return,
            Shown::Bar(_) => BAR_INTERVAL,
            Shown::Lines => LINE_INTERVAL,
        };
        let now = Instant::now();
        if self
            .last
            .is_some_and(|last| now.duration_since(last) < interval)
        {
            return;
        }
        self.last = Some(now);
        let text = describe(figures, self.started.elapsed());
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_position(figures.bytes);
                bar.set_message(text);
            }
            Shown::Lines => {
                let line = plain_line(
                    self.doing,
                    self.total_bytes,
                    figures,
                    self.started.elapsed(),
                    &text,
                );
                // A closed stderr is nobody's failure.
                drop(writeln!(anstream::stderr().lock(), "{line}"));
            }
            Shown::Nothing => {}
        }
    }

    /// Lets something else be written to stderr without a bar in it.
    pub(crate) fn say(&self, write: impl FnOnce()) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(write),
            Shown::Nothing | Shown::Lines => write(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(doing: &'static str, total_bytes: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr_with_hz(10));
    let template = match total_bytes {
        Some(_) => {
            "{prefix} {percent:>3}% [{bar:24}] {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta} {msg}"
        }
        None => "{prefix} {spinner} {bytes} {binary_bytes_per_sec} {msg}",
    };
    // The templates are constants that a test compiles; were one wrong, the default style would still show progress.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(doing);
    bar
}

/// `1,234 rows (567 rows/s), 1,200 records, 3 rejected, group 40 behind, held`; nothing where only bytes are counted.
fn describe(figures: &Figures, elapsed: Duration) -> String {
    if let (0, Some(lag)) = (figures.rows, figures.lag) {
        return format!("group {} behind", grouped(lag));
    }
    if figures.rows == 0 && figures.bytes > 0 {
        return String::new();
    }
    let rate = rate_per_second(figures.rows, elapsed);
    let mut text = format!(
        "{} rows ({} rows/s), {} records",
        grouped(figures.rows),
        grouped(rate),
        grouped(figures.records)
    );
    if figures.rejected > 0 {
        text.push_str(&format!(", {} rejected", grouped(figures.rejected)));
    }
    if let Some(lag) = figures.lag {
        text.push_str(&format!(", group {} behind", grouped(lag)));
    }
    if figures.held {
        text.push_str(", held");
    }
    text
}

fn plain_line(
    doing: &str,
    total: Option<u64>,
    figures: &Figures,
    elapsed: Duration,
    text: &str,
) -> String {
    let total = total.filter(|total| *total > 0);
    let mut parts = Vec::new();
    if let Some(total) = total {
        let percent = figures.bytes.min(total).saturating_mul(100) / total;
        parts.push(format!("{percent}%"));
    }
    if total.is_some() || figures.bytes > 0 {
        parts.push(format!("{} bytes", grouped(figures.bytes)));
    }
    if !text.is_empty() {
        parts.push(text.to_owned());
    }
    if let Some(total) = total {
        let rate = rate_per_second(figures.bytes, elapsed).max(1);
        let eta = total.saturating_sub(figures.bytes) / rate;
        parts.push(format!("ETA {eta} s"));
    }
    format!("{doing}: {}", parts.join(", "))
}

/// `count` per second over `elapsed`, rounded down; 0 while there is nothing to divide by.
fn rate_per_second(count: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    u64::try_from(u128::from(count) * 1_000 / millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_tells_percent_rate_and_what_is_left() {
        let figures = Figures {
            bytes: 250,
            rows: 1_500,
            rejected: 2,
            records: 1_400,
            lag: Some(40),
            held: true,
        };
        let text = describe(&figures, Duration::from_secs(1));
        assert_eq!(
            text,
            "1,500 rows (1,500 rows/s), 1,400 records, 2 rejected, group 40 behind, held"
        );
        let line = plain_line(
            "publish",
            Some(1_000),
            &figures,
            Duration::from_secs(1),
            &text,
        );
        assert!(
            line.starts_with("publish: 25%, 250 bytes, 1,500 rows"),
            "{line}"
        );
        assert!(line.ends_with("ETA 3 s"), "{line}");
    }

    #[test]
    fn an_unknown_total_has_no_percent() {
        let figures = Figures {
            bytes: 9,
            ..Figures::default()
        };
        let line = plain_line("publish", None, &figures, Duration::ZERO, "2 rows");
        assert_eq!(line, "publish: 9 bytes, 2 rows");
    }

    #[test]
    fn what_only_reads_has_no_rows_to_tell_of() {
        let figures = Figures {
            bytes: 500,
            ..Figures::default()
        };
        let second = Duration::from_secs(1);
        let text = describe(&figures, second);
        let line = plain_line("check", Some(1_000), &figures, second, &text);
        assert_eq!(line, "check: 50%, 500 bytes, ETA 1 s");
    }

    #[test]
    fn the_bars_templates_compile() {
        for total in [Some(10), None] {
            bar("publish", total).finish_and_clear();
        }
    }
}
