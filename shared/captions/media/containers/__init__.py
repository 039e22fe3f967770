"""Sound and video containers: what is in them, how long it is, and the part that no tag editor touches.

Only headers and indexes are read; nothing is decoded. Every length found in a file is checked against the bytes that
are there, and every loop moves forward, so that hostile input ends in an answer.
"""

from captions.media.containers.container import Container
from captions.media.containers.identify import identify, with_lengths
from captions.media.containers.mp4 import ftyp_brands

__all__ = ["Container", "ftyp_brands", "identify", "with_lengths"]
