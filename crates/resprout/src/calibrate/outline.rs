//! What the time of a repair at a layer depends on.

use crate::linalg::median;
use resprout_kernels::Isa;
use resprout_kernels::dense::{COLS, Tile};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a visitor's time at a layer with weights depends on.
#[doc(hidden)]
pub struct Outline {
    /// Calibration images.
    pub images: usize,
    /// Rows of the layer's inputs per image.
    pub positions: usize,
    /// Weights per output before pruning.
    pub len: usize,
    /// Groups of outputs.
    pub groups: usize,
    /// Kept weights of each output.
    pub kept: Vec<usize>,
    /// Whether an activation with bounds follows.
    pub activation: bool,
    /// The speed of this machine.
    pub speed: Speed,
}

/// How fast this machine computes.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Peak multiplications and additions in `f32` per second of all threads.
    pub single: f64,
    /// Bytes that all threads move per second.
    pub bytes: f64,
}

impl Speed {
    /// The speed of this machine, measured once, in a few milliseconds. All threads take part at the same time, because they may
    /// share cores.
    pub fn here() -> Speed {
        // A lock could deadlock: a thread that waits for it cannot take part in the measurement.
        static ONE: AtomicU64 = AtomicU64::new(0);
        let threads = rayon::current_num_threads() as f64;
        let mut each = f64::from_bits(ONE.load(Ordering::Relaxed));
        if each == 0.0 {
            each = rayon::broadcast(|_| measure()).into_iter().sum::<f64>() / threads;
            ONE.store(each.to_bits(), Ordering::Relaxed);
        }
        Speed { single: each * threads, bytes: 5e9 * threads }
    }
}

/// Operations per second of the dense micro-kernel: the median of several runs.
fn measure() -> f64 {
    const STEPS: usize = 512;
    let (a, b, mut tile) = (vec![1.0; STEPS * COLS], vec![0.5; STEPS * COLS], Tile::ZERO);
    let run = |_| {
        let start = Instant::now();
        for _ in 0..64 {
            Isa::best().outer(STEPS, 0, 8, COLS, std::hint::black_box(&a), &b, &mut tile);
            std::hint::black_box(&tile);
        }
        (2 * 64 * STEPS * 8 * COLS) as f64 / start.elapsed().as_secs_f64().max(1e-9)
    };
    median(&(0..25).map(run).collect::<Vec<f64>>())
}
