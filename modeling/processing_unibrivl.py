"""UniBriVL's processor: sounds, pictures and texts, each optional, to one batch for the model.

It holds what the towers of the model bring: a feature extractor, an image processor, the tokenizer of a native text
tower (of a captioner, that of its language model), and the tokenizer of SpeechLM's units. Whatever is absent cannot be
asked for; all else works. Nothing is cut off, resampled or left out without a word.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, BatchFeature, ProcessorMixin

# transformers 5.4 exports a substitute that asks for torchvision; the class itself does not
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.processing_utils import ProcessingKwargs, Unpack
from transformers.utils import cached_file, logging

from .clips_unibrivl import as_clips, check_rate, clip_samples, most_samples
from .code_unibrivl import CarriesCode
from .feature_extraction_cavmae import CAVMAEFeatureExtractor
from .feature_extraction_mel_encoder import MelEncoderFeatureExtractor
from .feature_extraction_speechlm import SpeechLMFeatureExtractor
from .image_processing_brivl import BriVLImageProcessor
from .image_processing_cavmae import CAVMAEImageProcessor
from .tokenization_speechlm import SpeechLMPhoneTokenizer

logger = logging.get_logger(__name__)

LOADERS: dict[str, Any] = {
    "feature_extractor": AutoFeatureExtractor,
    "image_processor": AutoImageProcessor,
    "tokenizer": AutoTokenizer,
    "unit_tokenizer": SpeechLMPhoneTokenizer,
}
PARTS = tuple(LOADERS)
# parts of our own, by the field that names their class: a processor that is here can load them without asking the Auto
# classes, which in a flat copy would ask for trust again
OWN = {
    one.__name__: one
    for one in (
        *(CAVMAEFeatureExtractor, MelEncoderFeatureExtractor, SpeechLMFeatureExtractor),
        *(BriVLImageProcessor, CAVMAEImageProcessor),
    )
}
CLASS_FIELDS = ("feature_extractor_type", "image_processor_type")
# what a part is asked to process, in the order in which an argument that several know finds its part
KINDS = {"text": "tokenizer", "unit": "unit_tokenizer", "audio": "feature_extractor", "images": "image_processor"}
TEXT_ARGUMENTS = ("add_special_tokens", "padding", "truncation", "max_length", "pad_to_multiple_of", "padding_side")
# whole models with a text tower -> the field of its config that says to how many tokens texts are padded or cut
TEXT_LENGTHS = {
    "brivl": "max_length",
    "clip": "max_position_embeddings",
    "siglip": "max_position_embeddings",
    "siglip2": "max_position_embeddings",
}
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "vocab.txt")
NAMED_PADDING_MASK = ("PeAudioFeatureExtractor",)  # extractors that call their mask so


class UniBriVLProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """
    unit_kwargs (`dict`): for the tokenizer of SpeechLM's units.
    """

    unit_kwargs: dict[str, Any]


class _PartsThatAreThere:
    """`get_attributes()`: of the class all parts, of a processor those it has: transformers saves what it names."""

    def __get__(self, processor, owner=None) -> Callable[[], list[str]]:
        return partial(_parts_of, processor)


def _parts_of(processor) -> list[str]:
    return [name for name in PARTS if processor is None or getattr(processor, name, None) is not None]


class ProcessorWithCode(CarriesCode, ProcessorMixin):
    """One base: transformers' tests ask the first base of a processor what a processor can do."""


