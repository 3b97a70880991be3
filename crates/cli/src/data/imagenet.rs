//! ImageNet validation images, in one of two layouts:
//!
//! * `labels.csv` (`file,class_index`, indices in the order of the sorted synsets) and `val/*.JPEG`;
//! * a folder a class, `val/n01440764/*.JPEG` or `n01440764/*.JPEG`. The class is the place of the folder's name among all of
//!   them, which must then be [`CLASSES`], or in `synsets.txt` if there is one (a name at the start of each line).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use image::imageops::{self, FilterType};

use super::Images;

/// Files and labels; images are decoded as they are needed.
#[derive(Debug)]
pub(crate) struct Imagenet {
    samples: Vec<(PathBuf, usize)>,
    resize: Option<u32>,
}

/// Classes of the data set; folders tell them apart only if they are all there.
const CLASSES: usize = 1000;

impl Imagenet {
    /// Opens a folder in either layout; `labels.csv` decides where it is there.
    pub(crate) fn open(folder: &Path, resize: Option<u32>) -> Result<Self> {
        let root = Some(folder.join("val")).filter(|val| val.is_dir()).unwrap_or_else(|| folder.to_owned());
        let listed = folder.join("labels.csv").exists();
        let classes = if listed || !root.is_dir() { BTreeSet::new() } else { list_classes(&root)? };
        let samples = if classes.is_empty() { labelled(folder)? } else { sorted(folder, &root, &classes)? };
        Ok(Self { samples, resize })
    }
}

/// Images and classes by `labels.csv`. Every image needs a label and every label an image.
fn labelled(folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let labels_file = folder.join("labels.csv");
    let text = fs::read_to_string(&labels_file).with_context(|| labels_file.display().to_string())?;
    let labels = parse_labels(&text).with_context(|| labels_file.display().to_string())?;
    let images = list_images(&folder.join("val"))?;
    if let Some(name) = images.iter().find(|name| !labels.contains_key(*name)) {
        bail!("{}: image {name} in val has no label", labels_file.display());
    }
    if let Some(name) = labels.keys().find(|name| !images.contains(*name)) {
        bail!("{}: {name} has a label, but is not in val", labels_file.display());
    }
    ensure!(!labels.is_empty(), "{}: no images", labels_file.display());
    let sample = |(name, class)| (folder.join("val").join(name), class);
    Ok(labels.into_iter().map(sample).collect())
}

/// Images and classes by folder, in the order of the images' own names, in which classes are mixed.
fn sorted(folder: &Path, root: &Path, classes: &BTreeSet<String>) -> Result<Vec<(PathBuf, usize)>> {
    let place = root.display();
    if let Some(image) = list_images(root)?.first() {
        bail!("{place}: image {image} lies in no class's folder, and there is no labels.csv");
    }
    let file = folder.join("synsets.txt");
    let indices = if file.exists() {
        let text = super::text::read(&file)?;
        parse_synsets(&text).with_context(|| file.display().to_string())?
    } else {
        let count = classes.len();
        ensure!(count == CLASSES, "{place}: {count} folders, not {CLASSES}, leave their classes open; add synsets.txt");
        classes.iter().cloned().zip(0..).collect()
    };
    let mut samples = Vec::new();
    for class in classes {
        let index = indices.get(class).with_context(|| format!("{place}: folder {class} is not in synsets.txt"))?;
        let images = list_images(&root.join(class))?;
        samples.extend(images.into_iter().map(|image| (image, class, *index)));
    }
    ensure!(!samples.is_empty(), "{place}: no images");
    samples.sort();
    Ok(samples.into_iter().map(|(image, class, index)| (root.join(class).join(image), index)).collect())
}

/// Names of the folders, hidden ones left out.
fn list_classes(root: &Path) -> Result<BTreeSet<String>> {
    let place = || root.display().to_string();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root).with_context(place)? {
        let entry = entry.with_context(place)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Class by synset.
fn parse_synsets(text: &str) -> Result<BTreeMap<String, usize>> {
    let mut classes = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let name = line.split_whitespace().next().with_context(|| format!("line {}: no synset", index + 1))?;
        let known = classes.insert(name.to_owned(), index);
        ensure!(known.is_none(), "line {}: {name} is there twice", index + 1);
    }
    Ok(classes)
}

