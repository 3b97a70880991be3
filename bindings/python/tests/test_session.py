"""Sessions: ONNX Runtime's interface, its results, and the same bits whatever the circumstances."""

import ctypes
import mmap
import os
import pickle
import platform
import subprocess
import sys
import threading
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import fpxint
import models


def test_inputs_and_outputs_are_described_as_by_onnxruntime(colour, digits):
    for path in (colour, digits):
        ours, theirs = fpxint.InferenceSession(path), onnxruntime.InferenceSession(path)
        for got, want in ((ours.get_inputs(), theirs.get_inputs()), (ours.get_outputs(), theirs.get_outputs())):
            assert [(n.name, n.shape, n.type) for n in got] == [(n.name, n.shape, n.type) for n in want]


@pytest.mark.parametrize("precision, largest", [("int4x2", 5e-2), ("int8x2", 5e-4), ("int8x3", 5e-6), ("fp32", 1e-6)])
def test_results_converge_to_those_of_onnxruntime(colour, precision, largest):
    x = models.images(3)
    want = onnxruntime.InferenceSession(colour).run(None, {"x": x})
    got = fpxint.InferenceSession(colour, precision, precision).run(None, {"x": x})
    for a, b in zip(want, got):
        assert b.dtype == a.dtype and b.shape == a.shape
        assert np.abs(a - b).max() <= largest * np.abs(a).max()


def test_outputs_are_within_the_bound_of_the_series():
    """`|y - y'| <= sum_k |x_k| bound_w + |w'| bound_x`, from the stated bounds alone."""
    proto = models.product()
    w = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    x = np.random.default_rng(1).normal(0, 1, (5, len(w))).astype(np.float32)
    series = fpxint.Series.expand(w, 4, 2, axis=1)
    y = fpxint.InferenceSession(proto, "int4x2", "int8x2").run(None, {"x": x})[0]
    step = (x.max(axis=1) - x.min(axis=1)) / (2**16 - 1)
    bound = np.abs(x).sum(axis=1)[:, None] * series.bounds() + step[:, None] * np.abs(series.reconstruct()).sum(axis=0)
    error = np.abs(x.astype(np.float64) @ w - y)
    assert (error <= bound * (1 + 1e-5) + 1e-6).all()
    assert (error > 0).any()


def test_outputs_come_in_the_order_of_their_names(colour):
    session, x = fpxint.InferenceSession(colour), models.images(2)
    scores, features = session.run(None, {"x": x})
    assert [o.name for o in session.get_outputs()] == ["scores", "features"]
    a, b, c = session.run(["features", "scores", "features"], {"x": x})
    assert np.array_equal(a, features) and np.array_equal(b, scores) and np.array_equal(c, features)
    assert len(session.run([], {"x": x})) == 2
    with pytest.raises(fpxint.InputError, match="no output `other`; it has `scores`, `features`"):
        session.run(["other"], {"x": x})


def test_models_are_paths_bytes_or_protos(colour):
    x = models.images(1)
    want = fpxint.InferenceSession(colour).run(None, {"x": x})[0]
    for given in (str(colour), colour.read_bytes(), onnx.load(colour)):
        assert np.array_equal(fpxint.InferenceSession(given).run(None, {"x": x})[0], want)
    with pytest.raises(fpxint.InputError, match="this is a int"):
        fpxint.InferenceSession(7)


