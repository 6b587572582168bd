"""Readers of class-labelled images: a folder of class folders, or a tar archive of one."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from tqdm import tqdm

from kd_mil.core.atomic import write_arrays
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import digest, file_identity
from kd_mil.core.readable import readable
from kd_mil.data.loading import GIBIBYTE
from kd_mil.data.patches.built_bags import LabelledInstances
from kd_mil.data.patches.image_files import IMAGE_SUFFIXES, ImageFiles, decode_image, require_size

ARCHIVE_SUFFIXES = (".tar", ".tar.xz", ".tar.gz", ".tgz")


def find_part(root: Path, part: str) -> Path | None:
    """`root/part`, as a folder or as an archive of it; None where there is neither."""
    names = (part, *(f"{part}{suffix}" for suffix in ARCHIVE_SUFFIXES))
    return next((root / name for name in names if (root / name).exists()), None)


def read_class_folders(source: Path, *, image_size: int | None, cache_dir: str, max_gib: float) -> LabelledInstances:
    """Images with the name of their folder as class; classes are sorted by name.

    Args:
        source: folder of class folders (files are listed, sorted by name, and read later), or a tar archive of one
            (decoded at once, in the archive's order, and kept in the cache).
        image_size: resize to squares of this many pixels; None = all images must have the same size.
        cache_dir: folder of the cache for archives.
        max_gib: decoded images of an archive may take this much memory.

    Raises:
        UserError: no class folders, no images, unequal sizes, or a damaged file.
    """
    if source.is_dir():
        return list_folder(source, image_size)
    return read_archive(source, image_size, Path(cache_dir), int(max_gib * GIBIBYTE))


def list_folder(root: Path, image_size: int | None = None) -> LabelledInstances:
    """The images of a folder of class folders, still in their files; arguments as in `read_class_folders`."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(f"{root} holds no class folders: one folder of images per class is expected")
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        images = sorted(path for path in folder.iterdir() if _is_image(path.name))
        if not images:
            raise UserError(f"class folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        paths += images
        labels += [label] * len(images)
    names = tuple(folder.name for folder in folders)
    return LabelledInstances(ImageFiles.open(paths, image_size), torch.tensor(labels), names)


def read_archive(path: Path, image_size: int | None, cache_dir: Path, max_bytes: int) -> LabelledInstances:
    """The images of a tar archive, from the cache if this very file was decoded before."""
    cached = cache_dir / "class_folders" / f"{digest([*file_identity(path), image_size])}.npz"
    if not cached.exists():
        write_arrays(cached, _decode_archive(path, image_size, max_bytes))
    with readable(cached, "remove it, it is made anew"), np.load(cached, allow_pickle=False) as arrays:
        return LabelledInstances(
            torch.from_numpy(arrays["images"]),
            torch.from_numpy(arrays["labels"]),
            tuple(arrays["class_names"].tolist()),
        )


def _decode_archive(path: Path, image_size: int | None, max_bytes: int) -> dict[str, np.ndarray]:
    images: list[np.ndarray] = []
    folders: list[PurePosixPath] = []
    size = None if image_size is None else (image_size, image_size)
    first, used = "", 0
    for name, pixels in tqdm(_archive_images(path, size), desc=path.name, unit="image", disable=None, leave=False):
        first = first or name
        require_size(pixels.shape[1:], images[0].shape[1:] if images else pixels.shape[1:], name, first)
        used += pixels.nbytes
        if used > max_bytes:
            raise UserError(
                f"{path}: its images take more than {max_bytes / GIBIBYTE:.3g} GiB in memory: "
                "unpack it to a folder, or raise loading.resident_gib"
            )
        images.append(pixels)
        folders.append(PurePosixPath(name).parent)
    if not images:
        raise UserError(f"{path} holds no images in class folders")
    names, labels = np.unique([folder.name for folder in folders], return_inverse=True)
    if len(set(folders)) != len(names) or "" in names:
        raise UserError(f"{path}: its class folders do not lie side by side: pack train and test as two archives")
    return {"images": np.stack(images), "labels": labels.astype(np.int64), "class_names": names}


def _archive_images(path: Path, size: tuple[int, int] | None) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pixels of all images, read in one pass: nothing is written to disk."""
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if member.isfile() and _is_image(PurePosixPath(member.name).name):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield member.name, decode_image(file, f"{path}:{member.name}", size)
            assert archive.fileobj is not None
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile itself lets this pass
                raise EOFError("it ends too early")
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path}: not a readable tar archive ({error})") from error


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
