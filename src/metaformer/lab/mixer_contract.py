"""What a mixer promises, line by line: each is a function that says what it found, or raises BrokenError with the reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaformer.core.architecture import SPECS
from metaformer.core.spec import from_text, to_text
from metaformer.lab.mixer_case import CLOSE, SIDE, BrokenError, Case, LeftOutError, expect, far, first, size
from metaformer.own import FAILURES

WIDTHS = (32, 96, 320)
"""Channels with which a mixer is built, beside those that are asked for."""
RUNNING = (nn.modules.batchnorm._BatchNorm,)
"""Modules that are known to compute something else in training, over the batch."""


# --- what it makes ----------------------------------------------------------------------------------------------------


def builds(case: Case) -> str:
    """A new module for each block, of any width."""
    widths = tuple(dict.fromkeys((case.dim, *WIDTHS)))
    for dim in widths:
        one, other = case.mixer(dim), case.mixer(dim)
        for made in (one, other):
            what = f"called with {dim} channels it gives {type(made).__name__}, and no module: return an nn.Module"
            expect(isinstance(made, nn.Module), what)
        shared = {id(p) for p in (*one.parameters(), *one.buffers())} & {id(p) for p in (*other.parameters(), *other.buffers())}
        expect(not shared and (one is not other), "two blocks would share one module: make a new one at each call")
    return f"a new module at each call, for {', '.join(map(str, widths))} channels"


def spec(case: Case) -> str:
    """Prints, hashes, compares, copies, and reads back from its text, which is what a run's files hold."""
    text = to_text(case.mixer)
    try:
        hash(case.mixer)
    except TypeError:
        raise BrokenError("it cannot be hashed: make the spec @dataclass(frozen=True)") from None
    try:
        again = from_text(text, SPECS)
    except ValueError as error:
        hint = "name it: a class at the top of a module, or a frozen dataclass whose call makes the module"
        raise BrokenError(f"it prints as {text}, which does not read back ({error}): {hint}") from None
    what = f"it prints as {text}, which reads back as something else: make it a module class, or a frozen dataclass"
    expect(again == case.mixer and hash(again) == hash(case.mixer) and deepcopy(case.mixer) == case.mixer, what)
    return f"prints, hashes, compares, and reads back from {text}"


def shape(case: Case) -> str:
    """(B, C, H, W) to (B, C, H, W)."""
    x = case.map()
    y = case.module()(x)
    expect(isinstance(y, Tensor), f"it gives {type(y).__name__}, and no tensor")
    expect(y.shape == x.shape, f"{size(x)} became {size(y)}: a mixer keeps the shape")
    return f"{size(x)} stays {size(x)}"


def dtype(case: Case) -> str:
    """float32 and float64 come out as they go in, on the device of the input."""
    for kind in (torch.float32, torch.float64) if case.device.type != "mps" else (torch.float32,):
        y = case.module().to(kind)(case.map().to(kind))
        what = f"{kind} became {y.dtype}: a tensor made inside takes dtype=x.dtype, and parameters move with the module"
        expect(y.dtype == kind, what)
    return "float32 and float64 come out as they went in"


def odd_sizes(case: Case) -> str:
    """Sides that are odd and unlike each other."""
    return _kept(case, ((7, 5), (3, 10)), "sides that are odd and unequal")


def one_pixel(case: Case) -> str:
    """Maps that are one place high, or wide, or both: small images in the last stage."""
    return _kept(case, ((1, 1), (1, 4), (4, 1)), "maps of a single place, row and column")


def _kept(case: Case, sides: tuple[tuple[int, int], ...], what: str) -> str:
    module = case.module()
    for height, width in sides:
        x = case.map(height, width)
        with _claimed(case):
            y = module(x)
        expect(y.shape == x.shape, f"{size(x)} became {size(y)}")
        expect(bool(y.isfinite().all()), f"{size(x)} gives values that are no numbers")
    return f"{what} keep their shape"


@contextmanager
def _claimed(case: Case) -> Iterator[None]:
    """A mixer made for a grid may refuse other ones, with a ValueError."""
    try:
        yield
    except ValueError as error:
        if case.grid is None:
            raise
        raise LeftOutError(f"made for a grid of {case.grid}, it refuses others: {first(error)}") from None


