//! The options of a session.

use crate::error::{Error, Result};
use crate::table;
use resprout_kernels::engine::{Paths, usable_threads};
use resprout_kernels::{ISAS, Isa};

/// How a [`Session`](super::Session) is made. [`Session::builder`](super::Session::builder) sets the same one by one.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads that work on a batch, the calling one included; from 1 on, and 1 by default. At most as many are started as
    /// the process can use at once: its CPUs, or its quota of their time.
    pub threads: usize,
    /// Images of a typical batch, from 1 on: the plan is made for it. Any other number runs too. 1 by default.
    pub batch: usize,
    /// About how many seconds are spent on measuring which plan is the fastest, at most 3600. By default 0, which takes the
    /// default plan.
    pub tune: f64,
    /// The name of an instruction set (see [`isas`](crate::isas)), instead of the best one of this CPU.
    pub isa: Option<String>,
    /// Whether convolutions skip zero weights, compute with all weights, or do what is faster.
    pub paths: Paths,
    /// Whether each thread stays on a CPU of its own while it works. That helps only where nothing else runs there.
    pub pin: bool,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions { threads: 1, batch: 1, tune: 0.0, isa: None, paths: Paths::Any, pin: false }
    }
}

impl SessionOptions {
    /// The number of threads that a session starts, the calling one included.
    pub fn started_threads(&self) -> usize {
        self.threads.min(usable_threads())
    }

    /// The name of the instruction set that a session uses.
    pub fn isa_name(&self) -> String {
        self.isa.clone().unwrap_or_else(|| Isa::best().name().into())
    }

    /// Fails if a number makes no sense.
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [("threads", self.threads), ("batch", self.batch)] {
            if value == 0 {
                return Err(Error::option(format!("{name}: 0: at least 1 is needed")));
            }
        }
        Ok(())
    }

    /// The instruction set itself.
    pub(super) fn find_isa(&self) -> Result<Isa> {
        let Some(name) = self.isa.as_deref() else { return Ok(Isa::best()) };
        let names = || ISAS.iter().map(|row| row.name).collect::<Vec<_>>();
        let row = ISAS.iter().find(|row| row.name == name);
        let row = row.ok_or_else(|| table::unknown("isa", name, &names()))?;
        row.open().ok_or_else(|| Error::option(format!("isa {name}: this CPU does not have it ({})", row.about)))
    }
}
