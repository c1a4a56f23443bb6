//! Methods of pruning during training. Each is a list of segments of training, so that one loop runs, counts and resumes all of
//! them alike.

mod dense;
mod imp;
mod one_shot;
mod progressive;
mod random;
mod segment;

pub use segment::{Before, Build, MethodRequest, Ramp, TrainSegment};

use crate::error::option;
use resprout::Result;
use resprout::table::{self, Entry};

/// All methods of pruning during training, `dense` for none.
pub static METHODS: &[Entry<Build>] =
    &[dense::ENTRY, progressive::PROGRESSIVE, progressive::GMP, one_shot::ENTRY, imp::ENTRY, random::ENTRY];

/// The segments of a method `name:option=value`. Their epochs add up to those of the request.
///
/// # Errors
/// Of kind `Option`, also for too few epochs.
pub fn segments(text: &str, request: MethodRequest) -> Result<Vec<TrainSegment>> {
    let (entry, options) = table::find(METHODS, "method", text)?;
    if request.epochs == 0 {
        return Err(option("epochs 0: at least 1 is needed"));
    }
    (entry.build)(&options, request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_keeps_to_the_budget_and_reaches_the_sparsity() {
        for entry in METHODS {
            for epochs in [5, 6, 13, 160] {
                let segments = segments(entry.name, MethodRequest { epochs, sparsity: 0.9 }).unwrap();
                assert_eq!(segments.iter().map(|s| s.epochs).sum::<usize>(), epochs, "{}", entry.name);
                let mut reached = Vec::new();
                for segment in &segments {
                    assert!(segment.epochs > 0, "{}", entry.name);
                    reached.extend(match segment.before {
                        Before::Nothing => None,
                        Before::Prune(s)
                        | Before::PruneAtInit(s)
                        | Before::PruneAtRandom(s)
                        | Before::PruneAndRewind { sparsity: s, .. } => Some(s),
                    });
                    if let Some(ramp) = segment.ramp {
                        reached.extend((0..=segment.epochs * 10).filter_map(|step| ramp.at(step, 10)));
                    }
                }
                assert!(reached.windows(2).all(|pair| pair[0] < pair[1]), "{}: {reached:?}", entry.name);
                assert_eq!(reached.last().copied(), (entry.name != "dense").then_some(0.9), "{}", entry.name);
            }
        }
    }

    #[test]
    fn impossible_requests_are_refused() {
        let request = MethodRequest { epochs: 4, sparsity: 0.9 };
        for bad in [
            "progressive:start=0.6:end=0.5",
            "progressive:end=1.5",
            "gmp:every=0",
            "one-shot:at=0",
            "imp:levels=4",
            "imp:levels=0",
            "imp:rewind=9",
            "nothing",
        ] {
            assert!(segments(bad, request).is_err(), "{bad}");
        }
    }
}
