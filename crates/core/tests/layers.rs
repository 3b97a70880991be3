//! The layering of the workspace: who may depend on and name whom, where `unsafe` lives, and the shape of a file.
//!
//! The rules are functions from text to violations, so that each is shown to find a planted one before the workspace is
//! held to it. Sources are read as tokens without comments and literals; names are followed through `use` trees and inline
//! paths, not through macros or re-exports under another name.

use std::fs;
use std::path::{Path, PathBuf};

/// Directory, package, and the packages of ours that it may import.
const LAYERS: &[(&str, &str, &[&str])] = &[
    ("core", "fpxint", &[]),
    ("kernels", "fpxint-kernels", &[]),
    ("reference", "fpxint-reference", &[]),
    ("onnx", "fpxint-onnx", &["fpxint"]),
    ("runtime", "fpxint-runtime", &["fpxint", "fpxint-onnx", "fpxint-kernels"]),
    ("cli", "fpxint-cli", &["fpxint", "fpxint-onnx", "fpxint-kernels", "fpxint-runtime"]),
    ("fuzz", "fpxint-fuzz", &["fpxint", "fpxint-onnx", "fpxint-cli"]),
    ("mpi", "fpxint-mpi", &["fpxint", "fpxint-cli"]),
];
/// The oracles: for tests alone, of every crate.
const ORACLES: &str = "fpxint-reference";
/// The only crate that may know of tract.
const TRACT_HOST: &str = "runtime";
/// The only crate that may hold unsafe code.
const UNSAFE_HOST: &str = "kernels";
/// Most lines of a source file.
const MOST_LINES: usize = 500;
/// Generated files, of any length.
const GENERATED: &[&str] = &["crates/onnx/src/proto.rs"];

/// Packages that a crate may import, tests included or not; none for a crate without a layer.
fn allowed(krate: &str, for_tests: bool) -> Vec<&'static str> {
    let layer = LAYERS.iter().find(|(dir, ..)| *dir == krate);
    let own = layer.map(|(_, _, imports)| imports.to_vec()).unwrap_or_default();
    if for_tests { [own, vec![ORACLES]].concat() } else { own }
}

/// Why a crate may not import a package, if it may not.
fn refusal(krate: &str, package: &str, for_tests: bool) -> Option<String> {
    let is_own = LAYERS.iter().any(|(dir, name, _)| (*dir, *name) == (krate, package));
    let is_ours = package == "fpxint" || package.starts_with("fpxint-");
    let is_tract = package == "tract" || package.starts_with("tract-");
    let refused =
        (is_ours && !is_own && !allowed(krate, for_tests).contains(&package)) || (is_tract && krate != TRACT_HOST);
    refused.then(|| format!("{krate} may not import {package}"))
}

/// Dependencies of a manifest: `(package, only for tests)`, renamed ones under the name they hide.
fn dependencies(manifest: &str) -> Vec<(String, bool)> {
    let bare = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let (mut found, mut section) = (Vec::new(), String::new());
    for line in manifest.lines().map(|line| line.split('#').next().unwrap_or("").trim()) {
        let for_tests = section.contains("dev-dependencies");
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            let tail = section.rsplit_once("dependencies.").map(|(_, tail)| bare(tail));
            found.extend(tail.map(|package| (package, section.contains("dev-dependencies"))));
        } else if let (true, Some((key, value))) = (section.contains("dependencies"), line.split_once('=')) {
            if section.ends_with("dependencies") {
                found.push((bare(key.split('.').next().unwrap_or(key)), for_tests));
            }
            let renamed =
                if key.trim() == "package" { Some(value) } else { value.split_once("package").map(|(_, v)| v) };
            let hidden = renamed.and_then(|v| v.split(['"', '\'']).nth(1));
            found.extend(hidden.map(|package| (package.to_owned(), for_tests)));
        }
    }
    found
}

