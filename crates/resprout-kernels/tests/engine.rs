//! Programs of the engine against the reference implementation, for every instruction set that this CPU has.

use proptest::prelude::*;
use resprout_kernels::engine::{Blocking, Builder, Convolution, Paths, ThreadPool};
use resprout_kernels::{Activation, ConvShape, ISAS, Isa, reference};

fn isas() -> Vec<Isa> {
    ISAS.iter().filter_map(|row| row.open()).collect()
}

/// Numbers that look random, and of which a share of about `density` is not zero.
fn numbers(count: usize, seed: u64, density: f64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count).map(|_| if next() < density { (next() * 2.0 - 1.0) as f32 } else { 0.0 * next() as f32 }).collect()
}

fn close(ours: &[f32], theirs: &[f32]) {
    let largest = theirs.iter().fold(1.0f32, |largest, v| largest.max(v.abs()));
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        // Sums of f32 in another order than the reference's f64.
        assert!((a - b).abs() <= 2e-5 * largest, "element {i}: {a} instead of {b}");
    }
}

const RELU6: Activation = Activation::Clamp { low: 0.0, high: 6.0 };

/// Which value each convolution after the first one reads and which it adds; the result of the first is number 0. The summands:
/// one that is read again, one that the sum can overwrite, one that is also the input, and one with a halo that the sum lacks.
const SUMS: [(usize, usize); 5] = [(0, 0), (1, 0), (2, 0), (3, 3), (4, 2)];

