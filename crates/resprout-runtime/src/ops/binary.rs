//! Two operands with broadcasting.

use super::unary::truth;
use crate::error::{Error, Result};
use crate::tensor::{Array, strides};

/// An operation on two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The larger one; NaN if one of them is NaN.
    Max,
    /// The smaller one; NaN if one of them is NaN.
    Min,
    /// `a` to the power of `b`
    Pow,
    /// `a < 0 ? a * b : a`
    PRelu,
    /// The sum, by the number of operands.
    Mean,
    /// The remainder of a division.
    Mod {
        /// Whether it has the dividend's sign rather than the divisor's.
        like_dividend: bool,
    },
    /// 1 if the comparison holds, 0 if not.
    Compare(Comparison),
}

/// A comparison, or an operation on truth values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its relation")]
pub enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

/// All operations but Mod by their name in ONNX.
const NAMES: [(&str, BinaryOp); 17] = [
    ("Add", BinaryOp::Add),
    ("Sub", BinaryOp::Sub),
    ("Mul", BinaryOp::Mul),
    ("Div", BinaryOp::Div),
    ("Max", BinaryOp::Max),
    ("Min", BinaryOp::Min),
    ("Pow", BinaryOp::Pow),
    ("PRelu", BinaryOp::PRelu),
    ("Mean", BinaryOp::Mean),
    ("Equal", BinaryOp::Compare(Comparison::Equal)),
    ("Less", BinaryOp::Compare(Comparison::Less)),
    ("LessOrEqual", BinaryOp::Compare(Comparison::LessOrEqual)),
    ("Greater", BinaryOp::Compare(Comparison::Greater)),
    ("GreaterOrEqual", BinaryOp::Compare(Comparison::GreaterOrEqual)),
    ("And", BinaryOp::Compare(Comparison::And)),
    ("Or", BinaryOp::Compare(Comparison::Or)),
    ("Xor", BinaryOp::Compare(Comparison::Xor)),
];

impl BinaryOp {
    /// The operation of that name in ONNX.
    pub(super) fn named(name: &str) -> Option<BinaryOp> {
        match name {
            "Sum" => Some(BinaryOp::Add),
            _ => NAMES.iter().find(|row| row.0 == name).map(|row| row.1),
        }
    }

