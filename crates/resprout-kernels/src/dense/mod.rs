//! The dense micro-kernel, once per instruction set: `acc[r, j] = sum_k a[k, r] * b[k, j]`.
//!
//! A tile has up to [`ROWS`] rows and [`COLS`] columns. Convolution and matrix product differ only
//! in how they fill the two panels.

#[cfg(target_arch = "x86_64")]
pub(crate) mod dense_avx2_4x16;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dense_avx512_8x32;
pub(crate) mod dense_portable_8x16;
pub(crate) mod dots;
pub(crate) mod double;

/// Rows of a tile: panels of `a` hold this many values per `k`, unused ones are zero.
pub const ROWS: usize = 8;
/// Columns of a tile: panels of `b` hold this many values per `k`, unused ones are ignored.
pub const COLS: usize = 32;
/// Columns that share one vector; a tile may compute only its first [`LANES`] columns.
pub(crate) const LANES: usize = 16;

/// A tile of results, `[ROWS][COLS]`.
#[repr(align(64))]
#[derive(Clone)]
pub struct Tile(pub [[f32; COLS]; ROWS]);

impl Tile {
    /// A tile of zeros.
    pub const ZERO: Tile = Tile([[0.0; COLS]; ROWS]);
}

/// Checks the panel sizes that every micro-kernel relies on.
///
/// # Panics
/// If a panel is shorter than `k` steps or the tile size is out of range. Only a bug in this crate can cause it.
pub(crate) fn assert_panels(k: usize, rows: usize, cols: usize, a: &[f32], b: &[f32]) {
    assert!((1..=ROWS).contains(&rows) && (1..=COLS).contains(&cols), "tile {rows}x{cols} out of range");
    assert!(a.len() >= k * ROWS && b.len() >= k * COLS, "panel shorter than {k} steps");
}
