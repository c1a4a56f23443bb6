//! Progress bars on a terminal, nothing in a pipe; Ctrl-C asks the work to stop.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use resprout::progress::Progress;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub struct Terminal {
    bar: Mutex<ProgressBar>,
    visible: bool,
    stop: Arc<AtomicBool>,
}

impl Terminal {
    pub fn new(quiet: bool) -> anyhow::Result<Terminal> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        ctrlc::set_handler(move || {
            // A second Ctrl-C does not wait for a good moment; nothing is half-written anyway.
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        })?;
        Ok(Terminal { bar: Mutex::new(ProgressBar::hidden()), visible: !quiet && std::io::stderr().is_terminal(), stop })
    }

    fn with_bar(&self, act: impl FnOnce(&mut ProgressBar)) {
        if let Ok(mut bar) = self.bar.lock() {
            act(&mut bar);
        }
    }
}

impl Progress for Terminal {
    fn begin(&self, stage: &str, total: u64) {
        if !self.visible {
            return;
        }
        let style = ProgressStyle::with_template("{msg:24} {bar:32} {percent} % {elapsed} elapsed, {eta} left");
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_message(stage.to_string());
        self.with_bar(|slot| *slot = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
    }

    fn advance(&self, units: u64) {
        self.with_bar(|bar| bar.inc(units));
    }

    fn end(&self) {
        self.with_bar(|bar| bar.finish_and_clear());
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
