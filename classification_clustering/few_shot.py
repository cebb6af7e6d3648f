"""Few-shot classification under a criterion (paper, Table 1): logistic regression on I and on R.

    python classification_clustering/few_shot.py --config configs/clevr4.yaml vlm=clip shots=[1,5]

Prints and saves the accuracy in percent, mean and standard deviation over seeds. Draws t-SNE maps.
`representation=[paper,posterior,paper+posterior]` measures several R.
"""

from crl.run.command import command

import time

import numpy as np

from classification_clustering.inputs import EvaluateConfig, Inputs, load_inputs
from classification_clustering.method import conditional, few_shot, zero_shot
from classification_clustering.tables import notes, table
from crl.projection import standardise
from crl.run.config import load_config
from crl.run.figures import tsne_maps
from crl.run.files import alone_in
from crl.run.progress import progress
from crl.run.results import Run, array_digest, digest, summary


def measure(
    inputs: Inputs, r: np.ndarray, shots: list[int], seeds: int, known: dict
) -> dict[str, dict]:
    """Accuracy of I and of R over seeds, and zero-shot accuracy.

    Args:
        r: R, (N, K).
        known: keeps the scores of I, which representations and bases share.
    """

    def scores(x: np.ndarray, n: int) -> dict:
        bar = progress(range(seeds), label=f"{n}-shot", unit="seeds")
        return summary([few_shot(x, inputs.labels, n, seed) for seed in bar])

    universal = array_digest(inputs.universal), array_digest(inputs.labels), *shots, seeds
    if universal not in known:
        known[universal] = {f"{n}-shot": scores(inputs.universal, n) for n in shots}
    conditional = {f"{n}-shot": scores(r, n) for n in shots}
    measured = {"universal": known[universal], "conditional": conditional}
    if inputs.class_text is not None:
        accuracy = zero_shot(inputs.image, inputs.class_text, inputs.labels)
        measured["zero-shot"] = {"acc": summary([accuracy])}
    return measured


def draw(inputs: Inputs, found: dict[str, np.ndarray], run: Run) -> None:
    """Draw the t-SNE map of I and of each R (N, K), unless the file exists."""
    file = run.folder / f"tsne-{inputs.file_name(list(found))}.png"
    if not file.exists():
        shown = {"I": inputs.universal} | found
        tsne_maps(shown, inputs.labels, inputs.class_names, inputs.title, file)


def evaluate(config: EvaluateConfig, known: dict | None = None) -> Run:
    """Measure and draw what is missing in <outputs>/few_shot/<name>.

    Args:
        known: scores of I by earlier calls, see `measure`; this call adds its own.
    """
    known = {} if known is None else known
    folder = config.outputs / "few_shot" / config.name
    with alone_in(folder):
        run = Run(folder, config.model_dump(mode="json"))
        for inputs in load_inputs(config, at_least=max(config.shots) + 1):  # one to test on
            found = {}
            for representation in config.representation:
                how = representation, standardise, config.sharpness, inputs.removed
                r = conditional(inputs.image, inputs.text, *how)  # R = I Tᵀ, (N, K), standardised
                about = inputs.about | config.about(representation)
                found[about["representation"]] = r
                key = digest(
                    "few-shot", inputs.digest, about["representation"], config.shots, config.seeds
                )
                if not run.finished(key):
                    start = time.perf_counter()
                    scores = measure(inputs, r, config.shots, config.seeds, known)
                    run.add(key, **about, scores=scores, seconds=time.perf_counter() - start)
            if config.figures:
                draw(inputs, found, run)
    return run


@command
def main(argv: list[str]) -> None:
    config = load_config(EvaluateConfig, argv, __doc__)
    run = evaluate(config)
    print(table(run.cells, f"Few-shot accuracy ({config.seeds} seeds, percent)").text())
    for note in notes(run.cells):
        print(f"note: {note}")
    print(f"results and figures: {run.folder}")


if __name__ == "__main__":
    main()
