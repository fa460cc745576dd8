"""How mmsegmentation names a segmenter: Semantic FPN, as PoolFormer's were published.

Rules rename our keys to theirs, in order; the backbone's are the first paper's, after `backbone.`.
"""

# fmt: off
MMSEG: list[tuple[str, str]] = [
    (r"^fpn\.lateral\.(\d)",              r"neck.lateral_convs.\1.conv"),
    (r"^fpn\.smooth\.(\d)",               r"neck.fpn_convs.\1.conv"),
    (r"^levels\.(\d\.\d)\.norm",         r"decode_head.scale_heads.\1.bn"),
    (r"^levels",                          r"decode_head.scale_heads"),
    (r"^classify",                        r"decode_head.conv_seg"),
]
# fmt: on
HEADS = ("semantic_fpn",)
