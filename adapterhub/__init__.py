"""adapterhub: a registry client and workbench for adapters of frozen base models.

Importing this package imports nothing else; see the README's map for where things live.
"""

__version__ = "0.1.0"
