"""What can be asked of a model, a file for each task: the shape of its answer, wording, reader, merge and flags.

The file has the task's name, and its `TASK` is all that the rest of the product knows of it. It is loaded when the task
is first needed (`captions.tasks.registry`). What only reading an answer needs is imported by the readers, as the
function that claims and queues uploads needs wording and shape alone.
"""