/// A chain of convolutions, all but the first with a summand, on every instruction set, one and two threads, and several
/// blockings. All results of an instruction set are equal to the bit, and close to the reference.
fn residual_convolutions(images: usize, shape: &ConvShape, density: f64, seed: u64) {
    let [c, h, w] = [shape.in_channels, shape.in_h, shape.in_w];
    let (oh, ow) = shape.out_size();
    let second = ConvShape {
        in_channels: shape.out_channels,
        in_h: oh,
        in_w: ow,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [1; 4],
        groups: 1,
        ..shape.clone()
    };
    let input = numbers(images * c * h * w, seed, 1.0);
    let mut weights = [shape, &second].map(|s| numbers(s.out_channels * s.dot_length(), seed + 1, density));
    // Values keep their magnitude from one convolution to the next, and so do errors.
    let scale = (second.dot_length() as f32).sqrt().recip();
    weights[1].iter_mut().for_each(|weight| *weight *= scale);
    let bias = numbers(shape.out_channels, seed + 2, 1.0);
    let mut expected = Vec::new();
    for image in input.chunks_exact(c * h * w) {
        let mut middle = reference::conv2d(shape, image, &weights[0], &bias);
        RELU6.apply_to(&mut middle);
        let mut values = vec![middle];
        for (read, added) in SUMS {
            let sums = reference::conv2d(&second, &values[read], &weights[1], &[]);
            let mut sums: Vec<f32> = sums.iter().zip(&values[added]).map(|(a, b)| a + b).collect();
            RELU6.apply_to(&mut sums);
            values.push(sums);
        }
        expected.extend_from_slice(&values[SUMS.len()]);
    }
    for (isa, sharing) in isas().into_iter().flat_map(|isa| [1, 2, 3].map(|sharing| (isa, sharing))) {
        let mut builder = Builder::new(isa, images, sharing);
        let x = builder.input(c, [h, w]);
        let one = Convolution { shape: shape.clone(), weight: &weights[0], bias: &bias, activation: RELU6, added: None };
        let mut values = vec![builder.conv("one", x, one)];
        for (read, added) in SUMS {
            let added = Some(values[added]);
            let sum = Convolution { shape: second.clone(), weight: &weights[1], bias: &[], activation: RELU6, added };
            values.push(builder.conv("sum", values[read], sum));
        }
        builder.output(values[SUMS.len()]);
        let mut program = builder.finish().unwrap();
        let mut first: Option<Vec<f32>> = None;
        for threads in [1, 2] {
            let mut pool = ThreadPool::new(threads).unwrap();
            for blocking in [
                None,
                Some(Blocking { rows: 1, columns: 1, block: 1, channel_block: 1, split_channels: false }),
                Some(Blocking { rows: 7, columns: 28, block: 3, channel_block: 2, split_channels: true }),
                Some(Blocking { rows: 2, columns: 3, block: 1000, channel_block: 4, split_channels: true }),
            ] {
                if let Some(blocking) = blocking {
                    program.apply(&[blocking; 1 + SUMS.len()]);
                }
                let mut arena = program.arena();
                let mut out = vec![f32::NAN; images * shape.out_channels * oh * ow];
                // Twice: what the first run leaves in the arena must not matter.
                program.run(&mut arena, &mut pool, &[&input], &mut [&mut out]);
                program.run(&mut arena, &mut pool, &[&input], &mut [&mut out]);
                close(&out, &expected);
                let same = first.get_or_insert_with(|| out.clone());
                assert!(same.iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits()), "{blocking:?} on {threads} threads");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn convolutions_equal_the_reference(
        size in (1usize..18, 1usize..18),
        kernel in (1usize..6, 1usize..6),
        stride in (1usize..3, 1usize..3),
        dilation in 1usize..3,
        pads in prop::array::uniform4(0usize..4),
        groups in 1usize..3,
        group_in in 1usize..4,
        group_out in 1usize..4,
        images in 0u32..5,
        density in 0.0f64..1.0,
        seed in 0u64..1000,
    ) {
        let extent = |k: usize| (k - 1) * dilation + 1;
        prop_assume!(size.0 + pads[0] + pads[2] >= extent(kernel.0) && size.1 + pads[1] + pads[3] >= extent(kernel.1));
        let shape = ConvShape {
            in_channels: groups * group_in,
            in_h: size.0,
            in_w: size.1,
            out_channels: groups * group_out,
            kernel: [kernel.0, kernel.1],
            stride: [stride.0, stride.1],
            dilation: [dilation; 2],
            pads,
            groups,
        };
        residual_convolutions(1 << images, &shape, density, seed);
    }
}

#[test]
fn common_layers_at_the_ends_of_density() {
    let shape = |c, h, m, k: usize, s| ConvShape {
        in_channels: c,
        in_h: h,
        in_w: h,
        out_channels: m,
        kernel: [k; 2],
        stride: [s; 2],
        dilation: [1; 2],
        pads: [k / 2; 4],
        groups: 1,
    };
    for density in [0.0, 0.1, 1.0] {
        for shape in [
            shape(3, 64, 8, 7, 2),
            shape(24, 14, 20, 3, 1),
            shape(24, 14, 20, 3, 2),
            shape(40, 7, 12, 1, 1),
            shape(8, 56, 8, 1, 1),
        ] {
            residual_convolutions(1, &shape, density, 7);
        }
    }
    let depthwise = ConvShape { groups: 12, ..shape(12, 28, 12, 3, 2) };
    residual_convolutions(1, &depthwise, 1.0, 8);
    residual_convolutions(8, &depthwise, 1.0, 9);
}

/// Pooling, sums, concatenations, scales and means against plain loops.
#[test]
fn the_other_operations_equal_plain_loops() {
    for isa in isas() {
        for (images, sharing, [h, w]) in [(1, 1, [9, 12]), (1, 2, [19, 14]), (4, 2, [8, 8]), (16, 2, [5, 3])] {
            let (c, len) = (3, h * w);
            let input = numbers(images * c * len, 3, 1.0);
            let scale = [2.0, -1.0, 0.5];
            let shift = [1.0, 0.0, -1.0];
            let relu = Activation::Clamp { low: 0.0, high: f32::INFINITY };
            let mut builder = Builder::new(isa, images, sharing);
            let x = builder.input(c, [h, w]);
            let scaled = builder.affine("scale", x, &scale, &shift, relu);
            let sum = builder.add("sum", scaled, x, Activation::None);
            let both = builder.concat("both", &[scaled, sum]);
            builder.output(both);
            let out = [h.div_ceil(2), w.div_ceil(2)];
            let pooled = builder.pool("pool", scaled, [3, 3], [2, 2], [1, 1], out, false);
            builder.output(pooled);
            let mean = builder.mean("mean", pooled);
            builder.output(mean);
            let halves = builder.pool("half", x, [2, 2], [2, 2], [0, 0], [h / 2, w / 2], true);
            builder.output(halves);
            let program = builder.finish().unwrap();
            let sizes = [2 * c * len, c * out[0] * out[1], c, c * (h / 2) * (w / 2)].map(|n| images * n);
            let mut results = sizes.map(|n| vec![f32::NAN; n]);
            let mut pool = ThreadPool::new(2).unwrap();
            let mut views: Vec<&mut [f32]> = results.iter_mut().map(Vec::as_mut_slice).collect();
            program.run(&mut program.arena(), &mut pool, &[&input], &mut views);
            let mut expected: [Vec<f32>; 4] = Default::default();
            for image in input.chunks_exact(c * len) {
                let planes: Vec<Vec<f32>> = image
                    .chunks_exact(len)
                    .enumerate()
                    .map(|(i, plane)| plane.iter().map(|v| (v * scale[i] + shift[i]).max(0.0)).collect())
                    .collect();
                planes.iter().for_each(|plane| expected[0].extend(plane));
                planes.iter().flatten().zip(image).for_each(|(a, b)| expected[0].push(a + b));
                for (i, plane) in planes.iter().enumerate() {
                    let mut total = 0.0;
                    for (y, x) in (0..out[0]).flat_map(|y| (0..out[1]).map(move |x| (y, x))) {
                        let inside = |v: isize, size: usize| usize::try_from(v).ok().filter(|v| *v < size);
                        let taps =
                            (-1..=1isize).flat_map(|dy| (-1..=1isize).map(move |dx| (2 * y as isize + dy, 2 * x as isize + dx)));
                        let values = taps.filter_map(|(y, x)| Some(plane[inside(y, h)? * w + inside(x, w)?]));
                        let largest = values.fold(0.0f32, f32::max);
                        total += f64::from(largest);
                        expected[1].push(largest);
                    }
                    expected[2].push((total / (out[0] * out[1]) as f64) as f32);
                    let raw = &image[i * len..][..len];
                    for (y, x) in (0..h / 2).flat_map(|y| (0..w / 2).map(move |x| (y, x))) {
                        let at = |dy: usize, dx: usize| raw[(2 * y + dy) * w + 2 * x + dx];
                        expected[3].push((at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0);
                    }
                }
            }
            results.iter().zip(&expected).for_each(|(ours, theirs)| close(ours, theirs));
        }
    }
}

#[test]
fn tuning_changes_no_bit() {
    let shape = ConvShape {
        in_channels: 16,
        in_h: 20,
        in_w: 20,
        out_channels: 24,
        kernel: [3; 2],
        stride: [1; 2],
        dilation: [1; 2],
        pads: [1; 4],
        groups: 1,
    };
    let input = numbers(16 * 400, 1, 1.0);
    let weight = numbers(24 * shape.dot_length(), 2, 0.2);
    let mut builder = Builder::new(Isa::best(), 1, 2);
    let x = builder.input(16, [20, 20]);
    let y = builder.conv("conv", x, Convolution { shape, weight: &weight, bias: &[], activation: RELU6, added: None });
    builder.output(y);
    let mut program = builder.finish().unwrap();
    let (mut arena, mut pool) = (program.arena(), ThreadPool::new(2).unwrap());
    let mut before = vec![0.0; 24 * 400];
    program.run(&mut arena, &mut pool, &[&input], &mut [&mut before]);
    // All threads in one arena, and each in its own.
    for arenas in 1..=2 {
        let mut arenas: Vec<_> = (0..arenas).map(|_| program.arena()).collect();
        program.tune(&mut arenas, &mut pool, std::time::Duration::from_millis(200), Paths::Any);
        let mut after = vec![0.0; 24 * 400];
        let times = program.time(&mut arenas, &mut pool, &[&input], &mut [&mut after], 2);
        assert!(times.iter().all(|seconds| seconds.is_finite()), "{times:?}");
        assert_eq!(before, after);
    }
    let mut after = vec![0.0; 24 * 400];
    program.run(&mut arena, &mut pool, &[&input], &mut [&mut after]);
    assert_eq!(before, after);
    let blockings = program.blockings();
    program.apply(&blockings);
    assert_eq!(program.blockings(), blockings);
}
