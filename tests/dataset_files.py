"""Files of public datasets as their authors write them, small and with values that tests know.

Each `NAME(root)` writes a dataset of four frames in its true layout and formats and gives the frames, in the order of
their paths, as (image, depth) below root. All are HEIGHT x WIDTH; `DEPTH` holds what is stored, without traps.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 6, 8
DEPTH = (np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH) + 3) / 4  # exact in all formats but cm, mm

Frames = list[tuple[str, str]]


def photo(path: Path, height: int = HEIGHT, width: int = WIDTH) -> None:
    """An orange picture, so that swapped channels show."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (250, 130, 10)).save(path, quality=95)


def png16(path: Path, steps: np.ndarray) -> None:
    """A 16-bit gray PNG: big-endian rows, each behind its filter's number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = steps.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in steps)
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))


def png_floats(path: Path, values: np.ndarray) -> None:
    """TartanAir V2: a float's four bytes as blue, green, red, alpha of an 8-bit PNG, which stores red first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    bytes_of = values.astype("<f4").view(np.uint8).reshape(height, width, 4)[..., [2, 1, 0, 3]]
    rows = b"".join(b"\0" + row.tobytes() for row in bytes_of)
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pfm(path: Path, values: np.ndarray, *, big_endian: bool = False) -> None:
    """Bottom row first; the scale's sign says the order of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"Pf\n{values.shape[1]} {values.shape[0]}\n{1 if big_endian else -1}.000000\n".encode()
    path.write_bytes(head + values[::-1].astype(">f4" if big_endian else "<f4").tobytes())


def npy(path: Path, values: np.ndarray) -> None:
    """Version 1.0 of the format, float32, C order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = str({"descr": "<f4", "fortran_order": False, "shape": values.shape}).encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + values.astype("<f4").tobytes())


def exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    """Half floats, ZIP, as Unreal writes them."""
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {name: x.astype(np.float16) for name, x in channels.items()}).write(str(path))


