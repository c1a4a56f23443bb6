//! ONNX Runtime in a process of its own.

use crate::args::BenchArgs;
use anyhow::Context;
use resprout::session::SessionOptions;
use resprout::tensor::Tensor;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The program that runs the baseline.
const BASELINE: &str = include_str!("../../../assets/baseline.py");

/// The process. It is ended when this is dropped.
pub struct BaselineProcess {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub version: String,
    folder: tempfile::TempDir,
}

impl BaselineProcess {
    /// Starts it on these images, and waits until it is ready.
    pub fn start(args: &BenchArgs, images: &Tensor, options: &SessionOptions) -> anyhow::Result<BaselineProcess> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let path = |name: &str| folder.path().join(name);
        let shape: Vec<String> = images.shape[1..].iter().map(usize::to_string).collect();
        for (name, bytes) in
            [("baseline.py", BASELINE.into()), ("images.shape", shape.join(" ").into_bytes()), ("images", images.to_le_bytes())]
        {
            std::fs::write(path(name), bytes).with_context(|| format!("cannot write {name}"))?;
        }
        let model = args.baseline_model.as_ref().unwrap_or(&args.model);
        let mut process = Command::new(&args.python)
            .arg(path("baseline.py"))
            .arg(model)
            .args([options.batch.to_string(), options.threads.to_string()])
            .args([path("images"), path("output")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("--python {}: cannot be started", args.python.display()))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            anyhow::bail!("no pipe to the baseline")
        };
        let mut baseline = BaselineProcess { process, input, output: BufReader::new(output), version: String::new(), folder };
        baseline.version =
            baseline.line().context("--against onnxruntime: needs Python with the packages onnxruntime and numpy")?;
        Ok(baseline)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            anyhow::bail!("the baseline has stopped");
        }
        Ok(line.trim().to_string())
    }

    /// Sends a command and returns the seconds that it took.
    pub fn request(&mut self, command: &str) -> anyhow::Result<f64> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        Ok(self.line()?.parse()?)
    }

    /// The largest difference of the outputs, by the largest output.
    pub fn difference(&self, ours: &Tensor) -> anyhow::Result<f64> {
        let bytes = std::fs::read(self.folder.path().join("output"))?;
        let theirs: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        anyhow::ensure!(
            theirs.len() == ours.data.len(),
            "the baseline's output has {} numbers, ours {}",
            theirs.len(),
            ours.data.len()
        );
        let largest = theirs.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        let difference = theirs.iter().zip(&ours.data).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        Ok(f64::from(difference / largest))
    }
}

impl Drop for BaselineProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
