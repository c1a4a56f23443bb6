//! Reference implementations: plain loops that specify every kernel. Only tests use them.

use crate::ConvShape;

/// `out[m, p] = bias[m] + sum_k w[m, k] * x[k, p]`: grouped, strided, dilated convolution of one image.
///
/// `input: [C, H, W]`, `weight: [M, C / groups, kh, kw]`, `bias: [M]` or empty, result `[M, OH, OW]`.
pub fn conv2d(shape: &ConvShape, input: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let (out_h, out_w) = shape.out_size();
    let (group_in, group_out) = (shape.group_in(), shape.group_out());
    let [kh, kw] = shape.kernel;
    let mut out = Vec::with_capacity(shape.out_channels * out_h * out_w);
    for m in 0..shape.out_channels {
        let first_channel = m / group_out * group_in;
        for oy in 0..out_h {
            for ox in 0..out_w {
                let mut sum = 0.0f64;
                for c in 0..group_in {
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let y = (oy * shape.stride[0] + ky * shape.dilation[0]) as isize - shape.pads[0] as isize;
                            let x = (ox * shape.stride[1] + kx * shape.dilation[1]) as isize - shape.pads[1] as isize;
                            if y < 0 || x < 0 || y >= shape.in_h as isize || x >= shape.in_w as isize {
                                continue;
                            }
                            let at = ((first_channel + c) * shape.in_h + y as usize) * shape.in_w + x as usize;
                            let w = weight[((m * group_in + c) * kh + ky) * kw + kx];
                            sum += f64::from(input[at]) * f64::from(w);
                        }
                    }
                }
                out.push(sum as f32 + bias.get(m).copied().unwrap_or(0.0));
            }
        }
    }
    out
}

/// The gradients of [`conv2d`] with respect to its input and its weight, given that of its output.
pub fn conv2d_backward(shape: &ConvShape, input: &[f32], weight: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (out_h, out_w) = shape.out_size();
    let (group_in, group_out) = (shape.group_in(), shape.group_out());
    let [kh, kw] = shape.kernel;
    let (mut input_grad, mut weight_grad) = (vec![0.0f64; input.len()], vec![0.0f64; weight.len()]);
    for m in 0..shape.out_channels {
        for (oy, ox) in (0..out_h).flat_map(|oy| (0..out_w).map(move |ox| (oy, ox))) {
            let g = f64::from(grad[(m * out_h + oy) * out_w + ox]);
            for c in 0..group_in {
                for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                    let y = (oy * shape.stride[0] + ky * shape.dilation[0]) as isize - shape.pads[0] as isize;
                    let x = (ox * shape.stride[1] + kx * shape.dilation[1]) as isize - shape.pads[1] as isize;
                    if y < 0 || x < 0 || y >= shape.in_h as isize || x >= shape.in_w as isize {
                        continue;
                    }
                    let at = ((m / group_out * group_in + c) * shape.in_h + y as usize) * shape.in_w + x as usize;
                    let w = ((m * group_in + c) * kh + ky) * kw + kx;
                    input_grad[at] += g * f64::from(weight[w]);
                    weight_grad[w] += g * f64::from(input[at]);
                }
            }
        }
    }
    let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
    (narrow(input_grad), narrow(weight_grad))
}

/// `out[r, m] = bias[m] + sum_k x[r, k] * w[m, k]`, result `[rows, M]`.
pub fn linear(rows: usize, inputs: usize, outputs: usize, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * outputs);
    for r in 0..rows {
        for m in 0..outputs {
            let sum: f64 = (0..inputs).map(|k| f64::from(x[r * inputs + k]) * f64::from(w[m * inputs + k])).sum();
            out.push(sum as f32 + bias.get(m).copied().unwrap_or(0.0));
        }
    }
    out
}
