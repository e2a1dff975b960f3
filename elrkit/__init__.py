"""elrkit: early-learning regularization (ELR), sharpness-aware minimization and label noise, as small modules.

The flow is one way: ``config`` -> ``data`` -> ``noise`` -> ``train`` -> ``records``. Two wings stand on it, `catalogue`
(a shop's feed to the labels worth a look) and `report` (the book); the modules here import neither.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("elrkit")
except PackageNotFoundError:  # a checkout that is on the path but not installed
    __version__ = "unknown"
