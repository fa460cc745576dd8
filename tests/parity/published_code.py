"""The papers' computation on their own key names, as flat functions that share nothing with the package."""

import torch
import torch.nn.functional as F
from torch import Tensor

MIXERS = {"identityformer": "iiii", "randformer": "iirr", "poolformer": "pppp", "poolformerv2": "pppp"}
MIXERS |= {"convformer": "cccc", "caformer": "ccaa", "id": "iiii"}


class Keys(dict):
    """A state dict that remembers what was read."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__(state)
        self.unread = set(state)

    def __missing__(self, key: str) -> None:
        return None

    def __getitem__(self, key: str) -> Tensor | None:
        self.unread.discard(key)
        return super().__getitem__(key)


def published_logits(name: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits of the published model `name`; every key of `state` must be used."""
    keys = Keys(state)
    family = name.split("_")[0] if not name.startswith("metaformer") else name.split("_")[1]
    v2 = "downsample_layers.0.conv.weight" in keys
    logits = (_v2 if v2 else _v1)(keys, x, MIXERS.get(family, family), family)
    assert not keys.unread
    return logits


def _v2(s: Keys, x: Tensor, mixers: str, family: str) -> Tensor:
    norm = _channel_norm if family in ("convformer", "caformer") else _map_norm
    for stage in range(4):
        place = f"downsample_layers.{stage}"
        if stage:
            x = _channel_norm(s, f"{place}.pre_norm", x, 1e-6)
        x = F.conv2d(x, s[f"{place}.conv.weight"], s[f"{place}.conv.bias"], 2 if stage else 4, 1 if stage else 2)
        if not stage:
            x = _channel_norm(s, f"{place}.post_norm", x, 1e-6)
        block = 0
        while f"stages.{stage}.{block}.norm1.weight" in s:
            b = f"stages.{stage}.{block}"
            mixed = _mix(mixers[stage], s, f"{b}.token_mixer", norm(s, f"{b}.norm1", x, 1e-6))
            x = _scaled(s, f"{b}.res_scale1.scale", x) + mixed
            h = _star(s, f"{b}.mlp.act", _linear(s, f"{b}.mlp.fc1", norm(s, f"{b}.norm2", x, 1e-6)))
            x = _scaled(s, f"{b}.res_scale2.scale", x) + _linear(s, f"{b}.mlp.fc2", h)
            block += 1
    x = F.layer_norm(x.mean((2, 3)), (x.shape[1],), s["norm.weight"], s["norm.bias"], 1e-6)
    if "head.weight" in s:
        return F.linear(x, s["head.weight"], s["head.bias"])
    x = F.linear(x, s["head.fc1.weight"], s["head.fc1.bias"]).relu() ** 2
    x = F.layer_norm(x, (x.shape[1],), s["head.norm.weight"], s["head.norm.bias"], 1e-5)
    return F.linear(x, s["head.fc2.weight"], s["head.fc2.bias"])


def _v1(s: Keys, x: Tensor, mixers: str, family: str) -> Tensor:
    norm = _channel_norm if family in ("pppa", "ppaa") else _map_norm
    x = F.conv2d(x, s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], 4, 2)
    stage = 0
    for place in range(8):
        if f"network.{place}.pos_embed" in s:
            x = x + s[f"network.{place}.pos_embed"]
        if f"network.{place}.proj.weight" in s:
            x = F.conv2d(x, s[f"network.{place}.proj.weight"], s[f"network.{place}.proj.bias"], 2, 1)
            stage += 1
        block = 0
        while f"network.{place}.{block}.norm1.weight" in s:
            b = f"network.{place}.{block}"
            mixed = _mix(mixers[stage], s, f"{b}.token_mixer", norm(s, f"{b}.norm1", x, 1e-5))
            x = x + _scaled(s, f"{b}.layer_scale_1", mixed)
            h = F.gelu(_linear(s, f"{b}.mlp.fc1", norm(s, f"{b}.norm2", x, 1e-5)))
            x = x + _scaled(s, f"{b}.layer_scale_2", _linear(s, f"{b}.mlp.fc2", h))
            block += 1
    x = norm(s, "norm", x, 1e-5).mean((2, 3))
    return F.linear(x, s["head.weight"], s["head.bias"])


def _mix(letter: str, s: Keys, key: str, x: Tensor) -> Tensor:
    B, C, H, W = x.shape
    if letter == "i":
        return x
    if letter == "p":
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x
    if letter == "c":
        x = _star(s, f"{key}.act1", _linear(s, f"{key}.pwconv1", x))
        x = F.conv2d(x, s[f"{key}.dwconv.weight"], padding=3, groups=2 * C)
        return _linear(s, f"{key}.pwconv2", x)
    if letter == "a":
        q, k, v = _linear(s, f"{key}.qkv", x).reshape(B, 3, C // 32, 32, H * W).unbind(1)
        weights = (q.transpose(2, 3) @ k / 32**0.5).softmax(-1)
        return _linear(s, f"{key}.proj", (v @ weights.transpose(2, 3)).reshape(B, C, H, W))
    matrix = s[f"{key}.random_matrix"] if letter == "r" else s[f"{key}.fc.weight"]
    return torch.einsum("ij,bcj->bci", matrix, x.flatten(2)).reshape(B, C, H, W)


def _linear(s: Keys, key: str, x: Tensor) -> Tensor:
    weight = s[f"{key}.weight"]
    return F.conv2d(x, weight.reshape(*weight.shape[:2], 1, 1), s[f"{key}.bias"])


def _star(s: Keys, key: str, x: Tensor) -> Tensor:
    return s[f"{key}.scale"] * x.relu() ** 2 + s[f"{key}.bias"]


def _scaled(s: Keys, key: str, x: Tensor) -> Tensor:
    scale = s[key]
    return x if scale is None else x * scale.view(-1, 1, 1)


def _map_norm(s: Keys, key: str, x: Tensor, eps: float) -> Tensor:
    return _affine(s, key, (x - x.mean((1, 2, 3), keepdim=True)) * (_variance(x, (1, 2, 3)) + eps).rsqrt())


def _channel_norm(s: Keys, key: str, x: Tensor, eps: float) -> Tensor:
    return _affine(s, key, (x - x.mean(1, keepdim=True)) * (_variance(x, (1,)) + eps).rsqrt())


def _variance(x: Tensor, over: tuple[int, ...]) -> Tensor:
    return x.var(over, unbiased=False, keepdim=True)


def _affine(s: Keys, key: str, x: Tensor) -> Tensor:
    bias = s[f"{key}.bias"]
    x = x * s[f"{key}.weight"].view(-1, 1, 1)
    return x if bias is None else x + bias.view(-1, 1, 1)
