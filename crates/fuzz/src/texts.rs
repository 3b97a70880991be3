//! Texts: plans in TOML, and precisions.

use fpxint::{ActivationClip, Clip, Error, LayerPrecision, Precision, Rounding};
use fpxint_cli::{args, plan_file};

use crate::told;

/// Plans: what is read is written, and read back the same.
pub fn plan(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let otherwise = LayerPrecision {
        weights: "int4x2".parse().expect("a precision"),
        activations: "int4x2".parse().expect("a precision"),
        rounding: Rounding::Nearest,
        clip: Clip::None,
        asymmetric: false,
        activation_clip: ActivationClip::None,
    };
    let plan = match plan_file::parse(&text, otherwise) {
        Ok(plan) => plan,
        Err(error) => return told(&format!("{error:#}")),
    };
    let names: Vec<&str> = plan.layers.keys().map(String::as_str).collect();
    let written = plan_file::text(&plan, &names, "a remark");
    let again = plan_file::parse(&written, otherwise).unwrap_or_else(|error| panic!("{error:#} in\n{written}"));
    assert_eq!(again, plan);
}

/// The grammar of precisions: what is taken is printed as it was, but for leading zeros, and is within its limits.
pub fn precision(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let taken = text.parse::<Precision>();
    let as_flag = args::format(&text);
    match taken {
        Ok(precision) => {
            let (bits, order) = (precision.bits(), precision.order());
            assert!((2..=8).contains(&bits) && (1..=16).contains(&order) && precision.total_bits() <= 32);
            assert_eq!(precision.to_string(), format!("int{bits}x{order}"));
            assert_eq!(precision.to_string().parse(), Ok(precision));
            assert_eq!(as_flag, Ok(args::Format::Int(precision)));
            assert!(precision.q_max() < 1 << 31 && precision.code_max() == precision.q_max() + precision.centre());
        }
        Err(error) => {
            assert!(matches!(error, Error::Syntax(_) | Error::Precision { .. }));
            let fp32 = text == "fp32";
            assert_eq!(as_flag.is_ok(), fp32);
            told(&error.to_string());
        }
    }
}
