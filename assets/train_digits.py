"""Train the demo network of fpxint and write it, with its held-out test set.

Writes these files beside this script, from fixed seeds:

    digits.onnx       a small convolutional network in FP32, ONNX opset 13,
                      input `input` float32 [N,1,8,8], output `logits` [N,10]
    digits_seed<S>.onnx   the same network trained from other seeds: another
                      beginning, order and shifts, but the same split
    digits_test.npz   600 held-out images: `x` uint8 [600,8,8] (raw pixels,
                      0..16) and `y` uint8 [600] (the digit)

To run it from this folder (Python 3.11 or newer, a few minutes on one core):

    python3 -m venv .venv && .venv/bin/pip install jax==0.10.2 optax==0.2.8 \
        numpy==2.4.6 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.31.1
    .venv/bin/python train_digits.py

Data: the 1,797 handwritten digits that scikit-learn bundles (`load_digits`),
from the UCI set "Optical Recognition of Handwritten Digits". Nothing is
downloaded. A stratified split (random_state=SEED) keeps 600 images for the
test set: they are never trained on and pick no epoch, for the network is what
the last epoch leaves. The other 1,197 are trained on, with random shifts of
up to one pixel. The only preprocessing is x / 16.

The graph keeps each BatchNormalization as a node of its own, with its trained
running statistics: folding it is the tool's work, not this script's. With the
same packages on the same kind of CPU the files come out the same byte for
byte; elsewhere another order of floating-point sums may move the last digits.
"""

import os

# NPROC is XLA's thread count: how sums are split among threads changes the result.
os.environ.update(NPROC="1", OMP_NUM_THREADS="1", JAX_PLATFORMS="cpu")

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import optax
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
SEED = 7
OTHER_SEEDS = (1, 2, 3, 4)
TEST_IMAGES = 600
EPOCHS = 40
BATCH = 63  # 19 batches of 63 are the 1,197 training images exactly
PEAK_LR = 4e-3
WEIGHT_DECAY = 1e-3
BN_MOMENTUM, BN_EPSILON = 0.9, 1e-5
CLASSES = 10

# The network, as (operator, name, arguments). One list serves training and
# export, so the two cannot differ. "save" keeps a tensor for a later "add".
NETWORK = [
    ("conv", "stem", dict(cin=1, cout=24, kernel=3)),
    ("bn", "stem_bn", dict(c=24)),
    ("relu", "stem_relu", {}),
    ("save", "skip1", {}),
    ("conv", "block1_dw", dict(cin=24, cout=24, kernel=3, group=24)),
    ("bn", "block1_dw_bn", dict(c=24)),
    ("relu", "block1_dw_relu", {}),
    ("conv", "block1_pw", dict(cin=24, cout=24, kernel=1)),
    ("bn", "block1_pw_bn", dict(c=24)),
    ("add", "block1_add", dict(skip="skip1")),
    ("relu", "block1_relu", {}),
    ("conv", "down", dict(cin=24, cout=48, kernel=3, stride=2)),
    ("bn", "down_bn", dict(c=48, start=3.0)),  # wide enough for the Relu6 to clip
    ("relu6", "down_relu6", {}),
    ("save", "skip2", {}),
    ("conv", "block2_dw", dict(cin=48, cout=48, kernel=3, group=48)),
    ("bn", "block2_dw_bn", dict(c=48)),
    ("relu", "block2_dw_relu", {}),
    ("conv", "block2_pw", dict(cin=48, cout=48, kernel=1)),
    ("bn", "block2_pw_bn", dict(c=48)),
    ("add", "block2_add", dict(skip="skip2")),
    ("relu", "block2_relu", {}),
    ("conv", "head", dict(cin=48, cout=64, kernel=3)),
    ("bn", "head_bn", dict(c=64)),
    ("relu", "head_relu", {}),
    ("pool", "pool", {}),
    ("flatten", "flatten", {}),
    ("gemm", "classifier", dict(cin=64, cout=CLASSES)),
]
ONNX_OPERATOR = {
    "conv": "Conv", "bn": "BatchNormalization", "relu": "Relu", "relu6": "Clip", "add": "Add",
    "pool": "GlobalAveragePool", "flatten": "Flatten", "gemm": "Gemm",
}