def several_sizes(case: Case) -> str:
    """One module for all sizes, whatever it has seen before."""
    sides, module = (case.side, case.side + 3, 2 * case.side), case.module()
    what = "after other sizes a map of {0} × {0} gives something else, off by {1:.1e}: keep nothing of a call in self"
    before = module(case.map())
    for side in sides:
        with _claimed(case):
            y = module(case.map(side))
        off = far(y, case.module()(case.map(side)))
        expect(off <= CLOSE, what.format(side, off))
    off = far(module(case.map()), before)
    expect(off <= CLOSE, what.format(case.side, off))
    return f"one module takes sides of {', '.join(map(str, sides))}, in any order"


def finite(case: Case) -> str:
    """Numbers stay numbers, for zeros and large values too, and in the gradient."""
    for what, x in (("random values", case.map()), ("zeros", 0 * case.map()), ("values of about 1,000", 1000 * case.map())):
        x.requires_grad_()
        y = case.module()(x)
        expect(bool(y.isfinite().all()), f"{what} give values that are no numbers: where something is divided, add an eps")
        if y.requires_grad:
            (grad,) = torch.autograd.grad(y.sum(), x, allow_unused=True)
            expect(grad is None or bool(grad.isfinite().all()), f"{what} give a gradient that is no number")
    return "random values, zeros and large values give numbers, and so do their gradients"


def untouched(case: Case) -> str:
    """The input is the block's: a shortcut may need it."""
    x = case.map()
    before = x.clone()
    case.module()(x)
    expect(bool(torch.equal(x, before)), "it changes its input in place: leave out the underscore, add_ becomes add")
    return "the input stays as it is"


# --- learning ---------------------------------------------------------------------------------------------------------


def gradient(case: Case) -> str:
    """Reaches what came before."""
    x = case.map().requires_grad_()
    y = case.module().train()(x)
    expect(y.requires_grad, "no gradient reaches its input: no detach(), no no_grad(), no .data, no NumPy")
    (grad,) = torch.autograd.grad((y * torch.randn_like(y)).sum(), x, allow_unused=True)
    expect(grad is not None and bool(grad.any()), "no gradient reaches its input, and the block before would learn nothing")
    return "reaches the input"


def parameters(case: Case) -> str:
    """Each that can learn has a gradient."""
    module = case.module().train()
    y = module(case.map().requires_grad_())
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not named:
        return "there are none that learn"
    expect(y.requires_grad, f"no gradient reaches {', '.join(named)}")
    (y * torch.randn_like(y)).sum().backward()
    for name, p in named.items():
        expect(p.grad is not None, f"{name} has no part in the result: use it, or leave it out")
        expect(bool(p.grad is not None and p.grad.any()), f"the gradient of {name} is zero throughout")
    return f"{sum(p.numel() for p in named.values()):,} numbers learn, in {_tensors(len(named))}, each with a gradient"


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def batch(case: Case) -> str:
    """An image is treated as if it were alone."""
    x = case.map(batch=3)
    module = case.module()
    off = far(module(x)[1:2], module(x[1:2]))
    expect(off <= CLOSE, f"an image gives something else among others, off by {off:.1e}: mix places, not images")
    norms = any(isinstance(part, RUNNING) for part in module.modules())
    for mode in (False,) if norms else (False, True):
        x = case.map(batch=3).requires_grad_()
        y = module.train(mode)(x)
        if y.requires_grad:
            (grad,) = torch.autograd.grad(y[0].square().sum(), x, allow_unused=True)
            how = "in training " if mode else ""
            expect(grad is None or not bool(grad[1:].any()), f"{how}an image's result depends on the others of its batch")
    return "images do not see each other" + (", but for batch norms in training" if norms else "")


def deterministic(case: Case) -> str:
    """The same again: in evaluation always, in training from the same seed of torch."""
    module, x = case.module(), case.map()
    expect(torch.equal(module(x), module(x)), "two calls in evaluation differ: drop out only `if self.training`")
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(case.module().train()(x))
    expect(torch.equal(*found), "two calls in training from the same seed differ: draw with torch alone")
    return "the same again in evaluation, and from the same seed in training"


def modes(case: Case) -> str:
    """Evaluation changes nothing, and training differs by chance or batch norms alone."""
    module, x = case.module(), case.map()
    before = deepcopy(module.state_dict())
    right = module(x)
    for name, value in module.state_dict().items():
        expect(torch.equal(value, before[name]), f"a call in evaluation changes {name}: do so only `if self.training`")
    module.train()
    one, other = (module(x) for _ in range(2))
    expect(one.shape == x.shape, f"in training {size(x)} became {size(one)}")
    if any(isinstance(part, RUNNING) for part in module.modules()):
        return "evaluation changes nothing; training normalises by the batch"
    if not torch.equal(one, other):
        return "evaluation changes nothing and draws nothing; training draws by chance"
    off = far(one, right)
    expect(off <= CLOSE, f"training gives something else than evaluation, off by {off:.1e}, though nothing is drawn by chance")
    return "the same in training and in evaluation"


