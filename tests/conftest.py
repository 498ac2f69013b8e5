"""A strict world for every test: eight CPU devices, and no silent broadcasting between ranks."""

import os
import signal

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "true"  # by tests that run at the same time
# Of LLVM's optimization level: most of the time goes into compiling what then runs for a moment.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # the command line would keep its programs for the user
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import jax
import numpy as np
import pytest
import seeded

from dav2_jax.convert.stored_tensor import StoredTensor
from dav2_jax.convert.torch_writer import write_torch_file
from dav2_jax.convert.weights import Weights
from dav2_jax.inference.predictor import Model
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure():
    """A shell in the background ignores Ctrl-C, and programs that tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = ("test_loop.py", "test_golden.py", "test_procedural.py", "test_step.py", "test_losses.py")


def pytest_collection_modifyitems(items):
    """For `pytest -n 2`: long files go first, so that no core is left with one at the end."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def small_pth(tmp_path_factory):
    """A seeded official checkpoint of the small relative model, under its released name."""
    path = tmp_path_factory.mktemp("official") / "depth_anything_v2_vits.pth"
    write_torch_file(path, {name: StoredTensor.of(array) for name, array in seeded.state_dict("small").items()})
    return path


@pytest.fixture(scope="session")
def tiny_hf(tmp_path_factory):
    """Folders of tiny random models as `transformers` saves them: tiny_hf(kind, ffn) -> path."""
    import torch
    import transformers

    def make(kind: str = "relative", *, swiglu: bool = False):
        folder = tmp_path_factory.mktemp("hf") / kind
        backbone = transformers.Dinov2Config(
            hidden_size=48, num_hidden_layers=11, num_attention_heads=3, image_size=518, patch_size=14,
            use_swiglu_ffn=swiglu, out_indices=[2, 5, 10, 11], reshape_hidden_states=False, layerscale_value=0.3,
        )  # fmt: skip
        torch.manual_seed(0)
        if kind == "encoder":
            model = transformers.Dinov2Model(backbone)
        else:
            config = transformers.DepthAnythingConfig(
                backbone_config=backbone, reassemble_hidden_size=48, neck_hidden_sizes=[8, 16, 24, 32],
                fusion_hidden_size=16, depth_estimation_type=kind, max_depth=20,
            )  # fmt: skip
            model = transformers.DepthAnythingForDepthEstimation(config)
            torch.nn.init.constant_(model.head.conv3.bias, 0.5)  # random heads are often negative, and ReLU hides them
        for name, parameter in model.named_parameters():
            if "norm" in name or "lambda" in name or name.endswith("bias"):
                torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny() -> Model:
    """A model of four narrow blocks with fresh weights, whose disparity varies and is positive."""
    config = ModelConfig("tiny", 48, 4, 3, "mlp", 16, (8, 16, 24, 32), (0, 1, 2, 3))
    params = jax.jit(depth_anything.init, static_argnums=0)(config, jax.random.key(0))
    last = params["depth_head"]["scratch"]["output_conv2"]["2"]
    last["kernel"], last["bias"] = abs(last["kernel"]), last["bias"] * 0 + 0.1
    return Model(Weights(config, params))


@pytest.fixture
def photo() -> np.ndarray:
    """A seeded photo, uint8 [200, 300, 3]."""
    return seeded.photo(200, 300)
