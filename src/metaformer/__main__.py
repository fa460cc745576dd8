"""python -m metaformer"""

from metaformer.cli import main

main()
