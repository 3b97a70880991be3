//! Texts, tokenizers and text models that do not fit each other, for `eval`.

use fpxint_onnx::proto::tensor_proto::DataType;

use crate::encoders::{Head, MNLI, SQUAD, STS, encoder, folder, tokenizer};
use crate::models::{colour, floats, noise, value};
use crate::program::Folder;

const STS_B: &str = "eval sts.onnx --task sts-b --data sts-dev.csv";
const NLI: &str = "eval mnli.onnx --task mnli --data mnli.tsv";
const QUESTIONS: &str = "eval squad.onnx --task squad --data squad.json";

/// Checks that `line` is refused after `name` was written.
fn refused(line: &str, name: &str, bytes: impl AsRef<[u8]>, words: &[&str]) {
    let folder = folder();
    folder.write(name, bytes);
    folder.refuses(line, words);
}

#[test]
fn sentence_pairs_that_are_none_are_named_with_their_line() {
    let sts = |bytes: &[u8], words: &[&str]| refused(STS_B, "sts-dev.csv", bytes, &[&["sts-dev.csv"], words].concat());
    sts(b"", &["no sentence pairs"]);
    sts(b"\n\n", &["no sentence pairs"]);
    sts(b"score\tsentence1\tsentence2\n", &["no sentence pairs"]);
    sts(b"a\tb\tc\td\t5\te\n", &["line 1", "6 columns", "column 7"]);
    sts(&[STS.as_bytes(), b"a\tb\tc\td\tfive\te\tf\n"].concat(), &["line 5", "`five`"]);
    sts(b"a\tb\tc\td\tNaN\te\tf\n", &["line 1", "`NaN`"]);
    sts(b"a\tb\tc\td\tinf\te\tf\n", &["line 1", "`inf`"]);
    sts(b"a\tb\tc\td\t1\te\tf\na\tb\tc\td\t1\t\xff\tf\n", &["line 2", "UTF-8"]);
    let folder = folder();
    folder.refuses("eval sts.onnx --task sts-b --data none.csv", &["none.csv", "No such file"]);
    folder.write("dev.tsv", "");
    folder.refuses("eval sts.onnx --task sts-b --data .", &["sts-dev.csv", "dev.tsv", "name one"]);
    std::fs::create_dir(folder.path("empty")).unwrap();
    folder.refuses("eval sts.onnx --task sts-b --data empty", &["empty", "none of sts-dev.csv"]);
}

#[test]
fn labels_that_are_none_are_named_with_their_line() {
    let mnli = |bytes: &[u8], words: &[&str]| refused(NLI, "mnli.tsv", bytes, &[&["mnli.tsv"], words].concat());
    mnli(b"", &["no labelled"]);
    mnli(b"0\tred\tcar\tneutral\n", &["line 1", "header"]);
    mnli(&[MNLI.as_bytes(), b"5\tred\tcar\tmaybe\n"].concat(), &["line 7", "`maybe`"]);
    mnli(&[MNLI.as_bytes(), b"5\tred\n"].concat(), &["line 7", "2 columns"]);
    mnli(b"{\"premise\": 3}", &["line 1", "invalid type"]);
    mnli(b"{\"premise\": \"a\", \"hypothesis\": \"b\", \"label\": 9}", &["line 1", "`9`"]);
    mnli(b"{\"premise\": \"a\", \"hypothesis\": \"b\", \"label\": -1}", &["no labelled"]);
    for labels in ["entailment", "entailment,neutral,neutral", "a,b,c", "entailment,neutral,contradiction,neutral"] {
        folder().refuses(&format!("{NLI} --labels {labels}"), &["--labels", "once each"]);
    }
}

#[test]
fn questions_that_are_none_are_refused() {
    let squad = |text: &str, words: &[&str]| refused(QUESTIONS, "squad.json", text, &[&["squad.json"], words].concat());
    squad("", &["line 1"]);
    squad("[]", &["line 1"]);
    squad("{\"data\": [", &["line 1"]);
    squad("{\"data\": []}", &["no questions"]);
    squad(&SQUAD.replace("\"answers\"", "\"answer\""), &["missing field `answers`", "line 3"]);
    squad(&SQUAD.replace("\"where\"", "7"), &["invalid type", "line 7"]);
    squad(&"[".repeat(100_000), &["line 1"]);
    let folder = folder();
    folder.write("squad.json", SQUAD.replace("who", ""));
    folder.run(QUESTIONS).done();
    folder.write("squad.json", SQUAD.replace("green red house", ""));
    folder.run(QUESTIONS).done();
}

