"""The version of our configuration files: old files stay readable, and code refuses files that are newer than itself.

Every config.json we write carries `format_version`. Files from before the field count as version 1. Raise
`FORMAT_VERSION` when a field changes its name or meaning; a new field whose default suits old files needs nothing.
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .code_unibrivl import CarriesCode

FORMAT_VERSION = 1
FIRST_VERSION = 1


def check_format_version(config) -> None:
    """Raises a ValueError unless this code can read the version that `config` carries."""
    _check(config.format_version)


def _check(version) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < FIRST_VERSION:
        raise ValueError(
            f"format_version must be a whole number from {FIRST_VERSION} on, got {version!r}: the configuration is "
            "damaged or not ours. Download it again, or remove the line if the file is older than the field"
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"this configuration has format_version {version} and the installed unibrivl reads up to "
            f"{FORMAT_VERSION}: pip install --upgrade unibrivl"
        )


@strict
class VersionedConfig(CarriesCode, PreTrainedConfig):
    """A configuration that carries the version of its format; it is the base of all of ours.

    Args:
        format_version (`int`): written by the code that saves; nobody sets it by hand.
    """

    format_version: int = FORMAT_VERSION

    def validate_format_version(self):
        """Part of `strict`: for configurations that are built or changed in memory."""
        check_format_version(self)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Looks at kind and version before anything else: a newer file may hold fields of which we know nothing.

        Here is also the place to bring the fields of an older file up to date, once there is a second version.
        """
        found = config_dict.get("model_type", cls.model_type)
        if found not in [getattr(base, "model_type", None) for base in cls.__mro__]:
            raise ValueError(
                f"this is the configuration of a {found!r} model and {cls.__name__} reads {cls.model_type!r}: check "
                "the name or path, or convert the checkpoint first"
            )
        _check(config_dict.get("format_version", FIRST_VERSION))
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """A tower read out of a bigger model's file: version and architectures are those of the file, not of the part.

        The part may still say what it was saved as before it became a part, and loading would take that for the file.
        """
        found, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if found.get("model_type") != cls.model_type:
            for name, part in found.items():
                if isinstance(part, dict) and (
                    name == cls.base_config_key or part.get("model_type") == cls.model_type
                ):
                    part["format_version"] = found.get("format_version", FIRST_VERSION)
                    part["architectures"] = found.get("architectures")
        return found, kwargs


__all__ = ["FORMAT_VERSION", "VersionedConfig", "check_format_version"]
