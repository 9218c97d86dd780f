"""The adapter: the only process that may log in to the HSM. It decides, derives, signs, commits and
answers.
"""

from capsign_wire import __version__ as __version__
from capsign_wire import runtime as runtime  # before anything of ours loads gRPC
