//! Patterns: which weights go together. They are single weights, n of m neighbours, or whole channels. [`shrink`] cuts pruned
//! channels out of a network.

#[doc(hidden)]
pub mod coupling;
#[doc(hidden)]
pub mod nm;
pub mod shrink;

use crate::error::{Error, Result};
use crate::table::{self, Entry, OptionSpec, Options};

/// The largest group of n:m.
const LARGEST_GROUP: usize = 32;

/// Which weights are pruned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pattern {
    /// Single weights.
    Unstructured,
    /// `n` of every `m` neighbours along the input channels stay, such as 2 of 4.
    Nm {
        /// Weights that stay, from 1 up to `m - 1`.
        n: usize,
        /// Weights of a group, from 2 to 32.
        m: usize,
    },
    /// As `Nm`, with an `n` from 1 to `m` for each layer from the allocation.
    Mixed {
        /// Weights of a group.
        m: usize,
    },
    /// Whole channels, with everything [coupled](coupling) to them.
    Channel,
}

/// Reads a pattern's options.
#[doc(hidden)]
pub type Build = fn(&Options) -> Result<Pattern>;

/// All patterns.
pub static PATTERNS: &[Entry<Build>] = &[
    Entry {
        name: "unstructured",
        about: "single weights",
        paper: "Han et al., NeurIPS 2015",
        options: &[],
        build: |_| Ok(Pattern::Unstructured),
    },
    Entry {
        name: "nm",
        about: "n weights stay of every m neighbours along the input channels; also written n:m, as 2:4",
        paper: "Mishra et al., Accelerating sparse deep neural networks, 2021",
        options: &[
            OptionSpec { name: "n", about: "weights that stay, below m", default: "2" },
            OptionSpec { name: "m", about: "weights of a group, from 2 to 32", default: "4" },
        ],
        build: |options| {
            let m = group(options)?;
            let n = options.parse("n", "an integer from 1 up to, but not including, m", |&n: &usize| n > 0 && n < m)?;
            Ok(Pattern::Nm { n, m })
        },
    },
    Entry {
        name: "mixed",
        about: "n:m with an n for each layer, by the allocation, so that all together have the sparsity",
        paper: "Zhou et al., Learning N:M fine-grained structured sparse neural networks from scratch, ICLR 2021; layer-wise n here",
        options: &[OptionSpec { name: "m", about: "weights of a group, from 2 to 32", default: "4" }],
        build: |options| Ok(Pattern::Mixed { m: group(options)? }),
    },
    Entry {
        name: "channel",
        about: "whole channels with everything coupled to them: residual sums, concatenations, depthwise convolutions",
        paper: "Li et al., Pruning filters for efficient convnets, ICLR 2017; coupling as in DepGraph, CVPR 2023",
        options: &[],
        build: |_| Ok(Pattern::Channel),
    },
];

fn group(options: &Options) -> Result<usize> {
    options.parse("m", "an integer from 2 to 32", |m: &usize| (2..=LARGEST_GROUP).contains(m))
}

impl Pattern {
    /// Reads a pattern: a row of [`PATTERNS`] with options, or `n:m` such as `2:4`.
    ///
    /// # Errors
    /// Of kind `Option`.
    pub fn parse(text: &str) -> Result<Pattern> {
        let short = text.split_once(':').filter(|(n, _)| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()));
        let long = short.map(|(n, m)| format!("nm:n={n}:m={m}"));
        let (entry, options) = table::find(PATTERNS, "pattern", long.as_deref().unwrap_or(text))?;
        (entry.build)(&options).map_err(|e| if short.is_some() { Error::option(format!("pattern {text}: {e}")) } else { e })
    }

    /// The names of the default criterion and the default allocation.
    pub fn default_methods(&self) -> (&'static str, &'static str) {
        if *self == Pattern::Channel { ("l2", "global") } else { ("magnitude", "lamp") }
    }

    /// The sparsity that follows from the pattern alone: `1 - n / m` of `Nm`, `None` for the others.
    pub fn sparsity(&self) -> Option<f64> {
        match *self {
            Pattern::Nm { n, m } => Some(1.0 - n as f64 / m as f64),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read() {
        assert_eq!(Pattern::parse("2:4").unwrap(), Pattern::Nm { n: 2, m: 4 });
        assert_eq!(Pattern::parse("nm:n=1:m=32").unwrap().sparsity(), Some(1.0 - 1.0 / 32.0));
        assert_eq!(Pattern::parse("mixed:m=8").unwrap(), Pattern::Mixed { m: 8 });
        for text in ["1:1", "0:4", "4:4", "5:4", "2:33", "2:", "2:x", "mixed:m=1", "chanel", "99999999999999999999:4"] {
            let message = Pattern::parse(text).unwrap_err().to_string();
            assert!(message.contains("pattern"), "{text}: {message}");
        }
    }
}
