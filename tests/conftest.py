"""What must be so before any test is imported."""

import importlib.util

if importlib.util.find_spec("triton") and importlib.util.find_spec("tensorflow"):
    # Loaded after TensorFlow, Triton's library ends the process: both bring LLVM.
    import triton  # noqa: F401
