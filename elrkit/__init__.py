"""elrkit: early-learning regularization (ELR), sharpness-aware minimization and label noise, as small modules.

The flow is one way: ``config`` -> ``data`` -> ``noise`` -> ``train`` -> ``runs`` -> ``plots`` and the notebooks.
"""

__version__ = "0.1.0"
