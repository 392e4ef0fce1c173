"""palinode: reproducible unlearning for diffusion models."""

import os

# Before torch loads OpenMP: threads that wait long for each other sleep instead of spinning on. That costs a few
# percent on an idle machine, and saves a run that shares its cores from slowing down many times over.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
