use super::*;
use crate::dense::LANES;
use crate::dense::dots::tree_sum;
use crate::dense::double::{Tile64, WIDTH};
use crate::testing::values;

/// Lane by lane with fused operations, then the lanes by the tree: what every fused kernel must give to the bit.
fn fused(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        lanes[i % LANES] = a.mul_add(*b, lanes[i % LANES]);
    }
    tree_sum(lanes)
}

#[test]
fn fused_dot_products_agree_to_the_bit() {
    const LEN: usize = 7 * LANES;
    let (a, b) = (values(5 * LEN, 1), values(2 * LEN, 2));
    let (rows, shifts) = ([0, LEN, 3 * LEN + 5, LEN], [0, 1, 33, LEN]);
    for isa in ISAS.iter().filter_map(|row| row.open()).filter(|isa| isa.level() != Level::Portable) {
        let mut sums = [[0.5; DOT_SHIFTS]; DOT_ROWS];
        isa.dots(&a, rows, &b, shifts, LEN, &mut sums);
        for (row, sums) in rows.iter().zip(&sums) {
            for (shift, sum) in shifts.iter().zip(sums) {
                let wanted = 0.5 + fused(&a[*row..][..LEN], &b[*shift..][..LEN]);
                assert_eq!(sum.to_bits(), wanted.to_bits(), "{} row {row} shift {shift}", isa.name());
            }
        }
    }
}

#[test]
fn fused_tiles_of_f64_agree_to_the_bit_and_all_compute_the_sums() {
    let values = |len: usize, seed: u64| -> Vec<f64> { values(len, seed).into_iter().map(f64::from).collect() };
    for k in [0, 1, 7, 100] {
        let (a, b) = (values(k * WIDTH, 1), [values(k * WIDTH, 2), values(k * WIDTH, 3)]);
        for isa in ISAS.iter().filter_map(|row| row.open()) {
            let mut tile = Tile64([[0.5; 2 * WIDTH]; WIDTH]);
            isa.tile64(k, &a, [&b[0], &b[1]], &mut tile);
            for (r, c) in (0..WIDTH).flat_map(|r| (0..2 * WIDTH).map(move |c| (r, c))) {
                let value = |step: usize| (a[step * WIDTH + r], b[c / WIDTH][step * WIDTH + c % WIDTH]);
                let fused = 0.5 - (0..k).map(value).fold(0.0f64, |sum, (a, b)| a.mul_add(b, sum));
                match isa.level() {
                    Level::Portable => assert!((tile.0[r][c] - fused).abs() < 1e-12),
                    _ => assert_eq!(tile.0[r][c].to_bits(), fused.to_bits(), "{} {k} {r} {c}", isa.name()),
                }
            }
        }
    }
}
