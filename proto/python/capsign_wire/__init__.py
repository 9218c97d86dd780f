"""What both ends of a capsign connection agree on: messages, bounds, algorithms, reasons and
identifiers.
"""
