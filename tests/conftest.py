"""What must be so before any test is imported."""

import importlib.util

from hypothesis import settings

# No test measures time: on a busy machine anything may take long.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if importlib.util.find_spec("triton") and importlib.util.find_spec("tensorflow"):
    # Loaded after TensorFlow, Triton's library ends the process: both bring LLVM.
    import triton  # noqa: F401
