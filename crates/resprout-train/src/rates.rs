//! Schedules of the learning rate.

use crate::error::option;
use resprout::Result;
use resprout::table::{self, Entry, OptionSpec, Options};

/// A schedule: the factor of the initial rate by the share of training that is done.
pub trait Schedule: Send + Sync {
    /// The factor at `done`, the share of finished steps of the segment after the warm-up, in `[0, 1]`.
    fn factor(&self, done: f64) -> f64;
}

/// Builds a schedule from its options.
pub type Build = fn(&Options) -> Result<Box<dyn Schedule>>;

/// All schedules.
pub static SCHEDULES: &[Entry<Build>] = &[
    Entry {
        name: "constant",
        about: "the same rate throughout",
        paper: "",
        options: &[],
        build: |_| Ok(Box::new(Steps { at: vec![], gamma: 1.0 })),
    },
    Entry {
        name: "step",
        about: "times gamma after every share of training",
        paper: "",
        options: &[
            OptionSpec { name: "every", about: "share of training between two steps, in (0, 1]", default: "0.333" },
            OptionSpec { name: "gamma", about: "factor of each step, in (0, 1]", default: "0.1" },
        ],
        build: |options| {
            let every: f64 = options.parse("every", "a number in (0, 1]", |&e| e > 0.0 && e <= 1.0)?;
            let at = (1..).map(|i| f64::from(i) * every).take_while(|&at| at < 1.0).collect();
            Ok(Box::new(Steps { at, gamma: gamma(options)? }))
        },
    },
    Entry {
        name: "multi-step",
        about: "times gamma at each of several shares of training",
        paper: "He, Zhang, Ren, Sun, Deep residual learning for image recognition, CVPR 2016",
        options: &[
            OptionSpec { name: "at", about: "shares of training, ascending, joined by /", default: "0.5/0.75" },
            OptionSpec { name: "gamma", about: "factor of each step, in (0, 1]", default: "0.1" },
        ],
        build: |options| {
            let what = "ascending shares of training like 0.5/0.75";
            let at: Option<Vec<f64>> = options.text("at").split('/').map(|share| share.parse().ok()).collect();
            let ascending =
                |at: &Vec<f64>| at.windows(2).all(|pair| pair[0] < pair[1]) && at.iter().all(|s| (0.0..1.0).contains(s));
            let at = at.filter(ascending).ok_or_else(|| options.error("at", what))?;
            Ok(Box::new(Steps { at, gamma: gamma(options)? }))
        },
    },
    Entry {
        name: "cosine",
        about: "half a cosine from 1 down to 0",
        paper: "Loshchilov, Hutter, SGDR, ICLR 2017",
        options: &[],
        build: |_| Ok(Box::new(Cosine)),
    },
];

/// Finds a schedule, a row of [`SCHEDULES`], by `name:option=value`.
///
/// # Errors
/// Of kind `Option`.
pub fn find(text: &str) -> Result<Box<dyn Schedule>> {
    let (entry, options) = table::find(SCHEDULES, "schedule", text)?;
    (entry.build)(&options)
}

/// The rate at a step: `rate` times the schedule's factor, after a linear rise over the first `warm_up` steps.
pub fn rate(schedule: &dyn Schedule, rate: f64, step: usize, steps: usize, warm_up: usize) -> f64 {
    if step < warm_up {
        return rate * (step + 1) as f64 / (warm_up + 1) as f64;
    }
    rate * schedule.factor((step - warm_up) as f64 / (steps - warm_up).max(1) as f64)
}

/// Fails unless the warm-up, in epochs, ends before training does.
///
/// # Errors
/// Of kind `Option`.
pub fn check_warm_up(warm_up: f64, epochs: usize) -> Result<()> {
    if !(0.0..epochs as f64).contains(&warm_up) {
        return Err(option(format!("warm-up {warm_up}: a number of epochs from 0 to below {epochs} is needed")));
    }
    Ok(())
}

fn gamma(options: &Options) -> Result<f64> {
    options.parse("gamma", "a number in (0, 1]", |&gamma| gamma > 0.0 && gamma <= 1.0)
}

struct Steps {
    at: Vec<f64>,
    gamma: f64,
}

impl Schedule for Steps {
    fn factor(&self, done: f64) -> f64 {
        let passed = self.at.iter().filter(|&&at| done >= at).count();
        self.gamma.powi(passed as i32)
    }
}

struct Cosine;

impl Schedule for Cosine {
    fn factor(&self, done: f64) -> f64 {
        (1.0 + (std::f64::consts::PI * done).cos()) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_at_known_shares() {
        let at = |text: &str| {
            let schedule = find(text).unwrap();
            [0.0, 0.25, 0.5, 0.75, 0.9].map(|done| (schedule.factor(done) * 1e4).round() / 1e4)
        };
        assert_eq!(at("constant"), [1.0; 5]);
        assert_eq!(at("multi-step"), [1.0, 1.0, 0.1, 0.01, 0.01]);
        assert_eq!(at("step:every=0.25:gamma=0.5"), [1.0, 0.5, 0.25, 0.125, 0.125]);
        assert_eq!(at("cosine"), [1.0, 0.8536, 0.5, 0.1464, 0.0245]);
        for bad in ["linear", "step:every=0", "multi-step:at=0.7/0.5", "multi-step:at=1.5", "multi-step:at=x", "step:gamma=2"] {
            assert!(find(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn warm_up_rises_before_the_schedule() {
        let schedule = find("cosine").unwrap();
        let rates: Vec<f64> = (0..10).map(|step| rate(&*schedule, 1.0, step, 10, 3)).collect();
        assert_eq!(rates[..4], [0.25, 0.5, 0.75, 1.0]);
        assert!(rates.windows(2).skip(3).all(|pair| pair[1] < pair[0]));
        assert!(check_warm_up(5.0, 5).is_err() && check_warm_up(-1.0, 5).is_err() && check_warm_up(0.5, 1).is_ok());
    }
}
