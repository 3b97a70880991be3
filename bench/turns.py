"""What the comparisons share: calls of ONNX Runtime and of `fpxint bench`, their times, and tables in a document."""

import json
import statistics
import subprocess
import time

import onnxruntime as ort

ROUNDS, RUNS = 7, 5
PRECISION = ["--weights", "int4x2", "--activations", "int4x2"]


def ports(path):
    """Inputs of a model."""
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()


def onnx_runtime(path, threads, feed):
    """A call of ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def median(call):
    """Milliseconds of a call, the median of some; then a pause in which its threads stop to spin, which would slow the next."""
    call()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    time.sleep(0.05)
    return statistics.median(times)


def ours(program, model, threads, *arguments):
    """Milliseconds of `fpxint bench`, and its kernel."""
    command = [program, "bench", model, *PRECISION, "--threads", threads, "--runs", RUNS, "--json", "--quiet", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    return report["latency_ms"]["median"], report["kernel"]


def compare(own, calls):
    """Our milliseconds and the ratios of the others' to them, in turns: medians over rounds; and our kernel."""
    rounds = []
    for _ in range(ROUNDS):
        time_of_ours, kernel = own()
        rounds.append([time_of_ours, *(median(call) / time_of_ours for call in calls)])
    return [statistics.median(column) for column in zip(*rounds)], kernel


def write(document, marks, lines):
    """Replaces what lies between the marks in a document."""
    before, rest = document.read_text().split(marks[0])
    _, after = rest.split(marks[1])
    document.write_text(before + "\n".join([marks[0], *lines, marks[1]]) + after)
