"""The Hugging Face folder of a checkpoint as ONNX and as OpenVINO's own files: `export_peers.py FOLDER`.

Runs in the environment of the peers. Reads FOLDER/hf, writes FOLDER/model.onnx and FOLDER/openvino.xml, at the shape
of FOLDER/input.npy. OpenVINO converts the PyTorch model itself: it then keeps the attention in one piece.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers


class DepthOnly(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values).predicted_depth


def main(folder: Path) -> None:
    model = transformers.DepthAnythingForDepthEstimation.from_pretrained(
        folder / "hf", attn_implementation={"backbone_config": "sdpa"}
    )
    model = DepthOnly(model.eval())
    images = torch.from_numpy(np.load(folder / "input.npy")).permute(0, 3, 1, 2).contiguous()
    failed = []
    for name, export in {"model.onnx": export_onnx, "openvino.xml": export_openvino}.items():
        if (folder / name).exists():
            continue
        try:
            with torch.no_grad():
                export(model, images, folder / name)
        except Exception as error:  # the other peer goes on without this file, and says so in its row
            failed.append(f"{name}: {type(error).__name__}: {error}")
    if failed:
        sys.exit("; ".join(failed))


def export_onnx(model, images, path: Path) -> None:
    torch.onnx.export(model, (images,), path, dynamo=True, external_data=True, opset_version=18)


def export_openvino(model, images, path: Path) -> None:
    import openvino as ov

    converted = ov.convert_model(model, example_input=images, input=[tuple(images.shape)])
    ov.save_model(converted, path, compress_to_fp16=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
