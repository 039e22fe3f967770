"""Takes the audio queue: recordings to be transcribed."""

from batches import jobs_handler
from captions import cold_start

handler = jobs_handler()
cold_start.over()
