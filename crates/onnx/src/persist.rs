//! Files that appear whole or not at all: written beside their place, synced, renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::{NamedTempFile, TempPath};

/// Writes a file's content.
pub(crate) type Fill<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

/// Puts a file at `path`, and before it `beside` at a path of its own in the same folder. On an error neither is left
/// behind, and what was there before is there still.
pub(crate) fn persist(path: &Path, fill: Fill, beside: Option<(&Path, Fill)>) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staged = match beside {
        Some((place, fill)) => Some((place, stage(folder, fill)?)),
        None => None,
    };
    let file = stage(folder, fill)?;
    let replaced = match staged {
        Some((place, staged)) => Some(Replaced::put(staged, place, folder)?),
        None => None,
    };
    if let Err(error) = file.persist(path) {
        if let Some(replaced) = replaced {
            replaced.undo();
        }
        return Err(error.error);
    }
    // The files are in place; a file system that cannot sync a folder does not make them any less so.
    _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fpxint-");
    #[cfg(unix)]
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666); // The umask applies, as for any new file.
    #[cfg(unix)]
    builder.permissions(permissions);
    builder
}

fn stage(folder: &Path, fill: Fill) -> io::Result<NamedTempFile> {
    let file = builder().tempfile_in(folder)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file.as_file());
    fill(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()?;
    Ok(file)
}

/// A file that was put in place and can be taken back.
struct Replaced<'a> {
    place: &'a Path,
    /// What was there before, under another name.
    before: Option<TempPath>,
}

impl<'a> Replaced<'a> {
    fn put(file: NamedTempFile, place: &'a Path, folder: &Path) -> io::Result<Self> {
        let before = match fs::symlink_metadata(place) {
            Ok(there) if there.is_dir() => return Err(io::Error::other(format!("{place:?} is a folder"))),
            Ok(_) => {
                // A second name, or where the file system has none, another one.
                let rename = |name: &Path| fs::hard_link(place, name).or_else(|_| fs::rename(place, name));
                Some(builder().make_in(folder, rename)?.into_temp_path())
            }
            Err(_) => None,
        };
        let replaced = Self { place, before };
        match file.persist(place) {
            Ok(_) => Ok(replaced),
            Err(error) => {
                if fs::symlink_metadata(place).is_err() {
                    replaced.undo();
                }
                Err(error.error)
            }
        }
    }

    fn undo(self) {
        // Nothing is left to be done where this fails: the error that led here is the one to report.
        _ = match self.before {
            Some(before) => before.persist(self.place).map_err(|e| e.error),
            None => fs::remove_file(self.place),
        };
    }
}