#[test]
fn files_that_are_no_tokenizers_are_refused() {
    let whole = tokenizer();
    let broken = [
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        "no JSON".to_owned(),
        whole.replace("WordLevel", "Nothing"),
        whole[..whole.len() - 9].to_owned(),
    ];
    for text in broken {
        refused(STS_B, "tokenizer.json", text, &["tokenizer.json: not a tokenizer.json"]);
    }
    folder().refuses(&format!("{STS_B} --tokenizer nothing.json"), &["nothing.json", "No such file"]);
    // Neither a word nor anything else is left of a sentence.
    let bare = whole.replace(r#"{"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}"#, "null");
    let folder = folder();
    folder.write("tokenizer.json", bare);
    folder.run(STS_B).done();
    folder.write("sts-dev.csv", format!("{STS}a\tb\tc\td\t5\tred\t\n"));
    folder.refuses(STS_B, &["sts-dev.csv", "line 5", "no tokens"]);
}

#[test]
fn tokens_that_the_model_does_not_know_are_refused() {
    let folder = folder();
    for id in ["16", "4000000000"] {
        folder.write("tokenizer.json", tokenizer().replace("\"red\": 4", &format!("\"red\": {id}")));
        for flags in ["", "--weights int4x2"] {
            folder.refuses(&format!("{STS_B} {flags}"), &[&format!("ids up to {id}")]);
        }
    }
    folder.model("int32.onnx", &encoder(Head::Hidden, DataType::Int32, -1, -2));
    folder.refuses("eval int32.onnx --task sts-b --data sts-dev.csv", &["token 4000000000"]);
}

#[test]
fn models_that_do_not_take_or_give_what_is_needed_are_refused() {
    let folder = folder();
    let edited = |head: Head, words: &[&str], edit: &dyn Fn(&mut fpxint_onnx::proto::GraphProto)| {
        let mut model = encoder(head, DataType::Int64, -1, -2);
        edit(model.graph.as_mut().unwrap());
        folder.model("edited.onnx", &model);
        let line = match head {
            Head::Classes => NLI.replace("mnli.onnx", "edited.onnx"),
            Head::Spans => QUESTIONS.replace("squad.onnx", "edited.onnx"),
            _ => STS_B.replace("sts.onnx", "edited.onnx"),
        };
        folder.refuses(&line, words);
        folder.refuses(&format!("{line} --weights int4x2"), words);
    };
    edited(Head::Hidden, &["no input `attention_mask`"], &|graph| drop(graph.input.remove(0)));
    edited(Head::Hidden, &["`position_ids`"], &|graph| {
        graph.input.push(value("position_ids", DataType::Int64, &[-1, -2]));
    });
    edited(Head::Hidden, &["`attention_mask`", "int64"], &|graph| {
        graph.input[0] = value("attention_mask", DataType::Float, &[-1, -2]);
    });
    edited(Head::Hidden, &["`last_hidden_state`", "NaN"], &|graph| {
        graph.initializer[0] = floats("table", &[16, 8], noise(128).map(|_| f32::NAN));
    });
    edited(Head::Classes, &["`logits`", "three classes"], &|graph| {
        let classes = graph.initializer.iter_mut().find(|t| t.name.as_deref() == Some("classes")).unwrap();
        *classes = floats("classes", &[8, 2], noise(16));
        graph.output[0] = value("logits", DataType::Float, &[-1, 2]);
    });
    edited(Head::Spans, &["no output `start_logits`"], &|graph| drop(graph.output.remove(1)));
    folder.refuses(&STS_B.replace("sts.onnx", "mnli.onnx"), &["no output holds embeddings"]);
    folder.refuses(&format!("{STS_B} --reference mnli.onnx"), &["no output holds embeddings", "the reference"]);
    folder.model("colour.onnx", &colour(-1, 32, 10));
    folder.refuses(&STS_B.replace("sts.onnx", "colour.onnx"), &["`input`", "input_ids"]);
    folder.model("narrow.onnx", &encoder(Head::Hidden, DataType::Int64, -1, 5));
    folder.refuses(&STS_B.replace("sts.onnx", "narrow.onnx"), &["line 1", "special tokens leave no room"]);
}

#[test]
fn flags_of_other_tasks_are_refused() {
    let folder = folder();
    for flag in ["--preset tf", "--resize 256", "--crop 224"] {
        let name = flag.split(' ').next().unwrap();
        for line in [STS_B, NLI, QUESTIONS] {
            folder.refuses(&format!("{line} {flag}"), &[name, "images"]);
        }
    }
    for flag in ["--tokenizer tokenizer.json", "--max-length 64"] {
        let name = flag.split(' ').next().unwrap();
        folder.refuses(&format!("eval sts.onnx --task cifar10 --data x.npz {flag}"), &[name, "text", "cifar10"]);
    }
    let order = "--labels entailment,neutral,contradiction";
    folder.refuses(&format!("{STS_B} {order}"), &["--labels", "mnli", "sts-b"]);
    folder.refuses(&format!("{STS_B} --max-length 7"), &["--max-length"]);
    folder.refuses("eval sts.onnx --task stsb --data x", &["--task", "sts-b"]);
}

#[test]
fn nothing_is_known_of_an_empty_folder() {
    let folder = Folder::empty();
    folder.refuses(STS_B, &["sts-dev.csv"]);
}
