"""The errors that a user of memwarp can cause, each saying what was expected, what came and what to do."""


class MemwarpError(Exception):
    """Base of all errors that memwarp raises on purpose."""


class ConfigError(MemwarpError, ValueError):
    """A configuration file, an option or a weights file does not fit."""


class DataError(MemwarpError, ValueError):
    """A data set, a bag, a video or an image cannot be read as what it claims to be."""


class StaleFrameError(MemwarpError, ValueError):
    """A frame is not newer than the newest one in the memory."""


class ExportError(MemwarpError):
    """An exported detector does not say what the original says, or a runtime cannot use it."""
