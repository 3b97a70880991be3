//! The functions of one value, as sequences of IEEE operations without branches: comparisons choose between values, so they
//! vectorise.

#[inline(always)]
pub(crate) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

#[inline(always)]
pub(crate) fn leaky_relu(x: f32, slope: f32) -> f32 {
    if x < 0.0 { x * slope } else { x }
}

#[inline(always)]
pub(crate) fn hard_sigmoid(x: f32, slope: f32, offset: f32) -> f32 {
    clamp(x * slope + offset, 0.0, 1.0)
}

#[inline(always)]
pub(crate) fn hard_swish(x: f32) -> f32 {
    x * hard_sigmoid(x, 1.0 / 6.0, 0.5)
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let s = 1.0 / (1.0 + e);
    if x < 0.0 { e * s } else { s }
}

#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// The factor that takes the part of [`gelu`] that is not a line to `[-1, 1]`.
pub(crate) const GELU_SCALE: f32 = 1.0 / 5.5;

/// Coefficients of the polynomial of [`gelu`], the highest first.
pub(crate) const GELU: [f32; 15] = [
    2.938_795_4e-3,
    -7.530_546_3e-3,
    5.698_297_6e-3,
    -6.755_702_7e-3,
    2.321_473e-2,
    -4.221_762e-2,
    5.763_084e-2,
    -8.068_87e-2,
    1.115_668_8e-1,
    -1.436_195_8e-1,
    1.764_521_3e-1,
    -2.133_298_5e-1,
    2.625_533e-1,
    -3.529_486e-1,
    7.070_356_6e-1,
];

/// `x Phi(x)`. With `t = x / 5.5` held to `[-1, 1]`, `Phi(x) = 1/2 + t p(2 t^2 - 1)`; `p` is fitted to that on `[-1, 1]` so that
/// `p(1) = 1/2` holds exactly, and so Phi is 0 and 1 outside.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let t = clamp(x * GELU_SCALE, -1.0, 1.0);
    let u = (t + t).mul_add(t, -1.0);
    let p = GELU[1..].iter().fold(GELU[0], |p, &c| p.mul_add(u, c));
    x * t.mul_add(p, 0.5)
}

/// `x / (1 + exp(-2 s))` with `s = sqrt(2 / pi) (x + 0.044715 x^3)`.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    /// `2 sqrt(2 / pi)`, and 0.044715 times that.
    const S: [f32; 2] = [1.595_769_2, 7.135_481_4e-2];
    x * sigmoid(x * (x * x).mul_add(S[1], S[0]))
}

/// `exp(x)` for `x` from -87 to 0; below, `exp(-87)`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    normal_exp(if x < -87.0 { -87.0 } else { x })
}

/// `exp(x)` for `x` from -87 to 0; below, exactly 0.
#[inline(always)]
pub(crate) fn exp_or_zero(x: f32) -> f32 {
    let e = normal_exp(x);
    if x < -87.0 { 0.0 } else { e }
}

/// `exp(x)` for `x` from -87 to 0, with a relative error below `2^-23`.
///
/// `x = n ln 2 + f` with `|f| <= ln 2 / 2`, and `exp(f) = 1 + f + f^2 q(f)`.
#[inline(always)]
fn normal_exp(x: f32) -> f32 {
    /// Adding this to an f32 of magnitude below 2^22 rounds it to an integer, ties to even, in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2, in 12 bits, and the rest.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const Q: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let f = (-n).mul_add(LN_2[1], (-n).mul_add(LN_2[0], x));
    let q = Q[1..].iter().fold(Q[0], |q, &c| q.mul_add(f, c));
    let small = q.mul_add(f * f, f) + 1.0;
    // 2^n: the low bits of `rounded` are n.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    small * power
}
