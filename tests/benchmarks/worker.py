"""One peer in a process of its own, driven by cpu_peers.py over lines of JSON: `worker.py PEER FOLDER THREADS`.

FOLDER holds the files of artifacts.py. On stdin "run" asks for one timed forward and the end of the file for the end;
on stdout comes one line when the peer is ready and one for each run. The output of the warm-up is left in a file.

Every loader returns `forward()`: the network on an input that stands ready in the layout the peer likes best, until
the output is a NumPy array. Settings are the fastest that were found for each peer; what was tried stands beside them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Forward = Callable[[], np.ndarray]


def dav2_jax(folder: Path, x: np.ndarray, threads: int, *, dtype: str) -> Forward:
    import jax

    import dav2_jax

    model = dav2_jax.load(folder / "dav2.ckpt", dtype=dtype)
    images = jax.device_put(x)
    return lambda: np.asarray(model.programs(model.fn, images))


def openvino(folder: Path, x: np.ndarray, threads: int, *, precision: str) -> Forward:
    import openvino as ov

    # The file that OpenVINO made from PyTorch: from the ONNX one it spent 1.24 CPU seconds on ViT-S in place of 0.90.
    core = ov.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
    }
    model = core.compile_model(core.read_model(folder / "openvino.xml"), "CPU", settings)
    request = model.create_infer_request()
    request.set_input_tensor(ov.Tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))

    def forward():
        request.infer()
        return np.array(request.get_output_tensor().data)

    return forward


def onnxruntime(folder: Path, x: np.ndarray, threads: int) -> Forward:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))}
    return lambda: session.run(None, feed)[0]


def _torch_model(folder: Path, x: np.ndarray, threads: int):
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.DepthAnythingForDepthEstimation.from_pretrained(
        folder / "hf", attn_implementation={"backbone_config": "sdpa"}
    )
    model = model.eval().to(memory_format=torch.channels_last)
    return model, torch.from_numpy(x).permute(0, 3, 1, 2)  # a view of the channels-last array: channels_last too


def torch_eager(folder: Path, x: np.ndarray, threads: int) -> Forward:
    import torch

    model, images = _torch_model(folder, x, threads)

    @torch.inference_mode()
    def forward():
        return model(images).predicted_depth.numpy()

    return forward


def torch_compile(folder: Path, x: np.ndarray, threads: int) -> Forward:
    import torch
    import torch._inductor.config as inductor

    # Freezing: weights become constants in the layout that oneDNN likes. Best of 9 runs of ViT-S: 0.506 s without it,
    # 0.486 s with it, 0.495 s with channels_last too, 0.483 s with mode="max-autotune-no-cudagraphs" on top.
    inductor.freezing = True
    model, images = _torch_model(folder, x, threads)
    compiled = torch.compile(model)

    @torch.no_grad()
    def forward():
        return compiled(images).predicted_depth.numpy()

    return forward


def keras_hub(folder: Path, x: np.ndarray, threads: int) -> Forward:
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras_peer

    model = keras_peer.load(folder / "hf")
    trained = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    # The model as a pure function under jit: 2 % faster than predict_on_batch.
    fn = jax.jit(lambda trained, others, x: model.stateless_call(trained, others, x, training=False)[0])
    images = jax.device_put(x)

    def forward():
        out = fn(trained, others, images)
        return np.asarray(out["depths"] if isinstance(out, dict) else out)[..., 0]

    return forward


class Peer(NamedTuple):
    title: str
    precision: str  # what its numbers may be rounded to inside; it is compared with ours of the same precision
    load: Callable[..., Forward]
    options: dict
    packages: tuple[str, ...]  # whose versions are reported


PEERS = {
    "dav2": Peer("dav2_jax", "float32", dav2_jax, {"dtype": "float32"}, ("jax",)),
    "openvino": Peer("OpenVINO", "float32", openvino, {"precision": "f32"}, ("openvino",)),
    "onnxruntime": Peer("ONNX Runtime", "float32", onnxruntime, {}, ("onnxruntime",)),
    "torch": Peer("PyTorch, SDPA", "float32", torch_eager, {}, ("torch", "transformers")),
    "torch-compile": Peer("torch.compile", "float32", torch_compile, {}, ("torch", "transformers")),
    "keras-hub": Peer("KerasHub on JAX", "float32", keras_hub, {}, ("keras-hub", "keras", "jax")),
    "dav2-bf16": Peer("dav2_jax", "bfloat16", dav2_jax, {"dtype": "bfloat16"}, ("jax",)),
    "openvino-bf16": Peer("OpenVINO", "bfloat16", openvino, {"precision": "bf16"}, ("openvino",)),
}


def main(name: str, folder: Path, threads: int) -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not look like an answer

    def answer(**fields) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    x = np.load(folder / "input.npy")
    start = time.perf_counter()
    peer = PEERS[name]
    forward = peer.load(folder, x, threads, **peer.options)
    for _ in range(2):  # compiles; then everything is where it stays
        out = forward()
    loading = time.perf_counter() - start
    np.save(folder / f"output-{name}.npy", out)
    versions = {package: importlib.metadata.version(package) for package in peer.packages}
    answer(load_seconds=loading, versions=versions)
    with contextlib.suppress(KeyboardInterrupt):
        for _ in sys.stdin:
            start, cpu_start = time.perf_counter(), time.process_time()
            forward()
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            answer(seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=peak)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
