//! Times that `bench` has measured, for the rows of the same files.

use super::wrong;
use crate::reports::compare::Compared;
use resprout::Result;
use resprout::report::FileInfo;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// What is read of a file of `bench`.
#[derive(Deserialize)]
pub struct Bench {
    model: FileInfo,
    cpu: String,
    rows: Vec<Timed>,
}

#[derive(Deserialize)]
struct Timed {
    batch: usize,
    threads: usize,
    ours: Median,
}

#[derive(Deserialize)]
struct Median {
    p50: f64,
}

/// Whether a file of JSON is one of `bench`.
pub fn is_bench(value: &Value) -> bool {
    ["isa", "load", "rows"].iter().all(|key| value.get(key).is_some())
}

/// Reads a file of `bench`.
pub fn read(file: &Path, value: Value) -> Result<Bench> {
    serde_json::from_value(value).map_err(wrong(file))
}

/// Gives each row the time of its file; a file without a row gets one. Returns notes on how the times were measured.
pub fn add(benches: &[Bench], rows: &mut Vec<Compared>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut machines = Vec::new();
    for bench in benches {
        let Some(timed) = bench.rows.first() else { continue };
        let milliseconds = Some(1e3 * timed.ours.p50);
        let sha256 = Some(bench.model.sha256.clone());
        if !rows.iter().any(|row| row.sha256 == sha256) {
            rows.push(Compared { name: bench.model.path.clone(), sha256: sha256.clone(), ..Compared::default() });
        }
        rows.iter_mut().filter(|row| row.sha256 == sha256).for_each(|row| row.milliseconds = milliseconds);
        if bench.rows.len() > 1 {
            notes.push(format!("{}: the first of {} measurements is taken", bench.model.path, bench.rows.len()));
        }
        let note = format!("times on {}, {} threads, batches of {}", bench.cpu, timed.threads, timed.batch);
        if !machines.contains(&note) {
            machines.push(note);
        }
    }
    if machines.len() > 1 {
        notes.push("times of different machines, threads or batches cannot be compared".into());
    }
    machines.extend(notes);
    machines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(sha256: &str, threads: usize, p50: f64) -> Bench {
        let model = FileInfo { path: format!("{sha256}.onnx"), sha256: sha256.into(), bytes: 1 };
        Bench { model, cpu: "a CPU".into(), rows: vec![Timed { batch: 1, threads, ours: Median { p50 } }] }
    }

    #[test]
    fn times_find_their_row_or_make_one() {
        let row = |sha256: &str| Compared { name: sha256.into(), sha256: Some(sha256.into()), ..Compared::default() };
        let mut rows = vec![row("a"), row("b"), Compared::default()];
        let notes = add(&[bench("b", 2, 0.004), bench("c", 2, 0.002)], &mut rows);
        let times: Vec<Option<f64>> = rows.iter().map(|row| row.milliseconds).collect();
        assert_eq!(times, [None, Some(4.0), None, Some(2.0)]);
        assert_eq!((rows[3].name.as_str(), notes), ("c.onnx", vec!["times on a CPU, 2 threads, batches of 1".to_string()]));
        assert!(add(&[bench("a", 1, 1.0), bench("b", 2, 1.0)], &mut rows)[2].contains("cannot be compared"));
        let mut several = bench("a", 1, 1.0);
        several.rows.push(Timed { batch: 8, threads: 1, ours: Median { p50: 2.0 } });
        assert!(add(&[several], &mut rows)[1].contains("a.onnx: the first of 2 measurements"));
    }
}
