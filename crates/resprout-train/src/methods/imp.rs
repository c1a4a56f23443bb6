//! Iterative magnitude pruning with rewinding: the lottery ticket procedure.

use super::segment::{Before, Build, TrainSegment, plain};
use crate::error::option;
use resprout::table::{Entry, OptionSpec};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "imp",
    about: "train, prune the same share of what is left, go back to the early weights, and again; all levels share the epochs",
    paper: "Frankle, Carbin, The lottery ticket hypothesis, ICLR 2019; Frankle et al., Linear mode connectivity, ICML 2020",
    options: &[
        OptionSpec { name: "levels", about: "how many times it prunes, from 1 on", default: "4" },
        OptionSpec {
            name: "rewind",
            about: "epochs of the first level that the weights go back to; 0 is the initialisation",
            default: "0",
        },
    ],
    build: |options, request| {
        let levels: usize = options.parse("levels", "an integer from 1 on", |&levels| levels > 0)?;
        let each = request.epochs / (levels + 1);
        if each == 0 {
            return Err(option(format!(
                "method imp: {levels} levels are {} trainings, and there are {} epochs for all of them",
                levels + 1,
                request.epochs
            )));
        }
        let first = request.epochs - levels * each;
        let to: f64 = options.parse("rewind", "a number of epochs within a level", |to| (0.0..each as f64).contains(to))?;
        let mut segments = vec![plain(first)];
        for level in 1..=levels {
            let kept = (1.0 - request.sparsity).powf(level as f64 / levels as f64);
            let sparsity = if level == levels { request.sparsity } else { 1.0 - kept };
            segments.push(TrainSegment { before: Before::PruneAndRewind { sparsity, to }, ..plain(each) });
        }
        Ok(segments)
    },
};
