"""Side-by-side measurements on the real node: the stock way and ours, interleaved in one run. Not shipped.

``python -m bench`` (``./dev bench``) runs all rows, ``python -m bench ROW --size 1GiB --runs 5`` one of them. Rows are
declared in ``rows``; what runs inside a node is in ``inside``. Nothing here is compared with a figure of another day.
"""
