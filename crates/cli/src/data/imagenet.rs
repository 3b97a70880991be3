//! ImageNet validation images: a folder with `val/*.JPEG` and `labels.csv` (`file,class_index`, indices in sorted-synset
//! order).

use std::collections::{BTreeMap, BTreeSet};
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

impl Imagenet {
    /// Opens a folder. Every image needs a label and every label an image.
    pub(crate) fn open(folder: &Path, resize: Option<u32>) -> Result<Self> {
        let labels_file = folder.join("labels.csv");
        let text = std::fs::read_to_string(&labels_file).with_context(|| labels_file.display().to_string())?;
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
        Ok(Self { samples: labels.into_iter().map(sample).collect(), resize })
    }
}

fn list_images(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
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
        std::fs::create_dir(folder.path().join("val")).unwrap();
        std::fs::write(folder.path().join("labels.csv"), labels).unwrap();
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
}
