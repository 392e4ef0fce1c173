"""palinode: reproducible unlearning for diffusion models."""

import os

# Before torch loads OpenMP: threads that wait long for each other sleep instead of spinning. On a busy machine that is
# many times faster, on an idle one as fast.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
