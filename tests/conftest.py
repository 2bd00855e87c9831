"""Makes `tests/` importable, for `synthetic`, and keeps the user's cache out of the tests and them out of it."""

import atexit
import os
import shutil
import tempfile

_cache = tempfile.mkdtemp(prefix="commlens-tests-")
os.environ["XDG_CACHE_HOME"] = _cache
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
