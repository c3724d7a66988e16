"""Train the demo's digits classifiers and write them as ONNX: versions 1.0.0, 2.0.0 and 2.1.0.

    pip install scikit-learn skl2onnx
    python examples/digits/train.py examples/digits

The data are scikit-learn's 1,797 handwritten digits of 8 × 8 pixels. 1.0.0 is a strongly regularised linear
model with a known weakness; 2.0.0 and 2.1.0 are small neural networks. ``question.json`` is an inference request that
1.0.0 answers wrongly and 2.0.0 rightly: watching the answer change tells which version serves.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import numpy
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

VERSIONS = {
    "1.0.0": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=2000, random_state=0)),
    "2.0.0": lambda: make_pipeline(StandardScaler(), MLPClassifier((128,), max_iter=400, random_state=0)),
    "2.1.0": lambda: make_pipeline(StandardScaler(), MLPClassifier((128, 32), max_iter=400, random_state=1)),
}


def request(image: numpy.ndarray) -> dict:
    """Return a V2 inference request for one image of 64 pixels."""
    pixels = [float(pixel) for pixel in image]
    return {"inputs": [{"name": "X", "shape": [1, 64], "datatype": "FP32", "data": pixels}]}


def main() -> None:
    """Train every version, and write the models, the question and the self-test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    images, digits = load_digits(return_X_y=True)
    images = images.astype(numpy.float32)
    learn, ask, learn_digits, ask_digits = train_test_split(images, digits, test_size=0.25, random_state=0)
    answers, confidence = {}, {}
    for version, make in VERSIONS.items():
        model = make().fit(learn, learn_digits)
        answers[version] = model.predict(ask)
        confidence[version] = model.predict_proba(ask).max(axis=1)
        graph = to_onnx(model, learn[:1], options={"zipmap": False}, target_opset=17)
        path = folder / f"digits-{version}.onnx"
        path.write_bytes(graph.SerializeToString())
        print(f"{path.name}: {path.stat().st_size} bytes, accuracy {(answers[version] == ask_digits).mean():.3f}")
    telling = (answers["1.0.0"] != ask_digits) & (answers["2.0.0"] == ask_digits) & (answers["2.1.0"] == ask_digits)
    plain = (answers["1.0.0"] == ask_digits) & (answers["2.0.0"] == ask_digits) & (answers["2.1.0"] == ask_digits)
    hard, easy = int(telling.argmax()), int(plain.argmax())
    (folder / "question.json").write_text(json.dumps(request(ask[hard])) + "\n")
    told = {
        version: {"digit": int(answers[version][hard]), "confidence": round(float(confidence[version][hard]), 3)}
        for version in VERSIONS
    }
    (folder / "answers.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
    test = {**request(ask[easy]), "outputs": [{"name": "label"}]}
    (folder / "selftest-input.json").write_text(json.dumps(test) + "\n")
    wanted = {"outputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [int(ask_digits[easy])]}]}
    (folder / "selftest-output.json").write_text(json.dumps(wanted, indent=2) + "\n")
    print(f"question: a {ask_digits[hard]}; answers {told}")


if __name__ == "__main__":
    main()
