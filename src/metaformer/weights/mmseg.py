"""How mmsegmentation names a segmenter: Semantic FPN, as PoolFormer's were published.

Rules rename our keys to theirs, in order; the backbone's are the first paper's, after `backbone.`. What doubles a map stands
between the convolutions in their lists and has no weights, so the second convolution is the third of a list.
"""

# fmt: off
MMSEG: list[tuple[str, str]] = [
    (r"^fpn\.lateral\.(\d)",              r"neck.lateral_convs.\1.conv"),
    (r"^fpn\.smooth\.(\d)",               r"neck.fpn_convs.\1.conv"),
    (r"^levels\.(\d)\.0\.",               r"decode_head.scale_heads.\1.0."),
    (r"^levels\.(\d)\.1\.",               r"decode_head.scale_heads.\1.2."),
    (r"^levels\.(\d)\.2\.",               r"decode_head.scale_heads.\1.4."),
    (r"(scale_heads\.\d\.\d)\.norm",      r"\1.bn"),
    (r"^classify",                        r"decode_head.conv_seg"),
]
# fmt: on
HEADS = ("semantic_fpn",)
