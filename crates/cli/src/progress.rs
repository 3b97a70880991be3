//! How far long work is: bars on standard error, where that is a terminal, or whoever else is told.

use std::io::IsTerminal;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Common;

/// Who is told of progress instead of the terminal: what is done, how many of how many steps. It may unwind to end the work.
#[derive(Clone)]
pub struct Watch(pub Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// A bar of steps.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    what: &'static str,
    watch: Option<Watch>,
}

impl Bar {
    fn tell(&self) {
        if let Some(Watch(tell)) = &self.watch {
            tell(self.what, self.bar.position(), self.bar.length().unwrap_or(0));
        }
    }

    /// So many more steps are done.
    pub(crate) fn inc(&self, steps: u64) {
        self.bar.inc(steps);
        self.tell();
    }

    /// So many steps are done in all.
    pub(crate) fn set_position(&self, steps: u64) {
        self.bar.set_position(steps);
        self.tell();
    }

    /// So many more steps are to come.
    pub(crate) fn expect(&self, steps: u64) {
        self.bar.inc_length(steps);
        self.tell();
    }

    /// What is being done.
    pub(crate) fn describe(&self, what: String) {
        self.bar.set_message(what);
        self.bar.tick();
    }

    /// Takes the bar away.
    pub(crate) fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar of `total` steps; invisible with `--quiet` or without a terminal.
pub(crate) fn bar(common: &Common, what: &'static str, total: usize) -> Bar {
    let bar = ProgressBar::new(total as u64).with_message(what);
    if common.quiet || common.watch.is_some() || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{msg:>12} [{bar:40}] {pos}/{len} {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let bar = Bar { bar, what, watch: common.watch.clone() };
    bar.tell();
    bar
}
