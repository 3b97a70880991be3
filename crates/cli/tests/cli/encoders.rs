//! Small encoders, a tokenizer of whole words, and data sets on which they have known scores.

use fpxint_onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto, tensor_proto::DataType};

use crate::models::{floats, node, noise, raw, value};
use crate::program::Folder;

/// The words that the tokenizer knows, with the numbers from 4.
const WORDS: [&str; 12] =
    ["red", "green", "blue", "dark", "light", "car", "house", "tree", "who", "where", "what", "yes"];
/// Rows of the embedding table.
const ROWS: usize = 4 + WORDS.len();
/// Width of an embedding.
const WIDTH: usize = 8;

/// A tokenizer of words in BERT's layout, whose saved lengths would spoil everything.
pub fn tokenizer() -> String {
    let special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"];
    let words: Vec<String> =
        special.iter().chain(&WORDS).enumerate().map(|(id, word)| format!("\"{word}\": {id}")).collect();
    format!(
        r#"{{"version": "1.0",
            "truncation": {{"max_length": 3, "strategy": "LongestFirst", "stride": 0}},
            "padding": {{"strategy": {{"Fixed": 70}}, "direction": "Left", "pad_id": 3, "pad_type_id": 0,
                "pad_token": "[UNK]", "pad_to_multiple_of": null}},
            "added_tokens": [], "normalizer": {{"type": "Lowercase"}}, "pre_tokenizer": {{"type": "Whitespace"}},
            "post_processor": {{"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}}, "decoder": null,
            "model": {{"type": "WordLevel", "vocab": {{{}}}, "unk_token": "[UNK]"}}}}"#,
        words.join(", ")
    )
}

/// What an encoder is for.
#[derive(Clone, Copy, PartialEq)]
pub enum Head {
    /// A hidden state a token.
    Hidden,
    /// One embedding a sentence, the model's own.
    Sentence,
    /// Three classes a pair.
    Classes,
    /// Scores for where an answer starts and ends.
    Spans,
}

/// An encoder: the embedding of every token times constant weights, then the head. What stands at a masked token would spoil
/// every mean over tokens. Open sizes are -1 for the batch and -2 for the length.
pub fn encoder(head: Head, integers: DataType, batch: i64, length: i64) -> ModelProto {
    let input = |name| value(name, integers, &[batch, length]);
    let mut graph = GraphProto {
        name: Some("encoder".into()),
        input: vec![input("attention_mask"), input("input_ids")],
        initializer: vec![
            floats("table", &[ROWS as i64, WIDTH as i64], noise(ROWS * WIDTH).map(|v| 2.0 * v - 1.0)),
            floats("weights", &[8, 8], (0..64).map(|i| if i % 9 == 0 { 1.0 } else { 0.0 })),
        ],
        node: vec![
            node("Gather", "embed", &["table", "input_ids"], "embedded", &[]),
            node("MatMul", "mix", &["embedded", "weights"], "hidden", &[]),
        ],
        ..Default::default()
    };
    match head {
        Head::Hidden => {
            graph.node[1].output[0] = "last_hidden_state".into();
            graph.output = vec![value("last_hidden_state", DataType::Float, &[batch, length, 8])];
        }
        Head::Sentence => {
            graph.node.push(node(
                "ReduceMax",
                "pool",
                &["hidden"],
                "sentence_embedding",
                &[("axes", &[1]), ("keepdims", &[0])],
            ));
            graph.output = vec![
                value("hidden", DataType::Float, &[batch, length, 8]),
                value("sentence_embedding", DataType::Float, &[batch, 8]),
            ];
        }
        Head::Classes => {
            graph.input.push(input("token_type_ids"));
            classes(&mut graph, batch);
        }
        Head::Spans => spans(&mut graph, batch, length),
    }
    let import = OperatorSetIdProto { domain: Some(String::new()), version: Some(13) };
    ModelProto { ir_version: Some(8), opset_import: vec![import], graph: Some(graph), ..Default::default() }
}

