//! Box 4, metrics: Prometheus text rendered once per sample; a scrape only hands it out.
//!
//! GPU values carry the names and labels of dcgm-exporter where the meaning is the same, so that its dashboards work; what
//! it has no name for is `gonka_agent_…`. A value that was not read has no line: a gap is honest, a zero is not.

mod dcgm;
mod own;

use std::fmt::Write as _;

use super::evaluate::Evaluation;
use super::history::History;
use super::observe::Sample;
use super::publish::Outcomes;

/// Everything that is shown.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// `Hostname` of the DCGM series.
    pub node_name: &'a str,
    /// Newest sample.
    pub sample: &'a Sample,
    /// From which age a reading says nothing about now: a gap is honest, an old value is not.
    pub stale_seconds: u32,
    /// What is remembered.
    pub history: &'a History,
    /// What was decided.
    pub evaluation: &'a Evaluation,
    /// Writes so far.
    pub outcomes: Outcomes,
    /// Whether the memory is on disk.
    pub state_saved: bool,
}

/// Renders it. `size` is how long the last text was.
pub fn render(view: &View<'_>, size: usize) -> String {
    let mut page = Page(String::with_capacity(size.max(4096)));
    dcgm::render(view, &mut page);
    own::render(view, &mut page);
    page.0
}

/// A text under way.
#[derive(Debug)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A line; `labels` without braces, escaped already.
    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        if labels.is_empty() {
            self.write(format_args!("{name} {value}\n"));
        } else {
            self.write(format_args!("{name}{{{labels}}} {value}\n"));
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a String takes every text");
    }
}

/// A label value as the format wants it. Most need no change.
fn escaped(value: &str) -> std::borrow::Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
            .into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_cannot_break_out_of_their_quotes() {
        assert_eq!(escaped("NVIDIA H200"), "NVIDIA H200");
        assert_eq!(escaped("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
    }
}
