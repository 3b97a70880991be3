//! `fpxint eval` on text, with data sets that say what must come out.

use std::fs;

use fpxint_onnx::proto::tensor_proto::DataType;

use crate::encoders::{Head, SQUAD, STS, encoder, folder};
use crate::program::{keys, number};

const EVAL: [&str; 3] = [
    "eval sts.onnx --json --task sts-b --data sts-dev.csv",
    "eval mnli.onnx --json --task mnli --data mnli.tsv",
    "eval squad.onnx --json --task squad --data squad.json",
];
const INT8X2: &str = "--weights int8x2 --activations int8x2";

#[test]
fn sentences_are_as_alike_as_their_embeddings() {
    let folder = folder();
    let fp32 = folder.run(EVAL[0]).done().json();
    assert_eq!(keys(&fp32), ["activations", "count", "metrics", "task", "weights"]);
    assert_eq!((fp32["task"].as_str(), fp32["count"].as_u64()), (Some("sts-b"), Some(4)));
    assert_eq!(keys(&fp32["metrics"]), ["pearson", "spearman"]);
    assert!((number(&fp32["metrics"], "spearman") - 1.0).abs() < 1e-9);

    let line = format!("{} {INT8X2} --reference sts.onnx", EVAL[0]);
    let report = folder.run(&line).done().json();
    let reference = &report["reference"];
    assert_eq!(keys(reference), ["agreement", "cosine", "cosine_min", "metrics", "outputs"]);
    assert_eq!((&reference["metrics"], &reference["agreement"]), (&fp32["metrics"], &reference["cosine"]));
    assert!(number(reference, "cosine_min") > 0.9999 && number(reference, "cosine") < 1.0 + 1e-12, "{report}");
    let table = folder.run(&line.replace(" --json", "")).done();
    assert!(table.stdout.contains("4 sentence pairs") && table.stdout.contains("Spearman"), "{table:?}");
    assert!(table.stdout.contains("  16      16    1.0000"), "{table:?}");

    let sentence = folder.run(&EVAL[0].replace("sts.onnx", "sentence.onnx")).done().json();
    assert!(sentence["metrics"] != fp32["metrics"], "{sentence}");
    let one = folder.run(&format!("{} --limit 1", EVAL[0])).done().json();
    assert!(one["metrics"]["spearman"].is_null() && one["count"].as_u64() == Some(1), "{one}");
    let table = folder.run("eval sts.onnx --task sts-b --data sts-dev.csv --limit 1").done();
    assert!(table.stdout.trim_end().ends_with('-'), "{table:?}");
}

#[test]
fn pairs_have_the_class_that_the_order_says() {
    let folder = folder();
    let report = folder.run(&format!("{} {INT8X2} --reference mnli.onnx", EVAL[1])).done().json();
    assert_eq!((report["count"].as_u64(), number(&report["metrics"], "accuracy")), (Some(4), 0.75));
    assert_eq!(number(&report["reference"], "agreement"), 1.0);
    assert_eq!(keys(&report["reference"]), ["agreement", "metrics"]);
    let accuracy =
        |flags: &str| number(&folder.run(&format!("{} {flags}", EVAL[1])).done().json()["metrics"], "accuracy");
    assert_eq!(accuracy("--labels contradiction,neutral,entailment"), 0.25);
    assert_eq!(accuracy("--labels entailment,contradiction,neutral"), 0.5);
    assert_eq!(accuracy("--limit 3"), 1.0);
    let table = folder.run(&EVAL[1].replace(" --json", "")).done();
    assert!(table.stdout.contains("4 sentence pairs") && table.stdout.contains("75.00 %"), "{table:?}");

    let json = r#"{"premise": "red", "hypothesis": "yes red", "label": 0}
        {"premise": "yes red", "hypothesis": "blue", "label": 2}"#;
    folder.write("mnli.jsonl", json);
    let report = folder.run(&EVAL[1].replace(".tsv", ".jsonl")).done().json();
    assert_eq!((report["count"].as_u64(), number(&report["metrics"], "accuracy")), (Some(2), 1.0));
}

