//! A crew that goes on without a lost worker: what it says, and that the bounds it states hold.

use std::sync::Arc;

use fpxint::ActivationClip;
use fpxint_runtime::{Crew, Model, Options, Sharing};

use crate::build::{model, node, tensor, wave};
use crate::{array, bits, feed, load, models, options};

fn crew(workers: usize) -> Sharing {
    Sharing::Crew(Crew { allow_missing: true, ..Crew::of(workers) })
}

fn error(model: &Model, worker: usize) -> String {
    model.lose(worker).unwrap_err().to_string()
}

#[test]
fn without_whole_last_terms_a_crew_is_the_prefix() {
    for (source, input, shape) in models() {
        let x = feed(input, array(&[&[2], &shape[..]].concat(), 0.4));
        let options = Options { asymmetric: source.layers().len() % 2 == 1, ..options("int4x4", "int4x2") };
        let all = load(&source, &Options { sharing: crew(4), ..options.clone() });
        let whole = bits(&all.run(&x).unwrap());
        assert!(all.missing().is_none());
        for kept in [3u32, 2] {
            all.lose(kept as usize).unwrap();
            let prefix = load(&source, &Options { weight_terms: Some(kept), ..options.clone() });
            let got = bits(&all.run(&x).unwrap());
            assert_eq!(got, bits(&prefix.run(&x).unwrap()), "{kept} terms");
            assert_ne!(got, whole);
            let missing = all.missing().unwrap();
            assert_eq!(missing.workers, (kept as usize..4).collect::<Vec<_>>());
            assert_eq!(missing.layers.len(), source.layers().len());
            for (layer, info) in missing.layers.iter().zip(source.layers()) {
                assert_eq!(layer.name, info.name);
                let terms: Vec<u32> = layer.members.iter().flat_map(|m| m.weights.clone()).collect();
                assert_eq!(terms, (kept + 1..=4).collect::<Vec<_>>());
                assert!(layer.weight_bound.is_some_and(|bound| bound > 0.0) && layer.output_bound > 0.0);
            }
        }
    }
}

#[test]
fn an_output_stays_within_the_bound_of_what_is_missing() {
    let weights = tensor("w", &[24, 40], &wave(960, 0.71, 0.4));
    let source = model(&[-1, 24], vec![node("MatMul", &["x", "w"], "y", vec![])], vec![weights]);
    let x = array(&[5, 24], 0.37);
    let steps: Vec<f32> = x
        .outer_iter()
        .map(|row| {
            let (low, high) = row.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
            (high - low) / 65535.0
        })
        .collect();
    let run = |model: &Model| model.run(&feed("x", x.clone())).unwrap()[0].1.to_f32();
    for (asymmetric, workers) in [3, 6, 12].into_iter().flat_map(|workers| [(false, workers), (true, workers)]) {
        let options = Options { asymmetric, ..options("int4x3", "int4x4") };
        let whole = run(&load(&source, &Options { sharing: crew(workers), ..options.clone() }));
        for worker in 1..workers {
            let model = load(&source, &Options { sharing: crew(workers), ..options.clone() });
            model.lose(worker).unwrap();
            let bound = model.missing().unwrap().layers[0].output_bound;
            let got = run(&model);
            let worst = got.iter().zip(&whole).enumerate();
            let worst =
                worst.map(|(i, (a, b))| f64::from((a - b).abs()) / f64::from(steps[i / 40])).fold(0.0, f64::max);
            assert!(worst > 0.0 && worst <= bound * 1.0001, "{worst} of {bound}: {worker} of {workers}");
        }
    }
}

#[test]
fn what_lies_beyond_a_clip_is_kept_without_the_last_terms() {
    let weights = tensor("w", &[200, 40], &wave(8000, 0.71, 0.4));
    let source = model(&[-1, 200], vec![node("MatMul", &["x", "w"], "y", vec![])], vec![weights]);
    let mut x = array(&[5, 200], 0.37);
    x.outer_iter_mut().enumerate().for_each(|(r, mut row)| row[[7 * r]] = 40.0);
    let x = feed("x", x);
    let clipped = Options { activation_clip: Some(ActivationClip::Laplace), ..options("int4x4", "int4x2") };
    let prefix = load(&source, &Options { weight_terms: Some(3), ..clipped.clone() });
    let all = load(&source, &Options { sharing: crew(4), ..clipped });
    all.lose(3).unwrap();
    let got = bits(&all.run(&x).unwrap());
    assert_eq!(got, bits(&prefix.run(&x).unwrap()));
    let whole = load(&source, &Options { weight_terms: Some(3), ..options("int4x4", "int4x2") });
    assert_ne!(got, bits(&whole.run(&x).unwrap()), "something is clipped");
}

#[test]
fn a_lost_first_term_and_a_worker_that_is_needed_are_refused() {
    let (source, ..) = models().swap_remove(0);
    let model = load(&source, &Options { sharing: crew(4), ..options("int4x2", "int4x2") });
    let name = &source.layers()[0].name;
    assert!(
        error(&model, 0).contains(&format!("worker 0: had the first term of layer `{name}`")),
        "{}",
        error(&model, 0)
    );
    assert!(error(&model, 4).contains("there are 4"));
    assert!(model.missing().is_none());
    model.lose(3).unwrap();
    model.lose(3).unwrap();
    assert!(error(&model, 0).contains("first term"));
    let needed = load(&source, &Options { sharing: Sharing::Crew(Crew::of(4)), ..options("int4x2", "int4x2") });
    assert!(error(&needed, 3).contains("not allowed"));
    assert!(error(&load(&source, &options("int4x2", "int4x2")), 0).contains("no workers"));
}

#[test]
fn a_worker_that_fails_is_lost_from_there_on() {
    let (source, input, shape) = models().swap_remove(0);
    let x = feed(input, array(&[&[1], &shape[..]].concat(), 0.4));
    for threads in [1, 2] {
        let failing = |allow_missing| {
            let watch: Arc<dyn Fn(usize, usize) + Send + Sync> = Arc::new(|worker, layer| {
                assert!((worker, layer) != (2, 1), "out of luck");
            });
            let sharing = Sharing::Crew(Crew { allow_missing, watch: Some(watch), ..Crew::of(4) });
            load(&source, &Options { sharing, threads, ..options("int4x4", "int4x2") })
        };
        let model = failing(true);
        let first = bits(&model.run(&x).unwrap());
        assert_eq!(model.missing().unwrap().workers, [2]);
        // The first layer was whole in that run and is not in the next.
        let second = bits(&model.run(&x).unwrap());
        assert_ne!(first, second);
        let lost = load(&source, &Options { sharing: crew(4), ..options("int4x4", "int4x2") });
        lost.lose(2).unwrap();
        assert_eq!(second, bits(&lost.run(&x).unwrap()));
        let message = failing(false).run(&x).unwrap_err().to_string();
        assert!(message.contains("worker 2: failed: out of luck"), "{message}");
    }
}
