"""What runs from here and what it starts keeps its bytecode in one place: else each compiles all anew, for seconds."""

import os
import sys
from pathlib import Path

sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(__file__).resolve().parents[1] / ".work" / "compiled")
os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": sys.pycache_prefix}
