"""The seal that tells a whole HDF5 file from a damaged one (docs/files.md, "The seal")."""
import os

import xxhash

USER_BLOCK = 512  # bytes before the HDF5 data, which hold the seal
_MAGIC = "fairgptq-sealed"


def seal(path):
    """Writes the seal into a file's user block, and flushes to the disk."""
    with open(path, "r+b") as file:
        words = _words_of(file)
        file.seek(0)
        file.write(f"{words}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def sealed(data):
    """The bytes of a sealed file, of HDF5 data without their user block."""
    return f"{_MAGIC} {len(data)} {xxhash.xxh3_64_hexdigest(data)}\n".encode().ljust(USER_BLOCK, b"\0") + data


def is_whole(path):
    """Whether a file matches its seal."""
    with open(path, "rb") as file:
        return file.read(USER_BLOCK).partition(b"\n")[0] == _words_of(file).encode()


def _words_of(file):
    """Magic word, size and XXH3-64 of all that follows the user block."""
    file.seek(USER_BLOCK)
    checksum, size = xxhash.xxh3_64(), 0
    while piece := file.read(1 << 24):
        checksum.update(piece)
        size += len(piece)
    return f"{_MAGIC} {size} {checksum.hexdigest()}"
