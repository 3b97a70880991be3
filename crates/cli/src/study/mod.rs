//! `fpxint study`: the paper's experiments on one model, as JSON and one HTML page.
//!
//! A section is made by a function of the model and its data (`trial`) and is a list of figures, each a table and what of it is
//! drawn. JSON, CSV and page are written from the same sections. Finished sections are kept (`store`), so that a run that was
//! stopped goes on with the first that is missing.

mod activations;
pub(crate) mod args;
mod bits;
mod distributions;
mod draw;
mod ensemble;
mod layers;
mod page;
mod products;
mod progress;
mod remembered;
mod saturation;
mod section;
mod seeds;
mod sides;
mod store;
mod tensors;
mod trial;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};

use self::args::Study;
use self::progress::Progress;
use self::section::Section;
use self::store::Store;
use self::trial::Trial;
use crate::args::Common;
use crate::{Outcome, engine};

/// A section that can be made.
struct Chapter {
    letter: char,
    title: &'static str,
    /// Number of steps that making it reports.
    steps: fn(&Trial<'_>) -> usize,
    make: fn(&Trial<'_>) -> Result<Section>,
}

const CHAPTERS: [Chapter; 10] = [
    tensors::CHAPTER,
    layers::CHAPTER,
    activations::CHAPTER,
    saturation::CHAPTER,
    sides::CHAPTER,
    bits::CHAPTER,
    seeds::CHAPTER,
    distributions::CHAPTER,
    ensemble::CHAPTER,
    products::CHAPTER,
];

/// What was studied, and what was found.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    sha256: String,
    layers: usize,
    weights: usize,
    task: &'static str,
    data: String,
    limit: Option<u32>,
    version: &'static str,
    kernel: &'static str,
    threads: usize,
    sections: Vec<Section>,
}

pub(crate) fn run(common: &Common, args: &Study) -> Result<Outcome> {
    let source = engine::read(common, &args.model)?;
    ensure!(!source.is_artefact(), "{}: is expanded already; a study needs the FP32 model", args.model.display());
    // What is wrong with the data is told before anything is computed.
    crate::commands::eval::open(&args.eval())?;
    let sha256 = store::hex(&Sha256::digest(source.original()));
    let store = Store::open(args, &sha256)?;
    let progress = Progress::new(common);
    let trial = Trial::new(common, args, source, &progress)?;
    let sections = sections(&trial, &store).with_context(|| args.model.display().to_string())?;
    progress.finish();
    let report = Report {
        model: args.model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256,
        layers: trial.source.layers().len(),
        weights: trial.source.layers().iter().map(|layer| layer.elements).sum(),
        task: args.set.task.name(),
        data: args.set.data.file_name().unwrap_or(args.set.data.as_os_str()).to_string_lossy().into_owned(),
        limit: args.set.limit,
        version: env!("CARGO_PKG_VERSION"),
        kernel: fpxint_kernels::select()?.name(),
        threads: common.threads(),
        sections,
    };
    let json = serde_json::to_string(&report)?;
    store::write(&args.output.join("study.json"), json.as_bytes())?;
    store::write(&args.output.join("study.html"), page::html(&report).as_bytes())?;
    if common.json {
        println!("{json}");
    } else {
        print(&report, args);
    }
    Ok(Outcome::Done)
}

/// The sections that were asked for, from the store or made now.
fn sections(trial: &Trial<'_>, store: &Store) -> Result<Vec<Section>> {
    let wanted = |chapter: &&Chapter| trial.args.sections.is_empty() || trial.args.sections.contains(&chapter.letter);
    let chosen: Vec<(&Chapter, Option<Section>)> =
        CHAPTERS.iter().filter(wanted).map(|chapter| (chapter, store.load(chapter.letter))).collect();
    for (chapter, _) in chosen.iter().filter(|(_, kept)| kept.is_none()) {
        trial.progress.expect((chapter.steps)(trial));
    }
    let mut sections = Vec::new();
    for (chapter, kept) in chosen {
        if let Some(kept) = kept {
            sections.push(kept);
            continue;
        }
        trial.progress.begin(chapter.letter);
        let start = Instant::now();
        let mut section = (chapter.make)(trial).with_context(|| format!("section ({})", chapter.letter))?;
        section.letter = chapter.letter;
        chapter.title.clone_into(&mut section.title);
        section.seconds = start.elapsed().as_secs_f64();
        store.save(&section)?;
        sections.push(section);
    }
    Ok(sections)
}

fn print(report: &Report, args: &Study) {
    println!("{}: {} layers, {} weights", report.model, report.layers, report.weights);
    for section in &report.sections {
        println!("\n({}) {} [{:.1} s]", section.letter, section.title, section.seconds);
        for line in &section.found {
            println!("  {line}");
        }
    }
    println!("\nthe page: {}", args.output.join("study.html").display());
}
