"""Measures models shared over processes, beside what `fpxint plan` predicts, and prints tables for docs/scaling.md.

    python bench/scaling.py BIN RANKS WEIGHTS ACTIVATIONS MODEL...

BIN holds fpxint and fpxint-mpi; RANKS is the most processes. Each process has one thread. Times are medians of runs, in ms.
"""

import json
import os
import subprocess
import sys

ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
RUNS = 7


def report(command):
    done = subprocess.run(command, env={**os.environ, **ROOT}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def main():
    folder, most, weights, activations, *models = sys.argv[1:]
    program, shared = (os.path.join(folder, name) for name in ("fpxint", "fpxint-mpi"))
    most = int(most)
    flags = ["--weights", weights, "--activations", activations, "--threads", "1", "--json", "--quiet"]
    print("| model | split | workers | idle | MB a worker | predicted ms | measured ms |")
    print("|---|---|---|---|---|---|---|")
    for model in models:
        name = os.path.splitext(os.path.basename(model))[0]
        for batch in (1, 8):
            sizes = ["--batch", str(batch)]
            plan = report([program, "plan", model, "--workers", str(most), "--runs", str(RUNS), *sizes, *flags])
            alone = report([program, "bench", model, "--runs", str(RUNS), *sizes, *flags])["latency_ms"]["median"]
            print(f"| {name}, batch {batch} | none | 1 | | | | {alone:.1f} |")
            for split in plan["splits"]:
                ranks = split["workers"]
                if (split["split"] == "batch") != (batch > 1) or (split["split"] == "batch" and ranks == 1):
                    continue
                command = ["mpirun", "--oversubscribe", "-n", str(ranks), shared, "bench", model, "--runs", str(RUNS)]
                found = report([*command, *sizes, *flags, "--parallel", split["split"]])
                print(
                    f"| | {split['split']} | {ranks} | {split['idle']} | {split['traffic_mb']:.2f} "
                    f"| {split['total_ms']:.1f} | {found['latency_ms']['median']:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