#[test]
fn answers_are_parts_of_the_paragraph() {
    let folder = folder();
    let report = folder.run(&format!("{} {INT8X2} --reference squad.onnx", EVAL[2])).done().json();
    assert_eq!((report["task"].as_str(), report["count"].as_u64()), (Some("squad"), Some(3)));
    // `Dark - Red Car` to all: right, then F1 of two words in three and three, and no answer at 4 against 3.
    assert!((number(&report["metrics"], "exact_match") - 2.0 / 3.0).abs() < 1e-9, "{report}");
    assert!((number(&report["metrics"], "f1") - (1.0 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-9, "{report}");
    assert_eq!(number(&report["reference"], "agreement"), 1.0);
    assert_eq!(report["reference"]["metrics"], report["metrics"]);
    let table = folder.run(&EVAL[2].replace(" --json", "")).done();
    assert!(table.stdout.contains("3 questions") && table.stdout.contains("exact match"), "{table:?}");

    // Where every question has an answer, `red` is one, too.
    folder.write(
        "squad.json",
        SQUAD.replace(r#""is_impossible": true, "answers": []"#, r#""answers": [{"text": "red"}]"#),
    );
    assert_eq!(number(&folder.run(EVAL[2]).done().json()["metrics"], "exact_match"), 2.0 / 3.0);
}

#[test]
fn long_paragraphs_are_searched_to_the_end() {
    let folder = folder();
    let words = ["green house tree. "; 200].concat();
    folder.write("squad.json", SQUAD.replace("Yes, the Dark", &format!("{words} Yes, the Dark")));
    for flags in ["", "--max-length 32", "--max-length 8"] {
        let report = folder.run(&format!("{} {flags}", EVAL[2])).done().json();
        let found = number(&report["metrics"], "exact_match");
        // Windows of eight tokens part the words.
        assert!(if flags.ends_with('8') { found < 0.5 } else { found > 0.6 }, "{flags}: {report}");
    }
}

#[test]
fn fixed_sizes_and_int32_change_nothing() {
    let folder = folder();
    for (line, head) in EVAL.iter().zip([Head::Hidden, Head::Classes, Head::Spans]) {
        let open = ["", INT8X2].map(|flags| folder.run(&format!("{line} {flags}")).done().json());
        for (integers, batch, length) in
            [(DataType::Int32, -1, -2), (DataType::Int64, 3, -2), (DataType::Int32, 2, 24), (DataType::Int64, 1, 16)]
        {
            folder.model("fixed.onnx", &encoder(head, integers, batch, length));
            let (_, rest) = line.split_once(".onnx").unwrap();
            for (flags, open) in ["", INT8X2].iter().zip(&open) {
                let report = folder.run(&format!("eval fixed.onnx {rest} {flags}")).done().json();
                assert_eq!(report["metrics"], open["metrics"], "{batch} {length}: {line}");
            }
        }
        let reference = folder.run(&format!("{line} --reference fixed.onnx")).done().json();
        assert_eq!(reference["reference"]["metrics"], open[0]["metrics"], "{line}");
    }
}

#[test]
fn neighbours_and_threads_change_nothing() {
    let folder = folder();
    let precise = "--weights int4x2 --activations int4x2 --json --task sts-b --data sts-dev.csv";
    let many = STS.repeat(40);
    let sizes = |text: &str, threads: u8| {
        folder.write("sts-dev.csv", text);
        folder.run(&format!("eval sts.onnx {precise} --reference sts.onnx --threads {threads}")).done().json()
    };
    let few = sizes(STS, 1);
    for threads in [1, 2, 5] {
        let report = sizes(&many, threads);
        assert_eq!(report["reference"]["cosine_min"], few["reference"]["cosine_min"]);
        assert!((number(&report["metrics"], "pearson") - number(&few["metrics"], "pearson")).abs() < 1e-12);
    }
}

#[test]
fn the_tokenizer_is_found_beside_the_model_or_the_data() {
    let folder = folder();
    let report = folder.run(EVAL[0]).done().json();
    fs::create_dir(folder.path("data")).unwrap();
    for (from, to) in [("tokenizer.json", "data/tokenizer.json"), ("sts-dev.csv", "data/sts-dev.csv")] {
        fs::rename(folder.path(from), folder.path(to)).unwrap();
    }
    let line = EVAL[0].replace("sts-dev.csv", "data");
    assert_eq!(folder.run(&line).done().json(), report);
    fs::rename(folder.path("data/tokenizer.json"), folder.path("words.json")).unwrap();
    folder.refuses(&line, &["sts.onnx", "tokenizer.json", "--tokenizer"]);
    assert_eq!(folder.run(&format!("{line} --tokenizer words.json")).done().json(), report);
}