def state(case: Case) -> str:
    """What is saved is all that there is."""
    module, x = case.module(), case.map()
    kept = deepcopy(module.state_dict())
    wrong = [name for name, value in kept.items() if not isinstance(value, Tensor)]
    expect(not wrong, f"{', '.join(wrong)} is no tensor, and cannot be kept in a file of weights")
    again = case.module(seed=1)
    again.load_state_dict(kept)
    off = far(again(x), module(x))
    what = "a tensor that is no parameter is registered, self.register_buffer(name, tensor)"
    expect(off <= CLOSE, f"saved and loaded into a new one it gives something else, off by {off:.1e}: {what}")
    return f"saved in {_tensors(len(kept))}, it gives the same again"


def copies(case: Case) -> str:
    """A copy is another one: what averages weights makes copies in the middle of training."""
    module, x = case.module().train(), case.map()
    module(x)
    right = module.eval()(x)
    try:
        twin = deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise BrokenError(f"it cannot be copied after a call ({first(error)}): keep nothing of a call in self") from None
    expect(far(twin.eval()(x), right) <= CLOSE, "a copy gives something else")
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    expect(far(module(x), right) <= CLOSE, "a copy shares its parameters with what it was copied from")
    return "a copy gives the same, and is one of its own"


# --- layouts, precisions, devices -------------------------------------------------------------------------------------


def layout(case: Case) -> str:
    """Channels-last comes out as it goes in; the other layout gives the same values."""
    module, x = case.module(), case.map()
    y = module(x)
    off = far(module(x.contiguous()), y)
    expect(off <= CLOSE, f"the layout of memory changes the result, off by {off:.1e}: no .view() and .data_ptr() on maps")
    what = "the result is not channels-last, and is copied in every block: "
    advice = "end with .contiguous(memory_format=torch.channels_last), or let the map itself come first where maps are added"
    expect(y.is_contiguous(memory_format=torch.channels_last), what + advice)
    return "channels-last stays so, and both layouts give the same"


def half(case: Case, kind: torch.dtype, most: float) -> str:
    """All of it in half precision, on a map with many places."""
    side = case.grid or 4 * SIDE
    x, module = case.map(side).to(kind), case.module()
    with torch.no_grad():
        right, y = module(x.float()), module.to(kind)(x)
    expect(y.dtype == kind, f"{kind} became {y.dtype}: a tensor made inside takes dtype=x.dtype")
    expect(bool(y.isfinite().all()), f"on {side} × {side} places {kind} leaves its range: sum in float32, x.float().sum(...)")
    off = float((y.double() - right.double()).abs().mean() / right.double().abs().mean().clamp(min=1e-12))
    expect(off <= most, f"off by {off:.1e} of the mean, and {most:g} is allowed: sum in float32, x.float().sum(...)")
    return f"off by {off:.1e} of the mean on {side} × {side} places"


def autocast(case: Case) -> str:
    """As training uses it: parameters in float32, products in bfloat16."""
    module, x = case.module().train(), case.map().requires_grad_()
    with torch.autocast(case.device.type, torch.bfloat16):
        y = module(x)
    expect(bool(y.isfinite().all()), "the result has values that are no numbers")
    if y.requires_grad:
        y.float().square().sum().backward()
        for name, p in (("its input", x), *module.named_parameters()):
            expect(p.grad is None or bool(p.grad.isfinite().all()), f"the gradient of {name} has values that are no numbers")
    return "trains with products in bfloat16"


def other_device(case: Case) -> str:
    """Follows its input: tried on torch's device without values, as metaformer count does."""
    module = case.module()
    tensors = [*module.named_parameters(), *module.named_buffers()]
    try:
        y = functional_call(module, {name: value.detach().to("meta") for name, value in tensors}, (case.map().to("meta"),))
    except FAILURES as error:
        advice = "make tensors with device=x.device, and register those that stay"
        raise BrokenError(f"on another device: {first(error)}: {advice}") from None
    expect(y.device.type == "meta", f"its result is on {y.device}, its input was not: make tensors with device=x.device")
    return "all of it follows its input to another device"
