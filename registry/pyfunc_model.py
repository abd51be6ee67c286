"""The script that MLflow keeps with every registered adapter and runs to load it (models from code, no pickle).

    mlflow.set_tracking_uri("sqlite:///.factory/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/adapter-summarization@production")
    model.predict(["Hi all, the meeting moved to Thursday ..."])                           # the first use case
    model.predict([{"use_case": "messages", "input": "Ann: are we still on for six? ..."}])  # or a dataframe

The factory must be importable where it runs. `load_model(..., model_config={"device": "cuda"})` picks a device.
"""

import warnings
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel, PythonModelContext


class _Answers:
    """One feature's adapter over its palettized base release."""

    def load_context(self, context: PythonModelContext) -> None:
        """Check package and base release by digest and load them.

        Raises:
            FactoryError: what MLflow holds is not what was registered.
        """
        import torch
        import transformers

        from adapters.device.package import verify_package
        from adapters.inference.generator import LocalGenerator
        from adapters.inference.models import load_tokenizer
        from adapters.palettization.release import load_release
        from adapters.training.lora import merge_adapter
        from infra.canonical import digest_folder
        from infra.compute import Compute
        from infra.errors import FactoryError

        config = context.model_config
        package = Path(context.artifacts["package"])
        self._metadata = verify_package(package)
        release = Path(mlflow.artifacts.download_artifacts(config["base_release"]))
        for what, found, registered in (
            (package, self._metadata.digest, config["package"]),
            (release, digest_folder(release), self._metadata.base_release_digest),
        ):
            if found != registered:
                raise FactoryError(f"{what}: not what was registered; register the version again")
        # The process is somebody else's: no progress bars or libraries' warnings in it.
        transformers.utils.logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = merge_adapter(load_release(release, torch.float32, config["device"]), package)
        dtype = Compute(config["device"], config["precision"]).dtype
        self._generator = LocalGenerator(model.to(dtype), load_tokenizer(release))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Answers, in order, for texts (of the first use case) or for rows with `input` and maybe `use_case`.

        Raises:
            FactoryError: an unknown use case, or a row without input.
        """
        from adapters.inference.types import Prompt, Sampling

        by_length: dict[int, list[int]] = {}
        prompts: list[Prompt] = []
        for place, row in enumerate(_rows(model_input)):
            use_case, text = self._read(row)
            prompts.append(Prompt(self._metadata.system, use_case.prompt.replace("{input}", text)))
            by_length.setdefault(use_case.max_new_tokens, []).append(place)
        answers = [""] * len(prompts)
        for max_new_tokens, places in by_length.items():
            sampling = Sampling(max_new_tokens=max_new_tokens)
            found = self._generator.generate([prompts[place] for place in places], sampling)
            for place, candidates in zip(places, found, strict=True):
                answers[place] = candidates[0].text
        return answers

    def _read(self, row: Any) -> tuple[Any, str]:
        """The use case and the input of one row."""
        from infra.errors import FactoryError

        use_cases = self._metadata.use_cases
        fields = row if isinstance(row, dict) else {"input": row}
        name, text = fields.get("use_case") or next(iter(use_cases)), fields.get("input")
        if name not in use_cases:
            raise FactoryError(f"use case {name!r}: {self._metadata.feature} has {', '.join(use_cases)}")
        if not isinstance(text, str) or not text.strip():
            raise FactoryError("each row needs a text in `input`")
        return use_cases[name], text


def _rows(model_input: Any) -> list[Any]:
    """Rows of whatever MLflow passes: a list, or a dataframe."""
    if hasattr(model_input, "to_dict"):
        return list(model_input.to_dict("records"))
    return [model_input] if isinstance(model_input, str | dict) else list(model_input)


class AdapterModel(_Answers, PythonModel):
    """The same for MLflow, which warns of every subclass that itself defines a `predict` without type hints.

    With hints it would refuse all but one of the kinds of input.
    """


mlflow.models.set_model(AdapterModel())
