//! Convolutions of vectors of images against the plain definition.

use resprout_kernels::batched::{BatchedConv, Buffer, LANES, Scratch};
use resprout_kernels::{ConvShape, ISAS, Isa};

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn buffer(&mut self, len: usize) -> Buffer {
        let mut buffer = Buffer::zeros(len);
        buffer.iter_mut().for_each(|value| *value = self.next());
        buffer
    }
}

/// Calls `work` with the places of every product: input, weight, output, all without lanes.
fn products(shape: &ConvShape, mut work: impl FnMut(usize, usize, usize)) {
    let (out_h, out_w) = shape.out_size();
    for m in 0..shape.out_channels {
        for (oy, ox) in (0..out_h).flat_map(|y| (0..out_w).map(move |x| (y, x))) {
            for at in 0..shape.dot_length() {
                let taps = shape.kernel[0] * shape.kernel[1];
                let (c, tap) = (m / shape.group_out() * shape.group_in() + at / taps, at % taps);
                let y = (oy * shape.stride[0] + tap / shape.kernel[1] * shape.dilation[0]) as isize - shape.pads[0] as isize;
                let x = (ox * shape.stride[1] + tap % shape.kernel[1] * shape.dilation[1]) as isize - shape.pads[1] as isize;
                if (0..shape.in_h as isize).contains(&y) && (0..shape.in_w as isize).contains(&x) {
                    let input = (c * shape.in_h + y as usize) * shape.in_w + x as usize;
                    work(input, m * shape.dot_length() + at, (m * out_h + oy) * out_w + ox);
                }
            }
        }
    }
}

fn close(got: &[f32], wanted: &[f64], what: &str) {
    let largest = wanted.iter().fold(1e-6, |largest: f64, value| largest.max(value.abs()));
    for (i, (&got, wanted)) in got.iter().zip(wanted).enumerate() {
        assert!((f64::from(got) - wanted).abs() <= 1e-5 * largest, "{what}, element {i}: {got}, {wanted} expected");
    }
}

fn shapes() -> Vec<ConvShape> {
    let shape = |in_channels, in_h, in_w, out_channels, kernel, stride, dilation, pads, groups| ConvShape {
        in_channels,
        in_h,
        in_w,
        out_channels,
        kernel,
        stride,
        dilation,
        pads,
        groups,
    };
    vec![
        shape(3, 9, 8, 8, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 1),
        shape(5, 9, 11, 6, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], 1),
        shape(8, 4, 4, 12, [1, 1], [1, 1], [1, 1], [0; 4], 1),
        shape(8, 7, 7, 5, [1, 1], [2, 2], [1, 1], [0; 4], 1),
        shape(6, 10, 9, 6, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 6),
        shape(8, 6, 5, 4, [3, 2], [2, 1], [1, 2], [2, 0, 1, 3], 2),
        shape(4, 13, 40, 4, [7, 7], [2, 2], [1, 1], [3, 3, 3, 3], 1),
        shape(4, 12, 12, 4, [4, 4], [4, 4], [1, 1], [0; 4], 1),
        shape(3, 5, 5, 2, [1, 1], [1, 1], [1, 1], [0, 0, 1, 0], 1),
        shape(3, 5, 6, 2, [2, 2], [3, 3], [1, 1], [1, 1, 2, 1], 1),
        shape(30, 1, 1, 14, [1, 1], [1, 1], [1, 1], [0; 4], 1),
        shape(70, 20, 33, 4, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 1),
    ]
}

#[test]
fn forward_and_gradients_are_the_definition_at_every_density() {
    for (index, shape) in shapes().iter().enumerate() {
        for density in [1.0, 0.9, 0.5, 0.1, 0.0] {
            for isa in ISAS.iter().filter_map(|row| row.open()) {
                one(isa, shape, density, &format!("shape {index}, density {density}, {}", isa.name()));
            }
        }
    }
}

fn one(isa: Isa, shape: &ConvShape, density: f32, what: &str) {
    let mut numbers = Numbers(7);
    let (out_h, out_w) = shape.out_size();
    let (input_len, out_len) = (shape.in_channels * shape.in_h * shape.in_w, shape.out_channels * out_h * out_w);
    let count = shape.out_channels * shape.dot_length();
    let mask: Vec<bool> = (0..count).map(|_| numbers.next().abs() < density).collect();
    let weight: Vec<f32> = mask.iter().map(|&kept| if kept { numbers.next() } else { 0.0 }).collect();
    let bias: Vec<f32> = (0..shape.out_channels).map(|_| numbers.next()).collect();
    let (inputs, grads) = (numbers.buffer(2 * input_len * LANES), numbers.buffer(2 * out_len * LANES));
    let mut conv = BatchedConv::new(isa, shape, Some(&mask));
    conv.load(&weight);
    let mut scratch = Scratch::default();

    let (mut out, mut wanted) = (Buffer::zeros(out_len * LANES), vec![0.0; out_len * LANES]);
    wanted.chunks_mut(out_h * out_w * LANES).zip(&bias).for_each(|(plane, &bias)| plane.fill(f64::from(bias)));
    let middle = shape.out_channels / 2 / conv.channel_block() * conv.channel_block();
    for channels in [0..middle, middle..shape.out_channels] {
        let part = &mut out[channels.start * out_h * out_w * LANES..channels.end * out_h * out_w * LANES];
        conv.forward(&inputs[..input_len * LANES], &bias, channels, part, &mut scratch);
    }
    let mut back = vec![0.0; input_len * LANES];
    let mut weights = vec![0.0; count];
    products(shape, |input, place, out| {
        let value = f64::from(weight[place]);
        for lane in 0..LANES {
            let (i, o) = (input * LANES + lane, out * LANES + lane);
            wanted[o] += value * f64::from(inputs[i]);
            back[i] += value * f64::from(grads[o]);
            for chunk in 0..2 {
                let (x, dy) = (inputs[i + chunk * input_len * LANES], grads[o + chunk * out_len * LANES]);
                weights[place] += f64::from(x) * f64::from(dy);
            }
        }
    });
    close(&out, &wanted, &format!("{what}: forward"));

    let mut got = Buffer::zeros(input_len * LANES);
    conv.backward(&grads[..out_len * LANES], 0..shape.in_channels, &mut got, &mut scratch);
    close(&got, &back, &format!("{what}: input gradient"));

    let mut got = vec![0.0; count];
    let (first, second) = got.split_at_mut(middle * shape.dot_length());
    conv.weight_gradient(&inputs, &grads, 0..middle, first, &mut scratch);
    conv.weight_gradient(&inputs, &grads, middle..shape.out_channels, second, &mut scratch);
    let all_computed = conv.computed() == count;
    let wanted: Vec<f64> = weights.iter().zip(&mask).map(|(w, kept)| if *kept || all_computed { *w } else { 0.0 }).collect();
    close(&got, &wanted, &format!("{what}: weight gradient"));
}
