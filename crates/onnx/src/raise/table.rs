//! The operators that can be carried from opset 7 to opset 25, and what each of them needs.

use super::edit::Edit;
use super::{inputs, norm, resize, softmax};

/// What an operator needs on its way to a newer opset.
pub(super) enum Rule {
    /// Nothing: its schema only gained element types, or attributes and inputs whose absence means what it meant.
    Same,
    /// Rewriting.
    Rewrite(Rewrite),
}

/// Carries one node over, or says why that cannot be done.
type Rewrite = fn(&mut Edit<'_>) -> Result<(), String>;

/// What `op_type` needs; `None` for an operator that is not known.
pub(super) fn rule(op_type: &str) -> Option<Rule> {
    rewriting(op_type).map(Rule::Rewrite).or_else(|| is_same(op_type).then_some(Rule::Same))
}

fn rewriting(op_type: &str) -> Option<Rewrite> {
    Some(match op_type {
        "BatchNormalization" => norm::batch_normalization,
        "Clip" => inputs::clip,
        "DFT" => inputs::dft,
        "Dropout" => norm::dropout,
        "GridSample" => resize::grid_sample,
        "GlobalLpPool" | "MaxRoiPool" | "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" => {
            below_22
        }
        "GroupNormalization" => norm::group_normalization,
        "Hardmax" | "LogSoftmax" | "Softmax" => softmax::softmax,
        "Pad" => inputs::pad,
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSumSquare" => inputs::reduce,
        "ReduceSum" => inputs::reduce_sum,
        "Resize" => resize::resize,
        "RoiAlign" => resize::roi_align,
        "Scan" => scan,
        "Scatter" => scatter,
        "Slice" => inputs::slice,
        "Split" => inputs::split,
        "Squeeze" => inputs::squeeze,
        "TopK" => inputs::top_k,
        "Unsqueeze" => inputs::unsqueeze,
        "Upsample" => resize::upsample,
        _ => return None,
    })
}

fn is_same(op_type: &str) -> bool {
    SAME.iter().any(|names| names.split_whitespace().any(|name| name == op_type))
}

/// The operators that need nothing: element-wise, on tensors, layers, signals, control and sequences.
pub(super) const SAME: [&str; 5] = [
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
     Celu Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu
     Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign
     Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor",
    "AffineGrid ArgMax ArgMin CenterCropPad Col2Im Compress Concat Constant ConstantOfShape CumSum DepthToSpace Det
     Expand EyeLike Flatten Gather GatherElements GatherND Identity NonMaxSuppression NonZero OneHot Range Reshape
     ReverseSequence ScatterElements ScatterND Shape Size SpaceToDepth TensorScatter Tile Transpose Trilu Unique",
    "Attention AveragePool Conv ConvInteger ConvTranspose DeformConv DequantizeLinear DynamicQuantizeLinear Einsum GRU
     Gemm GlobalAveragePool GlobalMaxPool InstanceNormalization LRN LSTM LayerNormalization LpNormalization LpPool
     MatMul MatMulInteger MaxPool MaxUnpool MeanVarianceNormalization QLinearConv QLinearMatMul QuantizeLinear
     RMSNormalization RNN RotaryEmbedding",
    "BlackmanWindow HammingWindow HannWindow MelWeightMatrix STFT",
    "ConcatFromSequence If Loop Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct
     SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence",
];

/// Opset 9 removed the batch dimension and the lengths.
fn scan(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(9) { Err("opset 9 took the batch dimension out of Scan".into()) } else { Ok(()) }
}

/// Opset 22 gave it further element types, and ONNX Runtime has no kernel for that version of it.
pub(super) fn below_22(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(22) { Err("ONNX Runtime does not implement opset 22 of it".into()) } else { Ok(()) }
}

/// Opset 11 renamed the operator.
fn scatter(edit: &mut Edit<'_>) -> Result<(), String> {
    edit.node.op_type = Some("ScatterElements".into());
    Ok(())
}
