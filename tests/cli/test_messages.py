"""Parameters in messages of the library become flags, and only they do."""

import pytest

from dav2_jax.cli.main import COMMANDS
from dav2_jax.cli.messages import with_flags
from dav2_jax.cli.train import with_recipe


@pytest.mark.parametrize(
    ("command", "message", "shown"),
    [
        ("predict", "raise max_pixels", "raise --max-pixels"),
        ("predict", "max_pixels=9: (input_size), tiles=auto.", "--max-pixels 9: (--input-size), --tiles auto."),
        ("predict", "entry='model_ema' or prefix=\"a b\"", "--entry model_ema or --prefix 'a b'"),
        ("predict", "give coordinator=HOST:PORT, processes=2", "give --coordinator HOST:PORT, --processes 2"),
        ("predict", "max_depth=0.5, not max_depth=20.", "--max-depth 0.5, not --max-depth 20."),
        ("predict", "the format of this entry, its size and tiles", None),
        ("predict", "a/max_pixels/b.png, max_pixels.png, x.max_pixels", None),
        ("predict", "own:a.csv?fov=3&kind=x, side_by_side, batch_sizes", None),
        ("video", "side_by_side and batch_size", "--side-by-side and --batch-size"),
        ("convert", "pass overwrite=True, not overwrite=maybe", "pass --overwrite, not overwrite=maybe"),
        ("convert", "src=x is positional, and max_pixels=3 of another", None),
        ("train", "head=fresh needs weights=runs/a: strong=False", "--head fresh needs --weights runs/a: --no-strong"),
        ("train", "batch_size was 8", "--batch-size was 8"),
        ("models", "max_pixels", None),
    ],
)  # fmt: skip
def test_messages(command, message, shown):
    function = with_recipe(["nano"])[0] if command == "train" else COMMANDS[command]
    assert with_flags(message, function) == (message if shown is None else shown)