def test_any_layout_of_an_array_has_the_same_outputs(colour):
    session, x = fpxint.InferenceSession(colour), models.images(4)
    want = session.run(None, {"x": x})[0]
    wide = np.zeros((4, 3, 16, 32), dtype=np.float32)
    wide[..., ::2] = x
    unaligned = np.frombuffer(b"\0" + x.tobytes(), dtype=np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not unaligned.flags.aligned
    backwards = x[::-1].copy()[::-1]
    layouts = (np.asfortranarray(x), wide[..., ::2], unaligned, backwards, x.astype(">f4"), x.tolist())
    for layout in layouts:
        assert np.array_equal(session.run(None, {"x": layout})[0], want)
    locked = x.copy()
    locked.flags.writeable = False
    assert np.array_equal(session.run(None, {"x": locked})[0], want)


def test_what_does_not_fit_is_told(colour):
    session, x = fpxint.InferenceSession(colour), models.images(1)
    for feed, words in [
        ({}, "input `x`: not given"),
        ({"y": x}, "no such input; it has `x`"),
        ({"x": x.astype(np.float64)}, "holds float64, but the model takes float32"),
        ({"x": x[0]}, r"has shape \[3, 16, 16\], but the model takes \[\?, 3, \?, \?\]"),
        ({"x": x[:0]}, "holds no values"),
        ({"x": x.astype(np.complex64)}, "holds complex64"),
        ({"x": np.array(["a"])}, "input `x`"),
        ({"x": None}, "x"),
    ]:
        with pytest.raises((fpxint.InputError, TypeError, ValueError), match=words):
            session.run(None, feed)
    assert issubclass(fpxint.InputError, ValueError)


def test_faults_of_files_are_told(tmp_path, digits):
    with pytest.raises(fpxint.FileError, match="nowhere.onnx.*No such file") as told:
        fpxint.InferenceSession(tmp_path / "nowhere.onnx")
    assert isinstance(told.value, OSError)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(digits.read_bytes()[:-1000])
    for given in (bad, bad.read_bytes(), b""):
        with pytest.raises(fpxint.ModelError) as told:
            fpxint.InferenceSession(given)
        assert "\n" not in str(told.value)
    for limits in (fpxint.Limits(max_nodes=2), fpxint.Limits(max_bytes=100), fpxint.Limits(max_tensor_elements=5),
                   fpxint.Limits(max_nesting=2)):
        with pytest.raises(fpxint.LimitError, match="beyond the limit"):
            fpxint.InferenceSession(digits, limits=limits)
    with pytest.raises(fpxint.PrecisionError, match="`int9` is not a precision"):
        fpxint.InferenceSession(digits, "int9")
    with pytest.raises(fpxint.InputError, match="threads"):
        fpxint.InferenceSession(digits, threads=0)


def test_threads_and_batches_give_the_same_bits(colour):
    x = models.images(7)
    want = fpxint.InferenceSession(colour, threads=1).run(None, {"x": x})
    options = fpxint.SessionOptions()
    options.intra_op_num_threads = 3
    for session in (fpxint.InferenceSession(colour, threads=2), fpxint.InferenceSession(colour, sess_options=options)):
        for a, b in zip(session.run(None, {"x": x}), want):
            assert np.array_equal(a, b)
        for i in range(len(x)):
            assert np.array_equal(session.run(None, {"x": x[i : i + 1]})[0], want[0][i : i + 1])


def test_many_threads_share_a_session(colour):
    session = fpxint.InferenceSession(colour, threads=2)
    feeds = [models.images(1 + i % 4, 8 + 4 * (i % 3)) for i in range(16)]
    wants = [session.run(None, {"x": x})[0] for x in feeds]
    wrong = []

    def client(first: int) -> None:
        for i in range(40):
            x, want = feeds[(first + i) % 16], wants[(first + i) % 16]
            if not np.array_equal(session.run(None, {"x": x})[0], want):
                wrong.append(first)

    threads = [threading.Thread(target=client, args=(first,)) for first in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_lock_is_released_while_a_model_runs():
    session = fpxint.InferenceSession(models.colour(64), threads=1)
    x = models.images(8, 128)
    done = threading.Event()

    def run() -> None:
        session.run(None, {"x": x})
        done.set()

    runner = threading.Thread(target=run)
    start = time.perf_counter()
    session.run(None, {"x": x})
    alone = time.perf_counter() - start
    runner.start()
    ticks = 0
    while not done.is_set():
        ticks += 1
        time.sleep(alone / 50)
    runner.join()
    assert ticks > 5, f"{ticks} turns of this thread during a run of {alone:.3f} s"


def test_artefacts_run_at_what_they_state_and_at_fewer_terms(colour, tmp_path):
    artefact = tmp_path / "terms.onnx"
    fpxint.quantize(colour, artefact, "int4x2", "int4x3")
    session, x = fpxint.InferenceSession(artefact), models.images(2)
    assert {(w, a) for _, w, a in session.get_layers()} == {("int4x2", "int4x3")}
    want = fpxint.InferenceSession(colour, "int4x2", "int4x3").run(None, {"x": x})[0]
    assert np.array_equal(session.run(None, {"x": x})[0], want)
    short = fpxint.InferenceSession(artefact, weight_terms=1, activation_terms=2)
    assert not np.array_equal(short.run(None, {"x": x})[0], want)
    with pytest.raises(fpxint.InputError, match="expanded already"):
        fpxint.InferenceSession(artefact, "int4x2")
    with pytest.raises(fpxint.PrecisionError, match="3 weight terms"):
        fpxint.InferenceSession(artefact, weight_terms=3)


def test_half_precision_is_taken_where_it_is_stated():
    x = models.images(2)
    session = fpxint.InferenceSession(models.colour(kind=TensorProto.FLOAT16))
    assert session.get_inputs()[0].type == "tensor(float16)"
    want = session.run(None, {"x": x.astype(np.float16).astype(np.float32)})[0]
    assert np.array_equal(session.run(None, {"x": x.astype(np.float16)})[0], want) and want.dtype == np.float32


def test_integers_enter_encoders():
    session = fpxint.InferenceSession(models.encoder(), default="fp32")
    ids = np.array([[1, 2, 3], [4, 5, 0]])
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    want = onnxruntime.InferenceSession(models.encoder().SerializeToString()).run(
        None, {"input_ids": ids, "attention_mask": mask}
    )[0]
    got = session.run(None, {"input_ids": ids, "attention_mask": mask.tolist()})[0]
    assert np.allclose(got, want, atol=1e-5)
    with pytest.raises(fpxint.RunError, match="embedding"):
        session = fpxint.InferenceSession(models.encoder())
        session.run(None, {"input_ids": ids + 1000, "attention_mask": mask})


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="sets the MXCSR of x86-64")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_host_that_flushes_subnormals_changes_no_bit(threads):
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x0f\xae\x17\xc3")  # ldmxcsr [rdi]; ret
    load = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def set_register(value: int) -> None:
        load(ctypes.addressof(ctypes.c_uint32(value)))

    # Outputs that are subnormal, of inputs and weights that are not.
    x = np.random.default_rng(0).normal(0, 1e-20, (3, 64)).astype(np.float32)
    proto = models.product(size=1e-19)

    def results():
        made = fpxint.InferenceSession(proto, threads=threads).run(None, {"x": x})
        unexpanded = fpxint.InferenceSession(proto, "fp32", "fp32").run(None, {"x": x})
        series = fpxint.Series.expand(np.array([1e-20, 3e-25], dtype=np.float32), 4, 2)
        return [*made, *unexpanded, series.reconstruct(), series.scales]

    want = results()
    assert all(0 < np.abs(y).max() < np.finfo(np.float32).tiny for y in want[:2])
    session = fpxint.InferenceSession(proto, threads=threads)
    set_register(0x9FC0)
    try:
        flushed = (x * np.float32(1e-19)).any()
        got, loaded_before = results(), session.run(None, {"x": x})
        still = (x * np.float32(1e-19)).any()
    finally:
        set_register(0x1F80)
    assert not flushed and not still, "the host flushes subnormals, before and after"
    assert all(np.array_equal(a, b) for a, b in zip(got, want))
    assert np.array_equal(loaded_before[0], want[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told_to_make_its_own_session(digits):
    script = """
import os, sys
import numpy as np
import fpxint
x = {"input": np.ones((2, 1, 8, 8), dtype=np.float32)}
two, one = (fpxint.InferenceSession(sys.argv[1], threads=t) for t in (2, 1))
want = two.run(None, x)[0]
child = os.fork()
if child == 0:
    try:
        two.run(None, x)
    except fpxint.RunError as error:
        good = "forked" in str(error)
    own = fpxint.InferenceSession(sys.argv[1], threads=2)
    good &= all(np.array_equal(s.run(None, x)[0], want) for s in (own, one))
    os._exit(0 if good else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(digits)], timeout=120)
    assert done.returncode == 0


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(fpxint.LimitError("too large")))
    assert isinstance(error, fpxint.ModelError) and str(error) == "too large"


def test_kernels_are_listed():
    assert fpxint.kernels()[-1] == "scalar"


def test_inputs_too_large_for_memory_are_refused_with_their_size(colour):
    session = fpxint.InferenceSession(colour)
    # Arrays of terabytes that take no memory.
    for shape in ((1, 3, 1 << 17, 1 << 17), (1, 3, 1 << 20, 1 << 20)):
        x = np.broadcast_to(np.float32(1), shape)
        with pytest.raises(fpxint.SizeError, match=r"\d GB at a time, but .* GB of memory can be had") as told:
            session.run(None, {"x": x})
        assert isinstance(told.value, MemoryError)
    assert len(session.run(None, {"x": models.images(1)})) == 2


def test_a_file_that_asks_for_terabytes_is_refused():
    node = onnx.helper.make_node
    huge = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "size")
    x = onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])
    y = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    for nodes in (
        [node("ConstantOfShape", ["size"], ["c"], "bomb"), node("Add", ["x", "c"], ["y"])],
        [node("Expand", ["x", "size"], ["y"], "bomb")],
        [node("Tile", ["x", "size"], ["y"], "bomb")],
        [node("RandomNormal", [], ["c"], "bomb", shape=[1 << 20, 1 << 20]), node("Add", ["x", "c"], ["y"])],
    ):
        graph = onnx.helper.make_graph(nodes, "g", [x], [y], [huge])
        proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
        for default in ("int4x2", "fp32"):
            with pytest.raises(fpxint.LimitError, match="bomb"):
                fpxint.InferenceSession(proto, default=default)
