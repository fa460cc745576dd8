"""The classifier of timm's models, and weights of a run or a file that fill them even where the classes are others."""

from pathlib import Path

from torch import nn

from metaformer.weights.files import find_file, read_file
from metaformer.weights.peers import Peer


def classifiers(peer: Peer) -> list[nn.Module]:
    """What timm calls the model's classifier: one module, or several. Raises ValueError where there is none that learns."""
    found = peer.model.get_classifier()
    heads = [found] if isinstance(found, nn.Module) else list(found)
    if not any(True for head in heads for _ in head.parameters()):
        raise ValueError(f"timm's {peer.config.name} has no classifier of its own that could learn")
    return heads


def fill_peer(peer: Peer, source: Path) -> tuple[str, ...]:
    """Puts the weights of a file or folder into the model; a sentence where its classifier stays new, for other classes.

    Raises FileNotFoundError, or ValueError where more than the classifier does not fit.
    """
    given, own = read_file(find_file(source)), peer.state_dict()
    heads = classifiers(peer)
    names = tuple(f"{name}." for name, module in peer.named_modules() if any(module is head for head in heads))
    head = {key: tensor for key, tensor in own.items() if key.startswith(names)}
    new = any(key not in given or given[key].shape != tensor.shape for key, tensor in head.items())
    body = {key: tensor for key, tensor in given.items() if not key.startswith(names)}
    try:
        peer.load_state_dict(body | head if new else given)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ValueError(f"{source} does not fit timm's {peer.config.name}: {reason}") from error
    return (f"classifier: new, of {peer.config.num_classes} classes",) if new else ()
