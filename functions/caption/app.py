"""Takes the image queue: pictures to be captioned."""

from captions import cold_start  # isort: skip

from batches import jobs_handler

handler = jobs_handler()
cold_start.over()
