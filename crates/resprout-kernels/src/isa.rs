//! The instruction sets that kernels are compiled for, and the proof that the CPU has one.

use crate::dense::dots::{self, DOT_ROWS, DOT_SHIFTS, DotSums};
use crate::dense::{self, Tile, double};

/// An instruction set that this CPU has. The only way to get one is [`IsaRow::open`], so a value proves that the
/// instructions are there.
#[derive(Clone, Copy, Debug)]
pub struct Isa {
    level: Level,
}

/// One row of [`ISAS`].
#[derive(Debug)]
pub struct IsaRow {
    /// A short name.
    pub name: &'static str,
    /// What the CPU must have.
    pub about: &'static str,
    level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// All instruction sets of this build, best first.
pub static ISAS: &[IsaRow] = &[
    #[cfg(target_arch = "x86_64")]
    IsaRow { name: "avx512", about: "x86-64 with AVX-512F", level: Level::Avx512 },
    #[cfg(target_arch = "x86_64")]
    IsaRow { name: "avx2", about: "x86-64 with AVX2 and FMA", level: Level::Avx2 },
    IsaRow { name: "portable", about: "any CPU", level: Level::Portable },
];

impl IsaRow {
    /// The instruction set, if this CPU has it.
    pub fn open(&self) -> Option<Isa> {
        let present = match self.level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Level::Portable => true,
        };
        present.then_some(Isa { level: self.level })
    }
}

impl Isa {
    /// The best instruction set of this CPU.
    pub fn best() -> Isa {
        ISAS.iter().find_map(IsaRow::open).unwrap_or(Isa { level: Level::Portable })
    }

    /// The row's name.
    pub fn name(self) -> &'static str {
        ISAS.iter().find(|row| row.level == self.level).map_or("portable", |row| row.name)
    }

    pub(crate) fn level(self) -> Level {
        self.level
    }

    /// Computes one tile: `out[r][j] = sum_k a[k][r] * b[k][j]` for `r < rows`, `j < cols`.
    /// Other values of `out` are unspecified. `a: [k][ROWS]`, `b: [k][COLS]`.
    ///
    /// # Panics
    /// If a panel is shorter than `k` steps or the tile is out of range.
    #[inline]
    pub(crate) fn tile(self, k: usize, rows: usize, cols: usize, a: &[f32], b: &[f32], out: &mut Tile) {
        dense::assert_panels(k, rows, cols, a, b);
        self.strided_tile::<{ dense::ROWS }>(k, rows, cols, a, b, out);
    }

    /// The same with rows of a panel that is as wide as that of `b`: `a: [k][COLS]`, from row `first` on.
    ///
    /// # Panics
    /// If a panel is shorter than `k` steps or the tile is out of range.
    #[inline]
    pub fn outer(self, k: usize, first: usize, rows: usize, cols: usize, a: &[f32], b: &[f32], out: &mut Tile) {
        dense::assert_panels(k, rows, cols, a, b);
        assert!(first + dense::ROWS <= dense::COLS && a.len() >= k * dense::COLS, "rows from {first} on");
        if k > 0 {
            self.strided_tile::<{ dense::COLS }>(k, rows, cols, &a[first..], b, out);
        } else {
            *out = Tile::ZERO;
        }
    }

    /// Both callers have checked the panels.
    #[inline]
    fn strided_tile<const STRIDE: usize>(self, k: usize, rows: usize, cols: usize, a: &[f32], b: &[f32], out: &mut Tile) {
        match self.level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `open` has found the instructions; both callers have checked that the panels hold `k` steps.
            Level::Avx512 => unsafe { dense::dense_avx512_8x32::run::<STRIDE>(k, rows, cols, a.as_ptr(), b.as_ptr(), out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { dense::dense_avx2_4x16::run::<STRIDE>(k, rows, cols, a.as_ptr(), b.as_ptr(), out) },
            Level::Portable => dense::dense_portable_8x16::run::<STRIDE>(k, rows, cols, a, b, out),
        }
    }

    /// Subtracts a tile of products of `f64` from `out`: see [`double`].
    ///
    /// # Panics
    /// If a panel is shorter than `k` steps.
    #[inline]
    pub(crate) fn tile64(self, k: usize, a: &[f64], b: [&[f64]; 2], out: &mut double::Tile64) {
        let needed = k * double::WIDTH;
        assert!(a.len() >= needed && b.iter().all(|b| b.len() >= needed), "panel shorter than {k} steps");
        match self.level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `open` has found the instructions and the panels were checked above.
            Level::Avx512 => unsafe { double::avx512(k, a, b, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { double::avx2(k, a, b, out) },
            Level::Portable => double::portable(k, a, b, out),
        }
    }

    /// Dot products of rows of `a` with shifted views of `b`, added to `sums`: see [`dense::dots`].
    ///
    /// # Panics
    /// If a row or a view leaves its buffer, or `len` is not a multiple of the vector length.
    #[inline]
    pub(crate) fn dots(
        self,
        a: &[f32],
        rows: [usize; DOT_ROWS],
        b: &[f32],
        shifts: [usize; DOT_SHIFTS],
        len: usize,
        sums: &mut DotSums,
    ) {
        dots::assert_views(a, rows, b, shifts, len);
        match self.level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `open` has found the instructions and the views were checked above.
            Level::Avx512 => unsafe { dots::avx512(a, rows, b, shifts, len, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { dots::avx2(a, rows, b, shifts, len, sums) },
            Level::Portable => dots::portable(a, rows, b, shifts, len, sums),
        }
    }
}

/// Defines a function that runs `$body`, compiled for each instruction set.
macro_rules! per_isa {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)? = $body:ident) => {
        $(#[$doc])*
        $visibility fn $name(isa: $crate::Isa, $($arg: $type),*) $(-> $out)? {
            /// # Safety
            /// The CPU must have AVX-512F.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512($($arg: $type),*) $(-> $out)? { $body($($arg),*) }
            /// # Safety
            /// The CPU must have AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $type),*) $(-> $out)? { $body($($arg),*) }
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` exists only where the CPU has its instructions.
                $crate::isa::Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::isa::Level::Avx2 => unsafe { avx2($($arg),*) },
                $crate::isa::Level::Portable => $body($($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;

#[cfg(test)]
mod tests;
