"""`dav2 data preview`, `dav2 data check`, `dav2 data prepare` and `dav2 data sources`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from dav2_jax.cli.parse import arg
from dav2_jax.errors import Dav2Error

_SOURCE = (
    "What to read (dav2 data sources lists all names and options):\n"
    "  procedural                    scenes of our own\n"
    "  procedural?seed=3&count=500   with options\n"
    "  hypersim:/data/hypersim       a released dataset\n"
    "  hypersim:/data/h?split=val\n"
    "  own:mine.csv?scale=0.001      your own photos and depth\n"
    "  records/                      from dav2 data prepare\n"
    "Quote it where it has a ? or &."
)
Src = Annotated[str, arg(metavar="SRC", help=_SOURCE)]


def preview(
    src: Src,
    *,
    out: Annotated[Path, arg(metavar="FILE", help="The picture to write: .png or .jpg.")] = Path("sheet.png"),
    count: Annotated[int, arg(metavar="EXAMPLES", help="How many, spread evenly over the source.")] = 6,
    height: Annotated[int, arg(metavar="PIXELS", help="Height of each picture on the sheet.")] = 200,
    start: Annotated[int, arg(metavar="NUMBER", help="First example.")] = 0,
) -> int:
    """Draw examples of a dataset: images, disparity, valid pixels, tags.

    $ dav2 data preview procedural --out sheet.png
    $ dav2 data preview 'hypersim:/data/hypersim?split=val' --count 12
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise Dav2Error(f"{out}: a sheet is a .png or .jpg")
    for name, value, least in (("count", count, 1), ("height", height, 16), ("start", start, 0)):
        if value < least:
            raise Dav2Error(f"--{name} {value}: give at least {least}")
    from PIL import Image

    from dav2_jax.data.preview import sheet
    from dav2_jax.data.sources import open_source
    from dav2_jax.files import atomic

    picture = Image.fromarray(sheet(open_source(src), count, height=height, start=start))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as temporary:
        picture.save(temporary, format="PNG" if out.suffix.lower() == ".png" else "JPEG", quality=92)
    print(f"{out}: {picture.width} x {picture.height}")
    return 0


def prepare(
    src: Src,
    dst: Annotated[Path, arg(metavar="DST", help="The folder to write, or to resume.")],
    *,
    split: Annotated[str, arg(metavar="NAME", help="Name of the split in DST; one folder may hold several.")] = "train",
    jpeg: Annotated[
        int | None,
        arg(
            metavar="QUALITY",
            help="Store images as JPEG of this quality, 1 to 100: smaller, but lossy.",
            help_behavior_hint="(default: PNG, bit for bit)",
        ),
    ] = None,
    shard_mb: Annotated[float, arg(metavar="MB", help="Approximate size of one file.")] = 256.0,
    workers: Annotated[
        int | None, arg(metavar="COUNT", help="Threads.", help_behavior_hint="(default: one per core)")
    ] = None,
) -> int:
    """Read a dataset once and keep it in files that load fast.

    $ dav2 data prepare 'procedural?count=20000' scenes/
    $ dav2 data prepare 'hypersim:/data/hypersim?split=val' hypersim/ --split val

    DST is then a SRC. TFDS reads it too. After a stop the same command resumes.

    Exit code 1 if examples could not be read; they are named and left out.
    """
    if jpeg is not None and not 1 <= jpeg <= 100:
        raise Dav2Error(f"--jpeg {jpeg}: give a quality from 1 to 100")
    if shard_mb <= 0 or (workers is not None and workers < 1):
        raise Dav2Error("--shard-mb and --workers must be positive")
    from dav2_jax.data.prepare import prepare as run
    from dav2_jax.data.sources import open_source

    source, options = open_source(src), src.partition("?")[2]
    report = run(
        source, dst, split=split, options=options, jpeg=jpeg, shard_bytes=int(shard_mb * 1e6), workers=workers,
        progress=True,
    )  # fmt: skip
    print(report)
    for number, reason in report.errors:
        print(f"  left out: number {number}: {reason}")
    return 1 if report.errors else 0


def check(
    src: Src,
    *,
    limit: Annotated[
        int | None,
        arg(
            metavar="EXAMPLES",
            help="Number of examples to read, spread evenly over the source.",
            help_behavior_hint="(default: all)",
        ),
    ] = None,
) -> int:
    """Read a dataset: counts, ranges, broken files, and whether it is fit.

    $ dav2 data check own:mine.csv
    $ dav2 data check 'nyu:/data/nyu_depth_v2_labeled.mat?depth=raw' --limit 200

    Exit code 1 if anything is broken or looks wrong.
    """
    if limit is not None and limit < 1:
        raise Dav2Error(f"--limit {limit}: give at least 1")
    from dav2_jax.data import records
    from dav2_jax.data.check import check as run
    from dav2_jax.data.sources import open_source

    source = open_source(src)
    folder = Path(src.partition("?")[0].removeprefix("records:"))
    damaged = records.check(folder) if records.is_prepared(folder) else ()
    report = run(source, limit)
    report.problems += damaged
    print(report)
    return 1 if report.broken or report.problems else 0


def sources() -> int:
    """List the datasets that can be read, with their options.

    An option follows a question mark: NAME:PATH?key=value&key=value
    """
    from dav2_jax.data.sources import table

    print(table())
    return 0
