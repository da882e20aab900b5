"""Questions to the method that is meant where none is named, as most tests ask them."""

from explorer.engine import Engine
from explorer.methods.attributor import Attributor
from explorer.methods.description import DEFAULT, choose
from explorer.methods.opening import open_method

OWN = choose(DEFAULT)


def asking(engine: Engine) -> Attributor:
    """The method over an engine, with one memory for as long as the engine is there."""
    found: Attributor = engine.__dict__.setdefault("asking", Attributor(open_method(engine, DEFAULT)))
    return found


def by(engine: Engine, name: str) -> Attributor:
    """Any method over an engine, with a memory of its own."""
    return Attributor(open_method(engine, name))