fn manifest_violations(krate: &str, manifest: &str) -> Vec<String> {
    dependencies(manifest).iter().filter_map(|(package, for_tests)| refusal(krate, package, *for_tests)).collect()
}

/// Length of the comment, string or character that `text` starts with; 0 where it starts with none.
fn literal_len(text: &str) -> usize {
    let until = |from: usize, end: &str| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        let (mut depth, mut at) = (1, 2);
        while depth > 0 && at < text.len() {
            let rest = &text.as_bytes()[at..];
            let step = if rest.starts_with(b"/*") {
                1
            } else if rest.starts_with(b"*/") {
                -1
            } else {
                0
            };
            (depth, at) = (depth + step, at + if step == 0 { 1 } else { 2 });
        }
        return at;
    }
    let raw = text.trim_start_matches(['b', 'c']).strip_prefix('r').filter(|_| text.len() > 1);
    if let Some(hashes) = raw.map(|rest| rest.len() - rest.trim_start_matches('#').len())
        && raw.is_some_and(|rest| rest[hashes..].starts_with('"'))
    {
        let open = text.find('"').unwrap_or(0) + 1;
        return until(open, &format!("\"{}", "#".repeat(hashes)));
    }
    let quoted = text.trim_start_matches(['b', 'c']);
    let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote.filter(|_| text.len() - quoted.len() <= 1) else { return 0 };
    let mut body = quoted.char_indices().skip(1);
    let is_lifetime = quote == '\'' && quoted.chars().nth(1) != Some('\\') && quoted.chars().nth(2) != Some('\'');
    if is_lifetime {
        return 1;
    }
    while let Some((at, c)) = body.next() {
        match c {
            '\\' => _ = body.next(),
            c if c == quote => return text.len() - quoted.len() + at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Words, `::` and single marks of a source, without comments and literals.
fn tokens(source: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), source);
    while let Some(first) = rest.chars().next() {
        let skipped = literal_len(rest);
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let len = match first {
            _ if skipped > 0 => skipped,
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        if skipped == 0 && !first.is_whitespace() {
            found.push(&rest[..len]);
        }
        rest = &rest[len..];
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

type NamePath<'a> = Vec<&'a str>;

/// Every path of a source: those of `use` and `extern crate`, braces spread out, and those written in place.
fn paths<'a>(tokens: &[&'a str]) -> Vec<NamePath<'a>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        match tokens[at] {
            // `use<..>` in a type is a bound.
            "use" if tokens.get(at + 1) != Some(&"<") => at = use_tree(tokens, at + 1, &[], &mut found),
            "extern" if tokens.get(at + 1) == Some(&"crate") => {
                found.extend(tokens.get(at + 2).map(|&name| vec![name]));
                at += 3;
            }
            _ => at = inline_path(tokens, at, &mut found),
        }
    }
    found
}

/// One `use` tree from `at` on, below `stem`; returns where it ends.
fn use_tree<'a>(tokens: &[&'a str], mut at: usize, stem: &[&'a str], found: &mut Vec<NamePath<'a>>) -> usize {
    let mut path = stem.to_vec();
    while let Some(&token) = tokens.get(at) {
        match token {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|&t| t != "}") {
                    at = use_tree(tokens, at, &path, found);
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => at += 1,
            "::" => {}
            name => path.push(name),
        }
        at += 1;
    }
    found.push(path);
    at
}

/// The path of two segments or more that starts at `at`, if one does; returns where to go on.
fn inline_path<'a>(tokens: &[&'a str], mut at: usize, found: &mut Vec<NamePath<'a>>) -> usize {
    let mut path = Vec::new();
    while is_word(tokens[at]) {
        path.push(tokens[at]);
        let goes_on = tokens.get(at + 1) == Some(&"::") && tokens.get(at + 2).is_some_and(|t| is_word(t));
        if !goes_on {
            let ends_in_list = tokens.get(at + 1) == Some(&"::");
            if path.len() > 1 || ends_in_list {
                found.push(path);
            }
            break;
        }
        at += 2;
    }
    at + 1
}

