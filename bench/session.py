"""Times `fpxint.InferenceSession.run` beside `fpxint bench`, in turns, one thread.

    session.py PROGRAM MODEL.onnx [SEQUENCE]

PROGRAM is the `fpxint` command, and the package `fpxint` a wheel, both built for release (`maturin build --release`). Prints the
medians of each round in milliseconds and their ratio, then the median of the ratios.
"""

import statistics
import sys
import time

import numpy as np

import fpxint
from turns import PRECISION, ours

ROUNDS, RUNS = 11, 40


def tokens(port, sequence):
    """Tokens, a mask of ones, or one segment."""
    shape = (1, sequence)
    if "mask" in port.name:
        return np.ones(shape, np.int64)
    return np.zeros(shape, np.int64) if "type" in port.name else np.random.default_rng(0).integers(0, 1000, shape)


def main():
    program, model, sequence = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 128
    session = fpxint.InferenceSession(model, PRECISION[1], PRECISION[3], threads=1)
    feed = {port.name: tokens(port, sequence) for port in session.get_inputs()}
    ratios = []
    for _ in range(ROUNDS):
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            session.run(None, feed)
            times.append(1e3 * (time.perf_counter() - start))
        own, rust = statistics.median(times), ours(program, model, 1, "--sequence", sequence)[0]
        ratios.append(own / rust)
        print(f"{own:.3f} {rust:.3f} {own / rust:.3f}", flush=True)
    print(f"median of the ratios {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
