"""What can go wrong. Every message is one line that names the file, node, tensor or argument at fault."""


class Error(Exception):
    """Any failure of this package."""


class ModelError(Error):
    """A file that is no model, or one that cannot be expanded or run."""


class LimitError(ModelError):
    """A model that holds more than `Limits` admit."""


class FileError(Error, OSError):
    """A file that cannot be read or written; an existing one is untouched."""


class InputError(Error, ValueError):
    """An argument or an array that does not fit."""


class SizeError(InputError, MemoryError):
    """Inputs whose values do not fit the memory there is."""


class PrecisionError(InputError):
    """A precision, plan or goal that does not exist or cannot be reached."""


class RunError(Error, RuntimeError):
    """A node that failed while the model ran."""
