"""The errors a caller may want to catch apart. Everything geoalign raises on purpose is one of these."""


class GeoalignError(Exception):
    """Root of every error geoalign raises on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class StackError(GeoalignError):
    """The images or their metadata are not what was asked for."""


class NoUsableData(StackError):
    """Nothing is left to work on: an empty folder, no overlap, everything masked or rejected."""

    exit_code = 4


class MatchError(GeoalignError):
    """Two images could not be aligned; the message is the reason."""


class ConfigError(GeoalignError):
    """The configuration or an option is wrong. `problems` lists all of them, not only the first."""

    exit_code = 2

    def __init__(self, message: str, problems: tuple[str, ...] = ()):
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class StateError(GeoalignError):
    """A stored state or a layer does not fit this version or these data."""