/// Classes by the words of the second text: `yes` there outweighs the third class, `red` the second.
fn classes(graph: &mut GraphProto, batch: i64) {
    let mut table = vec![0f32; ROWS * WIDTH];
    (table[15 * WIDTH], table[4 * WIDTH + 1], table[2 * WIDTH + 2]) = (9.0, 4.0, 1.0);
    graph.initializer[0] = floats("table", &[ROWS as i64, WIDTH as i64], table);
    graph.initializer.push(floats("classes", &[8, 3], (0..24).map(|i| if i % 4 == 0 { 1.0 } else { 0.0 })));
    graph.initializer.push(raw("last", DataType::Int64, &[1], (-1i64).to_le_bytes().to_vec()));
    graph.node.extend([
        node("Cast", "types", &["token_type_ids"], "second", &[("to", &[1])]),
        node("Unsqueeze", "column", &["second", "last"], "factor", &[]),
        node("Mul", "choose", &["hidden", "factor"], "chosen", &[]),
        node("ReduceMax", "pool", &["chosen"], "pooled", &[("axes", &[1]), ("keepdims", &[0])]),
        node("MatMul", "classify", &["pooled", "classes"], "logits", &[]),
    ]);
    graph.output = vec![value("logits", DataType::Float, &[batch, 3])];
}

/// From `dark` to `car` an answer scores 6, `red` alone 3; that there is none scores 4, that of `[CLS]`.
fn spans(graph: &mut GraphProto, batch: i64, length: i64) {
    let mut table = vec![-1f32; ROWS * WIDTH];
    let mut set = |word: usize, start: f32, end: f32| (table[word * WIDTH], table[word * WIDTH + 1]) = (start, end);
    set(1, 2.0, 2.0);
    set(4, 1.5, 1.5);
    set(7, 3.0, 0.0);
    set(9, 0.0, 3.0);
    graph.initializer[0] = floats("table", &[ROWS as i64, WIDTH as i64], table);
    let column = |name: &str, row: usize| floats(name, &[8, 1], (0..8).map(|i| if i == row { 1.0 } else { 0.0 }));
    graph.initializer.extend([column("start", 0), column("end", 1)]);
    graph.initializer.push(raw("last", DataType::Int64, &[1], (-1i64).to_le_bytes().to_vec()));
    graph.node.extend([
        node("MatMul", "starts", &["hidden", "start"], "start_column", &[]),
        node("Squeeze", "start_row", &["start_column", "last"], "start_logits", &[]),
        node("MatMul", "ends", &["hidden", "end"], "end_logits", &[]),
    ]);
    graph.output = vec![
        value("end_logits", DataType::Float, &[batch, length, 1]),
        value("start_logits", DataType::Float, &[batch, length]),
    ];
}

/// Sentence pairs whose cosines rank as their scores do for an encoder that is a bag of words.
pub const STS: &str = "main\tnews\t2015\t1\t5.0\tred car\tred car\n\
    main\tnews\t2015\t2\t4.0\tthe dark red car\tdark red car and house\textra\n\
    main\tnews\t2015\t3\t0.5\tblue tree who\tlight house yes green\n\
    main\tnews\t2015\t4\t0\twhere what what what where where yes\tred\n";

/// A premise and hypothesis a line; the classes are those of [`encoder`].
pub const MNLI: &str = "index\tsentence1\tsentence2\tgold_label\n\
    0\tred\tyes red\tentailment\n\
    1\tyes\tred car\tneutral\n\
    2\tyes red\tblue\tcontradiction\n\
    3\tred\tyes\t-\n\
    4\tyes\tgreen\tneutral\n";

/// Questions of which the third has no answer.
pub const SQUAD: &str = r#"{"version": "v2.0", "data": [{"title": "t", "paragraphs": [
    {"context": "Yes, the Dark - Red Car! House.", "qas": [
        {"id": "a", "question": "what car", "answers": [{"text": "dark red car", "answer_start": 9}]},
        {"id": "b", "question": "who", "is_impossible": false,
            "answers": [{"text": "tree", "answer_start": 0}, {"text": "red car house", "answer_start": 0}]}]},
    {"context": "green red house", "qas": [
        {"id": "c", "question": "where", "is_impossible": true, "answers": []}]}]}]}"#;

/// A folder with a tokenizer, a model for every task and the data sets.
pub fn folder() -> Folder {
    let folder = Folder::empty();
    folder.write("tokenizer.json", tokenizer());
    for (name, head) in [
        ("sts.onnx", Head::Hidden),
        ("sentence.onnx", Head::Sentence),
        ("mnli.onnx", Head::Classes),
        ("squad.onnx", Head::Spans),
    ] {
        folder.model(name, &encoder(head, DataType::Int64, -1, -2));
    }
    folder.write("sts-dev.csv", STS);
    folder.write("mnli.tsv", MNLI);
    folder.write("squad.json", SQUAD);
    folder
}
