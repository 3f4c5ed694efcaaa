"""The seal that tells a whole HDF5 file from a damaged one (docs/files.md, "The seal")."""
import xxhash

USER_BLOCK = 512  # bytes before the HDF5 data, which hold the seal
_MAGIC = "fairgptq-sealed"


def sealed(data):
    """The bytes of a sealed file, of HDF5 data without their user block."""
    return f"{_words(len(data), xxhash.xxh3_64(data))}\n".encode().ljust(USER_BLOCK, b"\0") + data


def is_whole(path):
    """Whether a file matches its seal."""
    checksum, size = xxhash.xxh3_64(), 0
    with open(path, "rb") as file:
        words = file.read(USER_BLOCK).partition(b"\n")[0]
        while piece := file.read(1 << 24):
            checksum.update(piece)
            size += len(piece)
    return words == _words(size, checksum).encode()


def _words(size, checksum):
    """Magic word, size and XXH3-64 of all that follows the user block."""
    return f"{_MAGIC} {size} {checksum.hexdigest()}"
