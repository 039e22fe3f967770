"""What holds for every test: Powertools names its metrics as in a deployed function."""

import os

os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "testing")
