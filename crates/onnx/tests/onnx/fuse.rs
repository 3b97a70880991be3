//! What is fused into one node, and what is not. The values of fused graphs are compared in `tests/ort/fuse_cases.py`.

use crate::build::*;
use fpxint_onnx::proto::{GraphProto, ModelProto, NodeProto, tensor_proto::DataType};
use fpxint_onnx::{DOMAIN, Model, fuse, skeleton};
use prost::Message;

const WIDTH: i64 = 12;
const HEADS: i64 = 3;

fn fused(build: &Build) -> GraphProto {
    let mut graph = build.proto.graph.clone().unwrap();
    fuse(&mut graph, 14);
    graph
}

fn kinds(graph: &GraphProto) -> Vec<&str> {
    graph.node.iter().map(|node| node.op_type()).collect()
}

fn attribute(node: &NodeProto, name: &str) -> (i64, f32, String) {
    let a = node.attribute.iter().find(|a| a.name() == name).unwrap();
    (a.i(), a.f(), String::from_utf8(a.s().to_vec()).unwrap())
}

fn encoder_input(rank: usize) -> Build {
    let mut build = Build::new(14, &[-1, 5, WIDTH], rank);
    build.graph().input[0] = value("x", DataType::Float, &[-1, 5, WIDTH]);
    build
}

fn layer_norm(axis: i64) -> Build {
    let mean = |x: &str, y: &str| node("ReduceMean", &[x], y, vec![ints("axes", &[axis])]);
    encoder_input(3)
        .floats("two", &[], &[2.0])
        .floats("epsilon", &[], &[1e-5])
        .floats("w", &[WIDTH], &ramp(12))
        .floats("b", &[WIDTH], &ramp(12))
        .node(mean("x", "m"))
        .op("Sub", &["x", "m"], "d")
        .op("Pow", &["d", "two"], "d2")
        .node(mean("d2", "v"))
        .op("Add", &["v", "epsilon"], "ve")
        .op("Sqrt", &["ve"], "s")
        .op("Div", &["d", "s"], "n")
        .op("Mul", &["n", "w"], "nw")
        .op("Add", &["nw", "b"], "y")
}

#[test]
fn a_layer_norm_is_one_node() {
    for axis in [-1, 2] {
        let graph = fused(&layer_norm(axis));
        let [norm] = graph.node.as_slice() else { panic!("{:?}", kinds(&graph)) };
        assert_eq!((norm.domain(), norm.op_type(), norm.name()), (DOMAIN, "FpxLayerNorm", "Add_y"));
        assert_eq!((norm.input.join(" "), norm.output.join(" ")), ("x w b".to_owned(), "y".to_owned()));
        assert_eq!(attribute(norm, "epsilon").1, 1e-5);
        assert_eq!(graph.initializer.iter().map(|t| t.name()).collect::<Vec<_>>(), ["w", "b"]);
    }
    let across = layer_norm(1);
    assert!(fused(&across) == across.proto.graph.unwrap());
}

#[test]
fn a_skeleton_holds_fused_nodes_but_for_what_is_exposed() {
    let mut model = layer_norm(-1).model();
    let kinds_of = |model: &Model| {
        let proto = ModelProto::decode(skeleton(model).unwrap().as_slice()).unwrap();
        kinds(&proto.graph.unwrap()).join(" ")
    };
    assert_eq!(kinds_of(&model), "FpxLayerNorm");
    model.expose(&["n".to_owned()]).unwrap();
    assert_eq!(kinds_of(&model), "ReduceMean Sub Pow ReduceMean Add Sqrt Div Mul Add");
}

#[test]
fn what_is_read_elsewhere_stays() {
    let mut build = layer_norm(-1);
    build.graph().output.push(value("n", DataType::Float, &[-1, 5, WIDTH]));
    assert!(fused(&build) == build.proto.graph.unwrap());
    let inner = GraphProto { output: vec![value("n", DataType::Float, &[])], ..Default::default() };
    let mut build = layer_norm(-1).tensor(raw("c", DataType::Bool, &[], vec![1]));
    let branches = vec![body("then_branch", inner.clone()), body("else_branch", inner)];
    build = build.node(node("If", &["c"], "z", branches));
    build.graph().output.push(value("z", DataType::Float, &[-1, 5, WIDTH]));
    assert!(fused(&build) == build.proto.graph.unwrap());
}

fn gelu(half: f32) -> Build {
    encoder_input(3)
        .floats("root", &[], &[std::f32::consts::SQRT_2])
        .floats("one", &[], &[1.0])
        .floats("half", &[], &[half])
        .op("Div", &["x", "root"], "a")
        .op("Erf", &["a"], "e")
        .op("Add", &["e", "one"], "g")
        .op("Mul", &["x", "g"], "xg")
        .op("Mul", &["half", "xg"], "y")
}

