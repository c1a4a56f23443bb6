//! Busy threads beside a measurement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Threads of normal priority that compute without a pause until this is dropped.
pub struct Contenders {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Contenders {
    pub fn start(count: u16) -> std::io::Result<Contenders> {
        let mut contenders = Contenders { over: Arc::default(), threads: Vec::new() };
        for _ in 0..count {
            let over = contenders.over.clone();
            let work = move || {
                let mut state = 1u64;
                while !over.load(Ordering::Relaxed) {
                    (0..10_000u64).for_each(|i| state = std::hint::black_box(state.wrapping_mul(i | 1).rotate_left(7)));
                }
            };
            contenders.threads.push(std::thread::Builder::new().name("contender".into()).spawn(work)?);
        }
        Ok(contenders)
    }
}

impl Drop for Contenders {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
