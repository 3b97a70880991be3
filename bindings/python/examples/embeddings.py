"""Sentence embeddings with MiniLM, or another encoder of this kind, and how alike the sentences are.

    python embeddings.py MODEL.onnx TOKENIZER.json [SENTENCE ...]

The model takes input_ids and attention_mask, and token_type_ids if it has them; its embedding is `sentence_embedding`, or else
the mean of its first output over the tokens. Tokenizer: a Hugging Face tokenizer.json. Prints the cosine of every pair, at the
precision of weights and activations that PRECISIONS names and in FP32.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

import fpxint

PRECISIONS = {"int4x2": ("int4x2", "int4x2"), "int4x3": ("int4x3", "int4x4"), "fp32": ("fp32", "fp32")}
SENTENCES = [
    "A man is playing a guitar.",
    "Someone plays an instrument.",
    "The stock market fell today.",
]


def embed(session: fpxint.InferenceSession, tokenizer: Tokenizer, sentences: list[str]) -> NDArray[np.float32]:
    """Unit vectors: float32 of shape (sentences, width)."""
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(sentences)
    mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
    given: dict[str, NDArray[Any]] = {
        "input_ids": np.array([e.ids for e in encoded], dtype=np.int64),
        "attention_mask": mask,
        "token_type_ids": np.array([e.type_ids for e in encoded], dtype=np.int64),
    }
    feed = {node.name: given[node.name] for node in session.get_inputs()}
    names = [node.name for node in session.get_outputs()]
    if "sentence_embedding" in names:
        vectors = session.run(["sentence_embedding"], feed)[0]
    else:
        tokens, weight = session.run(names[:1], feed)[0], mask[:, :, None]
        vectors = (tokens * weight).sum(axis=1) / weight.sum(axis=1)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def main(model: str, vocabulary: str, sentences: list[str]) -> None:
    """Prints the cosines."""
    tokenizer: Tokenizer = Tokenizer.from_file(vocabulary)
    found = {}
    for name, (weights, activations) in PRECISIONS.items():
        session = fpxint.InferenceSession(model, weights=weights, activations=activations)
        vectors = embed(session, tokenizer, sentences)
        found[name] = vectors @ vectors.T
    print("cosine    " + "".join(f"{name:>10}" for name in found))
    for i in range(len(sentences)):
        for j in range(i):
            print(f"{j} and {i}   " + "".join(f"{cosines[j, i]:10.5f}" for cosines in found.values()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] or SENTENCES)
