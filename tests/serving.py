"""A service in a process of its own, and a classifier's file that needs no torch to be made."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaformer.config import ABOUT

OPENED = 120
"""Seconds in which a service must be ready."""
SIZE = 8
COLOURS = ["red", "green", "blue"]


def coloured(file: Path, **about: Any) -> Path:
    """Writes an ONNX file that tells which colour an image has most of, as `export` writes a classifier's."""
    from onnx import TensorProto, checker, helper, save

    takes = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, SIZE, SIZE])
    gives = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["small"]),
        helper.make_node("ReduceMean", ["small", "sides"], ["logits"], keepdims=0),
    ]
    fixed = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.02]),
        helper.make_tensor("sides", TensorProto.INT64, [2], [2, 3]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "colours", [takes], [gives], fixed), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    preprocess = {"size": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "squash"}
    helper.set_model_props(model, {ABOUT: json.dumps({"classes": COLOURS, "preprocess": preprocess} | about)})
    checker.check_model(model)
    save(model, file)
    return file


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Served:
    """What a command serves, from when it is ready until it is closed; it is started in the folder, where its output lies."""

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.log = folder / f"{self.port}.log"
        began = time.monotonic()
        with self.log.open("w") as log:
            command = [*words, "--port", str(self.port)]
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > began + OPENED:
                self.close()
                said = [line for line in self.log.read_text().splitlines() if "/readyz" not in line]
                raise AssertionError(f"{' '.join(words)}: {said}")
            time.sleep(0.05)
        self.seconds = time.monotonic() - began
        """Until it was ready."""

    @property
    def url(self) -> str:
        """Of its page."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """What it says itself."""
        return self.ask("/readyz")[0] == 200

    def ask(self, path: str, body: bytes | None = None, kind: str = "application/octet-stream") -> tuple[int, Any]:
        """Status and JSON, or bytes of another kind; 0 where nobody answers."""
        request = urllib.request.Request(f"{self.url}{path}", body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                content, is_json = answer.read(), answer.headers.get_content_type() == "application/json"
                return answer.status, json.loads(content) if is_json else content
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
        except OSError:
            return 0, None

    def close(self) -> int:
        """Its exit code, after SIGTERM."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
