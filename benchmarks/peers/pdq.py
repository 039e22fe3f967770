"""PDQ hashes for the near-duplicate benchmarks, in a process and environment of its own (pdqhash is no dependency).

Reads pictures on stdin, each as width and height (two little-endian 32-bit numbers) and RGB bytes; answers each with
the 32-byte hash, the quality (one byte, 0..100) and the CPU seconds it took (a 64-bit float).
"""

import struct
import sys
import time

import numpy as np
import pdqhash


def main() -> None:
    while head := sys.stdin.buffer.read(8):
        width, height = struct.unpack("<II", head)
        pixels = np.frombuffer(sys.stdin.buffer.read(width * height * 3), np.uint8).reshape(height, width, 3)
        begun = time.process_time()
        bits, quality = pdqhash.compute(pixels)
        took = time.process_time() - begun
        answer = np.packbits(np.asarray(bits, dtype=bool)).tobytes() + struct.pack("<Bd", int(quality), took)
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
