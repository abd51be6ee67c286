"""The stages of a base release, each under its own key, so that a killed build goes on where it stopped.

calibration → sensitivities → options (if there is a choice of formats) → palettized → tuned (if the recipe asks for
it) → recovery → aimodel → evidence → release. Nothing heavy is imported before a stage is built: keys are asked for by
commands that build nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from adapters.code import code_digest
from adapters.palettization.assemble import AIMODEL, assemble_release
from adapters.palettization.recipe import ReleaseRecipe
from infra.canonical import digest
from infra.compute import Compute
from infra.store import Stage, Store

_CPU = Compute()


def release_lineage(base_digest: str, recipe: ReleaseRecipe) -> dict[str, str]:
    """What decides the files of the release that `recipe` would make of a base model now; nothing is run.

    The evidence is left out: other gates judge a release anew, they do not make another one, and no adapter is stale.
    """
    nowhere = Path()  # keys depend on digests alone
    return _lineage(base_digest, release_stages(nowhere, base_digest, recipe, Store(nowhere)))


def _lineage(base_digest: str, stages: Sequence[Stage]) -> dict[str, str]:
    makes_files = ("palettized", "tuned", "recovery", "aimodel")
    return {"base_model": base_digest} | {stage.name: stage.key for stage in stages if stage.name in makes_files}


def release_stages(
    base: Path, base_digest: str, recipe: ReleaseRecipe, store: Store, compute: Compute = _CPU
) -> list[Stage]:
    """All stages in the order in which `store` must build them; the last one's output is the release folder.

    Args:
        base: the full-precision base model in Hugging Face's layout.
        base_digest: digest of its content.
    """

    def output_of(stage: Stage) -> Path:
        return store.entry(stage.name, stage.key) / "output"

    def build_calibration(output: Path, scratch: Path) -> None:
        from adapters.palettization.calibration import write_calibration

        write_calibration(base, recipe.calibration, output, compute.dtype, compute.device)

    calibration = Stage(
        "calibration",
        {"base": base_digest, **recipe.calibration.key, "code": code_digest("adapters.palettization.calibration")},
        build_calibration,
    )

    def build_sensitivities(output: Path, scratch: Path) -> None:
        from adapters.palettization.sensitivities import write_sensitivities

        write_sensitivities(base, output_of(calibration), recipe.sensitivities, output, compute.dtype, compute.device)

    sensitivities = Stage(
        "sensitivities",
        {
            "calibration": calibration.key,
            "recipe": recipe.sensitivities.digest,
            "code": code_digest("adapters.palettization.sensitivities"),
        },
        build_sensitivities,
    )

    section = recipe.palettization

    def build_options(output: Path, scratch: Path) -> None:
        from adapters.palettization.formats import write_options

        write_options(base, output_of(calibration), output_of(sensitivities), section, output, compute.device)

    options = Stage(
        "options",
        {
            "sensitivities": sensitivities.key,
            "recipe": section.options_key,
            "code": code_digest("adapters.palettization.formats"),
        },
        build_options,
    )
    chosen = options if section.bits_per_weight else None

    def build_palettized(output: Path, scratch: Path) -> None:
        from adapters.palettization.palettize import write_palettized

        before, costs = (output_of(calibration), output_of(sensitivities)), output_of(chosen) if chosen else None
        write_palettized(base, *before, section, output, compute.device, costs)

    palettized = Stage(
        "palettized",
        {
            "before": (chosen or sensitivities).key,
            "recipe": section.digest,
            "code": code_digest("adapters.palettization.palettize"),
        },
        build_palettized,
    )

    def build_tuned(output: Path, scratch: Path) -> None:
        from adapters.palettization.tuning import tune_tables

        before = output_of(palettized)
        tune_tables(base, before, output_of(calibration), recipe.tuning, output, scratch, compute.dtype, compute.device)

    tuned = Stage(
        "tuned",
        {
            "palettized": palettized.key,
            "recipe": recipe.tuning.digest,
            "code": code_digest("adapters.palettization.tuning"),
        },
        build_tuned,
    )
    weights = tuned if recipe.tuning.steps else palettized

    def build_recovery(output: Path, scratch: Path) -> None:
        from adapters.palettization.recovery import train_recovery

        folders = base, output_of(weights), output_of(calibration)
        train_recovery(*folders, base_digest, recipe.recovery, output, scratch, compute.dtype, compute.device)

    recovery = Stage(
        "recovery",
        {
            "weights": weights.key,
            "recipe": recipe.recovery.digest,
            "code": code_digest("adapters.palettization.recovery"),
        },
        build_recovery,
    )

    def build_aimodel(output: Path, scratch: Path) -> None:
        from adapters.device.coreai_export import export_aimodel

        export_aimodel(output_of(weights), output / AIMODEL, recipe.export)

    aimodel = Stage(
        "aimodel",
        {
            "weights": weights.key,
            "recipe": recipe.export.digest,
            "code": code_digest("adapters.device.coreai_export"),
        },
        build_aimodel,
    )

    def build_evidence(output: Path, scratch: Path) -> None:
        from adapters.palettization.evidence import write_evidence

        asset = output_of(aimodel) / AIMODEL
        write_evidence(base, output_of(weights), output_of(recovery), asset, recipe, output, compute.device)

    evidence = Stage(
        "evidence",
        {
            "recovery": recovery.key,
            "aimodel": aimodel.key,
            "recipe": recipe.gates.digest,
            "text": recipe.gates.text.key,
            "code": code_digest("adapters.palettization.evidence"),
        },
        build_evidence,
    )

    def build_release(output: Path, scratch: Path) -> None:
        assemble_release(
            digest(_lineage(base_digest, [weights, recovery, aimodel])),
            base_digest,
            recipe,
            palettized=output_of(weights),
            recovery=output_of(recovery),
            aimodel=output_of(aimodel),
            evidence=output_of(evidence),
            output=output,
        )

    release = Stage(
        "release",
        {"evidence": evidence.key, "code": code_digest("adapters.palettization.assemble")},
        build_release,
    )
    weights_stages = [*([chosen] if chosen else []), palettized, *([tuned] if weights is tuned else [])]
    return [calibration, sensitivities, *weights_stages, recovery, aimodel, evidence, release]


def exploration_stages(
    base: Path, base_digest: str, recipe: ReleaseRecipe, store: Store, compute: Compute = _CPU
) -> list[Stage]:
    """The stages of a trade-off, arguments as for `release_stages`; the last one's output holds `tradeoff.json`."""
    section = recipe.palettization if recipe.palettization.bits_per_weight else recipe.with_target(4.0).palettization
    apart = recipe.model_copy(update={"palettization": section.model_copy(update={"compensate": False})})
    *before, options = release_stages(base, base_digest, apart, store, compute)[:3]

    def build_tradeoff(output: Path, scratch: Path) -> None:
        from adapters.palettization.tradeoff import write_tradeoff

        sensitivities, found = (store.entry(stage.name, stage.key) / "output" for stage in (before[-1], options))
        write_tradeoff(base, sensitivities, found, recipe.gates.text, output, compute.device)

    tradeoff = Stage(
        "tradeoff",
        {"options": options.key, "text": recipe.gates.text.key, "code": code_digest("adapters.palettization.tradeoff")},
        build_tradeoff,
    )
    return [*before, options, tradeoff]
