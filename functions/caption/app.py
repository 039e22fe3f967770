"""Takes the image queue: pictures to be captioned."""

from batches import jobs_handler
from captions import cold_start

handler = jobs_handler()
cold_start.over()