#[test]
fn a_gelu_is_one_node() {
    let graph = fused(&gelu(0.5));
    assert_eq!((kinds(&graph), graph.initializer.len()), (vec!["FpxGelu"], 0));
    assert_eq!(attribute(&graph.node[0], "approximate").2, "none");
    let other = gelu(0.502);
    assert!(fused(&other) == other.proto.graph.unwrap());
}

/// Self-attention of layers that the skeleton has made, with a mask by choice of scores.
fn attention(shape: &[i64], perm: &[i64]) -> Build {
    let layer = |i: i64, y: &str| NodeProto {
        domain: Some(DOMAIN.into()),
        ..node("FpxMatMul", &["x"], y, vec![int("layer", i), int("k", WIDTH), int("n", WIDTH)])
    };
    let transpose = |x: &str, y: &str, perm: &[i64]| node("Transpose", &[x], y, vec![ints("perm", perm)]);
    let mut build = encoder_input(3)
        .tensor(int64s("heads", shape))
        .tensor(int64s("joined", &[0, 0, WIDTH]))
        .floats("scale", &[], &[0.5])
        .floats("low", &[], &[-1e9]);
    build.graph().input.push(value("mask", DataType::Bool, &[-1, 1, 1, 5]));
    for (i, name) in [(0, "q"), (1, "k"), (2, "v")] {
        build = build.node(layer(i, name)).op("Reshape", &[name, "heads"], &format!("{name}4"));
    }
    build
        .node(transpose("q4", "qt", &[0, 2, 1, 3]))
        .node(transpose("k4", "kt", perm))
        .node(transpose("v4", "vt", &[0, 2, 1, 3]))
        .op("MatMul", &["qt", "kt"], "qk")
        .op("Mul", &["scale", "qk"], "scaled")
        .op("Where", &["mask", "scaled", "low"], "masked")
        .node(node("Softmax", &["masked"], "p", vec![int("axis", -1)]))
        .op("MatMul", &["p", "vt"], "h")
        .node(transpose("h", "ht", &[0, 2, 1, 3]))
        .op("Reshape", &["ht", "joined"], "y")
}

#[test]
fn an_attention_on_a_rotated_value_is_one_node() {
    let mut build = attention(&[0, 0, HEADS, 4], &[0, 2, 3, 1]);
    for layer in &mut build.graph().node[..] {
        let is_layer = layer.op_type() == "FpxMatMul";
        layer.input.iter_mut().filter(|x| is_layer && *x == "x").for_each(|x| *x = "turned".into());
    }
    let rotation = node("FpxRotation", &["x"], "turned", vec![int("block", 16)]);
    build.graph().node.insert(0, NodeProto { domain: Some(DOMAIN.into()), ..rotation });
    let kinds_of = kinds(&fused(&build)).join(" ");
    assert_eq!(kinds_of, "FpxRotation FpxMatMul FpxMatMul FpxMatMul Where FpxAttention");
}

#[test]
fn an_attention_is_one_node() {
    let shapes = [[0, 0, HEADS, 4], [0, 0, -1, 4], [0, 5, HEADS, -1], [-1, 5, HEADS, 4]];
    for shape in shapes {
        let graph = fused(&attention(&shape, &[0, 2, 3, 1]));
        assert_eq!(kinds(&graph), ["FpxMatMul", "FpxMatMul", "FpxMatMul", "Where", "FpxAttention"], "{shape:?}");
        let attention = &graph.node[4];
        assert_eq!(attention.input[..3].join(" "), "q k v");
        assert_eq!(attention.input[3], graph.node[3].output[0]);
        assert_eq!((attribute(attention, "heads").0, attribute(attention, "scale").1), (HEADS, 0.5));
        assert_eq!(graph.node[3].input[0], "mask");
    }
}

#[test]
fn an_attention_of_another_kind_stays() {
    // Keys that are not transposed, heads ahead of the sequence, windows of the sequence, and sizes that do not fit.
    let wrong = [([0, 0, HEADS, 4], [0, 2, 1, 3]), ([0, HEADS, 5, 4], [0, 2, 3, 1]), ([-1, 1, HEADS, 4], [0, 2, 3, 1])];
    for (shape, perm) in wrong.into_iter().chain([([0, 0, HEADS, 5], [0, 2, 3, 1]), ([0, 0, 0, 0], [0, 2, 3, 1])]) {
        let build = attention(&shape, &perm);
        assert!(fused(&build) == build.proto.graph.unwrap(), "{shape:?} {perm:?}");
    }
}