    /// The operation's name in ONNX.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|row| row.1 == self).map_or("Mod", |row| row.0)
    }

    /// Computes into `out`, which has the broadcast shape.
    pub fn run_f32(self, a: &Array<f32>, b: &Array<f32>, out: &mut Array<f32>) {
        match self {
            BinaryOp::Add | BinaryOp::Mean => broadcast(a, b, out, |x, y| x + y),
            BinaryOp::Sub => broadcast(a, b, out, |x, y| x - y),
            BinaryOp::Mul => broadcast(a, b, out, |x, y| x * y),
            BinaryOp::Div => broadcast(a, b, out, |x, y| x / y),
            BinaryOp::Max => broadcast(a, b, out, larger),
            BinaryOp::Min => broadcast(a, b, out, smaller),
            BinaryOp::Pow => broadcast(a, b, out, power),
            BinaryOp::PRelu => broadcast(a, b, out, |x, y| if x < 0.0 { x * y } else { x }),
            BinaryOp::Mod { like_dividend } => broadcast(a, b, out, |x, y| remainder(x, y, like_dividend)),
            BinaryOp::Compare(op) => broadcast(a, b, out, |x, y| truth(op.holds(x, y, 0.0))),
        }
    }

    /// `a[i] = a[i] op b[i]` for operands of the same shape.
    pub fn run_in_place(self, a: &mut [f32], b: &[f32]) {
        let pairs = a.iter_mut().zip(b);
        match self {
            BinaryOp::Add | BinaryOp::Mean => pairs.for_each(|(x, y)| *x += y),
            BinaryOp::Sub => pairs.for_each(|(x, y)| *x -= y),
            BinaryOp::Mul => pairs.for_each(|(x, y)| *x *= y),
            BinaryOp::Div => pairs.for_each(|(x, y)| *x /= y),
            BinaryOp::Max => pairs.for_each(|(x, y)| *x = larger(*x, *y)),
            BinaryOp::Min => pairs.for_each(|(x, y)| *x = smaller(*x, *y)),
            BinaryOp::Pow => pairs.for_each(|(x, y)| *x = power(*x, *y)),
            BinaryOp::PRelu => pairs.for_each(|(x, y)| *x = if *x < 0.0 { *x * y } else { *x }),
            BinaryOp::Mod { like_dividend } => pairs.for_each(|(x, y)| *x = remainder(*x, *y, like_dividend)),
            BinaryOp::Compare(op) => pairs.for_each(|(x, y)| *x = truth(op.holds(*x, *y, 0.0))),
        }
    }

    /// The same for integers. Division by zero is an error, overflow wraps.
    pub fn run_i64(self, a: &Array<i64>, b: &Array<i64>) -> Result<Array<i64>> {
        if matches!(self, BinaryOp::Div | BinaryOp::Mod { .. }) && b.data.contains(&0) {
            return Err(Error::data("a shape computation divides by zero"));
        }
        let shape = broadcast_shape(&a.shape, &b.shape)?;
        let mut out = Array { data: vec![0; crate::tensor::value_count(&shape)?], shape };
        broadcast(a, b, &mut out, |x: i64, y: i64| match self {
            BinaryOp::Add | BinaryOp::Mean => x.wrapping_add(y),
            BinaryOp::Sub => x.wrapping_sub(y),
            BinaryOp::Mul => x.wrapping_mul(y),
            BinaryOp::Div => x.wrapping_div(y),
            BinaryOp::Max => x.max(y),
            BinaryOp::Min => x.min(y),
            BinaryOp::Pow => u32::try_from(y).map_or_else(|_| (x as f64).powf(y as f64) as i64, |y| x.wrapping_pow(y)),
            BinaryOp::PRelu => x.min(0).wrapping_mul(y).wrapping_add(x.max(0)),
            BinaryOp::Mod { like_dividend } => {
                let rest = x.wrapping_rem(y);
                if !like_dividend && rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
            }
            BinaryOp::Compare(op) => i64::from(op.holds(x, y, 0)),
        });
        Ok(out)
    }
}

impl Comparison {
    fn holds<T: PartialOrd + Copy>(self, x: T, y: T, zero: T) -> bool {
        match self {
            Comparison::Equal => x == y,
            Comparison::Less => x < y,
            Comparison::LessOrEqual => x <= y,
            Comparison::Greater => x > y,
            Comparison::GreaterOrEqual => x >= y,
            Comparison::And => x != zero && y != zero,
            Comparison::Or => x != zero || y != zero,
            Comparison::Xor => (x != zero) != (y != zero),
        }
    }
}

fn larger(x: f32, y: f32) -> f32 {
    if x > y || x.is_nan() { x } else { y }
}

fn smaller(x: f32, y: f32) -> f32 {
    if x < y || x.is_nan() { x } else { y }
}

fn power(x: f32, y: f32) -> f32 {
    if y == 2.0 { x * x } else { x.powf(y) }
}

fn remainder(x: f32, y: f32, like_dividend: bool) -> f32 {
    let rest = x % y;
    if !like_dividend && rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
}

/// The shape to which two operands are broadcast, by NumPy's rules.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(Error::data(format!("shapes {a:?} and {b:?} do not fit together"))),
        })
        .collect()
}

/// Strides of an operand in the broadcast shape: 0 along repeated axes.
fn broadcast_strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let skipped = out.len() - shape.len();
    (0..out.len()).map(|axis| if axis < skipped || shape[axis - skipped] == 1 { 0 } else { own[axis - skipped] }).collect()
}