fn source_violations(krate: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let package = |path: &NamePath<'_>| path.first().map(|root| root.replace('_', "-"));
    let mut found: Vec<String> =
        paths(&tokens).iter().filter_map(package).filter_map(|root| refusal(krate, &root, true)).collect();
    if krate != UNSAFE_HOST && tokens.contains(&"unsafe") {
        found.push(format!("{krate} may not hold unsafe code"));
    }
    found.sort();
    found.dedup();
    found
}

/// Names that core's `lib.rs` re-exports from `expand::<module>`.
fn exported<'a>(lib: &[&'a str], module: &str) -> Vec<&'a str> {
    let from = |path: &NamePath<'a>| path.windows(2).any(|pair| pair == ["expand", module]);
    paths(lib).iter().filter(|path| from(path)).filter_map(|path| path.last().copied()).collect()
}

/// Rules within core for a file of `src/expand`: a module names none above it, and making never names running.
fn expand_violations(file: &str, source: &str, lib: &str) -> Vec<String> {
    let all = tokens(source);
    let tests = all.windows(7).position(|w| w == ["#", "[", "cfg", "(", "test", ")", "]"]);
    let tokens_of_code = &all[..tests.unwrap_or(all.len())];
    let (paths, lib) = (paths(tokens_of_code), tokens(lib));
    let above: &[&str] = match file {
        "tensor.rs" | "activation.rs" => &["layer", "model"],
        "layer.rs" => &["model"],
        _ => &[],
    };
    let mut found = Vec::new();
    for module in above {
        let through = |path: &NamePath<'_>| {
            path.windows(2).any(|pair| matches!(pair, ["expand" | "super", name] if name == module))
        };
        let names = exported(&lib, module);
        let direct =
            |path: &NamePath<'_>| path.first() == Some(&"crate") && path.iter().any(|name| names.contains(name));
        if paths.iter().any(|path| through(path) || direct(path)) {
            found.push(format!("expand/{file} may not name expand::{module}"));
        }
    }
    let runs = |path: &NamePath<'_>| path.contains(&"reduce");
    if paths.iter().any(runs) || tokens_of_code.iter().any(|t| matches!(*t, "Reduce" | "abelian_add")) {
        found.push(format!("expand/{file} may not name reduce"));
    }
    if paths.iter().any(|path| path.starts_with(&["crate", "*"])) {
        found.push(format!("expand/{file} may not import all of crate"));
    }
    found
}

fn shape_violations(file: &str, source: &str) -> Vec<String> {
    let (mut found, lines) = (Vec::new(), source.lines().count());
    if !source.starts_with("//!") {
        found.push(format!("{file} does not open with //!"));
    }
    if lines > MOST_LINES && !GENERATED.contains(&file) {
        found.push(format!("{file} has {lines} lines, but {MOST_LINES} is the most"));
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(dir).map_or_else(|_| Vec::new(), |d| d.flatten().map(|e| e.path()).collect());
    found.sort();
    found
}

/// Rust files below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| match path.is_dir() {
        true => sources(&path),
        false => Some(path).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect(),
    };
    entries(dir).into_iter().flat_map(below).collect()
}

/// The crates of the workspace, by directory.
fn crates() -> Vec<(String, PathBuf)> {
    let dirs = entries(&root().join("crates")).into_iter().filter(|dir| dir.join("Cargo.toml").exists());
    dirs.map(|dir| (dir.file_name().expect("a directory").to_string_lossy().into_owned(), dir)).collect()
}

