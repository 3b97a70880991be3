//! Finished sections in the study's folder: a file a section, written under another name and renamed, with a key of everything
//! its numbers depend on. A section of another key is made again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::args::Study;
use super::section::Section;
use crate::args::DataSet;

/// A folder of finished sections.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    section: Section,
}

impl Store {
    /// The sections of a study of a model with this SHA-256.
    pub(super) fn open(args: &Study, model: &str) -> Result<Self> {
        let folder = args.output.join("sections");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let DataSet { task, preset, resize, crop, tokenizer, max_length, labels, limit, data } = &args.set;
        let settings = format!("{task:?} {preset:?} {resize:?} {crop:?} {max_length:?} {labels:?} {limit:?}");
        let files: Vec<String> = [Some(data), tokenizer.as_ref()].into_iter().flatten().map(|p| stamp(p)).collect();
        let kernel = fpxint_kernels::select()?.name();
        // Another build may give other numbers.
        let program = stamp(&std::env::current_exe()?);
        let all = format!("{program} {kernel} {model} {settings} {}", files.join(" "));
        Ok(Self { folder, key: hex(&Sha256::digest(all.as_bytes())) })
    }

    fn file(&self, letter: char) -> PathBuf {
        self.folder.join(format!("{letter}.json"))
    }

    /// A finished section; `None` where there is none of this study, or none that can be read.
    pub(super) fn load(&self, letter: char) -> Option<Section> {
        let kept: Kept = serde_json::from_slice(&fs::read(self.file(letter)).ok()?).ok()?;
        (kept.key == self.key).then_some(kept.section)
    }

    /// Keeps a finished section.
    pub(super) fn save(&self, section: &Section) -> Result<()> {
        let kept = Kept { key: self.key.clone(), section: section.clone() };
        write(&self.file(section.letter), serde_json::to_string(&kept)?.as_bytes())
    }
}

/// Writes a file beside its place and renames it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let place = || path.display().to_string();
    let beside = path.with_extension("part");
    let mut file = fs::File::create(&beside).with_context(place)?;
    file.write_all(bytes).with_context(place)?;
    file.sync_all().with_context(place)?;
    fs::rename(&beside, path).with_context(place)
}

/// A file's place, length and time of change.
fn stamp(path: &Path) -> String {
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let known = fs::metadata(path).ok();
    let changed = known.as_ref().and_then(|m| m.modified().ok());
    let changed = changed.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |t| t.as_nanos());
    format!("{} {} {changed}", place.display(), known.map_or(0, |m| m.len()))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sections_of_the_same_study_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let store = |key: &str| Store { folder: folder.path().to_owned(), key: key.to_owned() };
        let section = Section { letter: 'c', ..Section::of(&["what"], vec!["that".to_owned()], vec![]) };
        store("one").save(&section).unwrap();
        assert_eq!(store("one").load('c'), Some(section));
        assert_eq!((store("two").load('c'), store("one").load('d')), (None, None));
        fs::write(folder.path().join("c.json"), "{\"key\":\"one\",\"sec").unwrap();
        assert_eq!(store("one").load('c'), None, "a file that was cut off is no section");
    }
}
