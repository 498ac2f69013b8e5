"""The command line: `dav2 COMMAND ...`. Finds the command, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import _thread
import importlib.util
import inspect
import io
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import dav2_jax
from dav2_jax.cli import data
from dav2_jax.cli.bench import bench
from dav2_jax.cli.help import render
from dav2_jax.cli.messages import with_flags
from dav2_jax.cli.parse import parse, photos_first, wants_help
from dav2_jax.cli.predict import predict
from dav2_jax.cli.train import train, with_recipe
from dav2_jax.cli.video import video
from dav2_jax.cli.weights import convert, models, verify
from dav2_jax.errors import EXTRAS, Dav2Error, did_you_mean, first_line, missing_package

_HELP = """usage: dav2 COMMAND ...

Depth Anything V2 in JAX: depth from a photo or a video, and training.

{commands}

$ dav2 predict photo.jpg      writes depth/photo.jpg.color.png
$ dav2 COMMAND --help         arguments, flags and examples of a command
$ dav2 COMMAND ... --debug    shows the traceback of an error
$ dav2 --version

Exit code: 0 all well, 2 wrong command line or input, 130 interrupted, 70 a bug.
1: all was done that could be, and photos of predict failed, the input of video
is damaged, or a stage of verify is over the tolerance."""

COMMANDS: dict[str, Callable[..., int]] = {
    "predict": predict,
    "video": video,
    "convert": convert,
    "verify": verify,
    **{f"data {one.__name__}": one for one in (data.preview, data.check, data.prepare, data.sources)},
    "train": train,
    "bench": bench,
    "models": models,
}
GROUPS = {"data": "Datasets: look at them, check them, prepare them (dav2 data --help)."}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    argv  without the program name; None: those of this process.

    A Dav2Error becomes one line and 2, Ctrl-C one line and 130, a bug one line and 70; `--debug` adds the traceback.
    When nobody reads the output any more (`dav2 models | head -1`) it ends without a word and with 141, as by SIGPIPE.
    """
    own_process = argv is None
    if own_process:
        _leave_absent_tpus_alone()
        sys.unraisablehook = _where_nothing_can_be_raised
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    _escape_what_cannot_be_printed()
    try:
        code = _run(argv)
        sys.stdout.flush()  # a closed pipe shows here, and not when Python is shutting down
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
        return 141
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            traceback.print_exc()
        line, code = _last_words(error)
        print(f"dav2: {line}", file=sys.stderr)
        if own_process and isinstance(error, KeyboardInterrupt):
            _leave(code)
    return code


def _run(argv: list[str]) -> int:
    group = f"{argv.pop(0)} " if argv and argv[0] in GROUPS else ""
    word, *arguments = argv or [""]
    command = group + word
    if command == "--version":
        print(f"dav2 {dav2_jax.__version__}")
        return 0
    if word in ("-h", "--help"):
        print(_group_help(group) if group else _HELP.format(commands=_lines(COMMANDS | GROUPS)))
        return 0
    if command not in COMMANDS:
        raise Dav2Error(_unknown(group, word))
    function = COMMANDS[command]
    if command == "predict":
        arguments = photos_first(function, arguments)
    if command == "train":
        function, arguments = with_recipe(arguments)
    if wants_help(arguments):
        print(render("train RECIPE" if command == "train" else command, function))
        return 0
    call = parse(command, function, arguments)
    try:
        return call()
    except Dav2Error as error:
        raise Dav2Error(with_flags(str(error), function)) from error


def _unknown(group: str, word: str) -> str:
    known = [name.removeprefix(group) for name in COMMANDS | GROUPS if name.startswith(group)]
    known = [name for name in known if " " not in name]
    if not word:
        return f"no command given: use one of {', '.join(known)} (dav2 {group}--help says more)"
    wrong = f"unknown command {word!r}{did_you_mean(word, known)}"
    return f"{wrong}: use one of {', '.join(known)} (dav2 {group}--help says more)"


def _lines(commands: dict[str, Callable[..., int] | str]) -> str:
    """One line for a command, or a group of commands; not those in a group."""
    about = {
        name: one if isinstance(one, str) else inspect.getdoc(one).splitlines()[0] for name, one in commands.items()
    }
    return "\n".join(f"  {name:8} {text}" for name, text in about.items() if " " not in name)


def _group_help(group: str) -> str:
    commands = {name.removeprefix(group): one for name, one in COMMANDS.items() if name.startswith(group)}
    about = GROUPS[group.strip()].partition(" (")[0]
    return f"usage: dav2 {group}COMMAND ...\n\n{about}.\n\n{_lines(commands)}\n\n$ dav2 {group}COMMAND --help"


def _leave_absent_tpus_alone() -> None:
    """With libtpu, and neither a TPU nor a GPU plugin, JAX would start libtpu, which prints ten lines of errors."""
    if "JAX_PLATFORMS" in os.environ or importlib.util.find_spec("libtpu") is None:
        return
    vendors = (path.read_text().strip() for path in Path("/sys/bus/pci/devices").glob("*/vendor"))
    has_tpu = any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*")) or "0x1ae0" in vendors
    if not has_tpu and importlib.util.find_spec("jax_plugins") is None:
        os.environ["JAX_PLATFORMS"] = "cpu"


def _where_nothing_can_be_raised(unraisable, /) -> None:
    """For errors in callbacks of libraries, which Python would print and forget.

    Ctrl-C while it ran one of JAX's is raised again afterwards. After an error of its own, Orbax leaves hundreds of
    reads that find their event loop closed: of these no word.
    """
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Timer(0.02, _thread.interrupt_main).start()  # now, it would be raised here
    elif str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _escape_what_cannot_be_printed() -> None:
    """Names of files may hold characters that the terminal's encoding lacks, and bytes that are no characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(code: int) -> None:
    """Ends the process without taking the interpreter down first.

    At Ctrl-C, JAX stops waiting for a compilation, but does not stop it. It would crash without its device.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _last_words(error: BaseException) -> tuple[str, int]:
    """The line that a user reads about an error that ended a command, and its exit code."""
    if isinstance(error, KeyboardInterrupt):
        return (
            "interrupted: files written until now are whole (predict goes on with --skip-existing, video as it is)",
            130,
        )
    if isinstance(error, Dav2Error):
        return f"error: {error}", 2
    if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").partition(".")[0]) in EXTRAS:
        return f"error: {missing_package(package)}", 2
    text = first_line(error) if str(error).strip() else "no message"
    return f"unexpected {type(error).__name__}: {text}: run again with --debug to see where", 70