/// Applies a rule to the sources of every crate: `rule(crate, file relative to the root, source)`.
fn every_source(folders: &[&str], rule: impl Fn(&str, &str, &str) -> Vec<String>) -> Vec<String> {
    let (mut found, mut seen) = (Vec::new(), 0);
    for (krate, dir) in crates() {
        for path in folders.iter().flat_map(|folder| sources(&dir.join(folder))) {
            let inner = path.strip_prefix(&dir).expect("a file of the crate");
            let file = format!("crates/{krate}/{}", inner.display());
            found.extend(rule(&krate, &file, &read(&path)).into_iter().map(|v| format!("{file}: {v}")));
            seen += 1;
        }
    }
    assert!(seen > LAYERS.len(), "sources were found");
    found
}

#[test]
fn manifests_import_downwards_only() {
    let mut found = Vec::new();
    for (krate, dir) in crates() {
        assert!(LAYERS.iter().any(|(name, ..)| *name == krate), "crate {krate} has no layer");
        found.extend(manifest_violations(&krate, &read(&dir.join("Cargo.toml"))));
    }
    assert_eq!(found, [""; 0]);
    let shared = dependencies(&read(&root().join("Cargo.toml")));
    let ours = shared.iter().filter(|(package, _)| package.starts_with("fpxint")).count();
    // No other crate imports these.
    let ends = ["fuzz", "mpi"];
    assert_eq!(ours + ends.len(), LAYERS.len(), "the workspace lists our crates under their own names");
}

#[test]
fn sources_name_downwards_only() {
    let rule = |krate: &str, _: &str, source: &str| source_violations(krate, source);
    assert_eq!(every_source(&["src", "tests", "benches", "examples"], rule), [""; 0]);
}

