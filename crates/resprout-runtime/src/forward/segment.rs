//! Segments of a compiled plan: programs of the sparse engine, and single steps between them.

use resprout_kernels::engine::{Arena, Paths, Program, ThreadPool};

/// A part of a compiled plan.
pub(super) enum Segment {
    /// Steps that run as one program.
    Program {
        program: Box<Program>,
        /// The slots that the program reads.
        inputs: Vec<usize>,
        /// The slots that it writes, with their shapes.
        outputs: Vec<(usize, Vec<usize>)>,
    },
    /// A step of the plan, by its number.
    Step(usize),
}

/// The programs among the segments.
pub(super) fn programs(segments: &[Segment]) -> impl Iterator<Item = &Program> {
    segments.iter().filter_map(|segment| match segment {
        Segment::Program { program, .. } => Some(&**program),
        Segment::Step(_) => None,
    })
}

/// As [`programs`], to be changed.
pub(super) fn programs_mut(segments: &mut [Segment]) -> impl Iterator<Item = &mut Program> {
    segments.iter_mut().filter_map(|segment| match segment {
        Segment::Program { program, .. } => Some(&mut **program),
        Segment::Step(_) => None,
    })
}

/// Applies the default blockings on these paths.
pub(super) fn restrict(segments: &mut [Segment], paths: Paths) {
    if paths != Paths::Any {
        programs_mut(segments).for_each(|program| program.apply(&program.default_blockings(paths)));
    }
}

/// Runs a program with a pool, or on the calling thread without one.
pub(super) fn run_program(
    program: &Program,
    arena: &mut Arena,
    pool: Option<&mut ThreadPool>,
    inputs: &[&[f32]],
    outputs: &mut [&mut [f32]],
) {
    match pool {
        Some(pool) => program.run(arena, pool, inputs, outputs),
        None => program.run_alone(arena, inputs, outputs),
    }
}
