"""The options of a build."""

from dataclasses import dataclass, fields

from ..errors import InputError

HARDWARE_COMPATIBILITY = ("ampere-plus", "same-capability")
OPTIMIZATION_LEVELS = range(6)


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build; None leaves the library's default. No library has them all: see `refuse`.

    Attributes:
        workspace: bytes of scratch memory that a kernel may use.
        optimization_level: 0 (builds fast) to 5 (runs fast).
        timing_cache: whether to keep measured kernel times beside the engines, for the next build.
        hardware_compatibility: other GPUs that the engines shall run on, slower: "ampere-plus" is compute
            capability 8.0 and later, "same-capability" is every model of this GPU's.
        version_compatible: whether later versions of the same major version shall run the engines.
        refit: whether weights can be replaced in a built engine.

    Raises:
        InputError: a value is out of its range.
    """

    workspace: int | None = None
    optimization_level: int | None = None
    timing_cache: bool | None = None
    hardware_compatibility: str | None = None
    version_compatible: bool | None = None
    refit: bool = False

    def __post_init__(self) -> None:
        if self.workspace is not None and self.workspace < 1:
            raise InputError(f"workspace: {self.workspace} bytes is too little, expected at least 1")
        level = self.optimization_level
        if level is not None and level not in OPTIMIZATION_LEVELS:
            raise InputError(f"optimization level: {level} is unknown, expected 0 to 5")
        other = self.hardware_compatibility
        if other is not None and other not in HARDWARE_COMPATIBILITY:
            raise InputError(
                f"hardware compatibility: {other!r} is unknown; choose {' or '.join(HARDWARE_COMPATIBILITY)}"
            )

    def asked(self) -> tuple[str, ...]:
        """Names of the options that ask for something."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) not in (None, False))

    def refuse(self, backend: str, lacking: frozenset[str]) -> None:
        """Refuse what a library lacks.

        Raises:
            InputError: an option of `lacking` is asked for.
        """
        if missing := [name for name in self.asked() if name in lacking]:
            raise no_such_option(missing[0], backend)


def no_such_option(name: str, backend: str) -> InputError:
    """The error of an option, by its field's name, that a backend lacks."""
    return InputError(f"option {name.replace('_', ' ')}: {backend} has no such option; leave it out")
