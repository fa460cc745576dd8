"""How mmdetection names a detector: RetinaNet, Faster and Mask R-CNN, as PoolFormer's were published.

Rules rename our keys to theirs, in order; the backbone's are the first paper's, after `backbone.`.
"""

# fmt: off
MMDET: list[tuple[str, str]] = [
    (r"^fpn\.lateral\.(\d)",              r"neck.lateral_convs.\1.conv"),
    (r"^fpn\.smooth\.(\d)",               r"neck.fpn_convs.\1.conv"),
    (r"^fpn\.extra\.0",                   r"neck.fpn_convs.3.conv"),
    (r"^fpn\.extra\.1",                   r"neck.fpn_convs.4.conv"),
    (r"^head\.label_tower\.(\d)",         r"bbox_head.cls_convs.\1"),
    (r"^head\.box_tower\.(\d)",           r"bbox_head.reg_convs.\1"),
    (r"^head\.label",                     r"bbox_head.retina_cls"),
    (r"^head\.box",                       r"bbox_head.retina_reg"),
    (r"^rpn\.tower\.conv",                r"rpn_head.rpn_conv"),
    (r"^rpn\.object",                     r"rpn_head.rpn_cls"),
    (r"^rpn\.box",                        r"rpn_head.rpn_reg"),
    (r"^box_head\.fc1",                   r"roi_head.bbox_head.shared_fcs.0"),
    (r"^box_head\.fc2",                   r"roi_head.bbox_head.shared_fcs.1"),
    (r"^box_head\.label",                 r"roi_head.bbox_head.fc_cls"),
    (r"^box_head\.box",                   r"roi_head.bbox_head.fc_reg"),
    (r"^mask_head\.tower\.(\d)",          r"roi_head.mask_head.convs.\1"),
    (r"^mask_head\.up",                   r"roi_head.mask_head.upsample"),
    (r"^mask_head\.mask",                 r"roi_head.mask_head.conv_logits"),
]
# fmt: on
HEADS = ("retinanet", "faster_rcnn", "mask_rcnn")