def hdf5(path: Path, values: np.ndarray, dtype=np.float16) -> None:
    """Hypersim: float16, gzip, under the name "dataset"."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset", data=values.astype(dtype), compression="gzip")


def hypersim(root: Path) -> Frames:
    frames = []
    for scene, camera, number in [("001_001", 0, 0), ("001_001", 0, 5), ("001_001", 1, 0), ("044_004", 0, 0)]:
        folder = f"ai_{scene}/images/scene_cam_{camera:02d}"
        image = f"{folder}_final_preview/frame.{number:04d}.tonemap.jpg"
        depth = f"{folder}_geometry_hdf5/frame.{number:04d}.depth_meters.hdf5"
        photo(root / image)
        hdf5(root / depth, DEPTH)
        frames.append((image, depth))
    return frames


def vkitti2(root: Path) -> Frames:
    frames = []
    for scene, variation, camera, number in [
        ("01", "15-deg-left", 0, 0), ("01", "clone", 0, 1), ("01", "clone", 1, 1), ("20", "fog", 0, 0),
    ]:  # fmt: skip
        folder = f"Scene{scene}/{variation}/frames"
        image = f"{folder}/rgb/Camera_{camera}/rgb_{number:05d}.jpg"
        depth = f"{folder}/depth/Camera_{camera}/depth_{number:05d}.png"
        photo(root / image)
        png16(root / depth, DEPTH * 100)
        frames.append((image, depth))
    return frames


def kitti(root: Path) -> Frames:
    """Two drives to train with and one to validate with, beside the raw data."""
    frames = []
    for part, drive, camera, number in [
        ("train", "2011_09_26_drive_0001_sync", 2, 5), ("train", "2011_09_26_drive_0001_sync", 3, 5),
        ("val", "2011_09_26_drive_0002_sync", 2, 69), ("train", "2011_10_03_drive_0034_sync", 2, 138),
    ]:  # fmt: skip
        image = f"raw_data/{drive[:10]}/{drive}/image_0{camera}/data/{number:010d}.png"
        depth = f"data_depth_annotated/{part}/{drive}/proj_depth/groundtruth/image_0{camera}/{number:010d}.png"
        photo(root / image)
        png16(root / depth, DEPTH * 256)
        frames.append((image, depth))
    calibration = "calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.950000e-02\nP_rect_00: 1 0 0 0 0 1 0 0 0 0 1 0\n"
    for name, shift in [("02", "4.485728e+01"), ("03", "-3.395242e+02")]:
        numbers = f"7.215377e+02 0.000000e+00 6.095593e+02 {shift} 0 7.215378e+02 1.728540e+02 2.163791e-01 0 0 1 0"
        calibration += f"P_rect_{name}: {numbers}\n"
    (root / "raw_data/2011_09_26/calib_cam_to_cam.txt").write_text(calibration)
    return frames


def nyu(root: Path) -> Frames:
    """The layout of BTS; `nyu_labeled` writes the labeled file."""
    frames = []
    for scene, number in [("bathroom", 45), ("bathroom", 46), ("kitchen", 88), ("office", 3)]:
        folder = f"official_splits/test/{scene}"
        image, depth = f"{folder}/rgb_{number:05d}.jpg", f"{folder}/sync_depth_{number:05d}.png"
        photo(root / image)
        png16(root / depth, DEPTH * 1000)
        frames.append((image, depth))
    return frames


def nyu_labeled(root: Path, images: np.ndarray, filled: np.ndarray, raw: np.ndarray) -> None:
    """images [N, H, W, 3], depths [N, H, W], stored as MATLAB does: axes reversed, 512 bytes before."""
    import h5py
    from scipy.io import savemat

    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = np.moveaxis(images, (1, 2, 3), (3, 2, 1))
        file.create_dataset("depths", data=np.swapaxes(filled, 1, 2).astype(np.float32), compression="gzip")
        file.create_dataset("rawDepths", data=np.swapaxes(raw, 1, 2).astype(np.float32), compression="gzip")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    count = len(images)
    numbers = np.arange(1, count + 1, dtype=np.uint16)[:, None]
    savemat(root / "splits.mat", {"trainNdxs": numbers[1::2], "testNdxs": numbers[::2]})


def tartanair(root: Path) -> Frames:
    """Three frames of V1, one of V2."""
    frames = []
    for trip, number in [("amusement/Easy/P001", 0), ("amusement/Hard/P000", 7), ("office/office/Easy/P000", 0)]:
        image = f"{trip}/image_left/{number:06d}_left.png"
        depth = f"{trip}/depth_left/{number:06d}_left_depth.npy"
        photo(root / image)
        npy(root / depth, DEPTH)
        frames.append((image, depth))
    folder = "ArchVizTinyHouseDay/Data_easy/P000"
    image = f"{folder}/image_lcam_front/000003_lcam_front.png"
    depth = f"{folder}/depth_lcam_front/000003_lcam_front_depth.png"
    photo(root / image)
    png_floats(root / depth, DEPTH)
    return [(image, depth), *frames]


def irs(root: Path) -> Frames:
    frames = []
    for scene, number in [("Home/Kitchen", 1), ("Home/Kitchen_Dark", 1), ("Office/Meeting", 2), ("Store/Wine", 9)]:
        image, depth = f"{scene}/l_{number:05d}.png", f"{scene}/d_{number:05d}.exr"
        photo(root / image)
        photo(root / scene / f"r_{number:05d}.png")
        exr(root / depth, {"G": DEPTH})
        frames.append((image, depth))
    return frames


def blendedmvs(root: Path) -> Frames:
    frames = []
    for scene, number in [("57f8d9bbe73f6760f10e916a", 0), ("57f8d9bbe73f6760f10e916a", 1), ("5a3c", 0), ("5b08", 12)]:
        image, depth = f"{scene}/blended_images/{number:08d}.jpg", f"{scene}/rendered_depth_maps/{number:08d}.pfm"
        photo(root / image)
        photo(root / image.replace(".jpg", "_masked.jpg"))
        pfm(root / depth, DEPTH, big_endian=scene == "5a3c")
        camera = root / scene / "cams" / f"{number:08d}_cam.txt"
        camera.parent.mkdir(exist_ok=True)
        pose = "1 0 0 0.5\n0 1 0 0\n0 0 1 0\n0.0 0.0 0.0 1.0\n"
        camera.write_text(f"extrinsic\n{pose}\nintrinsic\n579.5 0 4.25\n0 580.5 3.5\n0 0 1\n\n0.4 0.0025 128 0.9 \n")
        frames.append((image, depth))
    return frames
