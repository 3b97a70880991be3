//! What the commands do, for programs that are no command line: the flags are those of the command line, and mean the same.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches, Parser};

use crate::args::{Common, Precisions, Quantize, one_line};

#[derive(Debug, Parser)]
#[command(name = "fpxint")]
struct Parsed<T: Args> {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    own: T,
}

#[derive(Debug, Args)]
struct Load {
    model: PathBuf,
    #[command(flatten)]
    precisions: Precisions,
}

fn parsed<T: Args + FromArgMatches>(model: &Path, flags: Vec<OsString>) -> Result<(Common, T), String> {
    let program = [OsString::from("fpxint")].into_iter();
    let line = program.chain(flags).chain(["--".into(), model.into()]);
    let Parsed { mut common, own } = Parsed::<T>::try_parse_from(line).map_err(|error| one_line(&error))?;
    common.quiet = true;
    Ok((common, own))
}

/// What `fpxint quantize` takes, from its flags and what messages call the model. Nothing is printed.
///
/// # Errors
/// What is wrong with the flags, on one line.
pub fn quantize(model: &Path, flags: Vec<OsString>) -> Result<(Common, Quantize), String> {
    parsed(model, flags)
}

/// What commands take that run a model.
///
/// # Errors
/// What is wrong with the flags, on one line.
pub fn load(model: &Path, flags: Vec<OsString>) -> Result<(Common, Precisions), String> {
    let (common, load) = parsed::<Load>(model, flags)?;
    Ok((common, load.precisions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(texts: &[&str]) -> Vec<OsString> {
        texts.iter().map(OsString::from).collect()
    }

    #[test]
    fn flags_mean_what_they_mean_to_the_command() {
        let (common, quantize) =
            quantize(Path::new("-m.onnx"), flags(&["--weights=int4x3", "--threads=3", "--max-nodes=7", "-o=-x"]))
                .unwrap();
        assert_eq!((common.threads(), common.quiet, common.limits().max_nodes), (3, true, 7));
        assert_eq!((quantize.model.to_str(), quantize.output.unwrap().to_str()), (Some("-m.onnx"), Some("-x")));
        assert_eq!(quantize.weights.unwrap().to_string(), "int4x3");
        let (_, precisions) = load(Path::new("m.onnx"), flags(&["--weight-terms=2"])).unwrap();
        assert_eq!(precisions.weight_terms, Some(2));
    }

    #[test]
    fn what_is_wrong_fits_one_line() {
        for (wrong, word) in [
            (vec!["--weights=int9x1"], "int9x1"),
            (vec!["--tolerance=0.1", "--target-products=2"], "cannot be used with"),
            (vec!["--max-nesting=101"], "101"),
            (vec!["--nonsense"], "--nonsense"),
        ] {
            let told = load(Path::new("m.onnx"), flags(&wrong)).unwrap_err();
            assert!(told.contains(word) && !told.contains('\n'), "{told}");
        }
        assert!(quantize(Path::new("m"), flags(&[])).unwrap_err().contains("--output"));
    }
}