def initial_values(rng):
    """He-normal weights; BatchNormalization scales start at `start`, or 1."""
    params, stats = {}, {}
    for op, name, a in NETWORK:
        if op == "conv":
            shape = (a["cout"], a["cin"] // a.get("group", 1), a["kernel"], a["kernel"])
            std = np.sqrt(2.0 / np.prod(shape[1:]))
            params[name] = {"w": rng.normal(0.0, std, shape).astype(np.float32)}
        elif op == "bn":
            one, zero = np.ones(a["c"], np.float32), np.zeros(a["c"], np.float32)
            params[name] = {"scale": one * np.float32(a.get("start", 1.0)), "bias": zero}
            stats[name] = {"mean": zero, "var": one}
        elif op == "gemm":
            w = rng.normal(0.0, np.sqrt(1.0 / a["cin"]), (a["cout"], a["cin"]))
            params[name] = {"w": w.astype(np.float32), "bias": np.zeros(a["cout"], np.float32)}
    return params, stats


def forward(params, stats, x):
    """Training forward pass: the logits and the updated running statistics."""
    saved, new_stats = {}, {}
    for op, name, a in NETWORK:
        p = params.get(name)
        if op == "conv":
            pad, stride = a["kernel"] // 2, a.get("stride", 1)
            x = jax.lax.conv_general_dilated(
                x, p["w"], (stride, stride), ((pad, pad), (pad, pad)),
                dimension_numbers=("NCHW", "OIHW", "NCHW"),
                feature_group_count=a.get("group", 1))
        elif op == "bn":
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            new_stats[name] = {k: BN_MOMENTUM * stats[name][k] + (1.0 - BN_MOMENTUM) * v
                               for k, v in (("mean", mean), ("var", var))}
            factor = p["scale"] / jnp.sqrt(var + BN_EPSILON)
            x = (x - mean[:, None, None]) * factor[:, None, None] + p["bias"][:, None, None]
        elif op == "relu":
            x = jnp.maximum(x, 0.0)
        elif op == "relu6":
            x = jnp.clip(x, 0.0, 6.0)
        elif op == "save":
            saved[name] = x
        elif op == "add":
            x = x + saved[a["skip"]]
        elif op == "pool":
            x = x.mean((2, 3), keepdims=True)
        elif op == "flatten":
            x = x.reshape(x.shape[0], -1)
        else:  # gemm
            x = x @ p["w"].T + p["bias"]
    return x, new_stats


def shifted(images, rng):
    """Each image moved by -1, 0 or 1 pixel along each axis, zeros moving in."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    rows, cols = rng.integers(0, 3, (2, len(images)))
    return np.stack([p[r:r + 8, c:c + 8] for p, r, c in zip(padded, rows, cols)])


def train(images, labels, seed):
    rng = np.random.default_rng(seed)
    params, stats = initial_values(rng)
    per_epoch = len(images) // BATCH
    schedule = optax.warmup_cosine_decay_schedule(0.0, PEAK_LR, 2 * per_epoch, EPOCHS * per_epoch)
    # Weight decay on the weights alone, not on biases or BatchNormalization.
    decayed = jax.tree.map(lambda p: p.ndim > 1, params)
    optimiser = optax.adamw(schedule, weight_decay=WEIGHT_DECAY, mask=decayed)
    state = optimiser.init(params)

    @jax.jit
    def step(params, stats, state, x, y):
        def loss_of(params):
            logits, new_stats = forward(params, stats, x)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return loss.mean(), new_stats
        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state, loss

    for epoch in range(EPOCHS):
        order, losses = rng.permutation(len(images)), []
        for i in range(per_epoch):
            pick = order[i * BATCH:(i + 1) * BATCH]
            x = shifted(images[pick], rng)[:, None].astype(np.float32) / np.float32(16)
            params, stats, state, loss = step(params, stats, state, x, labels[pick])
            losses.append(float(loss))
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1:3d}  training loss {np.mean(losses):.4f}")
    return jax.tree.map(np.asarray, (params, stats))


def export(params, stats, path):
    nodes, initialisers, saved, current = [], [], {}, "input"

    def constant(name, value):
        initialisers.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    for op, name, a in NETWORK:
        if op == "save":
            saved[name] = current
            continue
        inputs, attributes = [current], {}
        if op == "conv":
            pad, stride, kernel = a["kernel"] // 2, a.get("stride", 1), a["kernel"]
            inputs.append(constant(f"{name}.weight", params[name]["w"]))
            attributes = dict(kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4,
                              dilations=[1, 1], group=a.get("group", 1))
        elif op == "bn":
            values = params[name] | stats[name]
            inputs += [constant(f"{name}.{k}", values[k]) for k in ("scale", "bias", "mean", "var")]
            attributes = dict(epsilon=BN_EPSILON)
        elif op == "relu6":
            inputs += [constant(f"{name}.min", 0.0), constant(f"{name}.max", 6.0)]
        elif op == "add":
            inputs.append(saved[a["skip"]])
        elif op == "flatten":
            attributes = dict(axis=1)
        elif op == "gemm":
            attributes = dict(transB=1)
            inputs += [constant(f"{name}.{label}", params[name][k])
                       for label, k in (("weight", "w"), ("bias", "bias"))]
        current = "logits" if name == NETWORK[-1][1] else f"{name}.out"
        nodes.append(helper.make_node(ONNX_OPERATOR[op], inputs, [current], name=name, **attributes))

    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)],
                              ir_version=8, producer_name="train_digits.py")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main():
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=TEST_IMAGES, stratify=labels, random_state=SEED)
    np.savez(HERE / "digits_test.npz", x=test_x, y=test_y.astype(np.uint8))
    pixels = test_x[:, None].astype(np.float32) / np.float32(16)
    for seed in (SEED, *OTHER_SEEDS):
        params, stats = train(train_x, train_y, seed)
        file = HERE / ("digits.onnx" if seed == SEED else f"digits_seed{seed}.onnx")
        export(params, stats, file)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], {"input": pixels})[0]
        right = int((logits.argmax(1) == test_y).sum())
        weights = sum(int(v.size) for v in jax.tree.leaves(params))
        print(f"{file.name}: {weights} trained parameters; FP32 test accuracy {right}/{len(test_y)} = "
              f"{100 * right / len(test_y):.2f} %")


if __name__ == "__main__":
    main()
