"""Friendly calls from request types: the options of a call are a dataclass's fields, explained once.

A call such as `medfcn.train(dataset, output, steps=500)` makes a `TrainRequest(dataset, output, steps=500)` and works
with that. Requests that share options inherit them. Editors, `help` and type checkers show the options by name.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from medfcn.errors import SettingsError

_Options = ParamSpec("_Options")
_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


def called_with(
    kind: Callable[_Options, _Request],
) -> Callable[[Callable[[_Request], _Result]], Callable[_Options, _Result]]:
    """Make a function of one request callable with the request's fields.

    Args:
        kind: The dataclass of the request. The section `Attributes:` of its docstring explains its own fields; those
            of inherited fields are in its base classes. A field `given` gets the names of the options of a call that
            are not None, unless the call states it.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Greeting:
        ...     '''A greeting.
        ...
        ...     Attributes:
        ...         name: The person.
        ...     '''
        ...
        ...     name: str
        ...     polite: bool = False
        >>> @called_with(Greeting)
        ... def greet(request: Greeting) -> str:
        ...     '''Greet a person.'''
        ...     return f"Good morning, {request.name}" if request.polite else f"Hi {request.name}"
        >>> greet("Ada", polite=True), str(inspect.signature(greet))
        ('Good morning, Ada', '(name: str, polite: bool = False) -> str')
        >>> print(greet.__doc__)
        Greet a person.
        <BLANKLINE>
        Args:
            name: The person.
    """

    def decorate(work: Callable[[_Request], _Result]) -> Callable[_Options, _Result]:
        @functools.wraps(work)
        def call(*arguments: _Options.args, **options: _Options.kwargs) -> _Result:
            if states_given and "given" not in options:
                named: Any = {"given": tuple(name for name, value in options.items() if value is not None)}
                options.update(named)
            return work(kind(*arguments, **options))

        signature = inspect.signature(kind)
        states_given = "given" in signature.parameters
        parameters = [
            parameter.replace(annotation=_Plain(parameter.annotation)) for parameter in signature.parameters.values()
        ]
        returns = _Plain(inspect.signature(work).return_annotation)
        vars(call)["__signature__"] = signature.replace(parameters=parameters, return_annotation=returns)
        call.__doc__ = _explained(inspect.getdoc(work) or "", kind)
        return call

    return decorate


def require_one(**given: object) -> None:
    """Refuse options of which only one may be given.

    Raises:
        SettingsError: Several are not None.
    """
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        message = f"{' and '.join(names)} are given together; give one of them"
        raise SettingsError(message, code="OPTIONS_TOGETHER", field=names[0])


class _Plain:
    """A type by its short name, as it is shown in a signature."""

    def __init__(self, annotation: Any) -> None:
        self.name = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    def __repr__(self) -> str:
        return self.name


def _explained(text: str, kind: Any) -> str:
    """A docstring with the explanations of a request's fields, in the order of the fields."""
    described = [
        section.splitlines()
        for base in reversed(kind.__mro__)
        if "Attributes:\n" in (base.__doc__ or "")
        for section in [inspect.cleandoc(base.__doc__).partition("Attributes:\n")[2]]
    ]
    summary, heading, rest = text.partition("\n\nRaises:")
    return "\n".join([summary, "", "Args:", *(line for lines in described for line in lines)]) + heading + rest
