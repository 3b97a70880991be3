//! Text data sets as files: which file of a folder, its text, and the columns of tab-separated ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

/// The data file at `path`: itself, or in a folder the one file of the first group of `names` that has any.
pub(crate) fn locate(path: &Path, names: &[&[&str]]) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let folder = path.display();
    for group in names {
        let there: Vec<_> = group.iter().filter(|name| path.join(name).is_file()).collect();
        match there[..] {
            [] => {}
            [one] => return Ok(path.join(one)),
            [a, b, ..] => bail!("{folder}: both {a} and {b} are there; name one"),
        }
    }
    bail!("{folder}: none of {} is there", names.concat().join(", "))
}

/// The text of a file, without the mark that some editors put before it.
pub(crate) fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        anyhow!("{}: line {line}: not UTF-8 text", path.display())
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Places of the columns `names` in a tab-separated header, or `None` where it lacks one.
pub(crate) fn columns<const N: usize>(header: &str, names: [&str; N]) -> Option<[usize; N]> {
    let fields: Vec<_> = header.split('\t').map(str::trim).collect();
    let mut places = [0; N];
    for (place, name) in places.iter_mut().zip(names) {
        *place = fields.iter().position(|field| *field == name)?;
    }
    Some(places)
}

/// The fields of a tab-separated line at `places`.
pub(crate) fn fields<const N: usize>(line: &str, places: [usize; N]) -> Result<[&str; N]> {
    let all: Vec<_> = line.split('\t').collect();
    let mut picked = [""; N];
    for (field, place) in picked.iter_mut().zip(places) {
        let found = all.get(place);
        *field = found.with_context(|| format!("{} columns, where column {} is needed", all.len(), place + 1))?.trim();
    }
    Ok(picked)
}

/// The lines of a text that hold anything, counted from one.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_must_hold_one_file_of_the_first_group_that_has_any() {
        let folder = tempfile::tempdir().unwrap();
        let find = || locate(folder.path(), &[&["dev.a", "dev.b"], &["test.a"]]).map_err(|e| e.to_string());
        assert!(find().unwrap_err().contains("none of dev.a, dev.b, test.a is there"));
        std::fs::write(folder.path().join("test.a"), "").unwrap();
        assert!(find().unwrap().ends_with("test.a"));
        std::fs::write(folder.path().join("dev.b"), "").unwrap();
        assert!(find().unwrap().ends_with("dev.b"));
        std::fs::write(folder.path().join("dev.a"), "").unwrap();
        assert!(find().unwrap_err().contains("both dev.a and dev.b are there"));
    }

    #[test]
    fn text_that_is_none_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.tsv");
        std::fs::write(&file, b"\xef\xbb\xbffirst\nsecond").unwrap();
        assert_eq!(read(&file).unwrap(), "first\nsecond");
        std::fs::write(&file, b"first\nsec\xffond\n").unwrap();
        assert!(read(&file).unwrap_err().to_string().ends_with("a.tsv: line 2: not UTF-8 text"));
    }

    #[test]
    fn columns_are_found_by_name() {
        let places = columns("index\tscore \ttext", ["text", "score"]).unwrap();
        assert_eq!(places, [2, 1]);
        assert_eq!(columns("index\tscore", ["text"]), None);
        assert_eq!(fields("0\t4.5\ta b", places).unwrap(), ["a b", "4.5"]);
        let error = fields("0\t4.5", places).unwrap_err().to_string();
        assert_eq!(error, "2 columns, where column 3 is needed");
    }
}
