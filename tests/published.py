"""The published figures of every model, typed from the papers' tables and from counts of the published code."""

from typing import NamedTuple


class Row(NamedTuple):
    """One model: parameters, how many of them are frozen, MACs at 224 and at 384 pixels, top-1 at 224 and 384."""

    parameters: int
    frozen: int
    macs: int
    macs_384: int | None
    top1: float | None
    top1_384: float | None = None


# fmt: off
PUBLISHED = {
    "identityformer_s12":      Row(11_891_712,       0,  1_812_267_008,  5_324_853_248, 74.6),
    "identityformer_s24":      Row(21_341_464,       0,  3_392_208_896,  9_967_947_776, 78.2),
    "identityformer_s36":      Row(30_791_216,       0,  4_972_150_784, 14_611_042_304, 79.3),
    "identityformer_m36":      Row(56_077_168,       0,  8_758_788_096, 25_738_622_976, 80.0),
    "identityformer_m48":      Row(73_346_056,       0, 11_533_320_192, 33_892_349_952, 80.4),
    "randformer_s12":          Row(12_127_010, 235_298,  1_888_484_352,           None, 76.6),
    "randformer_s24":          Row(21_812_060, 470_596,  3_544_643_584,           None, 78.2),
    "randformer_s36":          Row(31_497_110, 705_894,  5_200_802_816,           None, 79.5),
    "randformer_m36":          Row(56_783_062, 705_894,  9_035_383_296,           None, 81.2),
    "randformer_m48":          Row(74_287_248, 941_192, 11_902_113_792,           None, 81.4),
    "poolformerv2_s12":        Row(11_891_712,       0,  1_812_267_008,  5_324_853_248, 78.0),
    "poolformerv2_s24":        Row(21_341_464,       0,  3_392_208_896,  9_967_947_776, 80.7),
    "poolformerv2_s36":        Row(30_791_216,       0,  4_972_150_784, 14_611_042_304, 81.6),
    "poolformerv2_m36":        Row(56_077_168,       0,  8_758_788_096, 25_738_622_976, 82.2),
    "poolformerv2_m48":        Row(73_346_056,       0, 11_533_320_192, 33_892_349_952, 82.6),
    "convformer_s18":          Row(26_774_448,       0,  3_940_984_320, 11_575_664_640, 83.0, 84.4),
    "convformer_s36":          Row(40_012_152,       0,  7_639_683_072, 22_445_309_952, 84.1, 85.4),
    "convformer_m36":          Row(57_051_640,       0, 12_842_333_568, 37_733_695_488, 84.5, 85.6),
    "convformer_b36":          Row(99_882_616,       0, 22_629_413_376, 66_492_235_776, 84.8, 85.7),
    "caformer_s18":            Row(26_341_656,       0,  4_106_941_440, 13_366_149_120, 83.6, 85.0),
    "caformer_s36":            Row(39_297_102,       0,  7_971_597_312, 25_984_253_952, 84.5, 85.7),
    "caformer_m36":            Row(56_204_878,       0, 13_240_630_656, 41_977_276_416, 85.2, 86.2),
    "caformer_b36":            Row(98_753_614,       0, 23_160_476_160, 72_150_343_680, 85.5, 86.4),
    "poolformer_s12":          Row(11_915_176,       0,  1_812_267_008,  5_324_853_248, 77.2),
    "poolformer_s24":          Row(21_388_968,       0,  3_392_208_896,  9_967_947_776, 80.3),
    "poolformer_s36":          Row(30_862_760,       0,  4_972_150_784, 14_611_042_304, 81.4),
    "poolformer_m36":          Row(56_172_520,       0,  8_758_788_096, 25_738_622_976, 82.1),
    "poolformer_m48":          Row(73_473_448,       0, 11_533_320_192, 33_892_349_952, 82.5),
    "metaformer_id_s12":       Row(11_915_176,       0,  1_812_267_008,           None, 74.3),
    "metaformer_pppa_s12_224": Row(14_038_440,       0,  1_919_944_704,           None, None),
    "metaformer_ppaa_s12_224": Row(16_535_592,       0,  2_549_151_744,           None, 81.0),
    "metaformer_pppf_s12_224": Row(11_919_978,       0,  1_814_725_632,           None, None),
    "metaformer_ppff_s12_224": Row(12_150_474,       0,  1_888_484_352,           None, None),
}
# fmt: on

T6 = ("identityformer_t6", "randformer_t6", "poolformerv2_t6", "convformer_t6", "caformer_t6")
"""Our small models: published nowhere."""