#[test]
fn names_in_use_are_not_given_again() {
    let build = attention(&[0, 0, HEADS, 4], &[0, 2, 3, 1]);
    let first = fused(&build);
    let added: Vec<&str> = first.initializer.iter().map(|t| t.name()).chain([&*first.node[3].output[0]]).collect();
    let mut taken = build.clone();
    for name in &added {
        taken.graph().input.push(value(name, DataType::Float, &[1]));
    }
    let second = fused(&taken);
    assert_eq!(kinds(&second), kinds(&first));
    assert!(second.initializer.iter().all(|t| !added.contains(&t.name())));
    assert!(second.node.iter().flat_map(|n| &n.output).all(|name| !added.contains(&name.as_str())));
}

#[test]
fn a_joined_projection_is_sliced() {
    let layer = node("FpxMatMul", &["x"], "qkv", vec![int("n", 3 * WIDTH)]);
    let pick = |i: &str, y: &str| node("Gather", &["t", i], y, vec![int("axis", 0)]);
    let build = encoder_input(3)
        .tensor(int64s("five", &[0, 0, 3, HEADS, 4]))
        .tensor(int64s("joined", &[0, 0, WIDTH]))
        .tensor(raw("0", DataType::Int64, &[], vec![0; 8]))
        .tensor(raw("1", DataType::Int64, &[], 1i64.to_le_bytes().to_vec()))
        .tensor(raw("2", DataType::Int64, &[], (-1i64).to_le_bytes().to_vec()))
        .node(NodeProto { domain: Some(DOMAIN.into()), ..layer })
        .op("Reshape", &["qkv", "five"], "r")
        .node(node("Transpose", &["r"], "t", vec![ints("perm", &[2, 0, 3, 1, 4])]))
        .node(pick("0", "q"))
        .node(pick("1", "k"))
        .node(pick("2", "v"))
        .node(node("Transpose", &["k"], "kt", vec![ints("perm", &[0, 1, 3, 2])]))
        .op("MatMul", &["q", "kt"], "qk")
        .node(node("Softmax", &["qk"], "p", vec![]))
        .op("MatMul", &["p", "v"], "h")
        .node(node("Transpose", &["h"], "ht", vec![ints("perm", &[0, 2, 1, 3])]))
        .op("Reshape", &["ht", "joined"], "y");
    let graph = fused(&build);
    assert_eq!(kinds(&graph), ["FpxMatMul", "Slice", "Slice", "Slice", "FpxAttention"]);
    let number = |name: &String| {
        let tensor = graph.initializer.iter().find(|t| t.name() == name).unwrap();
        i64::from_le_bytes(tensor.raw_data.as_deref().unwrap().try_into().unwrap())
    };
    let bounds: Vec<Vec<i64>> = graph.node[1..4].iter().map(|n| n.input[1..].iter().map(number).collect()).collect();
    assert_eq!(bounds, [[0, 12, 2], [12, 24, 2], [24, 36, 2]]);
}

#[test]
fn long_and_wide_graphs_take_no_long() {
    // A value with very many readers, each the end of an expression that could be fused if it had one reader only, and a
    // product as deep as the graph is long.
    let mut build = encoder_input(3).op("Sigmoid", &["x"], "s");
    let mut last = "x".to_owned();
    for i in 0..20_000 {
        build.graph().node.push(node("Mul", &["x", "s"], &format!("a{i}"), vec![]));
        let next = format!("b{i}");
        build.graph().node.push(node("Mul", &[&last, &format!("a{i}")], &next, vec![]));
        last = next;
    }
    build = build.op("Identity", &[&last], "y");
    let start = std::time::Instant::now();
    assert!(fused(&build) == build.proto.graph.unwrap());
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn damaged_graphs_are_survived() {
    let originals = [attention(&[0, 0, HEADS, 4], &[0, 2, 3, 1]), layer_norm(-1), gelu(0.5)];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let numbers = [0, 1, -1, 2, 5, i64::MAX, i64::MIN, -7];
    for round in 0..6000 {
        let mut graph = originals[round % originals.len()].proto.graph.clone().unwrap();
        for _ in 0..1 + random(3) {
            let (at, other) = (random(graph.node.len()), random(graph.node.len()));
            let kind = graph.node[other].op_type().to_owned();
            let shape = &mut graph.initializer[0];
            match random(5) {
                0 => graph.node[at].op_type = Some(kind),
                1 => graph.node[at].input = graph.node[other].input.clone(),
                2 => graph.node[at].input.truncate(random(2)),
                3 => graph.node[at].attribute.iter_mut().for_each(|a| {
                    a.i = Some(numbers[random(8)]);
                    a.ints.iter_mut().for_each(|v| *v = numbers[random(8)]);
                }),
                _ if shape.data_type() == DataType::Int64 as i32 => {
                    let values: Vec<i64> = (0..4).map(|_| numbers[random(8)]).collect();
                    *shape = int64s("heads", &values);
                }
                _ => graph.node[at].attribute.clear(),
            }
        }
        fuse(&mut graph, [8, 14, 23][random(3)]);
    }
}
