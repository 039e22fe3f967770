"""What holds for every test: the environment is a user's, whatever this machine or its owner has set."""

import os

for name in list(os.environ):
    if name.startswith(("AWS_", "CAPTIONS_", "POWERTOOLS_", "PYTHON", "SAM_")):
        del os.environ[name]
os.environ["POWERTOOLS_METRICS_NAMESPACE"] = "testing"  # as a deployed function has one
