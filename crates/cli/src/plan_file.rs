//! Plans as TOML files: precisions layer by layer.
//!
//! ```toml
//! version = 1
//! bias_correction = true
//! rotation = "none"
//! default = { weights = "int4x2", activations = "int4x2", rounding = "sum", clip = "none", activation_clip = "none" }
//!
//! [layers]
//! "Conv_1" = { weights = "int4x3", activations = "int4x2", activation_clip = "laplace" }
//! ```
//!
//! `bias_correction`, `rotation`, `rounding`, `clip` and `activation_clip` may be left out; a layer's are then those of `default`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use fpxint::{ActivationClip, Clip, LayerPrecision, Plan, Precision, Rounding};
use serde::{Deserialize, Deserializer, de};

/// Version of the form of the file.
const VERSION: u32 = 1;

/// Longest part of an error that is shown, in characters.
const MOST_SHOWN: usize = 300;

/// Longest file that is read, in bytes.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    bias_correction: bool,
    #[serde(default, deserialize_with = "rotation")]
    rotation: bool,
    default: Entry,
    #[serde(default)]
    layers: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(deserialize_with = "precision")]
    weights: Precision,
    #[serde(deserialize_with = "precision")]
    activations: Precision,
    #[serde(default, deserialize_with = "rounding")]
    rounding: Option<Rounding>,
    #[serde(default, deserialize_with = "clip")]
    clip: Option<Clip>,
    #[serde(default, deserialize_with = "symmetry")]
    symmetry: Option<bool>,
    #[serde(default, deserialize_with = "activation_clip")]
    activation_clip: Option<ActivationClip>,
}

fn precision<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

fn rounding<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rounding>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let named = Rounding::named(&text);
    named.map(Some).ok_or_else(|| de::Error::custom(format!("`{text}` is not nearest or sum")))
}

fn clip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Clip>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let named = Clip::named(&text);
    named.map(Some).ok_or_else(|| de::Error::custom(format!("`{text}` is not none, laplace or mse")))
}

/// Whether weights are asymmetric.
fn symmetry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::values::symmetry(&text).map(Some).map_err(|what| de::Error::custom(format!("`{text}` {what}")))
}

/// Whether what enters matrix products is rotated.
fn rotation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::values::rotation(&text).map_err(|what| de::Error::custom(format!("`{text}` {what}")))
}

fn activation_clip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ActivationClip>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let named = ActivationClip::named(&text);
    named.map(Some).ok_or_else(|| de::Error::custom(format!("`{text}` is not none or laplace")))
}

impl Entry {
    /// What it says of a layer; what it leaves out is as in `otherwise`.
    fn precision(self, otherwise: LayerPrecision) -> LayerPrecision {
        LayerPrecision {
            weights: self.weights,
            activations: self.activations,
            rounding: self.rounding.unwrap_or(otherwise.rounding),
            clip: self.clip.unwrap_or(otherwise.clip),
            asymmetric: self.symmetry.unwrap_or(otherwise.asymmetric),
            activation_clip: self.activation_clip.unwrap_or(otherwise.activation_clip),
        }
    }
}

/// The plan in a file, which must list no layer but those of `names`; `None` where there is no such file. Rounding and clip that
/// it does not state are as in `otherwise`.
pub(crate) fn read(path: &Path, names: &[&str], otherwise: LayerPrecision) -> Result<Option<Plan>> {
    let file = path.display();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => bail!("{file}: {error}"),
        Ok(there) => {
            ensure!(there.is_file(), "{file}: is no file");
            ensure!(there.len() <= MOST_BYTES, "{file}: is too large for a plan");
        }
    }
    let text = std::fs::read_to_string(path).with_context(|| file.to_string())?;
    let plan = parse(&text, otherwise).with_context(|| file.to_string())?;
    if let Some(name) = plan.unknown(names) {
        bail!("{file}: the model has no layer `{}`", name.escape_debug());
    }
    Ok(Some(plan))
}

