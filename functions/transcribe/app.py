"""Takes the audio queue: recordings to be transcribed."""

from captions import cold_start  # isort: skip

from batches import jobs_handler

handler = jobs_handler()
cold_start.over()
