//! Plans as TOML files: precisions layer by layer.
//!
//! ```toml
//! version = 1
//! default = { weights = "int4x2", activations = "int4x2" }
//!
//! [layers]
//! "Conv_1" = { weights = "int4x3", activations = "int4x2" }
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use fpxint::{LayerPrecision, Plan, Precision};
use serde::{Deserialize, Deserializer, de};

/// Version of the form of the file.
const VERSION: u32 = 1;

/// Longest file that is read, in bytes.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    default: Pair,
    #[serde(default)]
    layers: BTreeMap<String, Pair>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    #[serde(deserialize_with = "precision")]
    weights: Precision,
    #[serde(deserialize_with = "precision")]
    activations: Precision,
}

fn precision<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

impl From<Pair> for LayerPrecision {
    fn from(Pair { weights, activations }: Pair) -> Self {
        Self { weights, activations }
    }
}

/// The plan in a file, which must list no layer but those of `names`; `None` where there is no such file.
pub(crate) fn read(path: &Path, names: &[&str]) -> Result<Option<Plan>> {
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
    let plan = parse(&text).with_context(|| file.to_string())?;
    if let Some(name) = plan.unknown(names) {
        bail!("{file}: the model has no layer `{}`", name.escape_debug());
    }
    Ok(Some(plan))
}

/// The plan that a text holds.
fn parse(text: &str) -> Result<Plan> {
    let File { version, default, layers } = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        anyhow!("line {line}: {}", error.message().split_whitespace().collect::<Vec<_>>().join(" "))
    })?;
    ensure!(
        version == VERSION,
        "a plan of version {version} is not one of version {VERSION}, which is what is read here"
    );
    let layers = layers.into_iter().map(|(name, pair)| (name, pair.into()));
    Ok(Plan { default: default.into(), layers: layers.collect() })
}

/// Writes a plan to a file that is not there yet, its layers in the order of `names`; `remark` explains it.
pub(crate) fn write(path: &Path, plan: &Plan, names: &[&str], remark: &str) -> Result<()> {
    let file = || format!("cannot write {}", path.display());
    let mut made = std::fs::File::create_new(path).with_context(file)?;
    io::Write::write_all(&mut made, text(plan, names, remark).as_bytes()).with_context(file)
}

fn text(plan: &Plan, names: &[&str], remark: &str) -> String {
    let pair = |p: LayerPrecision| format!("{{ weights = \"{}\", activations = \"{}\" }}", p.weights, p.activations);
    let mut text = format!("# {remark}\nversion = {VERSION}\ndefault = {}\n\n[layers]\n", pair(plan.default));
    let quoted = |name: &str| toml::Value::String(name.to_owned()).to_string();
    let listed = names.iter().filter_map(|name| plan.layers.get_key_value(*name));
    for (name, &precision) in listed {
        // A name of several lines is quoted over several, which a key must not be.
        let name = if name.contains('\n') { format!("{name:?}") } else { quoted(name) };
        let _ = writeln!(text, "{name} = {}", pair(precision));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = 1\ndefault = { weights = \"int4x2\", activations = \"int4x2\" }\n";

    fn pair(weights: &str, activations: &str) -> LayerPrecision {
        LayerPrecision { weights: weights.parse().unwrap(), activations: activations.parse().unwrap() }
    }

    #[test]
    fn a_plan_comes_back_as_it_was() {
        let names = ["b", "a.weight", "with \"quotes\" and \\", "/x/y_1", "tab\t", "two\nlines", "Ünï", "'single'", ""];
        let choices = [pair("int4x3", "int4x2"), pair("int2x1", "int8x2")];
        let layers = names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), choices[i % 2]));
        let plan = Plan { default: pair("int4x2", "int4x3"), layers: layers.collect() };
        let text = text(&plan, &names, "a remark");
        assert_eq!(parse(&text).unwrap_or_else(|e| panic!("{e:#} in\n{text}")), plan);
        assert!(text.find("\"b\"") < text.find("a.weight"), "in the order of the names: {text}");
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
            (layers("\na = { weights = \"int4x2\", activations = 8 }"), &["line 5", "string"]),
            (layers("a = { weights = \"int4x2\", activations = \"int4x2\", x = 1 }"), &["line 4", "x"]),
            (layers(&"a = { weights = \"int4x2\", activations = \"int4x2\" }\n".repeat(2)), &["line 5", "duplicate"]),
            (layers("a = {"), &["line 4"]),
            (layers("a"), &["line 4"]),
        ] {
            let told = format!("{:#}", parse(&text).expect_err(&text));
            assert!(words.iter().all(|word| told.contains(word)) && !told.contains('\n'), "{words:?}: {told}");
        }
    }
}