/// The plan that a text holds.
///
/// # Errors
/// What is wrong, with its line.
pub fn parse(text: &str, otherwise: LayerPrecision) -> Result<Plan> {
    let File { version, bias_correction, rotation, default, layers } = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let words = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        anyhow!("line {line}: {}", shown(&words))
    })?;
    ensure!(
        version == VERSION,
        "a plan of version {version} is not one of version {VERSION}, which is what is read here"
    );
    let default = default.precision(otherwise);
    let layers = layers.into_iter().map(|(name, entry)| (name, entry.precision(default)));
    Ok(Plan { default, layers: layers.collect(), corrected: bias_correction, rotated: rotation })
}

/// What may quote the file: without control characters, cut where it is long.
fn shown(text: &str) -> String {
    text.chars().take(MOST_SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Writes a plan to a file that is not there yet, its layers in the order of `names`; `remark` explains it.
pub(crate) fn write(path: &Path, plan: &Plan, names: &[&str], remark: &str) -> Result<()> {
    let file = || format!("cannot write {}", path.display());
    let mut made = std::fs::File::create_new(path).with_context(file)?;
    io::Write::write_all(&mut made, text(plan, names, remark).as_bytes()).with_context(file)
}

/// A plan as a text, its layers in the order of `names`; `remark` explains it.
pub fn text(plan: &Plan, names: &[&str], remark: &str) -> String {
    let LayerPrecision { rounding, clip, asymmetric, activation_clip, .. } = plan.default;
    let symmetry = |asymmetric| if asymmetric { "asymmetric" } else { "symmetric" };
    let pair = |p: LayerPrecision| format!("weights = \"{}\", activations = \"{}\"", p.weights, p.activations);
    let entry = |p: LayerPrecision| {
        let mut text = pair(p);
        if p.rounding != rounding {
            let _ = write!(text, ", rounding = \"{}\"", p.rounding);
        }
        if p.clip != clip {
            let _ = write!(text, ", clip = \"{}\"", p.clip);
        }
        if p.asymmetric != asymmetric {
            let _ = write!(text, ", symmetry = \"{}\"", symmetry(p.asymmetric));
        }
        if p.activation_clip != activation_clip {
            let _ = write!(text, ", activation_clip = \"{}\"", p.activation_clip.name());
        }
        text
    };
    let rotation = if plan.rotated { "hadamard" } else { "none" };
    let mut text = format!("# {remark}\nversion = {VERSION}\nbias_correction = {}\n", plan.corrected);
    let _ = writeln!(text, "rotation = \"{rotation}\"");
    let default = pair(plan.default);
    let grid = format!("clip = \"{clip}\", symmetry = \"{}\"", symmetry(asymmetric));
    let method = format!("rounding = \"{rounding}\", {grid}, activation_clip = \"{}\"", activation_clip.name());
    let _ = write!(text, "default = {{ {default}, {method} }}\n\n[layers]\n");
    let listed = names.iter().filter_map(|name| plan.layers.get_key_value(*name));
    for (name, &precision) in listed {
        let _ = writeln!(text, "{} = {{ {} }}", quoted(name), entry(precision));
    }
    text
}

/// A name as a key of TOML, on one line.
fn quoted(name: &str) -> String {
    let mut text = String::from('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => _ = write!(text, "\\u{:04X}", u32::from(c)),
            c => text.push(c),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = 1\ndefault = { weights = \"int4x2\", activations = \"int4x2\" }\n";

    fn pair(weights: &str, activations: &str) -> LayerPrecision {
        LayerPrecision::plain(weights.parse().unwrap(), activations.parse().unwrap())
    }

    #[test]
    fn a_plan_comes_back_as_it_was() {
        let names = [
            "b",
            "a.weight",
            "with \"quotes\" and \\",
            "/x/y_1",
            "tab\t",
            "two\nlines",
            "\u{7f}\n\u{85}",
            "Ünï",
            "'single'",
            "",
        ];
        let activation_clip = ActivationClip::Laplace;
        let other =
            LayerPrecision { rounding: Rounding::Sum, clip: Clip::Mse, activation_clip, ..pair("int2x1", "int8x2") };
        let choices = [pair("int4x3", "int4x2"), other];
        let layers = names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), choices[i % 2]));
        let default = LayerPrecision { clip: Clip::Laplace, ..pair("int4x2", "int4x3") };
        let plan = Plan { default, layers: layers.collect(), corrected: true, rotated: true };
        let text = text(&plan, &names, "a remark");
        assert_eq!(parse(&text, other).unwrap_or_else(|e| panic!("{e:#} in\n{text}")), plan);
        assert!(text.find("\"b\"") < text.find("a.weight"), "in the order of the names: {text}");
    }

    #[test]
    fn what_is_left_out_is_as_in_the_default_entry_or_as_asked() {
        let asked = LayerPrecision { rounding: Rounding::Sum, clip: Clip::Mse, ..pair("int2x1", "int2x1") };
        let layers = "[layers]\na = { weights = \"int4x3\", activations = \"int4x2\", clip = \"none\" }\n";
        let plan = parse(&format!("{GOOD}{layers}"), asked).unwrap();
        assert_eq!(
            plan.default,
            LayerPrecision { rounding: Rounding::Sum, clip: Clip::Mse, ..pair("int4x2", "int4x2") }
        );
        assert_eq!(plan.of("a"), LayerPrecision { rounding: Rounding::Sum, ..pair("int4x3", "int4x2") });
        assert!(!plan.corrected && !plan.rotated);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let layers = |lines: &str| format!("{GOOD}[layers]\n{lines}");
        for (text, words) in [
            (String::new(), &["line 1", "version"][..]),
            ("version = 1\n".to_owned(), &["default"]),
            (GOOD.replace("version = 1", "version = 2"), &["version 2"]),
            (GOOD.replace("version = 1", "version = \"1\""), &["line 1"]),
            (format!("{GOOD}layer = 1\n"), &["line 3", "layer"]),
            (layers("a = { weights = \"int4x2\" }"), &["line 4", "activations"]),
            (layers("a = { weights = \"int4\", activations = \"int4x2\" }"), &["line 4", "`int4`"]),
            (layers("a = { weights = \"int9x1\", activations = \"int4x2\" }"), &["line 4", "2 to 8 bits"]),
            (
                layers("a = { weights = \"int4x2\", activations = \"int4x2\", activation_clip = \"mse\" }"),
                &["line 4", "mse"],
            ),
            (layers("\na = { weights = \"int4x2\", activations = 8 }"), &["line 5", "string"]),
            (layers("a = { weights = \"int4x2\", activations = \"int4x2\", x = 1 }"), &["line 4", "x"]),
            (layers(&"a = { weights = \"int4x2\", activations = \"int4x2\" }\n".repeat(2)), &["line 5", "duplicate"]),
            (layers("a = { weights = \"int4x2\", activations = \"int4x2\", clip = \"x\" }"), &["line 4", "laplace"]),
            (layers("a = { weights = \"int4x2\", activations = \"int4x2\", rounding = 1 }"), &["line 4", "string"]),
            (format!("{GOOD}rotation = \"givens\"\n"), &["line 3", "hadamard"]),
            (format!("{GOOD}rotation = true\n"), &["line 3", "string"]),
            (layers("a = {"), &["line 4"]),
            (layers("a"), &["line 4"]),
        ] {
            let told = format!("{:#}", parse(&text, pair("int4x2", "int4x2")).expect_err(&text));
            assert!(words.iter().all(|word| told.contains(word)) && !told.contains('\n'), "{words:?}: {told}");
        }
    }
}