fn broadcast<T: Copy>(a: &Array<T>, b: &Array<T>, out: &mut Array<T>, op: impl Fn(T, T) -> T + Copy) {
    if a.shape == out.shape && b.shape == out.shape {
        let pairs = a.data.iter().zip(&b.data);
        out.data.iter_mut().zip(pairs).for_each(|(o, (&x, &y))| *o = op(x, y));
        return;
    }
    if out.data.is_empty() {
        return;
    }
    let Some(&inner) = out.shape.last() else {
        out.data[0] = op(a.data[0], b.data[0]);
        return;
    };
    let (steps_a, steps_b) = (broadcast_strides(&a.shape, &out.shape), broadcast_strides(&b.shape, &out.shape));
    let last = out.shape.len() - 1;
    let mut index = vec![0usize; last];
    for row in out.data.chunks_exact_mut(inner) {
        let start = |steps: &[usize]| index.iter().zip(steps).map(|(i, s)| i * s).sum::<usize>();
        let (at_a, at_b) = (start(&steps_a), start(&steps_b));
        match (steps_a[last], steps_b[last]) {
            (1, 1) => {
                let pairs = a.data[at_a..].iter().zip(&b.data[at_b..]);
                row.iter_mut().zip(pairs).for_each(|(o, (&x, &y))| *o = op(x, y));
            }
            (1, 0) => row.iter_mut().zip(&a.data[at_a..]).for_each(|(o, &x)| *o = op(x, b.data[at_b])),
            (0, 1) => row.iter_mut().zip(&b.data[at_b..]).for_each(|(o, &y)| *o = op(a.data[at_a], y)),
            _ => row.fill(op(a.data[at_a], b.data[at_b])),
        }
        advance(&mut index, &out.shape[..last]);
    }
}

/// Repeats `a` along axes of length 1 and in front, into `out`.
pub(super) fn expand<T: Copy>(a: &Array<T>, out: &mut Array<T>) {
    broadcast(a, a, out, |x, _| x);
}

/// As [`expand`], into a new array. `a` must broadcast to `shape`.
pub(super) fn expanded<T: Copy>(a: &Array<T>, shape: &[usize]) -> Result<Array<T>> {
    let Some(&any) = a.data.first() else { return Ok(Array::new(shape.to_vec(), Vec::new())) };
    let mut out = Array { data: vec![any; crate::tensor::value_count(shape)?], shape: shape.to_vec() };
    expand(a, &mut out);
    Ok(out)
}

/// Increments an index by one element, last axis first.
pub(crate) fn advance(index: &mut [usize], shape: &[usize]) {
    for axis in (0..index.len()).rev() {
        index[axis] += 1;
        if index[axis] < shape[axis] {
            return;
        }
        index[axis] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_like_numpy() {
        let a = Array::new(vec![2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let b = Array::new(vec![3, 1], vec![10.0, 20.0, 30.0]);
        let mut out = Array::new(broadcast_shape(&a.shape, &b.shape).unwrap(), vec![0.0; 12]);
        BinaryOp::Add.run_f32(&a, &b, &mut out);
        assert_eq!(out.data, [11.0, 12.0, 21.0, 22.0, 31.0, 32.0, 13.0, 14.0, 23.0, 24.0, 33.0, 34.0]);
        assert!(broadcast_shape(&[2], &[3]).is_err());
    }

    #[test]
    fn integers_do_not_panic() {
        let one = |v: i64| Array::new(vec![], vec![v]);
        assert!(BinaryOp::Div.run_i64(&one(1), &one(0)).is_err());
        assert_eq!(BinaryOp::Div.run_i64(&one(i64::MIN), &one(-1)).unwrap().data, [i64::MIN]);
        assert_eq!(BinaryOp::Div.run_i64(&one(-7), &one(2)).unwrap().data, [-3], "truncates towards zero");
        assert!(BinaryOp::Mod { like_dividend: false }.run_i64(&one(1), &one(0)).is_err());
    }

    #[test]
    fn remainders_have_a_sign() {
        let (a, b) = (Array::vector(vec![-7, 7, -7]), Array::vector(vec![3, -3, -3]));
        let rest = |like_dividend| BinaryOp::Mod { like_dividend }.run_i64(&a, &b).unwrap().data;
        assert_eq!(rest(false), [2, -2, -1]);
        assert_eq!(rest(true), [-1, 1, -1]);
        assert_eq!((remainder(-7.0, 3.0, false), remainder(-7.0, 3.0, true)), (2.0, -1.0));
    }

    #[test]
    fn every_operation_has_the_name_it_is_read_by() {
        for (name, op) in NAMES {
            assert_eq!((BinaryOp::named(name), op.name()), (Some(op), name));
        }
    }
}
