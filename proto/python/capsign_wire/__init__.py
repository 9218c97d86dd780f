"""The contract between the processes of capsign: messages, bounds, algorithms, reasons and
identifiers.
"""

__version__ = "0.1.0"
"""The version of all distributions. It is stated only here; literals elsewhere are compared with
it.
"""