#[test]
fn expansions_know_nothing_above_them() {
    let expand = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/expand");
    let lib = read(&expand.join("../lib.rs"));
    assert!(exported(&tokens(&lib), "layer").contains(&"expand_layer"), "lib.rs re-exports are read");
    let mut found = Vec::new();
    for path in sources(&expand).iter().filter(|path| !path.ends_with("tests.rs")) {
        let file = path.strip_prefix(&expand).expect("a file of expand").to_string_lossy().into_owned();
        found.extend(expand_violations(&file, &read(path), &lib));
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn every_source_has_a_module_doc_and_a_limit() {
    assert_eq!(every_source(&["src"], |_, file, source| shape_violations(file, source)), [""; 0]);
}

#[test]
fn planted_manifest_violations_are_found() {
    for (krate, manifest) in [
        ("core", "[dependencies]\nfpxint-kernels.workspace = true"),
        ("kernels", "[dependencies]\nfpxint = { path = \"../core\" }"),
        ("onnx", "[dependencies]\nbytes = \"1\"\nfpxint-runtime.workspace = true # why"),
        ("onnx", "[dependencies.fpxint-kernels]\nworkspace = true"),
        ("onnx", "[dependencies]\nengine = { path = \"x\", package = \"fpxint-runtime\" }"),
        ("onnx", "[dependencies.engine]\npackage = 'fpxint-runtime'"),
        ("runtime", "[dependencies]\nfpxint-reference.workspace = true"),
        ("cli", "[target.'cfg(unix)'.dependencies]\ntract-onnx = \"0\""),
        ("cli", "[build-dependencies]\n\"tract-core\".workspace = true"),
        ("core", "[dev-dependencies]\nfpxint-runtime.workspace = true"),
        ("unknown", "[dependencies]\nfpxint.workspace = true"),
    ] {
        assert_eq!(manifest_violations(krate, manifest).len(), 1, "{krate}: {manifest}");
    }
    for (krate, manifest) in [
        ("core", "[package]\nname = \"fpxint\"\n[dependencies]\nthiserror = \"2\"\n[features]\nfpxint-kernels = []"),
        ("core", "[dependencies]\n# fpxint-kernels.workspace = true\n[dev-dependencies]\nfpxint-reference = \"0\""),
        ("runtime", "[dependencies]\nfpxint.workspace = true\nfpxint-kernels = \"0\"\ntract-onnx = \"0\""),
    ] {
        assert_eq!(manifest_violations(krate, manifest), [""; 0], "{krate}: {manifest}");
    }
}

#[test]
fn planted_source_violations_are_found() {
    for (krate, source) in [
        ("core", "use fpxint_kernels::Product;"),
        ("kernels", "fn f() -> fpxint::Error { todo() }"),
        ("onnx", "use std::{fmt, io}; use {bytes::Bytes, fpxint_runtime as r};"),
        ("onnx", "extern crate fpxint_kernels as k;"),
        ("onnx", "let x = ::fpxint_kernels::select();"),
        ("cli", "/* a /* nested */ comment */ let c = '\"'; tract_onnx::onnx();"),
        ("cli", "let s = r#\"quoted \" \"#; use tract_core::prelude::{*};"),
        ("core", "let s = \"\\\"\"; fn f<'a>(x: &'a u8) { unsafe { g() } }"),
        ("reference", "unsafe fn f() {}"),
    ] {
        assert_eq!(source_violations(krate, source).len(), 1, "{krate}: {source}");
    }
    for (krate, source) in [
        ("core", "//! [`fpxint_kernels::Product`] runs it.\n/* fpxint_runtime::Model, unsafe */ fn f() {}"),
        ("core", "let s = \"fpxint_kernels::x, unsafe\"; let r = r\"tract_onnx::\"; let b = b\"fpxint_cli::\";"),
        ("cli", "use fpxint_runtime::Model; model.left_to_tract(); let unsafe_names = 1;"),
        ("kernels", "// SAFETY: checked.\nunsafe { f() }; use fpxint_reference::gemm;"),
        ("runtime", "use tract_onnx::prelude::*; use fpxint_onnx::read;"),
    ] {
        assert_eq!(source_violations(krate, source), [""; 0], "{krate}: {source}");
    }
}

#[test]
fn planted_expansion_violations_are_found() {
    let lib = "pub use expand::layer::{Settings, expand_layer}; pub use expand::model::Members; pub use layer::Layer;";
    for (file, source) in [
        ("tensor.rs", "use crate::expand::{layer::Settings, activation::Grid};"),
        ("tensor.rs", "use super::layer;"),
        ("tensor.rs", "use crate::{Error, expand_layer};"),
        ("tensor.rs", "fn f() { super::model::basis_weight() }"),
        ("layer.rs", "fn f(m: crate::Members) {}"),
        ("layer.rs", "use super::{model, tensor};"),
        ("model.rs", "use crate::reduce::Reduce;"),
        ("model.rs", "fn f(r: &dyn Reduce) {}"),
        ("model.rs", "use crate::abelian_add;"),
        ("mod.rs", "use crate::*;"),
    ] {
        assert_eq!(expand_violations(file, source, lib).len(), 1, "{file}: {source}");
    }
    for (file, source) in [
        ("tensor.rs", "use crate::{Error, layer::Weight}; fn f(layer: u8, model: u8) { x.reduce(g) }"),
        ("tensor.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::{abelian_add, expand_layer}; }"),
        ("layer.rs", "use crate::expand::tensor::expand_tensor; // super::model adds Reduce"),
        ("model.rs", "use super::layer::Settings;"),
    ] {
        assert_eq!(expand_violations(file, source, lib), [""; 0], "{file}: {source}");
    }
}

#[test]
fn planted_shape_violations_are_found() {
    let long = format!("//! Doc.\n{}", "\n".repeat(MOST_LINES));
    assert_eq!(shape_violations("crates/core/src/a.rs", "/// Doc.").len(), 1);
    assert_eq!(shape_violations("crates/core/src/a.rs", &long).len(), 1);
    assert_eq!(shape_violations(GENERATED[0], &long), [""; 0]);
    assert_eq!(shape_violations("crates/core/src/a.rs", &long[..long.len() - 1]), [""; 0]);
}