class UniBriVLProcessor(ProcessorWithCode):
    """
    Args:
        feature_extractor (*optional*): of the audio tower.
        image_processor (*optional*): of the image tower.
        tokenizer (*optional*): of the native text tower, for `input_ids`, or of a captioner's language model.
        unit_tokenizer (*optional*): SpeechLM's, for `unit_ids`.
        text_padding (`bool` or `str`): how native texts are padded: BriVL and SigLIP want `"max_length"`.
        text_max_length (`int`, *optional*): tokens at which they are cut, or to which they are padded.
    """

    get_attributes = _PartsThatAreThere()
    valid_processor_kwargs = UniBriVLProcessorKwargs
    chat_template = None

    def __init__(
        self,
        feature_extractor=None,
        image_processor=None,
        tokenizer=None,
        unit_tokenizer=None,
        text_padding: bool | str = True,
        text_max_length: int | None = None,
    ):
        given = dict(zip(PARTS, (feature_extractor, image_processor, tokenizer, unit_tokenizer), strict=True))
        if all(part is None for part in given.values()):
            raise ValueError(f"a processor needs at least one of {', '.join(PARTS)}")
        for name, part in given.items():
            if part is not None:
                self.check_argument_for_proper_class(name, part)
            setattr(self, name, part)
        self.text_padding = text_padding
        self.text_max_length = text_max_length

    @classmethod
    def from_pretrained_towers(
        cls,
        audio: str,
        image: str,
        *,
        text: bool = True,
        audio_kwargs: dict | None = None,
        image_kwargs: dict | None = None,
    ) -> "UniBriVLProcessor":
        """The parts that belong to the towers of `UniBriVLModel.from_pretrained_towers`.

        Args:
            audio, image: name or folder of each.
            text (`bool`): bring the tokenizers too, that of the units with SpeechLM and that of the native text tower.
            audio_kwargs, image_kwargs (*optional*): for each `from_pretrained`: revision, cache_dir, ...
        """
        audio_kwargs, image_kwargs = audio_kwargs or {}, image_kwargs or {}
        given: dict[str, Any] = {
            "feature_extractor": AutoFeatureExtractor.from_pretrained(audio, **audio_kwargs),
            "image_processor": AutoImageProcessor.from_pretrained(image, **image_kwargs),
        }
        if text and AutoConfig.from_pretrained(audio, **audio_kwargs).model_type == "speechlm":
            given["unit_tokenizer"] = _tokenizer_beside(audio, audio_kwargs)
        image_config = AutoConfig.from_pretrained(image, **image_kwargs)
        if text and image_config.model_type in TEXT_LENGTHS:
            given["tokenizer"] = _tokenizer_beside(image, image_kwargs)
            given["text_max_length"] = getattr(image_config.text_config, TEXT_LENGTHS[image_config.model_type])
            given["text_padding"] = image_config.model_type == "clip" or "max_length"
        return cls(**given)

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        saved = (processor_dict or {}).get("parts")
        if saved is None:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds no UniBriVLProcessor: save one there with save_pretrained, or "
                "build it from its parts with UniBriVLProcessor(...) or from_pretrained_towers(audio, image)"
            )
        replaced = {name: kwargs.pop(name) for name in PARTS if name in kwargs}
        for name in ("text_padding", "text_max_length"):  # ours, no part's
            kwargs.pop(name, None)
        subfolder = kwargs.pop("subfolder", "")
        arguments = []
        for name, loader in LOADERS.items():
            if name in replaced or name not in saved:
                arguments.append(replaced.get(name))
                continue
            place = "/".join(filter(None, (subfolder, name))) if name == "unit_tokenizer" else subfolder
            said = (processor_dict or {}).get(name) or {}
            loader = next((OWN[said[field]] for field in CLASS_FIELDS if said.get(field) in OWN), loader)
            arguments.append(loader.from_pretrained(pretrained_model_name_or_path, subfolder=place, **kwargs))
        return arguments

    def to_dict(self) -> dict[str, Any]:
        parts = _parts_of(self)
        return {name: value for name, value in super().to_dict().items() if value is not None} | {"parts": parts}

    @property
    def model_input_names(self) -> list[str]:
        """The keys of a batch for which everything was passed."""
        names = []
        if self.feature_extractor is not None:
            mask = _mask_name(self.feature_extractor)
            names += [name for name in self.feature_extractor.model_input_names if name != "attention_mask"]
            names += [] if mask is None else [mask]
        if self.image_processor is not None:
            names += self.image_processor.model_input_names
        if self.tokenizer is not None:
            names += ["input_ids", "text_attention_mask"]
        if self.unit_tokenizer is not None:
            names += ["unit_ids", "unit_attention_mask"]
        return names

    def __call__(
        self,
        audio=None,
        images=None,
        text: str | list[str] | None = None,
        **kwargs: Unpack[UniBriVLProcessorKwargs],
    ) -> BatchFeature:
        """
        Args:
            audio (*optional*): one clip or a list of clips: 1-D arrays or tensors, or what `unibrivl.load_audio` made.
            images (*optional*): one picture or a list: PIL pictures, arrays or tensors.
            text (*optional*): one text or a list. With both tokenizers it becomes `input_ids` and `unit_ids`.
            sampling_rate (`int`, *optional*): of clips that do not carry their own.
            return_tensors (`str`, *optional*): "pt", the default, "np", or None for lists.
            audio_kwargs, images_kwargs, text_kwargs, unit_kwargs (`dict`, *optional*): for the part in question; those
                of texts for the units where there is no other tokenizer.
            kwargs: any of these by its own name, for the part that knows it; `padding` and its like are the texts'
                where texts are passed.
        """
        if audio is None and images is None and text is None:
            raise ValueError("nothing to process: pass audio, images or text")
        if text is not None and self.unit_tokenizer is None:
            self._need("text")
        units = None if self.unit_tokenizer is None else text
        inputs = {"text": None if self.tokenizer is None else text, "unit": units, "audio": audio, "images": images}
        kinds = [kind for kind in KINDS if inputs[kind] is not None]
        sorted_kwargs = self._sort_kwargs(kinds, dict(kwargs))
        batch: dict[str, Any] = {}
        for kind in kinds:
            process = getattr(self, f"_process_{kind}")
            batch |= process(inputs[kind], sorted_kwargs[kind])
        return BatchFeature(batch)

    def _sort_kwargs(self, kinds: list[str], kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The arguments of a call by the kind of input they are for; what no part knows is an error."""
        kwargs = kwargs.pop("common_kwargs", {}) | kwargs  # transformers' older way of saying the same
        common = {"return_tensors": kwargs.pop("return_tensors", "pt")}
        own = {kind: dict(kwargs.pop(f"{kind}_kwargs", None) or {}) for kind in KINDS}
        if self.tokenizer is None:
            own["unit"] = own["text"] | own["unit"]
        known = {kind: self._arguments_of(kind) for kind in kinds}
        for name, value in kwargs.items():
            takers = [kind for kind in kinds if name in known[kind]]
            if takers and takers[0] in ("text", "unit"):
                takers = takers[:1]
            if len(takers) > 1:
                choice = " or ".join(f"{kind}_kwargs" for kind in takers)
                raise ValueError(f"{name} could be meant for either: pass it in {choice}")
            for kind in takers or kinds[:1]:  # where nobody takes it, the check below says so
                if name in own[kind]:
                    raise ValueError(f"{name} was passed twice, alone and in {kind}_kwargs: leave one out")
                own[kind][name] = value
        for kind in kinds:
            unknown = own[kind].keys() - known[kind] - common.keys()
            if unknown:
                part = type(getattr(self, KINDS[kind])).__name__
                raise ValueError(
                    f"{part} does not know {', '.join(sorted(unknown))}. It takes {', '.join(sorted(known[kind]))}"
                )
        return {kind: common | own[kind] for kind in kinds}

    def _arguments_of(self, kind: str) -> set[str]:
        """Names of the arguments that the part for one kind of input takes."""
        part = self._need(kind)
        if kind in ("text", "unit"):
            return set(TEXT_ARGUMENTS)
        if kind == "images" and hasattr(part, "valid_kwargs"):
            return set(part.valid_kwargs.__annotations__) - {"return_tensors"}
        _, *parameters = inspect.signature(part.__call__).parameters.values()
        return {one.name for one in parameters if one.kind is not one.VAR_KEYWORD} - {"return_tensors"}

    def _process_audio(self, audio, kwargs: dict[str, Any]) -> dict[str, Any]:
        extractor = self._need("audio")
        known = self._arguments_of("audio")
        clips = as_clips(audio)
        check_rate(clips, kwargs.pop("sampling_rate", None), extractor.sampling_rate)
        samples = [clip_samples(clip, index) for index, clip in enumerate(clips)]
        _check_lengths(samples, extractor)
        if extractor.model_input_names[0] == "input_values" and "padding" in known:
            # extractors of waveforms pad only when they are told; CAV-MAE's has a length of its own
            kwargs.setdefault("padding", getattr(extractor, "default_padding", True))
        if "return_attention_mask" in known:
            kwargs.setdefault("return_attention_mask", True)
        output = dict(extractor(samples, sampling_rate=extractor.sampling_rate, **kwargs))
        if "is_longer" in output:  # CLAP's extractor draws a clip of the batch to call longer where none is
            longer = output["is_longer"]
            output["is_longer"] = longer & False if hasattr(longer, "shape") else [[False] for _ in longer]
        return output

    def _process_images(self, images, kwargs: dict[str, Any]) -> dict[str, Any]:
        processor = self._need("images")
        if isinstance(images, (list, tuple)) and len(images) == 0:
            raise ValueError("no picture: pass at least one")
        if getattr(processor, "do_convert_rgb", False) is None:  # ViT's fails on grey pictures when nobody tells it
            kwargs.setdefault("do_convert_rgb", True)
        return dict(processor(images, **kwargs))

    def _process_text(self, text, kwargs: dict[str, Any]) -> dict[str, Any]:
        native = {"padding": self.text_padding, "truncation": True, "max_length": self.text_max_length}
        tokens = self._need("text")(_checked_texts(text), return_attention_mask=True, **(native | kwargs))
        return {"input_ids": tokens["input_ids"], "text_attention_mask": tokens["attention_mask"]}

    def _process_unit(self, text, kwargs: dict[str, Any]) -> dict[str, Any]:
        units = self._need("unit")(_checked_texts(text), return_attention_mask=True, **({"padding": True} | kwargs))
        return {"unit_ids": units["input_ids"], "unit_attention_mask": units["attention_mask"]}

    def batch_decode(self, *args, **kwargs) -> list[str]:
        """Token ids, such as a captioner's, to texts: the tokenizer's `batch_decode`."""
        return self._need("text").batch_decode(*args, **kwargs)

    def decode(self, *args, **kwargs) -> str:
        """One row of token ids to a text: the tokenizer's `decode`."""
        return self._need("text").decode(*args, **kwargs)

    def _need(self, kind: str):
        part = getattr(self, KINDS[kind])
        if part is None:
            what = {"audio": "sounds", "images": "pictures"}.get(kind, "texts")
            raise ValueError(
                f"this processor has no {KINDS[kind]}, so it takes no {what}. It has {', '.join(_parts_of(self))}; "
                f"set processor.{KINDS[kind]}, or build one with UniBriVLProcessor({KINDS[kind]}=...)"
            )
        return part


def _mask_name(extractor) -> str | None:
    """The key under which a feature extractor gives its mask, if it can."""
    if type(extractor).__name__ in NAMED_PADDING_MASK:
        return "padding_mask"
    return "attention_mask" if "return_attention_mask" in inspect.signature(extractor.__call__).parameters else None


def _check_lengths(samples: list, extractor) -> None:
    """Refuses clips of which the extractor would hear a part: Whisper's and AST's the beginning, CLAP's any."""
    longest = most_samples(extractor)
    for index, clip in enumerate(samples):
        if longest is not None and len(clip) > longest:
            rate = extractor.sampling_rate
            raise ValueError(
                f"clip {index} lasts {len(clip) / rate:.2f} s and {type(extractor).__name__} would hear "
                f"{longest / rate:.2f} s of it: cut it with unibrivl.split_windows, or pass the part you mean"
            )


def _checked_texts(text) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    if not texts or not all(isinstance(one, str) for one in texts):
        raise ValueError("text must be a string or a list of strings, and not empty")
    for index, one in enumerate(texts):
        if not one.strip():
            raise ValueError(f"text {index} is empty: leave it out, or put words in")
    return texts


def _tokenizer_beside(source, kwargs):
    """The tokenizer that lies beside a model, or None: transformers would make an empty one up."""
    places = ("revision", "token", "cache_dir", "local_files_only", "subfolder", "force_download")
    where = {name: kwargs[name] for name in places if name in kwargs}
    for name in TOKENIZER_FILES:
        if cached_file(source, name, _raise_exceptions_for_missing_entries=False, **where) is not None:
            return AutoTokenizer.from_pretrained(source, **kwargs)
    logger.warning(
        f"{source} brings no tokenizer, so the processor takes no texts for its tower. "
        "Set processor.tokenizer, or for SpeechLM processor.unit_tokenizer, to have them"
    )
    return None


__all__ = ["UniBriVLProcessor", "UniBriVLProcessorKwargs"]