fn list_images(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        if let (true, Some(name)) = (["jpeg", "jpg", "png"].contains(&&*extension), path.file_name()) {
            names.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Class by file name.
fn parse_labels(text: &str) -> Result<BTreeMap<String, usize>> {
    let mut labels = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || (number == 0 && line == "file,class_index") {
            continue;
        }
        let fields = line.split_once(',').map(|(name, class)| (name.trim(), class.trim().parse::<usize>()));
        let Some((name, Ok(class))) = fields else {
            bail!("line {}: `{line}` is not file,class_index", number + 1);
        };
        if labels.insert(name.to_owned(), class).is_some() {
            bail!("line {}: {name} has a second label", number + 1);
        }
    }
    Ok(labels)
}

/// Half of a margin, rounded half to even as torchvision's centre crop does.
fn centre(margin: u32) -> u32 {
    margin / 2 + u32::from(margin % 4 == 3)
}

impl Images for Imagenet {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn label(&self, index: usize) -> usize {
        self.samples[index].1
    }

    fn pixels(&self, index: usize, size: [usize; 2]) -> Result<Vec<u8>> {
        let path = &self.samples[index].0;
        let image = image::open(path).with_context(|| path.display().to_string())?.into_rgb8();
        let (mut width, mut height) = image.dimensions();
        let mut image = image;
        if let Some(shorter) = self.resize {
            let scale = |side: u32| {
                let scaled = u64::from(side) * u64::from(shorter) / u64::from(width.min(height));
                u32::try_from(scaled).unwrap_or(u32::MAX)
            };
            let (w, h) = (scale(width), scale(height));
            ensure!(u64::from(w) * u64::from(h) <= 1 << 28, "{}: too large when resized", path.display());
            image = imageops::resize(&image, w, h, FilterType::Triangle);
            (width, height) = (w, h);
        }
        let (h, w) = (size[0] as u32, size[1] as u32);
        ensure!(
            height >= h && width >= w,
            "{}: {width} x {height} pixels are less than the crop of {w} x {h}; pass --resize",
            path.display()
        );
        let view = imageops::crop_imm(&image, centre(width - w), centre(height - h), w, h);
        Ok(view.to_image().into_raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(labels: &str, images: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("val")).unwrap();
        fs::write(folder.path().join("labels.csv"), labels).unwrap();
        for (i, name) in images.iter().enumerate() {
            let image = image::RgbImage::from_fn(6, 4, |x, y| image::Rgb([x as u8 * 10, y as u8 * 10, i as u8]));
            image.save(folder.path().join("val").join(name)).unwrap();
        }
        folder
    }

    #[test]
    fn images_are_cropped_from_the_centre() {
        let folder = folder("file,class_index\nb.png,7\na.png,3\n", &["a.png", "b.png"]);
        let set = Imagenet::open(folder.path(), None).unwrap();
        assert_eq!((set.len(), set.label(0), set.label(1)), (2, 3, 7));
        assert_eq!(set.pixels(1, [2, 2]).unwrap(), [20, 10, 1, 30, 10, 1, 20, 20, 1, 30, 20, 1]);
        let error = set.pixels(0, [8, 8]).unwrap_err();
        assert!(error.to_string().contains("pass --resize"), "{error}");
        let resized = Imagenet::open(folder.path(), Some(8)).unwrap();
        assert_eq!(resized.pixels(0, [8, 8]).unwrap().len(), 8 * 8 * 3);
    }

    #[test]
    fn labels_that_do_not_match_the_images_are_refused() {
        let message = |labels: &str, images: &[&str]| {
            format!("{:#}", Imagenet::open(folder(labels, images).path(), None).unwrap_err())
        };
        assert!(message("a.png,1\n", &["a.png", "b.png"]).contains("image b.png in val has no label"));
        assert!(message("a.png,1\nb.png,2\n", &["a.png"]).contains("b.png has a label, but is not in val"));
        assert!(message("a.png,one\n", &["a.png"]).contains("line 1: `a.png,one` is not file,class_index"));
        assert!(message("a.png,1\na.png,2\n", &["a.png"]).contains("line 2: a.png has a second label"));
        assert!(message("", &[]).contains("no images"));
    }

    /// A folder with an image in each of `folders`, below `root`.
    fn classes(root: &str, folders: impl IntoIterator<Item = String>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (i, name) in folders.into_iter().enumerate() {
            let class = folder.path().join(root).join(name);
            fs::create_dir_all(&class).unwrap();
            fs::write(class.join(format!("{}.JPEG", 20_000 - i)), "").unwrap();
        }
        folder
    }

    #[test]
    fn a_thousand_folders_are_the_classes() {
        for root in ["val", ""] {
            let folder = classes(root, (0..CLASSES).map(|i| format!("n{:08}", 7 * i)));
            let set = Imagenet::open(folder.path(), None).unwrap();
            // By the names of the images.
            assert_eq!((set.len(), set.label(0), set.label(999)), (1000, 999, 0));
            assert!(set.samples[0].0.ends_with("n00006993/19001.JPEG"), "{:?}", set.samples[0]);
        }
    }

    #[test]
    fn fewer_folders_need_the_list_of_synsets() {
        let folder = classes("val", ["n3", "n1", ".hidden"].map(str::to_owned));
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let open = || Imagenet::open(folder.path(), None).map_err(|e| format!("{e:#}"));
        assert!(open().unwrap_err().ends_with("val: 2 folders, not 1000, leave their classes open; add synsets.txt"));
        write("synsets.txt", "n1 tench, Tinca tinca\nn2\nn3 shark\n");
        let set = open().unwrap();
        assert_eq!((set.len(), set.label(0), set.label(1)), (2, 0, 2));
        write("synsets.txt", "n1\nn2\n");
        assert!(open().unwrap_err().ends_with("val: folder n3 is not in synsets.txt"));
        write("synsets.txt", "n1\n\nn3\n");
        assert!(open().unwrap_err().ends_with("synsets.txt: line 2: no synset"));
        write("synsets.txt", "n1\nn3\nn1\n");
        assert!(open().unwrap_err().ends_with("synsets.txt: line 3: n1 is there twice"));
        write("val/loose.png", "");
        assert!(open().unwrap_err().contains("image loose.png lies in no class's folder"));
        write("labels.csv", "loose.png,4\n");
        assert_eq!(open().unwrap().label(0), 4);
    }

    #[test]
    fn folders_without_images_are_refused() {
        let folder = classes("", ["n1".to_owned()]);
        fs::write(folder.path().join("synsets.txt"), "n1").unwrap();
        fs::remove_file(folder.path().join("n1/20000.JPEG")).unwrap();
        assert!(Imagenet::open(folder.path(), None).unwrap_err().to_string().contains("no images"));
    }
}
